//! gRPC's own client and service, with the proxy in between. What stands on the wire is looked at in `tests/conformance/grpc.rs`.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::LazyLock;

use mesh_tests::address::{free_port, own_address};
use mesh_tests::daemon::{DEADLINE, Daemon};
use mesh_tests::eventually::until;
use mesh_tests::need::{Need, main as run, trial};
use mesh_tests::peer;

/// As the script names them.
const CASES: [&str; 32] = [
    "unary",
    "empty_message",
    "server_streaming",
    "server_streaming_of_nothing",
    "client_streaming",
    "client_streaming_of_nothing",
    "ping_pong",
    "initial_metadata_before_any_question",
    "metadata_both_ways",
    "metadata_of_7_kib",
    "every_status",
    "status_behind_messages",
    "unknown_method",
    "deadline_is_seen",
    "deadline_ends_both_sides",
    "deadline_of_a_stream",
    "cancelled_unary",
    "cancelled_server_streaming",
    "cancelled_client_streaming",
    "channel_closed_within_a_call",
    "answer_before_all_was_asked",
    "message_of_16_mib",
    "messages_of_1_mib_both_ways",
    "stream_of_16_mib",
    "compressed",
    "user_agent",
    "slow_reader_and_its_neighbours",
    "many_calls_at_once",
    "many_streams_at_once",
    "many_channels",
    "nobody_there",
    "endpoint_dies_within_an_answer",
];

/// How much memory all of it may cost the proxy, in a build without optimisation.
const GROWN_BYTES_MAX: u64 = 16 << 20;

/// What became of each case, and of the proxy.
struct Outcome {
    cases: BTreeMap<String, String>,
    grown_bytes: u64,
}

static OUTCOME: LazyLock<Outcome> = LazyLock::new(call_all);

fn serve(address: SocketAddr) -> Daemon {
    let script = script();
    let mut command = Command::new(peer::path("python"));
    let daemon = Daemon::start_command("python", command.args([&script, "serve", &address.to_string()]));
    until("a service that is ready", DEADLINE, || daemon.stdout().contains("ready"));
    daemon
}

fn script() -> String {
    format!("{}/peers/grpc_calls.py", env!("CARGO_MANIFEST_DIR"))
}

/// The most memory that a process ever had.
fn most_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn call_all() -> Outcome {
    let address: IpAddr = own_address();
    let at = |port| SocketAddr::new(address, port);
    let [good, doomed, dead] = [(); 3].map(|()| at(free_port(address)));
    let (through, admin) = ([(); 3].map(|()| at(free_port(address))), at(free_port(address)));
    let _services = [good, doomed].map(serve);
    let names = ["good", "doomed", "dead"];
    let listeners: String = (names.iter().zip(&through))
        .map(|(name, at)| format!("  - {{ listen: \"{at}\", protocol: http, service: {name} }}\n"))
        .collect();
    let services: String = (names.iter().zip([good, doomed, dead]))
        .map(|(name, to)| format!("  {name}: {{ protocol: http2, endpoints: [ {{ address: \"{to}\" }} ] }}\n"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let admin = format!("admin: {{ listen: \"{admin}\" }}");
    std::fs::write(&path, format!("workers: 1\n{admin}\nlisteners:\n{listeners}services:\n{services}")).unwrap();
    let proxy = Daemon::start("mesh-proxy", &["--config", path.to_str().unwrap()]);
    until("a proxy that listens", DEADLINE, || through.iter().all(|at| TcpStream::connect(at).is_ok()));
    let before = most_bytes(&proxy);
    let [good, doomed, dead] = through.map(|at| at.to_string());
    let told = peer::run(peer::path("python"), &[&script(), "call", &good, &dead, &doomed]);
    let case = |line: &str| line.split_once(' ').map(|(name, outcome)| (name.to_owned(), outcome.to_owned()));
    Outcome { cases: told.lines().filter_map(case).collect(), grown_bytes: most_bytes(&proxy) - before }
}

fn main() {
    let needs = [Need::Python("grpc")];
    let case = |name: &'static str| {
        trial(name, &needs, move || {
            assert_eq!(OUTCOME.cases.get(name).map(String::as_str), Some("ok"));
        })
    };
    let every_case = trial("every_case_has_a_name", &needs, || {
        let nameless: Vec<&String> = OUTCOME.cases.keys().filter(|name| !CASES.contains(&name.as_str())).collect();
        assert!(nameless.is_empty(), "{nameless:?}");
    });
    let memory = trial("all_of_it_takes_little_memory", &needs, || {
        println!("{} KiB", OUTCOME.grown_bytes >> 10);
        assert!(OUTCOME.grown_bytes <= GROWN_BYTES_MAX, "the proxy grew by {} bytes", OUTCOME.grown_bytes);
    });
    run(CASES.into_iter().map(case).chain([every_case, memory]).collect());
}
