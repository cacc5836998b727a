//! Discovery held against others' xDS clients: Envoy, by both variants of the protocol, and gRPC's own. They get the services
//! that our proxy gets, follow every change without a failed request, and outlive discovery.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_tests::address::{free_port, own_address};
use mesh_tests::backend::Backend;
use mesh_tests::daemon::{DEADLINE, Daemon};
use mesh_tests::eventually::{eventually, until};
use mesh_tests::need::{Need, main as run, trial};
use mesh_tests::peer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a raw service says before it hears anything.
const GREETING: &str = "220 raw\r\n";

/// A discovery with a file and a state folder of its own, on an address of its own.
struct Discovery {
    daemon: Daemon,
    folder: TempDir,
    api: SocketAddr,
    xds: SocketAddr,
}

impl Discovery {
    fn start(file: &str) -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), own_address());
        std::fs::write(folder.path().join("mesh.yaml"), file).unwrap();
        let [api, xds] = [(); 2].map(|()| SocketAddr::new(address, free_port(address)));
        let daemon = Self::spawn(folder.path(), api, xds);
        let discovery = Self { daemon, folder, api, xds };
        discovery.wait();
        discovery
    }

    fn spawn(folder: &Path, api: SocketAddr, xds: SocketAddr) -> Daemon {
        let path = |name: &str| folder.join(name).display().to_string();
        let (file, state, dns) = (path("mesh.yaml"), path("state"), format!("{}:0", api.ip()));
        let (api, xds) = (api.to_string(), xds.to_string());
        let from = ["--docker", "none", "--file", &file, "--state-dir", &state, "--dns-upstream", "127.0.0.1:1"];
        let listens = ["--api-listen", &api, "--xds-listen", &xds, "--dns-listen", &dns];
        Daemon::start("mesh-discovery", &[&from[..], &listens[..]].concat())
    }

    fn wait(&self) {
        eventually("a ready discovery", DEADLINE, || {
            curl(&[&format!("http://{}/readyz", self.api)]).map_err(|reason| reason + &self.daemon.stderr())
        });
    }

    fn restart(&mut self) {
        self.daemon = Self::spawn(self.folder.path(), self.api, self.xds);
        self.wait();
    }

    fn rewrite(&self, services: &[Service]) {
        std::fs::write(self.folder.path().join("mesh.yaml"), file(services)).unwrap();
    }

    /// The sum of a family's samples with these words in their labels.
    fn metric(&self, family: &str, words: &str) -> f64 {
        let text = curl(&[&format!("http://{}/metrics", self.api)]).unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(family) && line.contains(words));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// One service of the file.
#[derive(Clone)]
struct Service {
    name: &'static str,
    port: u16,
    protocol: &'static str,
    endpoints: Vec<SocketAddr>,
}

fn service(name: &'static str, port: u16, protocol: &'static str, endpoints: &[SocketAddr]) -> Service {
    Service { name, port, protocol, endpoints: endpoints.to_vec() }
}

fn file(services: &[Service]) -> String {
    let entry = |one: &Service| {
        let endpoints: Vec<Value> = one.endpoints.iter().map(|address| json!({"address": address})).collect();
        let ports = json!([{"name": "main", "port": one.port, "protocol": one.protocol}]);
        json!({"name": one.name, "namespace": "shop", "ports": ports, "endpoints": endpoints})
    };
    json!({"services": services.iter().map(entry).collect::<Vec<_>>()}).to_string()
}

/// A real Envoy that gets everything from discovery, and its admin interface.
struct Envoy {
    daemon: Daemon,
    admin: String,
    #[expect(dead_code, reason = "held for its Drop")]
    folder: TempDir,
}

