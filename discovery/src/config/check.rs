//! Texts to values: every flag is looked at, and every mistake told.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use mesh_core::config::problem::{Problem, Problems};
use mesh_core::model::names::DEFAULT_ZONE;

use super::{Config, Environment, Flags, State};
use crate::dns::Allow;
use crate::provider::docker::{DockerProviderConfig, EngineUrl};
use crate::runtime::process::ProcessSettings;

/// As Istio does; 100.64.0.0/10 belongs to carriers and VPNs.
pub const DEFAULT_VIP_RANGE: &str = "240.240.0.0/16";
/// Where there are no containers: every process of this host reaches loopback addresses, and a proxy may listen there.
pub const LOOPBACK_VIP_RANGE: &str = "127.240.0.0/16";
const DEFAULT_API_LISTEN: &str = "127.0.0.1:14000";
const DEFAULT_XDS_LISTEN: &str = "127.0.0.1:14010";
const DEFAULT_DNS_LISTEN: &str = "127.0.0.1:14053";
/// What was noted on the way.
#[derive(Default)]
struct Mistakes {
    list: Vec<Problem>,
}

impl Mistakes {
    fn note(&mut self, flag: &str, value: &str, wanted: impl Into<String>) {
        let variable = flag.trim_start_matches("--").replace('-', "_").to_uppercase();
        let key = format!("{flag} (MESH_{variable})");
        self.list.push(Problem { key, value: Some(format!("{value:?}")), wanted: wanted.into() });
    }
}

pub(super) fn check(flags: &Flags, environment: &Environment) -> Result<Config, Problems> {
    let mut mistakes = Mistakes::default();
    let mut listen = |flag: &str, given: &Option<String>, default: &str| {
        let text = given_or(given, default);
        text.parse::<SocketAddr>().unwrap_or_else(|_| {
            mistakes.note(flag, text, "an address with a port, such as 127.0.0.1:14000, is wanted");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    };
    let api_listen = listen("--api-listen", &flags.api_listen, DEFAULT_API_LISTEN);
    let xds_listen = listen("--xds-listen", &flags.xds_listen, DEFAULT_XDS_LISTEN);
    let dns_listen = listen("--dns-listen", &flags.dns_listen, DEFAULT_DNS_LISTEN);
    // DNS needs the port on UDP as well, and so does not share it with either.
    let names = ["--api-listen", "--xds-listen", "--dns-listen"];
    let all = [api_listen, xds_listen, dns_listen];
    for (i, address) in all.iter().enumerate() {
        if let Some(first) = all[..i].iter().position(|other| other == address && address.port() != 0) {
            mistakes.note(names[i], &address.to_string(), format!("{} has this address already", names[first]));
        }
    }
    let folder = state_dir(flags, environment, &mut mistakes);
    let docker = docker(flags, environment, &mut mistakes);
    let default_range = if docker.is_some() { DEFAULT_VIP_RANGE } else { LOOPBACK_VIP_RANGE };
    let config = Config {
        docker,
        file: given(&flags.file).map(PathBuf::from),
        process: Some(ProcessSettings::new(&folder)),
        state: State::Folder(folder),
        api_listen,
        xds_listen,
        dns_listen,
        dns_upstream: dns_upstream(flags, &mut mistakes),
        dns_allow: dns_allow(flags, &mut mistakes),
        vip_range: vip_range(flags, default_range, &mut mistakes),
        zone: DEFAULT_ZONE.to_owned(),
    };
    if mistakes.list.is_empty() {
        Ok(config)
    } else {
        Err(Problems { origin: "mesh-discovery".to_owned(), list: mistakes.list })
    }
}

/// An empty variable counts as absent: that is how Compose files say "not set".
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

fn given_or<'a>(value: &'a Option<String>, default: &'a str) -> &'a str {
    given(value).unwrap_or(default)
}

fn docker(flags: &Flags, environment: &Environment, mistakes: &mut Mistakes) -> Option<DockerProviderConfig> {
    let exposed_by_default = yes_or_no("--exposed-by-default", &flags.exposed_by_default, mistakes);
    match EngineUrl::choose(given(&flags.docker), environment.docker_host.as_deref()) {
        Ok(url) => url.map(|url| DockerProviderConfig { url, exposed_by_default, only_label: None }),
        Err(error) => {
            let from = if given(&flags.docker).is_some() { "" } else { " (it comes from DOCKER_HOST)" };
            mistakes.note("--docker", &error.value, format!("{}{from}", error.wanted));
            None
        }
    }
}

fn yes_or_no(flag: &str, value: &Option<String>, mistakes: &mut Mistakes) -> bool {
    match given(value) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            mistakes.note(flag, other, "true or false is wanted");
            false
        }
    }
}

