//! Whole captures: what is redirected, what is not, and what is left when we are gone.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::Domain;

use super::super::capture::{CaptureConfig, CaptureError, Captured, UPSTREAM_MARK, redirect_unanswered, remove};
use super::super::netns::{self, ListenOptions, NetworkNamespace, tcp_socket_in};
use super::super::nftables::NftablesError;
use super::super::original_dst::original_destination;
use super::{PATIENCE, TestNamespace, address, connect_with, eventually, nodad, run};

const VIRTUAL: &str = "240.240.1.7:80";

fn open(namespace: &TestNamespace) -> Captured {
    Captured::open(Some(&namespace.handle()), &CaptureConfig::default()).unwrap()
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The next connection at our listener; made blocking.
fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let (stream, peer) = eventually("a connection is accepted", || match listener.accept() {
        Ok(accepted) => Some(accepted),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, peer)
}

fn assert_nobody_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// That bytes go both ways between the two.
fn assert_talk(left: &mut TcpStream, right: &mut TcpStream) {
    let (left, right) = (&*left, &*right);
    for (mut from, mut to) in [(left, right), (right, left)] {
        from.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        to.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}

fn assert_refused_at_once(namespace: &TestNamespace, target: &str) {
    let start = Instant::now();
    let error = namespace.connect(address(target)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{target}: {error}");
    assert!(start.elapsed() < Duration::from_secs(1), "{target}: {:?}", start.elapsed());
}

#[test]
fn a_virtual_ip_arrives_with_its_original_destination() {
    let Some(test) = TestNamespace::new() else { return };
    let mut captured = open(&test);
    let listener = captured.take_listeners().remove(0).ipv4;
    assert_eq!(listener.local_addr().unwrap(), address("127.0.0.1:14001"));
    let mut client = test.connect(address(VIRTUAL)).unwrap();
    assert_eq!(client.peer_addr().unwrap(), address(VIRTUAL), "the application sees what it dialled");
    let (mut server, peer) = accept(&listener);
    assert_eq!(original_destination(&server).unwrap(), Some(address(VIRTUAL)));
    assert_eq!(peer.ip(), address("127.0.0.1:0").ip());
    assert_talk(&mut client, &mut server);
}

#[test]
fn dialling_the_listener_itself_has_no_original_destination() {
    let Some(test) = TestNamespace::new() else { return };
    let mut captured = open(&test);
    let listener = captured.take_listeners().remove(0).ipv4;
    let _client = test.connect(address("127.0.0.1:14001")).unwrap();
    assert_eq!(original_destination(&accept(&listener).0).unwrap(), None);
    // Nor has a connection that nothing tracks at all.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(plain.local_addr().unwrap()).unwrap();
    assert_eq!(original_destination(&plain.accept().unwrap().0).unwrap(), None);
}

#[test]
fn only_the_addresses_named_are_captured() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoints = peer.listen("0.0.0.0:8080");
    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv4;
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();

    let mut client = app.connect(address("10.77.0.2:8080")).unwrap();
    let (mut server, from) = accept(&listener);
    assert_eq!(original_destination(&server).unwrap(), Some(address("10.77.0.2:8080")));
    assert_eq!(from.ip(), address("10.77.0.1:0").ip(), "the source is the application's own");
    assert_talk(&mut client, &mut server);

    let mut direct = app.connect(address("10.77.0.3:8080")).unwrap();
    assert_talk(&mut direct, &mut accept(&endpoints).0);
    assert_nobody_came(&listener);

    captured.set_addresses(&addresses(&["10.77.0.3"])).unwrap();
    let mut direct = app.connect(address("10.77.0.2:8080")).unwrap();
    assert_talk(&mut direct, &mut accept(&endpoints).0);
    let _client = app.connect(address("10.77.0.3:9090")).unwrap();
    assert_eq!(original_destination(&accept(&listener).0).unwrap(), Some(address("10.77.0.3:9090")));
}

#[test]
fn what_was_dialled_before_its_address_was_named_and_is_not_answered_is_captured() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    // On the wire, and nobody has it yet: as a container whose network is being set up. Then it is there, and listens or not.
    let cases =
        [("10.77.0.8:8080", true), ("10.77.0.9:8080", false), ("[fd77::8]:8080", true), ("[fd77::9]:8080", false)];
    for (late, listens) in cases.map(|(late, listens)| (address(late), listens)) {
        let mut captured = open(&app);
        let listeners = captured.take_listeners().remove(0);
        let listener = if late.is_ipv4() { listeners.ipv4 } else { listeners.ipv6.unwrap() };
        let socket = tcp_socket_in(Some(&app.handle()), Domain::for_address(late)).unwrap();
        assert_eq!(socket.connect(&late.into()).unwrap_err().raw_os_error(), Some(Errno::EINPROGRESS as i32));
        captured.set_addresses(&[late.ip()].into()).unwrap();
        let forgotten = redirect_unanswered(Some(&app.handle()), captured.addresses()).unwrap();
        assert_eq!(forgotten, 1);
        let prefix = format!("{}/{}", late.ip(), if late.is_ipv4() { 24 } else { 64 });
        // Before the address is on the wire: the first SYN waits for that.
        let elsewhere = listens.then(|| peer.listen(if late.is_ipv4() { "0.0.0.0:8080" } else { "[::]:8080" }));
        run("ip", &[&["-n", &peer.name, "addr", "add", &prefix, "dev", "eth0"][..], nodad(&prefix)].concat());
        let (mut server, _) = accept(&listener);
        assert_eq!(original_destination(&server).unwrap(), Some(late));
        elsewhere.iter().for_each(assert_nobody_came);
        socket.set_nonblocking(false).unwrap();
        assert_talk(&mut socket.into(), &mut server);
        assert_eq!(redirect_unanswered(Some(&app.handle()), captured.addresses()).unwrap(), 0);
        captured.remove().unwrap();
    }
}

#[test]
fn an_ipv6_endpoint_is_captured() {
    let Some((app, _peer)) = TestNamespace::pair() else { return };
    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv6.expect("the test's namespaces have IPv6");
    captured.set_addresses(&addresses(&["fd77::2"])).unwrap();
    let mut client = app.connect(address("[fd77::2]:8080")).unwrap();
    let (mut server, _) = accept(&listener);
    assert_eq!(original_destination(&server).unwrap(), Some(address("[fd77::2]:8080")));
    assert_talk(&mut client, &mut server);
}

#[test]
fn the_proxys_own_connections_pass() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoint = peer.listen("10.77.0.2:8080");
    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv4;
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();
    let mark = |socket: &socket2::Socket| netns::mark(socket, UPSTREAM_MARK).unwrap();
    let mut marked = connect_with(&app, address("10.77.0.2:8080"), mark).unwrap();
    let (mut server, from) = accept(&endpoint);
    assert_eq!(from.ip(), address("10.77.0.1:0").ip(), "the source is the application's own");
    assert_talk(&mut marked, &mut server);
    assert_nobody_came(&listener);
}

