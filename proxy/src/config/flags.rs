//! The command line of `mesh-proxy`. Each flag has a variable `MESH_*`; a flag holds over its variable, and both over the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Command, CommandFactory, FromArgMatches, Parser};
use mesh_core::config::duration;
use mesh_core::model::names::DEFAULT_HTTP_PROXY_PORT;
use mesh_core::model::resource::Bind;

use super::Config;

/// The data plane of Weft: carries calls between services, one per host or one beside a container.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "mesh-proxy", version = mesh_core::telemetry::build_info::VERSION, max_term_width = 100)]
#[command(group = ArgGroup::new("source").args(["xds", "config"]).required(true).multiple(true))]
#[command(group = ArgGroup::new("mode").args(["capture", "sidecar", "bind"]).multiple(false))]
pub struct Flags {
    /// Take listeners, routes and endpoints from a control plane (xDS v3, ADS)
    #[arg(long, env = "MESH_XDS", value_name = "HOST:PORT", value_parser = parse_host_port)]
    pub xds: Option<HostPort>,

    /// Capture the connections of every meshed container on this host
    #[arg(long, env = "MESH_CAPTURE", requires = "xds")]
    pub capture: bool,

    /// Capture the connections of the network namespace that this proxy shares with an application
    #[arg(long, env = "MESH_SIDECAR", requires = "xds")]
    pub sidecar: bool,

    /// Listen on this address, one port per service port [default: 127.0.0.1]
    #[arg(long, env = "MESH_BIND", value_name = "ADDRESS", requires = "xds")]
    pub bind: Option<IpAddr>,

    /// Listen here for clients that know this proxy as their HTTP proxy (`http_proxy`); none: nowhere [default: 127.0.0.1:14008;
    /// with --bind of another loopback address, there; with --sidecar, nowhere]
    #[arg(long, env = "MESH_HTTP_PROXY", value_name = "ADDRESS:PORT", requires = "xds")]
    pub http_proxy: Option<HttpProxy>,

    /// What the control plane calls this proxy [default: the host's name]
    #[arg(long, env = "MESH_NODE_ID", value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub node_id: Option<String>,

    /// Take listeners and services from a file; beside --xds, its names must be its own
    #[arg(long, env = "MESH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the file, tell every mistake in it, and exit: 0 when there is none, 1 otherwise
    #[arg(long, requires = "config")]
    pub check: bool,

    /// How long requests under way may take to finish after SIGTERM
    #[arg(long, env = "MESH_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Threads that carry requests [default: one a core]
    #[arg(long, env = "MESH_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Where metrics, readiness and state are served [default: 127.0.0.1:14020]
    #[arg(long, env = "MESH_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// Write one JSON line a request on stdout
    #[arg(long, env = "MESH_ACCESS_LOG")]
    pub access_log: bool,

    /// Keep what the control plane said last here, to start from it while it is away
    #[arg(long, env = "MESH_STATE_DIR", value_name = "FOLDER", requires = "xds")]
    pub state_dir: Option<PathBuf>,
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// An IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

/// Where HTTP clients find this proxy, as it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpProxy {
    Nowhere,
    At(SocketAddr),
}

impl FromStr for HttpProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Nowhere),
            _ => match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => Ok(Self::At(address)),
                _ => Err("an address with a port such as 127.0.0.1:14008, or none, is wanted".to_owned()),
            },
        }
    }
}

/// What a proxy with a control plane does with what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Inside the namespaces of the containers of this host.
    Capture,
    /// Inside its own namespace.
    Sidecar,
    /// On listeners of its own, at this address.
    Bind(IpAddr),
}

/// The modes that a variable may turn off, too: `MESH_SIDECAR=false` excludes nothing.
const SWITCHES: [(&str, &str); 2] = [("capture", "MESH_CAPTURE"), ("sidecar", "MESH_SIDECAR")];

