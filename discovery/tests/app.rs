//! The real `App`, and the real binary, on free ports: what is told, what survives, and how it ends.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

#[path = "app/engine.rs"]
mod engine; // starts beside an engine, or a file, that says nothing
#[path = "app/users.rs"]
mod users; // who may ask for what

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::model::endpoint::{CaptureMode, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::task::drain::{self, Drainer};
use mesh_discovery::admin::ejections::{EjectionReports, Report, ReportedEjection};
use mesh_discovery::app::{App, AppError};
use mesh_discovery::config::{Config, State};
use mesh_discovery::provider::{Observation, ObservationSender, ObservedEndpoint, ReadySource};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A discovery at work.
struct Running {
    api: SocketAddr,
    dns: SocketAddr,
    observations: ObservationSender,
    ejections: EjectionReports,
    drainer: Drainer,
    ended: JoinHandle<Result<(), AppError>>,
}

async fn start(config: Config, fed_by_test: &[&'static str]) -> Running {
    let (drainer, drain) = drain::channel();
    let app = App::bind(config, fed_by_test, drain).await.unwrap();
    let (api, dns, observations) = (app.addresses().api, app.addresses().dns, app.observations());
    let ejections = app.ejections();
    Running { api, dns, observations, ejections, drainer, ended: tokio::spawn(app.run()) }
}

impl Running {
    async fn get(&self, path: &str) -> (StatusCode, String) {
        send(self.api, Method::GET, path, &[], "").await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["apiVersion"], "mesh/v1");
        value
    }

    /// The number of the next snapshot beyond `after`.
    async fn watch(&self, after: u64) -> u64 {
        let answer = timeout(PATIENCE, self.json(&format!("/v1/watch?after={after}"))).await.expect("a newer snapshot");
        let number = answer["snapshot"].as_u64().unwrap();
        assert!(number > after, "{answer} is not beyond {after}");
        number
    }

    async fn stop(self) {
        drop(self.observations);
        self.drainer.start();
        timeout(PATIENCE, self.ended).await.expect("it ends").unwrap().unwrap();
    }
}

async fn send(
    api: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let mut request = Request::builder().method(method).uri(format!("http://{api}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn of_file(path: &Path) -> Config {
    Config { file: Some(path.to_owned()), ..Config::ephemeral() }
}

const SHOP: &str = r#"
services:
  - {name: web, namespace: shop, ports: [{name: http, port: 80, protocol: http}],
     endpoints: [{address: "10.0.0.5:8080", weight: 3, zone: a}, {address: "10.0.0.6:8080"}]}
  - {name: db, ports: [{port: 5432, protocol: tcp}], endpoints: [{address: "10.0.0.7:5432"}]}
"#;

fn observed(unit: &str, ready: ReadySource, address: SocketAddr) -> ObservedEndpoint {
    let name = |text| Name::new(text).unwrap();
    let endpoint = Endpoint {
        id: EndpointId::new(unit, 1),
        name: unit.into(),
        service: ServiceId::new(name("web"), name("shop")),
        addresses: vec![NetworkAddress { network: "n".into(), address: address.ip() }],
        ports: [(name("http"), address.port())].into(),
        weight: 100,
        priority: 0,
        zone: None,
        version: Some("1.2".into()),
        state: if ready == ReadySource::Stated { EndpointState::Ready } else { EndpointState::NotReady },
        reason: "runs".into(),
        publish_not_ready: false,
        capture: CaptureMode::Auto,
        own_names: Vec::new(),
        aliases: Vec::new(),
    };
    ObservedEndpoint { endpoint, ready }
}

#[tokio::test]
async fn each_path_tells_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, SHOP).unwrap();
    let running = start(of_file(&path), &[]).await;
    running.watch(0).await;
    let services = running.json("/v1/services").await;
    let web = &services["items"][1];
    assert_eq!((&web["name"], &web["namespace"]), (&"web".into(), &"shop".into()));
    assert!(web["virtual_ip"].as_str().unwrap().starts_with("240.240."));
    assert_eq!(web["ports"], serde_json::json!([{"name": "http", "port": 80, "protocol": "http"}]));
    let endpoints = running.json("/v1/endpoints?service=web&namespace=shop").await;
    let expected = serde_json::json!([
        {"id": "10.0.0.5:8080@0", "name": "10.0.0.5:8080", "service": "web", "namespace": "shop", "address": "10.0.0.5:8080",
         "port": "http", "weight": 3, "priority": 0, "state": "ready", "reason": format!("listed in {}", path.display()),
         "networks": [{"network": "", "address": "10.0.0.5"}], "zone": "a"},
        {"id": "10.0.0.6:8080@0", "name": "10.0.0.6:8080", "service": "web", "namespace": "shop", "address": "10.0.0.6:8080",
         "port": "http", "weight": 100, "priority": 0, "state": "ready", "reason": format!("listed in {}", path.display()),
         "networks": [{"network": "", "address": "10.0.0.6"}]},
    ]);
    assert_eq!(endpoints["items"], expected);
    assert_eq!(running.json("/v1/endpoints?namespace=default").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(running.json("/v1/services?service=none").await["items"], serde_json::json!([]));
    assert_eq!(running.json("/v1/conditions").await["items"], serde_json::json!([]));
    let whole = running.json("/v1/snapshot").await;
    assert_eq!(whole["items"][0]["services"], services["items"]);
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(running.get(path).await, (StatusCode::OK, "ok\n".to_owned()), "{path}");
    }
    assert!(running.get("/readyz?verbose").await.1.contains("snapshot 1: 2 services, 3 endpoints"));
    let (status, text) = running.get("/v1/service").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains(r#""/v1/services""#), "{text}");
    let (status, text) = running.get("/v1/services?namespaces=shop").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("namespace=NAME"), "{text}");
    assert_eq!(send(running.api, Method::POST, "/v1/services", &[], "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    running.stop().await;
}

#[tokio::test]
async fn a_changed_file_becomes_a_new_snapshot_and_a_bad_one_a_condition() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, SHOP).unwrap();
    let running = start(of_file(&path), &[]).await;
    let first = running.watch(0).await;
    fs::write(&path, SHOP.replace("weight: 3", "weight: 5")).unwrap();
    let second = running.watch(first).await;
    assert_eq!(running.json("/v1/endpoints?service=web").await["items"][0]["weight"], 5);
    fs::write(&path, SHOP.replace("weight", "wait")).unwrap();
    running.watch(second).await;
    let condition = &running.json("/v1/conditions").await["items"][0];
    assert_eq!(condition["type"], "InvalidFile");
    assert_eq!(condition["object"], format!("file/{}", path.display()));
    assert_eq!(running.json("/v1/endpoints?service=web").await["items"][0]["weight"], 5, "the last good one stays");
    assert!(running.get("/metrics").await.1.contains(r#"mesh_discovery_conditions{type="InvalidFile"} 1"#));
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_told_before_everyone_spoke() {
    let running = start(Config::ephemeral(), &["process"]).await;
    let (status, text) = running.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    // Perhaps also for what was asked for, which the store says.
    assert!(text.starts_with("not ready: waits for process, waits for the first snapshot"), "{text}");
    assert_eq!(running.get("/livez").await.0, StatusCode::OK);
    assert_eq!(running.json("/v1/services").await["snapshot"], 0);
    running.observations.send(("process", Observation::default())).await.unwrap();
    assert_eq!(running.watch(0).await, 1);
    assert_eq!(running.get("/readyz").await.0, StatusCode::OK);
    running.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_ready_with_its_first_accept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let running = start(Config::ephemeral(), &["process"]).await;
    let endpoints = vec![observed("pid-1", ReadySource::FirstAccept, address)];
    running.observations.send(("process", Observation { endpoints, ..Observation::default() })).await.unwrap();
    let number = running.watch(0).await;
    assert_eq!(running.json("/v1/endpoints").await["items"][0]["state"], "not-ready");
    let _listener = TcpListener::bind(address).await.unwrap();
    running.watch(number).await;
    assert_eq!(running.json("/v1/endpoints").await["items"][0]["state"], "ready");
    running.stop().await;
}

#[tokio::test]
async fn what_proxies_took_out_is_shown() {
    let running = start(Config::ephemeral(), &["process"]).await;
    let endpoints = vec![observed("c1", ReadySource::Stated, "10.0.0.1:80".parse().unwrap())];
    running.observations.send(("process", Observation { endpoints, ..Observation::default() })).await.unwrap();
    running.watch(0).await;
    assert_eq!(running.json("/v1/endpoints").await["items"][0]["state"], "ready");
    let reported =
        ReportedEjection { endpoint: EndpointId::new("c1", 1), for_ms: 30_000, reason: "5 consecutive 5xx".into() };
    running.ejections.replace("node-1", Report { ejections: vec![reported] }, Instant::now()).unwrap();
    let item = running.json("/v1/endpoints").await["items"][0].clone();
    assert_eq!(item["state"], "ejected");
    let reason = item["reason"].as_str().unwrap();
    assert!(reason.starts_with("5 consecutive 5xx (taken out by node-1 for "), "{reason}");
    assert!(running.get("/metrics").await.1.contains(r#"mesh_discovery_endpoints{state="ejected"} 1"#));
    running.ejections.replace("node-1", Report::default(), Instant::now()).unwrap();
    assert_eq!(running.json("/v1/endpoints").await["items"][0]["state"], "ready");
    running.stop().await;
}

#[tokio::test]
async fn a_page_in_a_browser_changes_nothing() {
    let running = start(Config::ephemeral(), &[]).await;
    let json = ("content-type", "application/json");
    for from in [("origin", "http://evil.example"), ("host", "evil.example:14000")] {
        let (status, text) = send(running.api, Method::PUT, "/v1/projects/shop", &[json, from], "{}").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{from:?}: {text}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_virtual_ips_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    // In a range this small services get in each other's way, so that only the store can tell who was first.
    let config = || Config {
        state: State::Folder(folder.path().join("state")),
        vip_range: "10.9.0.0/29".parse().unwrap(),
        ..of_file(&path)
    };
    let services = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| format!("{{name: {name}, ports: [{{port: 80}}]}}")).collect();
        fs::write(&path, format!("services: [{}]", list.join(", "))).unwrap();
    };
    let virtual_ips = async |running: &Running| {
        let items = running.json("/v1/services").await["items"].as_array().unwrap().clone();
        items.iter().map(|item| (item["name"].to_string(), item["virtual_ip"].to_string())).collect::<BTreeSet<_>>()
    };
    services(&["e", "f"]);
    let running = start(config(), &[]).await;
    let number = running.watch(0).await;
    services(&["a", "b", "c", "d", "e", "f"]);
    let number = running.watch(number).await;
    let before = virtual_ips(&running).await;
    assert_eq!(before.len(), 6);
    running.stop().await;
    let running = start(config(), &[]).await;
    let after = running.watch(0).await;
    assert_eq!(virtual_ips(&running).await, before);
    assert!(after > number, "{after} after {number}");
    running.stop().await;
}

#[tokio::test]
async fn a_taken_address_and_a_taken_state_directory_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::Folder(folder.path().to_owned());
    let running = start(Config { state: state.clone(), ..Config::ephemeral() }, &[]).await;
    let told = async |config: Config| match App::bind(config, &[], drain::channel().1).await {
        Ok(_) => panic!("bound all the same"),
        Err(error) => error.to_string(),
    };
    let text = told(Config { state, ..Config::ephemeral() }).await;
    assert!(text.contains("is in use by another process"), "{text}");
    let text = told(Config { api_listen: running.api, ..Config::ephemeral() }).await;
    assert!(text.starts_with(&format!("--api-listen {} cannot be listened on", running.api)), "{text}");
    running.stop().await;
}

#[tokio::test]
async fn a_drain_ends_long_polls_and_comes_to_an_end() {
    let running = start(Config::ephemeral(), &[]).await;
    running.watch(0).await;
    let api = running.api;
    let polled = tokio::spawn(async move { send(api, Method::GET, "/v1/watch?after=99", &[], "").await });
    let under_way = async {
        while !running.get("/metrics").await.1.contains("mesh_discovery_api_watches 1") {
            tokio::time::sleep(Duration::from_millis(5)).await; // between two looks
        }
    };
    timeout(PATIENCE, under_way).await.expect("the poll is under way");
    let begun = Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "the drain waited for the poll, or for its own time-out");
    let (status, text) = timeout(PATIENCE, polled).await.expect("the poll ended").unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
}

#[tokio::test]
async fn every_metric_family_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, SHOP).unwrap();
    let running = start(of_file(&path), &[]).await;
    running.watch(0).await;
    let (_, text) = running.get("/metrics").await;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect::<Vec<_>>().join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &families).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(families, golden, "a metric was renamed or is new; UPDATE_GOLDEN=1 writes {}", path.display());
    running.stop().await;
}

