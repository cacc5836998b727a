//! Heads and chunks, to bytes. What stands in a head was checked when it was read; nothing of it can begin a line of its own.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use crate::h1::framing::Length;
use crate::message::fields::{Field, Fields};
use crate::message::name::{Name, Names};
use crate::message::trailers::may_trail;
use crate::message::{RequestHead, ResponseHead};

/// Longest size line of a chunk: 16 digits and CRLF.
const SIZE_LINE_BYTES_MAX: usize = 18;

/// A request head for an origin (RFC 9112 section 3.2.1), with `authority` as its `Host`. The fields that frame it come from `body`; the
/// head's own are left out.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, authority: &[u8], body: Length) {
    out.reserve(head.fields.text_bytes() + 4 * head.fields.len() + authority.len() + 64);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(authority);
    out.extend_from_slice(b"\r\n");
    check(&head.fields);
    head.fields.write_lines(const { Names::of(&[Name::Host, Name::ContentLength, Name::TransferEncoding]) }, out);
    framing(out, body);
    out.extend_from_slice(b"\r\n");
}

/// A response head. `connection` is what the client is told of its connection.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead, body: Length, connection: Option<&[u8]>) {
    out.reserve(head.fields.text_bytes() + 4 * head.fields.len() + 96);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    check(&head.fields);
    let left_out = match body {
        // A response to HEAD, or 304, tells the length that another would have had.
        Length::None => const { Names::of(&[Name::TransferEncoding]) },
        _ => const { Names::of(&[Name::ContentLength, Name::TransferEncoding]) },
    };
    head.fields.write_lines(left_out, out);
    framing(out, body);
    if let Some(connection) = connection {
        out.extend_from_slice(b"connection: ");
        out.extend_from_slice(connection);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn check(fields: &Fields) {
    let is_checked = |field: Field<'_>| super::head::is_field_value(field.value);
    debug_assert!(fields.iter().all(is_checked), "a field value was not checked: {fields:?}");
}

fn line(out: &mut Vec<u8>, field: Field<'_>) {
    out.extend_from_slice(field.letters);
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

fn framing(out: &mut Vec<u8>, body: Length) {
    match body {
        Length::None | Length::UntilClose => {}
        Length::Sized(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// The size line of a chunk; its data and CRLF follow.
pub fn chunk_size(out: &mut Vec<u8>, length: usize) {
    let mut line = [0; SIZE_LINE_BYTES_MAX];
    let mut at = SIZE_LINE_BYTES_MAX - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut left = length;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[left & 0xf];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&line[at..]);
}

/// The end of a chunked body.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for field in trailers.iter().filter(|field| may_trail(field.name, field.letters)) {
            line(out, field);
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, Version};

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_has_one_host_and_one_framing() {
        let fields = [("Host", "x"), ("A", "b"), ("content-length", "007"), ("c", "")].into_iter().collect();
        let head = RequestHead::new(Method::PUT, Version::HTTP_10, b"/p?q", fields);
        let check = |body: Length, expected: &str| assert_eq!(text(|out| request(out, &head, b"web", body)), expected);
        check(Length::Sized(7), "PUT /p?q HTTP/1.1\r\nhost: web\r\nA: b\r\nc: \r\ncontent-length: 7\r\n\r\n");
        check(Length::Chunked, "PUT /p?q HTTP/1.1\r\nhost: web\r\nA: b\r\nc: \r\ntransfer-encoding: chunked\r\n\r\n");
        check(Length::None, "PUT /p?q HTTP/1.1\r\nhost: web\r\nA: b\r\nc: \r\n\r\n");
    }

    #[test]
    fn a_response_keeps_its_words() {
        let fields: Fields = [("Content-Length", "5"), ("Transfer-Encoding", "x"), ("A", "b")].into_iter().collect();
        let mut head = ResponseHead::new(StatusCode::OK, Version::HTTP_11, fields);
        head.set_reason(b"Fine");
        let check = |body: Length, connection: Option<&[u8]>, expected: &str| {
            assert_eq!(text(|out| response(out, &head, body, connection)), expected);
        };
        check(Length::None, None, "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nA: b\r\n\r\n");
        check(
            Length::Sized(5),
            Some(b"close"),
            "HTTP/1.1 200 Fine\r\nA: b\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
        );
    }

    #[test]
    fn sizes_and_numbers() {
        let check = |number: usize| {
            assert_eq!(text(|out| chunk_size(out, number)), format!("{number:x}\r\n"));
            assert_eq!(text(|out| decimal(out, number as u64)), number.to_string());
        };
        [0, 1, 9, 10, 15, 16, 255, 4096, usize::MAX].into_iter().for_each(check);
        let trailers: Fields = [("X", "1"), ("Host", "h")].into_iter().collect();
        assert_eq!(text(|out| last_chunk(out, Some(&trailers))), "0\r\nX: 1\r\n\r\n");
    }
}
