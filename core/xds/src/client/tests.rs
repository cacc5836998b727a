use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use fastrand::Rng;
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::protocol::{ListenProtocol, UpstreamProtocol};
use mesh_core::model::resource::{
    Assignment, Bind, CaptureMap, Cluster, EndpointSource, Listener, Resources, RouteTable, Target, VirtualHost,
};
use prost::Message as _;

use super::{Reserved, Session};
use crate::encode::{self, route::Reader};
use crate::kind::Kind;
use crate::packed::{Packed, ResourceSet};
use crate::server;

fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        service: None,
        protocol: UpstreamProtocol::Http1,
        policy: Default::default(),
        source: EndpointSource::Assignment,
    }
}

fn assignment(cluster: &str, generation: u32) -> Assignment {
    let target = Target {
        id: EndpointId::new("one", 0),
        address: "127.0.0.1:80".parse().unwrap(),
        networks: Vec::new(),
        weight: generation,
        priority: 0,
        zone: None,
        version: None,
        state: EndpointState::Ready,
    };
    Assignment { cluster: cluster.into(), endpoints: vec![target] }
}

fn listener(name: &str, table: &str) -> Listener {
    let bind = Bind::Address("127.0.0.1:80".parse().unwrap());
    Listener { routes: Some(table.into()), ..Listener::new(name.into(), bind, ListenProtocol::Http) }
}

fn table(name: &str, cluster: &str) -> RouteTable {
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], cluster: cluster.into() };
    RouteTable { name: name.into(), hosts: vec![host] }
}

fn capture(generation: u32) -> CaptureMap {
    let virtual_ip_range = format!("10.{}.0.0/16", generation % 250).parse().unwrap();
    CaptureMap { virtual_ip_range, workloads: Vec::new(), foreign: Vec::new(), addresses: Vec::new() }
}

fn set_of(resources: &Resources) -> ResourceSet {
    let mut set = ResourceSet::default();
    for one in resources.clusters.values() {
        set.offer(Kind::Cluster, encode::cluster::cluster(one).unwrap());
    }
    for one in resources.assignments.values() {
        set.offer(Kind::Assignment, encode::assignment::assignment(one));
    }
    for one in resources.listeners.values() {
        set.offer(Kind::Listener, encode::listener::listener(one).unwrap());
    }
    for one in resources.routes.values() {
        set.offer(Kind::Route, encode::route::route_table(one, &BTreeMap::new(), Reader::Proxy));
    }
    if let Some(map) = &resources.capture {
        set.offer(Kind::Capture, encode::capture(map));
    }
    set
}

/// Listeners lead to random tables, tables to random clusters; everything exists, and tables nobody refers to do not.
fn world(random: &mut Rng, generation: u32) -> Resources {
    let mut world = Resources { capture: Some(Arc::new(capture(generation))), ..Resources::default() };
    let clusters: Vec<String> = (0..4).filter(|_| random.bool()).map(|index| format!("cluster-{index}")).collect();
    for name in &clusters {
        world.clusters.insert(name.as_str().into(), Arc::new(cluster(name)));
        world.assignments.insert(name.as_str().into(), Arc::new(assignment(name, generation)));
    }
    if clusters.is_empty() {
        return world;
    }
    for index in (0..3).filter(|_| random.bool()).collect::<Vec<_>>() {
        let (name, to) = (format!("listener-{index}"), format!("table-{}", random.u8(..3)));
        world.listeners.insert(name.as_str().into(), Arc::new(listener(&name, &to)));
        let target = &clusters[random.usize(..clusters.len())];
        world.routes.entry(to.as_str().into()).or_insert_with(|| Arc::new(table(&to, target)));
    }
    world
}

/// Nothing without what it refers to, and no endpoint's generation smaller than one seen before.
fn check_consistent(resources: &Resources, newest_seen: &mut BTreeMap<Arc<str>, u32>, seed: u64) {
    for listener in resources.listeners.values() {
        let table = listener.routes.as_ref().unwrap();
        assert!(resources.routes.contains_key(table), "seed {seed}: no {table}");
    }
    for host in resources.routes.values().flat_map(|table| &table.hosts) {
        assert!(resources.clusters.contains_key(&host.cluster), "seed {seed}: no {}", host.cluster);
    }
    for name in resources.clusters.keys() {
        let assignment = &resources.assignments[name];
        let generation = assignment.endpoints.first().map_or(0, |target| target.weight);
        let newest = newest_seen.entry(name.clone()).or_default();
        assert!(
            generation == 0 || generation >= *newest,
            "seed {seed}: {name} went from {newest} back to {generation}"
        );
        *newest = generation.max(*newest);
    }
}

/// Both ends and the two queues between them.
struct Wire {
    server: server::Session,
    client: Session,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
}

