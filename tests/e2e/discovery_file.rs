//! Discovery from a file, as a user starts it: its API, its DNS as `dig` sees it, its metrics as promtool reads them, and its
//! virtual IPs across `kill -9`. Then the whole of steps 1 and 2: a proxy that gets everything by xDS, or by SRV records alone.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mesh_tests::address::{free_port, own_address};
use mesh_tests::backend::Backend;
use mesh_tests::daemon::{DEADLINE, Daemon};
use mesh_tests::eventually::{eventually, until};
use mesh_tests::need::{Need, main as run, trial};
use mesh_tests::peer;
use serde_json::Value;
use tempfile::TempDir;

/// A discovery with a file and a state folder of its own, on an address of its own.
struct Discovery {
    daemon: Daemon,
    folder: TempDir,
    address: IpAddr,
    ports: [u16; 3],
}

impl Discovery {
    fn start(file: &str) -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), own_address());
        std::fs::write(folder.path().join("mesh.yaml"), file).unwrap();
        let ports = [free_port(address), free_port(address), free_port(address)];
        let daemon = Self::spawn(folder.path(), address, ports, &[]);
        let discovery = Self { daemon, folder, address, ports };
        discovery.wait();
        discovery
    }

    fn spawn(folder: &Path, address: IpAddr, [api, xds, dns]: [u16; 3], further: &[&str]) -> Daemon {
        let listen = |port: u16| SocketAddr::new(address, port).to_string();
        let path = |name: &str| folder.join(name).display().to_string();
        let (file, state) = (path("mesh.yaml"), path("state"));
        let arguments = ["--docker", "none", "--file", &file, "--state-dir", &state, "--dns-upstream", "127.0.0.1:1"];
        let listens = ["--api-listen", &listen(api), "--xds-listen", &listen(xds), "--dns-listen", &listen(dns)];
        Daemon::start("mesh-discovery", &[&arguments[..], &listens[..], further].concat())
    }

    fn wait(&self) {
        eventually("a ready discovery", DEADLINE, || match self.get("/readyz") {
            Ok(_) => Ok(()),
            Err(reason) => Err(format!("{reason}\n{}", self.daemon.stderr())),
        });
    }

    /// As a crash and a restart by an operator.
    fn kill_and_restart(&mut self) {
        self.kill_and_restart_with(&[]);
    }

    /// And with these flags besides.
    fn kill_and_restart_with(&mut self, further: &[&str]) {
        self.daemon.kill();
        self.daemon = Self::spawn(self.folder.path(), self.address, self.ports, further);
        self.wait();
    }

    fn rewrite(&self, file: &str) {
        std::fs::write(self.folder.path().join("mesh.yaml"), file).unwrap();
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("http://{}{path}", SocketAddr::new(self.address, self.ports[0]));
        let output = peer::output("curl", &["--silent", "--show-error", "--fail", "--max-time", "10", &url]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn items(&self, resource: &str) -> Vec<Value> {
        let text = self.get(&format!("/v1/{resource}")).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["apiVersion"], "mesh/v1", "{text}");
        assert!(answer["snapshot"].is_u64(), "{text}");
        answer["items"].as_array().unwrap().clone()
    }

    fn xds(&self) -> String {
        SocketAddr::new(self.address, self.ports[1]).to_string()
    }

    fn dns(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports[2])
    }

    fn dig(&self, arguments: &[&str]) -> String {
        let (server, port) = (format!("@{}", self.address), self.ports[2].to_string());
        peer::run("dig", &[&[server.as_str(), "-p", &port, "+time=5", "+tries=1"], arguments].concat())
    }

    fn virtual_ip(&self, name: &str) -> String {
        let services = self.items("services");
        let found = services.iter().find(|service| service["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {services:?}"))["virtual_ip"].as_str().unwrap().to_owned()
    }
}

