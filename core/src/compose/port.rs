//! Which ports a service has: those it serves on (`mesh.port`, `mesh.ports.<name>.port`, `expose`, `ports`), and those that are
//! published on the host (`ports`).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::{DeclaredPort, PublishedPort, keys};
use crate::config::section::{Section, text_of};
use crate::model::names::Name;
use crate::model::protocol::Protocol;

/// A range of more ports than this is taken for a slip of the finger.
const RANGE_MAX: u16 = 256;

/// What `mesh.port` or `mesh.ports.…` say, else every exposed TCP port; in order of number.
pub(super) fn service_ports(
    section: &Section<'_>,
    labels: &BTreeMap<String, String>,
    published: &[PublishedPort],
) -> Vec<DeclaredPort> {
    let protocol = |key: &str| protocol_label(section, labels, key);
    let common = protocol("mesh.protocol").unwrap_or_default();
    let exposed = exposed(section);
    let mut ports: BTreeMap<u16, DeclaredPort> = BTreeMap::new();
    let mut declare = |name: Option<Name>, port: u16, protocol: Protocol| {
        // A number of at most five digits is always a name.
        let Some(name) = name.or_else(|| Name::new(&port.to_string()).ok()) else { return };
        ports.entry(port).or_insert(DeclaredPort { name, port, protocol });
    };
    for (key, value) in labels {
        let named = key.strip_prefix("mesh.ports.").and_then(|rest| rest.strip_suffix(".port"));
        if named.is_none() && key != "mesh.port" {
            continue;
        }
        let name = named.map(Name::new);
        match (value.parse::<u16>(), &name) {
            (Ok(port @ 1..), None | Some(Ok(_))) => {
                let own = named.and_then(|name| protocol(&format!("mesh.ports.{name}.protocol")));
                declare(name.and_then(Result::ok), port, own.unwrap_or(common));
            }
            (_, Some(Err(error))) => note_label(section, key, value, &error.to_string()),
            _ => note_label(section, key, value, "a port from 1 to 65535 is wanted"),
        }
    }
    if !labels.keys().any(|key| key == "mesh.port" || key.starts_with("mesh.ports.")) {
        let published = published.iter().filter(|port| port.protocol == "tcp").map(|port| port.target);
        exposed.into_iter().chain(published).for_each(|port| declare(None, port, common));
    }
    ports.into_values().collect()
}

fn protocol_label(section: &Section<'_>, labels: &BTreeMap<String, String>, key: &str) -> Option<Protocol> {
    let value = labels.get(key)?;
    let found = Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == value);
    if found.is_none() {
        note_label(section, key, value, "one of auto, http, http2, grpc, tcp is wanted");
    }
    found
}

fn note_label(section: &Section<'_>, key: &str, value: &str, wanted: &str) {
    section.note(section.path_of(&format!("labels.{key}")), Some(&Value::String(value.to_owned())), wanted);
}

/// `expose`: `"8080"`, `8000-8010`, `"53/udp"`; only TCP counts.
fn exposed(section: &Section<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for (path, value) in section.list("expose") {
        let read = text_of(value).and_then(|text| {
            let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            let range = port_range(range)?;
            matches!(protocol, "tcp" | "udp").then_some((range, protocol == "tcp"))
        });
        match read {
            Some((range, true)) => ports.extend(range),
            Some((_, false)) => {}
            None => section.note(path, Some(value), "a port such as 8080, 8000-8010 or 8080/tcp is wanted"),
        }
    }
    ports
}

pub(super) fn published_ports(section: &Section<'_>) -> Vec<PublishedPort> {
    let mut ports = Vec::new();
    for (path, value) in section.list("ports") {
        let read = match value {
            Value::Mapping(_) => section.as_section(path.clone(), value).and_then(|inner| long_form(&inner)),
            value => text_of(value).and_then(|text| short_form(&text)),
        };
        match read {
            Some(read) => ports.extend(read),
            None => {
                let wanted = "a port such as 8080, 8080:80 or 127.0.0.1:8080:80/tcp is wanted";
                section.note(path, Some(value), wanted);
            }
        }
    }
    ports
}

/// `[[host_ip:]published:]target[/protocol]`, where an IPv6 address stands in brackets.
fn short_form(text: &str) -> Option<Vec<PublishedPort>> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp") {
        return None;
    }
    let (host, target) = match rest.rsplit_once(':') {
        Some((host, target)) => (Some(host), target),
        None => (None, rest),
    };
    let (host_ip, published) = match host.map(|host| host.rsplit_once(':').unwrap_or(("", host))) {
        Some((ip, published)) => (Some(ip.trim_matches(['[', ']'])).filter(|ip| !ip.is_empty()), Some(published)),
        None => (None, None),
    };
    if host_ip.is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_err()) {
        return None;
    }
    let targets = port_range(target)?;
    let published: Vec<Option<u16>> = match published.filter(|text| !text.is_empty()) {
        Some(range) => port_range(range)?.into_iter().map(Some).collect(),
        None => vec![None; targets.len()],
    };
    let port = |(target, published)| {
        let host_ip = host_ip.map(str::to_owned);
        PublishedPort { host_ip, published, target, protocol: protocol.to_owned() }
    };
    (targets.len() == published.len()).then(|| targets.into_iter().zip(published).map(port).collect())
}

fn long_form(section: &Section<'_>) -> Option<Vec<PublishedPort>> {
    keys::PORT.check(section);
    let number =
        |key: &str| section.raw(key).and_then(text_of).map(|text| text.parse::<u16>().ok().filter(|port| *port > 0));
    let protocol: Option<String> = section.optional("protocol");
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    let published = match number("published") {
        None => None,
        Some(published) => Some(published?),
    };
    let target = number("target")??;
    matches!(protocol.as_str(), "tcp" | "udp")
        .then(|| vec![PublishedPort { host_ip: section.optional("host_ip"), published, target, protocol }])
}

fn port_range(text: &str) -> Option<Vec<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last && last - first < RANGE_MAX).then(|| (first..=last).collect())
}
