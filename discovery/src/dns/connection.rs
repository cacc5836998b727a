//! One TCP connection (RFC 7766): queries are read as they come and answered as each is done, in whatever order, so that one
//! that waits for an upstream holds up none of the others (section 6.2.1.1).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::task::drain::Drain;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Transport;
use super::server::{Shared, Step};

/// How long a TCP client may be silent, and may take to read or write one message (RFC 7766 section 6.2.3).
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Queries of one connection that may wait for upstreams at once; what comes beyond them waits in the kernel.
pub const TCP_FORWARDS_MAX: usize = 32;

/// Answers that may wait to be written.
const REPLIES_MAX: usize = 16;

/// Serves one client until it is silent for too long, hangs up, or draining begins; what it asked before is answered.
pub(super) async fn serve(stream: TcpStream, client: IpAddr, shared: Arc<Shared>, drain: Drain) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let (replies, outgoing) = mpsc::channel(REPLIES_MAX);
    let write = write_replies(writing, outgoing);
    let read = read_queries(reading, client, shared, replies, drain);
    tokio::pin!(write, read);
    let ended = tokio::select! {
        // Nobody takes answers any more.
        failed = &mut write => return failed,
        ended = &mut read => ended,
    };
    // Ends with the last answer that is under way.
    write.await.and(ended)
}

async fn read_queries(
    mut stream: impl AsyncRead + Unpin,
    client: IpAddr,
    shared: Arc<Shared>,
    replies: mpsc::Sender<Vec<u8>>,
    mut drain: Drain,
) -> io::Result<()> {
    let mut random = fastrand::Rng::new();
    let permits = Arc::new(Semaphore::new(TCP_FORWARDS_MAX));
    let mut forwards = JoinSet::new();
    let ended = loop {
        let query = tokio::select! {
            query = next_query(&mut stream) => query,
            () = drain.started() => break Ok(()),
        };
        while forwards.try_join_next().is_some() {}
        let query = match query {
            Ok(query) => query,
            Err(error) => break Err(error),
        };
        match shared.decide(&query, client, Transport::Tcp, &mut random) {
            Step::Ignore => break Ok(()),
            Step::Reply(reply) => {
                if replies.send(reply).await.is_err() {
                    break Ok(());
                }
            }
            Step::Forward => {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                let (shared, replies) = (shared.clone(), replies.clone());
                forwards.spawn(async move {
                    if let Some(reply) = shared.forward(&query, Transport::Tcp).await {
                        // Who hung up does not want to know.
                        let _ = replies.send(reply).await;
                    }
                    drop(permit);
                });
            }
        }
    };
    // Answered beside the writing, which goes on until the last of them is done.
    forwards.detach_all();
    ended
}

async fn next_query(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let len = timeout(TCP_IDLE_TIMEOUT, stream.read_u16()).await??;
    let mut query = vec![0; usize::from(len)];
    timeout(TCP_IDLE_TIMEOUT, stream.read_exact(&mut query)).await??;
    Ok(query)
}

async fn write_replies(mut stream: impl AsyncWrite + Unpin, mut outgoing: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(reply) = outgoing.recv().await {
        // Length and message in one write (RFC 7766 section 8).
        let len = u16::try_from(reply.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let framed = [len.to_be_bytes().as_slice(), &reply].concat();
        timeout(TCP_IDLE_TIMEOUT, stream.write_all(&framed)).await??;
    }
    Ok(())
}
