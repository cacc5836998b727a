//! Clusters for tests, and what survives an update.

use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::UpstreamProtocol;
use mesh_core::model::resource::EndpointSource;

use super::*;

/// Endpoint `i`, ready, of that weight.
pub(crate) fn target(i: u32, weight: u32) -> Target {
    Target {
        id: EndpointId::new(&format!("endpoint-{i:06}"), 0),
        address: "127.0.0.1:80".parse().unwrap(),
        networks: Vec::new(),
        weight,
        priority: 0,
        zone: None,
        version: None,
        state: EndpointState::Ready,
    }
}

pub(crate) fn cluster_with(targets: Vec<Target>, policy: Policy, now: Instant) -> LiveCluster {
    next_version(None, targets, policy, now)
}

/// The clock starts somewhere; every test reads time as a distance from it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn cluster_of(targets: Vec<Target>) -> LiveCluster {
    cluster_with(targets, Policy::default(), start())
}

pub(crate) fn next_version(
    old: Option<&LiveCluster>,
    targets: Vec<Target>,
    policy: Policy,
    now: Instant,
) -> LiveCluster {
    let name: Arc<str> = "web".into();
    let cluster = Cluster {
        name: Arc::clone(&name),
        service: None,
        protocol: UpstreamProtocol::Http1,
        policy,
        source: EndpointSource::Assignment,
    };
    LiveCluster::update(old, Arc::new(cluster), Some(Arc::new(Assignment { cluster: name, endpoints: targets })), now)
}

#[test]
fn counters_survive_every_change_but_a_new_id() {
    let now = start();
    let first = cluster_with(vec![target(0, 1), target(1, 1), target(2, 1)], Policy::default(), now);
    let guards: Vec<_> = first.endpoints().iter().map(|endpoint| endpoint.begin_request()).collect();
    first.endpoints()[1].stats.eject(first.stats().clock_ms(now) + 1000, 3);
    let mut heavier = target(1, 7);
    heavier.state = EndpointState::Draining;
    let second = next_version(Some(&first), vec![target(3, 1), target(0, 1), heavier], Policy::default(), now);

    assert!(Arc::ptr_eq(&first.endpoints()[0], &second.endpoints()[0]), "nothing about it changed");
    assert_eq!(second.endpoints()[1].target.weight, 7);
    assert_eq!(second.endpoints()[1].stats.active_requests(), 1);
    assert_eq!(second.ejected_for(&second.endpoints()[1], now), Some(Duration::from_secs(1)));
    assert_eq!(second.endpoints()[2].stats.active_requests(), 0, "a new endpoint starts at zero");
    drop(guards);
    assert_eq!(second.endpoints()[1].stats.active_requests(), 0, "old guards count down on the new version");
    assert_ne!(second.generation(), first.generation());
    assert!(Arc::ptr_eq(first.stats(), second.stats()));
    assert!(second.endpoint(&target(3, 1).id).is_some() && second.endpoint(&target(2, 1).id).is_none());
}

#[test]
fn levels_hold_what_takes_requests() {
    let mut targets: Vec<Target> = (0..6).map(|i| target(i, i % 3)).collect();
    targets[1].state = EndpointState::NotReady;
    targets[5].priority = 4;
    let cluster = cluster_of(targets);
    let levels: Vec<_> = cluster.levels().iter().map(|level| (level.priority(), level.members().to_vec())).collect();
    assert_eq!(levels, [(0, vec![2, 4]), (4, vec![5])]);
    assert!(cluster_of(Vec::new()).levels().is_empty());
}

#[test]
fn doubled_ids_count_once() {
    let cluster = cluster_of(vec![target(1, 1), target(0, 1), target(1, 5)]);
    assert_eq!(cluster.endpoints().len(), 2);
}
