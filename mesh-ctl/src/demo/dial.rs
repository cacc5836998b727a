//! How a shop service calls the next one: over kept-alive HTTP/1.1 connections, by the name that stands in its configuration.
//! With `http_proxy` set it asks that proxy, as any program would; else it looks the name up and dials it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 64 << 10;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Kept-alive connections that wait for the next call.
const IDLE_MAX: usize = 64;

/// Why a call had no answer.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("{url:?} is no URL such as http://api:8080")]
    Url { url: String },
    #[error("{host} cannot be resolved")]
    Resolve { host: String, source: hickory_resolver::net::NetError },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("no connection to {address}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("the connection broke")]
    Http { source: hyper::Error },
    #[error("the answer was cut or too long")]
    Body,
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

/// Calls one service, over and over.
#[derive(Debug, Clone)]
pub struct Dialer {
    target: Uri,
    proxy: Option<SocketAddr>,
    idle: Arc<Mutex<Vec<SendRequest<Empty<Bytes>>>>>,
}

impl Dialer {
    /// A caller of `url`, through `proxy` where there is one.
    ///
    /// # Errors
    /// [`DialError::Url`] when it has no host.
    pub fn new(url: &str, proxy: Option<SocketAddr>) -> Result<Self, DialError> {
        let target: Uri = url.parse().map_err(|_| DialError::Url { url: url.to_owned() })?;
        if target.host().is_none() {
            return Err(DialError::Url { url: url.to_owned() });
        }
        Ok(Self { target, proxy, idle: Arc::default() })
    }

    /// The status and body of `GET path`.
    ///
    /// # Errors
    /// [`DialError`]; nothing is tried again here: that is the mesh's part.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), DialError> {
        tokio::time::timeout(CALL_TIMEOUT, self.exchange(path)).await.map_err(|_| DialError::Timeout)?
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), DialError> {
        let http = |source| DialError::Http { source };
        let mut sender = match self.reuse() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await.map_err(http)?;
        let response = sender.send_request(self.request(path)?).await.map_err(http)?;
        let status = response.status();
        let is_last = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|_| DialError::Body)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_last && idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok((status, body.to_bytes()))
    }

    /// A waiting connection that its peer has not closed, as far as is known.
    fn reuse(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, DialError> {
        let authority = self.target.authority().map_or("", |authority| authority.as_str());
        let uri = if self.proxy.is_some() { format!("http://{authority}{path}") } else { path.to_owned() };
        let request = Request::get(uri).header(header::HOST, authority).body(Empty::new());
        request.map_err(|_| DialError::Url { url: path.to_owned() })
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, DialError> {
        let address = match self.proxy {
            Some(proxy) => proxy,
            None => self.resolve().await?,
        };
        let stream = TcpStream::connect(address).await.map_err(|source| DialError::Connect { address, source })?;
        stream.set_nodelay(true).map_err(|source| DialError::Connect { address, source })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| DialError::Http { source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %address, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn resolve(&self) -> Result<SocketAddr, DialError> {
        let host = self.target.host().unwrap_or_default();
        let port = self.target.port_u16().unwrap_or(80);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, port));
        }
        let failed = |source| DialError::Resolve { host: host.to_owned(), source };
        let resolver = hickory_resolver::TokioResolver::builder_tokio().map_err(failed)?.build().map_err(failed)?;
        let found = resolver.lookup_ip(host).await.map_err(failed)?;
        let address = found.iter().next().ok_or_else(|| DialError::NoAddress { host: host.to_owned() })?;
        Ok(SocketAddr::new(address, port))
    }
}

/// The proxy that `http_proxy` names, when it is an `http://address:port`.
#[must_use]
pub fn proxy_from_environment() -> Option<SocketAddr> {
    let url = std::env::var("http_proxy").ok()?;
    url.trim_start_matches("http://").trim_end_matches('/').parse().ok()
}
