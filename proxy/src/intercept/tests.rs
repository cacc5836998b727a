//! The stage against the real kernel: namespaces of its own, made with `ip netns` and removed on drop.
//!
//! It needs root. Without it each test says why it did not run; with `MESH_E2E=1` that is a failure.

mod capture;
mod docker;
mod netns;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use socket2::Domain;

use super::netns::{ListenOptions, NetworkNamespace, tcp_listener_in, tcp_socket_in};

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this process may do what the tests do; says why not.
pub(super) fn is_root() -> bool {
    if Uid::effective().is_root() {
        return true;
    }
    let reason = "making network namespaces needs root";
    assert!(std::env::var_os("MESH_E2E").is_none_or(|value| value != "1"), "MESH_E2E=1, but {reason}");
    println!("skipped: {reason}");
    false
}

/// Runs a command to its end and returns what it printed.
pub(super) fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// An IPv6 address is of use at once, without looking for duplicates.
pub(super) fn nodad(address: &str) -> &'static [&'static str] {
    if address.contains(':') { &["nodad"] } else { &[] }
}

/// Waits until `condition` yields something.
pub(super) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A network namespace with `lo` up, and nothing else.
pub(super) struct TestNamespace {
    pub(super) name: String,
}

impl TestNamespace {
    /// `None` where the test cannot run.
    pub(super) fn new() -> Option<Self> {
        let namespace = Self::with_loopback_down()?;
        run("ip", &["-n", &namespace.name, "link", "set", "lo", "up"]);
        Some(namespace)
    }

    pub(super) fn with_loopback_down() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return None;
        }
        let name = format!("mesh-t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        Some(Self { name })
    }

    /// Two namespaces on one wire: 10.77.0.1 and 10.77.0.2 (and .3), fd77::1 and fd77::2.
    pub(super) fn pair() -> Option<(Self, Self)> {
        let (left, right) = (Self::new()?, Self::new()?);
        let (l, r) = (left.name.as_str(), right.name.as_str());
        run("ip", &["-n", l, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", r]);
        for (name, addresses) in
            [(l, &["10.77.0.1/24", "fd77::1/64"][..]), (r, &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64"])]
        {
            for address in addresses {
                run("ip", &[&["-n", name, "addr", "add", address, "dev", "eth0"], nodad(address)].concat());
            }
            run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        }
        eventually("the wire is up", || {
            let state = run("ip", &["-n", l, "-br", "link", "show", "eth0"]);
            state.contains("LOWER_UP").then_some(())
        });
        Some((left, right))
    }

    pub(super) fn path(&self) -> String {
        format!("/var/run/netns/{}", self.name)
    }

    pub(super) fn handle(&self) -> NetworkNamespace {
        NetworkNamespace::open(self.path()).unwrap()
    }

    /// What `nft` prints, without the handles.
    pub(super) fn ruleset(&self) -> String {
        run("ip", &["netns", "exec", &self.name, "nft", "list", "ruleset"])
    }

    pub(super) fn local_routes(&self) -> String {
        run("ip", &["-n", &self.name, "route", "show", "table", "local"])
    }

    /// A blocking listener inside.
    pub(super) fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        let listener = tcp_listener_in(Some(&self.handle()), address, &ListenOptions::default()).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener
    }

    /// A blocking connection from inside.
    pub(super) fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        connect_with(self, address, |_| {})
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        // A failed removal must not hide why the test failed.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A blocking connection from inside, from a socket that `prepare` has seen.
pub(super) fn connect_with(
    namespace: &TestNamespace,
    address: SocketAddr,
    prepare: impl FnOnce(&socket2::Socket),
) -> io::Result<TcpStream> {
    let socket = tcp_socket_in(Some(&namespace.handle()), Domain::for_address(address)).unwrap();
    socket.set_nonblocking(false)?;
    prepare(&socket);
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
