//! What a request costs: a closed load through each proxy in turn, round by round; then latencies at half of what the slowest can
//! carry; then system calls.

use serde_json::json;

use super::{Case, small};
use crate::backend::{LARGE, LARGE_PATH};
use crate::bench::{Backend, Bench, LOAD_CORE, PROXY_CORE, Running};
use crate::certificates::Group;
use crate::load::{Kind, Plan};
use crate::profile;
use crate::proxies::{self, ClientSide, Proxy, Shape, UpstreamSide};
use crate::sample::{Sample, Spread};
use crate::syscalls;
use crate::table::{self, Bound, Report, Verdict};

/// Rounds of the open load: its latencies vary less than throughput does.
const OPEN_ROUNDS_MAX: usize = 3;
/// The open load, as a share of what the slowest carried.
const OPEN_SHARE: f64 = 0.5;

/// More cores than this in other hands, and the table says so.
const OTHERS_MAX: f64 = 0.1;

/// What a case sends, through what, and what is wanted.
struct Spec {
    title: &'static str,
    shape: Shape,
    kind: Kind,
    connections: usize,
    large: bool,
    wanted: &'static [(Proxy, Bound)],
}

/// One row: a proxy, and how it is spoken to.
struct Row {
    name: String,
    running: usize,
    plan: Plan,
    samples: Vec<Sample>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    syscalls: Option<f64>,
}

fn spec(case: Case) -> Spec {
    use Bound::{AtLeast, AtMost};
    let shape = |client, upstream| Shape { client, upstream, workers: 1 };
    let http1 = |client| shape(client, UpstreamSide::Http1);
    let base = Spec {
        title: "HTTP/1.1 keep-alive, 64 connections, 1 KiB",
        shape: http1(ClientSide::Http1),
        kind: Kind::Http1,
        connections: 64,
        large: false,
        wanted: &[(Proxy::Haproxy, AtMost(0.85)), (Proxy::Nginx, AtMost(0.90)), (Proxy::Envoy, AtMost(0.40))],
    };
    match case {
        Case::H2H1 => Spec {
            title: "h2 in, HTTP/1.1 out, 8 connections × 32 streams, 1 KiB",
            shape: http1(ClientSide::Http2),
            kind: Kind::Http2 { streams: 32 },
            connections: 8,
            wanted: &[(Proxy::Haproxy, AtMost(0.95))],
            ..base
        },
        Case::H2H2 => Spec {
            title: "h2 in and out, 8 connections × 32 streams, 1 KiB",
            shape: shape(ClientSide::Http2, UpstreamSide::Http2),
            kind: Kind::Http2 { streams: 32 },
            connections: 8,
            wanted: &[(Proxy::Haproxy, AtMost(0.95))],
            ..base
        },
        Case::Mtls => Spec {
            title: "mTLS 1.3 (P-256, AES-128-GCM), HTTP/1.1 keep-alive, 64 connections, 1 KiB",
            shape: http1(ClientSide::Mtls),
            wanted: &[(Proxy::Haproxy, AtMost(0.65))],
            ..base
        },
        Case::Handshake => Spec {
            title: "a new mTLS 1.3 connection for each request (P-256), 16 at a time, 1 KiB",
            shape: http1(ClientSide::Mtls),
            kind: Kind::Http1New,
            connections: 16,
            wanted: &[(Proxy::Envoy, AtMost(0.65))],
            ..base
        },
        Case::Tcp => Spec {
            title: "raw TCP, the load of h1",
            shape: http1(ClientSide::Tcp),
            wanted: &[(Proxy::Haproxy, AtMost(0.95))],
            ..base
        },
        Case::Body => Spec {
            title: "HTTP/1.1 responses of 10 MiB, 8 connections",
            connections: 8,
            large: true,
            wanted: &[(Proxy::Envoy, AtLeast(1.4))],
            ..base
        },
        _ => base,
    }
}

pub(super) fn run(case: Case, bench: &Bench) -> anyhow::Result<Report> {
    let spec = spec(case);
    let backend = bench.backend(&[LOAD_CORE])?;
    let mut plan = small(spec.kind, spec.connections);
    if spec.large {
        (plan.path, plan.body) = (LARGE_PATH, LARGE);
    }
    if spec.shape.client == ClientSide::Mtls {
        plan.tls = Some(bench.files.client(Group::P256)?);
    }
    let mut notes = Vec::new();
    let mut running = Vec::new();
    let mut rows = Vec::new();
    for proxy in bench.proxies.iter().copied() {
        if let Some(reason) = proxies::cannot(proxy, spec.shape) {
            notes.push(format!("{} is left out: {reason}.", proxy.name()));
            continue;
        }
        rows.push(Row::new(proxy.name().to_owned(), running.len(), plan.clone()));
        running.push(bench.start(proxy, spec.shape, &backend, &[PROXY_CORE], &plan)?);
    }
    if case == Case::Handshake && running.first().is_some_and(|first| first.proxy == Proxy::Weft) {
        let tls = Some(bench.files.client(Group::X25519MlKem768)?);
        rows.push(Row::new("Weft, X25519MLKEM768".to_owned(), 0, Plan { tls, ..plan }));
    }
    measure(case, bench, &backend, &mut running, &mut rows)?;
    notes.extend(notes_of(bench, &rows));
    if let Some(weft) = running.iter().find(|one| bench.profile && one.proxy == Proxy::Weft) {
        notes.push(profile::of(bench, weft, &rows[0].plan)?);
    }
    Ok(report(case, &spec, &rows, notes))
}

