//! What the first bytes of a connection say: HTTP/1.x by its request line, h2 by its preface, TLS by its record header; all else
//! is bytes of some other kind.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    Http1,
    /// By prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// A ClientHello; what is inside is the two ends' own business.
    Tls,
    Raw,
}

/// What is known after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Known(Detected),
    /// These bytes fit more than one; further ones will tell.
    MoreBytes,
}

/// What an h2 client begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whoever says so much speaks h2, be it wrongly.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// RFC 8446 section 4.
const CLIENT_HELLO: u8 = 1;

/// The longest method taken for one; registered ones have at most 17 characters (`UPDATEREDIRECTREF`).
const METHOD_LEN_MAX: usize = 24;

/// As many bytes as are ever needed: a longer request line is taken for one before it has ended.
pub const BYTES_MAX: usize = 8 * 1024;

/// Judges the bytes that a client sent first.
#[must_use]
pub fn detect(bytes: &[u8]) -> Verdict {
    if let Some(verdict) = http2(bytes) {
        return verdict;
    }
    if bytes[0] == 0x16 {
        return tls(bytes);
    }
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    match http1_start(bytes) {
        Verdict::Known(Detected::Http1) => match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => Verdict::Known(if names_http(&bytes[..end]) { Detected::Http1 } else { Detected::Raw }),
            None if bytes.len() < BYTES_MAX => Verdict::MoreBytes,
            None => Verdict::Known(Detected::Http1),
        },
        verdict => verdict,
    }
}

/// Judges what a client sent to whom only HTTP is spoken.
#[must_use]
pub fn detect_http(bytes: &[u8]) -> Verdict {
    http2(bytes).unwrap_or(Verdict::Known(Detected::Http1))
}

/// The best guess where no more bytes came in time: who said so much of a request means one.
#[must_use]
pub fn guess(bytes: &[u8]) -> Detected {
    match http1_start(bytes) {
        Verdict::Known(detected) => detected,
        Verdict::MoreBytes => Detected::Raw,
    }
}

/// By its preface; none for what begins otherwise.
fn http2(bytes: &[u8]) -> Option<Verdict> {
    if PREFACE_LINE.starts_with(bytes) && bytes.len() < PREFACE_LINE.len() {
        return Some(Verdict::MoreBytes);
    }
    bytes.starts_with(PREFACE_LINE).then_some(Verdict::Known(Detected::Http2))
}

