//! The file: what right ones mean, and what every mistake is told as.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::percent::Percent;
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};
use mesh_core::model::limits::H2Limits;
use mesh_core::model::policy::{Balance, Circuit, Policy, RetryMethods, RetryOn, Upstream};
use mesh_core::model::protocol::{ListenProtocol, UpstreamProtocol};
use mesh_core::model::resource::{Bind, ClientCertificate, EndpointSource, Limits, Listener, TlsVersion};

use super::*;

/// As it stands in the contract, with one more listener.
const WHOLE: &str = r#"
workers: 1
admin: { listen: 127.0.0.1:14020 }
access_log: false
listeners:
  - { listen: 127.0.0.1:8080, protocol: http, service: web }
  - { listen: 127.0.0.1:8443, protocol: http, service: web, tls: { certificate: c.pem, key: k.pem, client_ca: ca.pem },
      limits: { header_timeout: 5s, body_idle_timeout: 8s, idle_timeout: 60s, max_header_bytes: 64KiB, max_headers: 50,
                max_connections: 7, handshake_timeout: 3s, max_unread_body_bytes: 0, linger_timeout: 2s, half_closed_timeout: 4s,
                h2: { max_concurrent_streams: 1, max_header_block_bytes: 20KiB, max_continuations: 2, max_resets: 13, max_pings: 14,
                      max_settings: 15, max_empty_data: 16, max_priorities: 17, max_window_updates: 18, max_ignored: 19,
                      max_unread_answer_bytes: 1KiB, max_stream_window_bytes: 64KiB, connection_window_bytes: 128KiB,
                      keepalive_interval: 0s, keepalive_timeout: 1s } } }
  - { listen: "[::1]:9999", protocol: tcp, service: api, tls: { min_version: 1.3, client_certificate: optional, client_ca: d.pem,
      certificates: [ { certificate: c.pem, key: k.pem }, { certificate: e.pem, key: f.pem, server_names: [ "*.Shop.test" ] } ] },
      proxy_protocol: { trusted: [ 10.0.0.0/8, "::1" ] } }
  - { listen: 127.0.0.1:0, service: api, detect_timeout: 2s,
      forwarded_headers: { trusted: [ 10.1.0.0/16, "::1" ], x_forwarded: keep, forwarded: append, via: replace, via_name: "edge:80" } }
  - { listen: 127.0.0.1:0, service: api }
services:
  web:
    lb: least_request
    endpoints: [ { address: 127.0.0.1:9001, weight: 1 }, { address: 127.0.0.1:9000, weight: 3, priority: 2, zone: a } ]
    protocol: http1
    timeout: 5s
    retry: { on: [connect-failure, refused-stream, reset, 5xx], attempts: 2, budget: 20%, methods: idempotent }
    circuit: { max_connections: 1024, max_pending: 1024, max_requests: 1024 }
    outlier: { consecutive_5xx: 5, base_ejection_time: 30s, max_ejection_percent: 50% }
  api:
    dns: "srv://_http._tcp.api.shop.svc.mesh.internal"
    resolver: 127.0.0.1:14053
"#;

