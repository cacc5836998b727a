//! A channel to the control plane, by address or name. The system's own resolver is never called: it does not work in a static
//! binary.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use http::Uri;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A connection that says nothing for this long is asked whether it is still there ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// ... and given up when it does not say so within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no channel.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("{server:?} is no control plane; HOST:PORT such as 127.0.0.1:14010 is wanted")]
    Address { server: String, source: tonic::transport::Error },
    #[error("cannot connect to the control plane at {server}")]
    Connect { server: String, source: tonic::transport::Error },
}

pub(super) async fn connect(server: &str) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .map_err(|source| ConnectError::Address { server: server.to_owned(), source })?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = service_fn(|uri: Uri| async move { dial(&uri).await.map(TokioIo::new) });
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|source| ConnectError::Connect { server: server.to_owned(), source })
}

/// Every address of the host, until one takes the connection.
async fn dial(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a port is wanted"))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in resolve(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(io::Error::other)?;
    let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    Ok(found.iter().collect())
}
