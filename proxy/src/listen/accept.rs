//! One socket's loop: accept until told to stop, then empty the queue before closing, since the kernel resets whatever is
//! still queued on a socket that closes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Out of descriptors or memory: others may give some back meanwhile.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// Hands every connection to `each`, which must not wait, until `stop` fires or its sender is gone.
pub async fn accept_until(
    listener: TcpListener,
    mut stop: oneshot::Receiver<()>,
    mut each: impl FnMut(io::Result<(TcpStream, SocketAddr)>),
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let pause = accepted.as_ref().is_err_and(is_exhausted);
        each(accepted);
        if pause {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
    while let Some(Ok(queued)) = accept_now(&listener) {
        each(Ok(queued));
    }
}

/// One connection that is queued already.
fn accept_now(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match listener.poll_accept(&mut context) {
        std::task::Poll::Ready(accepted) => Some(accepted),
        std::task::Poll::Pending => None,
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    // Nothing about one connection, and no better at once.
    use nix::errno::Errno;
    error
        .raw_os_error()
        .map(Errno::from_raw)
        .is_some_and(|errno| matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