fn measure(
    case: Case,
    bench: &Bench,
    backend: &Backend,
    running: &mut [Running],
    rows: &mut [Row],
) -> anyhow::Result<()> {
    for round in 0..bench.rounds {
        for row in rows.iter_mut() {
            let sample = bench.round(&mut running[row.running], backend, &row.plan)?;
            let (name, round) = (&row.name, round + 1);
            eprintln!(
                "{}: round {round}: {name}: {:.2} µs, {:.0}/s",
                case.name(),
                sample.cpu_us,
                sample.requests_per_second
            );
            row.samples.push(sample);
        }
    }
    let rates = rows.iter().filter_map(|row| row.median(|sample| sample.requests_per_second));
    let rate = rates.fold(f64::INFINITY, f64::min) * OPEN_SHARE;
    for _ in 0..bench.rounds.min(OPEN_ROUNDS_MAX) {
        for row in rows.iter_mut() {
            let (p50, p99) = bench.latencies(running[row.running].listen, rate, &row.plan)?;
            row.p50_us.push(p50);
            row.p99_us.push(p99);
        }
    }
    for row in rows.iter_mut() {
        row.syscalls = syscalls::per_request(bench, &running[row.running], &row.plan)?;
    }
    Ok(())
}

impl Row {
    fn new(name: String, running: usize, plan: Plan) -> Self {
        Self { name, running, plan, samples: Vec::new(), p50_us: Vec::new(), p99_us: Vec::new(), syscalls: None }
    }

    fn values(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        Spread::of(self.values(of)).map(|spread| spread.median)
    }
}

/// What is compared: CPU time a request, or bytes a second of CPU time.
fn worth(large: bool) -> fn(&Sample) -> f64 {
    if large {
        |sample| sample.bytes_per_second / sample.requests_per_second / sample.cpu_us / 1e3
    } else {
        |sample| sample.cpu_us
    }
}

fn report(case: Case, spec: &Spec, rows: &[Row], notes: Vec<String>) -> Report {
    let worth = worth(spec.large);
    let ours = rows.first().filter(|row| row.name == Proxy::Weft.name());
    let ours = ours.map(|row| row.values(worth)).unwrap_or_default();
    let unit = if spec.large { "GB/CPU-s" } else { "CPU µs" };
    let columns = [
        "",
        unit,
        "min–max",
        "user µs",
        "system µs",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "syscalls",
        "VmRSS MiB",
        "Weft ÷ it",
    ];
    let median =
        |values: &[f64]| Spread::of(values.iter().copied()).map_or("–".to_owned(), |s| table::number(s.median));
    let line = |row: &Row| {
        let all = Spread::of(row.values(worth));
        vec![
            row.name.clone(),
            all.map_or_else(String::new, |s| table::number(s.median)),
            all.map_or_else(String::new, |s| format!("{}–{}", table::number(s.min), table::number(s.max))),
            median(&row.values(|sample| sample.user_us)),
            median(&row.values(|sample| sample.system_us)),
            median(&row.values(|sample| sample.requests_per_second)),
            median(&row.p50_us),
            median(&row.p99_us),
            row.syscalls.map_or("–".to_owned(), table::number),
            row.median(|sample| sample.resident_bytes as f64).map_or_else(String::new, table::mebibytes),
            table::ratio(Spread::of_ratios(&ours, &row.values(worth))),
        ]
    };
    let verdict = |(peer, bound): &(Proxy, Bound)| {
        let theirs = rows.iter().find(|row| row.name == peer.name())?.values(worth);
        let ratio = Spread::of_ratios(&ours, &theirs)?;
        let (what, found) = (format!("Weft ÷ {}", peer.name()), table::ratio(Some(ratio)));
        Some(Verdict { what, wanted: bound.shown(""), found, met: bound.holds(ratio.median) })
    };
    let raw = |row: &Row| json!({ "name": row.name, "rounds": row.samples, "p50_us": row.p50_us, "p99_us": row.p99_us, "syscalls_per_request": row.syscalls });
    Report {
        case: case.name(),
        title: spec.title.to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.iter().map(line).collect(),
        verdicts: spec.wanted.iter().filter_map(verdict).collect(),
        notes,
        raw: rows.iter().map(raw).collect(),
    }
}

/// What the load and the backend cost, and at which rate the latencies were taken.
fn notes_of(bench: &Bench, rows: &[Row]) -> Vec<String> {
    let range = |of: fn(&Sample) -> f64| {
        let all = Spread::of(rows.iter().filter_map(|row| row.median(of)));
        all.map_or_else(String::new, |s| format!("{}–{}", table::number(s.min), table::number(s.max)))
    };
    let slowest =
        rows.iter().filter_map(|row| row.median(|sample| sample.requests_per_second)).fold(f64::INFINITY, f64::min);
    let others = Spread::of(rows.iter().flat_map(|row| row.values(|sample| sample.others_cores)));
    let others = others.filter(|others| others.max > OTHERS_MAX).map(|others| {
        format!(
            "**The machine was busy:** other work took {:.2} cores (up to {:.2}) meanwhile.",
            others.median, others.max
        )
    });
    let conditions = format!(
        "{} rounds of {:?}. Load generator {} µs and backend {} µs a request. Latencies: open load of {:.0} requests/s.",
        bench.rounds,
        bench.length,
        range(|sample| sample.load_cpu_us),
        range(|sample| sample.backend_cpu_us),
        slowest * OPEN_SHARE,
    );
    [Some(conditions), others].into_iter().flatten().collect()
}