fn shop(web: &[SocketAddr]) -> String {
    let endpoints: Vec<String> =
        web.iter().map(|address| format!("      - {{ address: \"{address}\", port: http }}")).collect();
    format!(
        "services:\n  - name: web\n    namespace: shop\n    ports: [ {{ name: http, port: 80, protocol: http }} ]\n    endpoints:\n{}\n\
         \x20 - name: db\n    namespace: shop\n    ports: [ {{ name: pg, port: 5432, protocol: tcp }} ]\n    endpoints:\n\
         \x20     - {{ address: \"10.9.0.7:15432\", port: pg, weight: 7, priority: 1 }}\n",
        endpoints.join("\n")
    )
}

fn the_api_tells_the_catalogue() {
    let discovery = Discovery::start(&shop(&["10.9.0.5:8080".parse().unwrap()]));
    let endpoints = discovery.items("endpoints");
    let web = endpoints.iter().find(|endpoint| endpoint["service"] == "web").unwrap();
    for (key, expected) in [("namespace", "shop"), ("address", "10.9.0.5:8080"), ("state", "ready")] {
        assert_eq!(web[key], expected, "{key} of {web}");
    }
    assert_eq!(web["weight"], 100);
    discovery.rewrite("services: [ { nam: web } ]");
    until("a condition", DEADLINE, || !discovery.items("conditions").is_empty());
    let condition = discovery.items("conditions").remove(0);
    assert!(condition["message"].as_str().unwrap().contains("did you mean name"), "{condition}");
    assert_eq!(discovery.items("services").len(), 2, "the last good file stays");
    discovery.rewrite(&shop(&["10.9.0.6:8080".parse().unwrap()]));
    until("the new endpoint", DEADLINE, || discovery.get("/v1/endpoints").unwrap().contains("10.9.0.6:8080"));
    assert!(discovery.items("conditions").is_empty());
}

fn dig_finds_every_kind_of_name() {
    let discovery = Discovery::start(&shop(&["10.9.0.5:8080".parse().unwrap(), "10.9.0.6:8081".parse().unwrap()]));
    let short = |arguments: &[&str]| discovery.dig(&[&["+short"], arguments].concat());
    let whole = |arguments: &[&str]| discovery.dig(arguments);
    let address = short(&["web.shop.svc.mesh.internal", "A"]);
    assert_eq!(address.trim(), discovery.virtual_ip("web"));
    let mut tasks: Vec<String> = short(&["tasks.web.shop.svc.mesh.internal", "A"]).lines().map(str::to_owned).collect();
    tasks.sort();
    assert_eq!(tasks, ["10.9.0.5", "10.9.0.6"]);
    let srv = short(&["_http._tcp.web.shop.svc.mesh.internal", "SRV"]);
    for record in ["0 100 8080 10-9-0-5.web.shop.svc.mesh.internal.", "0 100 8081 10-9-0-6.web.shop.svc.mesh.internal."]
    {
        assert!(srv.contains(record), "{record} in {srv}");
    }
    assert_eq!(
        short(&["_5432._tcp.db.shop.svc.mesh.internal", "SRV"]).trim(),
        "1 7 15432 10-9-0-7.db.shop.svc.mesh.internal."
    );
    assert_eq!(short(&["10-9-0-6.web.shop.svc.mesh.internal", "A"]).trim(), "10.9.0.6");
    assert_eq!(short(&["+tcp", "web.shop.svc.mesh.internal", "A"]), address);
    let check = |name: &str, kind: &str, status: &str| {
        let told = whole(&[name, kind]);
        assert!(told.contains(&format!("status: {status}")) && told.contains("SOA"), "{name} {kind}: {told}");
    };
    check("web.shop.svc.mesh.internal", "AAAA", "NOERROR");
    check("web.shop.svc.mesh.internal", "TXT", "NOERROR");
    check("nobody.shop.svc.mesh.internal", "A", "NXDOMAIN");
    check("_nothing._tcp.web.shop.svc.mesh.internal", "SRV", "NXDOMAIN");
    assert!(whole(&["example.org", "A"]).contains("status: SERVFAIL"), "other names are forwarded, here to nobody");
}

