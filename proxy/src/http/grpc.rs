//! Outcomes as gRPC tells them: the HTTP status is 200 whatever happened, `grpc-status` says it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use crate::message::fields::Fields;
use crate::message::name::Name;

/// Whether a message is gRPC's.
#[must_use]
pub fn is_grpc(fields: &Fields) -> bool {
    fields.get(Name::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// The HTTP status that means the same as the `grpc-status` of a head or of trailers (as Google's API design guide maps them).
#[must_use]
pub fn status(fields: &Fields) -> Option<u16> {
    let code: u8 = std::str::from_utf8(fields.get(Name::GrpcStatus)?).ok()?.parse().ok()?;
    Some(match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_statuses() {
        let check = |value: &'static str, expected: Option<u16>| {
            let fields = Fields::from_iter([("grpc-status", value)]);
            assert_eq!(status(&fields), expected, "{value}");
        };
        check("0", Some(200));
        check("14", Some(503));
        check("99", Some(500));
        check("x", None);
        assert_eq!(status(&Fields::default()), None);
    }
}