impl Wire {
    fn new(set: &Arc<ResourceSet>) -> Self {
        let server = server::Session::new(server::Flavor::Delta, set.clone());
        let mut wire =
            Self { server, client: Session::new(true), to_server: VecDeque::new(), to_client: VecDeque::new() };
        wire.reconnect(set);
        wire
    }

    /// What was under way is lost; both sides begin a new stream.
    fn reconnect(&mut self, set: &Arc<ResourceSet>) {
        self.to_client.clear();
        self.server = server::Session::new(server::Flavor::Delta, set.clone());
        self.to_server = self.client.connected(Node::default()).into();
    }

    fn update(&mut self, set: &Arc<ResourceSet>) {
        let responses = self.server.update(set.clone());
        self.to_client.extend(responses.into_iter().map(server::Response::into_delta));
    }

    fn deliver_to_server(&mut self) -> bool {
        let Some(request) = self.to_server.pop_front() else { return false };
        let outcome = self.server.delta_request(&request).unwrap();
        assert!(!matches!(outcome.verdict, Some(server::Verdict::Rejected { .. })), "{outcome:?}");
        self.to_client.extend(outcome.responses.into_iter().map(server::Response::into_delta));
        true
    }

    fn deliver_to_client(&mut self) -> bool {
        let Some(response) = self.to_client.pop_front() else { return false };
        self.to_server.extend(self.client.response(response).requests);
        true
    }
}

#[test]
fn both_ends_converge_under_reconnects_and_nothing_incomplete_is_published() {
    for seed in 0..200 {
        let random = &mut Rng::with_seed(seed);
        let mut generation = 1;
        let mut now = world(random, generation);
        let mut set = Arc::new(set_of(&now));
        let mut wire = Wire::new(&set);
        let mut newest_seen = BTreeMap::new();
        for _ in 0..random.usize(50..300) {
            match random.u8(..20) {
                0 => wire.reconnect(&set),
                1 | 2 => {
                    generation += 1;
                    now = world(random, generation);
                    set = Arc::new(set_of(&now));
                    wire.update(&set);
                }
                3..=10 => _ = wire.deliver_to_server(),
                _ => _ = wire.deliver_to_client(),
            }
            if let Some(resources) = wire.client.published() {
                check_consistent(resources, &mut newest_seen, seed);
            }
        }
        for _ in 0..1000 {
            if !(wire.deliver_to_server() | wire.deliver_to_client()) {
                break;
            }
            if let Some(resources) = wire.client.published() {
                check_consistent(resources, &mut newest_seen, seed);
            }
        }
        assert!(wire.to_client.is_empty() && wire.to_server.is_empty(), "seed {seed}: they never come to rest");
        assert_eq!(wire.client.published().map(|one| &**one), Some(&now), "seed {seed}");
        assert!(wire.client.waiting_for().is_empty(), "seed {seed}");
    }
}

#[test]
fn a_reconnect_without_changes_brings_nothing_and_moves_nothing() {
    let now = world(&mut Rng::with_seed(3), 1);
    assert!(!now.listeners.is_empty());
    let set = Arc::new(set_of(&now));
    let mut wire = Wire::new(&set);
    while wire.deliver_to_server() | wire.deliver_to_client() {}
    let before = wire.client.published().unwrap().clone();
    wire.reconnect(&set);
    let mut resources = 0;
    while wire.deliver_to_server() | !wire.to_client.is_empty() {
        resources += wire.to_client.iter().map(|one| one.resources.len() + one.removed_resources.len()).sum::<usize>();
        wire.deliver_to_client();
    }
    assert_eq!(resources, 0);
    assert!(Arc::ptr_eq(&before, wire.client.published().unwrap()));
}

#[test]
fn what_is_unchanged_keeps_its_place_in_memory() {
    let mut now = world(&mut Rng::with_seed(3), 1);
    let set = Arc::new(set_of(&now));
    let mut wire = Wire::new(&set);
    while wire.deliver_to_server() | wire.deliver_to_client() {}
    let before = wire.client.published().unwrap().clone();
    now.capture = Some(Arc::new(capture(99)));
    wire.update(&Arc::new(set_of(&now)));
    while wire.deliver_to_server() | wire.deliver_to_client() {}
    let after = wire.client.published().unwrap();
    assert_ne!(before.capture, after.capture);
    for (name, listener) in &before.listeners {
        assert!(Arc::ptr_eq(listener, &after.listeners[name]));
    }
}

