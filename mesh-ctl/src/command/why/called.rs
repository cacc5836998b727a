//! Who is meant by what a person types: `api`, `api.shop`, or its whole DNS name; with a port or without.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use anyhow::bail;
use mesh_core::config::suggest;
use mesh_core::model::names::DEFAULT_ZONE;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::resource::ANY_PORT;
use mesh_discovery::admin::view::{PortItem, ServiceItem};

/// What a person calls a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) port: Option<u16>,
}

impl Called {
    pub(super) fn read(text: &str) -> Self {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (text, None),
        };
        let host = host.trim_end_matches('.');
        let host = host.strip_suffix(&format!(".svc.{DEFAULT_ZONE}")).unwrap_or(host);
        match host.split_once('.') {
            Some((name, namespace)) => Self { name: name.to_owned(), namespace: Some(namespace.to_owned()), port },
            None => Self { name: host.to_owned(), namespace: None, port },
        }
    }

    fn text(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.name.clone(), |namespace| format!("{}.{namespace}", self.name))
    }
}

/// As people write it: `api.shop`.
pub(super) fn full_name(service: &ServiceItem) -> String {
    format!("{}.{}", service.name, service.namespace)
}

/// The service that is meant: in the caller's namespace first, then where it is the only one of its name.
///
/// # Errors
/// Nobody is called that, or several are.
pub(super) fn find<'a>(
    services: &'a [ServiceItem],
    called: &Called,
    home: Option<&str>,
) -> anyhow::Result<&'a ServiceItem> {
    let same: Vec<&ServiceItem> = services.iter().filter(|service| service.name == called.name).collect();
    let wanted = called.namespace.as_deref().or(home);
    let found = same.iter().find(|service| Some(service.namespace.as_str()) == wanted);
    match (found, same.as_slice(), &called.namespace) {
        (Some(service), _, _) => Ok(service),
        (None, [only], None) => Ok(only),
        (None, [], _) | (None, _, Some(_)) => bail!("nobody is called {}{}", called.text(), hint(services, called)),
        (None, several, None) => {
            let list: Vec<String> = several.iter().map(|service| full_name(service)).collect();
            bail!("{} is {}; say which", called.name, list.join(" or "))
        }
    }
}

/// Who may be meant instead.
fn hint(services: &[ServiceItem], called: &Called) -> String {
    let full: Vec<String> = services.iter().map(full_name).collect();
    let same = services.iter().filter(|service| service.name == called.name).map(full_name).collect::<Vec<_>>();
    let of_short = || suggest::nearest(&called.name, services.iter().map(|service| service.name.as_str()));
    let meant = match &called.namespace {
        Some(_) if !same.is_empty() => Some(same.join(" or ")),
        Some(_) => suggest::nearest(&called.text(), full.iter().map(String::as_str)).map(str::to_owned),
        None => of_short().map(str::to_owned),
    };
    meant.map_or_else(
        || "; `mesh-ctl get services` lists who there is".to_owned(),
        |meant| format!("; did you mean {meant}?"),
    )
}

/// The port that is called: as said, else the only or the first one.
///
/// # Errors
/// It has ports, and this is none of them.
pub(super) fn port_of(service: &ServiceItem, called: &Called) -> anyhow::Result<PortItem> {
    if service.ports.is_empty() {
        // Whatever is dialled at its virtual IP is carried to that port of an endpoint, as bytes.
        let port = called.port.unwrap_or(ANY_PORT);
        return Ok(PortItem { name: String::new(), port, protocol: Protocol::Tcp });
    }
    let found = match called.port {
        Some(wanted) => service.ports.iter().find(|port| port.port == wanted),
        None => service.ports.first(),
    };
    match (found, called.port) {
        (Some(port), _) => Ok(port.clone()),
        (None, port) => {
            let port = port.unwrap_or(ANY_PORT);
            let all: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
            bail!("NR: {} has no port {port}; it has {}", called.name, all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_called_in_several_ways() {
        let check = |text: &str, name: &str, namespace: Option<&str>, port: Option<u16>| {
            let expected = Called { name: name.to_owned(), namespace: namespace.map(str::to_owned), port };
            assert_eq!(Called::read(text), expected, "{text}");
        };
        check("api", "api", None, None);
        check("api:8080", "api", None, Some(8080));
        check("api.shop", "api", Some("shop"), None);
        check("api.shop.svc.mesh.internal.:80", "api", Some("shop"), Some(80));
    }

    #[test]
    fn the_callers_namespace_comes_first() {
        let service = |name: &str, namespace: &str| ServiceItem {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            virtual_ip: String::new(),
            ports: Vec::new(),
        };
        let all = [service("api", "a"), service("api", "b"), service("web", "a")];
        let find = |text: &str, home: Option<&str>| {
            let found = super::find(&all, &Called::read(text), home);
            found.map(|service| service.namespace.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(find("api", Some("b")).unwrap(), "b");
        assert_eq!(find("api.a", Some("b")).unwrap(), "a");
        assert_eq!(find("web", Some("b")).unwrap(), "a");
        assert!(find("api", None).unwrap_err().contains("api.a or api.b"));
        assert!(find("apj", None).unwrap_err().contains("did you mean api?"));
        assert!(find("web.b", None).unwrap_err().contains("nobody is called web.b; did you mean web.a?"));
        assert!(find("wep.a", None).unwrap_err().contains("did you mean web.a?"));
        assert!(find("database", None).unwrap_err().contains("mesh-ctl get services"));
    }

    #[test]
    fn a_service_without_ports_has_any() {
        let port = |number: u16| PortItem { name: number.to_string(), port: number, protocol: Protocol::Http };
        let check = |ports: Vec<PortItem>, text: &str| {
            let service =
                ServiceItem { name: "web".into(), namespace: "shop".into(), virtual_ip: String::new(), ports };
            port_of(&service, &Called::read(text)).map(|port| (port.port, port.protocol)).ok()
        };
        assert_eq!(check(vec![], "web:8080"), Some((8080, Protocol::Tcp)));
        assert_eq!(check(vec![], "web"), Some((ANY_PORT, Protocol::Tcp)));
        assert_eq!(check(vec![port(80)], "web"), Some((80, Protocol::Http)));
        assert_eq!(check(vec![port(80)], "web:8080"), None);
    }
}
