//! `mesh-ctl demo`: the mesh at work. Everything runs from this one binary: discovery, controller and proxy in this process, the
//! shop's services as containers or processes made of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::Method;
use mesh_core::compose::{self, Overrides, Project};
use mesh_core::model::replicas::{ReplicaStatus, RuntimeKind};
use mesh_core::telemetry::log;
use mesh_discovery::provider::docker::DockerProviderConfig;
use mesh_discovery::provider::docker::client::Engine;
use mesh_discovery::runtime::docker::{image_from_binary, sweep};
use mesh_discovery::runtime::{RuntimeError, process};
use mesh_proxy::ambient::CaptureOptions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{DemoArguments, RuntimeChoice};
use crate::demo::dial::Dialer;
use crate::demo::facts::Facts;
use crate::demo::story::Story;
use crate::demo::traffic::Traffic;
use crate::embedded::{Mesh, Parts, engine};
use crate::ending;
use crate::output::say;

pub mod container; // once more, in a privileged container

use container::Ended;

/// The project's name: nobody else's, so that a `shop` of the user's own is left alone.
const PROJECT: &str = "weft-shop";

/// On everything that the demo makes on an engine, and the only containers that it sees there.
const RUN_LABEL: (&str, &str) = ("mesh.run", "demo");

const IMAGE: &str = "weft-shop-demo";

/// Everything has to be ready within this long.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

const FILE: &str = include_str!("../../../examples/shop/compose.yaml");

/// What the services are made of.
enum Stage {
    Docker(Engine),
    Process,
}

/// # Errors
/// When a part cannot start, or the mesh breaks off. What the demo has to show and did not is an exit code of 1.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    if !arguments.inside {
        say(format_args!("Weft demo: a shop of three services, meshed, under load, with things going wrong."));
    }
    log::init("warn");
    let stage = match choose(&arguments).await? {
        Chosen::Stage(stage) => stage,
        Chosen::Ended(code) => return Ok(code),
    };
    let state_dir = state_dir()?;
    sweep_earlier(&stage, &state_dir).await?;
    let mesh = Mesh::start(parts(&stage, &state_dir)).await?;
    say(format_args!("\nDiscovery, controller and proxy run in this process."));
    say(format_args!("  API   http://{}   (mesh-ctl --server)", mesh.api_address));
    say(format_args!(
        "  DNS   {}   (dig -p {} @127.0.0.1 api.{PROJECT}.svc.mesh.internal)",
        mesh.dns_address,
        mesh.dns_address.port()
    ));
    say(format_args!("  proxy http://{}/metrics, and http_proxy=http://{}", mesh.admin_address, mesh.http_proxy));
    let shown = RefCell::new(Facts::default());
    let traffic = Traffic::default();
    // One listener from here to the end: two would each hear it.
    let mut ending = std::pin::pin!(ending::wanted());
    let outcome = tokio::select! {
        outcome = perform(&mesh, &stage, &arguments, &traffic, &shown) => outcome.map(|()| None),
        ending = &mut ending => Ok(Some(ending)),
    };
    let mut facts = shown.into_inner();
    if let (true, Ok(None)) = (arguments.keep, &outcome) {
        conclude(&facts);
        say("\nEverything stays up; Ctrl-C ends and removes it.");
        ending.await;
    }
    say(format_args!("\nRemoving what the demo made."));
    let removed = remove(&mesh, &stage).await;
    mesh.stop().await?;
    // By now nobody writes there any more.
    let forgotten = forget(&state_dir);
    removed?;
    forgotten?;
    let Some(ending) = outcome? else { return Ok(conclude(&facts)) };
    facts.counts = traffic.counts();
    say(format_args!("\nIt was ended before it was over ({ending}). The facts so far:"));
    facts.lines().iter().for_each(|line| say(format_args!("  {line}")));
    Ok(ending.exit_code())
}

