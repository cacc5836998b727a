//! Listening sockets, one per worker on one address.
//!
//! SO_REUSEPORT lets workers share an address, and would let two processes share it in silence. So the first socket is bound
//! without it, which proves that the port is free, and gets the option once it is bound; the others join it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// `count` listening sockets on `address`; port 0 takes a free one, the same for all.
///
/// # Errors
/// [`BindError`] when somebody else has the port, or the address is none of this host.
pub fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError { address, source };
    let first = open(address).map_err(failed)?;
    first.bind(&address.into()).map_err(failed)?;
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
        assert_eq!(bind(address, 1).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind(address, 2).is_ok());
    }
}
