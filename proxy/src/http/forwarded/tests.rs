use http::{Method, StatusCode};

use super::ForwardPolicy::{Append, Drop, Keep, Replace};
use super::*;

const PEER: &str = "10.0.0.1";
const STRANGER: &str = "192.0.2.1";

fn headers(x_forwarded: ForwardPolicy, forwarded: ForwardPolicy, via: ForwardPolicy) -> ForwardedHeaders {
    let trusted = vec!["10.0.0.0/8".parse().unwrap()];
    ForwardedHeaders { trusted, x_forwarded, forwarded, via, via_name: "mesh".into() }
}

/// A field a line.
fn lines(fields: &Fields) -> String {
    let line = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.iter().map(|field| format!("{}: {}\n", line(field.letters), line(field.value))).collect()
}

fn request(forwarding: &Forwarding, version: Version, authority: &str, fields: &[(&str, &str)]) -> String {
    let mut head = RequestHead::new(Method::GET, version, b"/", fields.iter().copied().collect());
    head.set_authority(authority.as_bytes());
    forwarding.request(&mut head);
    lines(&head.fields)
}

/// What goes on of `fields` by policy, of somebody who is believed and of somebody who is not.
fn check(headers: &ForwardedHeaders, fields: &[(&str, &str)], trusted: &str, untrusted: &str) {
    for (peer, expected) in [(PEER, trusted), (STRANGER, untrusted)] {
        let forwarding = Forwarding::of(headers, peer.parse().unwrap(), false);
        assert_eq!(request(&forwarding, Version::HTTP_11, "web:80", fields), expected, "{peer} {headers:?}");
    }
}

#[test]
fn x_forwarded_by_policy() {
    let only = |policy| headers(policy, Drop, Keep);
    let ours = |peer: &str| format!("a: 1\nx-forwarded-for: {peer}\nx-forwarded-proto: http\n");
    let (of_peer, of_stranger) = (ours(PEER), ours(STRANGER));
    check(&only(Append), &[("a", "1")], &of_peer, &of_stranger);
    check(&only(Replace), &[("a", "1")], &of_peer, &of_stranger);
    check(&only(Keep), &[("a", "1")], "a: 1\n", "a: 1\n");
    check(&only(Drop), &[("a", "1")], "a: 1\n", "a: 1\n");
    let said = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("a", "1"),
        ("X-Forwarded-Host", "shop"),
        ("x-forwarded-for", "2.2.2.2"),
        ("X-Forwarded-Port", "1"),
        ("X_Forwarded_For", "3.3.3.3"),
        ("X-Real-IP", "4.4.4.4"),
    ];
    let kept = |last: &str| {
        format!(
            "X-Forwarded-For: 1.1.1.1\nx-forwarded-proto: https\na: 1\nX-Forwarded-Host: shop\n\
             x-forwarded-for: 2.2.2.2{last}\nX-Forwarded-Port: 1\nX_Forwarded_For: 3.3.3.3\nX-Real-IP: 4.4.4.4\n"
        )
    };
    check(&only(Append), &said, &kept(", 10.0.0.1"), &of_stranger);
    check(&only(Replace), &said, &of_peer, &of_stranger);
    check(&only(Keep), &said, &kept(""), "a: 1\n");
    check(&only(Drop), &said, "a: 1\n", "a: 1\n");
    // An empty list has no member before ours.
    let empty = "x-forwarded-for: 10.0.0.1\nx-forwarded-proto: http\n";
    check(&only(Append), &[("x-forwarded-for", "")], empty, "x-forwarded-for: 192.0.2.1\nx-forwarded-proto: http\n");
}

