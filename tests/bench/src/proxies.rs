//! The proxies that are compared, each with one worker and a configuration a mesh would use: balancing by load over three endpoints,
//! retries elsewhere, ejection, timeouts, limits on what is under way, a request id, `X-Forwarded-For`; no access log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::certificates::Files;

mod envoy; // Envoy's bootstrap
mod haproxy; // HAProxy's file
mod nginx; // nginx's file
mod ours; // Weft's file

/// Who carries the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    Weft,
    Haproxy,
    Nginx,
    Envoy,
}

impl Proxy {
    pub const ALL: [Self; 4] = [Self::Weft, Self::Haproxy, Self::Nginx, Self::Envoy];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weft => "Weft",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        }
    }
}

/// What a proxy takes from clients and speaks with endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub client: ClientSide,
    pub upstream: UpstreamSide,
    /// Threads, or processes, that carry requests.
    pub workers: usize,
}

/// The way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSide {
    Http1,
    /// h2 without TLS.
    Http2,
    /// HTTP/1.1 in TLS 1.3, a client certificate required.
    Mtls,
    /// Bytes.
    Tcp,
}

/// The way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamSide {
    Http1,
    Http2,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    pub weft: PathBuf,
    pub haproxy: PathBuf,
    pub nginx: PathBuf,
    pub envoy: PathBuf,
}

/// Everything a configuration is written from.
#[derive(Debug, Clone, Copy)]
struct Site<'s> {
    shape: Shape,
    listen: SocketAddr,
    /// For admin, where the proxy has to have one.
    admin: SocketAddr,
    endpoints: &'s [SocketAddr],
    files: &'s Files,
    folder: &'s Path,
}

/// A configuration that is written, and the command that runs it.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub command: Vec<String>,
    pub listen: SocketAddr,
}

/// Whether a proxy can do it at all; if not, why not.
#[must_use]
pub fn cannot(proxy: Proxy, shape: Shape) -> Option<&'static str> {
    match (proxy, shape.upstream) {
        (Proxy::Nginx, UpstreamSide::Http2) => Some("nginx speaks no h2 with endpoints (gRPC alone)"),
        _ => None,
    }
}

/// Writes a proxy's configuration into a folder of its own below `folder`.
///
/// # Errors
/// When no port is free or a file cannot be written.
pub fn prepare(
    proxy: Proxy,
    programs: &Programs,
    shape: Shape,
    endpoints: &[SocketAddr],
    files: &Files,
    folder: &Path,
) -> anyhow::Result<Prepared> {
    let address = || crate::launch::free_port().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (listen, admin) = (address()?, address()?);
    // Each has a folder of its own: Weft follows what changes in it.
    let folder = &folder.join(format!("{}-{}", proxy.name(), listen.port()));
    std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
    let site = Site { shape, listen, admin, endpoints, files, folder };
    let (file, text) = match proxy {
        Proxy::Weft => ("weft.yaml", ours::file(&site)),
        Proxy::Haproxy => ("haproxy.cfg", haproxy::file(&site)),
        Proxy::Nginx => ("nginx.conf", nginx::file(&site)),
        Proxy::Envoy => ("envoy.yaml", envoy::file(&site)),
    };
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    let shown = |path: &Path| path.display().to_string();
    let arguments = match proxy {
        Proxy::Weft => vec![shown(&programs.weft), "--config".into(), shown(&path)],
        Proxy::Haproxy => vec![shown(&programs.haproxy), "-db".into(), "-f".into(), shown(&path)],
        Proxy::Nginx => {
            vec![
                shown(&programs.nginx),
                "-p".into(),
                shown(folder),
                "-e".into(),
                "stderr".into(),
                "-c".into(),
                shown(&path),
            ]
        }
        Proxy::Envoy => {
            let workers = shape.workers.to_string();
            let fixed = ["--disable-hot-restart", "--log-level", "warn", "--concurrency"].map(str::to_owned);
            [vec![shown(&programs.envoy), "-c".into(), shown(&path)], fixed.to_vec(), vec![workers]].concat()
        }
    };
    Ok(Prepared { command: arguments, listen })
}
