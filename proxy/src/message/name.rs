//! The field names that mean something to a proxy. All others are carried as they are.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// A field name, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Name {
    Other,
    Connection,
    ContentLength,
    ContentType,
    Expect,
    Forwarded,
    GrpcMessage,
    GrpcStatus,
    GrpcTimeout,
    Host,
    KeepAlive,
    MaxForwards,
    ProxyConnection,
    ProxyStatus,
    RetryAfter,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XEnvoyRequestTimeout,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    Http2Settings,
    Cookie,
    Date,
    /// Any other `X-Forwarded-…`, and `X-Real-IP`. Also those above with `_` for `-`: to CGI and its heirs both are the same.
    XForwardedOther,
}

/// Every known name as it is written in HTTP/1.1; h2 has it in lower case.
const NAMES: [(Name, &str); 27] = [
    (Name::Connection, "connection"),
    (Name::ContentLength, "content-length"),
    (Name::ContentType, "content-type"),
    (Name::Expect, "expect"),
    (Name::Forwarded, "forwarded"),
    (Name::GrpcMessage, "grpc-message"),
    (Name::GrpcStatus, "grpc-status"),
    (Name::GrpcTimeout, "grpc-timeout"),
    (Name::Host, "host"),
    (Name::KeepAlive, "keep-alive"),
    (Name::MaxForwards, "max-forwards"),
    (Name::ProxyConnection, "proxy-connection"),
    (Name::ProxyStatus, "proxy-status"),
    (Name::RetryAfter, "retry-after"),
    (Name::Te, "te"),
    (Name::Trailer, "trailer"),
    (Name::TransferEncoding, "transfer-encoding"),
    (Name::Upgrade, "upgrade"),
    (Name::Via, "via"),
    (Name::XEnvoyRequestTimeout, "x-envoy-upstream-rq-timeout-ms"),
    (Name::XForwardedFor, "x-forwarded-for"),
    (Name::XForwardedHost, "x-forwarded-host"),
    (Name::XForwardedProto, "x-forwarded-proto"),
    (Name::XRequestId, "x-request-id"),
    (Name::Http2Settings, "http2-settings"),
    (Name::Cookie, "cookie"),
    (Name::Date, "date"),
];

impl Name {
    /// Tells a name by its letters, whatever their case. They must be a token (RFC 9110 section 5.6.2): nothing here looks at that.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let is = |known: Name| if is_in_any_case(name, known.as_bytes()) { known } else { Name::Other };
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        // Length and first letter leave at most two candidates.
        let known = match (name.len(), first) {
            (2, _) => is(Self::Te),
            (3, _) => is(Self::Via),
            (4, b'h') => is(Self::Host),
            (4, b'd') => is(Self::Date),
            (6, b'c') => is(Self::Cookie),
            (6, _) => is(Self::Expect),
            (7, b't') => is(Self::Trailer),
            (7, b'u') => is(Self::Upgrade),
            (9, _) => is(Self::Forwarded),
            (10, b'c') => is(Self::Connection),
            (10, b'k') => is(Self::KeepAlive),
            (11, b'g') => is(Self::GrpcStatus),
            (11, b'r') => is(Self::RetryAfter),
            (12, b'c') => is(Self::ContentType),
            (12, b'x') => is(Self::XRequestId),
            (12, b'p') => is(Self::ProxyStatus),
            (12, b'm') => is(Self::MaxForwards),
            (12, b'g') => match is(Self::GrpcMessage) {
                Self::Other => is(Self::GrpcTimeout),
                found => found,
            },
            (14, b'c') => is(Self::ContentLength),
            (14, b'h') => is(Self::Http2Settings),
            (15, _) => is(Self::XForwardedFor),
            (16, b'x') => is(Self::XForwardedHost),
            (16, b'p') => is(Self::ProxyConnection),
            (17, b't') => is(Self::TransferEncoding),
            (17, b'x') => is(Self::XForwardedProto),
            (30, _) => is(Self::XEnvoyRequestTimeout),
            _ => Self::Other,
        };
        if known == Self::Other && first == b'x' && says_who_called(name) { Self::XForwardedOther } else { known }
    }

    /// In lower case; empty for [`Name::Other`] and [`Name::XForwardedOther`], which stand for many.
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        self.as_str().as_bytes()
    }

    /// In lower case; empty for [`Name::Other`] and [`Name::XForwardedOther`], which stand for many.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        // The table stands in the order of the enum.
        match self {
            Self::Other | Self::XForwardedOther => "",
            known => NAMES[known as usize - 1].1,
        }
    }
}

