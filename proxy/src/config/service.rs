//! One service of the proxy's file: where its endpoints are, and how it is called.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::percent::Percent;
use mesh_core::config::section::{Bytes, Section, text_of, wanted_words};
use mesh_core::model::endpoint::{DEFAULT_WEIGHT, EndpointState, NetworkAddress};
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::{Balance, Circuit, ConnectTimeout, Outlier, Policy, Retry, RetryMethods, RetryOn};
use mesh_core::model::protocol::UpstreamProtocol;
use mesh_core::model::resource::{Assignment, Cluster, EndpointSource, Resources, Target};

/// The bounds of an SRV record's weight (RFC 2782), so that a service can move to DNS as it is.
const WEIGHT_MAX: u32 = 65_535;

/// The bound that xDS sets.
const PRIORITY_MAX: u32 = 127;

/// More tries than this are load, not help.
const ATTEMPTS_MAX: u32 = 10;

/// Of a request's body, for each request that is under way.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Reads `services` into clusters and assignments; returns the names of all, also of those with mistakes, so that what refers
/// to one of them is not a second mistake.
pub(super) fn read_all(root: &Section<'_>, resources: &mut Resources) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some(services) = root.section("services") else { return names };
    for name in services.keys() {
        match services.section_or_empty(&name) {
            Some(section) if name.is_empty() => section.note("services", None, "a service has an empty name"),
            Some(section) => {
                read(&name, &section, resources);
                section.finish();
            }
            // YAML takes a bare 80, true or [a] for something else than a text.
            None if !services.has(&name) => services.note(services.path_of(&name), None, "a name in quotes is wanted"),
            None => {}
        }
        names.insert(name);
    }
    names
}

fn read(name: &str, section: &Section<'_>, resources: &mut Resources) {
    let name: Arc<str> = name.into();
    let protocols = [("http1", UpstreamProtocol::Http1), ("http2", UpstreamProtocol::Http2)];
    let protocol = section.word("protocol", &protocols).unwrap_or_default();
    let policy = read_policy(section);
    let endpoints = read_endpoints(section);
    let dns = read_dns(section);
    let source = match (section.has("endpoints"), section.has("dns")) {
        (true, true) => {
            section.problem("dns", "stands beside endpoints; one of them is wanted");
            return;
        }
        (false, false) => {
            let wanted = "endpoints or dns is missing, such as `endpoints: [{ address: 127.0.0.1:9000 }]`";
            section.note(section.path(), None, wanted);
            return;
        }
        (true, false) => EndpointSource::Assignment,
        (false, true) => match dns {
            Some(source) => source,
            None => return,
        },
    };
    if source == EndpointSource::Assignment {
        let assignment = Assignment { cluster: Arc::clone(&name), endpoints };
        resources.assignments.insert(Arc::clone(&name), Arc::new(assignment));
    }
    let cluster = Cluster { name: Arc::clone(&name), service: None, protocol, policy, source };
    resources.clusters.insert(name, Arc::new(cluster));
}

fn read_endpoints(service: &Section<'_>) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for section in service.sections("endpoints") {
        let address = read_address(&section);
        let weight = within(&section, "weight", 0, WEIGHT_MAX).unwrap_or(DEFAULT_WEIGHT);
        let priority = within(&section, "priority", 0, PRIORITY_MAX).unwrap_or(0);
        let zone = section.optional::<String>("zone").map(Arc::from);
        if let Some(address) = address {
            match targets.iter().any(|target| target.address == address) {
                true => section.problem("address", "is listed twice in this service"),
                false => targets.push(target(address, weight, priority, zone)),
            }
        }
        section.finish();
    }
    targets.sort_by(|a, b| a.id.cmp(&b.id));
    targets
}

fn target(address: SocketAddr, weight: u32, priority: u32, zone: Option<Arc<str>>) -> Target {
    Target {
        id: EndpointId::new(&address.to_string(), 0),
        address,
        // The empty network: every caller reaches it.
        networks: vec![NetworkAddress { network: "".into(), address: address.ip() }],
        weight,
        priority,
        zone,
        version: None,
        state: EndpointState::Ready,
    }
}

/// An address; a host name is told where it belongs.
fn read_address(endpoint: &Section<'_>) -> Option<SocketAddr> {
    let Some(text) = endpoint.raw("address").and_then(text_of) else { return endpoint.required("address") };
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            endpoint.problem("address", "a port from 1 to 65535 is wanted");
        }
        return Some(address);
    }
    let wanted = if text.parse::<std::net::IpAddr>().is_ok() {
        format!("a port is missing; {} is wanted", SocketAddr::new(text.parse().ok()?, 8080))
    } else if text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let hint = "names that change are found with `dns: \"srv://_http._tcp.NAME\"` instead of endpoints";
        format!("is a host name; an IP address such as 127.0.0.1:8080 is wanted here, {hint}")
    } else {
        "an address such as 127.0.0.1:8080 is wanted".to_owned()
    };
    endpoint.problem("address", wanted);
    None
}

