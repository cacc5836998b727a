//! A proxy without its shells: the xDS client over streams that break, the view made of what it is told, and the balancers of
//! two workers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_core::model::resource::Resources;
use mesh_discovery::xds::node::ClientKind;
use mesh_proxy::balance::Balancer;
use mesh_proxy::endpoint::LiveCluster;
use mesh_proxy::state::view::View;
use mesh_xds::server::{self, Flavor};
use mesh_xds::{Kind, ResourceSet, client};

use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::link::Pipe;
use crate::sky::Sky;

pub const WORKERS: usize = 2;

/// One stream, with both ends of it.
struct Stream {
    server: server::Session,
    /// Number of the snapshot that the server's end has.
    number: u64,
    requests: Pipe<DeltaDiscoveryRequest>,
    responses: Pipe<DeltaDiscoveryResponse>,
}

/// Every version a resource ever had at the server's end, in order.
#[derive(Default)]
struct Versions {
    all: Vec<Arc<str>>,
    /// Where in it the client is.
    held: usize,
}

pub struct Proxy {
    pub name: &'static str,
    kind: ClientKind,
    session: client::Session,
    stream: Option<Stream>,
    connect_at: std::time::Duration,
    versions: BTreeMap<(Kind, Arc<str>), Versions>,
    /// What the cache on disk has, which may be older than what is held.
    disk: Vec<DeltaDiscoveryResponse>,
    is_disk_due: bool,
    pub view: View,
    /// By worker, by cluster.
    balancers: Vec<HashMap<Arc<str>, Balancer>>,
}

impl Proxy {
    pub fn new(sky: &Sky, name: &'static str, kind: ClientKind) -> Self {
        Self {
            name,
            session: client::Session::new(kind.outbound.is_some()),
            kind,
            stream: None,
            connect_at: sky.now,
            versions: BTreeMap::new(),
            disk: Vec::new(),
            is_disk_due: false,
            view: View::default(),
            balancers: (0..WORKERS).map(|_| HashMap::new()).collect(),
        }
    }

    /// Killed, and started again with what it has on disk: it serves at once, whoever else is down.
    pub fn restart(&mut self, sky: &mut Sky) {
        sky.tell(format_args!("{} starts again", self.name));
        let refused = {
            self.session = client::Session::new(self.kind.outbound.is_some());
            self.session.restore(self.disk.clone())
        };
        assert!(refused.is_empty(), "{sky}: {}: the cache is refused: {refused:?}", self.name);
        for versions in self.versions.values_mut() {
            versions.held = 0;
        }
        self.view = View::default();
        self.balancers.iter_mut().for_each(HashMap::clear);
        self.cut(sky);
        self.apply(sky);
        for cluster in self.disk.iter().filter(|one| Kind::from_type_url(&one.type_url) == Some(Kind::Cluster)) {
            for name in cluster.resources.iter().map(|resource| resource.name.as_str()) {
                let has_endpoints = self.disk.iter().any(|one| {
                    Kind::from_type_url(&one.type_url) == Some(Kind::Assignment)
                        && one.resources.iter().any(|r| r.name == name)
                });
                let serves = self.view.clusters.contains_key(name) || !has_endpoints;
                assert!(serves, "{sky}: {}: cluster {name} is lost by a restart", self.name);
            }
        }
    }

    /// The stream breaks, with all that is on it.
    pub fn cut(&mut self, sky: &mut Sky) {
        self.stream = None;
        self.connect_at = sky.now + sky.up_to(if sky.is_stormy { 3_000 } else { 200 });
    }

