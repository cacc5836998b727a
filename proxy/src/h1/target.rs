//! What a request line and `Host` may say (RFC 9112 section 3.2, RFC 3986 sections 3.2 and 3.3).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::Method;

use super::head::BadHead;

/// The four forms of a request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'t> {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute { scheme: &'t [u8], authority: &'t [u8], path: &'t [u8] },
    /// `host:port`, of CONNECT
    Authority,
    /// `*`, of OPTIONS
    Asterisk,
}

/// Which form it has.
///
/// # Errors
/// [`BadHead::Malformed`] for what has none, or one that its method does not take.
pub fn form<'t>(target: &'t [u8], method: &Method) -> Result<Form<'t>, BadHead> {
    let malformed = |problem| Err(BadHead::Malformed { problem });
    // Without a branch in the loop, so that it is done for many bytes at once.
    let bad = |byte: u8| (byte <= b' ') | (byte >= 0x7f) | (byte == b'#');
    if target.iter().fold(false, |found, byte| found | bad(*byte)) {
        return malformed("a character in the target that no target has (RFC 3986 section 2)");
    }
    if *method == Method::CONNECT {
        let has_port = |port: &[u8]| !port.is_empty();
        return match split_port(target) {
            Some((_, Some(port))) if is_authority(target) && has_port(port) => Ok(Form::Authority),
            _ => malformed("CONNECT wants host:port (RFC 9112 section 3.2.3)"),
        };
    }
    match target {
        [b'/', ..] => Ok(Form::Origin),
        b"*" if *method == Method::OPTIONS => Ok(Form::Asterisk),
        _ => absolute(target, method),
    }
}

fn absolute<'t>(target: &'t [u8], method: &Method) -> Result<Form<'t>, BadHead> {
    let malformed = |problem| Err(BadHead::Malformed { problem });
    let (scheme, rest) = match target.iter().position(|byte| *byte == b':') {
        Some(colon) => (&target[..colon], &target[colon + 1..]),
        None => return malformed("a target has none of the forms of RFC 9112 section 3.2"),
    };
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return malformed("a target has none of the forms of RFC 9112 section 3.2");
    }
    let Some(rest) = rest.strip_prefix(b"//") else { return malformed("an absolute target without an authority") };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) {
        return malformed("the authority of the target is none (RFC 3986 section 3.2)");
    }
    let path: &[u8] = match path {
        // RFC 9112 section 3.2.4.
        [] if *method == Method::OPTIONS => b"*",
        [] => b"/",
        path => path,
    };
    Ok(Form::Absolute { scheme, authority, path })
}

/// Host and port of an authority; none where the brackets of an IPv6 address do not match.
fn split_port(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = match authority {
        [b'[', ..] => authority.iter().position(|byte| *byte == b']')? + 1,
        _ => authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => Some((host, Some(port))),
        _ => None,
    }
}

/// `uri-host [ ":" port ]`, without user information, and with a host.
#[must_use]
pub fn is_authority(text: &[u8]) -> bool {
    let Some((host, port)) = split_port(text) else { return false };
    let port_fits = |port: &[u8]| {
        // An empty port means the usual one (RFC 3986 section 3.2.3).
        let digits = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
        digits && port.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535
    };
    is_host(host) && port.is_none_or(port_fits)
}

fn is_host(host: &[u8]) -> bool {
    if let [b'[', inside @ .., b']'] = host {
        let text = std::str::from_utf8(inside).unwrap_or_default();
        return text.parse::<std::net::Ipv6Addr>().is_ok() || is_future_address(inside);
    }
    // Without a branch in the loop, so that it is done for many bytes at once.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'.') | (byte == b'-') | (byte == b'_');
    !host.is_empty() && (host.iter().fold(true, |all, byte| all & is_plain(*byte)) || is_registered_name(host))
}

/// `reg-name` of RFC 3986 section 3.2.2, percent-encoding included.
fn is_registered_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [first, next @ ..] = rest {
        rest = match (first, next) {
            (b'%', [high, low, next @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => next,
            (byte, next) if is_unreserved(*byte) || is_sub_delimiter(*byte) => next,
            _ => return false,
        };
    }
    true
}

/// `IPvFuture` of RFC 3986 section 3.2.2.
fn is_future_address(text: &[u8]) -> bool {
    let [b'v' | b'V', rest @ ..] = text else { return false };
    let Some(dot) = rest.iter().position(|byte| *byte == b'.') else { return false };
    let (version, address) = (&rest[..dot], &rest[dot + 1..]);
    let fits = |byte: &u8| is_unreserved(*byte) || is_sub_delimiter(*byte) || *byte == b':';
    !version.is_empty() && version.iter().all(u8::is_ascii_hexdigit) && !address.is_empty() && address.iter().all(fits)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The comma is one of them, but two hosts in one field are a trap: it is left out.
fn is_sub_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_targets() {
        let check = |target: &str, method: Method, expected: Option<Form<'_>>| {
            assert_eq!(form(target.as_bytes(), &method).ok(), expected, "{method} {target}");
        };
        let absolute = |scheme: &'static str, authority: &'static str, path: &'static str| {
            let (scheme, authority, path) = (scheme.as_bytes(), authority.as_bytes(), path.as_bytes());
            Some(Form::Absolute { scheme, authority, path })
        };
        check("/", Method::GET, Some(Form::Origin));
        check("//a/../%2f?x=|y", Method::GET, Some(Form::Origin));
        check("*", Method::OPTIONS, Some(Form::Asterisk));
        check("*", Method::GET, None);
        check("a:80", Method::CONNECT, Some(Form::Authority));
        check("[::1]:80", Method::CONNECT, Some(Form::Authority));
        for target in ["a", "a:", "/", "http://a:80/", "u@a:80", "[::1]", ":80"] {
            check(target, Method::CONNECT, None);
        }
        check("http://a/b?c", Method::GET, absolute("http", "a", "/b?c"));
        check("HTTPS://a:1", Method::GET, absolute("HTTPS", "a:1", "/"));
        check("http://a?b", Method::GET, absolute("http", "a", "?b"));
        check("http://a", Method::OPTIONS, absolute("http", "a", "*"));
        for target in [
            "",
            "a",
            "a:80",
            "http:a",
            "http://",
            "http:///a",
            "http://u@a/",
            "ftp://a/",
            "?a",
            "/#a",
            "/a b",
            "/\u{e9}",
            "/\x7f",
        ] {
            check(target, Method::GET, None);
        }
    }

    #[test]
    fn authorities() {
        let check = |text: &str, expected: bool| assert_eq!(is_authority(text.as_bytes()), expected, "{text}");
        for good in ["a", "a.b-c_d:80", "a:", "1.2.3.4:65535", "[::1]", "[::1]:8", "[v1.a:b]", "%41b", "a~!$&'()*+;="] {
            check(good, true);
        }
        for bad in [
            "", ":80", "a:b", "a:65536", "a:080808", "a:-1", "u@a", "a/b", "a b", "a,b", "[::1", "::1", "[::g]",
            "[::1]a", "a:1:2", "%4", "%zz", "a\\b", "[]", "\u{e9}",
        ] {
            check(bad, false);
        }
    }
}