/// The facts, last of all.
fn conclude(facts: &Facts) -> ExitCode {
    say(format_args!("\nFacts:"));
    facts.lines().iter().for_each(|line| say(format_args!("  {line}")));
    let shortcomings = facts.shortcomings();
    if shortcomings.is_empty() {
        say(format_args!("\nNot one user request failed."));
        return ExitCode::SUCCESS;
    }
    say(format_args!("\nThe demo failed:"));
    shortcomings.iter().for_each(|line| say(format_args!("  {line}")));
    ExitCode::FAILURE
}

/// What the demo runs on; or it has run already, in a container.
enum Chosen {
    Stage(Stage),
    Ended(ExitCode),
}

async fn choose(arguments: &DemoArguments) -> anyhow::Result<Chosen> {
    if arguments.runtime == RuntimeChoice::Process {
        say(format_args!("The services are local processes, as asked for."));
        return Ok(Chosen::Stage(Stage::Process));
    }
    let reason = match engine::connect(None).await {
        Ok(engine) => match engine::cannot_capture().await {
            None => {
                say(format_args!("The services are containers on {}.", engine.url));
                return Ok(Chosen::Stage(Stage::Docker(engine)));
            }
            Some(_) if arguments.inside => return Ok(Chosen::Ended(ExitCode::from(container::CANNOT_CAPTURE))),
            Some(reason) => {
                say(format_args!("The mesh runs in one privileged container of its own image: {reason}."));
                match container::run(&engine.docker, arguments).await {
                    Ok(Ended::Ran(code)) => return Ok(Chosen::Ended(code)),
                    Ok(Ended::CannotCapture) => format!("{reason}, and a privileged container cannot do it either"),
                    Err(error) => format!("{reason}, and in a container: {error:#}"),
                }
            }
        },
        Err(reason) => reason,
    };
    if arguments.runtime == RuntimeChoice::Docker {
        bail!(
            "--runtime docker: {reason}. Start an engine and run as root, or take local processes with --runtime process"
        );
    }
    say(format_args!(
        "The services are local processes: {reason}. For containers, start a Docker engine and run as root."
    ));
    Ok(Chosen::Stage(Stage::Process))
}

/// Where the demo keeps what it must find again: for root below /var/lib/mesh, else below the user's state folder.
fn state_dir() -> anyhow::Result<PathBuf> {
    let base = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/lib/mesh")
    } else {
        let state = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state
            .or_else(home)
            .context("neither XDG_STATE_HOME nor HOME is set; one of them says where state is kept")?
            .join("mesh")
    };
    let folder = base.join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// What a run that was killed left behind.
async fn sweep_earlier(stage: &Stage, state_dir: &Path) -> anyhow::Result<()> {
    let swept = process::sweep(state_dir).map_err(|error| match error {
        RuntimeError::Refused { operation: "locking", .. } => anyhow!("another demo runs on this host; end it first"),
        other => anyhow::Error::new(other).context("what an earlier run left cannot be swept up"),
    })?;
    if !swept.is_empty() {
        say(format_args!("Swept up {} processes of an earlier run.", swept.len()));
    }
    if let Stage::Docker(engine) = stage {
        let label = format!("{}={}", RUN_LABEL.0, RUN_LABEL.1);
        let swept = sweep(&engine.docker, Some(&label)).await?;
        if !swept.containers.is_empty() {
            say(format_args!("Swept up {} containers of an earlier run.", swept.containers.len()));
        }
    }
    // What was asked for then is not asked for now.
    std::fs::remove_dir_all(state_dir).with_context(|| format!("{} cannot be emptied", state_dir.display()))?;
    std::fs::create_dir_all(state_dir).with_context(|| format!("{} cannot be made", state_dir.display()))
}

