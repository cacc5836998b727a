//! Discovery's HTTP API, and a proxy's admin API, from a command line: JSON over one HTTP/1.1 request each. Names are not
//! looked up with the system's resolver (a static binary has none): an address or `localhost` is wanted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

/// The largest answer taken: 64 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longer than the longest long poll.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the server was no help.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error(
        "--server {url:?}: a URL such as http://127.0.0.1:14000 is wanted, with an address or localhost as its host"
    )]
    Url { url: String },
    #[error(
        "nobody answers at {server}; is mesh-discovery (or `mesh-ctl dev`) running there? --server or MESH_SERVER names another"
    )]
    Connect { server: SocketAddr, source: std::io::Error },
    #[error("{server} does not answer within {} s", timeout.as_secs())]
    Timeout { server: SocketAddr, timeout: Duration },
    #[error("{server} broke off while answering")]
    Broken { server: SocketAddr, source: hyper::Error },
    #[error("{server} answered with more than {ANSWER_BYTES_MAX} bytes, or broke off")]
    Body { server: SocketAddr },
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("{server} answered {path} with something unexpected: {problem}; are both sides of the same version?")]
    Answer { server: SocketAddr, path: String, problem: String },
}

/// Where to ask.
#[derive(Debug, Clone)]
pub struct Client {
    server: SocketAddr,
}

impl Client {
    /// # Errors
    /// [`ClientError::Url`] when `url` is no plain `http://` URL with an address.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url { url: url.to_owned() };
        let uri: Uri =
            if url.contains("://") { url.parse() } else { format!("http://{url}").parse() }.map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']');
        let address =
            if host == "localhost" { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host.parse().map_err(|_| wrong())? };
        Ok(Self { server: SocketAddr::new(address, uri.port_u16().unwrap_or(14000)) })
    }

    #[must_use]
    pub fn at(server: SocketAddr) -> Self {
        Self { server }
    }

    /// # Errors
    /// As [`Self::call`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&Value>).await
    }

    /// One request with an optional JSON body, and its JSON answer.
    ///
    /// # Errors
    /// [`ClientError`]: not reached, refused with the server's own words, or not understood.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (status, text) = self.exchange(method, path, body).await?;
        if !status.is_success() {
            let told = serde_json::from_slice::<Value>(&text).ok();
            let told = told.as_ref().and_then(|value| value["error"].as_str()).map(str::to_owned);
            let message = told.unwrap_or_else(|| format!("{} answered {path} with {status}", self.server));
            return Err(ClientError::Refused { status, message });
        }
        let text: &[u8] = if text.is_empty() { b"null" } else { &text };
        serde_json::from_slice(text).map_err(|problem| ClientError::Answer {
            server: self.server,
            path: path.to_owned(),
            problem: problem.to_string(),
        })
    }

    /// The answer as it stands, for what is no JSON.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (status, text) = self.exchange(Method::GET, path, None::<&Value>).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if status.is_success() { Ok(text) } else { Err(ClientError::Refused { status, message: text }) }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let server = self.server;
        let timed_out = |timeout| move |_| ClientError::Timeout { server, timeout };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(server))
            .await
            .map_err(timed_out(CONNECT_TIMEOUT))?
            .map_err(|source| ClientError::Connect { server, source })?;
        let broken = |source| ClientError::Broken { server, source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let body = body
            .map(|value| serde_json::to_vec(value).expect("our own types have string keys only"))
            .unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, server.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a path that we built is a URI");
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|_| ClientError::Body { server })?.to_bytes()))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(timed_out(ANSWER_TIMEOUT))?;
        driver.abort();
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(Client::new(url).ok().map(|client| client.server.to_string()).as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:14000", Some("127.0.0.1:14000"));
        check("localhost:9", Some("127.0.0.1:9"));
        check("http://[::1]:7", Some("[::1]:7"));
        check("http://10.0.0.1", Some("10.0.0.1:14000"));
        check("https://127.0.0.1", None);
        check("http://mesh.example", None);
        check("", None);
    }
}
