//! What runs inside the containers: it accepts on 8080, and on 8081 it is told, or tells, whether it is healthy.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

static STATE: AtomicU8 = AtomicU8::new(b'h');

/// How long it takes its leave after SIGTERM, so that a test can see it drain.
const LEAVE: Duration = Duration::from_millis(1500);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Until SIGTERM. A `stubborn` one hears none, and an `idle` one serves nothing.
pub fn serve(manner: Option<&str>) -> ExitCode {
    block_on(async move {
        if manner == Some("idle") {
            return std::future::pending().await;
        }
        let served = TcpListener::bind(("0.0.0.0", 8080)).await.unwrap();
        let told = TcpListener::bind(("0.0.0.0", 8081)).await.unwrap();
        let mut terminated = signal(SignalKind::terminate()).unwrap();
        loop {
            tokio::select! {
                _ = served.accept() => {}
                Ok((connection, _)) = told.accept() => tell(connection).await,
                _ = terminated.recv(), if manner != Some("stubborn") => {
                    tokio::time::sleep(LEAVE).await; // a slow peer
                    return ExitCode::SUCCESS;
                }
            }
        }
    })
}

/// `h` and `u` set the state, anything else asks for it.
async fn tell(mut connection: TcpStream) {
    let mut word = [0];
    if connection.read_exact(&mut word).await.is_ok() {
        if matches!(word[0], b'h' | b'u') {
            STATE.store(word[0], Ordering::Relaxed);
        }
        // Whoever hung up does not want to know.
        let _ = connection.write_all(&[STATE.load(Ordering::Relaxed)]).await;
    }
}

/// The HEALTHCHECK: asks the server beside it.
pub fn health() -> ExitCode {
    let answer = block_on(say("127.0.0.1:8081", b'?'));
    if answer.ok() == Some(b'h') { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub async fn say(address: &str, word: u8) -> std::io::Result<u8> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(&[word]).await?;
    connection.read_u8().await
}