fn virtual_ips_survive_kill_9() {
    let mut discovery = Discovery::start(&shop(&["10.9.0.5:8080".parse().unwrap()]));
    let before = (discovery.virtual_ip("web"), discovery.virtual_ip("db"));
    // Another file before the restart: what is kept must not depend on what else there is.
    discovery.daemon.kill();
    discovery.rewrite(
        &(shop(&["10.9.0.5:8080".parse().unwrap()]) + "  - { name: aaa, namespace: shop, ports: [ { port: 1 } ] }\n"),
    );
    discovery.kill_and_restart();
    assert_eq!((discovery.virtual_ip("web"), discovery.virtual_ip("db")), before);
}

fn another_range_gives_other_virtual_ips() {
    let mut discovery = Discovery::start(&shop(&["10.9.0.5:8080".parse().unwrap()]));
    let loopback = discovery.virtual_ip("web");
    assert!(loopback.starts_with("127.240."), "{loopback}: there is no engine");
    discovery.kill_and_restart_with(&["--vip-range", "240.240.0.0/16"]);
    let line =
        discovery.daemon.wait_for_log("virtual IPs of an earlier run are not of --vip-range; new ones are given");
    assert!(line.contains("services=2") && line.contains("range=240.240.0.0/16"), "{line}");
    assert!(discovery.virtual_ip("web").starts_with("240.240."));
}

fn metrics_please_promtool() {
    let discovery = Discovery::start(&shop(&["10.9.0.5:8080".parse().unwrap()]));
    drop(discovery.dig(&["web.shop.svc.mesh.internal", "A"]));
    let metrics = discovery.get("/metrics").unwrap();
    let file = discovery.folder.path().join("metrics");
    std::fs::write(&file, &metrics).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.trim().is_empty(), "{told}\n{metrics}");
}

/// A proxy on `address` that gets everything by xDS, with its state in `folder`.
fn proxy_by_xds(discovery: &Discovery, folder: &Path, address: IpAddr) -> Daemon {
    let admin = SocketAddr::new(address, 14020);
    let file = folder.join("proxy.yaml");
    std::fs::write(&file, format!("workers: 1\nadmin: {{ listen: \"{admin}\" }}\n")).unwrap();
    let (file, cache) = (file.display().to_string(), folder.join("cache").display().to_string());
    let bind = address.to_string();
    let arguments = ["--config", &file, "--xds", &discovery.xds(), "--bind", &bind, "--state-dir", &cache];
    let daemon = Daemon::start("mesh-proxy", &arguments);
    eventually("a ready proxy", DEADLINE, || match curl(&format!("http://{admin}/readyz"), &[]) {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!("{reason}\n{}", daemon.stderr())),
    });
    daemon
}

