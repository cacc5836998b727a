//! `mesh-ctl` as a person types it, against a mesh on local processes: what it waits for, what it says, how it exits.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_tests::daemon::{Daemon, binary};
use mesh_tests::eventually::until;
use mesh_tests::need::{Need, main as run, trial};
use mesh_tests::peer;
use tempfile::TempDir;

/// Starting and stopping on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// `mesh-ctl dev` without an engine, and a folder for Compose files.
struct World {
    server: String,
    /// Of its DNS server.
    dns: SocketAddr,
    /// Where HTTP clients reach services by name.
    http_proxy: String,
    folder: TempDir,
    _dev: Daemon,
    _one: MutexGuard<'static, ()>,
}

/// One mesh at a time: two that start at once may want the same free port.
static ONE: Mutex<()> = Mutex::new(());

/// What a command said, and its exit code.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for words in words {
            assert!(self.text.contains(words), "{words:?} in {}", self.text);
        }
    }
}

fn said(output: &Output) -> Said {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    Said { code: output.status.code(), text }
}

fn ctl(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(binary("mesh-ctl")).args(arguments).current_dir(folder).output().unwrap();
    said(&output)
}

impl World {
    fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state").display().to_string();
        let dev = Daemon::start("mesh-ctl", &["dev", "--docker", "none", "--no-host", "--state-dir", &state]);
        until("the mesh", DEADLINE, || dev.stderr().contains("Ctrl-C ends it"));
        let told = dev.stderr();
        let server = told.split("API ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
        let after = |words: &str| told.split(words).nth(1).map(|rest| rest.trim_start()).unwrap();
        let dns = after("DNS ").split(',').next().unwrap().parse().unwrap();
        let http_proxy = after("http_proxy=http://").split(';').next().unwrap().to_owned();
        Self { server, dns, http_proxy, folder, _dev: dev, _one: one }
    }

    fn ctl(&self, arguments: &[&str]) -> Said {
        ctl(self.folder.path(), &[&["--server", &self.server], arguments].concat())
    }

    /// A Compose file of project `t`.
    fn file(&self, services: &str) -> PathBuf {
        let path = self.folder.path().join("compose.yaml");
        std::fs::write(&path, format!("name: t\nservices:\n{services}")).unwrap();
        path
    }

    fn replicas(&self) -> Vec<serde_json::Value> {
        let said = self.ctl(&["ps", "-o", "json"]);
        let value: serde_json::Value = serde_json::from_str(&said.text).unwrap_or_default();
        value["items"].as_array().cloned().unwrap_or_default()
    }

