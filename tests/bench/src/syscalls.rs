//! How many system calls a request takes: counted by `perf` in a round of its own, or by `strace` where perf may not.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Running};
use crate::load::{Load, Plan};

/// Until the counter is attached.
const ATTACH: Duration = Duration::from_millis(500);
/// How long requests are counted.
const LENGTH: Duration = Duration::from_secs(1);

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    Perf,
    Strace,
}

/// System calls of one proxy by request; none where nothing on this machine can count them.
///
/// # Errors
/// When responses were wrong.
pub fn per_request(bench: &Bench, running: &Running, plan: &Plan) -> anyhow::Result<Option<f64>> {
    for counter in [Counter::Perf, Counter::Strace] {
        let output = bench.folder().join("syscalls.txt");
        let Ok(mut child) = counter.start(&running.program.pids(), &output) else { continue };
        bench.wait(ATTACH)?;
        // All of the load is within the count: its start, its end, and nothing else.
        let load = Load::start(Plan { target: running.listen, ..plan.clone() })?;
        let waited = bench.wait(LENGTH);
        let finished = load.finish_counted();
        end(&mut child);
        waited?;
        let (_, requests) =
            finished.with_context(|| format!("{} while its system calls were counted", running.program.name))?;
        let calls = counter.parse(&std::fs::read_to_string(&output).unwrap_or_default());
        if let Some(calls) = calls.filter(|calls| *calls > 0) {
            return Ok(Some(calls as f64 / requests as f64));
        }
    }
    Ok(None)
}

fn end(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
    let _ = child.wait();
}

impl Counter {
    fn start(self, pids: &[u32], output: &Path) -> std::io::Result<Child> {
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        let mut command = match self {
            Self::Perf => {
                let mut command = Command::new("perf");
                command
                    .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(","), "-o"])
                    .arg(output);
                command
            }
            Self::Strace => {
                let mut command = Command::new("strace");
                command.args(["-c", "-f", "-o"]).arg(output);
                for pid in &pids {
                    command.args(["-p", pid]);
                }
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn parse(self, text: &str) -> Option<u64> {
        match self {
            Self::Perf => parse_perf(text),
            Self::Strace => parse_strace(text),
        }
    }
}

/// `62345,,raw_syscalls:sys_enter,…`; a line for each process that was asked for, or one for all.
fn parse_perf(text: &str) -> Option<u64> {
    let counts = text.lines().filter(|line| line.contains("raw_syscalls:sys_enter"));
    let counts: Option<Vec<u64>> = counts.map(|line| line.split(',').next()?.trim().parse().ok()).collect();
    counts.filter(|counts| !counts.is_empty()).map(|counts| counts.iter().sum())
}

/// The fourth number of the line `total`.
fn parse_strace(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_counts_in_the_first_column() {
        let text = "# started on Mon\n\n62345,,raw_syscalls:sys_enter,900,100.00,,\n";
        assert_eq!(parse_perf(text), Some(62_345));
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"), None);
        assert_eq!(parse_perf(""), None);
    }

    #[test]
    fn strace_counts_in_its_last_line() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.1           1       900           recvfrom\n100.00    0.2           1      4321        12 total\n";
        assert_eq!(parse_strace(text), Some(4321));
        assert_eq!(parse_strace("strace: Process 1 attached\n"), None);
    }
}
