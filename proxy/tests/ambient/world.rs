//! Namespaces on one bridge, backends that say who they are and who called, clients that dial from inside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mesh_proxy::intercept::netns::{ListenOptions, NetworkNamespace, tcp_listener_in, tcp_socket_in};
use socket2::Domain;

/// Nothing here takes that long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this process may do what the tests do; says why not.
pub fn is_root() -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    let reason = "making network namespaces needs root";
    assert!(std::env::var_os("MESH_E2E").is_none_or(|value| value != "1"), "MESH_E2E=1, but {reason}");
    println!("skipped: {reason}");
    false
}

pub fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `condition` yields something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A network namespace, removed on drop.
pub struct Namespace {
    pub name: String,
}

/// Namespaces on one bridge: their addresses are 10.78.0.N.
pub struct World {
    switch: Namespace,
}

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mesh-a{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub fn handle(&self) -> NetworkNamespace {
        NetworkNamespace::open(self.path()).unwrap()
    }

    /// What a capture would leave: rules, and routes of our own.
    pub fn traces(&self) -> String {
        let rules = run("ip", &["netns", "exec", &self.name, "nft", "list", "ruleset"]);
        let routes = run("ip", &["-n", &self.name, "route", "show", "table", "local"]);
        let ours: Vec<_> = routes.lines().filter(|line| line.contains("240.240.")).collect();
        rules + &ours.join("\n")
    }

    fn listen(&self, port: u16) -> TcpListener {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = tcp_listener_in(Some(&self.handle()), address, &ListenOptions::default()).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener
    }

    /// An HTTP/1.1 server that answers each request with `NAME CALLER`, and the lines that say who called besides.
    pub fn serve_http(&self, port: u16, name: &'static str) {
        serve(self.listen(port), move |mut stream, caller| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some(head) = read_head(&mut reader) {
                assert!(!head.is_empty());
                let says_who_called = |line: &&str| line.to_ascii_lowercase().contains("forwarded");
                let told: String = head.lines().filter(says_who_called).map(|line| format!(" ({line})")).collect();
                let body = format!("{name} {caller}{told}");
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }

    /// A server that answers each line with `NAME CALLER`, and a line.
    pub fn serve_lines(&self, port: u16, name: &'static str) {
        serve(self.listen(port), move |mut stream, caller| {
            let reader = BufReader::new(stream.try_clone().unwrap());
            for _line in reader.lines().map_while(Result::ok) {
                if writeln!(stream, "{name} {caller}").is_err() {
                    return;
                }
            }
        });
    }

    pub fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        let socket = tcp_socket_in(Some(&self.handle()), Domain::for_address(address)).unwrap();
        socket.set_nonblocking(false)?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// One request on a connection of its own.
    pub fn get(&self, address: &str, host: &str) -> std::io::Result<String> {
        Client { reader: BufReader::new(self.connect(address)?) }.get(host)
    }

    pub fn client(&self, address: &str) -> Client {
        Client { reader: BufReader::new(self.connect(address).unwrap()) }
    }

    /// One line on a connection of its own.
    pub fn ask(&self, address: &str) -> std::io::Result<String> {
        let mut stream = self.connect(address)?;
        stream.write_all(b"who\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(line.trim_end().to_owned()) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failed removal must not hide why the test failed.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

impl World {
    pub fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let switch = Namespace::new();
        run("ip", &["-n", &switch.name, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &switch.name, "link", "set", "br0", "up"]);
        Some(Self { switch })
    }

    /// A namespace with the address 10.78.0.N.
    pub fn namespace(&self, n: u8) -> Namespace {
        let namespace = Namespace::new();
        let (name, port) = (namespace.name.as_str(), format!("port{n}"));
        run(
            "ip",
            &["-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &self.switch.name],
        );
        run("ip", &["-n", &self.switch.name, "link", "set", &port, "master", "br0", "up"]);
        run("ip", &["-n", name, "addr", "add", &format!("10.78.0.{n}/24"), "dev", "eth0"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        eventually("the port forwards", || {
            let state = run("ip", &["netns", "exec", &self.switch.name, "bridge", "link", "show"]);
            state.lines().any(|line| line.contains(&format!("{port}@")) && line.contains("forwarding")).then_some(())
        });
        namespace
    }
}

/// Accepts for as long as the test runs; its threads end with the process.
fn serve(listener: TcpListener, each: impl Fn(TcpStream, String) + Send + Sync + Clone + 'static) {
    std::thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let each = each.clone();
            std::thread::spawn(move || each(stream, peer.ip().to_string()));
        }
    });
}

fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// A kept-alive connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// The body of a 200; the status line of anything else.
    pub fn get(&mut self, host: &str) -> std::io::Result<String> {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let head = read_head(&mut self.reader).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.reader.read_exact(&mut body)?;
        let status = head.lines().next().unwrap_or_default().to_owned();
        Ok(if status.contains(" 200 ") { String::from_utf8(body).unwrap() } else { status })
    }
}