fn curl(url: &str, arguments: &[&str]) -> Result<String, String> {
    let fixed = ["--silent", "--show-error", "--fail-with-body", "--max-time", "10"];
    let output = peer::output("curl", &[&fixed[..], arguments, &[url]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

fn a_proxy_by_xds_outlives_discovery() {
    let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
    let (one, two) = (backend("one", address, 9000), backend("two", address, 9001));
    let mut discovery = Discovery::start(&shop(&[one.address()]));
    let mut proxy = proxy_by_xds(&discovery, folder.path(), address);
    let url = format!("http://{address}:80/");
    let by_name = ["--header", "host: web.shop.svc.mesh.internal"];
    eventually("an answer", DEADLINE, || curl(&url, &by_name));
    assert_eq!(curl(&url, &["--header", "host: web.shop"]).unwrap(), "one");
    assert_eq!(curl(&url, &["--header", "host: web"]).unwrap(), "one");
    // A change reaches it without a restart.
    let changed = std::time::SystemTime::now();
    discovery.rewrite(&shop(&[two.address()]));
    until("the new endpoint", DEADLINE, || curl(&url, &by_name).is_ok_and(|answer| answer == "two"));
    // What it was told is on disk a moment later.
    until("the cache on disk", DEADLINE, || {
        let files = std::fs::read_dir(folder.path().join("cache")).into_iter().flatten().flatten();
        // One that is being written has another name until it is whole.
        let files = files.filter(|file| file.path().extension().is_none_or(|extension| extension != "new"));
        let mut written = files.filter_map(|file| file.metadata().ok()?.modified().ok());
        written.any(|modified| modified > changed)
    });
    // Without discovery it goes on, and even starts.
    discovery.daemon.kill();
    assert_eq!(curl(&url, &by_name).unwrap(), "two");
    proxy.kill();
    let proxy = proxy_by_xds(&discovery, folder.path(), address);
    assert_eq!(curl(&url, &by_name).unwrap(), "two");
    // When discovery comes back, changes arrive again.
    discovery.kill_and_restart();
    discovery.rewrite(&shop(&[one.address()]));
    until("the old endpoint", DEADLINE, || curl(&url, &by_name).is_ok_and(|answer| answer == "one"));
    drop(proxy);
}

/// Whoever runs the control plane learns that a proxy's own file has a name, whichever of both came first.
fn a_name_that_the_proxys_file_has_is_rejected() {
    let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
    let discovery = Discovery::start(&shop(&["127.0.0.1:9".parse().unwrap()]));
    let _proxy = proxy_by_xds(&discovery, folder.path(), address);
    let file = folder.path().join("proxy.yaml");
    let plain = std::fs::read_to_string(&file).unwrap();
    let clashes = |count: u32| {
        let told = curl(&format!("http://{address}:14020/metrics"), &[]).unwrap();
        told.contains(&format!("mesh_xds_name_clashes{{type=\"lds\"}} {count}\n"))
    };
    let rejected = |count: u32| {
        discovery.get("/metrics").unwrap().contains(&format!("mesh_xds_rejected_total{{type=\"lds\"}} {count}\n"))
    };
    assert!(clashes(0) && rejected(0));
    // The file comes later.
    let listens = |port: u16| {
        let own = format!(
            "listeners: [{{ listen: \"{address}:{port}\", service: own }}]\nservices: {{ own: {{ endpoints: [] }} }}\n"
        );
        std::fs::write(&file, format!("{plain}{own}")).unwrap();
    };
    let readyz = || curl(&format!("http://{address}:14020/readyz?verbose"), &[]).unwrap_or_default();
    listens(80);
    until("the rejection", DEADLINE, || clashes(1) && rejected(1));
    until("the words for it", DEADLINE, || {
        readyz().contains(&format!("the file and the control plane both have a listener named {address}:80"))
    });
    listens(81);
    until("no clash", DEADLINE, || clashes(0));
    until("no words for it", DEADLINE, || !readyz().contains("both have"));
    // The control plane comes later.
    let more = "  - { name: late, namespace: shop, ports: [ { port: 81, protocol: http } ] }\n";
    discovery.rewrite(&(shop(&["127.0.0.1:9".parse().unwrap()]) + more));
    until("the other rejection", DEADLINE, || clashes(1) && rejected(2));
}

fn backend(name: &str, address: IpAddr, port: u16) -> Backend {
    Backend::start(name, SocketAddr::new(address, port))
}

fn a_proxy_by_srv_records_alone() {
    let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
    let (one, two) = (backend("one", address, 9000), backend("two", address, 9001));
    let discovery = Discovery::start(&shop(&[one.address()]));
    let admin = SocketAddr::new(address, 14020);
    let file = folder.path().join("proxy.yaml");
    let text = format!(
        "workers: 1\nadmin: {{ listen: \"{admin}\" }}\nlisteners: [ {{ listen: \"{address}:8080\", protocol: http, service: web }} ]\n\
         services: {{ web: {{ dns: \"srv://_http._tcp.web.shop.svc.mesh.internal\", resolver: \"{}\" }} }}\n",
        discovery.dns()
    );
    std::fs::write(&file, text).unwrap();
    let proxy = Daemon::start("mesh-proxy", &["--config", &file.display().to_string()]);
    let url = format!("http://{address}:8080/");
    eventually("an answer", DEADLINE, || curl(&url, &[]).map_err(|reason| format!("{reason}\n{}", proxy.stderr())));
    assert_eq!(curl(&url, &[]).unwrap(), "one");
    discovery.rewrite(&shop(&[two.address()]));
    until("the new endpoint, by the record's TTL", DEADLINE, || curl(&url, &[]).is_ok_and(|answer| answer == "two"));
}

/// What one proxy found out by calling is seen by everybody who asks discovery, for as long as the proxy lives.
fn an_ejection_is_seen_in_the_api() {
    let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
    let (good, bad) = (backend("good", address, 9000), backend("bad", address, 9001));
    bad.answer_with(500);
    let discovery = Discovery::start(&shop(&[good.address(), bad.address()]));
    let mut proxy = proxy_by_xds(&discovery, folder.path(), address);
    let told = |of: &Backend| {
        let endpoints = discovery.items("endpoints");
        let found = endpoints.iter().find(|endpoint| endpoint["address"] == of.address().to_string());
        let found = found.unwrap_or_else(|| panic!("{} in {endpoints:?}", of.address()));
        (found["state"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!((told(&good).0, told(&bad).0), ("ready".into(), "ready".into()));
    let url = format!("http://{address}:80/");
    eventually("the failing endpoint taken out", DEADLINE, || {
        // Retried on the other endpoint, until the failing one is not asked any more.
        let answer = curl(&url, &["--header", "host: web.shop"])?;
        let (state, reason) = told(&bad);
        if state == "ejected" { Ok(()) } else { Err(format!("{answer}; {state}: {reason}")) }
    });
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (reason, expected) = (told(&bad).1, format!("(taken out by {} for ", host_name.trim()));
    assert!(reason.starts_with("5 failures in a row ") && reason.contains(&expected), "{reason}");
    assert_eq!(told(&good).0, "ready");
    let metrics = curl(&format!("http://{}/metrics", SocketAddr::new(address, 14020)), &[]).unwrap();
    for line in ["mesh_xds_connected 1", "mesh_xds_reconnects_total 0", "mesh_xds_updates_accepted_total{type=\"cds\"}"]
    {
        assert!(metrics.lines().any(|one| one.starts_with(line)), "{line} in {metrics}");
    }
    // Nobody knows any more what a dead proxy thought.
    proxy.kill();
    until("the endpoint in again", Duration::from_secs(5), || told(&bad).0 == "ready");
}

fn main() {
    let (curl, dig) = (Need::Program("curl"), Need::Program("dig"));
    run(vec![
        trial("the_api_tells_the_catalogue", &[curl], the_api_tells_the_catalogue),
        trial("dig_finds_every_kind_of_name", &[curl, dig], dig_finds_every_kind_of_name),
        trial("virtual_ips_survive_kill_9", &[curl], virtual_ips_survive_kill_9),
        trial("another_range_gives_other_virtual_ips", &[curl], another_range_gives_other_virtual_ips),
        trial("metrics_please_promtool", &[curl, dig, Need::Program("promtool")], metrics_please_promtool),
        trial("a_proxy_by_xds_outlives_discovery", &[curl, Need::Root], a_proxy_by_xds_outlives_discovery),
        trial(
            "a_name_that_the_proxys_file_has_is_rejected",
            &[curl, Need::Root],
            a_name_that_the_proxys_file_has_is_rejected,
        ),
        trial("a_proxy_by_srv_records_alone", &[curl], a_proxy_by_srv_records_alone),
        trial("an_ejection_is_seen_in_the_api", &[curl, Need::Root], an_ejection_is_seen_in_the_api),
    ]);
}