    /// One step.
    pub fn advance(&mut self, sky: &mut Sky, discovery: &Discovery, engine: &Engine) {
        if self.stream.is_none() && sky.now >= self.connect_at && discovery.snapshot.number > 0 {
            self.connect(sky, discovery);
        }
        let Some(stream) = &mut self.stream else { return };
        let set = discovery.xds.get(&discovery.snapshot, &self.kind);
        if stream.number != discovery.snapshot.number {
            assert!(stream.number < discovery.snapshot.number, "{sky}: {}: an older snapshot is served", self.name);
            stream.number = discovery.snapshot.number;
            note_versions(&mut self.versions, &set);
            for response in stream.server.update(set) {
                stream.responses.send(sky, response.into_delta());
            }
        }
        while let Some(request) = stream.requests.receive(sky) {
            let outcome = stream.server.delta_request(&request);
            let outcome = outcome.unwrap_or_else(|error| panic!("{sky}: {}: {error}", self.name));
            if let Some(server::Verdict::Rejected { kind, words, .. }) = &outcome.verdict {
                panic!("{sky}: {} rejects {kind}: {words}", self.name);
            }
            for response in outcome.responses {
                stream.responses.send(sky, response.into_delta());
            }
        }
        let mut published = false;
        while let Some(response) = stream.responses.receive(sky) {
            let step = self.session.response(response);
            assert!(step.refused.is_empty(), "{sky}: {}: {:?}", self.name, step.refused);
            published |= step.published;
            self.is_disk_due |= step.held;
            for request in step.requests {
                stream.requests.send(sky, request);
            }
            check_versions(sky, self.name, &self.session, &mut self.versions);
        }
        // The disk lags behind.
        if self.is_disk_due && self.session.published().is_some() && sky.random.u32(0..4) == 0 {
            (self.disk, self.is_disk_due) = (self.session.wire(), false);
        }
        if published {
            self.apply(sky);
            self.check_targets(sky, engine);
        }
    }

    fn connect(&mut self, sky: &mut Sky, discovery: &Discovery) {
        let set = discovery.xds.get(&discovery.snapshot, &self.kind);
        note_versions(&mut self.versions, &set);
        let server = server::Session::new(Flavor::Delta, set);
        let (requests, responses) = (Pipe::new(), Pipe::new());
        let mut stream = Stream { server, number: discovery.snapshot.number, requests, responses };
        for request in self.session.connected(Node::default()) {
            stream.requests.send(sky, request);
        }
        self.stream = Some(stream);
    }

    /// The next view; what is counted about an endpoint stays with it, and a new one begins with nothing.
    fn apply(&mut self, sky: &mut Sky) {
        let Some(resources) = self.session.published().cloned() else { return };
        check_whole(sky, self.name, &resources);
        let next = View::next(&self.view, resources, sky.instant());
        for (name, cluster) in &next.clusters {
            let before = self.view.clusters.get(name);
            for endpoint in cluster.endpoints() {
                let (id, stats) = (endpoint.id(), &endpoint.stats);
                match before.and_then(|before| before.endpoint(id)) {
                    Some(before) => {
                        assert!(Arc::ptr_eq(&before.stats, stats), "{sky}: {}: {id} lost its counters", self.name);
                    }
                    None => {
                        let fresh = stats.requests_total() == 0 && stats.ejections_total() == 0;
                        assert!(fresh, "{sky}: {}: {id} is new, and has another's counters", self.name);
                    }
                }
            }
        }
        self.view = next;
        let clusters: Vec<String> = self.cluster_names().iter().map(|name| self.describe_cluster(name)).collect();
        sky.tell(format_args!("{} has view {}: {}", self.name, self.view.number, clusters.join(", ")));
        for balancers in &mut self.balancers {
            balancers.retain(|name, _| self.view.clusters.contains_key(name));
        }
    }

    /// An id is never told with an address that was another's.
    fn check_targets(&self, sky: &Sky, engine: &Engine) {
        for endpoint in self.view.clusters.values().flat_map(|cluster| cluster.endpoints()) {
            if let Some(address) = engine.address_of(endpoint.id()) {
                let told = endpoint.target.address.ip();
                assert_eq!(told, address, "{sky}: {}: {} is dialled at another's address", self.name, endpoint.id());
            }
        }
    }

    fn describe_cluster(&self, name: &str) -> String {
        let endpoints = self.view.clusters[name].endpoints().iter();
        let states: Vec<String> = endpoints.map(|one| format!("{}={}", one.target.address, one.target.state)).collect();
        let short = name.trim_start_matches("outbound|").split('.').next().unwrap_or_default();
        format!("{short} [{}]", states.join(" "))
    }

