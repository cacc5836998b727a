//! The server over real sockets: both transports, other resolvers behind it, and `dig`.

use std::str::FromStr;
use std::time::Duration;

use mesh_core::task::drain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::*;
use crate::dns::{DnsConfig, DnsServer, Upstreams};

const DEADLINE: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    _snapshots: watch::Sender<Arc<Snapshot>>,
    drainer: drain::Drainer,
    task: tokio::task::JoinHandle<()>,
    registry: prometheus::Registry,
}

async fn start(upstreams: Vec<SocketAddr>) -> Running {
    start_on("127.0.0.1:0", upstreams).await
}

async fn start_on(listen: &str, upstreams: Vec<SocketAddr>) -> Running {
    let (sender, snapshots) = watch::channel(Arc::new(snapshot(120)));
    let registry = prometheus::Registry::new();
    let config = DnsConfig {
        listen: listen.parse().unwrap(),
        zone: "mesh.internal".to_owned(),
        upstreams: Upstreams::List(upstreams),
        allow: Allow::default(),
        virtual_ip_range: "240.240.0.0/16".parse().unwrap(),
    };
    let server = DnsServer::bind(config, snapshots, &registry).await.unwrap();
    let (drainer, drain) = drain::channel();
    let address = server.local_addr();
    Running { address, _snapshots: sender, drainer, task: tokio::spawn(server.run(drain)), registry }
}

async fn ask_udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 4096];
    let (len, from) = tokio::time::timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("in time").unwrap();
    assert_eq!(from, server);
    Message::from_vec(&buffer[..len]).unwrap()
}