fn parts(stage: &Stage, state_dir: &Path) -> Parts {
    let docker = match stage {
        Stage::Docker(engine) => Some(DockerProviderConfig {
            url: engine.url.clone(),
            exposed_by_default: true,
            only_label: Some((RUN_LABEL.0.to_owned(), RUN_LABEL.1.to_owned())),
        }),
        Stage::Process => None,
    };
    // Only what the demo made is ever entered: discovery names its containers, and no other.
    let capture = docker.is_some().then(|| CaptureOptions::docker(false));
    let state_dir = state_dir.to_owned();
    Parts { state_dir, processes: docker.is_none(), docker, file: None, virtual_ips: true, capture }
}

/// The whole story; `shown` has what it has shown so far.
async fn perform(
    mesh: &Mesh,
    stage: &Stage,
    arguments: &DemoArguments,
    traffic: &Traffic,
    shown: &RefCell<Facts>,
) -> anyhow::Result<()> {
    let project = project(stage).await?;
    let wanted: u32 = project.services.values().map(|service| service.replicas).sum();
    say(format_args!("\nBringing up {wanted} replicas of {} services:", project.services.len()));
    let mut story = Story::new(mesh, PROJECT, traffic.clone());
    let _: Value = mesh.api.call(Method::PUT, &format!("/v1/projects/{PROJECT}"), Some(&project)).await?;
    story.until_ready(wanted as usize, Instant::now() + READY_TIMEOUT).await?;
    story.tell_discovered().await?;
    if let Stage::Docker(_) = stage {
        until_captured(mesh, wanted).await?;
    }
    let dialer = Dialer::new(&format!("http://front.{PROJECT}:8080"), Some(mesh.http_proxy))?;
    until_reachable(&dialer).await?;
    say(format_args!(
        "Users come: {} requests a second, each front end → api → payments, for {:?}.\n",
        arguments.rate, arguments.run_for
    ));

    story.traffic_begins();
    let end = Instant::now() + arguments.run_for;
    let load = traffic.run(&dialer, arguments.rate, arguments.run_for);
    shown.borrow_mut().intended = u64::from(arguments.rate) * arguments.run_for.as_millis() as u64 / 1000;
    let (_, acted) = tokio::join!(load, acts(&mut story, stage, traffic, arguments.run_for, shown));
    acted?;
    tokio::time::sleep_until(end).await;
    let retried = retried(mesh).await;
    let mut shown = shown.borrow_mut();
    (shown.counts, shown.retried) = (traffic.counts(), retried);
    Ok(())
}

/// Each act begins at its share of the time, so that a short run shows all of them too.
async fn acts(
    story: &mut Story<'_>,
    stage: &Stage,
    traffic: &Traffic,
    run_for: Duration,
    shown: &RefCell<Facts>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let at = |percent: u32| start + run_for * percent / 100;
    let ejection = story.until_ejected(at(25)).await?;
    shown.borrow_mut().ejection = ejection;
    let settled = traffic.counts();
    tokio::time::sleep_until(at(30)).await;
    story.tell_shares(&settled);
    let replacement = story.kill_and_replace(async |victim| kill_replica(stage, victim).await, at(55)).await?;
    shown.borrow_mut().replacement = replacement;
    tokio::time::sleep_until(at(58)).await;
    let scale_up = story.scale_up(at(88)).await?;
    shown.borrow_mut().scale_up = scale_up;
    let scaled = traffic.counts();
    tokio::time::sleep_until(at(97)).await;
    story.tell_shares(&scaled);
    Ok(())
}

async fn kill_replica(stage: &Stage, victim: &ReplicaStatus) -> anyhow::Result<()> {
    match stage {
        Stage::Docker(engine) => engine
            .docker
            .kill_container(&victim.unit, None)
            .await
            .with_context(|| format!("{} cannot be killed", victim.name)),
        Stage::Process => {
            let pid = victim
                .unit
                .strip_prefix("pid-")
                .and_then(|rest| rest.split('-').next())
                .and_then(|pid| pid.parse().ok());
            let pid = pid.with_context(|| format!("{} is not called pid-N", victim.unit))?;
            kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("{} cannot be killed", victim.name))
        }
    }
}

