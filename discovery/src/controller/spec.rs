//! What was asked for, replica by replica: each service's configuration hash, and the full specification of one replica.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::compose::{Project, Service};
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL, ReplicaId, compose_label};
use serde::{Deserialize, Serialize};

use crate::runtime::ReplicaSpec;

/// One project as it is kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub project: Project,
    /// Everything of it is to go; it is forgotten when the last replica has gone.
    pub is_down: bool,
}

/// Everything that was asked for.
pub type DesiredProjects = BTreeMap<Name, Arc<Desired>>;

/// A hash of all that makes a replica of the service what it is. How many there are, what they wait for and how they are
/// stopped is not part of it: a change of these replaces nothing.
#[must_use]
pub fn config_hash(project: &Project, service: &Service) -> Arc<str> {
    let mut essence = service.clone();
    essence.replicas = 0;
    essence.depends_on.clear();
    essence.deploy_labels.clear();
    essence.restart = Default::default();
    essence.stop_grace_period = Default::default();
    let networks: BTreeMap<&String, _> =
        project.networks.iter().filter(|(key, _)| service.networks.contains_key(*key)).collect();
    let text = serde_json::to_vec(&(essence, networks, &project.directory)).unwrap_or_default();
    fnv1a_128(&text).into()
}

/// FNV-1a (draft-eastlake-fnv) of 128 bits, in hex: nobody attacks it, and it stays the same over versions and machines,
/// which the standard library's hashers do not promise.
fn fnv1a_128(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// One replica; none for a service that the project does not have.
#[must_use]
pub fn replica_spec(project: &Project, id: &ReplicaId) -> Option<ReplicaSpec> {
    let service = project.services.get(&id.service)?;
    let config_hash = config_hash(project, service);
    // What this controller makes takes part in the mesh, unless the file says otherwise.
    let mut labels = BTreeMap::from([("mesh.enable".to_owned(), "true".to_owned())]);
    labels.extend(service.labels.clone());
    labels.extend([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (compose_label::PROJECT.to_owned(), id.project.to_string()),
        (compose_label::SERVICE.to_owned(), id.service.to_string()),
        (compose_label::NUMBER.to_owned(), id.number.to_string()),
        (compose_label::CONFIG_HASH.to_owned(), config_hash.to_string()),
        (compose_label::ONEOFF.to_owned(), "False".to_owned()),
        (compose_label::WORKING_DIR.to_owned(), project.directory.display().to_string()),
    ]);
    let networks = project.networks.iter().filter(|(key, _)| service.networks.contains_key(*key));
    Some(ReplicaSpec {
        id: id.clone(),
        service: Arc::new(service.clone()),
        networks: networks.map(|(key, network)| (key.clone(), network.clone())).collect(),
        labels,
        config_hash,
        directory: project.directory.clone(),
    })
}
