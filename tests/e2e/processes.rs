//! Local processes without the demo, as a user starts the parts: `mesh-discovery --docker none`, `mesh-proxy --xds`, `mesh-ctl up`.
//! A process calls another by its service's name through `http_proxy`, and anybody on this host by its virtual IP.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use mesh_tests::address::{free_port, own_address};
use mesh_tests::daemon::{Daemon, binary};
use mesh_tests::eventually::{eventually, until};
use mesh_tests::need::{Need, main as run, trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Starting and stopping on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Discovery on an address of its own, and a project whose `front` calls `http://api:8080`.
struct World {
    address: IpAddr,
    api: SocketAddr,
    xds: SocketAddr,
    admin: SocketAddr,
    http_proxy: SocketAddr,
    project: String,
    folder: TempDir,
    _discovery: Daemon,
}

struct Said {
    code: Option<i32>,
    text: String,
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    Said { code: output.status.code(), text }
}

impl World {
    fn start() -> Self {
        let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
        let [api, xds, dns, admin, http_proxy] = [(); 5].map(|()| SocketAddr::new(address, free_port(address)));
        let state = folder.path().join("state").display().to_string();
        let listens = [("--api-listen", api), ("--xds-listen", xds), ("--dns-listen", dns)];
        let mut command = Command::new(binary("mesh-discovery"));
        command.args(["--docker", "none", "--state-dir", &state]);
        for (flag, address) in listens {
            command.args([flag, &address.to_string()]);
        }
        let discovery = Daemon::start_command("mesh-discovery", &mut command);
        discovery.wait_for_log("discovery runs");
        // Virtual IPs go by names: those of this test are nobody else's.
        let project = format!("p{}-{}", std::process::id(), admin.port());
        Self { address, api, xds, admin, http_proxy, project, folder, _discovery: discovery }
    }

    fn proxy(&self) -> Daemon {
        self.proxy_at(self.http_proxy)
    }

    /// A proxy that listens for HTTP clients there.
    fn proxy_at(&self, http_proxy: SocketAddr) -> Daemon {
        let cache = self.folder.path().join("cache").display().to_string();
        let [xds, admin, http_proxy] = [self.xds, self.admin, http_proxy].map(|address| address.to_string());
        let bind = self.address.to_string();
        let flags =
            ["--xds", &xds, "--bind", &bind, "--admin-listen", &admin, "--http-proxy", &http_proxy, "--workers", "2"];
        let daemon = Daemon::start("mesh-proxy", &[&flags[..], &["--state-dir", &cache]].concat());
        eventually("a ready proxy", DEADLINE, || match self.curl(&format!("http://{}/readyz", self.admin), &[]) {
            Ok(_) => Ok(()),
            Err(reason) => Err(format!("{reason}\n{}", daemon.stderr())),
        });
        daemon
    }

    fn ctl(&self, arguments: &[&str]) -> Said {
        let server = self.api.to_string();
        let mut command = Command::new(binary("mesh-ctl"));
        said(command.args(["--server", &server]).args(arguments).current_dir(self.folder.path()))
    }

    fn up(&self) -> String {
        let shop = binary("mesh-ctl").display().to_string();
        let service = |role: &str| format!("command: [\"{shop}\", shop-service, {role}], expose: [\"8080\"]");
        let file = format!(
            "name: {}\nservices:\n  front: {{ {}, environment: {{ SHOP_UPSTREAM: \"http://api:8080\" }} }}\n  api: {{ {}, deploy: {{ replicas: 2 }} }}\n",
            self.project,
            service("front"),
            service("api"),
        );
        self.up_with(&file)
    }

    fn up_with(&self, file: &str) -> String {
        std::fs::write(self.folder.path().join("compose.yaml"), file).unwrap();
        let said = self.ctl(&["up", "-y", "--runtime", "process", "--wait-timeout", "60s"]);
        assert_eq!(said.code, Some(0), "{}", said.text);
        said.text
    }

    fn items(&self, path: &str) -> Vec<Value> {
        let text = self.curl(&format!("http://{}/v1/{path}", self.api), &[]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
    }

    fn virtual_ip(&self, service: &str) -> SocketAddr {
        let services = self.items("services");
        let found = services.iter().find(|one| one["name"] == service).unwrap_or_else(|| panic!("{services:?}"));
        SocketAddr::new(found["virtual_ip"].as_str().unwrap().parse().unwrap(), 8080)
    }

    fn pid(&self, service: &str) -> i32 {
        let replicas = self.items("replicas");
        let found = replicas.iter().find(|one| one["service"] == service && one["ready"] == true);
        let unit = found.unwrap_or_else(|| panic!("{replicas:?}"))["unit"].as_str().unwrap().to_owned();
        unit.split('-').nth(1).unwrap().parse().unwrap()
    }

    /// What a process found in its environment.
    fn environment(&self, service: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(format!("/proc/{}/environ", self.pid(service))).unwrap();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// `curl` with an environment of its own.
    fn curl(&self, url: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", url]);
        command.env_remove("http_proxy").envs(environment.iter().copied());
        let said = said(&mut command);
        if said.code == Some(0) { Ok(said.text) } else { Err(said.text) }
    }

    /// The three ways: a process that calls by name, a client in its environment, and a virtual IP.
    fn carries(&self) -> Result<(), String> {
        let whole = |text: String| match text.contains("front=") && text.contains(" api=") {
            true => Ok(()),
            false => Err(text),
        };
        whole(self.curl(&format!("http://{}/", self.virtual_ip("front")), &[])?)?;
        let environment = self.environment("front");
        let proxy = environment["http_proxy"].as_str();
        let by_name = self.curl("http://api:8080/", &[("http_proxy", proxy)])?;
        if !by_name.starts_with("api=") {
            return Err(by_name);
        }
        whole(self.curl(&format!("http://front.{}:8080/", self.project), &[("http_proxy", proxy)])?)
    }

    fn conditions(&self) -> String {
        let all = self.items("conditions");
        let all =
            all.iter().filter(|one| one["type"] == "NoHttpProxy").map(|one| one["object"].as_str().unwrap().to_owned());
        all.collect::<Vec<_>>().join(" ")
    }
}

fn called_by_name_and_by_virtual_ip() {
    let world = World::start();
    let mut proxy = world.proxy();
    assert!(!world.up().contains("note:"));
    eventually("calls through the proxy", DEADLINE, || world.carries());
    let environment = world.environment("front");
    let url = format!("http://{}", world.http_proxy);
    assert_eq!((environment["http_proxy"].as_str(), environment["HTTP_PROXY"].as_str()), (url.as_str(), url.as_str()));
    assert_eq!(environment["no_proxy"], "localhost,127.0.0.0/8,::1");
    let (front, api) = (world.virtual_ip("front"), world.virtual_ip("api"));
    assert!(front.to_string().starts_with("127.240.") && api.to_string().starts_with("127.240."), "{front} {api}");
    // Bytes, by nothing but the address.
    let mut stream = TcpStream::connect(api).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("\r\n\r\napi="), "{text}");
    assert_eq!(world.conditions(), "");

    // Killed, it comes back to the same places, and nobody has to be told.
    proxy.kill();
    assert!(world.carries().is_err());
    proxy = world.proxy();
    eventually("calls after a restart", DEADLINE, || world.carries());

    // A virtual IP's port that another has meanwhile costs that one alone.
    proxy.kill();
    let taken = TcpListener::bind(front).unwrap();
    let proxy = world.proxy();
    let ready = || world.curl(&format!("http://{}/readyz?verbose", world.admin), &[]).unwrap();
    until("the failure is told", DEADLINE, || {
        ready().contains(&format!("listener {front} is not open: cannot listen on"))
    });
    assert!(world.curl(&format!("http://{api}/"), &[]).unwrap().starts_with("api="));
    drop(taken);
    eventually("the virtual IP again", DEADLINE, || world.carries());
    until("nothing is told any more", DEADLINE, || !ready().contains("not open"));

    let down = world.ctl(&["down", "-y"]);
    assert!(down.code == Some(0) && down.text.contains("gone"), "{}", down.text);
    assert!(world.items("replicas").is_empty());
    drop(proxy);
}

fn processes_that_were_there_before_the_proxy() {
    let world = World::start();
    world.up();
    assert_eq!(world.environment("front")["http_proxy"], "http://127.0.0.1:14008", "where a proxy listens by default");
    until("a condition", DEADLINE, || world.conditions() == "provider/process");
    assert!(world.up().contains("note: processes send their HTTP calls to 127.0.0.1:14008"));

    // One that listens elsewhere is no use to them, which is told for each; who takes the place of one is told where it is.
    let proxy = world.proxy();
    let stale = |services: &[&str]| {
        services.iter().map(|one| format!("process/{}-{one}", world.project)).collect::<Vec<_>>().join(" ")
    };
    until("conditions", DEADLINE, || world.conditions() == stale(&["api-1", "api-2", "front-1"]));
    let before = world.pid("front");
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    let is_replaced = || world.conditions() == stale(&["api-1", "api-2"]);
    until("another in its place", DEADLINE, is_replaced);
    eventually("calls through the proxy", DEADLINE, || {
        match world.items("replicas").iter().all(|one| one["ready"] == true) {
            true => world.carries(),
            false => Err("not all are ready".to_owned()),
        }
    });
    assert_eq!(world.environment("front")["http_proxy"], format!("http://{}", world.http_proxy));
    assert_eq!(world.ctl(&["down", "-y"]).code, Some(0));
    drop(proxy);
}

/// Speaks first, as SMTP and MySQL do.
const GREETER: &str = "import os, socketserver as s
class Greeter(s.BaseRequestHandler):
    def handle(self): self.request.sendall(b'220 hello')
s.ThreadingTCPServer((os.environ['HOST'], int(os.environ['PORT'])), Greeter).serve_forever()
";

fn a_label_says_that_nothing_is_to_be_found_out() {
    let world = World::start();
    std::fs::write(world.folder.path().join("greeter.py"), GREETER).unwrap();
    let service = |name: &str, labels: &str| {
        let greeter = world.folder.path().join("greeter.py").display().to_string();
        format!("  {name}: {{ command: [python3, {greeter:?}], expose: [8080], labels: {{ {labels} }} }}\n")
    };
    let services = [
        service("told", "mesh.protocol: tcp"),
        service("told-of-the-port", "mesh.ports.smtp.port: 8080, mesh.ports.smtp.protocol: tcp"),
        service("untold", ""),
    ];
    world.up_with(&format!("name: {}\nservices:\n{}", world.project, services.concat()));
    let proxy = world.proxy();
    let waited = |name: &str| {
        let heard = || -> std::io::Result<String> {
            let mut text = String::new();
            TcpStream::connect(world.virtual_ip(name))?.read_to_string(&mut text)?;
            Ok(text)
        };
        eventually("the greeting", DEADLINE, || match heard() {
            Ok(text) if text == "220 hello" => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let metrics = world.curl(&format!("http://{}/metrics", world.admin), &[]).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("mesh_detect_timeouts_total"));
        line.and_then(|line| line.rsplit(' ').next()).unwrap().to_owned()
    };
    assert_eq!([waited("told"), waited("told-of-the-port")], ["0", "0"]);
    assert_ne!(waited("untold"), "0");
    assert_eq!(world.ctl(&["down", "-y"]).code, Some(0));
    drop(proxy);
}

fn main() {
    let (curl, python) = (Need::Program("curl"), Need::Program("python3"));
    run(vec![
        trial("called_by_name_and_by_virtual_ip", &[curl], called_by_name_and_by_virtual_ip),
        trial("processes_that_were_there_before_the_proxy", &[curl], processes_that_were_there_before_the_proxy),
        trial(
            "a_label_says_that_nothing_is_to_be_found_out",
            &[curl, python],
            a_label_says_that_nothing_is_to_be_found_out,
        ),
    ]);
}
