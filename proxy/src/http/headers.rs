//! Which authority a request means, which fields end at a proxy, and which it adds (RFC 9110 section 7.6, RFC 9112 section 3.2,
//! RFC 9113 section 8).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Version, request};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whom a request is for, as its client wrote it.
///
/// An absolute target holds over a `Host` field, which is then replaced (RFC 9112 section 3.2.2). An empty authority is one of an
/// HTTP/1.0 client that names nobody.
///
/// # Errors
/// What is wrong with the request, for a 400.
pub fn authority(head: &request::Parts) -> Result<HeaderValue, &'static str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("more than one Host field (RFC 9112 section 3.2)");
    }
    match (head.uri.authority(), host) {
        (Some(authority), host) => {
            if authority.as_str().contains('@') {
                return Err("user information in the authority");
            }
            let value = HeaderValue::from_str(authority.as_str()).map_err(|_| "the authority is no field value")?;
            match host {
                Some(host)
                    if head.version == Version::HTTP_2 && !host.as_bytes().eq_ignore_ascii_case(value.as_bytes()) =>
                {
                    Err("Host and :authority differ (RFC 9113 section 8.3.1)")
                }
                _ => Ok(value),
            }
        }
        (None, Some(host)) => {
            let text = host.to_str().map_err(|_| "Host is not ASCII")?;
            // A URI authority is what Host may be; an empty one is allowed where the target has none.
            if !text.is_empty() && (text.contains('@') || !is_authority(text)) {
                return Err("Host is no authority (RFC 9112 section 3.2)");
            }
            Ok(host.clone())
        }
        (None, None) if head.version == Version::HTTP_11 => Err("no Host field (RFC 9112 section 3.2)"),
        (None, None) => Ok(HeaderValue::from_static("")),
    }
}

/// Names of DNS and addresses are told by their characters; the rest is left to the URI parser.
fn is_authority(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    text.bytes().all(plain) || text.parse::<Authority>().is_ok()
}

/// The protocol a client of HTTP/1.1 wants to switch to.
#[must_use]
pub fn wanted_upgrade(head: &request::Parts) -> Option<HeaderValue> {
    if head.version != Version::HTTP_11 || !has_token(&head.headers, &CONNECTION, "upgrade") {
        return None;
    }
    head.headers.get(UPGRADE).cloned()
}

/// Removes what ends here, in both directions: the fields of the connection, and those that `Connection` names. `TE: trailers`
/// stays, since gRPC needs it; `Trailer` stays, since it belongs to the message.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let (mut connection, mut others, mut te) = (false, false, false);
    for name in headers.keys() {
        if *name == CONNECTION {
            connection = true;
        } else if *name == TRANSFER_ENCODING || *name == UPGRADE || *name == KEEP_ALIVE || *name == PROXY_CONNECTION {
            others = true;
        } else if *name == TE {
            te = true;
        }
    }
    if te {
        let trailers = has_token(headers, &TE, "trailers");
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if connection {
        strip_named(headers);
    }
    if others {
        for name in [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
            headers.remove(name);
        }
    }
}

fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    headers.remove(CONNECTION);
    for name in named {
        // Fields that carry the message itself cannot be declared away (RFC 9110 section 7.6.1); TE was decided on already.
        if !matches!(name.as_str(), "host" | "content-length" | "te") {
            headers.remove(name);
        }
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// Adds the caller's address, the scheme it used, and an id for the request where it has none.
pub fn add_forwarded(
    headers: &mut HeaderMap,
    client: &HeaderValue,
    tls: bool,
    request_id: impl FnOnce() -> HeaderValue,
) {
    match headers.get_mut(X_FORWARDED_FOR) {
        None => {
            headers.insert(X_FORWARDED_FOR, client.clone());
        }
        Some(before) => {
            let joined = [before.as_bytes(), b", ", client.as_bytes()].concat();
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                *before = joined;
            }
        }
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(if tls { "https" } else { "http" }));
    headers.entry(X_REQUEST_ID).or_insert_with(request_id);
}

/// The target as HTTP/1.1 has it towards an origin: without scheme and authority.
#[must_use]
pub fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() && uri.scheme().is_none() {
        return uri.clone();
    }
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// The target as h2 has it: scheme, authority and path.
#[must_use]
pub fn absolute_form(uri: &Uri, authority: &HeaderValue) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Authority::try_from(authority.as_bytes()).ok();
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.authority.as_ref()?;
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests;