/// The shop, with its services made of this very binary.
async fn project(stage: &Stage) -> anyhow::Result<Project> {
    // In a container this path leads nowhere, while the file that runs can always be read.
    let own = std::env::current_exe().context("this binary does not know its own path")?;
    let readable = if own.exists() { own.clone() } else { PathBuf::from("/proc/self/exe") };
    let mut environment = BTreeMap::new();
    let runtime = match stage {
        Stage::Process => {
            environment.insert("MESH_CTL".to_owned(), own.display().to_string());
            RuntimeKind::Process
        }
        Stage::Docker(engine) => {
            say(format_args!("\nBuilding the image {IMAGE} (FROM scratch) out of {}.", own.display()));
            let labels = BTreeMap::from([(RUN_LABEL.0.to_owned(), RUN_LABEL.1.to_owned())]);
            image_from_binary(&engine.docker, IMAGE, &readable, &[], &labels).await?;
            environment.insert("SHOP_IMAGE".to_owned(), IMAGE.to_owned());
            RuntimeKind::Docker
        }
    };
    let directory = std::env::current_dir().context("there is no current folder")?;
    let overrides = Overrides { project_name: Some(PROJECT.to_owned()), runtime: Some(runtime), directory };
    Ok(compose::read("examples/shop/compose.yaml", FILE, &environment, &overrides)?)
}

/// Until the calls of every container are captured: a connection that one opens before that goes past the mesh, for as long as it is
/// kept.
async fn until_captured(mesh: &Mesh, wanted: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let metrics = mesh.admin.text("/metrics").await?;
        let captured = metrics.lines().find_map(|line| line.strip_prefix("mesh_captured_namespaces "));
        let captured: u32 = captured.and_then(|count| count.parse().ok()).unwrap_or(0);
        if captured >= wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the calls of only {captured} of {wanted} containers are captured. Another mesh on this engine may have the others: \
                 end it (`mesh-ctl dev`, a node proxy), or take local processes with --runtime process"
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until a first whole answer came through the mesh; users come after that.
async fn until_reachable(dialer: &Dialer) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let told = match dialer.get("/").await {
            Ok((http::StatusCode::OK, _)) => return Ok(()),
            Ok((status, body)) => format!("{status}: {}", String::from_utf8_lossy(&body).trim()),
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        };
        if Instant::now() >= deadline {
            bail!("the front end cannot be reached through the mesh: {told}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tries that were repeated, as the proxy counts them.
async fn retried(mesh: &Mesh) -> Option<u64> {
    let metrics = mesh.admin.text("/metrics").await.ok()?;
    let values = metrics
        .lines()
        .filter(|line| line.starts_with("mesh_retries_total"))
        .filter_map(|line| line.rsplit(' ').next());
    Some(values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// The state folder, and the one around it if nothing else is in it.
fn forget(state_dir: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(state_dir).with_context(|| format!("{} cannot be removed", state_dir.display()))?;
    // One that others use stays.
    let _ = state_dir.parent().map(std::fs::remove_dir);
    Ok(())
}

async fn remove(mesh: &Mesh, stage: &Stage) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // A project that never came to be is none to take down.
    let _ = mesh.api.call::<Value>(Method::DELETE, &format!("/v1/projects/{PROJECT}"), None::<&Value>).await;
    loop {
        let left: Value = mesh.api.get(&format!("/v1/replicas?project={PROJECT}")).await?;
        if crate::output::items(&left).is_empty() || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if let Stage::Docker(engine) = stage {
        let label = format!("{}={}", RUN_LABEL.0, RUN_LABEL.1);
        let swept = sweep(&engine.docker, Some(&label)).await?;
        if !swept.left.is_empty() {
            bail!("not everything could be removed: {}", swept.left.join("; "));
        }
    }
    Ok(())
}
