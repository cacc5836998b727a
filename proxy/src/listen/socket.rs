//! Listening sockets, one per worker on one address.
//!
//! SO_REUSEPORT lets workers share an address, and would let two processes share it in silence. So the first socket is bound
//! without it, which proves that the port is free, and gets the option once it is bound; the others join it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

const BACKLOG: i32 = 4096;

/// A silent connection is probed after this long, so that the kernel finds out about a peer that is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// An address that cannot be listened on, and what to do.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {cause}; {}", advice(*address, cause))]
pub struct BindError {
    pub address: SocketAddr,
    pub cause: io::Error,
}

/// `count` listening sockets on `address`; port 0 takes a free one, the same for all.
///
/// # Errors
/// [`BindError`] when somebody else has the port, or the address is none of this host.
pub fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |cause| BindError { address, cause };
    let first = open(address).map_err(failed)?;
    first.bind(&address.into()).map_err(failed)?;
    share(first, address, count)
}

/// As [`bind`], from a socket that is bound already.
///
/// # Errors
/// [`BindError`] when the others cannot join it.
pub fn bind_from(first: TcpListener, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let address = first.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    share(first.into(), address, count)
}

fn share(first: Socket, address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |cause| BindError { address, cause };
    let bound = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    first.set_reuse_port(true).map_err(failed)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let next = open(address).map_err(failed)?;
        next.set_reuse_port(true).map_err(failed)?;
        next.bind(&bound.into()).map_err(failed)?;
        sockets.push(next);
    }
    // Listening begins when all are bound, so that none takes what belongs to another.
    sockets.into_iter().map(|socket| listen(socket).map_err(failed)).collect()
}

/// What every connection that a socket accepts gets: it is inherited, so that none of them has to ask for it. A failure is no
/// reason to accept nothing.
pub fn tune(socket: &TcpListener) {
    let (socket, keepalive) =
        (SockRef::from(socket), TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4));
    if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        tracing::debug!(%error, "socket options were refused");
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last life to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn advice(address: SocketAddr, cause: &io::Error) -> String {
    let port = address.port();
    match cause.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens on port {port} there, or on all addresses (`ss -Hltnp sport = :{port}` shows it): end it, \
             or let it listen on another address or port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}: give it one, or name another", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {port} takes root or the capability NET_BIND_SERVICE: give it that, or take another port")
        }
        _ => "the message says why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn workers_share_one_port_that_others_cannot_join() {
        let sockets = bind(loopback(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind(address, 1).unwrap_err().cause.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind(address, 2).is_ok());
        let first = TcpListener::bind(loopback()).unwrap();
        let address = first.local_addr().unwrap();
        let sockets = bind_from(first, 3).unwrap();
        assert!(sockets.len() == 3 && sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
    }

    #[test]
    fn connections_inherit_what_their_socket_was_told() {
        let socket = bind(loopback(), 1).unwrap().remove(0);
        socket.set_nonblocking(false).unwrap();
        tune(&socket);
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let accepted = Socket::from(socket.accept().unwrap().0);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), KEEPALIVE / 4);
    }
}