impl Flags {
    /// Those of this process. Ends it where they are wrong, and where help is asked for.
    #[must_use]
    pub fn of_process() -> Self {
        let matches = command(|variable| std::env::var(variable).ok()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// How the control plane's listeners are opened; of no meaning without `--xds`.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.capture, self.sidecar) {
            (true, _) => Mode::Capture,
            (_, true) => Mode::Sidecar,
            _ => Mode::Bind(self.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        }
    }

    /// Where HTTP clients find this proxy. Where nobody said it, not where a listener of the file is.
    #[must_use]
    pub fn http_proxy(&self, file: &Config) -> Option<SocketAddr> {
        match (self.http_proxy, self.mode()) {
            (Some(HttpProxy::At(address)), _) => Some(address),
            (Some(HttpProxy::Nowhere), _) | (None, Mode::Sidecar) => None,
            (None, mode) => {
                let bind = if let Mode::Bind(address) = mode { Some(address) } else { None };
                let address = bind.filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                let default = SocketAddr::new(address, DEFAULT_HTTP_PROXY_PORT);
                let mut binds = file.resources.listeners.values().map(|listener| listener.bind);
                let is_taken = binds.any(|bind| matches!(bind, Bind::Address(other) if other.port() == default.port()));
                (!is_taken).then_some(default)
            }
        }
    }

    /// The file's settings, with those of the command line over them.
    #[must_use]
    pub fn over(&self, config: Config) -> Config {
        Config {
            workers: self.workers.map_or(config.workers, usize::from),
            admin: self.admin_listen.unwrap_or(config.admin),
            access_log: self.access_log || config.access_log,
            ..config
        }
    }
}

/// The command line as it is read beside these variables.
fn command(variable: impl Fn(&str) -> Option<String>) -> Command {
    let is_off = |name| {
        let value = variable(name)?.to_ascii_lowercase();
        Some(matches!(value.as_str(), "" | "0" | "f" | "false" | "n" | "no" | "off"))
    };
    let off = SWITCHES.into_iter().filter(|(_, name)| is_off(name) == Some(true));
    // Empty is absent, as everywhere.
    let absent = [("xds", "MESH_XDS"), ("http_proxy", "MESH_HTTP_PROXY")].into_iter();
    let absent = absent.filter(|(_, name)| variable(name).is_some_and(|value| value.is_empty()));
    let left_out = off.chain(absent).map(|(flag, _)| flag);
    left_out.fold(Flags::command(), |command, flag| command.mut_arg(flag, |flag| flag.env(None::<&'static str>)))
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn parse_host_port(text: &str) -> Result<HostPort, String> {
    let wanted = || "HOST:PORT such as 127.0.0.1:14010 is wanted".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wanted)?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        None if !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => host,
        _ => return Err(wanted()),
    };
    Ok(HostPort { host: host.to_owned(), port })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Flags, String> {
        let arguments = std::iter::once("mesh-proxy").chain(arguments.split_whitespace());
        Flags::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_turns_a_mode_off() {
        for (value, is_left) in [("false", false), ("OFF", false), ("", false), ("true", true), ("1", true)] {
            let command = command(|name| (name == "MESH_SIDECAR").then(|| value.to_owned()));
            let sidecar = command.get_arguments().find(|flag| flag.get_id() == "sidecar").unwrap();
            assert_eq!(sidecar.get_env().is_some(), is_left, "{value:?}");
        }
    }

    #[test]
    fn an_empty_variable_names_no_control_plane() {
        for (value, is_left) in [("", false), ("127.0.0.1:14010", true)] {
            let command = command(|name| (name == "MESH_XDS").then(|| value.to_owned()));
            let xds = command.get_arguments().find(|flag| flag.get_id() == "xds").unwrap();
            assert_eq!(xds.get_env().is_some(), is_left, "{value:?}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn flags_have_their_meaning() {
        let mode = |arguments: &str| read(arguments).unwrap().mode();
        assert_eq!(mode("--xds 127.0.0.1:14010"), Mode::Bind("127.0.0.1".parse().unwrap()));
        assert_eq!(mode("--xds discovery:14010 --bind 0.0.0.0"), Mode::Bind("0.0.0.0".parse().unwrap()));
        assert_eq!(mode("--xds discovery:14010 --capture"), Mode::Capture);
        assert_eq!(mode("--xds discovery:14010 --sidecar"), Mode::Sidecar);
        let flags =
            read("--config a.yaml --xds [::1]:9 --drain-timeout 1m30s --node-id n --workers 3 --access-log").unwrap();
        assert_eq!(flags.xds, Some(HostPort { host: "::1".into(), port: 9 }));
        assert_eq!(flags.xds.as_ref().map(HostPort::to_string).as_deref(), Some("[::1]:9"));
        assert_eq!((flags.drain_timeout, flags.node_id.as_deref()), (Duration::from_secs(90), Some("n")));
        let config = flags.over(Config { workers: 1, ..Config::default() });
        assert_eq!((config.workers, config.access_log, config.admin), (3, true, Config::default().admin));
        assert_eq!(read("--config a.yaml").unwrap().drain_timeout, Duration::from_secs(30));
        assert!(read("--config a.yaml --check").unwrap().check);
    }

    #[test]
    fn http_clients_find_it_where_it_is_bound_unless_it_is_told_otherwise() {
        let check = |arguments: &str, file: &str, expected: Option<&str>| {
            let file = crate::config::parse("proxy.yaml", file).unwrap();
            let found = read(&format!("--xds a:1 {arguments}")).unwrap().http_proxy(&file);
            assert_eq!(found.map(|one| one.to_string()).as_deref(), expected, "{arguments}");
        };
        check("", "{}", Some("127.0.0.1:14008"));
        check("--bind 127.0.0.9", "{}", Some("127.0.0.9:14008"));
        check("--bind 0.0.0.0", "{}", Some("127.0.0.1:14008"));
        check("--bind 127.0.0.9 --http-proxy 127.0.0.1:3128", "{}", Some("127.0.0.1:3128"));
        check("--http-proxy none", "{}", None);
        check("--capture", "{}", Some("127.0.0.1:14008"));
        check("--sidecar", "{}", None);
        check("--capture --http-proxy 127.0.0.1:3128", "{}", Some("127.0.0.1:3128"));
        let file = "listeners: [ { listen: 127.0.0.1:14008, service: a } ]\nservices: { a: { endpoints: [] } }";
        check("", file, None);
        check("--http-proxy 127.0.0.1:14008", file, Some("127.0.0.1:14008"));
    }

    #[test]
    fn what_excludes_itself_is_told() {
        let check = |arguments: &str, part: &str| {
            let error = read(arguments).expect_err(arguments);
            assert!(error.contains(part), "{arguments}: {error}");
        };
        check("", "--xds <HOST:PORT>");
        check("--capture", "--xds <HOST:PORT>");
        check("--xds a:1 --capture --sidecar", "cannot be used with");
        check("--xds a:1 --capture --bind 127.0.0.1", "cannot be used with");
        check("--config a.yaml --sidecar", "--xds <HOST:PORT>");
        check("--xds a:1 --check", "--config <FILE>");
        check("--xds a:1 --node-id", "--node-id");
        check("--config a.yaml --http-proxy none", "--xds <HOST:PORT>");
        check("--xds a:1 --http-proxy 3128", "such as 127.0.0.1:14008, or none");
        check("--xds a:1 --http-proxy 127.0.0.1:0", "such as 127.0.0.1:14008, or none");
        check("--xds a:1 --workers 0", "0 is not in 1..=1024");
        check("--xds a:1 --drain-timeout 30", "a duration such as");
        for wrong in ["a", "a:", ":1", "a:0", "a:99999", "[::1:1", "::1:1", "http://a:1"] {
            check(&format!("--xds {wrong}"), "HOST:PORT such as");
        }
    }
}