#[test]
fn an_application_that_dials_itself_is_left_alone() {
    let Some((app, _peer)) = TestNamespace::pair() else { return };
    let itself = app.listen("0.0.0.0:8080");
    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv4;
    captured.set_addresses(&addresses(&["10.77.0.1", "127.0.0.1"])).unwrap();
    assert_eq!(captured.addresses(), &addresses(&["10.77.0.1"]));
    for target in ["10.77.0.1:8080", "127.0.0.1:8080"] {
        let mut client = app.connect(address(target)).unwrap();
        assert_talk(&mut client, &mut accept(&itself).0);
    }
    assert_nobody_came(&listener);
}

#[test]
fn connections_older_than_capture_are_left_alone_and_counted() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoint = peer.listen("10.77.0.2:8080");
    let inbound = app.listen("10.77.0.1:7070");
    let mut older = app.connect(address("10.77.0.2:8080")).unwrap();
    let mut older_end = accept(&endpoint).0;
    let mut caller = peer.connect(address("10.77.0.1:7070")).unwrap();
    let mut called = accept(&inbound).0;

    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv4;
    let _redirected = app.connect(address(VIRTUAL)).unwrap();
    captured.note_older_connections().unwrap();
    assert_eq!(captured.count_older_connections().unwrap(), 0, "its address is not captured yet");
    accept(&listener);
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();
    assert_eq!(captured.count_older_connections().unwrap(), 2);
    // Connection tracking meets both in the middle; the first packet it sees goes to a captured address.
    assert_talk(&mut older, &mut older_end);
    assert_talk(&mut called, &mut caller);
    assert_nobody_came(&listener);

    let _new = app.connect(address("10.77.0.2:8080")).unwrap();
    accept(&listener);
    assert_eq!(captured.count_older_connections().unwrap(), 2, "what came after does not count");
    drop((older, older_end, called, caller));
    eventually("they are gone", || (captured.count_older_connections().unwrap() == 0).then_some(()));
}

#[test]
fn one_source_port_can_dial_two_captured_addresses() {
    let Some(test) = TestNamespace::new() else { return };
    let mut captured = open(&test);
    let listener = captured.take_listeners().remove(0).ipv4;
    let from_one_port = |socket: &socket2::Socket| {
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address("127.0.0.1:33333").into()).unwrap();
    };
    let mut held = Vec::new();
    for target in [VIRTUAL, "240.240.9.9:80", "240.240.1.7:81"] {
        let mut client = connect_with(&test, address(target), from_one_port).unwrap();
        assert_eq!(client.local_addr().unwrap().port(), 33333);
        let (mut server, _) = accept(&listener);
        assert_eq!(original_destination(&server).unwrap(), Some(address(target)));
        assert_talk(&mut client, &mut server);
        held.push((client, server));
    }
}