fn good(text: &str) -> Config {
    parse("proxy.yaml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The mistakes of a file, one a line, without its name.
fn wrong(text: &str) -> Vec<String> {
    let problems = parse("proxy.yaml", text).expect_err("it is accepted");
    problems.list.iter().map(ToString::to_string).collect()
}

/// A file with one listener, whose service has these further keys.
fn service(keys: &str) -> String {
    format!(
        "listeners: [{{ listen: 127.0.0.1:1, service: a }}]\nservices: {{ a: {{ endpoints: [{{ address: 1.2.3.4:5 }}], {keys} }} }}"
    )
}

#[test]
fn the_contract_is_read_into_resources() {
    let config = good(WHOLE);
    assert_eq!((config.workers, config.admin, config.access_log), (1, ADMIN_DEFAULT, false));
    let Resources { listeners, routes, clusters, assignments, capture } = &config.resources;
    assert!(capture.is_none());
    let names: Vec<&str> = listeners.keys().map(|name| &**name).collect();
    assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:0#2", "127.0.0.1:8080", "127.0.0.1:8443", "[::1]:9999"]);
    let http = &listeners["127.0.0.1:8080"];
    assert_eq!(http.bind, Bind::Address("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(
        (http.protocol, http.routes.as_deref(), http.tcp_cluster.as_deref()),
        (ListenProtocol::Http, Some("web"), None)
    );
    assert_eq!((&http.tls, http.limits), (&None, Limits::default()));
    let secure = &listeners["127.0.0.1:8443"];
    let tls = secure.tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].certificate, Path::new("c.pem"));
    assert_eq!(tls.client_certificate, ClientCertificate::Required { ca: "ca.pem".into() });
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    let seconds = Duration::from_secs;
    let limits = Limits {
        connections_max: 7,
        handshake_timeout: seconds(3),
        header_timeout: seconds(5),
        body_idle_timeout: seconds(8),
        idle_timeout: seconds(60),
        header_bytes_max: 65_536,
        header_count_max: 50,
        unread_body_bytes_max: 0,
        linger_timeout: seconds(2),
        half_closed_timeout: seconds(4),
    };
    assert_eq!(secure.limits, limits);
    let h2_limits = H2Limits {
        streams_max: 1,
        header_block_bytes_max: 20 << 10,
        continuations_max: 2,
        resets_max: 13,
        pings_max: 14,
        settings_max: 15,
        empty_data_max: 16,
        priorities_max: 17,
        window_updates_max: 18,
        ignored_max: 19,
        unread_answer_bytes_max: 1 << 10,
        stream_window_bytes_max: 64 << 10,
        connection_window_bytes: 128 << 10,
        keepalive_interval: None,
        keepalive_timeout: seconds(1),
    };
    assert_eq!((&secure.h2_limits, &http.h2_limits), (&h2_limits, &H2Limits::default()));
    let raw = &listeners["[::1]:9999"];
    assert_eq!((raw.routes.as_deref(), raw.tcp_cluster.as_deref()), (None, Some("api")));
    let tls = raw.tls.as_ref().unwrap();
    assert_eq!(tls.client_certificate, ClientCertificate::Optional { ca: "d.pem".into() });
    assert_eq!((tls.min_version, tls.certificates.len()), (TlsVersion::V1_3, 2));
    assert_eq!(tls.certificates[1].server_names, [Arc::from("*.shop.test")]);
    let trusted = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
    assert_eq!(raw.proxy_protocol.as_ref().unwrap().trusted, trusted);
    let auto = &listeners["127.0.0.1:0"];
    let headers = ForwardedHeaders {
        trusted: ["10.1.0.0/16", "::1/128"].map(|network| network.parse().unwrap()).into(),
        x_forwarded: ForwardPolicy::Keep,
        forwarded: ForwardPolicy::Append,
        via: ForwardPolicy::Replace,
        via_name: "edge:80".into(),
    };
    assert_eq!((&auto.forwarded_headers, &http.forwarded_headers), (&headers, &ForwardedHeaders::default()));
    assert_eq!((auto.detect_timeout, raw.detect_timeout), (seconds(2), Listener::DETECT_TIMEOUT));
    assert_eq!(auto.protocol, ListenProtocol::Auto);
    assert_eq!((auto.routes.as_deref(), auto.tcp_cluster.as_deref()), (Some("api"), Some("api")));

    assert_eq!(routes.keys().map(|name| &**name).collect::<Vec<_>>(), ["api", "web"]);
    assert_eq!(routes["web"].hosts[0].domains, [Arc::from("*")]);
    assert_eq!(&*routes["web"].hosts[0].cluster, "web");

    let web = &clusters["web"];
    assert_eq!(
        web.policy,
        Policy { timeout: Some(Duration::from_secs(5)), ..Policy::default() },
        "what is written is the default"
    );
    assert_eq!((web.protocol, &web.source), (UpstreamProtocol::Http1, &EndpointSource::Assignment));
    let endpoints = &assignments["web"].endpoints;
    let brief: Vec<_> = endpoints.iter().map(|one| (one.id.to_string(), one.weight, one.priority)).collect();
    assert_eq!(brief, [("127.0.0.1:9000@0".to_owned(), 3, 2), ("127.0.0.1:9001@0".to_owned(), 1, 0)]);
    let dns = EndpointSource::Dns {
        name: "_http._tcp.api.shop.svc.mesh.internal".into(),
        resolver: Some("127.0.0.1:14053".parse().unwrap()),
    };
    assert_eq!(clusters["api"].source, dns);
    assert!(!assignments.contains_key("api"));
}

#[test]
fn the_example_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/proxy.yaml");
    let config = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    let web = &config.resources.clusters["web"];
    assert_eq!(
        web.policy,
        Policy { timeout: Some(Duration::from_secs(5)), ..Policy::default() },
        "it shows the defaults"
    );
    let listener = &config.resources.listeners["127.0.0.1:8081"];
    let limits = (&listener.limits, &listener.h2_limits);
    assert_eq!(limits, (&Limits::default(), &H2Limits::default()), "it shows the defaults");
    let shown = ForwardedHeaders { trusted: Vec::new(), ..listener.forwarded_headers.clone() };
    assert_eq!(shown, ForwardedHeaders::default(), "it shows the defaults");
    assert_eq!(config.resources.listeners.len(), 3);
}

