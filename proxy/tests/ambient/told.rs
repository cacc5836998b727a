//! What a control plane would say of the test's world: service `web.shop` with HTTP on 8080 and lines on 9000, service
//! `client.shop` that calls it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::endpoint::{CaptureMode, EndpointState, NetworkAddress};
use mesh_core::model::forwarded::ForwardedHeaders;
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::{Protocol, UpstreamProtocol};
use mesh_core::model::resource::{
    Assignment, Bind, CaptureMap, CaptureWorkload, CapturedAddress, CapturedPort, Cluster, EndpointSource, Listener,
    Resources, RouteTable, Target, VirtualHost,
};
use mesh_proxy::ambient::CaptureOptions;
use mesh_proxy::app::{App, Drained, Options};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use super::world::{Namespace, PATIENCE, eventually};

pub const NETWORK: &str = "net-1";
pub const VIRTUAL: &str = "240.240.0.7";
const PORTS: [(u16, Protocol); 2] = [(8080, Protocol::Auto), (9000, Protocol::Tcp)];

pub fn service(text: &str) -> ServiceId {
    let (name, namespace) = text.split_once('.').unwrap();
    ServiceId::new(Name::new(name).unwrap(), Name::new(namespace).unwrap())
}

/// Starts to be written down, and is then told.
#[derive(Default)]
pub struct Told {
    endpoints: Vec<(u8, EndpointState)>,
    /// Addresses of endpoints that left.
    departed: Vec<u8>,
    /// Addresses of the first endpoints of a service, which have not started.
    coming: Vec<u8>,
    workloads: Vec<CaptureWorkload>,
    pub mode: CaptureMode,
}

impl Told {
    pub fn endpoint(mut self, n: u8, state: EndpointState) -> Self {
        self.endpoints.push((n, state));
        self
    }

    pub fn departed(mut self, n: u8) -> Self {
        self.departed.push(n);
        self
    }

    pub fn coming(mut self, n: u8) -> Self {
        self.coming.push(n);
        self
    }

    pub fn workload(self, of: &str, namespace: &Namespace) -> Self {
        self.workload_at(of, &namespace.path(), 1)
    }

    pub fn workload_at(mut self, of: &str, path: &str, start: u64) -> Self {
        self.workloads.push(CaptureWorkload {
            id: EndpointId::new(path, start),
            name: of.into(),
            service: service(of),
            namespace_path: path.into(),
            networks: vec![NETWORK.into()],
        });
        self
    }

    pub fn resources(&self) -> Arc<Resources> {
        let web = service("web.shop");
        let mut all = Resources::default();
        for (port, protocol) in PORTS {
            let cluster: Arc<str> = web.cluster_name(port, "mesh.internal").into();
            let (virtual_ip, table) = (SocketAddr::new(VIRTUAL.parse().unwrap(), port), format!("table-{port}"));
            let name: Arc<str> = virtual_ip.to_string().into();
            let listener = Listener {
                routes: protocol.may_be_http().then(|| table.as_str().into()),
                tcp_cluster: Some(Arc::clone(&cluster)),
                forwarded_headers: ForwardedHeaders::captured(),
                ..Listener::new(Arc::clone(&name), Bind::Captured(virtual_ip), protocol.listen())
            };
            all.listeners.insert(name, Arc::new(listener));
            let host = VirtualHost { name: "web".into(), domains: vec!["*".into()], cluster: Arc::clone(&cluster) };
            let table: Arc<str> = table.into();
            all.routes.insert(Arc::clone(&table), Arc::new(RouteTable { name: table, hosts: vec![host] }));
            let (policy, source) = (Policy::default(), EndpointSource::Assignment);
            let (name, service) = (Arc::clone(&cluster), Some(web.clone()));
            let definition = Cluster { name, service, protocol: UpstreamProtocol::AsDownstream, policy, source };
            all.clusters.insert(Arc::clone(&cluster), Arc::new(definition));
            let endpoints = self.endpoints.iter().map(|(n, state)| target(*n, port, *state)).collect();
            all.assignments.insert(Arc::clone(&cluster), Arc::new(Assignment { cluster, endpoints }));
        }
        let present = self.endpoints.iter().map(|(n, _)| self.address(*n, true));
        let left = self.departed.iter().map(|n| self.address(*n, false));
        let coming = self.coming.iter().map(|n| CapturedAddress {
            endpoint: Some(EndpointId::new(&format!("web-{n}"), 0)),
            ports: Vec::new(),
            ..self.address(*n, true)
        });
        let addresses = present.chain(left).chain(coming).collect();
        let virtual_ip_range = "240.240.0.0/16".parse().unwrap();
        let map = CaptureMap { virtual_ip_range, workloads: self.workloads.clone(), foreign: Vec::new(), addresses };
        Arc::new(Resources { capture: Some(Arc::new(map)), ..all })
    }