#[test]
fn released_it_goes_direct_and_what_was_redirected_lives_on() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoint = peer.listen("10.77.0.2:8080");
    let itself = app.listen("0.0.0.0:80");
    let mut captured = open(&app);
    let listener = captured.take_listeners().remove(0).ipv4;
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();
    let mut to_virtual = app.connect(address(VIRTUAL)).unwrap();
    let mut virtual_end = accept(&listener).0;
    let mut to_endpoint = app.connect(address("10.77.0.2:8080")).unwrap();
    let mut endpoint_end = accept(&listener).0;

    captured.release();
    assert!(!app.ruleset().contains("redirect"), "{}", app.ruleset());
    assert_talk(&mut to_virtual, &mut virtual_end);
    assert_talk(&mut to_endpoint, &mut endpoint_end);
    let mut direct = app.connect(address("10.77.0.2:8080")).unwrap();
    assert_talk(&mut direct, &mut accept(&endpoint).0);
    assert_nobody_came(&listener);
    assert_refused_at_once(&app, VIRTUAL);
    assert_nobody_came(&itself);
    assert_refused_at_once(&app, "240.240.1.7:81");
}

#[test]
fn removed_it_is_as_it_was() {
    let Some(test) = TestNamespace::new() else { return };
    let before = (test.ruleset(), test.local_routes());
    let captured = open(&test);
    assert!(test.local_routes().contains("local 240.240.0.0/16 dev lo proto 109"), "{}", test.local_routes());
    captured.remove().unwrap();
    assert_eq!((test.ruleset(), test.local_routes()), before);
    let namespace = test.handle();
    let config = CaptureConfig::default();
    assert!(!remove(Some(&namespace), config.virtual_ips).unwrap());
    drop(open(&test));
    assert!(remove(Some(&namespace), config.virtual_ips).unwrap(), "what a release leaves is found");
    assert_eq!((test.ruleset(), test.local_routes()), before);
}

#[test]
fn virtual_ips_need_no_network_and_never_leave_it() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    run("ip", &["-n", &app.name, "route", "add", "default", "via", "10.77.0.2"]);
    run("ip", &["-n", &peer.name, "route", "add", "local", "240.240.0.0/16", "dev", "lo"]);
    let outside = peer.listen("0.0.0.0:80");
    drop(open(&app));
    assert_refused_at_once(&app, VIRTUAL);
    assert_nobody_came(&outside);
}

#[test]
fn virtual_ips_are_refused_to_others_and_for_udp() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let itself = app.listen("0.0.0.0:80");
    let _udp = netns::udp_socket_in(Some(&app.handle()), address("0.0.0.0:80")).unwrap();
    let captured = open(&app);
    run("ip", &["-n", &peer.name, "route", "add", "240.240.0.0/16", "via", "10.77.0.1"]);
    assert_refused_at_once(&peer, VIRTUAL);
    assert_nobody_came(&itself);

    let client = netns::udp_socket_in(Some(&app.handle()), address("127.0.0.1:0")).unwrap();
    client.connect(address(VIRTUAL)).unwrap();
    client.send(b"x").unwrap();
    let error = eventually("an answer", || {
        client.recv(&mut [0; 1]).err().filter(|error| error.kind() != io::ErrorKind::WouldBlock)
    });
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    drop(captured);
}

#[test]
fn a_namespace_whose_loopback_is_down_can_be_captured() {
    let Some(test) = TestNamespace::with_loopback_down() else { return };
    let mut captured = open(&test);
    let listener = captured.take_listeners().remove(0).ipv4;
    let _client = test.connect(address(VIRTUAL)).unwrap();
    accept(&listener);
}

#[test]
fn a_taken_port_is_avoided_and_the_listeners_of_the_workers_share_one() {
    let Some(test) = TestNamespace::new() else { return };
    // By somebody who would share it.
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let taken = netns::tcp_listener_in(Some(&test.handle()), address("127.0.0.1:14001"), &options).unwrap();
    let config = CaptureConfig { workers: 3, ..CaptureConfig::default() };
    let mut captured = Captured::open(Some(&test.handle()), &config).unwrap();
    let listeners = captured.take_listeners();
    assert_ne!(captured.port(), 14001);
    assert_eq!(listeners.len(), 3);
    for worker in &listeners {
        assert_eq!(worker.ipv4.local_addr().unwrap().port(), captured.port());
        assert_eq!(worker.ipv6.as_ref().unwrap().local_addr().unwrap().port(), captured.port());
    }
    let _client = test.connect(address(VIRTUAL)).unwrap();
    eventually("one of them accepts", || {
        listeners.iter().find_map(|worker| {
            worker.ipv4.set_nonblocking(true).unwrap();
            worker.ipv4.accept().ok()
        })
    });
    assert_nobody_came(&taken);
}