    pub fn cluster_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.view.clusters.keys().cloned().collect();
        names.sort();
        names
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<LiveCluster>> {
        self.view.clusters.get(name)
    }

    pub fn balancer(&mut self, worker: usize, cluster: &Arc<str>, seed: u64) -> &mut Balancer {
        let seed = seed.wrapping_mul(WORKERS as u64).wrapping_add(worker as u64);
        self.balancers[worker].entry(cluster.clone()).or_insert_with(|| Balancer::new(seed))
    }

    /// Whether it has exactly what a client has that was just connected, over a way without delay.
    pub fn is_converged(&self, discovery: &Discovery) -> bool {
        let quiet =
            self.stream.as_ref().is_some_and(|stream| stream.requests.is_empty() && stream.responses.is_empty());
        let set = discovery.xds.get(&discovery.snapshot, &self.kind);
        quiet && self.session.waiting_for().is_empty() && self.session.published() == self.fresh(set).as_ref()
    }

    fn fresh(&self, set: Arc<ResourceSet>) -> Option<Arc<Resources>> {
        let mut server = server::Session::new(Flavor::Delta, set);
        let mut client = client::Session::new(self.kind.outbound.is_some());
        let mut requests: std::collections::VecDeque<_> = client.connected(Node::default()).into();
        while let Some(request) = requests.pop_front() {
            let responses = server.delta_request(&request).expect("our own request is understood").responses;
            for response in responses {
                requests.extend(client.response(response.into_delta()).requests);
            }
        }
        client.published().cloned()
    }

    /// Words for a message about a view that does not converge.
    pub fn describe(&self) -> String {
        let number = self.stream.as_ref().map(|stream| stream.number);
        format!("{}: stream at snapshot {number:?}, waiting for {:?}", self.name, self.session.waiting_for())
    }
}

fn note_versions(versions: &mut BTreeMap<(Kind, Arc<str>), Versions>, set: &ResourceSet) {
    for kind in Kind::ALL {
        for packed in set.all(kind) {
            let known = versions.entry((kind, packed.name.clone())).or_default();
            if known.all.last() != Some(&packed.version) {
                known.all.push(packed.version.clone());
            }
        }
    }
}

/// What the client holds was served, and never goes back.
fn check_versions(
    sky: &Sky,
    proxy: &str,
    session: &client::Session,
    versions: &mut BTreeMap<(Kind, Arc<str>), Versions>,
) {
    for response in session.wire() {
        let kind = Kind::from_type_url(&response.type_url).expect("a type that was asked for");
        for resource in response.resources {
            let name: Arc<str> = resource.name.into();
            let known = versions.get_mut(&(kind, name.clone()));
            let known = known.unwrap_or_else(|| panic!("{sky}: {proxy}: {kind} {name} was never served"));
            let ahead = known.all[known.held..].iter().position(|version| **version == *resource.version);
            match ahead {
                Some(ahead) => known.held += ahead,
                None => panic!("{sky}: {proxy}: {kind} {name} went back to {}: {:?}", resource.version, known.all),
            }
        }
    }
}

/// Nothing that is published refers to what is not there.
fn check_whole(sky: &Sky, proxy: &str, resources: &Resources) {
    for listener in resources.listeners.values() {
        let (name, table) = (&listener.name, listener.routes.as_ref());
        let whole = table.is_none_or(|table| resources.routes.contains_key(table));
        assert!(whole, "{sky}: {proxy}: listener {name} without its route table");
        let cluster = listener.tcp_cluster.as_ref();
        let whole = cluster.is_none_or(|cluster| resources.clusters.contains_key(cluster));
        assert!(whole, "{sky}: {proxy}: listener {name} without its cluster");
    }
    for host in resources.routes.values().flat_map(|table| &table.hosts) {
        assert!(resources.clusters.contains_key(&host.cluster), "{sky}: {proxy}: no cluster for {}", host.name);
    }
    for name in resources.clusters.keys() {
        assert!(resources.assignments.contains_key(name), "{sky}: {proxy}: cluster {name} without endpoints");
    }
}
