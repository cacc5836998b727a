//! Stage 0, last step: where was this redirected connection going?
//!
//! The redirect rewrote the destination to our listener; connection tracking remembers the one that was dialled, and
//! tells it by `getsockopt(SO_ORIGINAL_DST)` (`linux/netfilter_ipv4.h`; `IP6T_SO_ORIGINAL_DST` for IPv6).
//!
//! The question is asked of the namespace the socket was made in, so it can be asked from any thread.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use nix::errno::Errno;
use socket2::SockRef;

/// The kernel would not say where a connection was going.
#[derive(Debug, thiserror::Error)]
pub enum OriginalDestinationError {
    #[error("cannot read the local address of an accepted connection")]
    LocalAddress { source: io::Error },
    #[error("cannot read the original destination of the connection accepted at {local}")]
    Lookup { local: SocketAddr, source: io::Error },
}

/// What the client of the accepted connection `socket` dialled; `None` when it dialled our listener itself.
///
/// An IPv4 client of an IPv6 socket is answered as IPv4.
///
/// # Errors
/// See [`OriginalDestinationError`]. A kernel without connection tracking, and a connection it does not know, are not
/// errors: both mean that nothing was redirected.
pub fn original_destination(socket: &impl AsFd) -> Result<Option<SocketAddr>, OriginalDestinationError> {
    let socket = SockRef::from(socket);
    let local = socket.local_addr().map_err(|source| OriginalDestinationError::LocalAddress { source })?;
    let Some(local) = local.as_socket().map(unmapped) else { return Ok(None) };
    let answer = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match answer {
        Ok(dialled) => Ok(dialled.as_socket().map(unmapped).filter(|dialled| !same(*dialled, local))),
        Err(error) if is_untracked(&error) => Ok(None),
        Err(source) => Err(OriginalDestinationError::Lookup { local, source }),
    }
}

/// ENOENT: no such entry, or it has expired. ENOPROTOOPT, EOPNOTSUPP: no connection tracking in this kernel.
fn is_untracked(error: &io::Error) -> bool {
    let Some(number) = error.raw_os_error() else { return false };
    matches!(Errno::from_raw(number), Errno::ENOENT | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP)
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// IPv6 scope and flow info play no part in what was dialled.
fn same(left: SocketAddr, right: SocketAddr) -> bool {
    (left.ip(), left.port()) == (right.ip(), right.port())
}
