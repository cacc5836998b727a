//! `mesh-bench`: Weft beside its peers, on this machine. Started by `tests/bench/compare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

mod histogram; // how long requests took: pure
mod usage; // CPU time and memory of a process
mod sample; // rounds, medians, ratios: pure
mod table; // results as Markdown: pure
mod head; // heads of HTTP/1.1: pure
mod frame; // frames of h2: pure
mod certificates; // an authority, a server, a client
mod launch; // programs on cores
mod backend; // the service behind the proxies
mod load; // the load generator
mod proxies; // Weft and its peers, and their configurations
mod bench; // one round
mod syscalls; // counted by perf or strace
mod profile; // sampled by perf
mod case; // what is compared

use bench::Bench;
use case::Case;
use proxies::{Programs, Proxy};

#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Flags {
    #[command(subcommand)]
    command: Option<Role>,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Debug, Args)]
struct Compare {
    /// Run these cases alone
    #[arg(long = "case", value_name = "C", value_delimiter = ',')]
    cases: Vec<Case>,

    /// Run these proxies alone
    #[arg(long = "proxy", value_name = "P", value_delimiter = ',')]
    proxies: Vec<Proxy>,

    /// Tell where Weft's time goes in cases of CPU time, sampled by perf
    #[arg(long)]
    profile: bool,

    /// Rounds of each proxy in each case
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Seconds that a round counts
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,

    /// Write every sample there, too
    #[arg(long, value_name = "F")]
    json: Option<PathBuf>,

    /// The proxy of this tree
    #[arg(long, value_name = "FILE", hide = true, default_value = "mesh-proxy")]
    weft: PathBuf,

    #[arg(long, value_name = "FILE", hide = true, default_value = "haproxy")]
    haproxy: PathBuf,

    #[arg(long, value_name = "FILE", hide = true, default_value = "nginx")]
    nginx: PathBuf,

    #[arg(long, value_name = "FILE", hide = true, default_value = "envoy")]
    envoy: PathBuf,
}

/// What this program is where it does not compare.
#[derive(Debug, Subcommand)]
enum Role {
    /// The service behind the proxies.
    #[command(hide = true)]
    Backend,
    /// Becomes another program on these cores.
    #[command(hide = true)]
    Launch {
        #[arg(long, value_delimiter = ',')]
        cores: Vec<usize>,
        #[arg(last = true)]
        program: Vec<String>,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let ended = match &flags.command {
        Some(Role::Backend) => backend::serve(),
        Some(Role::Launch { cores, program }) => launch::become_program(cores, program),
        None => compare(&flags.compare),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(flags: &Compare) -> anyhow::Result<()> {
    launch::raise_files_limit()?;
    launch::go_first();
    launch::pin(&[bench::LOAD_CORE])?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let programs = Programs {
        weft: flags.weft.clone(),
        haproxy: flags.haproxy.clone(),
        nginx: flags.nginx.clone(),
        envoy: flags.envoy.clone(),
    };
    let length = Duration::from_secs(flags.seconds.into());
    let mut bench = Bench::new(flags.rounds.into(), length, programs, folder.path(), launch::interrupts()?)?;
    bench.profile = flags.profile;
    if !flags.proxies.is_empty() {
        bench.proxies.retain(|proxy| flags.proxies.contains(proxy));
    }
    let cases = if flags.cases.is_empty() { Case::value_variants().to_vec() } else { flags.cases.clone() };
    let mut raw = serde_json::Map::new();
    for case in cases {
        let report = case.run(&bench).with_context(|| format!("case {}", case.name()))?;
        println!("{}", report.markdown());
        raw.insert(case.name(), serde_json::to_value(&report).context("samples as JSON")?);
        if let Some(path) = &flags.json {
            let text = serde_json::to_string_pretty(&raw).context("samples as JSON")?;
            std::fs::write(path, text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
