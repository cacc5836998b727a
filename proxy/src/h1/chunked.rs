//! Chunks (RFC 9112 section 7.1), from bytes. Data is told as stretches of the input, so that nothing is copied here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use memchr::memchr2;
use thiserror::Error;

use super::field_line::{Whitespace, field_lines, white_space};
use super::head::{BadHead, HeadLimits, is_token};
use crate::message::fields::{Fields, Marks};
use crate::message::trailers::may_trail;

/// A chunk's size with its extensions.
const SIZE_LINE_BYTES_MAX: usize = 1024;

/// Extensions of all chunks of one message together: they carry nothing for anybody, but cost.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadChunk {
    #[error("{problem}")]
    Malformed { problem: &'static str },
    #[error("its trailers: {source}")]
    Trailers { source: BadHead },
}

/// One body, as far as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Chunked {
    state: State,
    extension_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A size line comes.
    Size,
    /// So much of a chunk's data comes.
    Data(u64),
    /// The CRLF behind data comes.
    DataEnd,
    /// Trailers come, or none, and the empty line.
    Trailers,
    Over,
}

/// What the start of the input is.
#[derive(Debug)]
pub enum Step {
    /// `skip` bytes that were understood; it takes more input to tell what follows.
    More { skip: usize },
    /// `skip` bytes of no interest, then `length` bytes of data, at least one.
    Data { skip: usize, length: usize },
    /// `skip` bytes, and the body is over. Trailers are without those that may not stand there (RFC 9110 section 6.5.1).
    End { skip: usize, trailers: Option<Fields> },
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size, extension_bytes: 0 }
    }
}

const fn malformed<T>(problem: &'static str) -> Result<T, BadChunk> {
    Err(BadChunk::Malformed { problem })
}

impl Chunked {
    /// Looks at the input from where the last step ended.
    ///
    /// # Errors
    /// [`BadChunk`]: nothing of the connection can be read any more.
    pub fn step(&mut self, input: &[u8], limits: HeadLimits) -> Result<Step, BadChunk> {
        let mut skip = 0;
        loop {
            let rest = &input[skip..];
            match self.state {
                State::Size => match self.size_line(rest)? {
                    None => return Ok(Step::More { skip }),
                    Some((length, 0)) => {
                        skip += length;
                        self.state = State::Trailers;
                    }
                    Some((length, size)) => {
                        skip += length;
                        self.state = State::Data(size);
                    }
                },
                State::Data(_) if rest.is_empty() => return Ok(Step::More { skip }),
                State::Data(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data { skip, length });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        skip += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More { skip }),
                    _ => return malformed("a chunk is longer than its size (RFC 9112 section 7.1)"),
                },
                State::Trailers => match trailers_end(rest)? {
                    Some(length) if length <= limits.bytes_max => {
                        self.state = State::Over;
                        return Ok(Step::End { skip: skip + length, trailers: trailers(&rest[..length], limits)? });
                    }
                    None if rest.len() < limits.bytes_max => return Ok(Step::More { skip }),
                    _ => {
                        let source = BadHead::TooLarge { bytes_max: limits.bytes_max };
                        return Err(BadChunk::Trailers { source });
                    }
                },
                State::Over => return Ok(Step::End { skip, trailers: None }),
            }
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What is still to come of the chunk that is being read.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// The length of a size line and the size; none while it is not whole.
    fn size_line(&mut self, input: &[u8]) -> Result<Option<(usize, u64)>, BadChunk> {
        let digits = input.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        // What is wrong is told as early as it can be.
        match input.get(digits) {
            Some(_) if digits == 0 => return malformed("a chunk without a size (RFC 9112 section 7.1)"),
            None | Some(b';' | b' ' | b'\t' | b'\r' | b'\n') => {}
            Some(_) => return malformed("a chunk's size is no number (RFC 9112 section 7.1)"),
        }
        let end = memchr2(b'\r', b'\n', input);
        if end.unwrap_or(input.len()) > SIZE_LINE_BYTES_MAX {
            return malformed("a chunk's size line is too long");
        }
        let Some(end) = end else { return Ok(None) };
        match &input[end..] {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Ok(None),
            _ => return malformed("a chunk's size line does not end in CRLF (RFC 9112 section 2.2)"),
        }
        let (size, extensions) = input[..end].split_at(digits);
        self.extension_bytes += extensions.len();
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return malformed("too many chunk extensions");
        }
        if !are_extensions(extensions) {
            return malformed("a chunk's size or extension is malformed (RFC 9112 section 7.1.1)");
        }
        match hexadecimal(size) {
            Some(size) => Ok(Some((end + 2, size))),
            None => malformed("a chunk's size is too large (RFC 9112 section 7.1)"),
        }
    }
}

/// Up to 63 bits.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let digit = |sum: u64, byte: &u8| {
        let digit = char::from(*byte).to_digit(16)?;
        (sum >> 59 == 0).then_some(sum << 4 | u64::from(digit))
    };
    digits.iter().try_fold(0, digit)
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let [b';', rest @ ..] = trimmed_start(text) else { return false };
        let rest = trimmed_start(rest);
        let name = rest.iter().take_while(|byte| is_token(**byte)).count();
        if name == 0 {
            return false;
        }
        text = &rest[name..];
        if let [b'=', rest @ ..] = trimmed_start(text) {
            let rest = trimmed_start(rest);
            let value = match rest {
                [b'"', ..] => quoted(rest),
                _ => Some(rest.iter().take_while(|byte| is_token(**byte)).count()).filter(|length| *length > 0),
            };
            match value {
                Some(value) => text = &rest[value..],
                None => return false,
            }
        }
    }
    true
}

/// How long the quoted string is that begins here (RFC 9110 section 5.6.4).
fn quoted(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (place, byte) in text.iter().enumerate().skip(1) {
        match byte {
            0..=8 | 10..=31 | 127 => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(place + 1),
            _ => {}
        }
    }
    None
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    &text[white_space(text)..]
}

/// How long the trailers are with the empty line that ends them; none while that is not there.
fn trailers_end(input: &[u8]) -> Result<Option<usize>, BadChunk> {
    let mut at = 0;
    while let Some(found) = memchr2(b'\r', b'\n', &input[at..]) {
        let place = at + found;
        match &input[place..] {
            [b'\r', b'\n', ..] if found == 0 => return Ok(Some(place + 2)),
            [b'\r', b'\n', ..] => at = place + 2,
            [b'\r'] => return Ok(None),
            _ => return malformed("a line of the trailers does not end in CRLF (RFC 9112 section 2.2)"),
        }
    }
    Ok(None)
}

fn trailers(lines: &[u8], limits: HeadLimits) -> Result<Option<Fields>, BadChunk> {
    if lines.len() == 2 {
        return Ok(None);
    }
    let mut marks = Marks::default();
    field_lines(lines, 0, Whitespace::Refused, limits, &mut marks).map_err(|source| BadChunk::Trailers { source })?;
    let mut fields = marks.over(lines, 0);
    fields.retain(|field| may_trail(field.name, field.letters));
    Ok((!fields.is_empty()).then_some(fields))
}

#[cfg(test)]
mod tests;
