//! The way to the engine: which URL, over which transport, and in which version of its API. Only reading verbs are used by the
//! provider (version, list, inspect, events), so that it works behind a socket proxy that lets nothing else through.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use thiserror::Error;
use tokio::net::UnixStream;

/// Where an engine listens when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Docker's port without TLS (IANA).
const DEFAULT_TCP_PORT: u16 = 2375;

/// How long the engine may take to begin an answer, and to end one that is not a stream.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineUrl {
    Unix(PathBuf),
    /// HTTP without TLS.
    Tcp {
        host: String,
        port: u16,
    },
}

/// A URL that leads to no engine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{value:?} is no engine's URL: {wanted}")]
pub struct EngineUrlError {
    pub value: String,
    pub wanted: &'static str,
}

impl EngineUrl {
    /// What `--docker` says, else `DOCKER_HOST`, else the socket; none for `none`.
    ///
    /// # Errors
    /// [`EngineUrlError`] when the one that counts is no URL of an engine.
    pub fn choose(flag: Option<&str>, docker_host: Option<&str>) -> Result<Option<Self>, EngineUrlError> {
        match flag.or(docker_host.filter(|host| !host.is_empty())) {
            Some("none") => Ok(None),
            Some(url) => url.parse().map(Some),
            None => Ok(Some(Self::default())),
        }
    }
}

impl Default for EngineUrl {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl FromStr for EngineUrl {
    type Err = EngineUrlError;

    fn from_str(value: &str) -> Result<Self, EngineUrlError> {
        let wrong = |wanted| EngineUrlError { value: value.to_owned(), wanted };
        if let Some(path) = value.strip_prefix("unix://").or_else(|| value.starts_with('/').then_some(value)) {
            let path = if path.is_empty() { DEFAULT_SOCKET } else { path };
            return Ok(Self::Unix(path.into()));
        }
        let Some(authority) = value.strip_prefix("tcp://").or_else(|| value.strip_prefix("http://")) else {
            return Err(wrong(
                "unix:///path/of/socket or tcp://host:port is wanted (TLS and ssh are not supported yet)",
            ));
        };
        let authority = authority.trim_end_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bare IPv6 address is no port's.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("its port is no number from 1 to 65535"))?)
            }
            _ => (authority, DEFAULT_TCP_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '@', '?']) || port == 0 {
            return Err(wrong("tcp://host:port is wanted, without a path"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Why the engine cannot be talked to.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Nobody takes connections at its socket, or not from us: no engine runs here.
    #[error("{url}: connect: {source}")]
    Absent { url: String, source: io::Error },
    #[error("{url}: {operation}: {message}")]
    Failed { url: String, operation: &'static str, message: String },
    #[error("{url}: {operation}: no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent { url: String, operation: &'static str },
    #[error("{url}: the stream of events ended")]
    StreamEnded { url: String },
    #[error("{url}: {host} has no address: {message}")]
    NoAddress { url: String, host: String, message: String },
}

/// An engine that answers, spoken to in a version that both know.
#[derive(Debug, Clone)]
pub struct Engine {
    pub docker: Docker,
    pub url: EngineUrl,
}

impl Engine {
    /// Asks the engine for its version and settles on the lower one of both.
    ///
    /// # Errors
    /// [`EngineError`] when it cannot be reached, or does not answer.
    pub async fn connect(url: &EngineUrl) -> Result<Self, EngineError> {
        let failed = |error| EngineError::of(url, "connect", &error);
        let seconds = ANSWER_TIMEOUT.as_secs();
        let docker = match url {
            EngineUrl::Unix(path) => {
                knock(url, path).await?;
                Docker::connect_with_unix(&url.to_string(), seconds, API_DEFAULT_VERSION)
            }
            EngineUrl::Tcp { host, port } => {
                let address = SocketAddr::new(resolve(url, host).await?, *port);
                Docker::connect_with_http(&format!("tcp://{address}"), seconds, API_DEFAULT_VERSION)
            }
        };
        let docker = docker.map_err(failed)?;
        let silent = |_| EngineError::Silent { url: url.to_string(), operation: "version" };
        let negotiated = tokio::time::timeout(ANSWER_TIMEOUT, docker.negotiate_version()).await.map_err(silent)?;
        Ok(Self { docker: negotiated.map_err(failed)?, url: url.clone() })
    }

    /// Waits for one answer, but not for ever.
    ///
    /// # Errors
    /// [`EngineError::Silent`] after [`ANSWER_TIMEOUT`]; the engine's own answer is inside.
    pub async fn ask<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<Result<T, bollard::errors::Error>, EngineError> {
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| EngineError::Silent { url: self.url.to_string(), operation })
    }

    #[must_use]
    pub fn failed(&self, operation: &'static str, error: &bollard::errors::Error) -> EngineError {
        EngineError::of(&self.url, operation, error)
    }
}

impl EngineError {
    /// The client has a patience of its own, which is as long as ours.
    fn of(url: &EngineUrl, operation: &'static str, error: &bollard::errors::Error) -> Self {
        let url = url.to_string();
        match error {
            bollard::errors::Error::RequestTimeoutError => Self::Silent { url, operation },
            error => Self::Failed { url, operation, message: describe(error) },
        }
    }
}

/// Whether the socket takes connections. The client's own message for one that does not says nothing of the path, and does not
/// tell an engine that is not there from one that does not answer.
async fn knock(url: &EngineUrl, path: &Path) -> Result<(), EngineError> {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};
    let url = url.to_string();
    match tokio::time::timeout(ANSWER_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(_taken)) => Ok(()),
        Ok(Err(source)) => match source.kind() {
            ConnectionRefused | NotADirectory | NotFound | PermissionDenied => Err(EngineError::Absent { url, source }),
            // A full queue of connections, for one.
            _ => Err(EngineError::Failed { url, operation: "connect", message: source.to_string() }),
        },
        Err(_elapsed) => Err(EngineError::Silent { url, operation: "connect" }),
    }
}

/// The error with what caused it, without saying anything twice: the client's outermost words are often empty.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = if text.is_empty() { words } else { format!("{text}: {words}") };
        }
        source = cause.source();
    }
    text
}

