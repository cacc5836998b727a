//! Under which authorities a service is known: `web.shop.svc.mesh.internal`, `web.shop`, and `web` where one namespace has it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::Arc;

use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;

/// The names of a service, without port, most exact first.
pub(super) fn names(snapshot: &Snapshot, service: &Service, fqdn: &str) -> Vec<String> {
    let mut names = vec![fqdn.to_owned(), service.id.to_string()];
    if snapshot.service_by_short_name(&service.id.name).is_some() {
        names.push(service.id.name.to_string());
    }
    names
}

/// Each name with the port, and without it where `bare`.
pub(super) fn domains(names: &[String], port: u16, bare: bool) -> Vec<Arc<str>> {
    let with_port = |name: &String| Arc::from(format!("{name}:{port}"));
    let without = |name: &String| bare.then(|| Arc::from(name.as_str()));
    names.iter().flat_map(|name| without(name).into_iter().chain([with_port(name)])).collect()
}