    fn dig(&self, name: &str) -> String {
        let (server, port) = (format!("@{}", self.dns.ip()), self.dns.port().to_string());
        let output = peer::output("dig", &["-p", &port, &server, "+tries=1", "+timeout=5", name, "A"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The units of the ready replicas.
    fn ready(&self) -> Vec<String> {
        let ready = self.replicas().into_iter().filter(|replica| replica["ready"] == true);
        ready.map(|replica| replica["unit"].as_str().unwrap().to_owned()).collect()
    }
}

fn up_waits_for_what_the_file_asks_for_now() {
    let world = World::start();
    let up = ["up", "-y", "--runtime", "process", "--wait-timeout", "60s"];
    world.file("  web: { command: [sleep, '600'] }\n");
    world.ctl(&up).expect(0, &["t: all 1 replicas are ready"]);
    let first = world.ready();
    world.file("  web: { command: [sleep, '600'], environment: { A: '2' } }\n");
    world.ctl(&up).expect(0, &["the configuration changed", "t: all 1 replicas are ready"]);
    let second = world.ready();
    assert_eq!(second.len(), 1);
    assert_ne!(first, second, "the old one still runs");

    // What cannot be started takes nothing away.
    world.file("  web: { command: [no-such-program] }\n");
    let broken = ["up", "-y", "--runtime", "process", "--wait-timeout", "3s"];
    world.ctl(&broken).expect(1, &["web: 0 of 1 replicas are ready as the file has them", "no-such-program"]);
    assert_eq!(world.ready(), second, "the good one serves on");
    // Nor does what never becomes ready.
    world.file("  web: { command: [sleep, '600'], healthcheck: { test: 'false', interval: 100ms, retries: 1 } }\n");
    world.ctl(&broken).expect(1, &["web: 0 of 1 replicas are ready as the file has them"]);
    assert_eq!(world.ready(), second, "the good one serves on");
    world.ctl(&["down", "-y", "-p", "t"]).expect(0, &["t: gone"]);
}

fn a_project_on_processes_needs_no_runtime_said_twice() {
    let world = World::start();
    world.file("  web: { command: [sleep, '600'] }\n");
    world.ctl(&["up", "-y", "--runtime", "process"]).expect(0, &["t: all 1 replicas are ready"]);
    world.ctl(&["plan"]).expect(0, &["no changes"]);
    world.ctl(&["plan", "-o", "json"]).expect(0, &["\"apiVersion\": \"mesh/v1\""]);
    world.ctl(&["scale", "web=2"]).expect(0, &["web=2 is asked for"]);
    world.file("  web: { command: [sleep, '600'] }\n  new: { command: [sleep, '600'] }\n");
    world.ctl(&["plan"]).expect(1, &["new is new in it", "--runtime"]);
    world.ctl(&["down", "-y"]).expect(0, &["t: gone"]);
    world.file("  web: { command: [sleep, '600'] }\n");
    world.ctl(&["down", "-y"]).expect(0, &[]);
}

fn without_an_engine_services_are_called_by_name_and_by_virtual_ip() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| folder.path().join(name).display().to_string();
    let start = |name: &str| Daemon::start("mesh-ctl", &["dev", "--docker", "none", "--state-dir", &state(name)]);
    // At once: each looks for free ports while the other does.
    let (first, second) = (start("first"), start("second"));
    let told = |dev: &Daemon| {
        until("the mesh", DEADLINE, || dev.stderr().contains("Ctrl-C ends it"));
        dev.stderr()
    };
    let between = |text: &str, before: &str, after: &[char]| {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("{before:?} in {text}"));
        rest.split(after).next().unwrap().to_owned()
    };
    let servers = [&first, &second].map(|dev| between(&told(dev), "API ", &[',']));
    assert_ne!(servers[0], servers[1]);
    let moved = servers.iter().position(|server| !server.ends_with(":14000")).expect("one port is one mesh's");
    let text = told([&first, &second][moved]);
    let advice = format!("Port 14000 is taken: other commands need --server {0}, or MESH_SERVER={0}", servers[moved]);
    assert!(text.contains(&advice), "{advice:?} in {text}");
    let http_proxies = [&first, &second].map(|dev| between(&told(dev), "http_proxy=http://", &[';']));
    assert_ne!(http_proxies[0], http_proxies[1]);

    // Names of virtual IPs that are nobody else's.
    let project = format!("dev{}", std::process::id());
    let shop = binary("mesh-ctl").display().to_string();
    let file = format!(
        "name: {project}\nservices: {{ web: {{ command: [\"{shop}\", shop-service, api], expose: [\"8080\"] }} }}"
    );
    std::fs::write(folder.path().join("compose.yaml"), file).unwrap();
    let server = ["--server", &servers[moved]];
    let up = ctl(folder.path(), &[&server[..], &["up", "-y", "--runtime", "process"]].concat());
    up.expect(0, &["all 1 replicas are ready"]);
    let services = ctl(folder.path(), &[&server[..], &["get", "services", "-o", "json"]].concat());
    let services: serde_json::Value = serde_json::from_str(&services.text).unwrap();
    let virtual_ip = services["items"][0]["virtual_ip"].as_str().unwrap().to_owned();
    let curl = |url: &str, proxy: &str| {
        let mut curl = Command::new("curl");
        let output = curl.args(["--silent", "--max-time", "10", "--proxy", proxy, url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let proxy = format!("http://{}", http_proxies[moved]);
    until("a call by name", DEADLINE, || curl("http://web:8080/", &proxy).starts_with("api="));
    until("a call by virtual IP", DEADLINE, || curl(&format!("http://{virtual_ip}:8080/"), "").starts_with("api="));
    let ps = ctl(folder.path(), &[&server[..], &["ps", "-o", "json"]].concat());
    let ps: serde_json::Value = serde_json::from_str(&ps.text).unwrap();
    let pid = ps["items"][0]["unit"].as_str().unwrap().split('-').nth(1).unwrap().to_owned();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.contains(&format!("http_proxy={proxy}")), "{environment}");
    ctl(folder.path(), &[&server[..], &["down", "-y"]].concat()).expect(0, &["gone"]);
}

/// A service of the shop that answers by itself.
fn serving(name: &str, more: &str) -> String {
    let program = binary("mesh-ctl").display().to_string();
    format!("  {name}: {{ command: [{program:?}, shop-service, payments], expose: [8080]{more} }}\n")
}

fn why_says_who_is_not_known_and_what_the_call_gets() {
    let world = World::start();
    world.file(&(serving("web", "") + "  caller: { command: [sleep, '600'], expose: [9090], scale: 0 }\n"));
    world.ctl(&["up", "-y", "--runtime", "process"]).expect(0, &["t: all 1 replicas are ready"]);
    world.ctl(&["why", "caller", "web"]).expect(0, &["taken", "The call gets the answer of the one endpoint"]);
    world.ctl(&["why", "host", "web.t"]).expect(0, &["host calls web.t"]);
    world.ctl(&["why", "calelr", "web"]).expect(1, &["the caller is not known", "did you mean caller?"]);
    world.ctl(&["why", "nobody-at-all", "web"]).expect(1, &["the caller is not known", "mesh-ctl get services"]);
    world.ctl(&["why", "caller", "wbe"]).expect(1, &["NR: nobody is called wbe", "did you mean web?"]);
    let words = "503 UH (a closed connection where it is no HTTP): outbound|9090||caller.t.svc.mesh.internal: 0 endpoints known";
    world.ctl(&["why", "web", "caller"]).expect(0, &[words]);
    let unseen = world.ctl(&["why", "caller", "web", "--proxy", "http://127.0.0.1:1"]);
    unseen.expect(
        0,
        &["--proxy or MESH_PROXY_ADMIN", "MESH_ADMIN_LISTEN", "Where a proxy carries it, the call gets the answer"],
    );
    assert!(!unseen.text.contains("MESH_SERVER"), "{}", unseen.text);
    world.ctl(&["down", "-y", "-p", "t"]).expect(0, &["t: gone"]);
}

fn a_service_scaled_to_0_still_exists() {
    let world = World::start();
    world.file(&serving("web", ""));
    world.ctl(&["up", "-y", "--runtime", "process"]).expect(0, &["t: all 1 replicas are ready"]);
    let web = "web.t.svc.mesh.internal";
    let address = |answer: &str| {
        let line = answer.lines().find(|line| line.starts_with(web)).map(str::to_owned);
        line.and_then(|line| line.split_whitespace().last().map(str::to_owned))
    };
    let before = address(&world.dig(web));
    assert!(before.is_some());
    world.ctl(&["scale", "web=0"]).expect(0, &[]);
    until("nobody", DEADLINE, || world.replicas().is_empty());
    until("no endpoint", DEADLINE, || world.ctl(&["get", "endpoints", "-o", "json"]).text.contains("\"items\": []"));
    assert_eq!(address(&world.dig(web)), before, "the name keeps its virtual IP");
    let tasks = world.dig(&format!("tasks.{web}"));
    assert!(tasks.contains("status: NOERROR") && tasks.contains("ANSWER: 0"), "{tasks}");
    world.ctl(&["why", "host", "web"]).expect(0, &["The call gets 503 UH"]);
    let url = "http://web.t:8080/";
    until("503 UH", DEADLINE, || {
        let said = peer::output("curl", &["-s", "-i", "--max-time", "10", "-x", &world.http_proxy, url]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        text.starts_with("HTTP/1.1 503") && text.contains("no_healthy_upstream")
    });
    world.ctl(&["down", "-y", "-p", "t"]).expect(0, &["t: gone"]);
    until("no such name", DEADLINE, || world.dig(web).contains("status: NXDOMAIN"));
}

fn what_cannot_start_is_shown_and_not_waited_for() {
    let world = World::start();
    let up = ["up", "-y", "--runtime", "process", "--wait-timeout", "1h"];
    world.file("  web: { command: [no-such-program], scale: 2 }\n");
    world.ctl(&up).expect(1, &["waiting does not help", "no-such-program", "0 of 2 replicas are ready"]);
    world.ctl(&["ps"]).expect(0, &["t-web-1", "t-web-2", "not started", "no-such-program"]);
    // Again at once, whatever its back-off.
    world.ctl(&up).expect(1, &["waiting does not help", "no-such-program"]);
    world.file("  web: { command: [sleep, '600'], scale: 2 }\n");
    world.ctl(&up).expect(0, &["t: all 2 replicas are ready"]);
    let said = world.ctl(&["ps"]);
    assert!(!said.text.contains("not started"), "{}", said.text);
    world.ctl(&["down", "-y", "-p", "t"]).expect(0, &["t: gone"]);
}

fn cleanup_touches_nothing_that_is_in_use() {
    let world = World::start();
    let state = world.folder.path().join("state").display().to_string();
    let said = world.ctl(&["cleanup", "-y", "--docker", "none", "--state-dir", &state]);
    said.expect(1, &["is in use"]);
    assert!(!said.text.contains("is removed"), "{}", said.text);
}

fn wrong_usage_is_2_and_a_closed_reader_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for words in
        [["--server", "foo", "ps"].as_slice(), &["scale", "web"], &["scale", "web=-1"], &["dev", "--docker", "foo"]]
    {
        assert_eq!(ctl(folder.path(), words).code, Some(2), "{words:?}");
    }
    let piped = format!("{} completion bash | head -1", binary("mesh-ctl").display());
    let said = said(&Command::new("sh").args(["-c", &piped]).output().unwrap());
    assert!(!said.text.contains("panicked"), "{}", said.text);
    // Nobody reads stderr, and each has something to say there: it ends as it would, 101 is a panic.
    let (ctl, discovery, proxy) = (binary("mesh-ctl"), binary("mesh-discovery"), binary("mesh-proxy"));
    for (words, code) in [
        (format!("{} --server 127.0.0.1:1 ps", ctl.display()), 1),
        (format!("{} --api-listen x", discovery.display()), 2),
        (format!("{} --config /nonexistent", proxy.display()), 1),
        (format!("MESH_STATE_DIR=/proc/nowhere {} --docker none", discovery.display()), 1),
    ] {
        // The reader is gone before the writer begins.
        let script = format!("mkfifo fifo 2>&-; exec 8<>fifo 9>fifo 8<&-; {words} 2>&9 9>&-");
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}");
    }
}

fn main() {
    run(vec![
        trial("up_waits_for_what_the_file_asks_for_now", &[], up_waits_for_what_the_file_asks_for_now),
        trial(
            "a_project_on_processes_needs_no_runtime_said_twice",
            &[],
            a_project_on_processes_needs_no_runtime_said_twice,
        ),
        trial(
            "without_an_engine_services_are_called_by_name_and_by_virtual_ip",
            &[Need::Program("curl")],
            without_an_engine_services_are_called_by_name_and_by_virtual_ip,
        ),
        trial(
            "why_says_who_is_not_known_and_what_the_call_gets",
            &[],
            why_says_who_is_not_known_and_what_the_call_gets,
        ),
        trial(
            "a_service_scaled_to_0_still_exists",
            &[Need::Program("dig"), Need::Program("curl")],
            a_service_scaled_to_0_still_exists,
        ),
        trial("what_cannot_start_is_shown_and_not_waited_for", &[], what_cannot_start_is_shown_and_not_waited_for),
        trial("cleanup_touches_nothing_that_is_in_use", &[], cleanup_touches_nothing_that_is_in_use),
        trial("wrong_usage_is_2_and_a_closed_reader_no_panic", &[], wrong_usage_is_2_and_a_closed_reader_no_panic),
    ]);
}
