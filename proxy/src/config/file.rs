//! The proxy's file, read key by key: `workers`, `admin`, `access_log`, `listeners`; services are in [`super::service`].
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::problem::Problems;
use mesh_core::config::section::{Bytes, Document, Section};
use mesh_core::config::suggest;
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{Bind, Limits, Listener, Resources, RouteTable, TlsServer, VirtualHost};

use super::{ADMIN_DEFAULT, Config, service};

/// More workers than any machine has cores are a mistake.
const WORKERS_MAX: u16 = 1024;

/// Request heads below the smaller are refused in practice, above the larger they are an attack.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=16 << 20;

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
    let workers: u16 = root.optional("workers")?;
    if !(1..=WORKERS_MAX).contains(&workers) {
        root.problem(
            "workers",
            format!("a number from 1 to {WORKERS_MAX} is wanted; without the key there is one a core"),
        );
    }
    Some(workers.into())
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
        let listener = read_listener(&section, listen, service.as_deref(), locate);
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

fn read_listener(
    section: &Section<'_>,
    listen: Option<SocketAddr>,
    service: Option<&str>,
    locate: &Locate<'_>,
) -> Option<Listener> {
    let words = [("http", ListenProtocol::Http), ("tcp", ListenProtocol::Tcp), ("auto", ListenProtocol::Auto)];
    let protocol = section.word("protocol", &words).unwrap_or_default();
    let tls = read_tls(section, locate);
    let limits = read_limits(section);
    let (listen, service) = (listen?, service?);
    Some(Listener {
        name: listen.to_string().into(),
        bind: Bind::Address(listen),
        protocol,
        routes: (protocol != ListenProtocol::Tcp).then(|| service.into()),
        tcp_cluster: (protocol != ListenProtocol::Http).then(|| service.into()),
        tls,
        limits,
    })
}

fn read_tls(listener: &Section<'_>, locate: &Locate<'_>) -> Option<TlsServer> {
    let section = listener.section("tls")?;
    let located = |key: &str, path: PathBuf| match locate(&path) {
        Ok(path) => Some(path),
        Err(why) => {
            section.problem(key, format!("{why}; the path of a PEM file is wanted"));
            None
        }
    };
    let certificate = section.required("certificate").and_then(|path| located("certificate", path));
    let key = section.required("key").and_then(|path| located("key", path));
    let client_ca = section.optional("client_ca").and_then(|path| located("client_ca", path));
    section.finish();
    Some(TlsServer { certificate: certificate?, key: key?, client_ca })
}

fn read_limits(listener: &Section<'_>) -> Limits {
    let defaults = Limits::default();
    let Some(section) = listener.section("limits") else { return defaults };
    let time = |key: &str, default: Duration| match section.optional(key) {
        Some(Duration::ZERO) => {
            section.problem(key, "more than 0s is wanted: without a limit, idle clients would pile up");
            default
        }
        time => time.unwrap_or(default),
    };
    let limits = Limits {
        header_timeout: time("header_timeout", defaults.header_timeout),
        body_idle_timeout: time("body_idle_timeout", defaults.body_idle_timeout),
        idle_timeout: time("idle_timeout", defaults.idle_timeout),
        header_bytes_max: header_bytes(&section).unwrap_or(defaults.header_bytes_max),
    };
    section.finish();
    limits
}

fn header_bytes(limits: &Section<'_>) -> Option<usize> {
    let Bytes(bytes) = limits.optional("max_header_bytes")?;
    if !HEADER_BYTES.contains(&bytes) {
        limits.problem("max_header_bytes", "a size from 1KiB to 16MiB is wanted");
    }
    usize::try_from(bytes).ok()
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
