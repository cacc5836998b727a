//! Where a message ends (RFC 9112 section 6). What is ambiguous is refused.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::{Method, StatusCode, Version};

use super::head::{BadHead, malformed};
use crate::message::fields::Fields;
use crate::message::name::Name;
use crate::message::{RequestHead, ResponseHead};

/// How much body a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// None at all.
    None,
    /// So many bytes, maybe 0.
    Sized(u64),
    Chunked,
    /// A response may go on until its connection ends.
    UntilClose,
}

/// Of a request.
///
/// # Errors
/// [`BadHead`]; its connection cannot be read on.
pub fn of_request(head: &RequestHead) -> Result<Length, BadHead> {
    let length = content_length(&head.fields)?;
    if !head.fields.has(Name::TransferEncoding) {
        return Ok(length.map_or(Length::None, Length::Sized));
    }
    if head.version != Version::HTTP_11 {
        return malformed("Transfer-Encoding in a version that has none (RFC 9112 section 6.1)");
    }
    if length.is_some() {
        return malformed("both Transfer-Encoding and Content-Length (RFC 9112 section 6.1)");
    }
    chunked_alone(&head.fields)?;
    Ok(Length::Chunked)
}

/// Of a response to a request with `method`.
///
/// # Errors
/// [`BadHead`]; its connection cannot be read on.
pub fn of_response(head: &ResponseHead, method: &Method) -> Result<Length, BadHead> {
    let has_none = *method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = content_length(&head.fields)?;
    let coded = head.fields.has(Name::TransferEncoding);
    if coded && length.is_some() {
        return malformed("both Transfer-Encoding and Content-Length (RFC 9112 section 6.3)");
    }
    if has_none {
        return Ok(Length::None);
    }
    if coded {
        if head.version != Version::HTTP_11 {
            return malformed("Transfer-Encoding in a version that has none (RFC 9112 section 6.1)");
        }
        chunked_alone(&head.fields)?;
        return Ok(Length::Chunked);
    }
    Ok(length.map_or(Length::UntilClose, Length::Sized))
}

/// `chunked`, once, and nothing else: other codings would have to be asked for (RFC 9110 section 10.1.4), which nobody does here.
fn chunked_alone(fields: &Fields) -> Result<(), BadHead> {
    let mut values = fields.all(Name::TransferEncoding);
    let only = values.next().filter(|_| values.next().is_none());
    if only.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let known = |coding: &[u8]| coding.iter().all(|byte| super::head::is_token(*byte));
    let mut codings: Vec<&[u8]> = fields.members(Name::TransferEncoding).collect();
    let last = codings.pop().unwrap_or_default();
    let others_differ = !codings.iter().any(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if last.eq_ignore_ascii_case(b"chunked") && !codings.is_empty() && others_differ && codings.into_iter().all(known) {
        return Err(BadHead::Coding);
    }
    malformed("Transfer-Encoding does not end in one chunked (RFC 9112 section 6.3)")
}

/// One number, once (RFC 9110 section 8.6).
///
/// # Errors
/// [`BadHead`] for anything else than digits that fit 63 bits, and for more than one, even if they agree.
pub fn content_length(fields: &Fields) -> Result<Option<u64>, BadHead> {
    let mut values = fields.all(Name::ContentLength);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return malformed("Content-Length twice (RFC 9112 section 6.3)");
    }
    match number(value) {
        Some(length) => Ok(Some(length)),
        None => malformed("Content-Length is no number (RFC 9112 section 6.3)"),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    if text.len() < 19 {
        return Some(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    }
    text.iter().try_fold(0, digit).filter(|length| i64::try_from(*length).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        all.iter().copied().collect()
    }

    #[test]
    fn requests_end_where_they_say() {
        let check = |version: Version, all: &[(&str, &str)], expected: Option<Length>| {
            let head = RequestHead::new(Method::GET, version, b"/", fields(all));
            assert_eq!(of_request(&head).ok(), expected, "{all:?}");
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        check(new, &[], Some(Length::None));
        check(new, &[("content-length", "0")], Some(Length::Sized(0)));
        check(old, &[("content-length", "0042")], Some(Length::Sized(42)));
        check(new, &[("transfer-encoding", "Chunked")], Some(Length::Chunked));
        check(old, &[("transfer-encoding", "chunked")], None);
        check(new, &[("transfer-encoding", "chunked"), ("content-length", "1")], None);
        check(new, &[("content-length", "1"), ("content-length", "1")], None);
        for length in
            ["", "1, 1", "+1", "-1", "0x1", "1 1", "1e1", "9223372036854775808", "99999999999999999999", "1_0"]
        {
            check(new, &[("content-length", length)], None);
        }
        for coding in [
            "",
            "identity",
            "chunked, identity",
            "chunked, chunked",
            "gzip, chunked",
            "xchunked",
            "\"chunked\"",
            "chunked,",
            "chunked;a",
        ] {
            check(new, &[("transfer-encoding", coding)], None);
        }
        check(new, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], None);
    }

    #[test]
    fn a_coding_that_could_be_carried_is_told_from_nonsense() {
        let head = |coding: &str| {
            RequestHead::new(Method::GET, Version::HTTP_11, b"/", fields(&[("transfer-encoding", coding)]))
        };
        assert_eq!(of_request(&head("gzip, chunked")), Err(BadHead::Coding));
        assert!(matches!(of_request(&head("chunked, chunked")), Err(BadHead::Malformed { .. })));
        assert!(matches!(of_request(&head("gzip")), Err(BadHead::Malformed { .. })));
    }

    #[test]
    fn responses_end_where_they_say() {
        let check = |status: u16, method: Method, all: &[(&str, &str)], expected: Option<Length>| {
            let status = StatusCode::from_u16(status).unwrap();
            let head = ResponseHead::new(status, Version::HTTP_11, fields(all));
            assert_eq!(of_response(&head, &method).ok(), expected, "{status} {all:?}");
        };
        check(200, Method::GET, &[], Some(Length::UntilClose));
        check(200, Method::GET, &[("content-length", "3")], Some(Length::Sized(3)));
        check(200, Method::HEAD, &[("content-length", "3")], Some(Length::None));
        check(304, Method::GET, &[("content-length", "3")], Some(Length::None));
        check(204, Method::GET, &[("transfer-encoding", "chunked")], Some(Length::None));
        check(103, Method::GET, &[], Some(Length::None));
        check(200, Method::GET, &[("transfer-encoding", "chunked")], Some(Length::Chunked));
        check(200, Method::GET, &[("transfer-encoding", "chunked"), ("content-length", "3")], None);
        check(200, Method::GET, &[("transfer-encoding", "gzip")], None);
        check(200, Method::GET, &[("content-length", "3"), ("content-length", "4")], None);
    }
}
