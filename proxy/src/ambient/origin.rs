//! Upstream connections of captured callers: opened in their own namespace, so that reach and source address are theirs, and
//! marked, so that they are not captured once more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::Domain;
use tokio::net::TcpSocket;

use super::plan::Wanted;
use crate::intercept::capture::UPSTREAM_MARK;
use crate::intercept::netns::{NetworkNamespace, mark, tcp_socket_in};
use crate::upstream::connect::{OpenSocket, Origin};

/// One namespace; `None` is the process's own.
#[derive(Debug)]
struct InNamespace(Option<NetworkNamespace>);

impl OpenSocket for InNamespace {
    fn open(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = tcp_socket_in(self.0.as_ref(), Domain::for_address(address)).map_err(io::Error::other)?;
        mark(&socket, UPSTREAM_MARK).map_err(io::Error::other)?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }
}

/// Where calls out of `namespace` come from.
pub(super) fn origin(id: u64, namespace: Option<NetworkNamespace>, wanted: &Wanted) -> Origin {
    let (source, networks) = (Arc::clone(&wanted.source), Arc::clone(&wanted.networks));
    Origin { id, source, networks, network: Arc::new(InNamespace(namespace)) }
}
