//! Compose projects that know nothing of Weft, meshed: by `mesh-ctl dev` on the host, by the node example in containers, and by
//! the sidecar example. The containers run this very binary, which is static, out of an empty image.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

#[path = "compose/app.rs"]
mod app; // what runs inside the containers
#[path = "compose/project.rs"]
mod project; // one Compose project

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use mesh_tests::daemon::{Daemon, binary};
use mesh_tests::eventually::{eventually, until};
use mesh_tests::need::{Need, trial};
use project::{Calls, DEADLINE, Image, Project, docker};
use serde_json::Value;

/// One mesh at a time: each takes all containers of the engine.
static ONE: Mutex<()> = Mutex::new(());

/// Of every client, before anything is judged.
const CALLS: usize = 300;

/// Not a word of Weft in it.
const PROJECT: &str = r#"
services:
  web:
    image: ${IMAGE}
    command: [serve]
    expose: ["8080"]
    healthcheck: { test: ["CMD", "/app", "health"], interval: 1s, timeout: 5s, retries: 1 }
  kept:
    image: ${IMAGE}
    command: [call, kept, "http://web:8080"]
    depends_on: [web]
  new:
    image: ${IMAGE}
    command: [call, new, "http://web:8080"]
    depends_on: [web]
  early:
    image: ${IMAGE}
    command: [call, kept, "http://web:8080"]
  portless:
    image: ${IMAGE}
    command: [serve]
"#;

/// A mesh over all containers of this host.
struct Dev {
    daemon: Daemon,
    state: tempfile::TempDir,
}

impl Dev {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().display().to_string();
        let daemon = Daemon::start("mesh-ctl", &["dev", "--exposed-by-default", "--no-host", "--state-dir", &folder]);
        daemon.wait_for_log("calls of meshed containers");
        Self { daemon, state }
    }

    /// What `mesh-ctl get` says.
    fn get(&self, resource: &str) -> Option<Vec<Value>> {
        let line = self.daemon.wait_for_log("API http://");
        let server = line.split("API ").nth(1)?.split(',').next()?.to_owned();
        let arguments = ["get", resource, "-o", "json", "--server", &server];
        let output = Command::new(binary("mesh-ctl")).args(arguments).output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        value["items"].as_array().cloned()
    }

    /// The state of the endpoint in a container.
    fn state_of(&self, container: &str) -> Option<String> {
        let endpoints = self.get("endpoints")?;
        let found = endpoints.iter().find(|one| one["id"].as_str().is_some_and(|id| id.starts_with(container)));
        Some(found?["state"].as_str()?.to_owned())
    }

    fn virtual_ip_of(&self, service: &str) -> Option<String> {
        let services = self.get("services")?;
        let found = services.iter().find(|one| one["name"] == service);
        Some(found?["virtual_ip"].as_str()?.to_owned())
    }
}

/// Nobody's call failed, and the replicas that are left share them.
fn nothing_failed(project: &Project, clients: &[&str]) {
    for client in clients {
        let calls = project.calls(client);
        assert!(calls.failures().is_empty(), "{client}: {:?} of {}", calls.failures(), calls.lines.len());
    }
}

/// Kills one replica, stops another, lets a third answer 500, and brings each back: no call fails.
fn replicas_come_and_go(project: &Project, clients: &[&str]) {
    let all = project.replicas("web");
    assert_eq!(all.len(), 3);
    let everybody =
        |replicas: &[String]| clients.iter().for_each(|client| project.until_answered_by(client, CALLS, replicas));
    everybody(&all);

    docker(&["kill", &all[0]]);
    everybody(&all[1..]);
    docker(&["start", &all[0]]);
    everybody(&all);

    docker(&["stop", &all[1]]);
    everybody(&[all[0].clone(), all[2].clone()]);
    docker(&["start", &all[1]]);
    everybody(&all);

    let address = address_of(&all[2]);
    docker(&["exec", &all[2], "/app", "get", "http://127.0.0.1:8080", "/fail"]);
    everybody(&all[..2]);
    // It still answers who dials it as such, with what it has to say.
    let asked = Command::new("docker").args(["exec", &all[0], "/app", "get", &address, "/"]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).starts_with("FAILED 500"), "{asked:?}");
    nothing_failed(project, clients);
}

