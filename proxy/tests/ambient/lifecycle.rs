//! Captured, given back, gone.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::EndpointState;
use mesh_proxy::ambient::{CaptureOptions, Containers};
use mesh_proxy::app::Drained;

use super::told::{Proxy, Told, VIRTUAL};
use super::world::{Namespace, World, eventually, run};

fn one_endpoint() -> Told {
    Told::default().endpoint(11, EndpointState::Ready)
}

#[test]
fn a_namespace_is_captured_once_and_others_are_left_alone() {
    let Some(world) = World::new() else { return };
    let (app, web, stranger) = (world.namespace(2), world.namespace(11), world.namespace(3));
    web.serve_http(8080, "one");
    // Two containers in one namespace, known by two paths; and one that is not there.
    let told =
        one_endpoint().workload("client.shop", &app).workload_at("helper.shop", &format!("/var{}", app.path()), 2);
    let told = told.workload_at("gone.shop", "/run/netns/mesh-none", 3);
    let before = stranger.traces();
    let proxy = Proxy::capturing(&told);
    eventually("it is captured", || (proxy.captured() == 1.0).then_some(()));
    assert_eq!(app.get(&format!("{VIRTUAL}:8080"), "web").unwrap(), "one 10.78.0.2");
    assert_eq!(proxy.metric("mesh_requests_total", &["client.shop"]), 1.0, "the one that started first gives its name");
    assert_eq!(stranger.traces(), before);
    assert_eq!(stranger.get("10.78.0.11:8080", "web").unwrap(), "one 10.78.0.3");
    assert_eq!(proxy.metric("mesh_capture_failures_total", &[]), 0.0);

    // No longer meshed: as it was.
    proxy.told.send_replace(one_endpoint().resources());
    eventually("it is given back", || (proxy.captured() == 0.0 && app.traces().is_empty()).then_some(()));
    assert_eq!(app.get("10.78.0.11:8080", "web").unwrap(), "one 10.78.0.2");
    // And meshed again.
    proxy.told.send_replace(told.resources());
    eventually("it is captured again", || app.get(&format!("{VIRTUAL}:8080"), "web").ok());
}

#[test]
fn when_it_ends_requests_finish_and_nothing_stays_behind() {
    let Some(world) = World::new() else { return };
    let (app, web) = (world.namespace(2), world.namespace(11));
    web.serve_http(8080, "one");
    web.serve_lines(9000, "one");
    let proxy = Proxy::capturing(&one_endpoint().workload("client.shop", &app));
    let virtual_http = format!("{VIRTUAL}:8080");
    assert_eq!(app.get(&virtual_http, "web").unwrap(), "one 10.78.0.2");
    let mut kept = app.client(&virtual_http);
    kept.get("web").unwrap();
    assert_eq!(proxy.end(), Drained::Whole);
    assert_eq!(app.traces(), "", "rules and routes are gone");
    assert!(kept.get("web").is_err());
    assert_eq!(app.get("10.78.0.11:8080", "web").unwrap(), "one 10.78.0.2", "direct");
}

#[test]
fn connections_that_are_older_are_left_alone_and_counted() {
    let Some(world) = World::new() else { return };
    let (app, web) = (world.namespace(2), world.namespace(11));
    web.serve_http(8080, "one");
    let mut older = app.client("10.78.0.11:8080");
    older.get("web").unwrap();
    let proxy = Proxy::capturing(&one_endpoint().workload("client.shop", &app));
    eventually("it is counted", || (proxy.metric("mesh_capture_older_connections", &[]) == 1.0).then_some(()));
    assert_eq!(older.get("web").unwrap(), "one 10.78.0.2");
    assert_eq!(proxy.metric("mesh_requests_total", &[]), 0.0);
}

/// The file an engine would bind a namespace to.
struct Sandbox {
    path: String,
}

impl Sandbox {
    fn of(folder: &Path, namespace: &Namespace) -> Self {
        let path = folder.join(&namespace.name).to_string_lossy().into_owned();
        std::fs::write(&path, "").unwrap();
        run("mount", &["--bind", &namespace.path(), &path]);
        Self { path }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // As an engine does it: whoever has it open keeps the namespace, and the file is free at once.
        let _ = std::process::Command::new("umount").args(["--lazy", &self.path]).status();
    }
}

fn early(folder: &Path) -> CaptureOptions {
    let containers = Containers { folder: folder.to_owned(), early: true };
    CaptureOptions { containers: Some(containers), ..CaptureOptions::default() }
}

#[test]
fn one_that_appears_is_captured_before_it_is_named_and_given_back_if_it_never_is() {
    let Some(world) = World::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (app, other, web) = (world.namespace(2), world.namespace(3), world.namespace(11));
    web.serve_http(8080, "one");
    let proxy = Proxy::start(one_endpoint().resources(), early(folder.path()));
    let sandboxes = [&app, &other].map(|namespace| Sandbox::of(folder.path(), namespace));
    eventually("both are captured", || (proxy.captured() == 2.0).then_some(()));
    assert_eq!(app.get(&format!("{VIRTUAL}:8080"), "web").unwrap_or_default(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(app.get("10.78.0.11:8080", "web").unwrap(), "one 10.78.0.2", "its network is told by what it dialled");
    assert_eq!(proxy.metric("mesh_requests_total", &["unknown"]), 2.0);
    // Whoever has no name for long is not waited for: half a second each, otherwise.
    eventually("calls of the unnamed take no longer than others", || {
        let began = Instant::now();
        other.get("10.78.0.11:8080", "web").unwrap();
        (began.elapsed() < Duration::from_millis(250) && proxy.captured() == 2.0).then_some(())
    });

    proxy.told.send_replace(one_endpoint().workload_at("client.shop", &sandboxes[0].path, 1).resources());
    eventually("it has its name", || {
        app.get("10.78.0.11:8080", "web").unwrap();
        (proxy.metric("mesh_requests_total", &["client.shop"]) > 0.0).then_some(())
    });
    eventually("the other is given back", || (proxy.captured() == 1.0 && other.traces().is_empty()).then_some(()));
    assert_eq!(app.get(&format!("{VIRTUAL}:8080"), "web").unwrap(), "one 10.78.0.2");
}

#[test]
fn what_belongs_to_a_namespace_ends_with_it() {
    let Some(world) = World::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (app, web) = (world.namespace(2), world.namespace(11));
    web.serve_lines(9000, "one");
    let sandbox = Sandbox::of(folder.path(), &app);
    let told = one_endpoint().workload_at("client.shop", &sandbox.path, 1);
    let proxy = Proxy::start(
        told.resources(),
        CaptureOptions {
            containers: Some(Containers { folder: folder.path().to_owned(), early: false }),
            ..CaptureOptions::default()
        },
    );
    assert_eq!(app.ask("10.78.0.11:9000").unwrap(), "one 10.78.0.2");
    let mut held = app.connect("10.78.0.11:9000").unwrap();
    drop(sandbox);
    eventually("it is let go", || (proxy.captured() == 0.0).then_some(()));
    let ended = held.read(&mut [0; 1]);
    assert!(ended.as_ref().is_ok_and(|read| *read == 0) || ended.is_err(), "{ended:?}");
}
