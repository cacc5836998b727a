//! Field lines as h2 carries them (RFC 7541): written in whatever form a test asks for, and read strictly.

use std::collections::VecDeque;

use super::huffman;
use crate::wire::{Fields, text};

/// Appendix A; the first is number 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry takes beyond its text.
const OVERHEAD_BYTES: usize = 32;

/// Bytes of which a test writes one a character.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(letter).expect("a character is one byte")).collect()
}

/// An integer behind `first`, whose low `prefix_bits` are free for it (section 5.1).
pub fn integer(first: u8, prefix_bits: u8, value: usize) -> Vec<u8> {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        return vec![first | value as u8];
    }
    let (mut out, mut rest) = (vec![first | mask as u8], value - mask);
    while rest >= 128 {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// A string as it is.
pub fn plain(text: &[u8]) -> Vec<u8> {
    [integer(0, 7, text.len()), text.to_vec()].concat()
}

/// A string whose Huffman code somebody else made.
pub fn coded(code: &[u8]) -> Vec<u8> {
    [integer(0x80, 7, code.len()), code.to_vec()].concat()
}

/// A line that no table remembers.
pub fn line(name: &str, value: &str) -> Vec<u8> {
    [vec![0], plain(&bytes(name)), plain(&bytes(value))].concat()
}

/// One that nobody may remember.
pub fn never(name: &str, value: &str) -> Vec<u8> {
    [vec![0x10], plain(&bytes(name)), plain(&bytes(value))].concat()
}

/// One that enters the table.
pub fn remembered(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], plain(&bytes(name)), plain(&bytes(value))].concat()
}

/// The same, coded.
pub fn huffman(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| coded(&huffman::encode(&bytes(text)));
    [vec![0], string(name), string(value)].concat()
}

/// A line of the table.
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

pub fn resized(bytes: usize) -> Vec<u8> {
    integer(0x20, 5, bytes)
}

pub fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| line(name, value)).collect()
}

/// The reading end of one direction.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes_max: usize,
    /// What the settings of this end allow.
    settings_max: usize,
}

impl Decoder {
    pub fn new(settings_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes_max: 4096, settings_max }
    }

    pub fn decode(&mut self, block: &[u8]) -> Result<Fields, String> {
        let (mut lines, mut rest) = (Fields::default(), block);
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                let (name, value) = self.entry(read_integer(&mut rest, 7)?)?;
                lines.0.push((text(&name), text(&value)));
                continue;
            }
            if first & 0xe0 == 0x20 {
                let wanted = read_integer(&mut rest, 5)?;
                if !lines.0.is_empty() || wanted > self.settings_max {
                    return Err(format!("the table is resized to {wanted}"));
                }
                self.bytes_max = wanted;
                self.evict();
                continue;
            }
            let remembered = first & 0x40 != 0;
            let name = match read_integer(&mut rest, if remembered { 6 } else { 4 })? {
                0 => read_string(&mut rest)?,
                index => self.entry(index)?.0,
            };
            let value = read_string(&mut rest)?;
            lines.0.push((text(&name), text(&value)));
            if remembered {
                self.entries.push_front((name, value));
                self.evict();
            }
        }
        Ok(lines)
    }

    fn entry(&self, index: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
        let fixed = index.checked_sub(1).and_then(|place| STATIC.get(place));
        if let Some((name, value)) = fixed {
            return Ok((bytes(name), bytes(value)));
        }
        let place = index.checked_sub(STATIC.len() + 1).ok_or("index 0")?;
        self.entries.get(place).cloned().ok_or_else(|| format!("index {index} of {} entries", self.entries.len()))
    }

    fn evict(&mut self) {
        let taken = |all: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
            all.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD_BYTES).sum()
        };
        while taken(&self.entries) > self.bytes_max {
            self.entries.pop_back();
        }
    }
}

fn read_integer(rest: &mut &[u8], prefix_bits: u8) -> Result<usize, String> {
    let mask = (1usize << prefix_bits) - 1;
    let mut next = || {
        let (first, behind) = rest.split_first().ok_or("a block that is cut")?;
        *rest = behind;
        Ok::<u8, String>(*first)
    };
    let mut value = usize::from(next()?) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let byte = next()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an integer without end".into())
}

fn read_string(rest: &mut &[u8]) -> Result<Vec<u8>, String> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = read_integer(rest, 7)?;
    let (string, behind) = rest.split_at_checked(length).ok_or("a string that is cut")?;
    *rest = behind;
    if is_coded { huffman::decode(string) } else { Ok(string.to_vec()) }
}
