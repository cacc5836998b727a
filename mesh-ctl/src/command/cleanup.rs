//! `mesh-ctl cleanup`: removes all that Weft ever made on this host: containers, networks and images that carry its mark,
//! processes by pid and start time, and its state. Rules and routes of capture end with the proxy that made them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use mesh_discovery::config::{Environment, default_state_dir};
use mesh_discovery::runtime::docker::sweep;
use mesh_discovery::runtime::process;

use super::project::confirmed;
use crate::args::CleanupArguments;
use crate::embedded::engine;

/// # Errors
/// When something of ours cannot be removed, or is still in use.
pub async fn run(arguments: CleanupArguments) -> anyhow::Result<ExitCode> {
    let state_dir = match arguments.state_dir {
        Some(folder) => folder,
        None => default_state_dir(&Environment::of_process()).context("--state-dir says where state is kept")?,
    };
    eprintln!(
        "Everything that Weft made on this host is removed: its containers, networks, images, processes, and {}.",
        state_dir.display()
    );
    if !confirmed("Do this?", arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut left = Vec::new();
    for folder in owned_folders(&state_dir) {
        let swept =
            process::sweep(&folder).with_context(|| format!("{} is in use; end that mesh first", folder.display()))?;
        swept.iter().for_each(|name| println!("process {name}"));
    }
    match engine::connect(arguments.docker.as_deref()).await {
        Ok(engine) => {
            let swept = sweep(&engine.docker, None).await?;
            swept.containers.iter().for_each(|name| println!("container {name}"));
            swept.networks.iter().for_each(|name| println!("network {name}"));
            swept.images.iter().for_each(|name| println!("image {name}"));
            left.extend(swept.left);
        }
        Err(reason) => eprintln!("no engine is asked: {reason}"),
    }
    if state_dir.exists() {
        std::fs::remove_dir_all(&state_dir).with_context(|| format!("{} cannot be removed", state_dir.display()))?;
        println!("folder {}", state_dir.display());
    }
    anyhow::ensure!(left.is_empty(), "not everything could be removed:\n{}", left.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// The state folder and the demo's, each with processes of its own.
fn owned_folders(state_dir: &Path) -> Vec<PathBuf> {
    [state_dir.to_owned(), state_dir.join("demo")].into_iter().filter(|folder| folder.is_dir()).collect()
}
