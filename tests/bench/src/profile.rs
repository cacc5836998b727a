//! Where the proxy's time goes: sampled by `perf` in a round of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Running};
use crate::load::{Load, Plan};

const LENGTH: Duration = Duration::from_secs(3);
/// What takes less is left out.
const PERCENT_MIN: &str = "0.8";

/// The functions that took most, as a block of Markdown.
///
/// # Errors
/// When perf cannot run, or responses were wrong.
pub fn of(bench: &Bench, running: &Running, plan: &Plan) -> anyhow::Result<String> {
    let data = bench.folder().join("perf.data");
    let pids: Vec<_> = running.program.pids().iter().map(u32::to_string).collect();
    let load = Load::start(Plan { target: running.listen, ..plan.clone() })?;
    bench.wait(bench.warm_up)?;
    let mut record = Command::new("perf");
    record.args(["record", "-q", "-e", "cpu-clock", "-F", "4999", "-p", &pids.join(","), "-o"]).arg(&data);
    let mut child = record.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("perf")?;
    let waited = bench.wait(LENGTH);
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
    let _ = child.wait();
    load.finish()?;
    waited?;
    let mut report = Command::new("perf");
    report
        .args(["report", "--stdio", "-q", "-F", "overhead,dso,symbol", "--percent-limit", PERCENT_MIN, "-i"])
        .arg(&data);
    let output = report.stdin(Stdio::null()).output().context("perf")?;
    ensure!(output.status.success(), "perf report: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(format!("\n{} by function:\n\n```text\n{}\n```", running.proxy.name(), lines(&text).join("\n")))
}

/// The lines of a report, without what surrounds and follows them.
fn lines(report: &str) -> Vec<String> {
    let lines = report.lines().map(str::trim).filter(|line| line.contains('%'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_its_lines() {
        let report = "\n#\n    12.34%  mesh-proxy  [.] mesh_proxy::outbound::call      -      -\n     1.00%  [kernel]    [k] tcp_ack\n\n";
        assert_eq!(
            lines(report),
            ["12.34% mesh-proxy [.] mesh_proxy::outbound::call - -", "1.00% [kernel] [k] tcp_ack"]
        );
    }
}