/// Asked for anew on each connect: a socket proxy that is a container gets another address when it is replaced. Never the C
/// library's resolver, which a static binary does not have.
async fn resolve(url: &EngineUrl, host: &str) -> Result<IpAddr, EngineError> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if host == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let failed = |error: hickory_resolver::net::NetError| EngineError::NoAddress {
        url: url.to_string(),
        host: host.to_owned(),
        message: error.to_string(),
    };
    let resolver = hickory_resolver::TokioResolver::builder_tokio().map_err(failed)?.build().map_err(failed)?;
    let found = resolver.lookup_ip(host).await.map_err(failed)?;
    found.iter().next().ok_or_else(|| EngineError::NoAddress {
        url: url.to_string(),
        host: host.to_owned(),
        message: "the answer is empty".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_docker_writes_them() {
        let check = |url: &str, expected: Option<&str>| {
            let read = url.parse::<EngineUrl>().ok().map(|url| url.to_string());
            assert_eq!(read.as_deref(), expected, "{url}");
        };
        check("unix:///run/user/1000/docker.sock", Some("unix:///run/user/1000/docker.sock"));
        check("/var/run/docker.sock", Some("unix:///var/run/docker.sock"));
        check("unix://", Some("unix:///var/run/docker.sock"));
        check("tcp://proxy:2375", Some("tcp://proxy:2375"));
        check("tcp://10.0.0.1", Some("tcp://10.0.0.1:2375"));
        check("http://[::1]:99/", Some("tcp://[::1]:99"));
        check("tcp://[::1]", Some("tcp://[::1]:2375"));
        for wrong in
            ["ssh://me@host", "https://host:2376", "tcp://", "tcp://h:0", "tcp://h:x", "tcp://h/path", "nonsense"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn the_flag_counts_before_the_environment() {
        let check = |flag: Option<&str>, host: Option<&str>, expected: Option<&str>| {
            let chosen = EngineUrl::choose(flag, host).unwrap().map(|url| url.to_string());
            assert_eq!(chosen.as_deref(), expected);
        };
        check(None, None, Some("unix:///var/run/docker.sock"));
        check(None, Some(""), Some("unix:///var/run/docker.sock"));
        check(None, Some("tcp://a:1"), Some("tcp://a:1"));
        check(Some("tcp://b:2"), Some("tcp://a:1"), Some("tcp://b:2"));
        check(Some("none"), Some("tcp://a:1"), None);
        assert!(EngineUrl::choose(Some("ftp://x"), None).is_err());
    }
}