impl Envoy {
    /// Its listeners are bound to `bind`. `api_type` is `DELTA_GRPC` or `GRPC`.
    fn start(discovery: &Discovery, bind: IpAddr, api_type: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("envoy.json"), bootstrap(discovery.xds, bind, api_type).to_string()).unwrap();
        let mut command = Command::new(peer::path("envoy"));
        command.arg("--config-path").arg(path("envoy.json")).arg("--admin-address-path").arg(path("admin"));
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let daemon = Daemon::start_command("envoy", &mut command);
        let admin = eventually("Envoy's admin address", DEADLINE, || {
            let address =
                std::fs::read_to_string(path("admin")).map_err(|error| error.to_string() + &daemon.stderr())?;
            if address.contains(':') { Ok(address.trim().to_owned()) } else { Err("not yet written".to_owned()) }
        });
        let envoy = Self { daemon, admin, folder };
        until("an Envoy that has all its first resources", DEADLINE, || envoy.admin("/ready").is_ok());
        envoy
    }

    fn admin(&self, path: &str) -> Result<String, String> {
        curl(&[&format!("http://{}{path}", self.admin)])
    }

    /// All counters and gauges whose name matches.
    fn stats(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = self.admin(&format!("/stats?filter={filter}")).unwrap();
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    /// Nothing was refused, by either side's account.
    fn assert_nothing_was_rejected(&self, discovery: &Discovery) {
        let rejected = self.stats("update_rejected");
        assert!(rejected.len() >= 4, "{rejected:?}");
        assert!(rejected.values().all(|count| *count == 0), "{rejected:?}\n{}", self.daemon.stderr());
        assert_eq!(discovery.metric("mesh_xds_rejected_total", ""), 0.0);
        assert_eq!(discovery.metric("mesh_xds_requests_refused_total", ""), 0.0);
        assert!(!self.daemon.stderr().contains("rejected"), "{}", self.daemon.stderr());
    }

    fn clusters(&self) -> BTreeSet<String> {
        self.held("dynamic_active_clusters", |entry| &entry["cluster"]["name"])
    }

    /// Names of everything that it holds of one kind and that came from discovery.
    fn held(&self, list: &str, name: impl Fn(&Value) -> &Value) -> BTreeSet<String> {
        let dump: Value = serde_json::from_str(&self.admin("/config_dump?include_eds").unwrap()).unwrap();
        let configs = dump["configs"].as_array().unwrap();
        let entries = configs.iter().filter_map(|config| config[list].as_array()).flatten();
        entries.map(|entry| name(entry).as_str().unwrap_or_else(|| panic!("{entry} has no name")).to_owned()).collect()
    }
}

/// Everything over ADS; the node says where listeners are to be bound.
fn bootstrap(xds: SocketAddr, bind: IpAddr, api_type: &str) -> Value {
    let by_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let socket = |address: IpAddr, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}
    });
    let endpoint = json!({"endpoint": {"address": socket(xds.ip(), xds.port())}});
    json!({
        "node": {"id": format!("envoy-{api_type}"), "cluster": "test", "metadata": {"mesh": {"bind_address": bind}}},
        "admin": {"address": socket(bind, 0)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "discovery"}}]
            },
            "cds_config": by_ads,
            "lds_config": by_ads
        },
        "static_resources": {"clusters": [{
            "name": "discovery",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
            "load_assignment": {"cluster_name": "discovery", "endpoints": [{"lb_endpoints": [endpoint]}]}
        }]}
    })
}

fn curl(arguments: &[&str]) -> Result<String, String> {
    let fixed = ["--silent", "--show-error", "--fail-with-body", "--max-time", "10"];
    let output = peer::output("curl", &[&fixed[..], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

/// A service that speaks first and then gives back what it hears; it ends with the test's process.
fn raw_service(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<u64> {
                (&stream).write_all(GREETING.as_bytes())?;
                std::io::copy(&mut &stream, &mut &stream)
            });
        }
    });
    bound
}

/// The whole shop, and what each client is to make of it.
struct Shop {
    backends: [Backend; 4],
    raw: SocketAddr,
}

impl Shop {
    fn open() -> Self {
        let address = own_address();
        let backends = ["web", "api", "only", "two"].map(|name| Backend::start(name, SocketAddr::new(address, 0)));
        Self { backends, raw: raw_service(address) }
    }

    fn services(&self) -> Vec<Service> {
        let [web, api, only, two] = self.backends.each_ref().map(|backend| [backend.address()]);
        vec![
            service("web", 8080, "http", &web),
            service("api", 8080, "http", &api),
            service("only", 8081, "auto", &only),
            service("two", 8082, "http2", &two),
            service("raw", 9100, "tcp", &[self.raw]),
        ]
    }

