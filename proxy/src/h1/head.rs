//! A head, from bytes (RFC 9112 sections 2 to 5). Lines end in CRLF and in nothing else; there is no folding, no space before a colon,
//! no control character.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::ops::Range;

use http::{Method, StatusCode, Version};
use memchr::{memchr, memchr2};
use thiserror::Error;

use super::field_line::{Whitespace, field_lines};
use super::target::{self, Form};
use crate::message::fields::{Marks, Span};
use crate::message::{RequestHead, ResponseHead, Target};

/// How much a head may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// All of it, its last empty line included.
    pub bytes_max: usize,
    /// Field lines.
    pub fields_max: usize,
}

/// Empty lines in front of a request line that are passed over (RFC 9112 section 2.2).
const LEADING_LINES_MAX: usize = 4;

/// Fields of a head for which there is room at once.
const FIELDS_USUAL: usize = 16;

/// What is added to a request on its way: forwarding fields, a request id.
const ADDED_BYTES_USUAL: usize = 160;

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadHead {
    #[error("{problem}")]
    Malformed { problem: &'static str },
    #[error("the request target is longer than {bytes_max} bytes")]
    TargetTooLong { bytes_max: usize },
    #[error("the head is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the head has more than {fields_max} fields")]
    TooManyFields { fields_max: usize },
    #[error("HTTP/{major} is not spoken here")]
    Version { major: char },
    #[error("the transfer coding is not known here (RFC 9112 section 6.1)")]
    Coding,
}

/// A head that is whole, and how many bytes of the input it took.
#[derive(Debug)]
pub struct Whole<H> {
    pub head: H,
    pub length: usize,
}

/// A head that may not be whole yet. Keeps how far it was looked at, so that one that comes byte by byte is looked at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    looked_at: usize,
}

pub(super) const fn malformed<T>(problem: &'static str) -> Result<T, BadHead> {
    Err(BadHead::Malformed { problem })
}

impl Scan {
    /// How long the head at the start of `input` is; none while its end is not there. Line ends are checked on the way.
    fn end(&mut self, input: &[u8]) -> Result<Option<usize>, BadHead> {
        let mut at = self.looked_at;
        while let Some(found) = input.get(at..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
            let place = at + found;
            if input[place] == b'\n' {
                return malformed("a line ends in a bare LF (RFC 9112 section 2.2)");
            }
            match input.get(place + 1) {
                None => {
                    self.looked_at = place;
                    return Ok(None);
                }
                Some(b'\n') => {}
                Some(_) => return malformed("a CR without LF (RFC 9112 section 2.2)"),
            }
            at = place + 2;
            match (input.get(at), input.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => return Ok(Some(at + 2)),
                // The line may be the last one: it is looked at again.
                (None, _) | (Some(b'\r'), None) => {
                    self.looked_at = place;
                    return Ok(None);
                }
                _ => {}
            }
        }
        self.looked_at = input.len().max(at);
        Ok(None)
    }

