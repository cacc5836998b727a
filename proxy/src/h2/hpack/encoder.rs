//! Header blocks, onto the wire (RFC 7541 section 6).
//!
//! A field is remembered when it is seen for the second time. What repeats on a connection is then one byte, and what never does (ids,
//! dates, lengths) pushes nothing useful out of the table. Secrets are never remembered, by anybody on the way (section 7.1.3).
//! Strings that are remembered are Huffman-coded, since that is paid once; others are copied, which costs less than it saves.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::{Method, StatusCode};

use super::huffman;
use super::table::{DYNAMIC_START, DynamicTable, ENTRY_OVERHEAD_BYTES, Line, Meaning, static_name};
use crate::message::name::Name;

/// The peer may allow a larger table; more than this is not used.
const TABLE_BYTES_MAX: usize = 4096;

/// Where entries are found: sets of four places, by hash.
const PLACES: usize = 256;
const PLACES_PER_SET: usize = 4;

/// How many fields that are not in the table are told apart, to know one that comes again.
const SEEN: usize = 128;

const INDEXED: u8 = 0x80;
const INSERTED: u8 = 0x40;
const TABLE_SIZE: u8 = 0x20;
const NEVER_INDEXED: u8 = 0x10;
const WITHOUT_INDEXING: u8 = 0x00;

/// The writing end of a direction.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// None before the first entry.
    index: Option<Box<Index>>,
    /// The smallest size that was set since the last block, if the peer has to be told of a change.
    smallest_unsaid: Option<usize>,
    /// Names whose letters are not all small, made small.
    lower: Vec<u8>,
}

#[derive(Debug)]
struct Index {
    places: [Place; PLACES],
    seen: [u32; SEEN],
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The hash of a whole field, or of a name.
    hash: u32,
    /// The entry's number.
    number: u32,
    used: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { table: DynamicTable::new(TABLE_BYTES_MAX), index: None, smallest_unsaid: None, lower: Vec::new() }
    }
}

impl Encoder {
    /// The peer's SETTINGS_HEADER_TABLE_SIZE (RFC 7541 section 4.2).
    pub fn set_table_bytes_max(&mut self, bytes: usize) {
        let bytes = bytes.min(TABLE_BYTES_MAX);
        if bytes != self.table.bytes_max() || self.smallest_unsaid.is_some() {
            self.table.resize(bytes);
            self.smallest_unsaid = Some(self.smallest_unsaid.map_or(bytes, |smallest| smallest.min(bytes)));
        }
    }