    /// What a client of the proxy on `address` sees of it.
    fn assert_served_by(&self, address: IpAddr) {
        let call = |port: u16, authority: &str| {
            curl(&["--header", &format!("host: {authority}"), &format!("http://{}/", SocketAddr::new(address, port))])
        };
        let rows = [
            (8080, "web.shop.svc.mesh.internal", "web"),
            (8080, "web.shop.svc.mesh.internal:8080", "web"),
            (8080, "web.shop", "web"),
            (8080, "web.shop:8080", "web"),
            (8080, "web", "web"),
            (8080, "api", "api"),
            (8080, "api.shop.svc.mesh.internal", "api"),
            (8081, "only.shop", "only"),
            (8081, "who.knows", "only"),
            (8082, "two.shop", "two"),
        ];
        for (port, authority, expected) in rows {
            let answer = eventually(&format!("{authority} on {port}"), DEADLINE, || call(port, authority));
            assert_eq!(answer, expected, "{authority} on {port}");
        }
        assert!(call(8080, "who.knows").unwrap_err().contains("404"), "two services share that port");
        let mut stream = TcpStream::connect(SocketAddr::new(address, 9100)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut told = vec![0; GREETING.len()];
        stream.read_exact(&mut told).unwrap();
        assert_eq!(told, GREETING.as_bytes());
        stream.write_all(b"echo").unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"echo");
    }
}

fn envoy_gets_the_same_services(api_type: &str) {
    let shop = Shop::open();
    let discovery = Discovery::start(&file(&shop.services()));
    let bind = own_address();
    let envoy = Envoy::start(&discovery, bind, api_type);
    shop.assert_served_by(bind);
    let names = |services: &[Service], name: fn(&Service) -> String| services.iter().map(name).collect::<BTreeSet<_>>();
    let clusters = names(&shop.services(), |one| format!("outbound|{}||{}.shop.svc.mesh.internal", one.port, one.name));
    let ports = names(&shop.services(), |one| one.port.to_string());
    assert_eq!(envoy.clusters(), clusters);
    let mut assigned = envoy.held("dynamic_endpoint_configs", |entry| &entry["endpoint_config"]["cluster_name"]);
    assigned.extend(envoy.held("static_endpoint_configs", |entry| &entry["endpoint_config"]["cluster_name"]));
    assert!(assigned.is_superset(&clusters), "{assigned:?}");
    let listeners = ports.iter().map(|port| format!("{bind}:{port}")).collect();
    assert_eq!(envoy.held("dynamic_listeners", |entry| &entry["name"]), listeners);
    let tables: BTreeSet<String> = ports.into_iter().filter(|port| port != "9100").collect();
    assert_eq!(envoy.held("dynamic_route_configs", |entry| &entry["route_config"]["name"]), tables);
    envoy.assert_nothing_was_rejected(&discovery);
    for kind in ["cds", "eds", "lds", "rds"] {
        let words = format!("type=\"{kind}\"");
        until(&format!("an accepted {kind}"), DEADLINE, || {
            discovery.metric("mesh_xds_acknowledged_total", &words) > 0.0
        });
    }
}

/// What Envoy gets, our proxy gets too.
fn our_proxy_gets_the_same_services() {
    let shop = Shop::open();
    let discovery = Discovery::start(&file(&shop.services()));
    let (bind, folder) = (own_address(), tempfile::tempdir().unwrap());
    let settings = folder.path().join("proxy.yaml");
    std::fs::write(&settings, format!("workers: 1\nadmin: {{ listen: \"{bind}:14020\" }}\n")).unwrap();
    let (settings, state) = (settings.display().to_string(), folder.path().display().to_string());
    let (xds, address) = (discovery.xds.to_string(), bind.to_string());
    let arguments = ["--config", &settings, "--xds", &xds, "--bind", &address, "--state-dir", &state];
    let proxy = Daemon::start("mesh-proxy", &arguments);
    eventually("a ready proxy", DEADLINE, || {
        curl(&[&format!("http://{bind}:14020/readyz")]).map_err(|reason| reason + &proxy.stderr())
    });
    shop.assert_served_by(bind);
    assert_eq!(discovery.metric("mesh_xds_rejected_total", ""), 0.0);
}

