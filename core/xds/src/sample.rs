//! Seeded random resources, for tests: every field, every variant, the edges of every range.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use ipnet::IpNet;
use mesh_core::config::percent::Percent;
use mesh_core::model::endpoint::{CaptureMode, EndpointState, NetworkAddress};
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};
use mesh_core::model::limits::H2Limits;
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::policy::{
    Balance, Circuit, ConnectTimeout, Outlier, Policy, Retry, RetryMethods, RetryOn, Upstream,
};
use mesh_core::model::protocol::{ListenProtocol, Protocol, UpstreamProtocol};
use mesh_core::model::resource::{
    Assignment, Bind, CaptureMap, CaptureWorkload, CapturedAddress, CapturedPort, Cluster, EndpointSource, Limits,
    Listener, ProxyProtocol, RouteTable, Target, VirtualHost,
};

use crate::load::{ClusterLoad, Ejection, EndpointLoad, LoadReport};

pub(crate) fn text(random: &mut Rng) -> Arc<str> {
    (0..random.usize(1..12)).map(|_| random.lowercase()).collect::<String>().into()
}

fn maybe<T>(random: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    random.bool().then(|| make(random))
}

fn pick<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn number(random: &mut Rng) -> u32 {
    let any = random.u32(..);
    pick(random, &[0, 1, 100, u32::MAX, any])
}

fn duration(random: &mut Rng) -> Duration {
    Duration::from_millis(random.u64(0..10_000_000))
}

fn ip(random: &mut Rng) -> IpAddr {
    if random.u8(..4) == 0 { Ipv6Addr::from(random.u128(..)).into() } else { Ipv4Addr::from(random.u32(..)).into() }
}

fn socket(random: &mut Rng) -> SocketAddr {
    SocketAddr::new(ip(random), random.u16(..))
}

fn service(random: &mut Rng) -> ServiceId {
    ServiceId::new(Name::new(&text(random)).unwrap(), Name::new(&text(random)).unwrap())
}

pub(crate) fn policy(random: &mut Rng) -> Policy {
    let on: BTreeSet<RetryOn> = RetryOn::ALL.into_iter().filter(|_| random.bool()).collect();
    Policy {
        balance: pick(random, &[Balance::LeastRequest, Balance::RoundRobin]),
        timeout: maybe(random, |random| duration(random) + Duration::from_millis(1)),
        connect_timeout: ConnectTimeout(duration(random)),
        retry: Retry {
            on,
            attempts: number(random),
            budget: Percent::from_hundredths(random.u32(..=1000_00)),
            budget_min_per_second: number(random),
            methods: pick(random, &[RetryMethods::Idempotent, RetryMethods::Any]),
            body_bytes_max: number(random),
        },
        circuit: Circuit { connections_max: number(random), pending_max: number(random), requests_max: number(random) },
        outlier: Outlier {
            consecutive_5xx: number(random),
            base_ejection_time: duration(random),
            max_ejection_time: duration(random),
            max_ejection_percent: Percent::from_hundredths(random.u32(..=1000_00)),
        },
        upstream: Upstream {
            idle_timeout: maybe(random, duration),
            idle_connections_max: number(random),
            header_bytes_max: number(random),
            header_count_max: number(random),
        },
    }
}

pub(crate) fn cluster(random: &mut Rng) -> Cluster {
    let protocols = [UpstreamProtocol::Http1, UpstreamProtocol::Http2, UpstreamProtocol::AsDownstream];
    Cluster {
        name: text(random),
        service: maybe(random, service),
        protocol: pick(random, &protocols),
        policy: policy(random),
        source: EndpointSource::Assignment,
    }
}

pub(crate) fn assignment(random: &mut Rng) -> Assignment {
    let states = [EndpointState::Ready, EndpointState::NotReady, EndpointState::Draining];
    let mut targets = BTreeMap::new();
    for _ in 0..random.usize(..8) {
        let id = EndpointId::new(&text(random), random.u64(..));
        let networks = (0..random.usize(..3)).map(|_| NetworkAddress { network: text(random), address: ip(random) });
        let target = Target {
            id: id.clone(),
            networks: networks.collect(),
            address: socket(random),
            weight: number(random),
            priority: number(random),
            zone: maybe(random, text),
            version: maybe(random, text),
            state: pick(random, &states),
        };
        targets.insert(id, target);
    }
    Assignment { cluster: text(random), endpoints: targets.into_values().collect() }
}