    /// Reads a request head at the start of `input`; none while it is not whole.
    ///
    /// # Errors
    /// [`BadHead`], as early as it can be told.
    pub fn request(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<Whole<RequestHead>>, BadHead> {
        let skipped = leading_lines(input)?;
        let input = &input[skipped..];
        if input == b"\r" {
            return Ok(None);
        }
        // Mostly all of it is there, and right: one look tells. What is wrong with any other is told below, in good order.
        if self.looked_at == 0
            && let Ok(Whole { head, length }) = request(&input[..input.len().min(limits.bytes_max)], limits)
        {
            return Ok(Some(Whole { head, length: length + skipped }));
        }
        match self.end(input)? {
            Some(length) if length <= limits.bytes_max => {
                let Whole { head, length } = request(&input[..length], limits)?;
                Ok(Some(Whole { head, length: length + skipped }))
            }
            None if input.len() < limits.bytes_max => {
                early(input)?;
                Ok(None)
            }
            _ => Err(match memchr(b'\n', &input[..limits.bytes_max.min(input.len())]) {
                None => BadHead::TargetTooLong { bytes_max: limits.bytes_max },
                Some(_) => BadHead::TooLarge { bytes_max: limits.bytes_max },
            }),
        }
    }

    /// Reads a response head at the start of `input`; none while it is not whole.
    ///
    /// # Errors
    /// [`BadHead`].
    pub fn response(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<Whole<ResponseHead>>, BadHead> {
        if !input.is_empty() && !b"HTTP/".starts_with(&input[..input.len().min(5)]) {
            return malformed("a response does not begin with HTTP/");
        }
        // As for requests.
        if self.looked_at == 0
            && let Ok(whole) = response(&input[..input.len().min(limits.bytes_max)], limits)
        {
            return Ok(Some(whole));
        }
        match self.end(input)? {
            Some(length) if length <= limits.bytes_max => response(&input[..length], limits).map(Some),
            None if input.len() < limits.bytes_max => Ok(None),
            _ => Err(BadHead::TooLarge { bytes_max: limits.bytes_max }),
        }
    }
}

/// Empty lines before a request.
fn leading_lines(input: &[u8]) -> Result<usize, BadHead> {
    let mut skipped = 0;
    while input[skipped..].starts_with(b"\r\n") {
        skipped += 2;
        if skipped > 2 * LEADING_LINES_MAX {
            return malformed("too many empty lines before a request");
        }
    }
    Ok(skipped)
}

/// What can be told of a request that is not whole: nobody has to wait for the end of what begins wrong.
fn early(input: &[u8]) -> Result<(), BadHead> {
    if let Some(line) = memchr(b'\r', input) {
        return request_line(&input[..line]).map(drop);
    }
    let method = memchr(b' ', input).map_or(input, |space| &input[..space]);
    match method {
        [] if !input.is_empty() => malformed("a request begins with a space"),
        method if !method.iter().all(|byte| is_token(*byte)) => {
            malformed("a method is no token (RFC 9110 section 9.1)")
        }
        _ => Ok(()),
    }
}

/// Whether a first line is of some other protocol: words that no request line could be meant by, with neither a target nor a version
/// of HTTP among them.
#[must_use]
pub fn is_foreign(input: &[u8]) -> bool {
    let line = &input[..memchr(b'\r', input).unwrap_or(input.len())];
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(first), Some(second), Some(_)) = (words.next(), words.next(), words.next()) else { return false };
    let is_word = |word: &[u8]| !word.is_empty() && word.iter().all(|byte| is_token(*byte) && *byte != b'*');
    let names_http = line.windows(4).any(|part| part.eq_ignore_ascii_case(b"HTTP"));
    is_word(first) && is_word(second) && !names_http
}

/// The head that `text` begins with.
fn request(text: &[u8], limits: HeadLimits) -> Result<Whole<RequestHead>, BadHead> {
    let end = line_end(text)?;
    let RequestLine { method, target, version } = request_line(&text[..end])?;
    let mut marks = Marks::with_capacity(FIELDS_USUAL);
    let length = field_lines(text, end + 2, Whitespace::Refused, limits, &mut marks)?;
    let form = target::form(&text[target.clone()], &method)?;
    let path = match form {
        Form::Origin | Form::Asterisk => Span::between(target.start, target.end),
        Form::Absolute { .. } | Form::Authority => Span::default(),
    };
    let fields = marks.over(&text[..length], ADDED_BYTES_USUAL);
    let mut head = RequestHead::of_target(method, version, Target { path, ..Target::default() }, fields);
    match form {
        Form::Origin | Form::Asterisk => {}
        Form::Absolute { scheme, authority, path } => {
            head.set_scheme(scheme);
            head.set_authority(authority);
            match path {
                // A target of the origin's form begins with a slash (RFC 9112 section 3.2.1).
                [b'?', ..] => head.set_path(&[b"/", path].concat()),
                path => head.set_path(path),
            }
        }
        Form::Authority => head.set_authority(&text[target]),
    }
    Ok(Whole { head, length })
}

struct RequestLine {
    method: Method,
    target: Range<usize>,
    version: Version,
}

/// RFC 9112 section 3: parts are parted by one space each.
fn request_line(line: &[u8]) -> Result<RequestLine, BadHead> {
    let Some(first) = memchr(b' ', line) else { return malformed("a request line without a target") };
    let Some(length) = memchr(b' ', &line[first + 1..]) else { return malformed("a request line without a version") };
    let target = first + 1..first + 1 + length;
    let version = http_version(&line[target.end + 1..])?;
    let method = match &line[..first] {
        b"GET" => Method::GET,
        method if method.iter().all(|byte| is_token(*byte)) => match Method::from_bytes(method) {
            Ok(method) => method,
            Err(_) => return malformed("a method is no token (RFC 9110 section 9.1)"),
        },
        _ => return malformed("a method is no token (RFC 9110 section 9.1)"),
    };
    Ok(RequestLine { method, target, version })
}

/// RFC 9112 section 2.3. A minor version that is not known is spoken as the highest that is (RFC 9110 section 6.2).
fn http_version(text: &[u8]) -> Result<Version, BadHead> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Ok(Version::HTTP_11),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(BadHead::Version { major: char::from(*major) })
        }
        _ => malformed("no HTTP version where one belongs (RFC 9112 section 2.3)"),
    }
}