/// The binary, killed without mercy when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary(state: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-discovery"));
    for listen in ["--api-listen", "--xds-listen", "--dns-listen"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    command
        .args(["--docker", "none", "--state-dir"])
        .arg(state)
        .args(more)
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts it and waits until it has told its address.
fn launch(state: &Path, more: &[&str]) -> (Process, SocketAddr) {
    use std::io::{BufRead, BufReader};
    let mut process = Process(binary(state, more).spawn().unwrap());
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
    let told = lines.by_ref().find_map(|line| Some(line.ok()?.split_once(" api=")?.1.split(' ').next()?.to_owned()));
    // Read on, or it would block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (process, told.expect("it says where its API is").parse().unwrap())
}

async fn first_services(api: SocketAddr) -> Value {
    let (_, text) = send(api, Method::GET, "/v1/watch?after=0", &[], "").await;
    assert!(text.contains("snapshot"), "{text}");
    let (_, text) = send(api, Method::GET, "/v1/services", &[], "").await;
    serde_json::from_str::<Value>(&text).unwrap()["items"].clone()
}

#[tokio::test]
async fn killed_without_warning_it_comes_back_with_the_same_virtual_ips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, SHOP).unwrap();
    let file = ["--file", path.to_str().unwrap(), "--vip-range", "10.9.0.0/29"];
    let (mut process, api) = launch(&folder.path().join("state"), &file);
    let before = first_services(api).await;
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let (_process, api) = launch(&folder.path().join("state"), &file);
    assert_eq!(first_services(api).await, before);
}

