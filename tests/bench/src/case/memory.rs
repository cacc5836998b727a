//! Resident memory: of a proxy that has just started, and of each of 1,000 connections that made a request and have been idle since.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::{Case, HTTP1, small};
use crate::bench::{Backend, Bench, LOAD_CORE, PROXY_CORE};
use crate::certificates::Group;
use crate::load::{Kind, Load, Plan};
use crate::proxies::{ClientSide, Proxy, Shape};
use crate::table::{self, Bound, Report, Verdict};
use crate::usage;

const CONNECTIONS: usize = 1000;
/// How long all of them have been idle when memory is read.
const IDLE: Duration = Duration::from_secs(10);
/// How long they may take to get there.
const OPENED: Duration = Duration::from_secs(30);
/// From the first answer of a proxy to what it needs at rest.
const REST: Duration = Duration::from_secs(2);

/// In bytes.
#[derive(Debug, Clone, Copy, Serialize)]
struct Found {
    idle: f64,
    plain: f64,
    mtls: f64,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let backend = bench.backend(&[LOAD_CORE])?;
    let mut found = Vec::new();
    for proxy in bench.proxies.iter().copied() {
        let plain = small(Kind::Http1Idle, CONNECTIONS);
        let mtls = Plan { tls: Some(bench.files.client(Group::P256)?), ..plain.clone() };
        let (idle, plain) = by_connection(bench, &backend, proxy, HTTP1, &plain)?;
        let (_, mtls) = by_connection(bench, &backend, proxy, Shape { client: ClientSide::Mtls, ..HTTP1 }, &mtls)?;
        eprintln!(
            "memory: {}: idle {:.0} KiB, by connection {plain:.0} and {mtls:.0} bytes",
            proxy.name(),
            idle / 1024.0
        );
        found.push((proxy, Found { idle, plain, mtls }));
    }
    Ok(report(&found))
}

/// Memory at rest, and by connection.
fn by_connection(
    bench: &Bench,
    backend: &Backend,
    proxy: Proxy,
    shape: Shape,
    plan: &Plan,
) -> anyhow::Result<(f64, f64)> {
    let mut running = bench.start(proxy, shape, backend, &[PROXY_CORE], plan)?;
    bench.wait(REST)?;
    let pids = running.program.pids();
    let idle = usage::resident(&pids);
    let load = Load::start(Plan { target: running.listen, ..plan.clone() })?;
    let waited = all_idle(bench, &load);
    let with = usage::resident(&pids);
    load.finish().with_context(|| format!("{}: idle connections", proxy.name()))?;
    waited.with_context(|| proxy.name())?;
    running.program.still_runs()?;
    Ok((idle as f64, with.saturating_sub(idle) as f64 / CONNECTIONS as f64))
}

fn all_idle(bench: &Bench, load: &Load) -> anyhow::Result<()> {
    let deadline = Instant::now() + OPENED;
    while load.answered().0 < CONNECTIONS as u64 && !load.is_stopped() {
        ensure!(Instant::now() < deadline, "{} of {CONNECTIONS} connections after {OPENED:?}", load.answered().0);
        bench.wait(Duration::from_millis(50))?;
    }
    bench.wait(IDLE)
}

fn report(found: &[(Proxy, Found)]) -> Report {
    let kibibytes = |bytes: f64| table::number(bytes / 1024.0);
    let line = |(proxy, found): &(Proxy, Found)| {
        vec![proxy.name().to_owned(), table::mebibytes(found.idle), kibibytes(found.plain), kibibytes(found.mtls)]
    };
    let mut verdicts = Vec::new();
    if let Some((_, ours)) = found.iter().find(|(proxy, _)| *proxy == Proxy::Weft) {
        let mut verdict = |what: &str, bound: Bound, value: f64, unit: &str| {
            let found = format!("{}{unit}", table::number(value));
            verdicts.push(Verdict { what: what.to_owned(), wanted: bound.shown(unit), found, met: bound.holds(value) });
        };
        verdict("idle", Bound::AtMost(6.0), ours.idle / f64::from(1 << 20), " MiB");
        verdict("an idle connection", Bound::AtMost(8.0), ours.plain / 1024.0, " KiB");
        verdict("an idle connection, mTLS", Bound::AtMost(16.0), ours.mtls / 1024.0, " KiB");
    }
    let columns = ["", "idle MiB", "a connection KiB", "a connection with mTLS KiB"];
    let note = format!(
        "VmRSS of all processes of a proxy, once; {CONNECTIONS} connections, each after one request, one after the other; then {IDLE:?} idle."
    );
    Report {
        case: Case::Memory.name(),
        title: "resident memory, configuration from a file, one worker".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: found.iter().map(line).collect(),
        verdicts,
        notes: vec![note],
        raw: found.iter().map(|(proxy, found)| json!({ "name": proxy.name(), "bytes": found })).collect(),
    }
}
