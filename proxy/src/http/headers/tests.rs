use http::Method;

use super::*;

fn head(version: Version, authority: Option<&str>, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, version, b"/x", fields.iter().copied().collect());
    if let Some(authority) = authority {
        head.set_authority(authority.as_bytes());
    }
    head
}

#[test]
fn the_authority_is_the_one_a_client_means() {
    let check = |version, authority: Option<&str>, fields: &[(&str, &str)], expected: Option<&str>| {
        let mut head = head(version, authority, fields);
        let settled = settle_authority(&mut head).is_ok();
        let found = head.authority().filter(|_| settled);
        assert_eq!(found, expected.map(str::as_bytes), "{authority:?} {fields:?}");
    };
    let (h10, h11, h2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
    check(h11, None, &[("host", "web:8080")], Some("web:8080"));
    check(h11, Some("api:8080"), &[("host", "other")], Some("api:8080"));
    check(h11, Some("api:8080"), &[("host", "a b")], None);
    check(h11, None, &[], None);
    check(h10, None, &[], Some(""));
    check(h10, None, &[("host", "")], None);
    check(h11, None, &[("host", "a"), ("host", "a")], None);
    check(h11, None, &[("host", "user@a")], None);
    check(h11, None, &[("host", "a b")], None);
    check(h11, None, &[("host", "[::1]:80")], Some("[::1]:80"));
    check(h2, Some("web"), &[], Some("web"));
    check(h2, Some("web"), &[("host", "Web")], Some("web"));
    check(h2, Some("web"), &[("host", "other")], None);
    check(h2, None, &[("host", "other")], Some("other"));
    check(h2, Some("u@web"), &[], None);
}

#[test]
fn what_ends_here_is_removed() {
    let check = |fields: &[(&str, &str)], expected: &str| {
        let mut fields = fields.iter().copied().collect();
        strip_hop_by_hop(&mut fields);
        assert_eq!(format!("{fields:?}"), expected);
    };
    check(&[("A", "1"), ("Connection", "close, X-One"), ("x-one", "2"), ("Keep-Alive", "5")], "[A: 1]");
    check(
        &[("connection", "Host, content-length, x-forwarded-for"), ("host", "a"), ("content-length", "1")],
        "[host: a, content-length: 1]",
    );
    check(
        &[("proxy-connection", "x"), ("upgrade", "h2c"), ("http2-settings", "AA"), ("transfer-encoding", "chunked")],
        "[]",
    );
    check(&[("te", "gzip, trailers;q=1, trailers"), ("trailer", "a")], "[trailer: a, te: trailers]");
    check(&[("te", "gzip"), ("connection", "TE")], "[]");
}

#[test]
fn an_upgrade_is_wanted_only_where_the_connection_says_so() {
    let check = |version, fields: &[(&str, &str)], expected: Option<&str>| {
        let wanted = wanted_upgrade(&head(version, None, fields));
        assert_eq!(wanted.as_deref(), expected.map(str::as_bytes), "{fields:?}");
    };
    let connection = ("connection", "keep-alive, Upgrade");
    check(Version::HTTP_11, &[connection, ("upgrade", "websocket")], Some("websocket"));
    check(Version::HTTP_11, &[connection, ("upgrade", "h2c, websocket, x/1")], Some("websocket, x/1"));
    check(Version::HTTP_11, &[connection, ("upgrade", "h2c"), ("http2-settings", "AA")], None);
    check(Version::HTTP_11, &[("upgrade", "websocket")], None);
    check(Version::HTTP_10, &[connection, ("upgrade", "websocket")], None);
}

#[test]
fn a_request_without_an_id_gets_one() {
    let ensured = |fields: &[(&str, &str)]| {
        let mut fields = fields.iter().copied().collect();
        ensure_request_id(&mut fields, || [b'7'; 36]);
        format!("{fields:?}")
    };
    assert_eq!(ensured(&[]), format!("[x-request-id: {}]", "7".repeat(36)));
    assert_eq!(ensured(&[("X-Request-Id", "mine")]), "[X-Request-Id: mine]");
}
