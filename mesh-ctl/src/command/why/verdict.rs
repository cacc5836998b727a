//! Each endpoint of a service's port, taken or refused, for a caller on its networks; and what the call gets where nobody takes
//! it. Whether an address is reached is decided by the function that the proxy decides by, and a refusal is in its words.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::endpoint::{NetworkAddress, reached_at};
use mesh_core::model::reason::Reason;
use mesh_discovery::admin::view::{EndpointItem, ServiceItem, SnapshotItem};
use mesh_proxy::balance::Unavailable;
use mesh_proxy::error::ProxyError;
use serde::Serialize;
use serde_json::Value;

/// One that calls: a container, with the networks it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: String,
    /// None when nobody knows, and then every address is reached alike.
    pub(super) networks: Vec<Arc<str>>,
}

/// An endpoint with the verdict on it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Judged {
    name: String,
    pub(super) address: String,
    weight: u32,
    state: String,
    /// `taken` or `refused`.
    pub(super) verdict: &'static str,
    /// The flag of the refusal; `-` where there is none.
    pub(super) code: &'static str,
    /// A word of its own for the refusal that its state does not tell: `NoSharedNetwork`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    pub(super) why: String,
    active_requests: Value,
    requests_total: Value,
    failures_total: Value,
}

/// Why an endpoint that takes requests is refused all the same.
const NO_SHARED_NETWORK: &str = "NoSharedNetwork";

/// Those that call as `service`: its containers whose calls can be captured; else its endpoints, as far as their networks are
/// the engine's.
pub(super) fn callers_of(whole: &SnapshotItem, service: &ServiceItem) -> Vec<Caller> {
    let ours = whole.workloads.iter().filter(|it| it.service == service.name && it.namespace == service.namespace);
    let captured: Vec<Caller> =
        ours.map(|it| Caller { name: it.name.clone(), networks: it.networks.clone() }).collect();
    if !captured.is_empty() {
        return captured;
    }
    // It shares another's network namespace, or the host's; one whose place is none is reached, and reaches, everywhere.
    let is_everywhere = |place: &NetworkAddress| place.network.is_empty() || &*place.network == "host";
    let ids: BTreeSet<&str> = whole.workloads.iter().map(|workload| workload.id.as_str()).collect();
    let own = endpoints_of(whole, service).filter(|it| !ids.contains(it.id.as_str()));
    let mut callers: BTreeMap<&str, Caller> = BTreeMap::new();
    for item in own.filter(|item| !item.networks.iter().any(is_everywhere)) {
        let networks = item.networks.iter().map(|place| place.network.clone()).collect();
        callers.entry(&item.id).or_insert_with(|| Caller { name: item.name.clone(), networks });
    }
    callers.into_values().collect()
}

pub(super) fn endpoints_of<'a>(
    whole: &'a SnapshotItem,
    service: &'a ServiceItem,
) -> impl Iterator<Item = &'a EndpointItem> {
    let is_ours = |item: &&EndpointItem| item.service == service.name && item.namespace == service.namespace;
    whole.endpoints.iter().filter(is_ours)
}

/// What is known about a call.
pub(super) struct Call<'a> {
    pub(super) callers: &'a [Caller],
    pub(super) network_names: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// How the calling proxy sees the endpoints, by id; none when it was not asked.
    pub(super) standings: BTreeMap<String, Value>,
}