fn response(kind: Kind, nonce: &str, resources: Vec<Packed>) -> DeltaDiscoveryResponse {
    let envelope = |one: Packed| Resource {
        name: one.name.to_string(),
        version: one.version.to_string(),
        resource: Some(one.body),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.into_iter().map(envelope).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn packed_cluster(name: &str) -> Packed {
    encode::cluster::cluster(&cluster(name)).unwrap()
}

#[test]
fn a_bad_resource_is_rejected_with_words_and_the_last_good_one_stays() {
    let mut session = Session::new(false);
    session.connected(Node::default());
    session.response(response(Kind::Cluster, "1", vec![packed_cluster("a")]));
    let mut bad = packed_cluster("a");
    bad.version = "bad".into();
    bad.body.value = vec![0xff; 3];
    let step = session.response(response(Kind::Cluster, "2", vec![bad, packed_cluster("b")]));
    assert_eq!(step.refused.len(), 1);
    let nack = step.requests.last().unwrap();
    assert_eq!(nack.response_nonce, "2");
    let words = &nack.error_detail.as_ref().unwrap().message;
    assert!(words.starts_with("cds \"a\": cluster is no valid protobuf message: "), "{words}");
    let subscribed = &step.requests[0];
    assert_eq!(subscribed.type_url, Kind::Assignment.type_url());
    assert_eq!(subscribed.resource_names_subscribe, ["b"], "the good one beside it is taken");
    let again = session.connected(Node::default());
    assert_ne!(again[0].initial_resource_versions["a"], "bad");
}

#[test]
fn what_never_comes_is_waited_for_only_until_patience_ends() {
    let mut session = Session::new(false);
    session.connected(Node::default());
    session.response(response(Kind::Cluster, "1", vec![packed_cluster("a"), packed_cluster("b")]));
    session.response(response(Kind::Assignment, "2", vec![encode::assignment::assignment(&assignment("a", 1))]));
    session.response(response(Kind::Listener, "3", Vec::new()));
    assert!(session.published().is_none());
    assert_eq!(session.waiting_for().iter().collect::<Vec<_>>(), ["endpoints of cluster b"]);
    assert!(session.settle());
    assert_eq!(session.published().unwrap().clusters.keys().collect::<Vec<_>>(), [&Arc::from("a")]);
}

#[test]
fn a_cache_brings_back_what_was_published() {
    let now = world(&mut Rng::with_seed(3), 1);
    let mut wire = Wire::new(&Arc::new(set_of(&now)));
    while wire.deliver_to_server() | wire.deliver_to_client() {}
    let bytes: Vec<Vec<u8>> = wire.client.wire().iter().map(prost::Message::encode_to_vec).collect();
    let restored = bytes.iter().map(|one| DeltaDiscoveryResponse::decode(&one[..]).unwrap()).collect();
    let mut session = Session::new(true);
    assert!(session.restore(restored).is_empty());
    assert_eq!(**session.published().unwrap(), now);
    wire.client = session;
    wire.reconnect(&Arc::new(set_of(&now)));
    assert!(wire.to_server.iter().all(|request| !request.initial_resource_versions.is_empty()));
}

#[test]
fn a_cache_that_is_not_whole_brings_back_what_is() {
    let mut session = Session::new(true);
    session.connected(Node::default());
    session.response(response(Kind::Cluster, "1", vec![packed_cluster("a"), packed_cluster("b")]));
    session.response(response(Kind::Assignment, "2", vec![encode::assignment::assignment(&assignment("a", 1))]));
    session.response(response(Kind::Listener, "3", Vec::new()));
    session.response(response(Kind::Capture, "4", vec![encode::capture(&capture(1))]));
    assert!(session.published().is_none(), "a control plane that is there is waited for");
    let mut restored = Session::new(true);
    assert!(restored.restore(session.wire()).is_empty());
    let published = restored.published().expect("one that may be down is not");
    assert_eq!(published.clusters.keys().collect::<Vec<_>>(), [&Arc::from("a")]);
    assert_eq!(published.capture.as_deref(), Some(&capture(1)));
}

#[test]
fn timeouts_of_another_control_plane_are_found_in_its_routes() {
    let mut foreign = packed_cluster("a");
    let mut message = envoy_types::pb::envoy::config::cluster::v3::Cluster::decode(&foreign.body.value[..]).unwrap();
    message.metadata = None;
    foreign.body.value = message.encode_to_vec();
    let policy = mesh_core::model::policy::Policy { timeout: Some(Duration::from_secs(7)), ..Default::default() };
    let table = encode::route::route_table(&table("t", "a"), &[("a".into(), &policy)].into(), Reader::Proxy);
    let mut session = Session::new(false);
    session.connected(Node::default());
    session.response(response(Kind::Cluster, "1", vec![foreign]));
    session.response(response(Kind::Assignment, "2", vec![encode::assignment::assignment(&assignment("a", 1))]));
    let listener = encode::listener::listener(&listener("l", "t")).unwrap();
    session.response(response(Kind::Listener, "3", vec![listener]));
    session.response(response(Kind::Route, "4", vec![table]));
    let cluster = &session.published().unwrap().clusters["a"];
    assert_eq!(cluster.policy.timeout, Some(Duration::from_secs(7)));
    assert_eq!(cluster.policy.retry.on, policy.retry.on);
    assert_eq!(cluster.policy.retry.attempts, 2);
}

/// A server and a client, and what the server was told.
struct Pair {
    server: server::Session,
    client: Session,
    verdicts: Vec<server::Verdict>,
    refused: Vec<String>,
}

impl Pair {
    fn carry(&mut self, requests: Vec<DeltaDiscoveryRequest>) {
        let mut requests = VecDeque::from(requests);
        while let Some(request) = requests.pop_front() {
            let outcome = self.server.delta_request(&request).unwrap();
            self.verdicts.extend(outcome.verdict);
            for response in outcome.responses {
                let step = self.client.response(response.into_delta());
                self.refused.extend(step.refused.iter().map(ToString::to_string));
                requests.extend(step.requests);
            }
        }
    }

    fn reserve(&mut self, clusters: &[&str]) -> usize {
        let clusters = clusters.iter().map(|name| ((*name).into(), Arc::new(cluster(name))));
        let file = Resources { clusters: clusters.collect(), ..Resources::default() };
        let step = self.client.reserve(Reserved::by(&file));
        let refused = step.refused.len();
        self.carry(step.requests);
        refused
    }

    /// What the server knows to be rejected of the clusters.
    fn rejected(&self) -> Option<String> {
        let status = self.server.status();
        status.into_iter().find(|one| one.kind == Kind::Cluster).and_then(|one| one.rejected)
    }
}

#[test]
fn a_name_that_the_file_has_is_rejected_by_name_and_had_when_it_is_free() {
    let mut world = Resources::default();
    for name in ["api", "web"] {
        world.clusters.insert(name.into(), Arc::new(cluster(name)));
        world.assignments.insert(name.into(), Arc::new(assignment(name, 1)));
    }
    let server = server::Session::new(server::Flavor::Delta, Arc::new(set_of(&world)));
    let mut pair = Pair { server, client: Session::new(false), verdicts: Vec::new(), refused: Vec::new() };
    pair.reserve(&["web"]);
    let first = pair.client.connected(Node::default());
    pair.carry(first);
    let words = pair.rejected().unwrap();
    assert!(words.contains("cds \"web\": the proxy's own file has that name") && !words.contains("api"), "{words}");
    assert_eq!((pair.refused.len(), pair.client.clashing(Kind::Cluster)), (1, 1));
    assert_eq!(pair.client.published().unwrap().clusters.len(), 2, "who merges decides; nothing is lost");

    // The file gives it up; then it takes another that was accepted before.
    assert_eq!(pair.reserve(&[]), 0);
    assert_eq!((pair.rejected(), pair.client.clashing(Kind::Cluster)), (None, 0));
    assert_eq!(pair.reserve(&["api"]), 1);
    assert!(pair.rejected().unwrap().contains("cds \"api\""));
    let told = pair.verdicts.len();
    assert_eq!(pair.reserve(&["api"]), 0);
    assert_eq!(pair.verdicts.len(), told, "nothing is told twice");

    // A new stream, on which nothing has changed, tells it too.
    pair.server = server::Session::new(server::Flavor::Delta, Arc::new(set_of(&world)));
    let again = pair.client.connected(Node::default());
    pair.carry(again);
    assert!(pair.rejected().unwrap().contains("cds \"api\""));
}

#[test]
fn an_address_that_the_file_listens_on_is_rejected_whatever_its_listener_is_called() {
    let mut world = Resources::default();
    world.clusters.insert("web".into(), Arc::new(cluster("web")));
    world.assignments.insert("web".into(), Arc::new(assignment("web", 1)));
    world.listeners.insert("theirs".into(), Arc::new(listener("theirs", "table")));
    world.routes.insert("table".into(), Arc::new(table("table", "web")));
    let server = server::Session::new(server::Flavor::Delta, Arc::new(set_of(&world)));
    let mut pair = Pair { server, client: Session::new(false), verdicts: Vec::new(), refused: Vec::new() };
    let own =
        Resources { listeners: [("ours".into(), Arc::new(listener("ours", "t")))].into(), ..Resources::default() };
    pair.client.reserve(Reserved::by(&own));
    let first = pair.client.connected(Node::default());
    pair.carry(first);
    assert_eq!(pair.refused.len(), 1, "{:?}", pair.refused);
    assert!(pair.refused[0].contains("lds \"theirs\": the proxy's own file listens on 127.0.0.1:80 (\"ours\")"));
}
