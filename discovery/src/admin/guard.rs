//! Who may change something, since what is asked for here starts commands and containers: a process of root, or of our own
//! user, on this host. And no web page: a browser would send its requests here from any page a person has open (CSRF), or from
//! one whose name was made to point here (DNS rebinding); a command-line client sends no `Origin`, and calls us by an address
//! or a name that no stranger can own.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method};

use super::peer::Caller;

/// Why a request that would change something is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the Origin {origin:?} is not this server: web pages may not change anything here")]
    ForeignOrigin { origin: String },
    #[error(
        "the Host {host:?} could be anybody's name; call this server by its address, localhost or a name without a dot"
    )]
    ForeignHost { host: String },
    #[error(
        "changes are taken over loopback only, and this comes from {address}: call 127.0.0.1 (or [::1]) on the host, or in the \
         container, that this server runs in"
    )]
    NotLoopback { address: IpAddr },
    #[error(
        "changes are taken from root and from user {own}, whom this server runs as, and this comes from user {id}: ask again \
         as one of them (with sudo)"
    )]
    ForeignUser { id: u32, own: u32 },
    #[error(
        "changes are taken from root and from user {own}, whom this server runs as, and the user of this connection cannot be \
         told: keep it open until the answer, and call from the network namespace that this server runs in"
    )]
    UnknownUser { own: u32 },
}

/// Whether a request changes nothing by its method (RFC 9110 section 9.2.1).
#[must_use]
pub fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether it asks what would be done about a project (`POST /v1/projects/{name}/plan`), and has nothing done: its body is
/// too long for a query, and so it is no GET.
#[must_use]
pub fn only_plans(method: &Method, path: &str) -> bool {
    let name = path.strip_prefix("/v1/projects/").and_then(|rest| rest.strip_suffix("/plan"));
    *method == Method::POST && name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Whether `caller` may change something here, where `own` is the user that we run as.
///
/// # Errors
/// [`Refusal`] for everybody but root and ourselves.
pub fn check_caller(caller: Caller, own: u32) -> Result<(), Refusal> {
    match caller {
        Caller::Elsewhere { address } => Err(Refusal::NotLoopback { address }),
        Caller::User { id } if id == 0 || id == own => Ok(()),
        Caller::User { id } => Err(Refusal::ForeignUser { id, own }),
        Caller::Unknown => Err(Refusal::UnknownUser { own }),
    }
}

/// # Errors
/// [`Refusal`] for a changing method from a foreign page, or under a foreign name.
pub fn check(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if only_reads(method) {
        return Ok(());
    }
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(HOST).unwrap_or_default();
    if !is_own(host_of(&host)) {
        return Err(Refusal::ForeignHost { host });
    }
    match text(ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != Some(&host) => Err(Refusal::ForeignOrigin { origin }),
        _ => Ok(()),
    }
}

/// Without the port: `[::1]:80` is `::1`.
fn host_of(authority: &str) -> &str {
    if let Some((inner, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inner;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// An address, or a name that nobody can register: one label (a container's name), or under `.localhost` or `.internal`.
fn is_own(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    !host.is_empty()
        && (host.parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || host.ends_with(".localhost")
            || host.ends_with(".internal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_we_ourselves_may_change_things_and_nobody_else() {
        let check = |caller: Caller, own: u32, allowed: bool, told: &str| match check_caller(caller, own) {
            Ok(()) => assert!(allowed, "{caller:?}"),
            Err(refusal) => assert!(!allowed && refusal.to_string().contains(told), "{caller:?}: {refusal}"),
        };
        check(Caller::User { id: 0 }, 1000, true, "");
        check(Caller::User { id: 1000 }, 1000, true, "");
        check(Caller::User { id: 1001 }, 1000, false, "from user 1001: ask again as one of them");
        check(Caller::User { id: 1000 }, 0, false, "from user 1000");
        check(
            Caller::Elsewhere { address: "10.0.0.9".parse().unwrap() },
            0,
            false,
            "comes from 10.0.0.9: call 127.0.0.1",
        );
        check(Caller::Unknown, 0, false, "cannot be told");
    }

    #[test]
    fn a_plan_is_no_change() {
        let check =
            |method: Method, path: &str, expected: bool| assert_eq!(only_plans(&method, path), expected, "{path}");
        check(Method::POST, "/v1/projects/shop/plan", true);
        check(Method::PUT, "/v1/projects/shop/plan", false);
        for path in ["/v1/projects/shop/scale", "/v1/projects/plan", "/v1/projects//plan", "/v1/projects/a/b/plan"] {
            check(Method::POST, path, false);
        }
    }

    #[test]
    fn pages_are_refused_and_clients_are_not() {
        let check = |method: Method, host: &str, origin: Option<&str>, allowed: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(super::check(&method, &headers).is_ok(), allowed, "{method} {host} {origin:?}");
        };
        for host in ["127.0.0.1:14000", "[::1]:14000", "localhost:14000", "discovery:14000", "d.svc.mesh.internal"] {
            check(Method::POST, host, None, true);
        }
        check(Method::POST, "127.0.0.1:14000", Some("http://127.0.0.1:14000"), true);
        check(Method::POST, "127.0.0.1:14000", Some("http://evil.example"), false);
        check(Method::DELETE, "127.0.0.1:14000", Some("null"), false);
        check(Method::POST, "evil.example:14000", Some("http://evil.example:14000"), false);
        check(Method::PUT, "evil.example:14000", None, false);
        check(Method::POST, "", None, false);
        check(Method::GET, "evil.example", Some("http://evil.example"), true);
    }
}
