//! What a proxy adds to the latency of a request while nothing is busy: an open load of 1,000 requests a second, straight to the
//! service and through each proxy in turn.

use serde_json::json;

use super::{Case, HTTP1, small};
use crate::bench::{Bench, LOAD_CORE, PROXY_CORE};
use crate::load::Kind;
use crate::proxies::Proxy;
use crate::sample::Spread;
use crate::table::{self, Bound, Report, Verdict};

const RATE: f64 = 1000.0;
const CONNECTIONS: usize = 16;
const WANTED: Bound = Bound::AtMost(1.05);

/// One way to the service: by round, in µs.
struct Way {
    name: &'static str,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let backend = bench.backend(&[LOAD_CORE])?;
    let plan = small(Kind::Http1, CONNECTIONS);
    let mut targets = vec![backend.endpoints[0]];
    let mut running = Vec::new();
    let mut ways = vec![Way { name: "direct", p50: Vec::new(), p99: Vec::new() }];
    for proxy in bench.proxies.iter().copied() {
        let one = bench.start(proxy, HTTP1, &backend, &[PROXY_CORE], &plan)?;
        targets.push(one.listen);
        running.push(one);
        ways.push(Way { name: proxy.name(), p50: Vec::new(), p99: Vec::new() });
    }
    for round in 1..=bench.rounds {
        for (way, target) in ways.iter_mut().zip(&targets) {
            let (p50, p99) = bench.latencies(*target, RATE, &plan)?;
            eprintln!("latency: round {round}: {}: p50 {p50:.0} µs, p99 {p99:.0} µs", way.name);
            way.p50.push(p50);
            way.p99.push(p99);
        }
    }
    Ok(report(bench, &ways))
}

/// Round by round, over the way that comes first.
fn added(ways: &[Way], way: &Way) -> Vec<f64> {
    ways.first()
        .map(|direct| way.p50.iter().zip(&direct.p50).map(|(p50, direct)| p50 - direct).collect())
        .unwrap_or_default()
}

fn report(bench: &Bench, ways: &[Way]) -> Report {
    let ours = ways.iter().find(|way| way.name == Proxy::Weft.name()).map(|way| added(ways, way)).unwrap_or_default();
    let shown = |values: &[f64]| {
        Spread::of(values.iter().copied()).map_or_else(String::new, |s| {
            format!("{} ({}–{})", table::number(s.median), table::number(s.min), table::number(s.max))
        })
    };
    let line = |(index, way): (usize, &Way)| {
        let (added, ratio) = match index {
            0 => ("–".to_owned(), "–".to_owned()),
            _ => {
                let added = added(ways, way);
                (shown(&added), table::ratio(Spread::of_ratios(&ours, &added)))
            }
        };
        vec![way.name.to_owned(), shown(&way.p50), shown(&way.p99), added, ratio]
    };
    let nginx = ways.iter().find(|way| way.name == Proxy::Nginx.name()).map(|way| added(ways, way)).unwrap_or_default();
    let verdict = Spread::of_ratios(&ours, &nginx).map(|ratio| Verdict {
        what: "added p50, Weft ÷ nginx".to_owned(),
        wanted: WANTED.shown(""),
        found: table::ratio(Some(ratio)),
        met: WANTED.holds(ratio.median),
    });
    Report {
        case: Case::Latency.name(),
        title: format!("open load of {RATE:.0} requests/s over {CONNECTIONS} connections, HTTP/1.1, 1 KiB"),
        columns: ["", "p50 µs", "p99 µs", "added p50 µs", "added, Weft ÷ it"].map(str::to_owned).to_vec(),
        rows: ways.iter().enumerate().map(line).collect(),
        verdicts: verdict.into_iter().collect(),
        notes: vec![format!(
            "{} rounds of {:?}; latencies count from when a request was due.",
            bench.rounds, bench.length
        )],
        raw: ways.iter().map(|way| json!({ "name": way.name, "p50_us": way.p50, "p99_us": way.p99 })).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_over_direct_round_by_round() {
        let way = |name, p50: &[f64]| Way { name, p50: p50.to_vec(), p99: p50.to_vec() };
        let ways = [way("direct", &[50.0, 70.0]), way("nginx", &[150.0, 180.0])];
        assert_eq!(added(&ways, &ways[1]), [100.0, 110.0]);
        assert!(added(&[], &ways[1]).is_empty());
    }
}