#[tokio::test]
async fn a_term_signal_ends_it_well() {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, _) = launch(folder.path(), &[]);
    let pid = nix::unistd::Pid::from_raw(process.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || process.0.wait().unwrap());
    let status = timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn wrong_flags_are_all_told_and_exit_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let output = binary(folder.path(), &["--vip-range", "ten", "--dns-allow", "x"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--vip-range") && text.contains("--dns-allow"), "{text}");
}

#[test]
fn a_damaged_store_is_told_and_exits_with_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("discovery.redb"), vec![7; 5000]).unwrap();
    let output = binary(folder.path(), &[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("discovery.redb is damaged") && text.contains("move it away"), "{text}");
}

#[tokio::test]
async fn two_in_one_process_know_nothing_of_each_other() {
    let (first, second) = (start(Config::ephemeral(), &["process"]).await, start(Config::ephemeral(), &[]).await);
    let endpoints = vec![observed("c1", ReadySource::Stated, "10.0.0.1:80".parse().unwrap())];
    let observation = Observation { endpoints, ..Observation::default() };
    first.observations.send(("process", observation)).await.unwrap();
    first.watch(0).await;
    second.watch(0).await;
    assert_eq!(first.json("/v1/services").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(second.json("/v1/services").await["items"].as_array().unwrap().len(), 0);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn parts_merge_their_own_paths() {
    let (drainer, drain) = drain::channel();
    let mut app = App::bind(Config::ephemeral(), &[], drain).await.unwrap();
    let hits = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = hits.clone();
    let handler = async move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        "done"
    };
    app.merge(
        axum::Router::new().route("/v1/elsewhere", axum::routing::put(handler)),
        vec!["/v1/elsewhere".to_owned()],
    );
    let api = app.addresses().api;
    let ended = tokio::spawn(app.run());
    assert_eq!(send(api, Method::PUT, "/v1/elsewhere", &[], "").await, (StatusCode::OK, "done".to_owned()));
    let foreign = [("origin", "http://evil.example")];
    assert_eq!(send(api, Method::PUT, "/v1/elsewhere", &foreign, "").await.0, StatusCode::FORBIDDEN);
    assert_eq!(hits.load(std::sync::atomic::Ordering::Relaxed), 1, "the guard stands before merged paths too");
    assert!(send(api, Method::GET, "/nothing", &[], "").await.1.contains("/v1/elsewhere"));
    drainer.start();
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
}
