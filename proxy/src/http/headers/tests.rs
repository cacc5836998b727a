use http::Request;

use super::*;

fn head(version: Version, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().version(version).uri(uri);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

#[test]
fn the_authority_is_the_one_a_client_means() {
    let check = |version, uri: &str, fields: &[(&str, &str)], expected: Option<&str>| {
        let found = authority(&head(version, uri, fields)).ok();
        assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{uri} {fields:?}");
    };
    let (h10, h11, h2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
    check(h11, "/x", &[("host", "web:8080")], Some("web:8080"));
    check(h11, "http://api:8080/x", &[("host", "other")], Some("api:8080"));
    check(h11, "/x", &[], None);
    check(h10, "/x", &[], Some(""));
    check(h11, "/x", &[("host", "a"), ("host", "a")], None);
    check(h11, "/x", &[("host", "user@a")], None);
    check(h11, "/x", &[("host", "a b")], None);
    check(h11, "/x", &[("host", "[::1]:80")], Some("[::1]:80"));
    check(h2, "http://web/x", &[], Some("web"));
    check(h2, "http://web/x", &[("host", "Web")], Some("web"));
    check(h2, "http://web/x", &[("host", "other")], None);
}

#[test]
fn what_ends_here_is_removed() {
    let check = |fields: &[(&str, &str)], expected: &[&str]| {
        let mut headers = head(Version::HTTP_11, "/", fields).headers;
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, expected, "{fields:?}");
    };
    check(&[("accept", "*/*")], &["accept: */*"]);
    check(&[("connection", "close, X-Secret"), ("x-secret", "1"), ("x-kept", "2")], &["x-kept: 2"]);
    check(
        &[("connection", "host, content-length"), ("host", "a"), ("content-length", "0")],
        &["content-length: 0", "host: a"],
    );
    check(&[("te", "gzip, trailers"), ("connection", "te")], &["te: trailers"]);
    check(&[("te", "gzip")], &[]);
    check(&[("keep-alive", "3"), ("proxy-connection", "x"), ("transfer-encoding", "chunked"), ("upgrade", "x")], &[]);
    check(&[("trailer", "expires")], &["trailer: expires"]);
}

#[test]
fn callers_are_appended_and_ids_kept() {
    let client = HeaderValue::from_static("10.0.0.1");
    let mut headers = head(Version::HTTP_11, "/", &[("x-forwarded-for", "1.2.3.4"), ("x-request-id", "mine")]).headers;
    add_forwarded(&mut headers, &client, false, || unreachable!("it has an id"));
    assert_eq!(headers[X_FORWARDED_FOR], "1.2.3.4, 10.0.0.1");
    assert_eq!(headers[X_FORWARDED_PROTO], "http");
    assert_eq!(headers[X_REQUEST_ID], "mine");
}

#[test]
fn targets_take_the_form_their_protocol_wants() {
    let uri = |text: &str| text.parse::<Uri>().unwrap();
    assert_eq!(origin_form(&uri("http://api:8080/x?y=1")), "/x?y=1");
    assert_eq!(origin_form(&uri("http://api:8080")), "/");
    assert_eq!(origin_form(&uri("*")), "*");
    let authority = HeaderValue::from_static("api");
    assert_eq!(absolute_form(&uri("/x?y"), &authority).unwrap(), "http://api/x?y");
}