fn read_dns(service: &Section<'_>) -> Option<EndpointSource> {
    let resolver = service.optional("resolver");
    if service.has("resolver") && !service.has("dns") {
        service.problem("resolver", "is of use only beside dns");
    }
    let url: String = service.optional("dns")?;
    let name = url.strip_prefix("srv://").map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
    match name.filter(|name| is_dns_name(name)) {
        Some(name) => Some(EndpointSource::Dns { name: name.into(), resolver }),
        None => {
            service.problem("dns", "an SRV name such as srv://_http._tcp.web.shop.svc.mesh.internal is wanted");
            None
        }
    }
}

/// Labels of 1 to 63 characters, 253 in all (RFC 1035 section 2.3.4); `_` as SRV names have it.
fn is_dns_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
    name.len() <= 253 && name.split('.').all(label)
}

fn read_policy(service: &Section<'_>) -> Policy {
    let balances = [("least_request", Balance::LeastRequest), ("round_robin", Balance::RoundRobin)];
    Policy {
        balance: service.word("lb", &balances).unwrap_or_default(),
        timeout: service.optional("timeout").filter(|timeout: &Duration| !timeout.is_zero()),
        connect_timeout: read_connect_timeout(service),
        retry: read_retry(service),
        circuit: read_circuit(service),
        outlier: read_outlier(service),
        upstream: super::limits::read_upstream(service),
    }
}

fn read_connect_timeout(service: &Section<'_>) -> ConnectTimeout {
    let Some(timeout) = service.optional("connect_timeout") else { return ConnectTimeout::default() };
    if timeout == Duration::ZERO {
        service
            .problem("connect_timeout", "more than 0s is wanted: an address that answers nothing would be waited for");
    }
    ConnectTimeout(timeout)
}

fn read_retry(service: &Section<'_>) -> Retry {
    let defaults = Retry::default();
    let Some(section) = service.section("retry") else { return defaults };
    let methods = [("idempotent", RetryMethods::Idempotent), ("any", RetryMethods::Any)];
    let retry = Retry {
        on: read_retry_on(&section).unwrap_or(defaults.on),
        attempts: within(&section, "attempts", 0, ATTEMPTS_MAX).unwrap_or(defaults.attempts),
        budget: share(&section, "budget").unwrap_or(defaults.budget),
        budget_min_per_second: section.optional("min_per_second").unwrap_or(defaults.budget_min_per_second),
        methods: section.word("methods", &methods).unwrap_or_default(),
        body_bytes_max: read_body_bytes(&section).unwrap_or(defaults.body_bytes_max),
    };
    section.finish();
    retry
}

fn read_body_bytes(retry: &Section<'_>) -> Option<u32> {
    let Bytes(bytes) = retry.optional("max_body_bytes")?;
    if bytes > BODY_BYTES_MAX {
        retry.problem("max_body_bytes", "a size from 0 to 64MiB is wanted: each request that is under way may take it");
    }
    u32::try_from(bytes).ok()
}

fn read_retry_on(retry: &Section<'_>) -> Option<BTreeSet<RetryOn>> {
    retry.raw("on")?;
    let words = RetryOn::ALL.iter().map(|word| word.as_str());
    let mut on = BTreeSet::new();
    for (path, value) in retry.list("on") {
        let text = text_of(value).unwrap_or_default();
        match RetryOn::ALL.iter().find(|word| word.as_str() == text) {
            Some(word) => drop(on.insert(*word)),
            None => retry.note(path, Some(value), wanted_words(&text, words.clone())),
        }
    }
    Some(on)
}

fn read_circuit(service: &Section<'_>) -> Circuit {
    let defaults = Circuit::default();
    let Some(section) = service.section("circuit") else { return defaults };
    let limit = |key: &str, default: u32| within(&section, key, 1, u32::MAX).unwrap_or(default);
    let circuit = Circuit {
        connections_max: limit("max_connections", defaults.connections_max),
        pending_max: limit("max_pending", defaults.pending_max),
        requests_max: limit("max_requests", defaults.requests_max),
    };
    section.finish();
    circuit
}

fn read_outlier(service: &Section<'_>) -> Outlier {
    let defaults = Outlier::default();
    let Some(section) = service.section("outlier") else { return defaults };
    let base = section.optional("base_ejection_time").unwrap_or(defaults.base_ejection_time);
    if base.is_zero() {
        section.problem("base_ejection_time", "more than 0s is wanted; consecutive_5xx: 0 turns ejection off");
    }
    let outlier = Outlier {
        consecutive_5xx: section.optional("consecutive_5xx").unwrap_or(defaults.consecutive_5xx),
        base_ejection_time: base,
        max_ejection_time: section.optional("max_ejection_time").unwrap_or(defaults.max_ejection_time).max(base),
        max_ejection_percent: share(&section, "max_ejection_percent").unwrap_or(defaults.max_ejection_percent),
    };
    section.finish();
    outlier
}

/// A number within bounds; one outside is a mistake.
fn within(section: &Section<'_>, key: &str, min: u32, max: u32) -> Option<u32> {
    let value = section.raw(key)?;
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|n| (min..=max).contains(n));
    if number.is_none() {
        section.problem(key, format!("a whole number from {min} to {max} is wanted"));
    }
    number
}

/// At most the whole.
fn share(section: &Section<'_>, key: &str) -> Option<Percent> {
    let percent: Percent = section.optional(key)?;
    if percent.hundredths() > 100_00 {
        section.problem(key, "at most 100% is wanted");
    }
    Some(percent)
}
