//! Stands before the engine's socket as a filtering proxy does: lets reading through and nothing else, and cuts when told to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    /// Requests that were no GET.
    pub refused: Arc<AtomicU32>,
}

impl Proxy {
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let refused = Arc::new(AtomicU32::new(0));
        let count = refused.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let mut closing = is_open.clone();
                let (socket, count) = (socket.clone(), count.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = closing.wait_for(|open| !open) => {}
                        () = carry(connection, socket, count) => {}
                    }
                });
            }
        });
        Self { address, open, refused }
    }

    /// Closes what is open and whatever comes, until [`Self::mend`].
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn carry(mut client: TcpStream, socket: PathBuf, refused: Arc<AtomicU32>) {
    let mut verb = [0; 4];
    if client.read_exact(&mut verb).await.is_err() {
        return;
    }
    if verb != *b"GET " {
        refused.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Ok(mut engine) = UnixStream::connect(socket).await else { return };
    if engine.write_all(&verb).await.is_ok() {
        // Either side may hang up as it likes.
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}
