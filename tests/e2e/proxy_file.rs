//! The proxy from a file, as a user starts it, against real clients and services: curl, h2load, gRPC, WebSocket, raw TCP.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh_tests::address::{free_port, own_address};
use mesh_tests::backend::Backend;
use mesh_tests::daemon::{DEADLINE, Daemon, binary};
use mesh_tests::eventually::{eventually, until};
use mesh_tests::need::{Need, main as run, trial};
use mesh_tests::peer;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A proxy with a file of its own, on an address of its own.
struct Proxy {
    daemon: Daemon,
    folder: TempDir,
    admin: SocketAddr,
}

impl Proxy {
    /// Starts it and waits until it is ready. `ADMIN` in the file is where its admin listens.
    fn start(address: IpAddr, file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = SocketAddr::new(address, free_port(address));
        let path = folder.path().join("proxy.yaml");
        std::fs::write(&path, file.replace("ADMIN", &admin.to_string())).unwrap();
        let daemon = Daemon::start("mesh-proxy", &["--config", path.to_str().unwrap()]);
        let proxy = Self { daemon, folder, admin };
        eventually("a ready proxy", DEADLINE, || match proxy.admin("/readyz") {
            Ok(_) => Ok(()),
            Err(reason) => Err(format!("{reason}\n{}", proxy.daemon.stderr())),
        });
        proxy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("proxy.yaml")
    }

    fn rewrite(&self, file: &str) {
        std::fs::write(self.path(), file.replace("ADMIN", &self.admin.to_string())).unwrap();
    }

    fn admin(&self, path: &str) -> Result<String, String> {
        curl(&["--fail", &format!("http://{}{path}", self.admin)])
    }
}

