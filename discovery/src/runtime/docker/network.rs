//! The networks that replicas meet on, made with Compose's labels and forgotten with the project.

use std::collections::BTreeMap;

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::InspectNetworkOptions;
use mesh_core::compose::Network;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL, compose_label};

use super::{marks, refused, status};
use crate::runtime::RuntimeError;

/// Makes the network unless it is there.
pub(super) async fn ensure(
    docker: &Docker,
    project: &Name,
    key: &str,
    network: &Network,
    labels: &BTreeMap<String, String>,
) -> Result<(), RuntimeError> {
    match docker.inspect_network(&network.name, None::<InspectNetworkOptions>).await {
        Ok(_) => return Ok(()),
        Err(error) if status(&error) == Some(404) => {}
        Err(error) => return Err(refused(&network.name, "look for the network", error)),
    }
    if network.external {
        let message = format!(
            "the file says that it exists already, but this engine does not have it; `docker network create {}` makes it",
            network.name
        );
        return Err(RuntimeError::Refused { unit: network.name.clone(), operation: "look for the network", message });
    }
    let mut all_labels = marks(labels);
    all_labels.extend(network.labels.clone());
    all_labels.insert(compose_label::PROJECT.to_owned(), project.to_string());
    all_labels.insert(compose_label::NETWORK.to_owned(), key.to_owned());
    let request = NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        internal: Some(network.internal),
        attachable: Some(true),
        labels: Some(all_labels),
        ..NetworkCreateRequest::default()
    };
    match docker.create_network(request).await {
        Ok(_) => Ok(()),
        // Somebody else was quicker.
        Err(error) if status(&error) == Some(409) => Ok(()),
        Err(error) => Err(refused(&network.name, "create the network", error)),
    }
}

/// Removes the network where it is ours and this project's, and nobody is on it.
pub(super) async fn forget(docker: &Docker, project: &Name, network: &Network) -> Result<(), RuntimeError> {
    let found = match docker.inspect_network(&network.name, None::<InspectNetworkOptions>).await {
        Ok(found) => found,
        Err(error) if status(&error) == Some(404) => return Ok(()),
        Err(error) => return Err(refused(&network.name, "look for the network", error)),
    };
    let labels = found.labels.unwrap_or_default();
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    if !has(MANAGED_BY_LABEL, MANAGED_BY) || !has(compose_label::PROJECT, project.as_str()) {
        return Ok(());
    }
    match docker.remove_network(&network.name).await {
        Ok(()) => Ok(()),
        // Gone already, or somebody is on it.
        Err(error) if matches!(status(&error), Some(403 | 404 | 409)) => Ok(()),
        Err(error) => Err(refused(&network.name, "remove the network", error)),
    }
}
