//! What the threads of an origin write down and a test waits for, and what every origin needs of its sockets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::world::DEADLINE;

/// Notes that threads change, and a test looks at.
#[derive(Debug, Default)]
pub struct Watched<L> {
    log: Mutex<L>,
    changed: Condvar,
}

impl<L> Watched<L> {
    pub fn new(log: L) -> Self {
        Self { log: Mutex::new(log), changed: Condvar::new() }
    }

    /// Also after a test has failed with it in its hands: whoever still runs has to come to its end.
    pub fn log(&self) -> MutexGuard<'_, L> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tell(&self) {
        self.changed.notify_all();
    }

    /// Waits until `look` finds something; `shown` is said when it does not.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&L) -> Option<T>, shown: impl Fn(&L) -> String) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut log = self.log();
        loop {
            if let Some(found) = look(&log) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "the origin waited for {what} in vain: {}", shown(&log));
            log = self.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Whoever comes faster than the test accepts has to wait, not to try again in a second.
pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Whether all that came has been read, and more may come.
pub fn is_drained(stream: &TcpStream) -> bool {
    recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Err(Errno::EAGAIN)
}
