//! A container that is about to start. From the moment it joins a network its name leads to its address, some hundred milliseconds
//! before its application listens, before the engine tells of the start, and before it can be inspected (the engine answers
//! that only when the start is done). So that nobody who dials it then runs into the void, its address is told beforehand.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{ContainerSummary, EndpointResource};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder};
use ipnet::IpNet;

use super::client::{Engine, EngineError};

/// How long a start may take. What has not started by then is forgotten.
pub const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// Containers on their way, remembered at most; a burst beyond it is told of when it has started.
pub const ARRIVALS_MAX: usize = 256;

/// A container that joined a network, and has not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub container: Arc<str>,
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    /// The network's id.
    pub network: Arc<str>,
    pub addresses: Vec<IpAddr>,
}

/// All of them, by container and network.
#[derive(Debug, Default)]
pub struct Arrivals {
    coming: BTreeMap<(Arc<str>, Arc<str>), (Arrival, Instant)>,
}

impl Arrivals {
    pub fn add(&mut self, arrival: Arrival, now: Instant) {
        if self.coming.len() < ARRIVALS_MAX {
            let key = (arrival.container.clone(), arrival.network.clone());
            self.coming.insert(key, (arrival, now + ARRIVAL_MAX));
        }
    }

    /// It has arrived, or never will; true when it was known.
    pub fn forget(&mut self, container: &str) -> bool {
        let before = self.coming.len();
        self.coming.retain(|(id, _), _| **id != *container);
        self.coming.len() < before
    }

    /// Forgets those that have arrived, and those that take too long.
    pub fn retain(&mut self, now: Instant, is_coming: impl Fn(&str) -> bool) {
        self.coming.retain(|(container, _), (_, until)| *until > now && is_coming(container));
    }

    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.coming.values().map(|(_, until)| *until).min()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arrival> {
        self.coming.values().map(|(arrival, _)| arrival)
    }
}

/// Asks who it is that joined, and at which address. Neither question waits for the start.
///
/// # Errors
/// When the engine does not answer. None where it is gone already, or has no address there.
pub async fn look(engine: Engine, container: Arc<str>, network: Arc<str>) -> Result<Option<Arrival>, EngineError> {
    let inspected = engine.docker.inspect_network(&network, None::<InspectNetworkOptions>);
    let inspected = match engine.ask("inspect network", inspected).await? {
        Ok(inspected) => inspected,
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(engine.failed("inspect network", &error)),
    };
    let attached = inspected.containers.unwrap_or_default().remove(&*container);
    let addresses = attached.map_or_else(Vec::new, |attached| addresses(&attached));
    if addresses.is_empty() {
        return Ok(None);
    }
    let filters = HashMap::from([("id".to_owned(), vec![container.to_string()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = engine.ask("list containers", engine.docker.list_containers(Some(options))).await?;
    let listed = listed.map_err(|error| engine.failed("list containers", &error))?;
    let summary = listed.into_iter().find(|summary| summary.id.as_deref() == Some(&*container));
    Ok(summary.map(|summary| arrival(summary, container, network, addresses)))
}

fn arrival(summary: ContainerSummary, container: Arc<str>, network: Arc<str>, addresses: Vec<IpAddr>) -> Arrival {
    let name = summary.names.and_then(|names| names.into_iter().next()).unwrap_or_else(|| container.to_string());
    let name = name.trim_start_matches('/').into();
    let labels = summary.labels.unwrap_or_default().into_iter().collect();
    Arrival { container, name, labels, network, addresses }
}

/// `172.18.0.5/16`, and the like of IPv6.
fn addresses(attached: &EndpointResource) -> Vec<IpAddr> {
    let written = [&attached.ipv4_address, &attached.ipv6_address];
    written.into_iter().flatten().filter_map(|text| Some(text.parse::<IpNet>().ok()?.addr())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(container: &str, network: &str) -> Arrival {
        Arrival {
            container: container.into(),
            name: container.into(),
            labels: BTreeMap::new(),
            network: network.into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    #[test]
    fn it_is_remembered_until_it_started_left_or_took_too_long() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        for (container, network) in [("a", "one"), ("a", "two"), ("b", "one"), ("c", "one")] {
            arrivals.add(arrival(container, network), now);
        }
        let left = |arrivals: &Arrivals| arrivals.iter().map(|one| one.container.to_string()).collect::<String>();
        assert_eq!(left(&arrivals), "aabc");
        assert!(arrivals.forget("a") && !arrivals.forget("a"));
        arrivals.retain(now, |container| container != "b");
        assert_eq!(left(&arrivals), "c");
        assert_eq!(arrivals.next_expiry(), Some(now + ARRIVAL_MAX));
        arrivals.retain(now + ARRIVAL_MAX, |_| true);
        assert_eq!(left(&arrivals), "");
    }

    #[test]
    fn their_number_is_bounded() {
        let mut arrivals = Arrivals::default();
        (0..=ARRIVALS_MAX).for_each(|number| arrivals.add(arrival(&number.to_string(), "one"), Instant::now()));
        assert_eq!(arrivals.iter().count(), ARRIVALS_MAX);
    }

    #[test]
    fn addresses_are_written_with_their_range() {
        let check = |ipv4: &str, ipv6: &str, expected: &[&str]| {
            let text = |text: &str| Some(text.to_owned());
            let attached =
                EndpointResource { ipv4_address: text(ipv4), ipv6_address: text(ipv6), ..EndpointResource::default() };
            let found: Vec<String> = addresses(&attached).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check("172.18.0.5/16", "", &["172.18.0.5"]);
        check("172.18.0.5/16", "fd00::5/64", &["172.18.0.5", "fd00::5"]);
        check("", "", &[]);
        check("nonsense", "", &[]);
    }
}
