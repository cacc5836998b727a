//! What this proxy is told by its own file and its command line.
//!
//! A file goes through three shapes: YAML read key by key ([`file`]) → [`Config`], checked, with nothing undecided → whatever
//! runs by it, which the composer builds. Its listeners and services become the same [`Resources`] that a control plane sends,
//! so that the proxy has one way to run whoever configures it: a listener is named by its address, a cluster and its
//! assignment by the service's name, an endpoint by its address.
//!
//! All mistakes of a file are told at once, each with key path, value, and what would be right.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mesh_core::config::problem::Problems;
use mesh_core::model::resource::Resources;

pub mod flags; // the command line
pub mod file; // the file: pure
mod listener; // one of its listeners: pure
mod limits; // what the clients of a listener may take: pure
mod service; // one of its services: pure
pub mod merge; // a file and a control plane together: pure
pub mod watch; // the file changes, or SIGHUP: read again

/// Where admin and metrics are served when nobody says otherwise.
pub const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 14020);

/// Everything decided by a proxy's file; the default is a proxy without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// At least 1.
    pub workers: usize,
    pub admin: SocketAddr,
    /// JSON lines on stdout.
    pub access_log: bool,
    pub resources: Resources,
}

impl Default for Config {
    fn default() -> Self {
        Self { workers: cores(), admin: ADMIN_DEFAULT, access_log: false, resources: Resources::default() }
    }
}

/// Reads a file's text. `origin` is what it is called in messages. Touches no file: paths in it stay as they are written and
/// need not exist. Never panics.
///
/// # Errors
/// Every mistake in it.
pub fn parse(origin: &str, text: &str) -> Result<Config, Problems> {
    file::parse(origin, text, cores(), &|path| Ok(path.to_owned()))
}

/// Reads a file. Paths in it are relative to the folder it is in; the files they name must be there.
///
/// # Errors
/// Every mistake in it, or why it cannot be read.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problems::one(origin.clone(), "(file)", None, format!("cannot be read: {error}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    file::parse(&origin, &text, cores(), &|named| readable(&folder.join(named)))
}

/// The path itself, when there is a file that can be opened.
fn readable(path: &Path) -> Result<PathBuf, String> {
    let told = |error: std::io::Error| format!("cannot be opened ({}: {error})", path.display());
    let opened = std::fs::File::open(path).map_err(told)?;
    match opened.metadata().map_err(told)?.is_file() {
        true => Ok(path.to_owned()),
        false => Err(format!("is not a file ({})", path.display())),
    }
}

/// As many as this process may use at once, by affinity and cgroup.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests;
