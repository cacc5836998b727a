//! What is dialled decides.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use mesh_core::model::endpoint::{CaptureMode, EndpointState};

use super::told::{Proxy, Told, VIRTUAL};
use super::world::{Namespace, World, eventually};

struct Shop {
    client: Namespace,
    web: [Namespace; 2],
    _world: World,
}

impl Shop {
    /// Two endpoints of `web`, at .11 and .12, and whoever calls, at .2.
    fn open() -> Option<Self> {
        let world = World::new()?;
        let web = [world.namespace(11), world.namespace(12)];
        for (namespace, name) in web.iter().zip(["one", "two"]) {
            namespace.serve_http(8080, name);
            namespace.serve_lines(9000, name);
            // No port of the service.
            namespace.serve_lines(7000, name);
        }
        Some(Self { client: world.namespace(2), web, _world: world })
    }

    fn told(&self) -> Told {
        let [one, two] = &self.web;
        let told = Told::default().endpoint(11, EndpointState::Ready).endpoint(12, EndpointState::Ready);
        told.workload("client.shop", &self.client).workload("web.shop", one).workload("web.shop", two)
    }
}

/// How many of `count` answers each gave; all of them say who called.
fn answers(count: usize, caller: &str, mut ask: impl FnMut() -> std::io::Result<String>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..count {
        let answer = ask().unwrap();
        let (name, from) = answer.split_once(' ').unwrap();
        assert_eq!(from, caller, "{answer}: the source address is the caller's own");
        *found.entry(name.to_owned()).or_default() += 1;
    }
    found
}

fn only(name: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(name.to_owned(), count)])
}

#[test]
fn a_call_to_the_first_of_a_service_waits_until_it_is_known() {
    let Some(shop) = Shop::open() else { return };
    let told = Told::default().workload("client.shop", &shop.client).coming(11);
    let proxy = Proxy::capturing(&told);
    eventually("it is captured", || (proxy.captured() == 1.0).then_some(()));
    let mut kept = shop.client.client("10.78.0.11:8080");
    eventually("it waits", || (proxy.metric("mesh_connections_active", &[]) == 1.0).then_some(()));
    proxy.told.send_replace(shop.told().resources());
    assert_eq!(answers(40, "10.78.0.2", || kept.get("web")).len(), 2);
}

#[test]
fn a_virtual_ip_is_the_service() {
    let Some(shop) = Shop::open() else { return };
    let proxy = Proxy::capturing(&shop.told());
    eventually("all are captured", || (proxy.captured() == 3.0).then_some(()));
    let virtual_http = format!("{VIRTUAL}:8080");
    assert_eq!(answers(40, "10.78.0.2", || shop.client.get(&virtual_http, "whatever")).len(), 2);
    let mut kept = shop.client.client(&virtual_http);
    assert_eq!(answers(40, "10.78.0.2", || kept.get("web")).len(), 2);
    assert_eq!(answers(40, "10.78.0.2", || shop.client.ask(&format!("{VIRTUAL}:9000"))).len(), 2);
    // Nobody has that port, or that address.
    assert!(shop.client.ask(&format!("{VIRTUAL}:81")).is_err());
    assert!(shop.client.ask("240.240.9.9:8080").is_err());
    let labels = ["client.shop", "web.shop", "http1"];
    eventually("requests are counted", || (proxy.metric("mesh_requests_total", &labels) == 80.0).then_some(()));
    eventually("refusals are counted", || {
        (proxy.metric("mesh_requests_total", &["client.shop", "NR"]) == 2.0).then_some(())
    });
}

#[test]
fn a_caller_that_is_done_sending_gets_its_answers() {
    let Some(shop) = Shop::open() else { return };
    let _proxy = Proxy::capturing(&shop.told());
    for address in [format!("{VIRTUAL}:8080"), "10.78.0.11:8080".to_owned()] {
        let mut stream = shop.client.connect(&address).unwrap();
        stream.write_all("GET / HTTP/1.1\r\nhost: web\r\n\r\n".repeat(3).as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches(" 10.78.0.2").count(), 3, "{address}: {answers}");
    }
}

