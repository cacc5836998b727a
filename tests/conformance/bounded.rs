//! The proxy's memory while peers do their worst (RFC 9110 section 17.5). The binary itself is measured, as a user starts it.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use mesh_tests::address::{free_port, own_address};
use mesh_tests::daemon::Daemon;
use mesh_tests::eventually::eventually;

use crate::backend::{Act, Backend, Script};
use crate::client::{Client, Delivery};
use crate::h2;
use crate::world::DEADLINE;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9112 9.5: two thousand idle connections cost little, and nobody else waits", idle_connections),
    ("9110 17.5: a client that does not read its responses is held back", a_client_that_does_not_read),
    ("9110 17.5: a client that reads no answer to its pipeline is held back", a_pipeline_without_reading),
    ("9110 17.5: an origin that does not read a body is held back", an_origin_that_does_not_read),
    ("9110 17.5: a response head without end is cut", an_endless_head),
    ("9113 10.5: a thousand idle connections of h2 cost little, and nobody else waits", idle_h2),
    ("9113 10.5: a client that reads none of its streams is held back", unread_streams),
    ("9113 10.5: streams that are reset at once, on one connection after the other", rapid_resets),
];

/// What a connection may cost in a build without optimisation.
const IDLE_BYTES_MAX: u64 = 32 << 10;

/// What one exchange may cost, be it as long as it likes.
const EXCHANGE_BYTES_MAX: u64 = 16 << 20;

/// Far more than that.
const LONG: usize = 64 << 20;

/// The proxy as a process, in front of an origin and of one that takes connections and reads nothing.
struct Process {
    daemon: Daemon,
    web: SocketAddr,
    stuck: SocketAddr,
    backend: Backend,
    _reads_nothing: TcpListener,
    _folder: tempfile::TempDir,
}

impl Process {
    fn start(scripts: Vec<Script>) -> Self {
        let address: IpAddr = own_address();
        let backend = Backend::start(scripts, Delivery::Whole);
        let reads_nothing = TcpListener::bind("127.0.0.1:0").unwrap();
        let [web, stuck] = [(); 2].map(|()| SocketAddr::new(address, free_port(address)));
        let service = |name: &str, to: SocketAddr| {
            format!(
                "  {name}: {{ endpoints: [ {{ address: \"{to}\" }} ], retry: {{ on: [] }}, circuit: {{ max_requests: 5000, max_connections: 5000 }} }}\n"
            )
        };
        let listener =
            |name: &str, at: SocketAddr| format!("  - {{ listen: \"{at}\", protocol: http, service: {name} }}\n");
        let file = format!(
            "workers: 1\nadmin: {{ listen: \"{}\" }}\nlisteners:\n{}{}services:\n{}{}",
            SocketAddr::new(address, free_port(address)),
            listener("web", web),
            listener("stuck", stuck),
            service("web", backend.address),
            service("stuck", reads_nothing.local_addr().unwrap()),
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        std::fs::write(&path, file).unwrap();
        let daemon = Daemon::start("mesh-proxy", &["--config", path.to_str().unwrap()]);
        eventually("a proxy that listens", DEADLINE, || {
            TcpStream::connect(web).map_err(|error| format!("{error}: {}", daemon.stderr()))
        });
        let process = Self { daemon, web, stuck, backend, _reads_nothing: reads_nothing, _folder: folder };
        // What is made once is made now.
        process.serves();
        process
    }

    fn serves(&self) {
        let mut client = Client::connect(self.web);
        client.send("GET /probe HTTP/1.1\r\nHost: web\r\n\r\n");
        assert_eq!(client.response("GET").entire().text(), "GET /probe");
    }

    /// The most memory that it ever had.
    fn most_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Memory may grow by so much while `test` runs.
    fn grows_at_most(&self, bytes: u64, test: impl FnOnce()) {
        let before = self.most_bytes();
        test();
        self.serves();
        let grown = self.most_bytes() - before;
        println!("{} KiB more, of {} allowed", grown >> 10, bytes >> 10);
        assert!(grown <= bytes, "memory grew by {grown} bytes; {bytes} are allowed");
    }
}

fn idle_connections() {
    let process = Process::start(vec![]);
    let number = 2_000;
    process.grows_at_most(number * IDLE_BYTES_MAX, || {
        let mut clients: Vec<Client> = (0..number).map(|_| Client::connect(process.web)).collect();
        process.serves();
        for client in &mut clients {
            client.send("GET /one HTTP/1.1\r\nHost: web\r\n\r\n");
            assert_eq!(client.response("GET").entire().text(), "GET /one");
        }
        process.serves();
        for client in &mut clients {
            client.send("GET /two HTTP/1.1\r\nHost: web\r\n\r\n");
            assert_eq!(client.response("GET").entire().text(), "GET /two");
        }
    });
}

/// Answers `/first` with a long body, and ends it well.
fn long_answer() -> Vec<Script> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n").into_bytes();
    vec![Script { target: "/first", early: false, acts: vec![Act::Send(head), Act::Send(vec![b'x'; LONG])] }]
}