#[test]
fn a_file_that_says_nothing_is_all_defaults() {
    assert_eq!(good("{}"), Config::default());
    assert!(good("{}").workers >= 1);
}

#[test]
fn every_key_has_its_meaning() {
    let policy = |keys: &str| good(&service(keys)).resources.clusters["a"].policy.clone();
    assert_eq!(policy("lb: round_robin").balance, Balance::RoundRobin);
    assert_eq!(policy("timeout: 0s").timeout, None);
    assert_eq!(policy("connect_timeout: 250ms").connect_timeout.0, Duration::from_millis(250));
    let retry = policy("retry: { min_per_second: 3, max_body_bytes: 1MiB }").retry;
    assert_eq!((retry.budget_min_per_second, retry.body_bytes_max), (3, 1 << 20));
    let retry = policy("retry: { on: [gateway-error], attempts: 0, budget: 5%, methods: any }").retry;
    assert_eq!((retry.on, retry.attempts), ([RetryOn::GatewayError].into(), 0));
    assert_eq!((retry.budget, retry.methods), (Percent::from_hundredths(5_00), RetryMethods::Any));
    assert!(policy("retry: { on: [] }").retry.on.is_empty());
    let circuit = policy("circuit: { max_connections: 1, max_pending: 2, max_requests: 3 }").circuit;
    assert_eq!(circuit, Circuit { connections_max: 1, pending_max: 2, requests_max: 3 });
    let keys = "idle_timeout: 2s, max_idle_connections: 0, max_header_bytes: 1KiB, max_headers: 16";
    let found = policy(&format!("upstream: {{ {keys} }}")).upstream;
    let expected = Upstream {
        idle_timeout: Some(Duration::from_secs(2)),
        idle_connections_max: 0,
        header_bytes_max: 1024,
        header_count_max: 16,
    };
    assert_eq!(found, expected);
    let outlier =
        policy("outlier: { consecutive_5xx: 0, base_ejection_time: 10m, max_ejection_percent: 100% }").outlier;
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (0, Percent::from_hundredths(100_00)));
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(600), "never shorter than the first ejection");
    assert_eq!(policy("outlier: { max_ejection_time: 1m }").outlier.max_ejection_time, Duration::from_secs(60));
    assert_eq!(good(&service("protocol: http2")).resources.clusters["a"].protocol, UpstreamProtocol::Http2);
    assert_eq!(good("services: { a: { endpoints: [] } }").resources.assignments["a"].endpoints, []);
    let name = |url: &str| match &good(&format!("services: {{ a: {{ dns: {url:?} }} }}")).resources.clusters["a"].source
    {
        EndpointSource::Dns { name, .. } => name.to_string(),
        EndpointSource::Assignment => panic!("{url} is not read as DNS"),
    };
    assert_eq!(name("srv://Web.service.CONSUL."), "web.service.consul");
}

