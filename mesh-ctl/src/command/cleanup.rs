//! `mesh-ctl cleanup`: removes all that Weft ever made on this host: containers, networks and images that carry its mark,
//! processes by pid and start time, its state, and the routes and rules that a killed proxy left in network namespaces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ipnet::IpNet;
use mesh_discovery::config::{Config, Environment, default_state_dir};
use mesh_discovery::provider::docker::client::Engine;
use mesh_discovery::runtime::docker::sweep;
use mesh_discovery::runtime::process;
use mesh_proxy::error::chain;
use mesh_proxy::intercept::capture::remove;
use mesh_proxy::intercept::netns::NetworkNamespace;
use mesh_proxy::intercept::watch::docker_folder;

use super::project::confirmed;
use crate::args::CleanupArguments;
use crate::embedded::engine;
use crate::output::say;
use mesh_core::tell;

pub mod state; // the files in a state folder that are ours

/// # Errors
/// When something of ours cannot be removed, or is still in use.
pub async fn run(arguments: CleanupArguments) -> anyhow::Result<ExitCode> {
    let state_dir = match arguments.state_dir {
        Some(folder) => folder,
        None => default_state_dir(&Environment::of_process()).context("--state-dir says where state is kept")?,
    };
    let files = state::files(&state_dir).with_context(|| format!("{} cannot be read", state_dir.display()))?;
    if let Some(user) = state::in_use(&state_dir) {
        anyhow::bail!("{} is in use; end that mesh first: {user}", state_dir.display());
    }
    let engine = match engine::choose(arguments.docker.as_deref()).map_err(anyhow::Error::msg)? {
        Some(_) => engine::connect(arguments.docker.as_deref())
            .await
            .map_err(|reason| tell!("No engine is asked: {reason}"))
            .ok(),
        None => None,
    };
    let is_root = nix::unistd::geteuid().is_root();
    tell!("What Weft made is removed: {}.", looked_at(engine.as_ref(), &files, &state_dir, is_root));
    if state_dir.exists() && files.is_empty() {
        tell!("{} is left alone: nothing in it is Weft's.", state_dir.display());
    }
    if !confirmed("Do this?", arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut left = Vec::new();
    for folder in owned_folders(&state_dir).into_iter().filter(|_| !files.is_empty()) {
        let swept =
            process::sweep(&folder).with_context(|| format!("{} is in use; end that mesh first", folder.display()))?;
        swept.iter().for_each(|name| say(format_args!("process {name}")));
    }
    if let Some(engine) = engine {
        let swept = sweep(&engine.docker, None).await?;
        swept.containers.iter().for_each(|name| say(format_args!("container {name}")));
        swept.networks.iter().for_each(|name| say(format_args!("network {name}")));
        swept.images.iter().for_each(|name| say(format_args!("image {name}")));
        left.extend(swept.left);
    }
    left.extend(uncapture().await);
    if !files.is_empty() {
        let gone = state::remove(&state_dir).with_context(|| format!("{} cannot be removed", state_dir.display()))?;
        let words = if gone { "folder" } else { "Weft's files in folder" };
        say(format_args!("{words} {}", state_dir.display()));
    }
    anyhow::ensure!(left.is_empty(), "not everything could be removed:\n{}", left.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// What is really looked at, in words.
fn looked_at(engine: Option<&Engine>, files: &[PathBuf], state_dir: &Path, is_root: bool) -> String {
    let engine = engine.map(|engine| format!("containers, networks and images with its mark on {}", engine.url));
    let state = format!("processes recorded in {0}, and its {1} files there", state_dir.display(), files.len());
    let state = (!files.is_empty()).then_some(state);
    let rules = is_root.then(|| "routes and rules in network namespaces".to_owned());
    let all: Vec<String> = [engine, state, rules].into_iter().flatten().collect();
    if all.is_empty() { "nothing is there to be looked at".to_owned() } else { all.join("; ") }
}

/// Takes away what capture left: in the host's network namespace, and in those of containers. What it says could not be.
async fn uncapture() -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        tell!("network namespaces are left alone: entering them takes root");
        return Vec::new();
    }
    let IpNet::V4(range) = Config::ephemeral().vip_range else { return Vec::new() };
    let cleaned = tokio::task::spawn_blocking(move || {
        let files = std::fs::read_dir(docker_folder()).into_iter().flatten().flatten();
        // A file whose container has stopped is no namespace any more.
        let opened = files.filter_map(|file| NetworkNamespace::open(file.path()).ok());
        let all = std::iter::once(None).chain(opened.map(Some));
        let mut left = Vec::new();
        for namespace in all {
            let name = namespace.as_ref().map_or("this host's".to_owned(), |one| one.path().display().to_string());
            match remove(namespace.as_ref(), range) {
                Ok(true) => say(format_args!("network namespace {name}")),
                Ok(false) => {}
                Err(error) => left.push(format!("network namespace {name}: {}", chain(&error))),
            }
        }
        left
    });
    cleaned.await.unwrap_or_else(|error| vec![error.to_string()])
}

/// The state folder and the demo's, each with processes of its own.
fn owned_folders(state_dir: &Path) -> Vec<PathBuf> {
    [state_dir.to_owned(), state_dir.join(state::DEMO_FOLDER)].into_iter().filter(|folder| folder.is_dir()).collect()
}