/// Whether it is one of the many that say who called, once `_` is `-`.
fn says_who_called(name: &[u8]) -> bool {
    let is = |(letter, known): (&u8, &u8)| letter.eq_ignore_ascii_case(known) || (*letter == b'_' && *known == b'-');
    let begins = |known: &[u8]| name.len() >= known.len() && name.iter().zip(known).all(is);
    begins(b"x-forwarded-") || name.len() == 9 && begins(b"x-real-ip")
}

/// Whether a token is that name, which stands in lower case. Eight bytes at a time: with the bit set that tells lower case from upper,
/// no other character of a token becomes a letter, a digit or a hyphen.
fn is_in_any_case(token: &[u8], name: &[u8]) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let ((words, rest), (known_words, known_rest)) = (token.as_chunks::<8>(), name.as_chunks::<8>());
    let is_same_word =
        |(word, known): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*word) | LOWER == u64::from_le_bytes(*known);
    let is_same = |(byte, known): (&u8, &u8)| byte | 0x20 == *known;
    token.len() == name.len()
        && words.iter().zip(known_words).all(is_same_word)
        && rest.iter().zip(known_rest).all(is_same)
}

/// A set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names(u32);

impl Names {
    #[must_use]
    pub const fn of(names: &[Name]) -> Self {
        let (mut set, mut place) = (0, 0);
        while place < names.len() {
            set |= 1 << names[place] as u32;
            place += 1;
        }
        Self(set)
    }

    #[must_use]
    pub const fn has(self, name: Name) -> bool {
        self.0 & 1 << name as u32 != 0
    }

    #[must_use]
    pub const fn has_any(self, names: Self) -> bool {
        self.0 & names.0 != 0
    }

    pub fn insert(&mut self, name: Name) {
        self.0 |= 1 << name as u32;
    }

    pub fn remove(&mut self, names: Self) {
        self.0 &= !names.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_told_whatever_its_case() {
        for (name, text) in NAMES {
            assert_eq!(name.as_str(), text, "the table stands in the order of the enum");
            assert_eq!(Name::of(text.as_bytes()), name);
            assert_eq!(Name::of(text.to_ascii_uppercase().as_bytes()), name);
            let longer = Name::of(format!("{text}x").as_bytes());
            assert!(matches!(longer, Name::Other | Name::XForwardedOther), "{text}x");
        }
        for one in
            ["X-Forwarded-Port", "x-forwarded-", "x_forwarded_for", "X-Forwarded_Proto", "x-real-ip", "X_Real_IP"]
        {
            assert_eq!(Name::of(one.as_bytes()), Name::XForwardedOther, "{one}");
        }
        for (name, text) in NAMES {
            for place in 0..text.len() {
                for byte in (0..=255_u8).filter(|byte| crate::h1::head::is_token(*byte)) {
                    let mut other = text.as_bytes().to_vec();
                    other[place] = byte;
                    let is_same = byte.eq_ignore_ascii_case(&text.as_bytes()[place]);
                    assert_eq!(Name::of(&other) == name, is_same, "{}", other.escape_ascii());
                }
            }
        }
        for other in [
            "",
            "x",
            "x-forwarded",
            "x-real-ips",
            "y-forwarded-for",
            "hose",
            "t\u{e9}",
            "content-lengti",
            "grpc-messagf",
        ] {
            assert_eq!(Name::of(other.as_bytes()), Name::Other, "{other}");
        }
    }
}