async fn read_tcp(stream: &mut TcpStream) -> Message {
    let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

#[tokio::test]
async fn both_transports_are_served_and_drain() {
    let running = start(vec![]).await;
    let web = query("web.shop.svc.mesh.internal.", RecordType::A, Some(1232));
    assert_eq!(shown(&ask_udp(running.address, &web).await.answers), ["30 240.240.0.1"]);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let tasks = query("tasks.big.shop.svc.mesh.internal.", RecordType::A, None);
    // Pipelined (RFC 7766 section 6.2.1.1): both are sent before either is read.
    for query in [&web, &tasks] {
        let bytes = query.to_vec().unwrap();
        stream.write_all(&[(bytes.len() as u16).to_be_bytes().as_slice(), &bytes].concat()).await.unwrap();
    }
    assert_eq!(shown(&read_tcp(&mut stream).await.answers), ["30 240.240.0.1"]);
    assert_eq!(read_tcp(&mut stream).await.answers.len(), 120);
    let text = mesh_core::telemetry::metrics::render(&running.registry);
    assert!(text.contains(r#"mesh_dns_requests_total{transport="tcp",type="A"} 2"#), "{text}");
    assert!(text.contains(r#"mesh_dns_responses_total{rcode="NOERROR"} 3"#), "{text}");
    tokio::time::timeout(DEADLINE, running.drainer.drain()).await.expect("an idle connection holds nobody up");
    running.task.await.unwrap();
}

#[tokio::test]
async fn one_that_waits_for_an_upstream_holds_up_nobody_behind_it() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let running = start(vec![upstream.local_addr().unwrap()]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut slow = query("example.org.", RecordType::A, None);
    slow.metadata.id = 1;
    let fast = query("web.shop.svc.mesh.internal.", RecordType::A, None);
    for query in [&slow, &fast] {
        let bytes = query.to_vec().unwrap();
        stream.write_all(&[(bytes.len() as u16).to_be_bytes().as_slice(), &bytes].concat()).await.unwrap();
    }
    // The upstream is silent until the second has its answer.
    let first = tokio::time::timeout(DEADLINE, read_tcp(&mut stream)).await.expect("an answer");
    assert_eq!((first.metadata.id, shown(&first.answers)), (77, vec!["30 240.240.0.1".to_owned()]));
    // The client says that nothing more will come; what it asked is answered all the same.
    stream.shutdown().await.unwrap();
    let mut buffer = [0; 512];
    let (len, asker) = tokio::time::timeout(DEADLINE, upstream.recv_from(&mut buffer)).await.expect("asked").unwrap();
    let mut answer = Message::from_vec(&buffer[..len]).unwrap();
    answer.metadata.message_type = MessageType::Response;
    upstream.send_to(&answer.to_vec().unwrap(), asker).await.unwrap();
    let second = tokio::time::timeout(DEADLINE, read_tcp(&mut stream)).await.expect("an answer");
    assert_eq!((second.metadata.id, second.metadata.response_code), (1, ResponseCode::NoError));
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "and then it is closed");
}

#[tokio::test]
async fn a_reply_leaves_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.2"), ("[::]:0", "::1")] {
        // A machine without IPv6 has only the first.
        if listen.starts_with('[') && UdpSocket::bind("[::1]:0").await.is_err() {
            continue;
        }
        let running = start_on(listen, vec![]).await;
        let asked: IpAddr = asked.parse().unwrap();
        let client = UdpSocket::bind((if asked.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).await.unwrap();
        // Connected: the kernel lets through only what comes from there.
        client.connect((asked, running.address.port())).await.unwrap();
        let web = query("web.shop.svc.mesh.internal.", RecordType::A, None);
        client.send(&web.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 512];
        let received = tokio::time::timeout(DEADLINE, client.recv(&mut buffer)).await;
        let len = received.unwrap_or_else(|_| panic!("{asked} on {listen} does not answer")).unwrap();
        assert_eq!(shown(&Message::from_vec(&buffer[..len]).unwrap().answers), ["30 240.240.0.1"]);
    }
}

#[tokio::test]
async fn others_are_asked_and_checked() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream_address = upstream.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (len, client) = upstream.recv_from(&mut buffer).await.unwrap();
        let mut reply = Message::from_vec(&buffer[..len]).unwrap();
        reply.metadata.message_type = MessageType::Response;
        let right = reply.clone();
        reply.metadata.id ^= 1;
        upstream.send_to(&reply.to_vec().unwrap(), client).await.unwrap(); // forged: another id
        let mut other = right.clone();
        other.queries = vec![Query::query(Name::from_str("evil.example.").unwrap(), RecordType::A)];
        upstream.send_to(&other.to_vec().unwrap(), client).await.unwrap(); // forged: another question
        let mut right = right;
        let address = RData::A("192.0.2.1".parse().unwrap());
        right.add_answer(hickory_proto::rr::Record::from_rdata(right.queries[0].name().clone(), 9, address));
        upstream.send_to(&right.to_vec().unwrap(), client).await.unwrap();
    });
    // The first upstream refuses at once: nobody listens there any more.
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let running = start(vec![closed, upstream_address]).await;
    let reply = ask_udp(running.address, &query("example.org.", RecordType::A, None)).await;
    assert_eq!((reply.metadata.id, shown(&reply.answers)), (77, vec!["9 192.0.2.1".to_owned()]));
    answering.await.unwrap();

    let alone = start(vec![closed]).await;
    let reply = ask_udp(alone.address, &query("example.org.", RecordType::A, None)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let text = mesh_core::telemetry::metrics::render(&alone.registry);
    assert!(text.contains(r#"mesh_dns_forwards_total{outcome="failed"} 1"#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dig_agrees() {
    let running = start(vec![]).await;
    let port = running.address.port().to_string();
    let dig = move |arguments: &[&str]| {
        let mut command = std::process::Command::new("dig");
        command.args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=5"]).args(arguments).output()
    };
    if let Err(error) = dig(&["-v"]) {
        assert!(std::env::var_os("MESH_E2E").is_none_or(|value| value != "1"), "dig cannot be run: {error}");
        eprintln!("skipped: dig cannot be run: {error}");
        return;
    }
    tokio::task::spawn_blocking(move || {
        for (arguments, wanted) in [
            (&["web.shop.svc.mesh.internal"][..], &["status: NOERROR", "30\tIN\tA\t240.240.0.1", "udp: 1232"][..]),
            (&["_http._tcp.web.shop.svc.mesh.internal", "SRV"], &["0 300 9000 10-0-0-1.web.shop", "ADDITIONAL: 3"]),
            (&["web.shop.svc.mesh.internal", "AAAA"], &["status: NOERROR", "ANSWER: 0", "SOA"]),
            (&["none.shop.svc.mesh.internal"], &["status: NXDOMAIN", "SOA"]),
            (&["tasks.big.shop.svc.mesh.internal"], &["ANSWER: 120", "(TCP)"]),
            (&["+edns=1", "+noednsnegotiation", "web.shop.svc.mesh.internal"], &["status: BADVERS"]),
            (&["-x", "240.240.0.1"], &["PTR\tweb.shop.svc.mesh.internal."]),
        ] {
            let output = String::from_utf8(dig(arguments).unwrap().stdout).unwrap();
            for part in wanted {
                assert!(output.contains(part), "{part:?} not in what dig {arguments:?} says: {output}");
            }
            assert!(!output.contains("Warning") && !output.contains("malformed"), "{output}");
        }
    })
    .await
    .unwrap();
}
