//! What is asked for, and what somebody else runs beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::compose::{self, Overrides, Project};
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{MANAGED_BY_LABEL, ReplicaId};
use mesh_discovery::controller::spec::replica_spec;
use mesh_discovery::runtime::ReplicaSpec;

/// `web` with its canary, two Compose services that are one service of the mesh, and `api`, which has a healthcheck and waits
/// for it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub web: u32,
    pub canary: u32,
    pub api: u32,
    pub version: u32,
}

impl Wanted {
    pub fn project(&self) -> Project {
        let Self { web, canary, api, version } = self;
        read(&format!(
            "name: shop
services:
  web:
    image: 'web:{version}'
    expose: [8080]
    scale: {web}
    labels: {{ mesh.lb: round_robin, mesh.timeout: 3s }}
  canary:
    image: 'web:next'
    expose: [8080]
    scale: {canary}
    labels: {{ mesh.service: web, mesh.weight: '20', mesh.lb: round_robin, mesh.timeout: 3s }}
  api:
    image: api
    expose: [9000]
    scale: {api}
    healthcheck: {{ test: [CMD, 'true'] }}
    depends_on: [web]
    labels: {{ mesh.outlier.base-ejection-time: 5s, mesh.retry.methods: any }}
"
        ))
    }
}

/// A container that nobody here manages, with a service of its own.
pub fn guest(number: u32) -> Arc<ReplicaSpec> {
    let project = read(&format!("name: guest\nservices:\n  g{number}: {{ image: any, expose: [80] }}\n"));
    let service = Name::new(&format!("g{number}")).expect("a letter and a number are a name");
    let id = ReplicaId::new(project.name.clone(), service, 1);
    let mut spec = replica_spec(&project, &id).expect("the project has the service");
    spec.labels.remove(MANAGED_BY_LABEL);
    Arc::new(spec)
}

fn read(text: &str) -> Project {
    let overrides = Overrides { directory: "/shop".into(), ..Overrides::default() };
    compose::read("compose.yaml", text, &BTreeMap::new(), &overrides).expect("the file is right")
}