impl Call<'_> {
    /// The verdicts on `endpoints`, which are those of one port.
    pub(super) fn judge(&self, endpoints: &[&EndpointItem]) -> Vec<Judged> {
        let first = |state: &str| {
            let takes = |item: &&&EndpointItem| item.state == state && item.weight > 0;
            endpoints.iter().filter(takes).map(|item| item.priority).min()
        };
        let used = match (first("ready"), first("ejected")) {
            (Some(priority), _) => Used { state: "ready", priority },
            (None, ejected) => Used { state: "ejected", priority: ejected.unwrap_or(0) },
        };
        endpoints.iter().map(|item| self.judge_one(item, used)).collect()
    }

    fn judge_one(&self, item: &EndpointItem, used: Used) -> Judged {
        let standing = self.standings.get(&item.id);
        let (mut is_taken, mut why) = stands(item, standing, used);
        let (mut reason, mut address) = (None, item.address.clone());
        match self.reach(item) {
            Reach::Everybody(at) => address = at,
            Reach::Some { address: at, not_from } if is_taken => {
                address = at;
                why = format!("{why}; not from {}, which no network connects with it", not_from.join(", "));
            }
            Reach::Some { .. } => {}
            Reach::Nobody if is_taken => {
                is_taken = false;
                reason = Some(NO_SHARED_NETWORK);
                why = self.no_shared_network(item);
            }
            Reach::Nobody => {}
        }
        let told = |key: &str| standing.map_or(Value::Null, |standing| standing[key].clone());
        Judged {
            name: item.name.clone(),
            address,
            weight: item.weight,
            state: item.state.clone(),
            verdict: if is_taken { "taken" } else { "refused" },
            code: if is_taken { "-" } else { Reason::NoHealthyUpstream.flag() },
            reason,
            why,
            active_requests: told("active_requests"),
            requests_total: told("requests_total"),
            failures_total: told("failures_total"),
        }
    }

    /// Where the callers reach the endpoint.
    fn reach(&self, item: &EndpointItem) -> Reach {
        let Some((first, port)) = parts(&item.address) else { return Reach::Everybody(item.address.clone()) };
        let from = |caller: &Caller| reached_at(first, &item.networks, &caller.networks);
        let reached: Vec<(&Caller, Option<IpAddr>)> = self.callers.iter().map(|it| (it, from(it))).collect();
        let mut at: Vec<String> = Vec::new();
        for ip in reached.iter().filter_map(|(_, ip)| *ip) {
            let address = port.map_or_else(|| ip.to_string(), |port| SocketAddr::new(ip, port).to_string());
            if !at.contains(&address) {
                at.push(address);
            }
        }
        let not_from: Vec<String> =
            reached.iter().filter(|(_, ip)| ip.is_none()).map(|(caller, _)| caller.name.clone()).collect();
        match (at.is_empty(), not_from.is_empty()) {
            (true, true) => Reach::Everybody(item.address.clone()),
            (true, false) => Reach::Nobody,
            (false, true) => Reach::Everybody(at.join(", ")),
            (false, false) => Reach::Some { address: at.join(", "), not_from },
        }
    }

    fn no_shared_network(&self, item: &EndpointItem) -> String {
        let callers: Vec<&Arc<str>> = self.callers.iter().flat_map(|caller| &caller.networks).collect();
        let theirs = self.names(item.networks.iter().map(|place| &place.network));
        let ours = self.names(callers.into_iter());
        format!(
            "{NO_SHARED_NETWORK}: it is on {}, the caller on {}; join one of them to a network of the other",
            theirs.join(", "),
            ours.join(", ")
        )
    }

    /// What people call these networks; the beginning of its id where nobody said.
    fn names<'a>(&'a self, ids: impl Iterator<Item = &'a Arc<str>>) -> Vec<&'a str> {
        let short = |id: &'a Arc<str>| id.get(..12).unwrap_or(id);
        let name = |id: &'a Arc<str>| self.network_names.get(id).map_or_else(|| short(id), AsRef::as_ref);
        ids.map(name).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Where an endpoint is reached.
enum Reach {
    Everybody(String),
    Some { address: String, not_from: Vec<String> },
    Nobody,
}

/// Which endpoints take the requests, as discovery sees it: ejected ones where all are that could.
#[derive(Debug, Clone, Copy)]
struct Used {
    state: &'static str,
    priority: u32,
}

/// Whether it takes requests, wherever they come from, and why.
fn stands(item: &EndpointItem, standing: Option<&Value>, used: Used) -> (bool, String) {
    match standing.and_then(|standing| standing["standing"].as_str()) {
        Some("taken") => (true, "in the draw by its weight".to_owned()),
        Some("taken-in-panic") => (true, "ejected like all others, and better than none".to_owned()),
        Some("ejected") => {
            let left = standing.and_then(|standing| standing["ejected_for_ms"].as_u64()).unwrap_or(0);
            (false, format!("ejected after failures in a row; back in {:.1} s", left as f64 / 1e3))
        }
        Some("other-priority") => (false, "endpoints of a lower priority number are ready".to_owned()),
        Some("weight-zero") => (false, "its weight is 0".to_owned()),
        Some(_) => (false, item.reason.clone()),
        None if item.state == "ready" && item.weight == 0 => (false, "its weight is 0".to_owned()),
        None if item.state != used.state || item.weight == 0 => (false, format!("{}: {}", item.state, item.reason)),
        None if item.priority != used.priority => (false, "endpoints of a lower priority number are ready".to_owned()),
        None if used.state == "ejected" => (true, "ejected like all others, and better than none".to_owned()),
        None => (true, item.reason.clone()),
    }
}

/// The two parts of an endpoint's address, `10.0.0.5:8080`; without a port, `10.0.0.5`, where the service has none.
fn parts(address: &str) -> Option<(IpAddr, Option<u16>)> {
    let socket: Result<SocketAddr, _> = address.parse();
    socket.map(|socket| (socket.ip(), Some(socket.port()))).or_else(|_| address.parse().map(|ip| (ip, None))).ok()
}

/// What the call gets, as the proxy says it; none where an endpoint takes it.
pub(super) fn refusal(cluster: &str, endpoints: &[&EndpointItem], judged: &[Judged]) -> Option<ProxyError> {
    if judged.iter().any(|one| one.verdict == "taken") {
        return None;
    }
    if let Some(one) = judged.iter().find(|one| one.reason == Some(NO_SHARED_NETWORK)) {
        return Some(ProxyError::NoSharedNetwork { endpoint: one.name.as_str().into() });
    }
    let count = |fits: &dyn Fn(&EndpointItem) -> bool| endpoints.iter().filter(|item| fits(item)).count();
    let why = Unavailable {
        known: endpoints.len(),
        not_ready: count(&|item| item.state == "not-ready"),
        draining: count(&|item| item.state == "draining"),
        weight_zero: count(&|item| item.state == "ready" && item.weight == 0),
        ejected: count(&|item| item.state == "ejected"),
    };
    Some(ProxyError::NoHealthyUpstream { cluster: cluster.into(), why })
}

#[cfg(test)]
mod tests;
