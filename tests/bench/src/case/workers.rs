//! Two workers beside one: what a request costs when two threads carry requests, and how evenly they share them.
//!
//! Two cores carry proxy, load and services here, so this shows what workers do to each other (locks, cache lines), not how
//! throughput grows.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::{Case, HTTP1, small};
use crate::bench::{Backend, Bench, LOAD_CORE, PROXY_CORE, Running};
use crate::load::{Kind, Plan};
use crate::proxies::{Proxy, Shape};
use crate::sample::{Sample, Spread};
use crate::table::{self, Bound, Report, Verdict};
use crate::usage;

const BOTH: [usize; 2] = [PROXY_CORE, LOAD_CORE];
const CPU_WANTED: Bound = Bound::AtMost(1.05);
const SHARE_WANTED: Bound = Bound::AtMost(0.60);

/// One number of workers.
struct Side {
    name: &'static str,
    samples: Vec<Sample>,
    /// The busier worker's part of the time of all workers; by request it is the same, since each request costs the same.
    busier: Vec<f64>,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let backend = bench.backend(&BOTH)?;
    let plan = Plan { cores: BOTH.to_vec(), ..small(Kind::Http1, 64) };
    let start = |workers| bench.start(Proxy::Weft, Shape { workers, ..HTTP1 }, &backend, &BOTH, &plan);
    let mut running = [start(1)?, start(2)?];
    let mut sides = ["1 worker", "2 workers"].map(|name| Side { name, samples: Vec::new(), busier: Vec::new() });
    for round in 1..=bench.rounds {
        for (side, running) in sides.iter_mut().zip(&mut running) {
            let (sample, busier) = one_round(bench, running, &backend, &plan)?;
            eprintln!("workers: round {round}: {}: {:.2} µs, the busier {busier:.2}", side.name, sample.cpu_us);
            side.samples.push(sample);
            side.busier.push(busier);
        }
    }
    Ok(report(bench, &sides))
}

fn one_round(bench: &Bench, running: &mut Running, backend: &Backend, plan: &Plan) -> anyhow::Result<(Sample, f64)> {
    let before = worker_times(running);
    let sample = bench.round(running, backend, plan)?;
    let after = worker_times(running);
    let times = after.iter().map(|(name, time)| time.saturating_sub(before.get(name).copied().unwrap_or_default()));
    Ok((sample, busier_share(times)))
}

/// Time on CPU of each worker's thread.
fn worker_times(running: &Running) -> HashMap<String, Duration> {
    let threads = running.program.pids().into_iter().flat_map(usage::threads);
    threads.filter(|(name, _)| name.starts_with("worker-")).collect()
}

fn busier_share(times: impl Iterator<Item = Duration>) -> f64 {
    let (busiest, all) = times.fold((0.0, 0.0), |(busiest, all): (f64, f64), time| {
        let time = time.as_secs_f64();
        (busiest.max(time), all + time)
    });
    if all == 0.0 { 0.0 } else { busiest / all }
}

fn report(bench: &Bench, sides: &[Side; 2]) -> Report {
    let cpu = |side: &Side| side.samples.iter().map(|sample| sample.cpu_us).collect::<Vec<_>>();
    let ratio = Spread::of_ratios(&cpu(&sides[1]), &cpu(&sides[0]));
    let median = |values: Vec<f64>| Spread::of(values).map_or_else(String::new, |s| table::number(s.median));
    let line = |side: &Side| {
        let per_second = side.samples.iter().map(|sample| sample.requests_per_second).collect();
        let busier = table::ratio(Spread::of(side.busier.iter().copied()));
        vec![side.name.to_owned(), median(cpu(side)), median(per_second), busier]
    };
    let busier = Spread::of(sides[1].busier.iter().copied());
    let verdict = |what: &str, bound: Bound, spread: Spread, value: f64| Verdict {
        what: what.to_owned(),
        wanted: bound.shown(""),
        found: table::ratio(Some(spread)),
        met: bound.holds(value),
    };
    let verdicts = [
        ratio.map(|spread| verdict("CPU a request, 2 workers ÷ 1", CPU_WANTED, spread, spread.median)),
        // Every round has to be even.
        busier.map(|spread| verdict("requests of the busier worker", SHARE_WANTED, spread, spread.max)),
    ];
    let columns = ["", "CPU µs", "requests/s", "busier worker's share"];
    Report {
        case: Case::Workers.name(),
        title: "HTTP/1.1 keep-alive, 64 connections, 1 KiB; proxy, load and services share both cores".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: sides.iter().map(line).collect(),
        verdicts: verdicts.into_iter().flatten().collect(),
        notes: vec![format!(
            "{} rounds of {:?}. The share is that of the workers' CPU time, warm-up included.",
            bench.rounds, bench.length
        )],
        raw: sides
            .iter()
            .map(|side| json!({ "name": side.name, "rounds": side.samples, "busier": side.busier }))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busier_worker_has_its_part_of_all() {
        for (times, wanted) in
            [(vec![30, 10], 0.75), (vec![20, 20], 0.5), (vec![7], 1.0), (vec![], 0.0), (vec![0, 0], 0.0)]
        {
            let share = busier_share(times.iter().copied().map(Duration::from_millis));
            assert!((share - wanted).abs() < 1e-9, "{times:?}: {share}");
        }
    }
}
