//! The file, key by key: variables first, then the top level, then each service.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::interpolate::fill_tree;
use super::service::{Defaults, list_or_map, switch};
use super::{DependencyCondition, Network, Overrides, Project, Service, keys, normalise_project_name, service};
use crate::config::problem::Problems;
use crate::config::section::{Document, Section};
use crate::model::names::Name;
use crate::model::replicas::{RuntimeKind, compose_label};

/// The network of services that name none.
pub(super) const DEFAULT_NETWORK: &str = "default";

pub(super) const RUNTIMES: [(&str, RuntimeKind); 2] =
    [("docker", RuntimeKind::Docker), ("process", RuntimeKind::Process)];

pub(super) fn read(
    origin: &str,
    text: &str,
    environment: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> Result<Project, Problems> {
    let mut root: Value = serde_yaml::from_str(text)
        .map_err(|error| Problems::one(origin, "(file)", None, format!("is not valid YAML: {error}")))?;
    let processes = processes_of(&root, overrides);
    let mut list = Vec::new();
    fill_tree(&mut root, "", environment, &|path| is_per_replica(path, &processes), &mut list);
    if !list.is_empty() {
        return Err(Problems { origin: origin.to_owned(), list });
    }
    let document = Document::of(origin, root)?;
    let project = project(&document.root(), environment, overrides);
    document.finish(())?;
    project.ok_or_else(|| Problems::one(origin, "(file)", None, "cannot be read"))
}

fn project(root: &Section<'_>, environment: &BTreeMap<String, String>, overrides: &Overrides) -> Option<Project> {
    keys::TOP_LEVEL.check(root);
    let name = project_name(root, environment, overrides);
    let runtime = root.section("x-mesh").and_then(|section| x_mesh_runtime(&section));
    let defaults = Defaults {
        runtime: overrides.runtime.or(runtime).unwrap_or(RuntimeKind::Docker),
        directory: &overrides.directory,
        environment,
    };
    let mut services = BTreeMap::new();
    for (key, section) in root.named_sections("services") {
        match Name::new(&key) {
            Ok(name) => services.extend(service::read(&section, &defaults).map(|service| (name, service))),
            Err(error) => root.note(section.path(), None, error.to_string()),
        }
    }
    if root.raw("services").is_none() {
        root.note("services", None, "is missing; at least one service is wanted");
    }
    let name = name?;
    let networks = networks(root, &name, &services);
    check_dependencies(root, &services);
    Some(Project { name, directory: overrides.directory.clone(), services, networks })
}

/// `-p`, else `COMPOSE_PROJECT_NAME`, else the file's `name`, else the folder's: Compose's order.
fn project_name(root: &Section<'_>, environment: &BTreeMap<String, String>, overrides: &Overrides) -> Option<Name> {
    let stated = root.optional::<String>("name");
    let given = overrides.project_name.as_ref().or_else(|| environment.get("COMPOSE_PROJECT_NAME"));
    if let Some(name) = given.or(stated.as_ref()) {
        return Name::new(name)
            .map_err(|error| root.note("name", Some(&Value::String(name.clone())), error.to_string()))
            .ok();
    }
    let folder = overrides.directory.file_name().unwrap_or_default().to_string_lossy();
    let wanted =
        "is missing, and the folder's name holds no letter or digit to make one of; set it, or use --project-name";
    normalise_project_name(&folder).map_err(|_| root.note("name", None, wanted)).ok()
}

pub(super) fn x_mesh_runtime(section: &Section<'_>) -> Option<RuntimeKind> {
    keys::X_MESH.check(section);
    section.word("runtime", &RUNTIMES)
}

/// Every declared network, and `default` where a service is on it; an unknown one is a mistake of the service.
fn networks(root: &Section<'_>, project: &Name, services: &BTreeMap<Name, Service>) -> BTreeMap<String, Network> {
    let mut networks: BTreeMap<String, Network> = root
        .named_sections("networks")
        .into_iter()
        .map(|(key, section)| {
            let network = network(&section, project, &key);
            (key, network)
        })
        .collect();
    for (service, key) in services.iter().flat_map(|(name, s)| s.networks.keys().map(move |key| (name, key))) {
        if key == DEFAULT_NETWORK {
            networks.entry(key.clone()).or_insert_with(|| plain_network(project, key));
        } else if !networks.contains_key(key) {
            let known = networks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let wanted = format!("is not declared under the top-level networks; declared are: {known}");
            root.note(format!("services.{service}.networks.{key}"), None, wanted);
        }
    }
    networks
}

fn network(section: &Section<'_>, project: &Name, key: &str) -> Network {
    keys::NETWORK.check(section);
    let external = switch(section, "external").unwrap_or(false);
    let name = section.optional("name");
    let plain = plain_network(project, key);
    let mut labels = plain.labels;
    labels.extend(list_or_map(section, "labels", &BTreeMap::new()));
    Network {
        name: name.unwrap_or(if external { key.to_owned() } else { plain.name }),
        external,
        internal: switch(section, "internal").unwrap_or(false),
        driver: section.optional("driver"),
        labels: if external { BTreeMap::new() } else { labels },
    }
}

fn plain_network(project: &Name, key: &str) -> Network {
    let labels = BTreeMap::from([
        (compose_label::PROJECT.to_owned(), project.to_string()),
        (compose_label::NETWORK.to_owned(), key.to_owned()),
    ]);
    Network { name: format!("{project}_{key}"), external: false, internal: false, driver: None, labels }
}

fn check_dependencies(root: &Section<'_>, services: &BTreeMap<Name, Service>) {
    for (name, service) in services {
        for (wanted, dependency) in &service.depends_on {
            let path = format!("services.{name}.depends_on.{wanted}");
            match services.get(wanted) {
                None if dependency.required => root.note(path, None, "is not a service of this file"),
                // A container without a healthcheck of its own may still have its image's.
                Some(other)
                    if dependency.condition == DependencyCondition::ServiceHealthy
                        && other.runtime == RuntimeKind::Process
                        && other.healthcheck.is_none() =>
                {
                    root.note(path, None, format!("wants {wanted} healthy, which has no healthcheck"));
                }
                _ => {}
            }
        }
        if let Some(ring) = ring_from(name, services) {
            root.note(format!("services.{name}.depends_on"), None, format!("goes round in a ring: {ring}"));
            return;
        }
    }
}

fn ring_from(start: &Name, services: &BTreeMap<Name, Service>) -> Option<String> {
    let mut open = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        let last = path.last()?;
        for next in services.get(*last).into_iter().flat_map(|service| service.depends_on.keys()) {
            let longer: Vec<&Name> = path.iter().copied().chain([next]).collect();
            if next == start {
                return Some(longer.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" -> "));
            }
            if seen.insert(next) {
                open.push(longer);
            }
        }
    }
    None
}

/// The services that will be processes, as far as can be told before variables are filled in: whether `${PORT}` is a variable
/// of the file or of each replica has to be known by then.
fn processes_of(root: &Value, overrides: &Overrides) -> BTreeSet<String> {
    let stated = |value: &Value| {
        let word = value.get("x-mesh")?.get("runtime")?.as_str()?;
        RUNTIMES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind)
    };
    let default = overrides.runtime.or_else(|| stated(root)).unwrap_or(RuntimeKind::Docker);
    let services = root.get("services").and_then(Value::as_mapping);
    services
        .into_iter()
        .flatten()
        .filter(|(_, service)| stated(service).unwrap_or(default) == RuntimeKind::Process)
        .filter_map(|(name, _)| name.as_str().map(str::to_owned))
        .collect()
}

fn is_per_replica(path: &str, processes: &BTreeSet<String>) -> bool {
    const PLACES: [&str; 3] = ["command", "entrypoint", "healthcheck.test"];
    let Some((service, rest)) = path.strip_prefix("services.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_at = |place: &str| rest.strip_prefix(place).is_some_and(|tail| tail.is_empty() || tail.starts_with('['));
    processes.contains(service) && PLACES.iter().any(|place| is_at(place))
}