pub(crate) fn listener(random: &mut Rng) -> Listener {
    let address = socket(random);
    let binds = [Bind::Address(address), Bind::OriginalDestination(address), Bind::Captured(address), Bind::Api];
    let bind = pick(random, &binds);
    let (mut routes, mut tcp_cluster) = (maybe(random, text), maybe(random, text));
    match bind {
        Bind::Api => (routes, tcp_cluster) = (Some(text(random)), None),
        Bind::OriginalDestination(_) => {}
        Bind::Address(_) | Bind::Captured(_) => {
            if routes.is_none() && tcp_cluster.is_none() {
                routes = Some(text(random));
            }
        }
    }
    Listener {
        name: text(random),
        bind,
        protocol: pick(random, &[ListenProtocol::Http, ListenProtocol::Tcp, ListenProtocol::Auto]),
        routes,
        tcp_cluster,
        tls: None,
        proxy_protocol: maybe(random, |random| ProxyProtocol {
            trusted: (0..random.usize(1..3)).map(|_| IpNet::from(ip(random))).collect(),
        }),
        detect_timeout: duration(random),
        forwarded_headers: forwarded_headers(random),
        limits: Limits {
            connections_max: number(random),
            handshake_timeout: duration(random),
            header_count_max: number(random),
            header_timeout: duration(random),
            body_idle_timeout: duration(random),
            idle_timeout: duration(random),
            header_bytes_max: random.usize(..100_000_000),
            unread_body_bytes_max: random.u64(..1 << 40),
            linger_timeout: duration(random),
            half_closed_timeout: duration(random),
        },
        h2_limits: h2_limits(random),
    }
}

fn h2_limits(random: &mut Rng) -> H2Limits {
    H2Limits {
        streams_max: number(random),
        header_block_bytes_max: random.usize(..1 << 30),
        continuations_max: number(random),
        resets_max: number(random),
        pings_max: number(random),
        settings_max: number(random),
        empty_data_max: number(random),
        priorities_max: number(random),
        window_updates_max: number(random),
        ignored_max: number(random),
        unread_answer_bytes_max: random.usize(..1 << 30),
        stream_window_bytes_max: number(random),
        connection_window_bytes: number(random),
        keepalive_interval: maybe(random, duration),
        keepalive_timeout: duration(random),
    }
}

fn forwarded_headers(random: &mut Rng) -> ForwardedHeaders {
    use ForwardPolicy::{Append, Drop, Keep, Replace};
    let mut policy = || pick(random, &[Append, Keep, Replace, Drop]);
    let (x_forwarded, forwarded, via) = (policy(), policy(), policy());
    let trusted = (0..random.usize(..3)).map(|_| IpNet::from(ip(random))).collect();
    ForwardedHeaders { trusted, x_forwarded, forwarded, via, via_name: text(random) }
}

pub(crate) fn route_table(random: &mut Rng) -> RouteTable {
    let mut domains = BTreeSet::new();
    let hosts = (0..random.usize(..5)).map(|_| {
        let own: Vec<_> =
            (0..random.usize(1..4)).map(|_| text(random)).filter(|one| domains.insert(one.clone())).collect();
        VirtualHost { name: text(random), domains: own, cluster: text(random) }
    });
    let hosts = hosts.filter(|host| !host.domains.is_empty()).collect();
    RouteTable { name: text(random), hosts }
}

pub(crate) fn capture(random: &mut Rng) -> CaptureMap {
    let modes = [CaptureMode::Auto, CaptureMode::Service, CaptureMode::Pinned, CaptureMode::Off];
    let address = |random: &mut Rng| CapturedAddress {
        address: ip(random),
        network: text(random),
        service: service(random),
        endpoint: maybe(random, |random| EndpointId::new(&text(random), random.u64(..))),
        mode: pick(random, &modes),
        ports: vec![CapturedPort {
            target: random.u16(..),
            service_port: random.u16(..),
            protocol: pick(random, &Protocol::ALL),
        }],
        own_names: vec![text(random)],
        service_names: vec![text(random)],
    };
    CaptureMap {
        foreign: (0..random.usize(..3)).map(|_| text(random)).collect(),
        virtual_ip_range: "240.240.0.0/16".parse().unwrap(),
        workloads: vec![CaptureWorkload {
            id: EndpointId::new(&text(random), random.u64(..)),
            name: text(random),
            service: service(random),
            namespace_path: text(random),
            networks: vec![text(random)],
        }],
        addresses: (0..random.usize(..4)).map(|_| address(random)).collect(),
    }
}

pub(crate) fn load_report(random: &mut Rng) -> LoadReport {
    let ejection = |random: &mut Rng| Ejection {
        left: Duration::from_millis(random.u64(0..100_000_000)),
        reason: format!("{} failures in a row", number(random)).into(),
    };
    let endpoint = |random: &mut Rng| EndpointLoad {
        id: EndpointId::new(&text(random), random.u64(..)),
        address: socket(random),
        zone: maybe(random, text),
        priority: random.u32(..4),
        issued: random.u64(..),
        succeeded: random.u64(..),
        failed: random.u64(..),
        in_progress: random.u64(..),
        ejection: maybe(random, ejection),
    };
    let cluster = |random: &mut Rng| ClusterLoad {
        cluster: text(random),
        interval: duration(random),
        endpoints: (0..random.usize(..6)).map(|_| endpoint(random)).collect(),
    };
    LoadReport { clusters: (0..random.usize(..4)).map(|_| cluster(random)).collect() }
}