/// Those that call before anybody is there: a name leads to a container's address long before it listens. On a machine without a core
/// to spare one of them may still be answered before anything can be done.
fn early_callers_are_balanced(project: &Project) {
    let all: BTreeSet<String> = project.replicas("web").into_iter().collect();
    eventually("most of those that called too early are balanced", DEADLINE, || {
        let answered = |client: &String| Calls::of(client).last(CALLS).answers().into_keys().collect::<BTreeSet<_>>();
        let found: Vec<_> = project.replicas("early").iter().map(answered).collect();
        if found.iter().filter(|by| **by == all).count() >= 2 { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn address_of(container: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    format!("http://{}:8080", docker(&["inspect", "-f", format, container]).trim())
}

fn a_project_that_knows_nothing_is_meshed() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let image = Image::of_this_binary();
    let mut dev = Dev::start();
    let project = Project::of("plain", PROJECT).with("IMAGE", &image.name);
    project.compose(&["up", "-d", "--scale", "web=3", "--scale", "early=3"]);
    early_callers_are_balanced(&project);
    let clients = ["kept", "new"];
    replicas_come_and_go(&project, &clients);

    // Whoever dials one replica as such gets that replica.
    let replicas = project.replicas("web");
    let address = address_of(&replicas[1]);
    for _ in 0..10 {
        let answer = docker(&["exec", &project.replica("kept"), "/app", "get", &address, "/"]);
        assert_eq!(answer.trim(), format!("200 {}", replicas[1]));
    }

    // A service that names no port has whichever is dialled.
    let portless = dev.virtual_ip_of("portless").unwrap();
    let get = |port: u16| {
        docker(&["exec", &project.replica("kept"), "/app", "get", &format!("http://{portless}:{port}"), "/"])
    };
    assert_eq!(get(8080).trim(), format!("200 {}", project.replica("portless")));

    // An unhealthy one gets none.
    docker(&["start", &replicas[2]]);
    docker(&["restart", "-t", "0", &replicas[2]]);
    clients.iter().for_each(|client| project.until_answered_by(client, CALLS, &replicas));
    docker(&["exec", &replicas[0], "/app", "get", "http://127.0.0.1:8080", "/feel-ill"]);
    eventually("it is known to be ill", DEADLINE, || match dev.state_of(&replicas[0]) {
        Some(state) if state == "not-ready" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    clients.iter().for_each(|client| project.until_answered_by(client, CALLS, &replicas[1..]));
    nothing_failed(&project, &clients);

    // Killed, the mesh leaves direct calls behind.
    dev.daemon.kill();
    let killed = Instant::now();
    let before = project.calls("new").lines.len();
    until("direct calls", Duration::from_secs(2), || {
        let calls = project.calls("new");
        calls.lines.len() > before + 10 && calls.last(5).failures().is_empty()
    });
    println!("direct {:?} after the kill", killed.elapsed());

    // What it left in network namespaces goes on demand.
    let client = namespace_of(&project.replica("kept"));
    assert!(routes(&client).contains("240.240."), "{}", routes(&client));
    let folder = dev.state.path().display().to_string();
    // Of this engine's containers there may be some of somebody else's mesh.
    let arguments = ["cleanup", "--yes", "--docker", "none", "--state-dir", &folder];
    let cleaned = Command::new(binary("mesh-ctl")).args(arguments).output().unwrap();
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains(&client), "{cleaned:?}");
    assert!(!routes(&client).contains("240.240."), "{}", routes(&client));
}

/// The engine's file of a container's network namespace.
fn namespace_of(container: &str) -> String {
    docker(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", container]).trim().replace("/var/run", "/run")
}

fn routes(namespace: &str) -> String {
    let enter = format!("--net={namespace}");
    let shown = Command::new("nsenter").args([&enter, "ip", "route", "show", "table", "local"]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

/// Its callers, in place of the example's.
const SIDECAR: &str = r#"
services:
  app:
    command: [call, kept, "http://web:8080"]
  new:
    image: ${APP_IMAGE}
    command: [call, new, "http://web:8080"]
    network_mode: "service:proxy"
    labels: { mesh.enable: "true" }
    depends_on: [web]
  web:
    command: [serve]
"#;

fn the_sidecar_example() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (app, discovery, proxy) = (Image::of_this_binary(), Image::of_ours("discovery"), Image::of_ours("proxy"));
    let project = Project::of_example("sidecar", SIDECAR).with("APP_IMAGE", &app.name).with("WEB_IMAGE", &app.name);
    let project = project.with("DISCOVERY_IMAGE", &discovery.name).with("PROXY_IMAGE", &proxy.name);
    project.compose(&["up", "-d", "--scale", "web=3"]);
    replicas_come_and_go(&project, &["app", "new"]);

    // Discovery is no part of a call.
    docker(&["kill", &project.replica("discovery")]);
    let replicas = project.replicas("web");
    docker(&["kill", &replicas[0]]);
    for client in ["app", "new"] {
        let before = project.calls(client).lines.len();
        until("calls without discovery", DEADLINE, || project.calls(client).lines.len() > before + CALLS);
    }
    nothing_failed(&project, &["app", "new"]);
}

fn the_node_example() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (app, discovery, proxy) = (Image::of_this_binary(), Image::of_ours("discovery"), Image::of_ours("proxy"));
    // The ports of this host may be somebody's.
    let [api, xds, dns, admin] = std::array::from_fn(|_| free_port());
    let ports = format!(
        "services:\n  discovery:\n    command: [--api-listen=127.0.0.1:{api}, --xds-listen=127.0.0.1:{xds}, \
         --dns-listen=127.0.0.1:{dns}]\n  proxy:\n    command: [--capture, --xds=127.0.0.1:{xds}, --state-dir=/var/lib/mesh, \
         --admin-listen=127.0.0.1:{admin}]\n"
    );
    let node = Project::of_example("node", &ports).with("MESH_EXPOSED_BY_DEFAULT", "true");
    let node = node.with("DISCOVERY_IMAGE", &discovery.name).with("PROXY_IMAGE", &proxy.name);
    let _shared = SharedRoot::make();
    node.compose(&["up", "-d"]);
    until("a ready proxy", DEADLINE, || ready(admin));
    let project = Project::of("meshed", PROJECT).with("IMAGE", &app.name);
    project.compose(&["up", "-d", "--scale", "web=3"]);
    replicas_come_and_go(&project, &["kept", "new"]);
}

/// The host's `/` as a shared mount, which systemd makes of it; as it was, afterwards.
struct SharedRoot {
    was_private: bool,
}

impl SharedRoot {
    fn make() -> Self {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let was_private = !root.contains(" shared:");
        if was_private {
            println!("/ is made a shared mount for this test");
            Self::set("--make-shared");
        }
        Self { was_private }
    }

    fn set(how: &str) {
        assert!(Command::new("mount").args([how, "/"]).status().unwrap().success(), "mount {how} /");
    }
}

impl Drop for SharedRoot {
    fn drop(&mut self) {
        if self.was_private {
            Self::set("--make-private");
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn ready(admin: u16) -> bool {
    let url = format!("http://127.0.0.1:{admin}/readyz");
    Command::new("curl").args(["-sf", &url]).output().is_ok_and(|output| output.status.success())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = app::run(&words) {
        return code;
    }
    let needs = [Need::Root, Need::Docker, Need::Program("docker-compose")];
    let trials = vec![
        trial("a_project_that_knows_nothing_is_meshed", &needs, a_project_that_knows_nothing_is_meshed),
        trial("the_sidecar_example", &needs, the_sidecar_example),
        trial("the_node_example", &needs, the_node_example),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