#[test]
fn what_a_caller_says_of_who_called_it_arrives_as_it_was_said() {
    let Some(shop) = Shop::open() else { return };
    let _proxy = Proxy::capturing(&shop.told());
    for address in [format!("{VIRTUAL}:8080"), "10.78.0.11:8080".to_owned()] {
        let mut stream = shop.client.connect(&address).unwrap();
        let said = "X-Forwarded-For: 192.0.2.1\r\nforwarded: for=192.0.2.1";
        write!(stream, "GET / HTTP/1.1\r\nhost: web\r\n{said}\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let told = "10.78.0.2 (X-Forwarded-For: 192.0.2.1) (forwarded: for=192.0.2.1)";
        assert!(answer.ends_with(told), "{address}: {answer}");
    }
}

#[test]
fn an_endpoints_address_is_the_service_only_for_who_names_it() {
    let Some(shop) = Shop::open() else { return };
    let _proxy = Proxy::capturing(&shop.told());
    let get = |host: &'static str| answers(30, "10.78.0.2", || shop.client.get("10.78.0.11:8080", host));
    for service in ["web:8080", "web", "WEB.shop:8080"] {
        assert_eq!(get(service).len(), 2, "{service}");
    }
    for exact in ["10.78.0.11:8080", "shop-web-11:8080", "tasks.web.shop.svc.mesh.internal", "web:81"] {
        assert_eq!(get(exact), only("one", 30), "{exact}");
    }
    // Each request of one connection for itself.
    let mut kept = shop.client.client("10.78.0.12:8080");
    assert_eq!(answers(30, "10.78.0.2", || kept.get("web")).len(), 2);
    assert_eq!(answers(30, "10.78.0.2", || kept.get("10.78.0.12")), only("two", 30));
    assert_eq!(answers(30, "10.78.0.2", || kept.get("web")).len(), 2);
}

#[test]
fn bytes_go_to_who_was_dialled_while_it_is_ready() {
    let Some(shop) = Shop::open() else { return };
    let proxy = Proxy::capturing(&shop.told());
    let ask = |address: &'static str| answers(20, "10.78.0.2", || shop.client.ask(address));
    assert_eq!(ask("10.78.0.11:9000"), only("one", 20));
    assert_eq!(ask("10.78.0.12:9000"), only("two", 20));
    // No port of the service: carried as it is.
    assert_eq!(ask("10.78.0.11:7000"), only("one", 20));
    eventually("they are counted", || {
        (proxy.metric("mesh_requests_total", &["client.shop", "passthrough"]) == 20.0).then_some(())
    });

    let [one, two] = &shop.web;
    let not_ready = Told::default().endpoint(11, EndpointState::NotReady).endpoint(12, EndpointState::Ready);
    let not_ready = not_ready.departed(77).workload("client.shop", &shop.client);
    let not_ready = not_ready.workload("web.shop", one).workload("web.shop", two);
    proxy.told.send_replace(not_ready.resources());
    eventually("another answers for it", || {
        (shop.client.ask("10.78.0.11:9000").unwrap() == "two 10.78.0.2").then_some(())
    });
    assert_eq!(ask("10.78.0.11:9000"), only("two", 20));
    assert_eq!(shop.client.get("10.78.0.11:8080", "10.78.0.11").unwrap(), "one 10.78.0.2", "exactly that one");
    // Nobody has this address any more; its service answers.
    eventually("the address is captured", || {
        shop.client.ask("10.78.0.77:9000").ok().filter(|answer| answer == "two 10.78.0.2")
    });
    assert_eq!(shop.client.get("10.78.0.77:8080", "web").unwrap(), "two 10.78.0.2");
}

#[test]
fn where_nobody_takes_requests_the_dialled_one_does() {
    let Some(shop) = Shop::open() else { return };
    let [one, two] = &shop.web;
    let told = Told::default().endpoint(11, EndpointState::NotReady).endpoint(12, EndpointState::Draining);
    let told = told.departed(77).workload("client.shop", &shop.client);
    let _proxy = Proxy::capturing(&told.workload("web.shop", one).workload("web.shop", two));
    for (address, expected) in [("10.78.0.11", "one"), ("10.78.0.12", "two")] {
        assert_eq!(
            answers(10, "10.78.0.2", || shop.client.get(&format!("{address}:8080"), "web")),
            only(expected, 10),
            "as without us"
        );
        assert_eq!(answers(10, "10.78.0.2", || shop.client.ask(&format!("{address}:9000"))), only(expected, 10));
    }
    // Who named the service alone is told that nobody is there.
    let refused = shop.client.get(&format!("{VIRTUAL}:8080"), "web").unwrap();
    assert_eq!(refused, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(shop.client.get("10.78.0.77:8080", "web").unwrap(), "HTTP/1.1 503 Service Unavailable");
}

#[test]
fn a_caller_of_the_same_service_gets_who_it_dialled() {
    let Some(shop) = Shop::open() else { return };
    let _proxy = Proxy::capturing(&shop.told());
    let [one, _two] = &shop.web;
    assert_eq!(answers(20, "10.78.0.11", || one.get("10.78.0.12:8080", "web:8080")), only("two", 20));
    assert_eq!(answers(20, "10.78.0.11", || one.ask("10.78.0.12:9000")), only("two", 20));
    assert_eq!(answers(40, "10.78.0.11", || one.get(&format!("{VIRTUAL}:8080"), "web")).len(), 2);
}

#[test]
fn an_endpoints_owner_has_the_last_word() {
    let Some(shop) = Shop::open() else { return };
    let (get, ask) = ("10.78.0.11:8080", "10.78.0.11:9000");
    for (mode, named, by_address, raw) in [
        (CaptureMode::Service, 2, 2, 2),
        (CaptureMode::Pinned, 1, 1, 1),
        // Not captured at all.
        (CaptureMode::Off, 1, 1, 1),
    ] {
        let mut told = shop.told();
        told.mode = mode;
        let proxy = Proxy::capturing(&told);
        let found = [
            answers(30, "10.78.0.2", || shop.client.get(get, "web")).len(),
            answers(30, "10.78.0.2", || shop.client.get(get, get)).len(),
            answers(30, "10.78.0.2", || shop.client.ask(ask)).len(),
        ];
        assert_eq!(found, [named, by_address, raw], "{mode:?}");
        // A raw connection is counted when both ends have closed it.
        let expected = if mode == CaptureMode::Off { 0.0 } else { 90.0 };
        eventually("they are counted", || {
            (proxy.metric("mesh_requests_total", &["client.shop"]) == expected).then_some(())
        });
    }
}