fn curl(arguments: &[&str]) -> Result<String, String> {
    let output = peer::output("curl", &[&["--silent", "--show-error", "--max-time", "10"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn one_service(address: IpAddr, port: u16, protocol: &str, endpoints: &str, rest: &str) -> String {
    format!(
        "workers: 1\nadmin: {{ listen: ADMIN }}\nlisteners:\n  - {{ listen: \"{address}:{port}\", protocol: {protocol}, service: web }}\n\
         services:\n  web:\n    endpoints: [ {endpoints} ]\n{rest}"
    )
}

fn curl_over_both_versions_of_http() {
    let address = own_address();
    let web = Backend::start("web", SocketAddr::new(address, 9000));
    let file = one_service(address, 8080, "http", &format!("{{ address: \"{}\" }}", web.address()), "");
    let proxy = Proxy::start(address, &file);
    let url = format!("http://{address}:8080/x");
    assert_eq!(curl(&[&url]).unwrap(), "web");
    assert_eq!(curl(&["--http2-prior-knowledge", "--data", "+body", &url]).unwrap(), "web+body");
    let metrics = proxy.admin("/metrics").unwrap();
    assert!(metrics.contains("mesh_requests_total"), "{metrics}");
    assert!(curl(&["--include", &format!("http://{}/config_dump", proxy.admin)]).unwrap().contains("web"));
}

/// Share of the heavier of two endpoints with weights 3:1, in percent, under `connections` concurrent clients.
fn heavy_share(balance: &str, connections: u32, requests: u32) -> f64 {
    let address = own_address();
    let at = |port| SocketAddr::new(address, port);
    // Equally fast: what the machine gives to one, it gives to the other.
    let both = Backend::start_together(&[("heavy", at(9000)), ("light", at(9001))]);
    let [heavy, light] = &both[..] else { panic!("{both:?}") };
    let endpoints =
        format!("{{ address: \"{}\", weight: 3 }}, {{ address: \"{}\", weight: 1 }}", heavy.address(), light.address());
    let file = one_service(address, 8080, "http", &endpoints, &format!("    lb: {balance}\n"));
    let _proxy = Proxy::start(address, &file);
    let url = format!("http://{address}:8080/");
    let (count, clients) = (requests.to_string(), connections.to_string());
    let told = peer::run("h2load", &["--h1", "-n", &count, "-c", &clients, &url]);
    assert!(told.contains(&format!("{requests} succeeded, 0 failed")), "{told}");
    let (heavy, light) = (heavy.calls(), light.calls());
    assert_eq!(heavy + light, u64::from(requests), "every request reaches one endpoint once");
    100.0 * heavy as f64 / f64::from(requests)
}

fn weights_of_three_to_one() {
    for balance in ["round_robin", "least_request"] {
        for connections in [1, 4, 64] {
            let share = heavy_share(balance, connections, 8_000);
            println!("{balance} with {connections} connections: {share:.2} %");
            assert!((73.0..=77.0).contains(&share), "{balance} with {connections} connections gave {share:.2} %");
        }
    }
}

/// Starts a Python peer and waits until it says that it is ready.
fn python(script: &str, arguments: &[&str]) -> Daemon {
    let script = format!("{}/peers/{script}", env!("CARGO_MANIFEST_DIR"));
    let daemon = Daemon::start_command("python", Command::new(peer::path("python")).arg(script).args(arguments));
    until("a Python peer that is ready", DEADLINE, || daemon.stdout().contains("ready"));
    daemon
}

fn run_python(script: &str, arguments: &[&str]) -> String {
    let script = format!("{}/peers/{script}", env!("CARGO_MANIFEST_DIR"));
    peer::run(peer::path("python"), &[&[script.as_str()], arguments].concat())
}

fn grpc_all_four_kinds_of_call() {
    let address = own_address();
    let one = python("grpc_echo.py", &["serve", &format!("{address}:9000"), "one"]);
    let two = python("grpc_echo.py", &["serve", &format!("{address}:9001"), "two"]);
    let endpoints = format!("{{ address: \"{address}:9000\" }}, {{ address: \"{address}:9001\" }}");
    let file = one_service(address, 8080, "http", &endpoints, "    protocol: http2\n    lb: round_robin\n");
    let _proxy = Proxy::start(address, &file);
    let through = format!("{address}:8080");
    assert_eq!(run_python("grpc_echo.py", &["call", &through, "100"]).trim(), "ok");
    // Calls over one connection are spread all the same.
    assert_eq!(run_python("grpc_echo.py", &["names", &through, "20"]).trim(), "one=10 two=10");
    drop((one, two));
}

fn websocket_messages_both_ways() {
    let address = own_address();
    let _server = python("websocket_echo.py", &["serve", &address.to_string(), "9000"]);
    let file = one_service(address, 8080, "http", &format!("{{ address: \"{address}:9000\" }}"), "    timeout: 2s\n");
    let _proxy = Proxy::start(address, &file);
    assert_eq!(run_python("websocket_echo.py", &["call", &address.to_string(), "8080", "50"]).trim(), "ok");
}

fn raw_tcp_with_half_close() {
    let address = own_address();
    let listener = std::net::TcpListener::bind(SocketAddr::new(address, 9000)).unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    let file = one_service(address, 8080, "tcp", &format!("{{ address: \"{address}:9000\" }}"), "");
    let _proxy = Proxy::start(address, &file);
    let mut client = TcpStream::connect(SocketAddr::new(address, 8080)).unwrap();
    let mut expected: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    client.write_all(&expected).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    expected.reverse();
    assert!(answer == expected, "{} bytes came back of {}", answer.len(), expected.len());
    echo.join().unwrap();
}

fn a_failing_endpoint_fails_nobody() {
    let address = own_address();
    let good = [9000, 9001].map(|port| Backend::start("good", SocketAddr::new(address, port)));
    let bad = Backend::start("bad", SocketAddr::new(address, 9002));
    bad.answer_with(500);
    let all = [good[0].address(), good[1].address(), bad.address(), SocketAddr::new(address, 9003)];
    let endpoints = all.map(|address| format!("{{ address: \"{address}\" }}")).join(", ");
    let proxy = Proxy::start(address, &one_service(address, 8080, "http", &endpoints, ""));
    let told = peer::run("h2load", &["--h1", "-n", "3000", "-c", "8", &format!("http://{address}:8080/")]);
    assert!(told.contains("status codes: 3000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{told}");
    assert!(bad.calls() < 100, "an endpoint that answers 500 is taken out; it had {} calls", bad.calls());
    let clusters = proxy.admin("/clusters").unwrap();
    assert!(clusters.contains("ejected"), "{clusters}");
}

fn reload_loses_no_request() {
    let address = own_address();
    let old = Backend::start("old", SocketAddr::new(address, 9000));
    let new = Backend::start("new", SocketAddr::new(address, 9001));
    let file = |backend: &Backend| {
        one_service(address, 8080, "http", &format!("{{ address: \"{}\" }}", backend.address()), "")
    };
    let proxy = Proxy::start(address, &file(&old));
    let url = format!("http://{address}:8080/");
    let load = std::thread::spawn({
        let url = url.clone();
        move || peer::run("h2load", &["--h1", "-n", "20000", "-c", "8", &url])
    });
    until("traffic", DEADLINE, || old.calls() > 500);
    proxy.rewrite("listeners: [ { listen: nonsense } ]");
    proxy.daemon.wait_for_log("nonsense");
    proxy.rewrite(&file(&new));
    proxy.daemon.signal(Signal::SIGHUP);
    until("the new service", DEADLINE, || new.calls() > 0);
    let told = load.join().unwrap();
    assert!(told.contains("20000 succeeded, 0 failed"), "{told}");
    assert_eq!(curl(&[&url]).unwrap(), "new");
}

fn check_names_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = peer::output(binary("mesh-proxy"), &["--config", path.to_str().unwrap(), "--check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let good =
        one_service(own_address(), 8080, "http", "{ address: \"127.0.0.1:9\" }", "").replace("ADMIN", "127.0.0.1:0");
    assert_eq!(check(&good).0, Some(0), "{}", check(&good).1);
    let (code, told) = check(&good.replace("service: web", "service: wep").replace("endpoints", "endpoint"));
    assert_eq!(code, Some(1));
    for words in ["proxy.yaml", "wep", "did you mean web", "services.web.endpoint", "did you mean endpoints"] {
        assert!(told.contains(words), "{words:?} in {told}");
    }
}

fn metrics_please_promtool() {
    let address = own_address();
    let web = Backend::start("web", SocketAddr::new(address, 9000));
    let proxy = Proxy::start(
        address,
        &one_service(address, 8080, "http", &format!("{{ address: \"{}\" }}", web.address()), ""),
    );
    assert_eq!(curl(&[&format!("http://{address}:8080/")]).unwrap(), "web");
    let metrics = proxy.admin("/metrics").unwrap();
    let file = proxy.folder.path().join("metrics");
    std::fs::write(&file, &metrics).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.trim().is_empty(), "{told}\n{metrics}");
}

fn sigterm_lets_requests_finish() {
    let address = own_address();
    let listener = std::net::TcpListener::bind(SocketAddr::new(address, 9000)).unwrap();
    let file = one_service(address, 8080, "http", &format!("{{ address: \"{address}:9000\" }}"), "");
    let mut proxy = Proxy::start(address, &file);
    let client = std::thread::spawn(move || curl(&[&format!("http://{address}:8080/")]));
    let (mut held, _) = listener.accept().unwrap();
    let mut head = [0; 1024];
    assert!(held.read(&mut head).unwrap() > 0);
    proxy.daemon.signal(Signal::SIGTERM);
    until("a closed listener", DEADLINE, || TcpStream::connect(SocketAddr::new(address, 8080)).is_err());
    held.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").unwrap();
    assert_eq!(client.join().unwrap().unwrap(), "late");
    assert_eq!(proxy.daemon.wait(Duration::from_secs(10)).code(), Some(0));
}

fn main() {
    let grpc = Need::Python("grpc");
    run(vec![
        trial("curl_over_both_versions_of_http", &[Need::Program("curl")], curl_over_both_versions_of_http),
        trial("weights_of_three_to_one", &[Need::Program("curl"), Need::Program("h2load")], weights_of_three_to_one),
        trial("grpc_all_four_kinds_of_call", &[Need::Program("curl"), grpc], grpc_all_four_kinds_of_call),
        trial("websocket_messages_both_ways", &[Need::Python("websockets")], websocket_messages_both_ways),
        trial("raw_tcp_with_half_close", &[Need::Program("curl")], raw_tcp_with_half_close),
        trial("a_failing_endpoint_fails_nobody", &[Need::Program("h2load")], a_failing_endpoint_fails_nobody),
        trial("reload_loses_no_request", &[Need::Program("h2load")], reload_loses_no_request),
        trial("check_names_every_mistake", &[], check_names_every_mistake),
        trial("metrics_please_promtool", &[Need::Program("promtool")], metrics_please_promtool),
        trial("sigterm_lets_requests_finish", &[Need::Program("curl")], sigterm_lets_requests_finish),
    ]);
}
