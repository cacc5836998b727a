//! Field lines, from bytes (RFC 9112 section 5): each is looked at once, from its name to its end. No folding, no space before a colon,
//! no control character.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::head::{BadHead, HeadLimits, is_token, malformed};
use crate::message::fields::{Marks, Span};
use crate::message::name::Name;

/// White space between a field's name and its colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whitespace {
    Refused,
    TakenOut,
}

/// Field lines from `at` on, up to the empty line that ends them; where that ends.
///
/// # Errors
/// [`BadHead`], also for a text that ends before.
pub(super) fn field_lines(
    text: &[u8],
    mut at: usize,
    before_colon: Whitespace,
    limits: HeadLimits,
    marks: &mut Marks,
) -> Result<usize, BadHead> {
    while !text[at..].starts_with(b"\r\n") {
        if marks.len() >= limits.fields_max {
            return Err(BadHead::TooManyFields { fields_max: limits.fields_max });
        }
        at = field_line(text, at, before_colon, marks)?;
    }
    Ok(at + 2)
}

/// The line that begins at `start`; where the next one does.
fn field_line(text: &[u8], start: usize, before_colon: Whitespace, marks: &mut Marks) -> Result<usize, BadHead> {
    let line = &text[start..];
    let length = token(line);
    let (letters, rest) = line.split_at(length);
    let spaces = if before_colon == Whitespace::TakenOut { white_space(rest) } else { 0 };
    match (rest[spaces..].first(), length) {
        (Some(b':'), 1..) => {}
        (Some(b' ' | b'\t'), 0) => return malformed("a line begins with white space (RFC 9112 section 5.2)"),
        (Some(b' ' | b'\t'), _) => return malformed("white space before a colon (RFC 9112 section 5.1)"),
        (Some(b':'), _) if spaces == 0 => return malformed("a field without a name"),
        (Some(b':'), _) => return malformed("a line begins with white space (RFC 9112 section 5.2)"),
        (None | Some(b'\r' | b'\n'), _) => return malformed("a field line without a colon (RFC 9112 section 5)"),
        _ => return malformed("a field name is no token (RFC 9110 section 5.1)"),
    }
    let colon = length + spaces;
    let begin = colon + 1 + white_space(&line[colon + 1..]);
    let end = begin + plain(&line[begin..]);
    match &line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r' | b'\n', ..] | [] => return malformed("a line does not end in CRLF (RFC 9112 section 2.2)"),
        _ => return malformed("a control character in a field value (RFC 9110 section 5.5)"),
    }
    let trailing = line[begin..end].iter().rev().take_while(|byte| is_white_space(**byte)).count();
    let value = Span::between(start + begin, start + end - trailing);
    marks.push(Name::of(letters), Span::between(start, start + length), value);
    Ok(start + end + 2)
}

/// How long the token is that `text` begins with (RFC 9110 section 5.6.2). Four bytes at a time.
fn token(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<4>();
    for (place, [a, b, c, d]) in words.iter().enumerate() {
        if !(is_token(*a) & is_token(*b) & is_token(*c) & is_token(*d)) {
            let odd = [a, b, c].iter().position(|byte| !is_token(**byte)).unwrap_or(3);
            return place * 4 + odd;
        }
    }
    words.len() * 4 + rest.iter().take_while(|byte| is_token(**byte)).count()
}

fn is_white_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// How many bytes of it `text` begins with.
pub(super) fn white_space(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_white_space(**byte)).count()
}

/// How long `text` goes on with what may stand in a value: visible characters, spaces, tabs and whatever is beyond ASCII (RFC 9110
/// section 5.5). Eight bytes at a time.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let is_odd = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    let (words, rest) = text.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let bytes = u64::from_le_bytes(*word);
        // The high bit of each byte that is below a space, or DEL; behind the first such byte also of others.
        let low = bytes.wrapping_sub(0x20 * ONES) & !bytes;
        let delete = bytes ^ (0x7f * ONES);
        let delete = delete.wrapping_sub(ONES) & !delete;
        let found = (low | delete) & HIGH;
        if found == 0 {
            continue;
        }
        let first = found.trailing_zeros() as usize / 8;
        // Tabs may stand there, and are rare.
        let odd = if word[first] != b'\t' { Some(first) } else { word.iter().position(|byte| is_odd(*byte)) };
        if let Some(odd) = odd {
            return place * 8 + odd;
        }
    }
    let odd = rest.iter().position(|byte| is_odd(*byte)).unwrap_or(rest.len());
    words.len() * 8 + odd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_on_up_to_what_may_not_stand_in_it() {
        for byte in 0..=255_u8 {
            for place in 0..11 {
                let mut text = [b'x'; 11];
                text[place] = byte;
                assert_eq!(token(&text), if is_token(byte) { 11 } else { place }, "{byte} at {place}");
            }
        }
        assert_eq!(token(b""), 0);
    }

    #[test]
    fn a_value_goes_on_up_to_what_may_not_stand_in_it() {
        for byte in 0..=255_u8 {
            let may_stand = super::super::head::is_field_value(&[byte]);
            for place in 0..20 {
                let mut text = [b'x'; 20];
                text[place] = byte;
                assert_eq!(plain(&text), if may_stand { 20 } else { place }, "{byte} at {place}");
                // Behind one that may, and before one that may not.
                text[..place].fill(b'\t');
                text[19] = 0x7f;
                let expected = if may_stand && place < 19 { 19 } else { place };
                assert_eq!(plain(&text), expected, "{byte} at {place}, behind tabs");
            }
        }
        assert_eq!(plain(b""), 0);
        assert_eq!(plain("\u{e4}\u{f6}\u{80}\u{ff}\r".as_bytes()), 8);
    }
}