fn a_client_that_does_not_read() {
    let process = Process::start(long_answer());
    process.grows_at_most(EXCHANGE_BYTES_MAX, || {
        let mut client = Client::connect(process.web);
        client.send("GET /first HTTP/1.1\r\nHost: web\r\n\r\n");
        process.backend.wait_request("/first");
        // Time for the proxy to take what it takes.
        (0..100).for_each(|_| process.serves());
        // It reads on in the end, and all of it is there.
        assert_eq!(client.head().status, 200);
        assert_eq!(client.skip(LONG), LONG);
    });
}

/// Writes as much as goes while others are served; how much it was.
fn fill(client: TcpStream, piece: &[u8], process: &Process) -> usize {
    client.set_nonblocking(true).unwrap();
    let (mut client, mut sent, mut refused) = (client, 0, 0);
    while refused < 50 && sent < LONG {
        match client.write(piece) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                process.serves();
            }
            Err(_) => return sent,
        }
    }
    sent
}

fn a_pipeline_without_reading() {
    let process = Process::start(vec![]);
    process.grows_at_most(EXCHANGE_BYTES_MAX, || {
        let client = TcpStream::connect(process.web).unwrap();
        let sent = fill(client, "GET /one HTTP/1.1\r\nHost: web\r\n\r\n".repeat(1000).as_bytes(), &process);
        assert!(sent < LONG, "{sent} bytes of requests were taken though no answer was read");
    });
}

fn an_origin_that_does_not_read() {
    let process = Process::start(vec![]);
    process.grows_at_most(EXCHANGE_BYTES_MAX, || {
        let mut client = TcpStream::connect(process.stuck).unwrap();
        client
            .write_all(format!("POST / HTTP/1.1\r\nHost: stuck\r\nContent-Length: {}\r\n\r\n", 4 * LONG).as_bytes())
            .unwrap();
        let sent = fill(client, &vec![b'x'; 256 << 10], &process);
        assert!(sent < LONG, "{sent} bytes of a body were taken though the origin reads nothing");
    });
}

fn an_endless_head() {
    let acts = vec![Act::Send(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec()), Act::Send(vec![b'v'; LONG])];
    let process = Process::start(vec![Script { target: "/first", early: false, acts }]);
    process.grows_at_most(EXCHANGE_BYTES_MAX, || {
        let mut client = Client::connect(process.web);
        client.send("GET /first HTTP/1.1\r\nHost: web\r\n\r\n");
        assert_eq!(client.response("GET").entire().status, 502);
    });
}

fn idle_h2() {
    let process = Process::start(vec![]);
    let number = 1_000;
    process.grows_at_most(number * IDLE_BYTES_MAX, || {
        let mut clients: Vec<h2::client::Client> =
            (0..number).map(|_| h2::client::Client::connect(process.web)).collect();
        process.serves();
        for client in &mut clients {
            client.serves("/one");
        }
        process.serves();
    });
}

/// What one unread stream may hold, both ways and in sockets.
const STREAM_BYTES_MAX: u64 = 512 << 10;

fn unread_streams() {
    let answer = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 8 << 20]].concat();
    let process = Process::start(vec![Script { target: "/first", early: false, acts: vec![Act::Send(answer)] }]);
    let number = 50;
    process.grows_at_most(number * STREAM_BYTES_MAX, || {
        let mut client = h2::client::Client::connect(process.web);
        client.polite = false;
        let streams: Vec<u32> = (0..number).map(|_| client.ask(&h2::client::get("/first"))).collect();
        client.wait("every head", |heard| {
            streams.iter().all(|stream| heard.on(*stream).is_some_and(|said| said.head().is_some())).then_some(())
        });
        for _ in 0..20 {
            client.settle();
            process.serves();
        }
        let got: usize = client.heard.streams.values().map(|said| said.body.len()).sum();
        assert!(got <= 65_535, "{got} bytes came through a window of 65,535");
    });
}

fn rapid_resets() {
    let process = Process::start(vec![]);
    process.grows_at_most(EXCHANGE_BYTES_MAX, || {
        let block = h2::hpack::block(&h2::client::get("/one"));
        for _ in 0..20 {
            let mut client = h2::client::Client::connect(process.web);
            let stream = |number: u32| {
                let stream = 2 * number + 1;
                let reset = h2::frame::reset(stream, h2::frame::code::CANCEL);
                [h2::frame::headers(stream, h2::frame::flag::END_STREAM, &block), reset].concat()
            };
            client.send((0..5000).flat_map(stream).collect::<Vec<u8>>());
            client.end();
        }
    });
}
