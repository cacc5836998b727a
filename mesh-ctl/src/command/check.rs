//! `mesh-ctl check`: what this machine offers, and what that means for what Weft can do here. A warning says what will not work;
//! a failure says that nothing will.

use std::process::ExitCode;

use mesh_proxy::error::chain;
use mesh_proxy::intercept::capture::CaptureConfig;
use mesh_proxy::intercept::probe::probe;
use serde::Serialize;
use serde_json::json;

use crate::args::{CheckArguments, Output};
use crate::embedded::engine;
use crate::output::{self, Table};

/// nf_tables with tables that belong to a socket (`flags owner`).
const KERNEL_MIN: (u32, u32) = (5, 12);

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty when all is well.
    advice: &'static str,
}

/// # Errors
/// When stdout is closed.
pub async fn run(output: Output, arguments: CheckArguments) -> anyhow::Result<ExitCode> {
    let findings =
        vec![kernel(), capabilities(), nftables(), loopback_range().await, docker(arguments.docker.as_deref()).await];
    let value = json!({ "apiVersion": "mesh/v1", "items": findings });
    output::print(output, &value, |_| {
        let mut table = Table::new(&["CHECK", "VERDICT", "FOUND", "ADVICE"]);
        for finding in &findings {
            let verdict = if finding.verdict == Verdict::Ok { "ok" } else { "warning" };
            table.row([finding.what.to_owned(), verdict.to_owned(), finding.found.clone(), finding.advice.to_owned()]);
        }
        table
    })?;
    let warned = findings.iter().any(|finding| finding.verdict == Verdict::Warning);
    Ok(if warned && arguments.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn finding(what: &'static str, fits: bool, found: impl Into<String>, advice: &'static str) -> Finding {
    let (verdict, advice) = if fits { (Verdict::Ok, "") } else { (Verdict::Warning, advice) };
    Finding { what, verdict, found: found.into(), advice }
}

fn kernel() -> Finding {
    let release =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let advice = "capture wants Linux 5.12 or later; explicit listeners work on any";
    finding("kernel", version_of(&release).is_some_and(|version| version >= KERNEL_MIN), release, advice)
}

/// Major and minor of `6.18.44-generic`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn capabilities() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    let missing: Vec<&str> = [("NET_ADMIN", has(CAP_NET_ADMIN)), ("SYS_ADMIN", has(CAP_SYS_ADMIN))]
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect();
    let found =
        if missing.is_empty() { "NET_ADMIN, SYS_ADMIN".to_owned() } else { format!("without {}", missing.join(", ")) };
    let advice = "run as root, or grant both, to capture; explicit listeners and local processes need neither";
    finding("capabilities", missing.is_empty(), found, advice)
}

fn nftables() -> Finding {
    let outcome = probe(&CaptureConfig::default());
    let found = outcome
        .as_ref()
        .map_or_else(|error| chain(error), |ownership| format!("connections are captured ({ownership:?})"));
    finding("nftables", outcome.is_ok(), found, "capture needs nf_tables in the kernel, NET_ADMIN and SYS_ADMIN")
}

/// Local processes listen on addresses of 127.0.0.0/8, which Linux serves as a whole.
async fn loopback_range() -> Finding {
    let bound = tokio::net::TcpListener::bind("127.77.0.1:0").await;
    let found = bound.as_ref().map_or_else(|error| error.to_string(), |_| "127.0.0.0/8 is local".to_owned());
    finding("loopback", bound.is_ok(), found, "the process runtime gives each replica an address of 127.0.0.0/8")
}

async fn docker(url: Option<&str>) -> Finding {
    let outcome = engine::version(url).await;
    let found = outcome.as_ref().map_or_else(Clone::clone, |version| format!("Docker {version}"));
    finding("engine", outcome.is_ok(), found, "start a Docker engine, or name it with --docker; processes work without")
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(version_of("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version_of("5.4"), Some((5, 4)));
        assert_eq!(version_of("unknown"), None);
    }
}