/// A request line ends with its version (RFC 9112 section 3). So do those of RTSP, SIP and ICAP, with another name.
fn names_http(line: &[u8]) -> bool {
    let version = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
    version.is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Whether an HTTP/1 client takes us for its proxy: its target is absolute, or an authority to open a tunnel to (RFC 9112
/// section 3.2). It wants the proxy that it dialled, and what it sends is for nobody else to read.
#[must_use]
pub fn asks_a_proxy(bytes: &[u8]) -> bool {
    let target = bytes.iter().position(|byte| *byte == b' ').and_then(|space| bytes.get(space + 1));
    target.is_some_and(|byte| !matches!(byte, b'/' | b'*'))
}

/// A record of handshake messages, of which a ClientHello is the first. The minor part of its version means nothing (RFC 8446 section
/// 5.1); its length is 2^14, and some more where it would be encrypted.
fn tls(bytes: &[u8]) -> Verdict {
    match bytes {
        [_, 0x03, _, 0..=0x48, _, CLIENT_HELLO, ..] => Verdict::Known(Detected::Tls),
        [_] | [_, 0x03] | [_, 0x03, _] | [_, 0x03, _, 0..=0x48] | [_, 0x03, _, 0..=0x48, _] => Verdict::MoreBytes,
        _ => Verdict::Known(Detected::Raw),
    }
}

/// An upper-case word, a space, and what a target begins with: `/`, `*`, or a letter of a scheme or host. Methods are
/// case-sensitive tokens, and all of those registered are upper case; line protocols often begin so too.
fn http1_start(bytes: &[u8]) -> Verdict {
    let word = bytes.iter().position(|byte| !(byte.is_ascii_uppercase() || *byte == b'-'));
    match word {
        None if bytes.len() <= METHOD_LEN_MAX => Verdict::MoreBytes,
        Some(length @ 1..=METHOD_LEN_MAX) if bytes[length] == b' ' => match bytes.get(length + 1) {
            None => Verdict::MoreBytes,
            Some(b'/' | b'*') => Verdict::Known(Detected::Http1),
            // An absolute target, or CONNECT's: only methods that are known are believed.
            Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'[' => {
                let known = matches!(
                    &bytes[..length],
                    b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"TRACE" | b"CONNECT"
                );
                Verdict::Known(if known { Detected::Http1 } else { Detected::Raw })
            }
            Some(_) => Verdict::Known(Detected::Raw),
        },
        _ => Verdict::Known(Detected::Raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let check = |bytes: &[u8], expected: Option<Detected>| {
            let expected = expected.map_or(Verdict::MoreBytes, Verdict::Known);
            assert_eq!(detect(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        };
        check(b"GET / HTTP/1.1\r\n", Some(Detected::Http1));
        check(b"GET / HTTP/1.1\n", Some(Detected::Http1));
        check(b"GET / HTTP/9 \r\nHost", Some(Detected::Http1));
        check(b"GET http://api:8080/x HTTP/1.1\r\n", Some(Detected::Http1));
        check(b"CONNECT [::1]:80 HTTP/1.1\r\n", Some(Detected::Http1));
        check(b"OPTIONS * HTTP/1.1\r\n", Some(Detected::Http1));
        check(b"M-SEARCH * HTTP/1.1\r\n", Some(Detected::Http1));
        check(b"PROPFIND /dav HTTP/1.1\r\n", Some(Detected::Http1));
        for other in
            ["OPTIONS rtsp://x/y RTSP/1.0", "OPTIONS sip:u@h SIP/2.0", "GET / ICAP/1.0", "GET key", "PUT /key 3"]
        {
            check(format!("{other}\r\n").as_bytes(), Some(Detected::Raw));
        }
        for begun in ["GE", "GET ", "GET /", "GET /a HTTP/1.1\r", "LIST *", "P", "PRI * HTTP/2.0\r"] {
            check(begun.as_bytes(), None);
        }
        let long = |bytes: usize| format!("GET /{}", "a".repeat(bytes - 5));
        check(long(BYTES_MAX - 1).as_bytes(), None);
        check(long(BYTES_MAX).as_bytes(), Some(Detected::Http1));
        check((long(BYTES_MAX) + "\r\n").as_bytes(), Some(Detected::Http1));
        check(b"PRI * HTTP/2.0\r\n", Some(Detected::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n", Some(Detected::Http2));
        check(PREFACE, Some(Detected::Http2));
        check(b"PRI * HTTP/2.1\r\n", Some(Detected::Http1));
        check(b"PRI * HTTP/2.0\r\nH", Some(Detected::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nSN", Some(Detected::Http2));
        check(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], Some(Detected::Tls));
        check(&[0x16, 0x03, 0x3f, 0x02, 0x00, 0x01], Some(Detected::Tls));
        check(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x02], Some(Detected::Raw));
        check(&[0x16, 0x03, 0x01, 0x49, 0x00, 0x01], Some(Detected::Raw));
        check(&[0x16, 0x03, 0x01, 0x02, 0x00], None);
        check(&[0x16], None);
        check(&[0x16, 0x05], Some(Detected::Raw));
        check(b"EHLO mail.example", Some(Detected::Raw));
        check(b"*1\r\n$4\r\nPING\r\n", Some(Detected::Raw));
        check(b"get / HTTP/1.1", Some(Detected::Raw));
        check(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(Detected::Raw));
        check(b" /", Some(Detected::Raw));
        check(&[0], Some(Detected::Raw));
    }

    #[test]
    fn where_only_http_is_spoken_only_the_preface_is_looked_for() {
        assert_eq!(detect_http(b"G"), Verdict::Known(Detected::Http1));
        assert_eq!(detect_http(b"PU"), Verdict::Known(Detected::Http1));
        assert_eq!(detect_http(b"PR"), Verdict::MoreBytes);
        assert_eq!(detect_http(PREFACE), Verdict::Known(Detected::Http2));
        assert_eq!(detect_http(&[0x16, 0x03]), Verdict::Known(Detected::Http1));
    }

    #[test]
    fn who_stops_in_the_middle_is_guessed() {
        for (bytes, expected) in
            [(b"GET / HT".as_slice(), Detected::Http1), (b"GE", Detected::Raw), (b"EHLO", Detected::Raw)]
        {
            assert_eq!(guess(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_client_of_a_proxy_is_told_by_its_target() {
        for (bytes, expected) in [
            (b"GET / HTTP/1.1".as_slice(), false),
            (b"OPTIONS * HTTP/1.1", false),
            (b"GET http://api/ HTTP/1.1", true),
            (b"CONNECT api:443 HTTP/1.1", true),
            (b"CONNECT [::1]:443 HTTP/1.1", true),
            (b"GET", false),
        ] {
            assert_eq!(asks_a_proxy(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn every_prefix_leads_to_the_same_verdict() {
        for whole in
            [b"DELETE /item HTTP/1.1\r\n".as_slice(), PREFACE, &[0x16, 3, 3, 1, 1], b"PRIME /x\n", b"hello there"]
        {
            let last = detect(whole);
            for length in 1..whole.len() {
                let verdict = detect(&whole[..length]);
                assert!(verdict == Verdict::MoreBytes || verdict == last, "{length} bytes of {whole:?}: {verdict:?}");
            }
        }
    }
}