    fn address(&self, n: u8, is_present: bool) -> CapturedAddress {
        let port = |(target, protocol)| CapturedPort { target, service_port: target, protocol };
        CapturedAddress {
            address: ip(n),
            network: if is_present { NETWORK.into() } else { "".into() },
            service: service("web.shop"),
            endpoint: is_present.then(|| id(n)),
            mode: self.mode,
            ports: PORTS.map(port).to_vec(),
            own_names: if is_present { vec![format!("shop-web-{n}").into()] } else { Vec::new() },
            service_names: ["web", "web.shop", "web.shop.svc.mesh.internal"].map(Arc::from).to_vec(),
        }
    }
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 78, 0, n])
}

fn id(n: u8) -> EndpointId {
    EndpointId::new(&format!("web-{n}"), 1)
}

/// Its first address is on a network that nobody here can reach.
fn target(n: u8, port: u16, state: EndpointState) -> Target {
    let unreachable = IpAddr::from([10, 99, 0, n]);
    Target {
        id: id(n),
        address: SocketAddr::new(unreachable, port),
        networks: vec![
            NetworkAddress { network: "net-0".into(), address: unreachable },
            NetworkAddress { network: NETWORK.into(), address: ip(n) },
        ],
        weight: 100,
        priority: 0,
        zone: None,
        version: None,
        state,
    }
}

/// A running proxy.
pub struct Proxy {
    pub told: watch::Sender<Arc<Resources>>,
    registry: prometheus::Registry,
    shutdown: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<Drained>>,
    runtime: Option<Runtime>,
}

impl Proxy {
    pub fn start(resources: Arc<Resources>, capture: CaptureOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (told, watched) = watch::channel(resources);
        let (shutdown, ended) = oneshot::channel::<()>();
        let options = Options { workers: 2, drain_timeout: PATIENCE, capture: Some(capture), ..Options::default() };
        let app = runtime.block_on(App::bind(options, watched)).unwrap();
        let (registry, readiness) = (app.registry().clone(), app.readiness());
        let running = Some(runtime.spawn(app.run(async move { drop(ended.await) })));
        eventually("it is ready", || readiness.is_ready().then_some(()));
        Self { told, registry, shutdown: Some(shutdown), running, runtime: Some(runtime) }
    }

    /// Captures what the map names, and nothing else.
    pub fn capturing(told: &Told) -> Self {
        Self::start(told.resources(), named_only())
    }

    /// The sum of a family's samples that have all these label values.
    pub fn metric(&self, name: &str, values: &[&str]) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let fits = |metric: &&prometheus::proto::Metric| {
            values.iter().all(|value| metric.get_label().iter().any(|label| label.value() == *value))
        };
        metrics.filter(fits).map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    pub fn captured(&self) -> f64 {
        self.metric("mesh_captured_namespaces", &[])
    }

    /// Ends as on SIGTERM.
    pub fn end(mut self) -> Drained {
        drop(self.shutdown.take());
        let (runtime, running) = (self.runtime.take().unwrap(), self.running.take().unwrap());
        runtime.block_on(running).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            // A failed test must not wait for what it left open.
            let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await });
            runtime.shutdown_background();
        }
    }
}

pub fn named_only() -> CaptureOptions {
    CaptureOptions::docker(false)
}