    /// Begins a block: the peer is told of changes of the table first.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.smallest_unsaid.take() {
            integer(smallest, 5, TABLE_SIZE, out);
            if smallest != self.table.bytes_max() {
                integer(self.table.bytes_max(), 5, TABLE_SIZE, out);
            }
        }
    }

    pub fn status(&mut self, status: StatusCode, out: &mut Vec<u8>) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => return self.line(Meaning::Status, b":status", status.as_str().as_bytes(), out),
        };
        out.push(INDEXED | index);
    }

    pub fn method(&mut self, method: &Method, out: &mut Vec<u8>) {
        match *method {
            Method::GET => out.push(INDEXED | 2),
            Method::POST => out.push(INDEXED | 3),
            _ => self.line(Meaning::Method, b":method", method.as_str().as_bytes(), out),
        }
    }

    pub fn scheme(&mut self, scheme: &[u8], out: &mut Vec<u8>) {
        match scheme {
            b"http" => out.push(INDEXED | 6),
            b"https" => out.push(INDEXED | 7),
            _ => self.line(Meaning::Scheme, b":scheme", scheme, out),
        }
    }

    pub fn path(&mut self, path: &[u8], out: &mut Vec<u8>) {
        match path {
            b"/" => out.push(INDEXED | 4),
            _ => self.line(Meaning::Path, b":path", path, out),
        }
    }

    pub fn authority(&mut self, authority: &[u8], out: &mut Vec<u8>) {
        self.line(Meaning::Authority, b":authority", authority, out);
    }

    pub fn protocol(&mut self, protocol: &[u8], out: &mut Vec<u8>) {
        self.line(Meaning::Protocol, b":protocol", protocol, out);
    }

    /// A field of a message. Its name is written in small letters, as RFC 9113 section 8.2 wants.
    pub fn field(&mut self, name: Name, letters: &[u8], value: &[u8], secret: bool, out: &mut Vec<u8>) {
        let meaning = Meaning::Field(name);
        if !name.as_bytes().is_empty() {
            return match secret || name == Name::Cookie {
                true => self.secret_line(name.as_bytes(), value, out),
                false => self.line(meaning, name.as_bytes(), value, out),
            };
        }
        let mut lower = std::mem::take(&mut self.lower);
        let small = if letters.iter().any(u8::is_ascii_uppercase) {
            lower.clear();
            lower.extend(letters.iter().map(u8::to_ascii_lowercase));
            &lower
        } else {
            letters
        };
        match secret || is_secret(small) {
            true => self.secret_line(small, value, out),
            false => self.line(meaning, small, value, out),
        }
        self.lower = lower;
    }

    fn line(&mut self, meaning: Meaning, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let name_hash = hash(0, name);
        let line_hash = hash(name_hash, value);
        if let Some(behind) = self.find(line_hash, |line| line.value == value && line.name == name) {
            return integer(DYNAMIC_START + behind, 7, INDEXED, out);
        }
        let name_index = static_name(name)
            .or_else(|| self.find(name_hash, |line| line.name == name).map(|behind| DYNAMIC_START + behind));
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        let fits = bytes <= self.table.bytes_max() / 4;
        if !fits || !self.seen_before(line_hash) {
            literal(name_index, 4, WITHOUT_INDEXING, name, value, plain, out);
            return;
        }
        literal(name_index, 6, INSERTED, name, value, shortest, out);
        let number = self.table.inserted();
        self.table.insert(Line { meaning, sound: true, secret: false, name, value });
        self.place(line_hash, number);
        self.place(name_hash, number);
    }

    fn secret_line(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        literal(static_name(name), 4, NEVER_INDEXED, name, value, plain, out);
    }

    /// How far behind the youngest an entry of that hash is that `fits`.
    fn find(&self, hash: u32, fits: impl Fn(Line<'_>) -> bool) -> Option<usize> {
        let places = set_of(hash);
        let set = &self.index.as_ref()?.places[places];
        set.iter().filter(|place| place.used && place.hash == hash).find_map(|place| {
            let behind = self.table.behind_youngest(place.number)?;
            fits(self.table.get(behind)?).then_some(behind)
        })
    }

    /// Takes the place of one that points nowhere, or of the one that points at the oldest entry.
    fn place(&mut self, hash: u32, number: u32) {
        let Some(index) = &mut self.index else { return };
        let table = &self.table;
        let age = |place: &Place| match table.behind_youngest(place.number) {
            _ if !place.used || place.hash == hash => usize::MAX,
            None => usize::MAX,
            Some(behind) => behind,
        };
        let set = &mut index.places[set_of(hash)];
        if let Some(place) = set.iter_mut().max_by_key(|place| age(place)) {
            *place = Place { hash, number, used: true };
        }
    }

    /// Whether a field came lately, and that it came now.
    fn seen_before(&mut self, hash: u32) -> bool {
        let new = || Box::new(Index { places: [Place::default(); PLACES], seen: [0; SEEN] });
        let index = self.index.get_or_insert_with(new);
        std::mem::replace(&mut index.seen[hash as usize % SEEN], hash) == hash
    }
}

/// Fields whose values an observer of lengths must not be able to guess (RFC 7541 section 7.1.3).
fn is_secret(name: &[u8]) -> bool {
    matches!(
        name,
        b"authorization"
            | b"proxy-authorization"
            | b"set-cookie"
            | b"x-api-key"
            | b"x-auth-token"
            | b"x-csrf-token"
            | b"x-amz-security-token"
    )
}

fn set_of(hash: u32) -> std::ops::Range<usize> {
    // Other bits than those that choose among what was seen.
    let start = (hash >> 8) as usize % (PLACES / PLACES_PER_SET) * PLACES_PER_SET;
    start..start + PLACES_PER_SET
}

/// Goes on from the hash of what stands before. Whoever makes others collide makes his own fields longer, no more.
fn hash(before: u32, text: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (u64::from(before) ^ text.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state = (state.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    let rest = rest.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    state = (state.rotate_left(23) ^ rest).wrapping_mul(FACTOR);
    (state >> 32) as u32
}

fn literal(
    name_index: Option<usize>,
    prefix_bits: u8,
    kind: u8,
    name: &[u8],
    value: &[u8],
    string: fn(&[u8], &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    match name_index {
        Some(index) => integer(index, prefix_bits, kind, out),
        None => {
            out.push(kind);
            string(name, out);
        }
    }
    string(value, out);
}

fn plain(text: &[u8], out: &mut Vec<u8>) {
    integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

fn shortest(text: &[u8], out: &mut Vec<u8>) {
    let coded_len = huffman::coded_len(text);
    if coded_len >= text.len() {
        return plain(text, out);
    }
    integer(coded_len, 7, 0x80, out);
    huffman::encode(text, out);
}

/// An integer behind the bits of `kind` (RFC 7541 section 5.1).
fn integer(value: usize, prefix_bits: u8, kind: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        return out.push(kind | value as u8);
    }
    out.push(kind | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}