#[test]
fn forwarded_by_policy() {
    let only = |policy| headers(Drop, policy, Keep);
    let ours = |peer: &str| format!("forwarded: for={peer};proto=http;host=\"web:80\"\n");
    let (of_peer, of_stranger) = (ours(PEER), ours(STRANGER));
    check(&only(Append), &[], &of_peer, &of_stranger);
    check(&only(Replace), &[], &of_peer, &of_stranger);
    check(&only(Keep), &[], "", "");
    let said = [("Forwarded", "for=1.1.1.1"), ("forwarded", r#"for="[2001:db8::1]:4711";ext="a\",b";proto=https"#)];
    let kept = |last: &str| {
        format!("Forwarded: for=1.1.1.1\nforwarded: for=\"[2001:db8::1]:4711\";ext=\"a\\\",b\";proto=https{last}\n")
    };
    check(&only(Append), &said, &kept(r#", for=10.0.0.1;proto=http;host="web:80""#), &of_stranger);
    check(&only(Replace), &said, &of_peer, &of_stranger);
    check(&only(Keep), &said, &kept(""), "");
    check(&only(Drop), &said, "", "");
    // A string that does not end would swallow what stands behind it.
    for unended in [r#"for="1.1.1.1"#, r#"for="1.1.1.1\""#, r#"for=1.1.1.1;a=""""#] {
        check(&only(Append), &[("forwarded", unended), ("forwarded", "for=2.2.2.2")], &of_peer, &of_stranger);
        check(&only(Keep), &[("forwarded", unended)], &format!("forwarded: {unended}\n"), "");
    }
}

#[test]
fn an_address_is_written_as_each_field_wants_it() {
    let policies = headers(Append, Append, Keep);
    let check = |peer: &str, tls, authority, expected: &str| {
        let forwarding = Forwarding::of(&policies, peer.parse().unwrap(), tls);
        assert_eq!(request(&forwarding, Version::HTTP_2, authority, &[]), expected);
    };
    check(
        "2001:db8::1",
        true,
        "[::1]:80",
        "x-forwarded-for: 2001:db8::1\nx-forwarded-proto: https\n\
         forwarded: for=\"[2001:db8::1]\";proto=https;host=\"[::1]:80\"\n",
    );
    let v4 = "x-forwarded-for: 192.0.2.7\nx-forwarded-proto: http\nforwarded: for=192.0.2.7;proto=http\n";
    check("::ffff:192.0.2.7", false, "", v4);
}

#[test]
fn via_says_how_each_message_came() {
    let check = |policy, peer: &str, version, expected: &str| {
        let forwarding = Forwarding::of(&headers(Drop, Drop, policy), peer.parse().unwrap(), false);
        let fields = [("Via", "1.0 fred"), ("a", "1"), ("via", "1.1 p")];
        assert_eq!(request(&forwarding, version, "web", &fields), expected, "{policy:?} {version:?}");
        let fields = fields.into_iter().collect();
        let mut response = ResponseHead::new(StatusCode::OK, version, fields);
        forwarding.response(&mut response);
        assert_eq!(lines(&response.fields), expected, "{policy:?} {version:?}");
    };
    for peer in [PEER, STRANGER] {
        check(Append, peer, Version::HTTP_11, "Via: 1.0 fred\na: 1\nvia: 1.1 p, 1.1 mesh\n");
        check(Append, peer, Version::HTTP_10, "Via: 1.0 fred\na: 1\nvia: 1.1 p, 1.0 mesh\n");
        check(Append, peer, Version::HTTP_2, "Via: 1.0 fred\na: 1\nvia: 1.1 p, 2 mesh\n");
        check(Keep, peer, Version::HTTP_11, "Via: 1.0 fred\na: 1\nvia: 1.1 p\n");
        check(Replace, peer, Version::HTTP_2, "a: 1\nvia: 2 mesh\n");
        check(Drop, peer, Version::HTTP_2, "a: 1\n");
    }
}

#[test]
fn a_captured_call_is_as_it_was_sent() {
    let said = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=\"1"), ("Via", "1.1 a"), ("X-Real-IP", "2.2.2.2")];
    let expected = "X-Forwarded-For: 1.1.1.1\nForwarded: for=\"1\nVia: 1.1 a\nX-Real-IP: 2.2.2.2\n";
    let of_listener = Forwarding::of(&ForwardedHeaders::captured(), STRANGER.parse().unwrap(), false);
    for forwarding in [Forwarding::captured(), of_listener] {
        assert_eq!(request(&forwarding, Version::HTTP_11, "web", &said), expected);
        assert_eq!(request(&forwarding, Version::HTTP_11, "web", &[]), "");
    }
}
