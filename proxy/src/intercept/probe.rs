//! Stage 0, asked beforehand: can this process capture anything on this kernel?
//!
//! It tries the real thing, in a network namespace of a thread of its own: captures it, dials a virtual IP, and asks
//! where the connection was going. The namespace vanishes with the thread, and nothing of the host is touched.
//!
//! Deliberately absent: reading kernel versions, configuration or capability sets, which say less.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::capture::{CaptureConfig, CaptureError, Captured};
use super::nftables::Ownership;
use super::original_dst::{OriginalDestinationError, original_destination};

/// A dial within one namespace takes microseconds; the kernel answers a refused one at once.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why capture would not work here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot start a thread")]
    Thread { source: io::Error },
    #[error("cannot make a network namespace: CAP_SYS_ADMIN is needed (unshare(2))")]
    Unshare { source: io::Error },
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(
        "a connection to the captured address {target} did not arrive: the kernel took the rules, but does not redirect"
    )]
    NotRedirected { target: SocketAddr, source: io::Error },
    #[error(transparent)]
    OriginalDestination(#[from] OriginalDestinationError),
    #[error(
        "a connection to {target} arrived as one to {found:?}: connection tracking does not tell original destinations"
    )]
    WrongDestination { target: SocketAddr, found: Option<SocketAddr> },
    #[error("the probing thread panicked")]
    Panicked,
}

/// Tries to capture, as `config` says. Blocks for some 50 ms. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
///
/// # Errors
/// See [`ProbeError`].
pub fn probe(config: &CaptureConfig) -> Result<Ownership, ProbeError> {
    let config = config.clone();
    let thread = thread::Builder::new()
        .name("capture-probe".to_owned())
        .spawn(move || {
            // Of this thread alone, which ends here and never enters another.
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| ProbeError::Unshare { source: errno.into() })?;
            capture_here(&config)
        })
        .map_err(|source| ProbeError::Thread { source })?;
    thread.join().unwrap_or(Err(ProbeError::Panicked))
}

fn capture_here(config: &CaptureConfig) -> Result<Ownership, ProbeError> {
    let mut captured = Captured::open(None, config)?;
    let target = SocketAddr::new(config.virtual_ips.addr().into(), 80);
    let listeners = captured.take_listeners();
    let failed = |source| ProbeError::NotRedirected { target, source };
    let _client = TcpStream::connect_timeout(&target, DIAL_TIMEOUT).map_err(failed)?;
    // The dial has succeeded, so one of the backlogs holds it; the listeners do not block.
    let mut accepted = Err(io::ErrorKind::WouldBlock.into());
    for worker in &listeners {
        accepted = accepted.or_else(|_| worker.ipv4.accept());
    }
    let (server, _) = accepted.map_err(failed)?;
    match original_destination(&server)? {
        Some(found) if found == target => Ok(captured.ownership()),
        found => Err(ProbeError::WrongDestination { target, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::netns::NetworkNamespace;
    use super::super::tests::is_root;
    use super::*;

    #[test]
    fn a_probe_succeeds_and_leaves_this_thread_where_it_was() {
        if !is_root() {
            return;
        }
        let here = || NetworkNamespace::open("/proc/thread-self/ns/net").unwrap().id();
        let before = here();
        let config = CaptureConfig { workers: 2, ..CaptureConfig::default() };
        assert_eq!(probe(&config).unwrap(), Ownership::Socket);
        assert_eq!(here(), before);
        // Nothing of it was done to the host: it can be done again.
        probe(&config).unwrap();
    }
}