/// The head that `text` begins with.
fn response(text: &[u8], limits: HeadLimits) -> Result<Whole<ResponseHead>, BadHead> {
    let end = line_end(text)?;
    let line = &text[..end];
    let Some((version, rest)) = line.split_at_checked(8) else { return malformed("a status line is too short") };
    let version = http_version(version)?;
    // The space behind the status may be missing where nothing comes behind it: many servers leave it out.
    let (status, reason) = match rest {
        [b' ', status @ ..] if status.len() == 3 => (status, &[][..]),
        [b' ', rest @ ..] if rest.len() > 3 && rest[3] == b' ' => (&rest[..3], &rest[4..]),
        _ => return malformed("a status line has no status (RFC 9112 section 4)"),
    };
    let status = match status {
        [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => StatusCode::from_bytes(status).ok(),
        _ => None,
    };
    let Some(status) = status else { return malformed("a status is not from 100 to 599 (RFC 9110 section 15)") };
    if !is_field_value(reason) {
        return malformed("a control character in a reason phrase");
    }
    let mut marks = Marks::with_capacity(FIELDS_USUAL);
    // Spaces before a colon are taken out of responses, as section 5.1 asks of a proxy.
    let length = field_lines(text, end + 2, Whitespace::TakenOut, limits, &mut marks)?;
    let mut head = ResponseHead::new(status, version, marks.over(&text[..length], 0));
    let usual = status.canonical_reason().is_some_and(|usual| usual.as_bytes() == reason);
    if !usual && !reason.is_empty() {
        head.set_reason(reason);
    }
    Ok(Whole { head, length })
}

/// Where the first line ends.
fn line_end(text: &[u8]) -> Result<usize, BadHead> {
    match memchr(b'\r', text) {
        Some(end) if text.get(end + 1) == Some(&b'\n') => Ok(end),
        _ => malformed("a first line that does not end in CRLF (RFC 9112 section 2.2)"),
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
#[must_use]
pub fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"!#$%&'*+-.^_`|~";
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < others.len() {
        table[others[place] as usize] = true;
        place += 1;
    }
    table
};

/// Visible characters, spaces, tabs and whatever is beyond ASCII (RFC 9110 section 5.5). Without a branch in the loop, so that it is
/// done for many bytes at once.
#[must_use]
pub fn is_field_value(text: &[u8]) -> bool {
    let bad = |byte: u8| (byte < b' ' && byte != b'\t') | (byte == 0x7f);
    !text.iter().fold(false, |found, byte| found | bad(*byte))
}

#[cfg(test)]
mod tests;
