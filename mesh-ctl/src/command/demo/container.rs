//! The demo of somebody who may use the engine but is not root: it runs once more, in one privileged container of its own image.
//! In there it goes back to the host's files and network, so that everything is as root would have it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::StreamExt;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL};
use mesh_discovery::runtime::docker::{image_from_binary, sweep};
use nix::sched::{CloneFlags, setns};
use nix::unistd::getppid;

use crate::args::DemoArguments;
use crate::ending::{self, Ending};
use crate::output;

/// On the container and its image, and on nothing that the demo in there makes.
const RUN_LABEL: (&str, &str) = ("mesh.run", "demo-container");

const NAME: &str = "weft-demo";

/// The demo in the container says by it that nothing can be captured from there either.
pub(super) const CANNOT_CAPTURE: u8 = 3;

/// How it ended.
pub(super) enum Ended {
    Ran(ExitCode),
    CannotCapture,
}

/// Runs the demo in a container, its output here, until it ends.
///
/// # Errors
/// When the engine refuses the image or the container.
pub(super) async fn run(docker: &Docker, arguments: &DemoArguments) -> anyhow::Result<Ended> {
    let label = format!("{}={}", RUN_LABEL.0, RUN_LABEL.1);
    sweep(docker, Some(&label)).await?;
    let ran = run_swept(docker, arguments).await;
    let swept = sweep(docker, Some(&label)).await?;
    anyhow::ensure!(swept.left.is_empty(), "not everything could be removed: {}", swept.left.join("; "));
    match ran? {
        code if code == i64::from(CANNOT_CAPTURE) => Ok(Ended::CannotCapture),
        code => Ok(Ended::Ran(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))),
    }
}

async fn run_swept(docker: &Docker, arguments: &DemoArguments) -> anyhow::Result<i64> {
    let own = std::env::current_exe().context("this binary does not know its own path")?;
    let labels = BTreeMap::from([(RUN_LABEL.0.to_owned(), RUN_LABEL.1.to_owned())]);
    image_from_binary(docker, NAME, &own, &[], &labels).await?;
    let options = CreateContainerOptionsBuilder::default().name(NAME).build();
    let created = docker.create_container(Some(options), body(arguments)).await;
    let id = created.context("the demo's container cannot be made")?.id;
    let options = AttachContainerOptionsBuilder::default().stdout(true).stderr(true).stream(true).build();
    let mut attached = docker.attach_container(&id, Some(options)).await.context("its output cannot be heard")?;
    docker.start_container(&id, None).await.context("the demo's container cannot be started")?;
    let mut interrupt = std::pin::pin!(ending::wanted());
    let mut is_told = false;
    loop {
        tokio::select! {
            said = attached.output.next() => match said {
                Some(said) => show(said.context("its output broke off")?)?,
                None => break,
            },
            ending = &mut interrupt, if !is_told => {
                is_told = true;
                let signal = if ending == Ending::Interrupt { "SIGINT" } else { "SIGTERM" };
                // It removes what it made, and says so.
                let options = KillContainerOptionsBuilder::default().signal(signal).build();
                docker.kill_container(&id, Some(options)).await.context("the demo's container cannot be stopped")?;
            }
        }
    }
    match docker.wait_container(&id, None::<WaitContainerOptions>).next().await {
        Some(Ok(ended)) => Ok(ended.status_code),
        // A code that is not 0 comes as an error.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(error).context("how the demo ended cannot be found out"),
        None => anyhow::bail!("how the demo ended cannot be found out"),
    }
}

fn body(arguments: &DemoArguments) -> ContainerCreateBody {
    let mut words = vec!["demo".to_owned(), "--inside".to_owned(), "--runtime=docker".to_owned()];
    words.push(format!("--for={}ms", arguments.run_for.as_millis()));
    words.push(format!("--rate={}", arguments.rate));
    words.extend(arguments.keep.then(|| "--keep".to_owned()));
    let marks = [(MANAGED_BY_LABEL, MANAGED_BY), RUN_LABEL];
    ContainerCreateBody {
        image: Some(NAME.to_owned()),
        cmd: Some(words),
        labels: Some(
            marks.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect::<HashMap<_, _>>(),
        ),
        host_config: Some(HostConfig {
            // All that is wanted of `privileged`: to enter namespaces, those of the host's processes among them, and to write
            // rules and routes in there.
            cap_add: Some(["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN"].map(str::to_owned).to_vec()),
            security_opt: Some(["seccomp=unconfined", "apparmor=unconfined"].map(str::to_owned).to_vec()),
            network_mode: Some("host".to_owned()),
            pid_mode: Some("host".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn show(said: LogOutput) -> anyhow::Result<()> {
    match said {
        LogOutput::StdErr { message } => std::io::stderr().write_all(&message),
        other => return output::write_bytes(&other.into_bytes()),
    }
    .context("the demo's output cannot be written")
}

/// Back to the host's files: into the mount namespace of whoever started this container's process, which is a process of the
/// engine's. To be called while this process has one thread (`setns(2)`).
///
/// # Errors
/// When this is no privileged container with the host's processes in sight.
pub fn enter_host() -> anyhow::Result<()> {
    let path = format!("/proc/{}/ns/mnt", getppid());
    let namespace = File::open(&path).with_context(|| format!("{path} cannot be opened"))?;
    setns(namespace, CloneFlags::CLONE_NEWNS).with_context(|| format!("{path} cannot be entered"))
}
