//! How long it takes to pick an endpoint among few and many, with requests under way on them.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::{Balance, Policy};
use mesh_core::model::protocol::UpstreamProtocol;
use mesh_core::model::resource::{Assignment, Cluster, EndpointSource, Target};
use mesh_proxy::balance::Balancer;
use mesh_proxy::endpoint::LiveCluster;
use serde_json::json;

use super::Case;
use crate::bench::Bench;
use crate::sample::Spread;
use crate::table::{self, Bound, Report, Verdict};

const SIZES: [u32; 3] = [10, 1_000, 100_000];
/// Picks of one round: enough for the clock, and to visit many endpoints.
const PICKS: u32 = 200_000;
/// Flat: among 100,000 no more than so many times what it takes among 10. What is left is memory that is not in a cache any more.
const FLAT: Bound = Bound::AtMost(3.0);

/// Balancers, and whether they are meant to be flat.
const BALANCERS: [(Balance, &str, bool); 2] =
    [(Balance::LeastRequest, "least_request (P2C)", true), (Balance::RoundRobin, "round_robin", false)];

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let mut rows = Vec::new();
    let mut raw = Vec::new();
    let mut verdicts = Vec::new();
    for (balance, name, flat) in BALANCERS {
        for (weights, same) in [("equal weights", true), ("mixed weights", false)] {
            let mut row = vec![format!("{name}, {weights}")];
            let mut medians = Vec::new();
            for size in SIZES {
                let cluster = cluster(balance, size, same);
                let mut balancer = Balancer::new(7);
                let rounds: Result<Vec<_>, _> =
                    (0..bench.rounds).map(|_| nanoseconds(&cluster, &mut balancer)).collect();
                let rounds = rounds.with_context(|| row[0].clone())?;
                raw.push(json!({ "name": row[0], "endpoints": size, "ns": rounds }));
                let median = Spread::of(rounds).context("no rounds")?.median;
                row.push(table::number(median));
                medians.push(median);
                bench.wait(Duration::ZERO)?;
            }
            if flat {
                let ratio = medians[medians.len() - 1] / medians[0];
                let what = format!("{}: 100,000 ÷ 10", row[0]);
                let (found, met) = (table::number(ratio), FLAT.holds(ratio));
                verdicts.push(Verdict { what, wanted: FLAT.shown(""), found, met });
            }
            rows.push(row);
        }
    }
    Ok(Report {
        case: Case::Pick.name(),
        title: "nanoseconds to pick an endpoint".to_owned(),
        columns: ["", "among 10", "among 1,000", "among 100,000"].map(str::to_owned).to_vec(),
        rows,
        verdicts,
        notes: vec!["Picking alone, with requests under way on the endpoints.".to_owned()],
        raw: raw.into(),
    })
}

fn nanoseconds(cluster: &LiveCluster, balancer: &mut Balancer) -> anyhow::Result<f64> {
    let now = Instant::now();
    // Loads differ, so that comparing them decides something.
    let mut under_way = Vec::new();
    for _ in 0..cluster.endpoints().len().max(1000) {
        under_way.push(balancer.pick(cluster, &[], now)?.endpoint.begin_request());
    }
    let start = Instant::now();
    for _ in 0..PICKS {
        black_box(balancer.pick(cluster, &[], now)?);
    }
    let took = start.elapsed();
    drop(under_way);
    Ok(took.as_nanos() as f64 / f64::from(PICKS))
}

fn cluster(balance: Balance, size: u32, same_weight: bool) -> LiveCluster {
    let target = |index: u32| {
        let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 | index), 80));
        Target {
            id: EndpointId::new(&address.to_string(), 0),
            address,
            networks: Vec::new(),
            weight: if same_weight { 100 } else { 1 + index % 7 },
            priority: 0,
            zone: None,
            version: None,
            state: EndpointState::Ready,
        }
    };
    let name: Arc<str> = "web".into();
    let mut endpoints: Vec<_> = (0..size).map(target).collect();
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    let (protocol, source) = (UpstreamProtocol::Http1, EndpointSource::Assignment);
    let policy = Policy { balance, ..Policy::default() };
    let cluster = Cluster { name: Arc::clone(&name), service: None, protocol, policy, source };
    LiveCluster::update(
        None,
        Arc::new(cluster),
        Some(Arc::new(Assignment { cluster: name, endpoints })),
        Instant::now(),
    )
}