fn state_dir(flags: &Flags, environment: &Environment, mistakes: &mut Mistakes) -> PathBuf {
    if let Some(folder) = given(&flags.state_dir) {
        return folder.into();
    }
    default_state_dir(environment).unwrap_or_else(|| {
        mistakes.note("--state-dir", "", "a folder is wanted, since neither XDG_STATE_HOME nor HOME is set");
        PathBuf::new()
    })
}

/// Where state is kept when nobody says it: /var/lib/mesh for root, else `mesh` below `$XDG_STATE_HOME` or `~/.local/state`.
#[must_use]
pub fn default_state_dir(environment: &Environment) -> Option<PathBuf> {
    if environment.is_root {
        return Some("/var/lib/mesh".into());
    }
    // A relative XDG path is to be ignored, as its specification says.
    let xdg = environment.xdg_state_home.clone().filter(|path| path.is_absolute());
    let folder = xdg.or_else(|| environment.home.as_ref().map(|home| home.join(".local/state")));
    folder.map(|folder| folder.join("mesh"))
}

fn items(value: &Option<String>) -> Vec<&str> {
    given(value).map_or_else(Vec::new, |list| list.split(',').map(str::trim).collect())
}

fn dns_upstream(flags: &Flags, mistakes: &mut Mistakes) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for item in items(&flags.dns_upstream) {
        let address = item.parse().or_else(|_| item.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)));
        match address {
            Ok(address) => servers.push(address),
            Err(_) => mistakes.note("--dns-upstream", item, "an address such as 9.9.9.9 or 127.0.0.1:5300 is wanted"),
        }
    }
    servers
}

fn dns_allow(flags: &Flags, mistakes: &mut Mistakes) -> Allow {
    let items = items(&flags.dns_allow);
    if items.is_empty() {
        return Allow::default();
    }
    let mut networks = Vec::new();
    for item in items {
        match item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => mistakes.note("--dns-allow", item, "a network such as 10.0.0.0/8, or an address, is wanted"),
        }
    }
    Allow::new(networks)
}

