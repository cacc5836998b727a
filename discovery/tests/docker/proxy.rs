//! Stands before the engine's socket as a filtering proxy does: lets reading through and nothing else, or all; cuts, or falls
//! silent, when told to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// How it treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Open,
    /// Closes them.
    Cut,
    /// Takes them, and says nothing.
    Stalled,
}

pub struct Proxy {
    pub address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Requests that were no GET.
    pub refused: Arc<AtomicU32>,
}

impl Proxy {
    /// Lets reading through alone.
    pub async fn start(socket: PathBuf) -> Self {
        Self::listen(socket, true).await
    }

    /// Lets everything through.
    pub async fn start_for_all(socket: PathBuf) -> Self {
        Self::listen(socket, false).await
    }

    async fn listen(socket: PathBuf, only_reading: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, moods) = watch::channel(Mood::Open);
        let refused = Arc::new(AtomicU32::new(0));
        let count = only_reading.then(|| refused.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let mut moods = moods.clone();
                let (socket, count) = (socket.clone(), count.clone());
                tokio::spawn(async move {
                    let begun_in = *moods.borrow_and_update();
                    let carried = async {
                        match begun_in {
                            Mood::Open => carry(connection, socket, count).await,
                            Mood::Cut => {}
                            // Held open until the mood changes; then closed.
                            Mood::Stalled => {
                                let _held = connection;
                                std::future::pending().await
                            }
                        }
                    };
                    tokio::select! {
                        _ = moods.changed() => {}
                        () = carried => {}
                    }
                });
            }
        });
        Self { address, mood, refused }
    }

    /// Closes what is open and whatever comes, until [`Self::mend`].
    pub fn cut(&self) {
        self.mood.send_replace(Mood::Cut);
    }

    /// Closes what is open, and answers nothing that comes, until [`Self::mend`].
    pub fn stall(&self) {
        self.mood.send_replace(Mood::Stalled);
    }

    pub fn mend(&self) {
        self.mood.send_replace(Mood::Open);
    }
}

/// With a counter, what is no GET is counted and not let through.
async fn carry(mut client: TcpStream, socket: PathBuf, refused: Option<Arc<AtomicU32>>) {
    let mut verb = [0; 4];
    if client.read_exact(&mut verb).await.is_err() {
        return;
    }
    if let Some(refused) = refused.filter(|_| verb != *b"GET ") {
        refused.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Ok(mut engine) = UnixStream::connect(socket).await else { return };
    if engine.write_all(&verb).await.is_ok() {
        // Either side may hang up as it likes.
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}
