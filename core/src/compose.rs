//! The Compose model: a person's `compose.yaml` as the desired state (the Compose Specification, and `x-mesh`). Reading is
//! pure: text and environment in, a [`Project`] or every mistake out; nothing is touched before the file is understood whole.
//!
//! Why own types: `docker-compose-types` drops what it does not know without a word, `compose_spec` (MPL-2.0) stops at the
//! first mistake and cannot say of a key it knows that *we* do not act on it. Here every key that is unknown or not yet
//! supported is named, all of them at once, with its key path.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::service::REPLICAS_MAX;
use crate::config::problem::Problems;
use crate::model::names::{Name, NameError};
use crate::model::protocol::Protocol;
use crate::model::replicas::RuntimeKind;

mod interpolate; // $X and ${X:-default}, in every text of the file
mod command; // a command line as a list of words
mod keys; // which keys Compose has, and which of them are read here
mod read; // the file, key by key
mod service; // one service of it
mod port; // which ports a service has
pub mod env_file; // KEY=value lines: `.env` and `env_file`

#[cfg(test)]
mod tests;

/// Compose's default for `stop_grace_period`.
pub const DEFAULT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// What the caller knows better than the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-p`, `--project-name`.
    pub project_name: Option<String>,
    /// `--runtime`: for every service that does not choose one itself.
    pub runtime: Option<RuntimeKind>,
    /// The project's folder, absolute; its last part is the default project name, and relative paths start there.
    pub directory: PathBuf,
}

/// A whole Compose file, checked: nothing is left to interpolate but `${HOST}` and `${PORT}` of processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub name: Name,
    /// Absolute; relative paths of the file start here.
    pub directory: PathBuf,
    pub services: BTreeMap<Name, Service>,
    /// By key; services name them so. `default` is there when a service names none.
    pub networks: BTreeMap<String, Network>,
}

/// One network of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What the engine calls it: `shop_default`, or the file's `name`.
    pub name: String,
    /// Exists already, and is neither made nor removed.
    pub external: bool,
    pub internal: bool,
    pub driver: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// One service: how each of its replicas is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub runtime: RuntimeKind,
    /// Always there for [`RuntimeKind::Docker`].
    pub image: Option<String>,
    /// None: the image's.
    pub entrypoint: Option<Vec<String>>,
    /// None: the image's. Never empty for [`RuntimeKind::Process`] unless there is an entrypoint.
    pub command: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    /// Read by the caller, who can open files: [`Project::read_env_files`].
    pub env_file: Vec<EnvFile>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    /// The service's labels: they reach every replica.
    pub labels: BTreeMap<String, String>,
    /// `deploy.labels`: about the service, not on its replicas.
    pub deploy_labels: BTreeMap<String, String>,
    pub healthcheck: Option<Healthcheck>,
    /// By the network's key in [`Project::networks`].
    pub networks: BTreeMap<String, Attachment>,
    /// Service ports, from `mesh.port(s)`, `expose` and `ports`, in order of number; UDP is left out.
    pub service_ports: Vec<DeclaredPort>,
    /// Published on the host.
    pub published_ports: Vec<PublishedPort>,
    pub volumes: Vec<Volume>,
    pub depends_on: BTreeMap<Name, Dependency>,
    pub replicas: u32,
    pub restart: Restart,
    /// None: the image's, else SIGTERM. A name without `SIG`, or a number.
    pub stop_signal: Option<String>,
    pub stop_grace_period: Duration,
}

/// A file of `KEY=value` lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    pub path: PathBuf,
    pub required: bool,
}

/// A service on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Besides the service's own name.
    pub aliases: Vec<String>,
}

/// A port that a service says it serves on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPort {
    pub name: Name,
    pub port: u16,
    pub protocol: Protocol,
}

/// `ports`: one port of the container reachable on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub host_ip: Option<String>,
    /// None: the engine chooses one.
    pub published: Option<u16>,
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// `volumes`: a folder of the host, or a named volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute path on the host; named volumes are not supported yet.
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// How it is seen that a replica is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Healthcheck {
    /// The image's own is turned off.
    Disabled,
    Enabled {
        /// None: the image's.
        test: Option<HealthTest>,
        interval: Option<Duration>,
        timeout: Option<Duration>,
        retries: Option<u32>,
        start_period: Option<Duration>,
        start_interval: Option<Duration>,
    },
}

/// A command that exits with 0 when the replica is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthTest {
    /// `["CMD", …]`.
    Exec(Vec<String>),
    /// `["CMD-SHELL", "…"]`, or a plain text.
    Shell(String),
}

/// What a service waits for before its first replica starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub condition: DependencyCondition,
    /// False: it does not matter when the other service is not there.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// What happens when a replica ends by itself. A service keeps its replicas unless the file says otherwise: the absent key
/// means `always`, as for a Swarm service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// `restart: "no"`: runs once.
    No,
    /// Only after an exit code other than 0.
    OnFailure,
    #[default]
    Always,
}

/// Reads a Compose file.
///
/// Variables come from `environment` (the caller merges `.env` under its own environment). For a process, `${HOST}` and
/// `${PORT}` in `command`, `entrypoint` and `healthcheck.test` are each replica's own, and left for the runtime.
///
/// # Errors
/// Every mistake at once: wrong values, missing variables, keys that Compose does not have or that are not supported yet.
pub fn read(
    origin: &str,
    text: &str,
    environment: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> Result<Project, Problems> {
    read::read(origin, text, environment, overrides)
}

/// A project name as Compose makes one: lower case, only `a-z`, `0-9`, `_` and `-`, beginning with a letter or digit.
///
/// # Errors
/// [`NameError`] when nothing is left.
pub fn normalise_project_name(name: &str) -> Result<Name, NameError> {
    let kept: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    // The final `-` goes too, which Compose leaves: the name is a DNS label here.
    Name::new(kept.trim_start_matches(['_', '-']).trim_end_matches('-'))
}

impl Project {
    /// Merges each service's `env_file` under its `environment`. `open` gets absolute paths.
    ///
    /// # Errors
    /// A missing file that is required, and each line that is no `KEY=value`, by file and line.
    pub fn read_env_files(&mut self, open: impl Fn(&Path) -> std::io::Result<String>) -> Result<(), Problems> {
        env_file::merge(self, &open)
    }

    /// Whether any service is run by `kind`.
    #[must_use]
    pub fn uses(&self, kind: RuntimeKind) -> bool {
        self.services.values().any(|service| service.runtime == kind)
    }
}
