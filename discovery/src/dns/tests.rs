//! Every rule of the zone and of the protocol, over one small snapshot.

mod sockets; // the same server over real sockets, and `dig`

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use mesh_core::model::endpoint::{CaptureMode, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::{EndpointId, Name as MeshName, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::{Service, ServicePort};
use mesh_core::model::snapshot::{Snapshot, Workload};

use super::Allow;
use super::answer::{Asker, Transport, Verdict, respond};
use super::forward::nameservers;
use super::zone::Zone;

fn mesh_name(text: &str) -> MeshName {
    MeshName::new(text).unwrap()
}

fn endpoint(service: &ServiceId, address: &str, weight: u32, state: EndpointState, publish: bool) -> Arc<Endpoint> {
    let address: IpAddr = address.parse().unwrap();
    Arc::new(Endpoint {
        id: EndpointId::new(&address.to_string(), 1),
        name: address.to_string().as_str().into(),
        service: service.clone(),
        addresses: vec![NetworkAddress { network: "".into(), address }],
        ports: [(mesh_name("http"), 9000)].into(),
        weight,
        priority: 0,
        zone: None,
        version: None,
        state,
        reason: "".into(),
        publish_not_ready: publish,
        capture: CaptureMode::Auto,
        own_names: vec![],
        aliases: vec![],
    })
}

fn service(id: &ServiceId, virtual_ip: &str) -> Arc<Service> {
    let port = ServicePort { name: mesh_name("http"), port: 8080, protocol: Protocol::Http };
    Arc::new(Service {
        id: id.clone(),
        virtual_ip: virtual_ip.parse().unwrap(),
        ports: vec![port],
        policy: Policy::default(),
    })
}

/// `web.shop` in every state, `idle.shop` with no endpoint, `big.shop` with `big` of them.
fn snapshot(big_count: u8) -> Snapshot {
    let id = |name| ServiceId::new(mesh_name(name), mesh_name("shop"));
    let (web, idle, big) = (id("web"), id("idle"), id("big"));
    let many = (0..big_count).map(|n| endpoint(&big, &format!("10.1.0.{n}"), 1, EndpointState::Ready, false));
    let web_endpoints = [
        endpoint(&web, "10.0.0.1", 300, EndpointState::Ready, false),
        endpoint(&web, "10.0.0.2", 100, EndpointState::Ready, false),
        endpoint(&web, "10.0.0.3", 0, EndpointState::Ready, false),
        endpoint(&web, "10.0.0.4", 100, EndpointState::NotReady, true),
        endpoint(&web, "10.0.0.5", 100, EndpointState::NotReady, false),
        endpoint(&web, "10.0.0.6", 100, EndpointState::Draining, true),
    ];
    Snapshot {
        number: 7,
        services: [
            (web.clone(), service(&web, "240.240.0.1")),
            (idle.clone(), service(&idle, "240.240.0.2")),
            (big.clone(), service(&big, "240.240.0.3")),
        ]
        .into(),
        endpoints: [(web, Arc::from(web_endpoints)), (big.clone(), many.collect())].into(),
        ..Snapshot::default()
    }
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        query.set_edns(edns);
    }
    query
}

fn decide(packet: &[u8], transport: Transport, allowed: bool, snapshot: &Snapshot, seed: u64) -> Verdict {
    decide_for(packet, Asker { transport, allowed, source: None }, snapshot, seed)
}

fn decide_for(packet: &[u8], asker: Asker, snapshot: &Snapshot, seed: u64) -> Verdict {
    let zone = Zone::new("mesh.internal", "127.0.0.1".parse().ok()).unwrap();
    let zone = zone.with_virtual_ips("240.240.0.0/16".parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    respond(packet, asker, &zone, snapshot, &mut random).verdict
}

fn reply(query: &Message, transport: Transport, snapshot: &Snapshot) -> Message {
    reply_for(query, Asker { transport, allowed: true, source: None }, snapshot)
}

fn reply_for(query: &Message, asker: Asker, snapshot: &Snapshot) -> Message {
    match decide_for(&query.to_vec().unwrap(), asker, snapshot, 1) {
        Verdict::Reply { bytes, .. } => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?} for {query:?}"),
    }
}

/// Records as text, sorted; their TTL first.
fn shown(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    let mut all: Vec<String> = records.iter().map(|record| format!("{} {}", record.ttl, record.data)).collect();
    all.sort();
    all
}

#[test]
fn names_hold_what_they_should() {
    use RecordType::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    let snapshot = snapshot(3);
    let check = |name: &str, kind: RecordType, code: ResponseCode, expected: &[&str]| {
        let reply = reply(&query(name, kind, None), Transport::Tcp, &snapshot);
        assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
        assert_eq!(shown(&reply.answers), expected, "{name} {kind}");
        assert!(reply.metadata.authoritative, "{name} {kind}");
        // RFC 2308 sections 2.1, 2.2 and 5: the SOA in each negative answer, its TTL the time to remember it.
        let negative =
            reply.authorities.iter().filter(|r| matches!(&r.data, RData::SOA(soa) if soa.minimum == 5 && r.ttl == 5));
        assert_eq!(negative.count(), usize::from(expected.is_empty()), "{name} {kind}");
    };
    let (found, missing) = (ResponseCode::NoError, ResponseCode::NXDomain);
    check("web.shop.svc.mesh.internal.", A, found, &["30 240.240.0.1"]);
    check("idle.shop.svc.mesh.internal.", A, found, &["30 240.240.0.2"]);
    check("web.shop.svc.mesh.internal.", AAAA, found, &[]);
    check("tasks.web.shop.svc.mesh.internal.", A, found, &["5 10.0.0.1", "5 10.0.0.2", "5 10.0.0.3", "5 10.0.0.4"]);
    check("tasks.idle.shop.svc.mesh.internal.", A, found, &[]);
    // RFC 2782, by name and by number; weights 3:1; neither draining nor not ready nor weight 0.
    let srv =
        ["5 0 100 9000 10-0-0-2.web.shop.svc.mesh.internal.", "5 0 300 9000 10-0-0-1.web.shop.svc.mesh.internal."];
    check("_http._tcp.web.shop.svc.mesh.internal.", SRV, found, &srv);
    check("_8080._tcp.web.shop.svc.mesh.internal.", SRV, found, &srv);
    check("_http._tcp.idle.shop.svc.mesh.internal.", SRV, found, &[]);
    check("_http._tcp.web.shop.svc.mesh.internal.", A, found, &[]);
    check("_08080._tcp.web.shop.svc.mesh.internal.", SRV, missing, &[]);
    check("_other._tcp.web.shop.svc.mesh.internal.", SRV, missing, &[]);
    check("_http._udp.web.shop.svc.mesh.internal.", SRV, missing, &[]);
    for known in 1..=6 {
        let (name, expected) = (format!("10-0-0-{known}.web.shop.svc.mesh.internal."), format!("5 10.0.0.{known}"));
        check(&name, A, found, &[&expected]);
    }
    check("10-0-0-9.web.shop.svc.mesh.internal.", A, missing, &[]);
    check("010-0-0-1.web.shop.svc.mesh.internal.", A, missing, &[]);
    // RFC 8020, RFC 4592 section 2.2.2: names with something below them exist.
    for between in ["svc", "shop.svc", "_tcp.web.shop.svc", "dns"] {
        check(&format!("{between}.mesh.internal."), A, found, &[]);
    }
    for none in ["x", "other.svc", "x.shop.svc", "x.web.shop.svc", "a._http._tcp.web.shop.svc", "web.shop"] {
        check(&format!("{none}.mesh.internal."), A, missing, &[]);
    }
    check("dns-version.mesh.internal.", TXT, found, &["30 1.1.0"]);
    check("mesh.internal.", NS, found, &["3600 ns.dns.mesh.internal."]);
    check("ns.dns.mesh.internal.", A, found, &["3600 127.0.0.1"]);
    let soa = "5 ns.dns.mesh.internal. hostmaster.mesh.internal. 7 7200 1800 86400 5";
    check("mesh.internal.", SOA, found, &[soa]);
    check("mesh.internal.", A, found, &[]);
    check("1.0.240.240.in-addr.arpa.", PTR, found, &["30 web.shop.svc.mesh.internal."]);
    check("1.0.0.10.in-addr.arpa.", PTR, found, &["5 10-0-0-1.web.shop.svc.mesh.internal."]);
    check("1.0.0.10.in-addr.arpa.", A, found, &[]);
    check("9.9.240.240.in-addr.arpa.", PTR, missing, &[]);
    check("9.240.240.in-addr.arpa.", PTR, found, &[]);
    check("1.0.0.127.in-addr.arpa.", PTR, found, &["3600 localhost."]);
    // RFC 6761 sections 6.3 and 6.4.
    check("localhost.", A, found, &["3600 127.0.0.1"]);
    check("a.localhost.", AAAA, found, &["3600 ::1"]);
    check("localhost.", CNAME, found, &[]);
    check("a.invalid.", A, missing, &[]);
}

#[test]
fn other_names_are_forwarded_and_ours_never() {
    let snapshot = snapshot(0);
    for (name, forwarded) in [
        ("example.org.", true),
        ("internal.", true),
        ("notmesh.internal.", true),
        ("9.9.9.9.in-addr.arpa.", true),
        ("10.in-addr.arpa.", true),
        ("240.in-addr.arpa.", true),
        ("9.9.240.240.in-addr.arpa.", false),
        (".", true),
        ("x.mesh.internal.", false),
        ("X.MESH.Internal.", false),
    ] {
        let packet = query(name, RecordType::A, None).to_vec().unwrap();
        let verdict = decide(&packet, Transport::Udp, true, &snapshot, 1);
        assert_eq!(verdict == Verdict::Forward, forwarded, "{name}");
    }
}

#[test]
fn before_the_first_catalogue_nobody_is_told_that_a_name_is_not_there() {
    let nothing = Snapshot::default();
    for name in ["web.shop.svc.mesh.internal.", "mesh.internal.", "1.0.240.240.in-addr.arpa."] {
        let reply = reply(&query(name, RecordType::A, None), Transport::Udp, &nothing);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
        assert!(reply.answers.is_empty() && reply.authorities.is_empty(), "{name}");
    }
    let packet = query("example.org.", RecordType::A, None).to_vec().unwrap();
    assert_eq!(decide(&packet, Transport::Udp, true, &nothing, 1), Verdict::Forward);
}

#[test]
fn an_endpoint_on_several_networks_is_named_where_the_asker_is() {
    let id = |name| ServiceId::new(mesh_name(name), mesh_name("shop"));
    let on = |service: &ServiceId, unit: &str, addresses: &[(&str, &str)]| {
        let mut endpoint = (*endpoint(service, addresses[0].1, 1, EndpointState::Ready, false)).clone();
        endpoint.id = EndpointId::new(unit, 1);
        let address = |(network, address): &(&str, &str)| NetworkAddress {
            network: (*network).into(),
            address: address.parse().unwrap(),
        };
        endpoint.addresses = addresses.iter().map(address).collect();
        Arc::new(endpoint)
    };
    let (web, app) = (id("web"), id("app"));
    let mut snapshot = snapshot(0);
    let both = on(&web, "w", &[("back", "10.1.0.1"), ("front", "10.2.0.1")]);
    let asker = on(&app, "a", &[("front", "10.2.0.9")]);
    // Reached by `front` alone (mesh.network), and yet on `side` too.
    let side = Workload {
        id: asker.id.clone(),
        name: "a".into(),
        service: app.clone(),
        namespace_path: "/n".into(),
        networks: ["front".into(), "side".into()].into(),
    };
    snapshot.workloads = vec![Arc::new(side)];
    let aside = on(&web, "x", &[("back", "10.1.0.2"), ("side", "10.3.0.2")]);
    snapshot.endpoints = [(web, Arc::from([both, aside])), (app, Arc::from([asker]))].into();
    let check = |source: Option<&str>, expected: [&str; 2]| {
        let source = source.map(|source| source.parse().unwrap());
        let asker = Asker { transport: Transport::Tcp, allowed: true, source };
        let tasks = reply_for(&query("tasks.web.shop.svc.mesh.internal.", RecordType::A, None), asker, &snapshot);
        assert_eq!(shown(&tasks.answers), expected.map(|address| format!("5 {address}")), "{source:?}");
        let srv = reply_for(&query("_http._tcp.web.shop.svc.mesh.internal.", RecordType::SRV, None), asker, &snapshot);
        let target = |address: &str| format!("5 0 1 9000 {}.web.shop.svc.mesh.internal.", address.replace('.', "-"));
        assert_eq!(shown(&srv.answers), expected.map(target), "{source:?}");
        assert_eq!(shown(&srv.additionals), expected.map(|address| format!("5 {address}")), "{source:?}");
    };
    check(None, ["10.1.0.1", "10.1.0.2"]);
    check(Some("10.9.9.9"), ["10.1.0.1", "10.1.0.2"]);
    check(Some("10.2.0.9"), ["10.2.0.1", "10.3.0.2"]);
}

#[test]
fn case_is_kept_as_asked() {
    let reply = reply(&query("wEb.Shop.SVC.mesh.Internal.", RecordType::A, None), Transport::Udp, &snapshot(0));
    for name in [reply.queries[0].name(), &reply.answers[0].name] {
        assert!(name.eq_case(&Name::from_ascii("wEb.Shop.SVC.mesh.Internal.").unwrap()), "{name}");
    }
}

#[test]
fn the_protocol_is_kept() {
    let snapshot = snapshot(0);
    let check = |change: &dyn Fn(&mut Message), expected: ResponseCode| {
        let mut asked = query("web.shop.svc.mesh.internal.", RecordType::A, Some(4096));
        change(&mut asked);
        let reply = reply(&asked, Transport::Udp, &snapshot);
        assert_eq!((reply.metadata.response_code, reply.metadata.id), (expected, 77));
        reply
    };
    // RFC 6891 sections 6.1.1, 6.2.3 and 6.1.3.
    let plain = check(&|_| {}, ResponseCode::NoError);
    assert_eq!(plain.edns.expect("an OPT for an OPT").max_payload(), 1232);
    assert!(check(&|q| q.edns = None, ResponseCode::NoError).edns.is_none());
    let version_1 = |q: &mut Message| {
        q.edns.as_mut().unwrap().set_version(1);
    };
    // 16 is both BADVERS and BADSIG; the decoder takes the latter name.
    assert_eq!(check(&version_1, ResponseCode::BADSIG).edns.unwrap().version(), 0);
    check(&|q| q.metadata.op_code = OpCode::Update, ResponseCode::NotImp);
    check(&|q| q.metadata.op_code = OpCode::Unknown(9), ResponseCode::NotImp);
    check(&|q| q.queries.clear(), ResponseCode::FormErr);
    check(&|q| q.queries.push(q.queries[0].clone()), ResponseCode::FormErr); // RFC 9619
    check(
        &|q| {
            q.queries[0].set_query_class(DNSClass::CH);
        },
        ResponseCode::Refused,
    );
    check(
        &|q| {
            q.queries[0].set_query_type(RecordType::AXFR);
        },
        ResponseCode::Refused,
    );
    let any = check(
        &|q| {
            q.queries[0].set_query_type(RecordType::ANY);
        },
        ResponseCode::NoError,
    );
    assert!(matches!(&any.answers[..], [one] if one.record_type() == RecordType::HINFO), "RFC 8482");

    let good = query("web.shop.svc.mesh.internal.", RecordType::A, None).to_vec().unwrap();
    let code = |packet: &[u8], allowed| match decide(packet, Transport::Udp, allowed, &snapshot, 1) {
        Verdict::Reply { code, .. } => Some(code),
        _ => None,
    };
    assert_eq!(code(&good, false), Some(ResponseCode::Refused));
    assert_eq!(code(&good[..20], true), Some(ResponseCode::FormErr));
    assert_eq!(code(&good[..11], true), None);
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(code(&response, true), None, "a response is never answered");
}

#[test]
fn what_does_not_fit_is_cut_and_said_so() {
    let snapshot = snapshot(120);
    let check = |name: &str, kind, transport, payload, limit: usize, truncated: bool| {
        let asked = query(name, kind, payload);
        let Verdict::Reply { bytes, .. } = decide(&asked.to_vec().unwrap(), transport, true, &snapshot, 3) else {
            panic!("no reply");
        };
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
        assert_eq!(reply.metadata.truncation, truncated, "{name} {payload:?}");
        assert_eq!(reply.edns.is_some(), payload.is_some());
        assert_eq!(reply.answers.len() < 120 && name.contains("big"), truncated);
        (reply.answers.len(), reply.additionals.len())
    };
    let tasks = "tasks.big.shop.svc.mesh.internal.";
    let srv = "_http._tcp.big.shop.svc.mesh.internal.";
    assert!(check(tasks, RecordType::A, Transport::Udp, None, 512, true).0 > 20);
    assert!(check(tasks, RecordType::A, Transport::Udp, Some(4096), 1232, true).0 > 60);
    assert!(check(tasks, RecordType::A, Transport::Udp, Some(100), 512, true).0 > 20);
    assert_eq!(check(tasks, RecordType::A, Transport::Tcp, None, 65_535, false).0, 120);
    check(srv, RecordType::SRV, Transport::Udp, Some(1232), 1232, true);
    assert_eq!(check(srv, RecordType::SRV, Transport::Tcp, None, 65_535, false), (120, 120));
    // RFC 2181 section 9: leaving out additional records alone sets no TC.
    let web = "_http._tcp.web.shop.svc.mesh.internal.";
    assert_eq!(check(web, RecordType::SRV, Transport::Udp, None, 512, false), (2, 2));
}

#[test]
fn order_is_random_and_knows_weights() {
    let snapshot = snapshot(0);
    let packet = query("tasks.web.shop.svc.mesh.internal.", RecordType::A, None).to_vec().unwrap();
    let mut firsts = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..5000 {
        let Verdict::Reply { bytes, .. } = decide(&packet, Transport::Udp, true, &snapshot, seed) else { panic!() };
        let reply = Message::from_vec(&bytes).unwrap();
        *firsts.entry(reply.answers[0].data.to_string()).or_default() += 1;
        assert_eq!(reply.answers[3].data.to_string(), "10.0.0.3", "weight 0 last");
    }
    let share = f64::from(firsts["10.0.0.1"]) / 5000.0;
    assert!((share - 0.6).abs() < 0.03, "{share} first with 300 of 500");
}

#[test]
fn malformed_packets_never_panic() {
    let snapshot = snapshot(3);
    let mut random = fastrand::Rng::with_seed(0xd15);
    let names = ["_http._tcp.web.shop.svc.mesh.internal.", "1.0.0.10.in-addr.arpa.", "localhost.", "."];
    for round in 0..20_000_u64 {
        let name = names[random.usize(..names.len())];
        let mut packet =
            query(name, RecordType::from(random.u16(..300)), random.bool().then_some(1232)).to_vec().unwrap();
        for _ in 0..random.usize(..6) {
            let at = random.usize(..packet.len());
            packet[at] = random.u8(..);
        }
        packet.truncate(random.usize(..=packet.len()));
        if let Verdict::Reply { bytes, .. } = decide(&packet, Transport::Udp, true, &snapshot, round) {
            assert_eq!((&bytes[..2], bytes[2] & 0x80), (&packet[..2], 0x80));
        }
    }
}

#[test]
fn private_sources_alone_may_ask() {
    let allow = Allow::default();
    for (source, permitted) in [
        ("127.0.0.2", true),
        ("10.1.2.3", true),
        ("172.16.0.1", true),
        ("172.32.0.1", false),
        ("192.168.1.1", true),
        ("169.254.1.1", true),
        ("100.64.0.1", true),
        ("100.128.0.1", false),
        ("8.8.8.8", false),
        ("::1", true),
        ("fd00::1", true),
        ("fe80::1", true),
        ("2001:db8::1", false),
        ("::ffff:10.0.0.1", true),
        ("::ffff:8.8.8.8", false),
    ] {
        assert_eq!(allow.permits(source.parse().unwrap()), permitted, "{source}");
    }
}

#[test]
fn resolv_conf_is_read() {
    let text =
        "# nameserver 1.1.1.1\nsearch a.b\nnameserver 10.0.0.2\n nameserver\tfe80::1%eth0 # x\nnameserver nonsense\n";
    let expected: Vec<SocketAddr> = vec!["10.0.0.2:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()];
    assert_eq!(nameservers(text), expected);
}
