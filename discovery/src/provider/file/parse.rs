//! The text of `mesh.yaml` to what it lists. Every mistake is told at once, with key path, value and what would be right.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::config::problem::Problems;
use mesh_core::config::section::{Document, Section, text_of, wanted_words};
use mesh_core::model::endpoint::{CaptureMode, DEFAULT_WEIGHT, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::ServicePort;

use crate::provider::{Observation, ObservedEndpoint, ObservedService, ReadySource};

/// The namespace of a service that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What an SRV record holds (RFC 2782).
pub const WEIGHT_MAX: u32 = 65_535;

/// What Envoy accepts.
pub const PRIORITY_MAX: u32 = 127;

/// Reads `services: [{name, namespace, ports: [...], endpoints: [...]}]`.
///
/// # Errors
/// [`Problems`] with every mistake there is; `origin` names the file in each.
pub fn parse(origin: &str, text: &str) -> Result<Observation, Problems> {
    let document = Document::parse(origin, text)?;
    let root = document.root();
    let mut observation = Observation::default();
    let mut seen: BTreeMap<ServiceId, String> = BTreeMap::new();
    if root.has("services") && root.raw("services").is_none() {
        // As an editor leaves it in the middle of a change.
        root.problem("services", "is empty; [] is how a file says that there are none");
    }
    for section in root.sections("services") {
        let service = read_service(&section, origin);
        if let Some((service, endpoints)) = service {
            if let Some(first) = seen.get(&service.id) {
                section.problem("name", format!("is a duplicate: {first} is {} already", service.id));
            } else {
                seen.insert(service.id.clone(), section.path().to_owned());
                observation.services.push(service);
                observation.endpoints.extend(endpoints);
            }
        }
        section.finish();
    }
    root.finish();
    document.finish(observation)
}

fn read_service(section: &Section<'_>, origin: &str) -> Option<(ObservedService, Vec<ObservedEndpoint>)> {
    let name = read_name(section, "name");
    if section.raw("name").is_none() {
        section.problem("name", "is missing; a name such as web is wanted");
    }
    let namespace = if section.raw("namespace").is_some() {
        read_name(section, "namespace")
    } else {
        Some(Name::new(DEFAULT_NAMESPACE).expect("a DNS label"))
    };
    let ports = read_ports(section);
    // Read even where the service has no good name, so that their mistakes are told as well.
    let drafts = read_endpoints(section, &ports);
    let id = ServiceId::new(name?, namespace?);
    let endpoints = drafts.into_iter().map(|draft| draft.into_endpoint(&id, origin)).collect();
    Some((ObservedService { id, ports, policy: Policy::default() }, endpoints))
}

fn read_ports(service: &Section<'_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for section in service.sections("ports") {
        let port = section.required::<u16>("port");
        if port == Some(0) {
            section.problem("port", "a port from 1 to 65535 is wanted");
        }
        let protocol = section.word("protocol", &Protocol::ALL.map(|protocol| (protocol.as_str(), protocol)));
        let name = if section.raw("name").is_some() {
            read_name(&section, "name")
        } else {
            port.map(|port| Name::new(&port.to_string()).expect("a number is a DNS label"))
        };
        if let (Some(name), Some(port @ 1..)) = (name, port) {
            if ports.iter().any(|known| known.name == name) {
                section.problem("name", format!("is a duplicate: another port of this service is named {name}"));
            } else if let Some(known) = ports.iter().find(|known| known.port == port) {
                section.problem("port", format!("is a duplicate: the port named {} has this number", known.name));
            } else {
                ports.push(ServicePort { name, port, protocol: protocol.unwrap_or_default() });
            }
        }
        section.finish();
    }
    ports
}

/// An endpoint before its service is known to have a good name: the ports of one address that share the traffic alike.
struct Draft {
    address: SocketAddr,
    /// Names it beside others of the same address; the first needs none.
    mark: Option<Name>,
    ports: BTreeMap<Name, u16>,
    weight: u32,
    priority: u32,
    zone: Option<Arc<str>>,
}

