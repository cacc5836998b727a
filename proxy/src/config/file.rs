//! The proxy's file, read key by key: `workers`, `admin`, `access_log`; listeners are in [`super::listener`], services in
//! [`super::service`].
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::config::problem::Problems;
use mesh_core::config::section::{Document, Section};
use mesh_core::config::suggest;
use mesh_core::model::resource::{Resources, RouteTable, VirtualHost};

use super::{ADMIN_DEFAULT, Config, listener, service};

/// More workers than any machine has cores are a mistake.
const WORKERS_MAX: u16 = 1024;

/// Finds the file that a path in the configuration names, or says why it cannot be used.
pub type Locate<'l> = dyn Fn(&Path) -> Result<PathBuf, String> + 'l;

/// Reads a file's text; `locate` looks for the files that it names, `cores` is the default number of workers.
///
/// # Errors
/// Every mistake in it.
pub fn parse(origin: &str, text: &str, cores: usize, locate: &Locate<'_>) -> Result<Config, Problems> {
    let document = Document::parse(origin, text)?;
    let root = document.root();
    let workers = workers(&root).unwrap_or(cores).max(1);
    let admin = admin(&root).unwrap_or(ADMIN_DEFAULT);
    let access_log = root.optional("access_log").unwrap_or(false);
    let mut resources = Resources::default();
    let services = service::read_all(&root, &mut resources);
    read_listeners(&root, &services, admin, locate, &mut resources);
    root.finish();
    document.finish(Config { workers, admin, access_log, resources })
}

fn workers(root: &Section<'_>) -> Option<usize> {
    let workers = root.raw("workers")?.as_u64().and_then(|count| u16::try_from(count).ok());
    let workers = workers.filter(|count| (1..=WORKERS_MAX).contains(count));
    if workers.is_none() {
        root.problem(
            "workers",
            format!("a number from 1 to {WORKERS_MAX} is wanted; without the key there is one a core"),
        );
    }
    workers.map(usize::from)
}

fn admin(root: &Section<'_>) -> Option<SocketAddr> {
    let admin = root.section("admin")?;
    let listen = admin.optional("listen");
    admin.finish();
    listen
}

/// Every listener, with the route table of its service where it may carry HTTP.
fn read_listeners(
    root: &Section<'_>,
    services: &BTreeSet<String>,
    admin: SocketAddr,
    locate: &Locate<'_>,
    resources: &mut Resources,
) {
    let mut taken = BTreeMap::from([(admin, "admin.listen".to_owned())]);
    for section in root.sections("listeners") {
        let listen: Option<SocketAddr> = section.required("listen");
        if let Some(listen) = listen.filter(|listen| listen.port() != 0) {
            match taken.get(&listen) {
                Some(first) => section.problem("listen", format!("is taken by {first} already")),
                None => drop(taken.insert(listen, section.path_of("listen"))),
            }
        }
        let service = listened_service(&section, services);
        let listener = listener::read(&section, listen, service.as_deref(), locate);
        section.finish();
        let (Some(mut listener), Some(service)) = (listener, service) else { continue };
        if listener.routes.is_some() {
            resources.routes.entry(Arc::clone(&service)).or_insert_with(|| Arc::new(everything_to(&service)));
        }
        listener.name = free_name(&listener.name, resources);
        resources.listeners.insert(Arc::clone(&listener.name), Arc::new(listener));
    }
}

/// The service a listener names, when there is one of that name.
fn listened_service(section: &Section<'_>, services: &BTreeSet<String>) -> Option<Arc<str>> {
    let name: String = section.required("service")?;
    if services.contains(&name) {
        return Some(name.into());
    }
    let known = services.iter().map(String::as_str);
    let wanted = match suggest::nearest(&name, known.clone()) {
        Some(meant) => format!("is not under services; did you mean {meant}?"),
        None if services.is_empty() => "is not under services; there are none".to_owned(),
        None => format!("is not under services; there are {}", known.collect::<Vec<_>>().join(", ")),
    };
    section.problem("service", wanted);
    None
}

/// The route table of a listener that has one service.
fn everything_to(service: &Arc<str>) -> RouteTable {
    let host = VirtualHost { name: Arc::clone(service), domains: vec!["*".into()], cluster: Arc::clone(service) };
    RouteTable { name: Arc::clone(service), hosts: vec![host] }
}

/// A listener is named by its address; where several ask for any free port, the later ones get a number behind it.
fn free_name(address: &Arc<str>, resources: &Resources) -> Arc<str> {
    let mut name = Arc::clone(address);
    for number in 2.. {
        if !resources.listeners.contains_key(&name) {
            break;
        }
        name = format!("{address}#{number}").into();
    }
    name
}
