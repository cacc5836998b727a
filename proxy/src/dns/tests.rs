//! SRV clusters against a small resolver of the test's own.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::UpstreamProtocol;
use mesh_core::model::resource::{Cluster, EndpointSource, Resources};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::DnsClusters;
use super::records::{Answer, TTL_MAX, TTL_MIN, assignment};

const SRV_NAME: &str = "_http._tcp.web.shop.svc.mesh.internal.";
const DEADLINE: Duration = Duration::from_secs(10);

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn srv(ttl: u32, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::from_rdata(name(SRV_NAME), ttl, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

fn a(target: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(name(target), ttl, RData::A(A(address.parse().unwrap())))
}

fn message(answers: Vec<Record>, additionals: Vec<Record>) -> Message {
    let mut message = Message::query();
    message.answers = answers;
    message.additionals = additionals;
    message
}

fn shown(answer: &Answer) -> Vec<String> {
    let assignment = assignment(&"web".into(), answer);
    let show = |t: &mesh_core::model::resource::Target| format!("{} w{} p{}", t.id, t.weight, t.priority);
    assignment.endpoints.iter().map(show).collect()
}

#[test]
fn records_become_endpoints() {
    let check = |answers: Vec<Record>, additionals: Vec<Record>, expected: &[&str]| {
        assert_eq!(shown(&Answer::read(&message(answers, additionals)).unwrap()), expected);
    };
    check(
        vec![srv(5, 0, 3, 80, "b.x."), srv(5, 1, 1, 81, "A.x.")],
        vec![a("a.x.", 5, "10.0.0.1"), a("B.X.", 5, "10.0.0.2")],
        &["10.0.0.1:81@0 w1 p1", "10.0.0.2:80@0 w3 p0"],
    );
    // RFC 2782: weights of 0 everywhere mean nothing; beside others a very small share.
    check(vec![srv(5, 0, 0, 80, "a.x.")], vec![a("a.x.", 5, "10.0.0.1")], &["10.0.0.1:80@0 w100 p0"]);
    check(
        vec![srv(5, 0, 0, 80, "a.x."), srv(5, 0, 9, 81, "a.x.")],
        vec![a("a.x.", 5, "10.0.0.1")],
        &["10.0.0.1:80@0 w1 p0", "10.0.0.1:81@0 w9 p0"],
    );
    // RFC 2782: the root as target says "not available here".
    check(vec![srv(5, 0, 1, 80, ".")], vec![], &[]);
    // Additional records of a name nobody pointed at are not taken.
    check(vec![srv(5, 0, 1, 80, "a.x.")], vec![a("evil.x.", 5, "10.6.6.6")], &[]);
}

#[test]
fn an_answer_is_used_for_its_shortest_ttl_within_bounds() {
    let ttl = |answers, additionals| Answer::read(&message(answers, additionals)).unwrap().ttl;
    assert_eq!(ttl(vec![srv(9, 0, 1, 80, "a.x.")], vec![a("a.x.", 5, "10.0.0.1")]), Duration::from_secs(5));
    assert_eq!(ttl(vec![srv(0, 0, 1, 80, "a.x.")], vec![]), TTL_MIN);
    assert_eq!(ttl(vec![srv(86_400, 0, 1, 80, "a.x.")], vec![]), TTL_MAX);
    let mut nodata = message(vec![], vec![]);
    let soa = SOA::new(name("ns.x."), name("h.x."), 1, 1, 1, 1, 7);
    nodata.authorities.push(Record::from_rdata(name("x."), 30, RData::SOA(soa)));
    assert_eq!(Answer::read(&nodata).unwrap().ttl, Duration::from_secs(7), "RFC 2308");
}

/// Answers SRV queries with what it holds at the moment, and A queries of `t.x.` with 127.0.0.9.
async fn resolver(script: Arc<Mutex<(ResponseCode, Vec<Record>)>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
            let mut reply = Message::from_vec(&buffer[..len]).unwrap();
            reply.metadata.message_type = MessageType::Response;
            if reply.queries[0].query_type() == RecordType::SRV {
                let (code, answers) = script.lock().unwrap().clone();
                reply.metadata.response_code = code;
                reply.answers = answers;
            } else if reply.queries[0].query_type() == RecordType::A {
                reply.answers = vec![a("t.x.", 1, "127.0.0.9")];
            }
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    address
}

async fn wait_for(output: &mut watch::Receiver<Arc<Resources>>, expected: &[&str]) {
    let fits = |resources: &Arc<Resources>| {
        resources.assignments.get("web").is_some_and(|assignment| {
            let ids: Vec<String> = assignment.endpoints.iter().map(|target| target.address.to_string()).collect();
            ids == expected
        })
    };
    tokio::time::timeout(DEADLINE, output.wait_for(fits)).await.expect("in time").unwrap();
}

#[tokio::test]
async fn clusters_follow_their_records_and_outlive_failures() {
    let script = Arc::new(Mutex::new((ResponseCode::NoError, vec![srv(1, 0, 1, 80, "t.x.")])));
    let address = resolver(script.clone()).await;
    let cluster = Cluster {
        name: "web".into(),
        service: None,
        protocol: UpstreamProtocol::Http1,
        policy: Policy::default(),
        source: EndpointSource::Dns { name: SRV_NAME.trim_end_matches('.').into(), resolver: Some(address) },
    };
    let mut resources = Resources::default();
    resources.clusters.insert("web".into(), Arc::new(cluster));
    let (input, receiver) = watch::channel(Arc::new(resources));
    let mut output = DnsClusters::start(receiver);
    wait_for(&mut output, &["127.0.0.9:80"]).await;

    *script.lock().unwrap() = (ResponseCode::ServFail, vec![]);
    let unchanged = tokio::time::timeout(Duration::from_millis(2500), output.changed()).await;
    assert!(unchanged.is_err(), "SERVFAIL keeps the last good endpoints, and says nothing");
    *script.lock().unwrap() = (ResponseCode::NoError, vec![srv(1, 0, 1, 81, "t.x.")]);
    wait_for(&mut output, &["127.0.0.9:81"]).await;
    *script.lock().unwrap() = (ResponseCode::NoError, vec![]);
    // NODATA has no SOA here, so the answer before it is the last that was used for a second.
    wait_for(&mut output, &[]).await;

    input.send_replace(Arc::new(Resources::default()));
    let gone = output.wait_for(|resources| resources.assignments.is_empty());
    tokio::time::timeout(DEADLINE, gone).await.expect("in time").unwrap();
}
