//! What an earlier run left behind: containers, networks and images that carry our mark and one label more.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL};

use super::{status, unavailable};
use crate::runtime::RuntimeError;

/// What was removed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    pub containers: Vec<String>,
    pub networks: Vec<String>,
    pub images: Vec<String>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
}

/// Removes, running or not, everything that carries our mark and `label` (`key`, or `key=value`; none: everything of ours).
///
/// # Errors
/// When the engine does not answer; what it refuses is told in [`Swept::left`].
pub async fn sweep(docker: &Docker, label: Option<&str>) -> Result<Swept, RuntimeError> {
    let mut wanted = vec![format!("{MANAGED_BY_LABEL}={MANAGED_BY}")];
    wanted.extend(label.map(str::to_owned));
    let filters = HashMap::from([("label".to_owned(), wanted)]);
    let mut swept = Swept::default();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for summary in docker.list_containers(Some(options)).await.map_err(unavailable)? {
        let Some(id) = summary.id else { continue };
        let name = summary.names.and_then(|names| names.into_iter().next()).unwrap_or_else(|| id.clone());
        let forced = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = docker.remove_container(&id, Some(forced)).await;
        note(removed, name.trim_start_matches('/'), &mut swept.containers, &mut swept.left);
    }
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    for network in docker.list_networks(Some(options)).await.map_err(unavailable)? {
        let (Some(id), name) = (network.id, network.name.unwrap_or_default()) else { continue };
        note(docker.remove_network(&id).await, &name, &mut swept.networks, &mut swept.left);
    }
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    for image in docker.list_images(Some(options)).await.map_err(unavailable)? {
        let name = image.repo_tags.first().unwrap_or(&image.id).clone();
        let forced = RemoveImageOptionsBuilder::default().force(true).build();
        let removed = docker.remove_image(&image.id, Some(forced), None).await.map(|_| ());
        note(removed, &name, &mut swept.images, &mut swept.left);
    }
    Ok(swept)
}

fn note(removed: Result<(), Error>, name: &str, done: &mut Vec<String>, left: &mut Vec<String>) {
    match removed {
        Ok(()) => done.push(name.to_owned()),
        Err(error) if status(&error) == Some(404) => {}
        Err(error) => left.push(format!("{name}: {error}")),
    }
}