#[test]
fn two_captures_of_one_namespace_exclude_each_other() {
    let Some(test) = TestNamespace::new() else { return };
    let first = open(&test);
    let second = Captured::open(Some(&test.handle()), &CaptureConfig::default());
    assert!(matches!(second, Err(CaptureError::Rules(NftablesError::OwnedByAnother { .. }))), "{second:?}");
    drop(first);
    open(&test);
}

#[test]
fn rules_hold_while_they_are_renewed_and_no_longer() {
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoint = peer.listen("10.77.0.2:8080");
    let alive_timeout = Duration::from_millis(600);
    let config = CaptureConfig { alive_timeout, ..CaptureConfig::default() };
    let mut captured = Captured::open(Some(&app.handle()), &config).unwrap();
    let listener = captured.take_listeners().remove(0).ipv4;
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();
    captured.renew_alive().unwrap();
    let start = Instant::now();
    let mut renewed = start;
    while start.elapsed() < 3 * alive_timeout {
        std::thread::park_timeout(alive_timeout / 10);
        let _client = app.connect(address("10.77.0.2:8080")).unwrap();
        // A machine that stood still for longer than the timeout proves nothing.
        if renewed.elapsed() < alive_timeout {
            accept(&listener);
        }
        renewed = Instant::now();
        captured.renew_alive().unwrap();
    }
    while listener.accept().is_ok() {}
    while endpoint.set_nonblocking(true).is_ok() && endpoint.accept().is_ok() {}
    eventually("the timeout has passed and it goes direct", || {
        let _client = app.connect(address("10.77.0.2:8080")).ok()?;
        while listener.accept().is_ok() {}
        endpoint.accept().ok()
    });
    let lasted = renewed.elapsed();
    assert!(lasted < alive_timeout + PATIENCE / 2, "{lasted:?}");
    assert_refused_at_once(&app, VIRTUAL);
    captured.renew_alive().unwrap();
    let _client = app.connect(address(VIRTUAL)).unwrap();
    accept(&listener);
}

/// The program of the child in [`killed_it_leaves_no_harm`]: captures, accepts two connections, and never answers.
fn capture_and_hang(path: &str) {
    let namespace = NetworkNamespace::open(path).unwrap();
    let mut captured = Captured::open(Some(&namespace), &CaptureConfig::default()).unwrap();
    captured.set_addresses(&addresses(&["10.77.0.2"])).unwrap();
    let listener = captured.take_listeners().remove(0).ipv4;
    println!("captured");
    let _held = (accept(&listener), accept(&listener));
    println!("accepted");
    // Ends with the parent's end of the pipe, should the parent fail before it kills this.
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn killed_it_leaves_no_harm() {
    const VARIABLE: &str = "MESH_TEST_CAPTURE";
    if let Ok(path) = std::env::var(VARIABLE) {
        return capture_and_hang(&path);
    }
    let Some((app, peer)) = TestNamespace::pair() else { return };
    let endpoint = peer.listen("10.77.0.2:8080");
    let itself = app.listen("0.0.0.0:80");
    let mut child = as_child(concat!(module_path!(), "::killed_it_leaves_no_harm"), VARIABLE, &app.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("captured")));
    let waiting = [VIRTUAL, "10.77.0.2:8080"].map(|target| app.connect(address(target)).unwrap());
    assert!(lines.any(|line| line == "accepted"));
    assert!(app.ruleset().contains("redirect"));

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!app.ruleset().contains("redirect"), "{}", app.ruleset());
    // A client that waits for an answer is told that none will come.
    for mut client in waiting {
        let ended = client.read(&mut [0; 1]);
        let is_end = matches!(&ended, Ok(0)) || matches!(&ended, Err(e) if e.kind() == io::ErrorKind::ConnectionReset);
        assert!(is_end, "{ended:?}");
    }
    let mut direct = app.connect(address("10.77.0.2:8080")).unwrap();
    assert_talk(&mut direct, &mut accept(&endpoint).0);
    assert_refused_at_once(&app, VIRTUAL);
    assert_nobody_came(&itself);
    open(&app);
}

/// Runs the test of this name once more, in a process of its own that knows by `variable` what it is.
fn as_child(test: &str, variable: &str, value: &str) -> Child {
    let (_crate, name) = test.split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(variable, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
