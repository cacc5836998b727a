//! What discovery is told when it starts: flags, each with its `MESH_*` variable, checked as a whole so that every mistake is
//! reported at once.

pub mod check; // texts to values (pure)

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use mesh_core::config::problem::Problems;

use crate::dns::Allow;
use crate::provider::docker::DockerProviderConfig;
use crate::runtime::process::ProcessSettings;

pub use check::default_state_dir;

/// The control plane of one host: finds services, and tells proxies and resolvers.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "mesh-discovery", version, about, max_term_width = 100)]
pub struct Flags {
    /// The engine's URL (unix:///path, tcp://host:port); none turns it off [default: DOCKER_HOST, or the socket].
    #[arg(long, env = "MESH_DOCKER", value_name = "URL")]
    pub docker: Option<String>,

    /// Takes every container in, not only those with mesh.enable=true [default: false].
    #[arg(
        long,
        env = "MESH_EXPOSED_BY_DEFAULT",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub exposed_by_default: Option<String>,

    /// A list of services and endpoints that no engine knows; read again when it changes.
    #[arg(long, env = "MESH_FILE", value_name = "mesh.yaml")]
    pub file: Option<String>,

    /// Where virtual IPs and what was asked for are kept [default: /var/lib/mesh; not root: $XDG_STATE_HOME/mesh].
    #[arg(long, env = "MESH_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<String>,

    /// HTTP API, readiness and metrics [default: 127.0.0.1:14000].
    #[arg(long, env = "MESH_API_LISTEN", value_name = "ADDRESS:PORT")]
    pub api_listen: Option<String>,

    /// xDS for proxies, Envoy and gRPC clients [default: 127.0.0.1:14010].
    #[arg(long, env = "MESH_XDS_LISTEN", value_name = "ADDRESS:PORT")]
    pub xds_listen: Option<String>,

    /// DNS, UDP and TCP [default: 127.0.0.1:14053].
    #[arg(long, env = "MESH_DNS_LISTEN", value_name = "ADDRESS:PORT")]
    pub dns_listen: Option<String>,

    /// Who answers for all other names; comma separated [default: the host's resolv.conf].
    #[arg(long, env = "MESH_DNS_UPSTREAM", value_name = "ADDRESS[:PORT],...")]
    pub dns_upstream: Option<String>,

    /// Who may ask; comma separated [default: loopback and private networks].
    #[arg(long, env = "MESH_DNS_ALLOW", value_name = "NETWORK,...")]
    pub dns_allow: Option<String>,

    /// Out of which services get their virtual IPs [default: 240.240.0.0/16; with --docker none 127.240.0.0/16, which proxies of this host listen on].
    #[arg(long, env = "MESH_VIP_RANGE", value_name = "NETWORK")]
    pub vip_range: Option<String>,
}

/// What the process finds around it.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub is_root: bool,
    pub docker_host: Option<String>,
    pub xdg_state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Environment {
    #[must_use]
    pub fn of_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            docker_host: text("DOCKER_HOST"),
            xdg_state_home: text("XDG_STATE_HOME").map(PathBuf::from),
            home: text("HOME").map(PathBuf::from),
        }
    }
}

/// Checked, nothing undecided.
#[derive(Debug, Clone)]
pub struct Config {
    /// None: no engine.
    pub docker: Option<DockerProviderConfig>,
    /// None: no process is started on this host.
    pub process: Option<ProcessSettings>,
    pub file: Option<PathBuf>,
    pub state: State,
    pub api_listen: SocketAddr,
    pub xds_listen: SocketAddr,
    pub dns_listen: SocketAddr,
    /// Empty: the host's resolv.conf.
    pub dns_upstream: Vec<SocketAddr>,
    pub dns_allow: Allow,
    pub vip_range: IpNet,
    /// The DNS zone of the mesh.
    pub zone: String,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Folder(PathBuf),
    /// Gone with the process.
    Memory,
}

impl Config {
    /// # Errors
    /// [`Problems`] with every flag that is wrong.
    pub fn from_flags(flags: &Flags, environment: &Environment) -> Result<Self, Problems> {
        check::check(flags, environment)
    }

    /// Loopback on free ports, no engine, no file, nothing kept: for tests, and to start from inside another process.
    #[must_use]
    pub fn ephemeral() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            docker: None,
            process: None,
            file: None,
            state: State::Memory,
            api_listen: free,
            xds_listen: free,
            dns_listen: free,
            dns_upstream: Vec::new(),
            dns_allow: Allow::default(),
            vip_range: check::DEFAULT_VIP_RANGE.parse().expect("a network"),
            zone: mesh_core::model::names::DEFAULT_ZONE.to_owned(),
        }
    }
}