fn vip_range(flags: &Flags, default: &str, mistakes: &mut Mistakes) -> IpNet {
    let text = given_or(&flags.vip_range, default);
    let default = default.parse::<IpNet>().expect("a default is a network");
    match text.parse::<IpNet>() {
        Ok(range) if range.max_prefix_len() - range.prefix_len() < 2 => {
            mistakes.note("--vip-range", text, "a network with room is wanted: /30 (2 services) or larger");
            default
        }
        Ok(range) => range.trunc(),
        Err(_) => {
            mistakes.note("--vip-range", text, "a network such as 240.240.0.0/16 is wanted");
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Environment {
        Environment { is_root: true, ..Environment::default() }
    }

    #[test]
    fn nothing_given_means_the_documented_defaults() {
        let config = check(&Flags::default(), &root()).unwrap();
        let docker = config.docker.unwrap();
        assert_eq!(
            (docker.url.to_string().as_str(), docker.exposed_by_default),
            ("unix:///var/run/docker.sock", false)
        );
        assert_eq!(config.state, State::Folder("/var/lib/mesh".into()));
        assert_eq!(config.api_listen.to_string(), "127.0.0.1:14000");
        assert_eq!(config.xds_listen.to_string(), "127.0.0.1:14010");
        assert_eq!(config.dns_listen.to_string(), "127.0.0.1:14053");
        assert_eq!(config.vip_range.to_string(), "240.240.0.0/16");
        assert!(config.file.is_none() && config.dns_upstream.is_empty());
        assert_eq!(config.dns_allow, Allow::default());
    }

    #[test]
    fn virtual_ips_are_loopback_addresses_where_there_are_no_containers() {
        let check = |docker: &str, range: Option<&str>, expected: &str| {
            let flags = Flags { docker: Some(docker.into()), vip_range: range.map(str::to_owned), ..Flags::default() };
            assert_eq!(super::check(&flags, &root()).unwrap().vip_range.to_string(), expected, "{docker} {range:?}");
        };
        check("none", None, "127.240.0.0/16");
        check("none", Some("240.240.0.0/16"), "240.240.0.0/16");
        check("unix:///var/run/docker.sock", None, "240.240.0.0/16");
    }

    #[test]
    fn the_state_directory_follows_the_user() {
        let check = |xdg: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            let environment = Environment {
                xdg_state_home: xdg.map(PathBuf::from),
                home: home.map(PathBuf::from),
                ..Environment::default()
            };
            let state = super::check(&Flags::default(), &environment).ok().map(|config| config.state);
            assert_eq!(state, expected.map(|path| State::Folder(path.into())), "{xdg:?} {home:?}");
        };
        check(Some("/x"), Some("/home/a"), Some("/x/mesh"));
        check(Some("relative"), Some("/home/a"), Some("/home/a/.local/state/mesh"));
        check(None, Some("/home/a"), Some("/home/a/.local/state/mesh"));
        check(None, None, None);
    }

    #[test]
    fn the_engine_is_found_where_people_say_it_is() {
        let check = |flag: Option<&str>, host: Option<&str>, expected: Option<&str>| {
            let flags = Flags { docker: flag.map(str::to_owned), ..Flags::default() };
            let environment = Environment { docker_host: host.map(str::to_owned), ..root() };
            let url = super::check(&flags, &environment).unwrap().docker.map(|docker| docker.url.to_string());
            assert_eq!(url.as_deref(), expected);
        };
        check(Some("none"), Some("tcp://h:1"), None);
        check(Some(""), Some("tcp://h:1"), Some("tcp://h:1"));
        check(Some("unix:///a"), Some("tcp://h:1"), Some("unix:///a"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = |value: &str| Some(value.to_owned());
        let flags = Flags {
            docker: text("docker.sock"),
            exposed_by_default: text("yes"),
            api_listen: text("14000"),
            xds_listen: text("127.0.0.1:1"),
            dns_listen: text("127.0.0.1:1"),
            dns_upstream: text("9.9.9.9,dns.example"),
            dns_allow: text("10.0.0.0/8, ten"),
            vip_range: text("10.0.0.0/31"),
            ..Flags::default()
        };
        let told = check(&flags, &root()).unwrap_err().to_string();
        let expected = [
            r#"--api-listen (MESH_API_LISTEN): "14000": an address with a port, such as 127.0.0.1:14000, is wanted"#,
            r#"--dns-listen (MESH_DNS_LISTEN): "127.0.0.1:1": --xds-listen has this address already"#,
            r#"--exposed-by-default (MESH_EXPOSED_BY_DEFAULT): "yes": true or false is wanted"#,
            r#"--docker (MESH_DOCKER): "docker.sock": unix:///path/of/socket or tcp://host:port is wanted (TLS and ssh are not supported yet)"#,
            r#"--dns-upstream (MESH_DNS_UPSTREAM): "dns.example": an address such as 9.9.9.9 or 127.0.0.1:5300 is wanted"#,
            r#"--dns-allow (MESH_DNS_ALLOW): "ten": a network such as 10.0.0.0/8, or an address, is wanted"#,
            r#"--vip-range (MESH_VIP_RANGE): "10.0.0.0/31": a network with room is wanted: /30 (2 services) or larger"#,
        ];
        assert_eq!(told, expected.map(|line| format!("mesh-discovery: {line}")).join("\n"));
    }
}