impl Draft {
    fn into_endpoint(self, service: &ServiceId, origin: &str) -> ObservedEndpoint {
        let text = self.address.to_string();
        let unit = self.mark.map_or_else(|| text.clone(), |port| format!("{text}/{port}"));
        let endpoint = Endpoint {
            id: EndpointId::new(&unit, 0),
            name: text.into(),
            service: service.clone(),
            addresses: vec![NetworkAddress { network: "".into(), address: self.address.ip() }],
            ports: self.ports,
            weight: self.weight,
            priority: self.priority,
            zone: self.zone,
            version: None,
            state: EndpointState::Ready,
            reason: format!("listed in {origin}").into(),
            publish_not_ready: false,
            capture: CaptureMode::Auto,
            own_names: Vec::new(),
            aliases: Vec::new(),
        };
        ObservedEndpoint { endpoint, ready: ReadySource::Stated }
    }
}

fn read_endpoints(service: &Section<'_>, ports: &[ServicePort]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for section in service.sections("endpoints") {
        let address = section.required::<SocketAddr>("address");
        if address.is_some_and(|address| address.port() == 0 || address.ip().is_unspecified()) {
            section.problem("address", "an address that can be dialled, such as 10.0.0.5:8080, is wanted");
        }
        let port = read_port_name(&section, service, ports);
        let weight = bounded(&section, "weight", WEIGHT_MAX);
        let priority = bounded(&section, "priority", PRIORITY_MAX);
        let zone = section.optional::<String>("zone").map(Arc::from);
        if let (Some(address), Some(port)) = (address, port) {
            let weight = weight.unwrap_or(DEFAULT_WEIGHT);
            let priority = priority.unwrap_or(0);
            let mut same = drafts.iter_mut().filter(|draft| draft.address == address).peekable();
            let is_first = same.peek().is_none();
            if same.any(|draft| draft.ports.contains_key(&port)) {
                section.problem("address", format!("is a duplicate: this service has it for port {port} already"));
                section.finish();
                continue;
            }
            // A zone need not be said twice.
            let fits = |known: &Option<Arc<str>>| known.is_none() || zone.is_none() || *known == zone;
            let is_alike = |draft: &&mut Draft| {
                let shares = (draft.weight, draft.priority) == (weight, priority);
                draft.address == address && shares && fits(&draft.zone)
            };
            match drafts.iter_mut().find(is_alike) {
                Some(draft) => {
                    draft.ports.insert(port, address.port());
                    draft.zone = draft.zone.take().or(zone);
                }
                None => drafts.push(Draft {
                    address,
                    mark: (!is_first).then(|| port.clone()),
                    ports: [(port, address.port())].into(),
                    weight,
                    priority,
                    zone,
                }),
            }
        }
        section.finish();
    }
    // In order of address, whatever the file's.
    drafts.sort_by(|a, b| (a.address, &a.mark).cmp(&(b.address, &b.mark)));
    drafts
}

/// Which of the service's ports the endpoint serves; it need not say so where there is only one.
fn read_port_name(section: &Section<'_>, service: &Section<'_>, ports: &[ServicePort]) -> Option<Name> {
    // Mistakes in the ports themselves are told there; here they would only be told again.
    let as_listed = service.list("ports").len();
    let known = || ports.iter().map(|port| port.name.as_str());
    match section.raw("port").map(text_of) {
        Some(Some(text)) => {
            let found = ports.iter().find(|port| port.name.as_str() == text);
            if found.is_none() && ports.is_empty() && as_listed == 0 {
                section.problem("port", "names a port, but the service lists none under ports");
            } else if found.is_none() && ports.len() == as_listed {
                section.problem("port", wanted_words(&text, known()));
            }
            found.map(|port| port.name.clone())
        }
        Some(None) => {
            section.problem("port", "the name of a port is wanted");
            None
        }
        None if as_listed == 0 => {
            section.problem("port", "is missing, and the service lists none under ports: [{name: http, port: 80}]");
            None
        }
        None if as_listed > 1 => {
            let names = known().collect::<Vec<_>>().join(", ");
            section.problem("port", format!("is missing; the service has several: one of {names} is wanted"));
            None
        }
        None => ports.first().map(|port| port.name.clone()),
    }
}

fn bounded(section: &Section<'_>, key: &str, max: u32) -> Option<u32> {
    let value = section.raw(key)?.as_u64().and_then(|value| u32::try_from(value).ok()).filter(|value| *value <= max);
    if value.is_none() {
        section.problem(key, format!("a whole number from 0 to {max} is wanted"));
    }
    value
}

fn read_name(section: &Section<'_>, key: &str) -> Option<Name> {
    let text = section.optional::<String>(key)?;
    match Name::new(&text) {
        Ok(name) => Some(name),
        Err(error) => {
            section.problem(key, error.to_string());
            None
        }
    }
}
