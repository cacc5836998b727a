//! What may stand behind a body (RFC 9110 section 6.5).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::name::Name;

/// What may not stand behind a body, beyond the names that mean something here: what frames or codes a message, authenticates,
/// conditions or controls a request, or sets state (RFC 9110 section 6.5.1).
const NEVER_TRAIL: [&[u8]; 26] = [
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"expires",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"pragma",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy-authorization",
    b"range",
    b"set-cookie",
    b"vary",
    b"warning",
    b"www-authenticate",
    b"x-real-ip",
    b"x-original-url",
    b"x-rewrite-url",
];

/// Whether a field may stand behind a body.
#[must_use]
pub fn may_trail(name: Name, letters: &[u8]) -> bool {
    use Name as N;
    match name {
        N::Other => !NEVER_TRAIL.iter().any(|never| never.eq_ignore_ascii_case(letters)),
        N::GrpcMessage | N::GrpcStatus => true,
        _ => false,
    }
}