#[test]
fn mistakes_within_a_service() {
    let check = |keys: &str, expected: &str| assert_eq!(wrong(&service(keys)), [format!("services.a.{expected}")]);
    check(
        "lb: least_requests",
        r#"lb: "least_requests": one of least_request, round_robin is wanted; did you mean least_request?"#,
    );
    check("upstream: { max_headers: 15 }", "upstream.max_headers: 15: a number from 16 to 10000 is wanted");
    check("upstream: { max_header: 50 }", "upstream.max_header: is not a key here; did you mean max_headers?");
    check("timeout: 5", "timeout: 5: a duration such as 500ms, 5s or 1m30s is wanted");
    check("timeuot: 5s", "timeuot: is not a key here; did you mean timeout?");
    check("protocol: http3", r#"protocol: "http3": one of http1, http2 is wanted; did you mean http1?"#);
    check("retry: { attempts: 11 }", "retry.attempts: 11: a whole number from 0 to 10 is wanted");
    check("retry: { attempts: -1 }", "retry.attempts: -1: a whole number from 0 to 10 is wanted");
    check("retry: { budget: 20 }", "retry.budget: 20: a percentage such as 20% is wanted");
    let kept = "a size from 0 to 64MiB is wanted: each request that is under way may take it";
    check("retry: { max_body_bytes: 1GiB }", &format!(r#"retry.max_body_bytes: "1GiB": {kept}"#));
    let waited = "more than 0s is wanted: an address that answers nothing would be waited for";
    check("connect_timeout: 0s", &format!(r#"connect_timeout: "0s": {waited}"#));
    check("retry: { budget: 200% }", r#"retry.budget: "200%": at most 100% is wanted"#);
    let known = "connect-failure, refused-stream, reset, 5xx, gateway-error";
    check(
        "retry: { on: [reset, 4xx] }",
        &format!(r#"retry.on[1]: "4xx": one of {known} is wanted; did you mean 5xx?"#),
    );
    check("retry: { on: reset }", r#"retry.on: "reset": a list is wanted"#);
    check("circuit: { max_pending: 0 }", "circuit.max_pending: 0: a whole number from 1 to 4294967295 is wanted");
    let never = "more than 0s is wanted; consecutive_5xx: 0 turns ejection off";
    check("outlier: { base_ejection_time: 0s }", &format!(r#"outlier.base_ejection_time: "0s": {never}"#));
    check("outlier: 5", "outlier: 5: a mapping of keys to values is wanted");
    check("dns: srv://a.b", r#"dns: "srv://a.b": stands beside endpoints; one of them is wanted"#);
    check("resolver: 127.0.0.1:53", r#"resolver: "127.0.0.1:53": is of use only beside dns"#);
}

#[test]
fn mistakes_within_a_listener() {
    let check = |keys: &str, expected: &[&str]| {
        let file = format!(
            "listeners: [{{ listen: 127.0.0.1:1, service: a, {keys} }}]\nservices: {{ a: {{ endpoints: [] }} }}"
        );
        let expected: Vec<_> = expected.iter().map(|expected| format!("listeners[0].{expected}")).collect();
        assert_eq!(wrong(&file), expected, "{keys}");
    };
    let pair = "certificate: c, key: k";
    let tls = |more: &str, expected: &[&str]| check(&format!("tls: {{ {pair}, {more} }}"), expected);
    check("tls: { key: k }", &["tls.certificate: is missing; a path is wanted"]);
    tls("min_version: 1.1", &[r#"tls.min_version: 1.1: one of 1.2, 1.3 is wanted; did you mean 1.2?"#]);
    let words = "one of none, optional, required is wanted";
    tls(
        "client_certificate: require",
        &[&format!(r#"tls.client_certificate: "require": {words}; did you mean required?"#)],
    );
    let ca = "client_ca is missing beside it: the PEM file of the authorities that sign clients' certificates";
    tls("client_certificate: required", &[&format!(r#"tls.client_certificate: "required": {ca}"#)]);
    tls("client_certificate: optional, client_ca: ", &[&format!(r#"tls.client_certificate: "optional": {ca}"#)]);
    let use_of = "is of use only with `client_certificate: required`, which is the default beside it, or `optional`";
    tls("client_ca: ca, client_certificate: none", &[&format!(r#"tls.client_ca: "ca": {use_of}"#)]);
    let beside = "stands beside certificates; one of them is wanted";
    let both = [format!(r#"tls.certificate: "c": {beside}"#), format!(r#"tls.key: "k": {beside}"#)];
    tls(&format!("certificates: [{{ {pair} }}]"), &both.each_ref().map(String::as_str));
    let one = "at least one is wanted, such as `[{ certificate: certificate.pem, key: key.pem }]`";
    check("tls: { certificates: [] }", &[&format!("tls.certificates: []: {one}")]);
    check(
        "tls: { certificates: [{ certificate: c }, { key: k, keys: 1 }] }",
        &[
            "tls.certificates[0].key: is missing; a path is wanted",
            "tls.certificates[1].certificate: is missing; a path is wanted",
            "tls.certificates[1].keys: is not a key here; did you mean key?",
        ],
    );
    let host = "a host name such as shop.example is wanted, or `*.` in front of one: addresses are never asked for";
    tls("server_names: [10.0.0.1]", &[&format!(r#"tls.server_names[0]: "10.0.0.1": {host}"#)]);
    tls("server_names: [a.b, '*.*.c']", &[&format!(r#"tls.server_names[1]: "*.*.c": {host}"#)]);
    let missing = "the addresses or networks whose word is taken are missing, such as `{ trusted: [10.0.0.0/8] }`";
    check("proxy_protocol: {}", &[&format!("proxy_protocol: {{}}: {missing}")]);
    check("proxy_protocol: true", &[&format!("proxy_protocol: true: {missing}")]);
    let network = "an address such as 10.0.0.5, or a network such as 10.0.0.0/8, is wanted";
    check("proxy_protocol: { trusted: [lb] }", &[&format!(r#"proxy_protocol.trusted[0]: "lb": {network}"#)]);
    let headers = |keys: &str, expected: &str| {
        check(&format!("forwarded_headers: {{ {keys} }}"), &[&format!("forwarded_headers.{expected}")]);
    };
    headers("trusted: [10.0.0.0/33]", &format!(r#"trusted[0]: "10.0.0.0/33": {network}"#));
    headers("trusted: 10.0.0.1", r#"trusted: "10.0.0.1": a list is wanted"#);
    let words = "one of append, keep, replace, drop is wanted";
    headers("x_forwarded: apend", &format!(r#"x_forwarded: "apend": {words}; did you mean append?"#));
    headers("forwarded: off", &format!(r#"forwarded: "off": {words}"#));
    headers("via: true", &format!("via: true: {words}"));
    headers("x_forwarded_for: drop", "x_forwarded_for: is not a key here; did you mean x_forwarded?");
    let name = "a name such as mesh or edge.example:8080 is wanted: letters, digits and few other signs, 64 at most";
    headers("via: append, via_name: a b", &format!(r#"via_name: "a b": {name}"#));
    let no_use = "is of use only with `via: append` or `via: replace`";
    headers("via_name: edge", &format!(r#"via_name: "edge": {no_use}"#));
    let auto = "is of use only with `protocol: auto` and without tls, where the client's first bytes are awaited";
    check("protocol: tcp, detect_timeout: 1s", &[&format!(r#"detect_timeout: "1s": {auto}"#)]);
    check("detect_timeout: 0s", &[r#"detect_timeout: "0s": more than 0s is wanted; `protocol: tcp` looks at no byte"#]);
    let limits = |keys: &str, expected: &str| check(&format!("limits: {{ {keys} }}"), &[&format!("limits.{expected}")]);
    limits("max_connections: 0", "max_connections: 0: at least 1 is wanted; a listener that takes nobody is left out");
    limits("max_headers: 15", "max_headers: 15: a number from 16 to 10000 is wanted");
    limits("max_header_bytes: 1", "max_header_bytes: 1: a size from 1KiB to 16MiB is wanted");
    limits("max_unread_body_bytes: 2GiB", r#"max_unread_body_bytes: "2GiB": a size from 0 to 1GiB is wanted"#);
    limits("h2: { max_pings: 0 }", "h2.max_pings: 0: a number from 10 to 1000000 is wanted");
    limits(
        "h2: { max_concurrent_streams: 0 }",
        "h2.max_concurrent_streams: 0: a number from 1 to 2147483647 is wanted",
    );
    limits("h2: { max_ping: 50 }", "h2.max_ping: is not a key here; did you mean max_pings?");
    limits(
        "h2: { connection_window_bytes: 64KiB }",
        r#"h2.connection_window_bytes: "64KiB": a size from 128KiB to 1GiB is wanted"#,
    );
    let endless = "more than 0s is wanted: without a limit, idle connections would pile up";
    limits("handshake_timeout: 0s", &format!(r#"handshake_timeout: "0s": {endless}"#));
}

#[test]
fn every_limit_that_is_counted_has_a_key_of_its_name() {
    let is_key = |keys: String| {
        let file = format!(
            "listeners: [{{ listen: 127.0.0.1:1, service: a, limits: {keys} }}]\nservices: {{ a: {{ endpoints: [] }} }}"
        );
        !wrong(&file).iter().any(|mistake| mistake.contains("is not a key here"))
    };
    // No key's value may be a list, so that each is told as a mistake.
    for limit in crate::h1::limits::Limit::ALL {
        assert!(is_key(format!("{{ {}: [] }}", limit.as_str())), "{}", limit.as_str());
    }
    for limit in crate::h2::Limit::ALL {
        let name = limit.as_str();
        // Endpoints alone send interim responses.
        let expected = limit != crate::h2::Limit::Interims;
        let found = is_key(format!("{{ {name}: [] }}")) || is_key(format!("{{ h2: {{ {name}: [] }} }}"));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn mistakes_about_where_endpoints_are() {
    let check = |keys: &str, expected: &str| {
        assert_eq!(wrong(&format!("services: {{ a: {{ {keys} }} }}")), [format!("services.a{expected}")]);
    };
    let hint = "names that change are found with `dns: \"srv://_http._tcp.NAME\"` instead of endpoints";
    let host = format!("is a host name; an IP address such as 127.0.0.1:8080 is wanted here, {hint}");
    check("endpoints: [{ address: web:80 }]", &format!(r#".endpoints[0].address: "web:80": {host}"#));
    check("endpoints: [{ address: localhost }]", &format!(r#".endpoints[0].address: "localhost": {host}"#));
    check(
        "endpoints: [{ address: '::1' }]",
        r#".endpoints[0].address: "::1": a port is missing; [::1]:8080 is wanted"#,
    );
    check(
        "endpoints: [{ address: 10.0.0.1:0 }]",
        r#".endpoints[0].address: "10.0.0.1:0": a port from 1 to 65535 is wanted"#,
    );
    check(
        "endpoints: [{ address: 10.0.0.1:99999 }]",
        r#".endpoints[0].address: "10.0.0.1:99999": an address such as 127.0.0.1:8080 is wanted"#,
    );
    check(
        "endpoints: [{ weight: 3 }]",
        ".endpoints[0].address: is missing; an address such as 127.0.0.1:8080 is wanted",
    );
    check(
        "endpoints: [{ address: 1.1.1.1:1, weight: 65536 }]",
        ".endpoints[0].weight: 65536: a whole number from 0 to 65535 is wanted",
    );
    check(
        "endpoints: [{ address: 1.1.1.1:1, priority: 128 }]",
        ".endpoints[0].priority: 128: a whole number from 0 to 127 is wanted",
    );
    check(
        "endpoints: [{ address: 1.1.1.1:1 }, { address: 1.1.1.1:1 }]",
        r#".endpoints[1].address: "1.1.1.1:1": is listed twice in this service"#,
    );
    check("endpoints: { address: 1.1.1.1:1 }", r#".endpoints: {"address":"1.1.1.1:1"}: a list is wanted"#);
    check("lb: round_robin", ": endpoints or dns is missing, such as `endpoints: [{ address: 127.0.0.1:9000 }]`");
    let srv = "an SRV name such as srv://_http._tcp.web.shop.svc.mesh.internal is wanted";
    for url in ["web.shop", "srv://", "srv://a..b", "srv://a b", "http://a"] {
        check(&format!("dns: {url:?}"), &format!(".dns: {url:?}: {srv}"));
    }
    check(
        "dns: srv://a.b, resolver: dns.example",
        r#".resolver: "dns.example": an address such as 127.0.0.1:8080 is wanted"#,
    );
}

#[test]
fn mistakes_about_listeners() {
    let check = |listeners: &str, expected: &[&str]| {
        let text = format!(
            "admin: {{ listen: 127.0.0.1:7 }}\nlisteners: [{listeners}]\nservices: {{ web: {{ endpoints: [] }} }}"
        );
        assert_eq!(wrong(&text), expected);
    };
    check(
        "{ listen: 127.0.0.1:1, service: wbe }",
        &[r#"listeners[0].service: "wbe": is not under services; did you mean web?"#],
    );
    check(
        "{ listen: 127.0.0.1:1, service: database }",
        &[r#"listeners[0].service: "database": is not under services; there are web"#],
    );
    check("{ listen: 127.0.0.1:1 }", &["listeners[0].service: is missing; a text is wanted"]);
    check("{ service: web }", &["listeners[0].listen: is missing; an address such as 127.0.0.1:8080 is wanted"]);
    let taken = r#"listeners[1].listen: "127.0.0.1:1": is taken by listeners[0].listen already"#;
    check("{ listen: 127.0.0.1:1, service: web }, { listen: 127.0.0.1:1, service: web }", &[taken]);
    check(
        "{ listen: 127.0.0.1:7, service: web }",
        &[r#"listeners[0].listen: "127.0.0.1:7": is taken by admin.listen already"#],
    );
    let word = r#"listeners[0].protocol: "htp": one of http, tcp, auto is wanted; did you mean http?"#;
    check("{ listen: 127.0.0.1:1, service: web, protocol: htp }", &[word]);
    check(
        "{ listen: 127.0.0.1:1, service: web, tls: { certificate: c.pem } }",
        &["listeners[0].tls.key: is missing; a path is wanted"],
    );
    let both = [
        r#"listeners[0].limits.header_timeout: "0s": more than 0s is wanted: without a limit, idle connections would pile up"#,
        r#"listeners[0].limits.max_header_bytes: 1: a size from 1KiB to 16MiB is wanted"#,
    ];
    check("{ listen: 127.0.0.1:1, service: web, limits: { header_timeout: 0s, max_header_bytes: 1 } }", &both);
}

#[test]
fn mistakes_all_over_are_told_at_once() {
    let text = "workers: 0\nadmn: {}\naccess_log: maybe\nlisteners: [{ listen: here, service: b }]\nservices: { a: { }, b: 3 }";
    let expected = [
        "workers: 0: a number from 1 to 1024 is wanted; without the key there is one a core",
        r#"access_log: "maybe": true or false is wanted"#,
        "services.b: 3: a mapping of keys to values is wanted",
        "services.a: endpoints or dns is missing, such as `endpoints: [{ address: 127.0.0.1:9000 }]`",
        r#"listeners[0].listen: "here": an address such as 127.0.0.1:8080 is wanted"#,
        "admn: is not a key here; did you mean admin?",
    ];
    let mut told = wrong(text);
    let mut wanted = expected.map(str::to_owned);
    told.sort();
    wanted.sort();
    assert_eq!(told, wanted);
    assert_eq!(wrong("services: { 80: { endpoints: [] } }"), ["services.80: a name in quotes is wanted"]);
    assert_eq!(wrong("services: [a]"), [r#"services: ["a"]: a mapping of keys to values is wanted"#]);
}

#[test]
fn named_files_are_relative_to_the_file_and_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let text = "
listeners: [{ listen: 127.0.0.1:1, service: a, tls: { certificate: tls/c.pem, key: tls/k.pem, client_ca: . } }]
services: { a: { endpoints: [] } }";
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    std::fs::write(folder.path().join("tls/c.pem"), "").unwrap();
    let problems = load(&path).unwrap_err();
    let told: Vec<_> = problems.list.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with(r#"listeners[0].tls.key: "tls/k.pem": cannot be opened ("#), "{told:?}");
    assert!(told[1].starts_with(r#"listeners[0].tls.client_ca: ".": is not a file ("#), "{told:?}");
    assert!(problems.to_string().starts_with(&path.display().to_string()));

    std::fs::write(folder.path().join("tls/k.pem"), "").unwrap();
    std::fs::write(&path, text.replace(", client_ca: .", "")).unwrap();
    let config = load(&path).unwrap();
    let tls = config.resources.listeners["127.0.0.1:1"].tls.clone().unwrap();
    assert_eq!(tls.certificates[0].certificate, folder.path().join("tls/c.pem"));
    assert!(load(Path::new("/nowhere/proxy.yaml")).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn no_text_makes_it_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..600 {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for _ in 0..random.usize(1..8) {
            bytes.extend_from_slice(b" ");
            let at = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]:,-&*!|>'\"%#\n 0"[random.usize(0..19)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let _ = parse("fuzz", &String::from_utf8_lossy(&bytes));
    }
}