/// Clients that call without a pause, each over one connection that they never open again.
struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Traffic {
    fn start(through: SocketAddr, authority: &'static str, expected: &'static str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(TcpStream::connect(through).map_err(|error| error.to_string())?);
                stream.get_ref().set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
                while !stop.load(Ordering::Relaxed) {
                    let answer = call(&mut stream, authority).and_then(|answer| match answer {
                        right if right == expected => Ok(()),
                        wrong => Err(format!("{wrong:?} is not the answer {expected:?}")),
                    });
                    answer.inspect_err(|reason| eprintln!("a request failed: {reason}"))?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let traffic = Self { clients: (0..4).map(client).collect(), stop, answered };
        traffic.flows_on();
        traffic
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until some hundred more requests were answered.
    fn flows_on(&self) {
        let before = self.answered();
        until("more traffic", DEADLINE, || {
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client broke off");
            self.answered() > before + 200
        });
    }

    fn assert_no_request_failed(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap().unwrap();
        }
    }
}

/// One GET over a kept-alive connection.
fn call(stream: &mut BufReader<TcpStream>, authority: &str) -> Result<String, String> {
    let request = format!("GET / HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        let read = stream.read_line(&mut head).map_err(|error| format!("{error} after {head:?}"))?;
        let line = head[start..].to_ascii_lowercase();
        if read == 0 {
            return Err(format!("the connection ended after {head:?}"));
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| head.clone())?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(|error| error.to_string())?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if head.starts_with("HTTP/1.1 200 ") { Ok(body) } else { Err(format!("{head}{body}")) }
}

fn envoy_follows_every_change_and_outlives_discovery(api_type: &str) {
    let home = own_address();
    let backend = |name: &str| Backend::start(name, SocketAddr::new(home, 0));
    let (one, two, other) = (backend("web"), backend("web"), backend("other"));
    let web = |endpoints: &[&Backend]| {
        let addresses: Vec<SocketAddr> = endpoints.iter().map(|backend| backend.address()).collect();
        service("web", 8080, "http", &addresses)
    };
    let raw = service("raw", 9100, "tcp", &[raw_service(home)]);
    let mut discovery = Discovery::start(&file(&[web(&[&one]), raw.clone()]));
    let bind = own_address();
    let envoy = Envoy::start(&discovery, bind, api_type);
    let traffic = Traffic::start(SocketAddr::new(bind, 8080), "web.shop", "web");
    let mut raw_connection = TcpStream::connect(SocketAddr::new(bind, 9100)).unwrap();

    // An endpoint comes, another goes.
    discovery.rewrite(&[web(&[&one, &two]), raw.clone()]);
    until("calls to the added endpoint", DEADLINE, || two.calls() > 20);
    discovery.rewrite(&[web(&[&two]), raw.clone()]);
    falls_silent(&one, &traffic);
    // A service comes, on the port of the other one and on one of its own, and goes.
    let guests =
        [service("guest", 8080, "http", &[other.address()]), service("lone", 8085, "http", &[other.address()])];
    discovery.rewrite(&[&[web(&[&two]), raw.clone()], &guests[..]].concat());
    let guest = |port: u16| curl(&["--header", "host: guest.shop", &format!("http://{bind}:{port}/")]);
    for port in [8080, 8085] {
        until("an answer of the guest", DEADLINE, || guest(port).is_ok_and(|answer| answer == "other"));
    }
    traffic.flows_on();
    discovery.rewrite(&[web(&[&two]), raw.clone()]);
    until("a port without its service", DEADLINE, || guest(8085).is_err());
    until("an Envoy without the guests' clusters", DEADLINE, || envoy.clusters().len() == 2);

    // Discovery is killed: Envoy goes on. It comes back with what it had: Envoy changes nothing.
    let counters = "(added|modified|removed|config_reload|membership_change)$";
    let before = envoy.stats(counters);
    assert!(before["cluster_manager.cluster_added"] > 0, "{before:?}");
    discovery.daemon.kill();
    until("an Envoy that misses discovery", DEADLINE, || connected(&envoy) == 0);
    traffic.flows_on();
    discovery.restart();
    until("an Envoy that is connected again", DEADLINE, || connected(&envoy) == 1);
    for kind in ["cds", "lds"] {
        let words = format!("type=\"{kind}\"");
        until(&format!("{kind} after the restart"), DEADLINE, || {
            discovery.metric("mesh_xds_acknowledged_total", &words) > 0.0
        });
    }
    traffic.flows_on();
    assert_eq!(envoy.stats(counters), before, "nothing flaps");
    // And changes arrive again.
    let calls = one.calls();
    discovery.rewrite(&[web(&[&one]), raw]);
    until("calls to the endpoint that came back", DEADLINE, || one.calls() > calls + 20);
    falls_silent(&two, &traffic);
    traffic.assert_no_request_failed();
    // A connection of bytes has lived through it all.
    raw_connection.write_all(b"still here").unwrap();
    let mut told = vec![0; GREETING.len() + 10];
    raw_connection.read_exact(&mut told).unwrap();
    assert_eq!(told, format!("{GREETING}still here").as_bytes());
    envoy.assert_nothing_was_rejected(&discovery);
}

/// 1 while Envoy has its stream.
fn connected(envoy: &Envoy) -> u64 {
    envoy.stats("^control_plane.connected_state$")["control_plane.connected_state"]
}

/// Waits until a backend has no more calls, while others have.
fn falls_silent(backend: &Backend, traffic: &Traffic) {
    until("the end of calls to a removed endpoint", DEADLINE, || {
        let before = backend.calls();
        traffic.flows_on();
        backend.calls() == before
    });
}

fn python(script: &str, arguments: &[&str]) -> Daemon {
    let script = format!("{}/peers/{script}", env!("CARGO_MANIFEST_DIR"));
    Daemon::start_command(&script, Command::new(peer::path("python")).arg(&script).args(arguments))
}

fn echo(name: &str) -> (Daemon, SocketAddr) {
    let address = own_address();
    let listen = SocketAddr::new(address, free_port(address));
    let server = python("grpc_echo.py", &["serve", &listen.to_string(), name]);
    until("a gRPC server", DEADLINE, || server.stdout().contains("ready"));
    (server, listen)
}

fn grpc_follows_every_change_and_outlives_discovery() {
    let ((_one, first), (_two, second)) = (echo("one"), echo("two"));
    let shop = |endpoint: SocketAddr| [service("web", 80, "grpc", &[endpoint])];
    let mut discovery = Discovery::start(&file(&shop(first)));
    let (xds, authority) = (discovery.xds.to_string(), "web.shop.svc.mesh.internal:80");
    let mut client = python("grpc_xds.py", &["follow", &xds, authority, "one", "two", "one"]);
    let says = |count: usize| move |client: &Daemon| client.stdout().lines().count() >= count;
    until("a first answer", DEADLINE, || says(1)(&client));
    discovery.rewrite(&shop(second));
    until("an answer of the new endpoint", DEADLINE, || says(2)(&client));
    discovery.daemon.kill();
    discovery.rewrite(&shop(first));
    discovery.restart();
    let status = client.wait(DEADLINE);
    assert!(status.success(), "{status}\n{}", client.stderr());
    assert!(client.stdout().contains("ok"));
    assert_eq!(discovery.metric("mesh_xds_rejected_total", ""), 0.0);
}

fn grpc_is_told_at_once_what_does_not_exist() {
    let discovery = Discovery::start(&file(&[service("web", 80, "grpc", &["10.9.0.5:80".parse().unwrap()])]));
    let told = |authority: &str| {
        let mut client = python("grpc_xds.py", &["unknown", &discovery.xds.to_string(), authority]);
        assert!(client.wait(DEADLINE).success(), "{}", client.stderr());
        client.stdout()
    };
    // No such service; no such port.
    for authority in ["nobody.shop.svc.mesh.internal:80", "web.shop.svc.mesh.internal:81"] {
        let answer = told(authority);
        let expected = format!("the mesh has no {authority}");
        assert!(answer.starts_with("UNAVAILABLE at once") && answer.contains(&expected), "{answer}");
    }
}

fn main() {
    let (curl, envoy, grpc) = (Need::Program("curl"), Need::Envoy, Need::Python("grpc"));
    run(vec![
        trial("envoy_by_delta_gets_the_same_services", &[curl, envoy], || envoy_gets_the_same_services("DELTA_GRPC")),
        trial("envoy_by_sotw_gets_the_same_services", &[curl, envoy], || envoy_gets_the_same_services("GRPC")),
        trial("our_proxy_gets_the_same_services", &[curl], our_proxy_gets_the_same_services),
        trial("envoy_by_delta_follows_every_change_and_outlives_discovery", &[curl, envoy], || {
            envoy_follows_every_change_and_outlives_discovery("DELTA_GRPC");
        }),
        trial("envoy_by_sotw_follows_every_change_and_outlives_discovery", &[curl, envoy], || {
            envoy_follows_every_change_and_outlives_discovery("GRPC");
        }),
        trial("grpc_follows_every_change_and_outlives_discovery", &[curl, grpc], || {
            grpc_follows_every_change_and_outlives_discovery();
        }),
        trial("grpc_is_told_at_once_what_does_not_exist", &[curl, grpc], grpc_is_told_at_once_what_does_not_exist),
    ]);
}
