//! What both ends of a connection remember: the static table of RFC 7541 appendix A, and the dynamic one (section 2.3.2).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::VecDeque;

use crate::message::name::Name;

/// What every entry costs beyond its text (RFC 7541 section 4.1).
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// What a field line is to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Method,
    Scheme,
    Authority,
    Path,
    /// Of an extended CONNECT (RFC 8441 section 4).
    Protocol,
    Status,
    UnknownPseudo,
    Field(Name),
}

impl Meaning {
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            [b':', ..] => match name {
                b":method" => Self::Method,
                b":scheme" => Self::Scheme,
                b":authority" => Self::Authority,
                b":path" => Self::Path,
                b":protocol" => Self::Protocol,
                b":status" => Self::Status,
                _ => Self::UnknownPseudo,
            },
            _ => Self::Field(Name::of(name)),
        }
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'l> {
    pub meaning: Meaning,
    /// Name and value have only characters that they may have (RFC 9113 section 8.2.1).
    pub sound: bool,
    /// It was sent so that no table remembers it (RFC 7541 section 6.2.3).
    pub secret: bool,
    pub name: &'l [u8],
    pub value: &'l [u8],
}

impl<'l> Line<'l> {
    /// Tells what a field line is, and whether its characters are valid.
    #[must_use]
    pub fn judged(name: &'l [u8], value: &'l [u8], secret: bool) -> Self {
        let meaning = Meaning::of(name);
        let sound = value_is_sound(value) && (!matches!(meaning, Meaning::Field(_)) || name_is_sound(name));
        Self { meaning, sound, secret, name, value }
    }
}

/// A token without upper-case letters (RFC 9110 section 5.6.2, RFC 9113 section 8.2.1).
fn name_is_sound(name: &[u8]) -> bool {
    let is_token = |byte: &u8| {
        matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
            | b'*' | b'+' | b'^' | b'`' | b'|' | b'~')
    };
    !name.is_empty() && name.iter().all(is_token)
}

/// Visible characters, and white space between them (RFC 9110 section 5.5).
fn value_is_sound(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_text = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
    // Written so that the compiler looks at many bytes at once.
    !is_space(value.first()) && !is_space(value.last()) && value.iter().fold(true, |all, byte| all & is_text(byte))
}

/// Fields of a connection that were sent with the wish to be remembered, the youngest first.
#[derive(Debug)]
pub struct DynamicTable {
    /// Names and values, the oldest first; what was evicted is still in front for a while.
    text: Vec<u8>,
    /// How much text was thrown away in front of `text`, since the beginning.
    text_gone: u64,
    /// The oldest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// Entries that were ever inserted. Wraps around; nobody asks about an entry that is so old.
    inserted: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u64,
    name_bytes: u32,
    value_bytes: u32,
    meaning: Meaning,
    sound: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.name_bytes as usize + self.value_bytes as usize + ENTRY_OVERHEAD_BYTES
    }
}

impl DynamicTable {
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { text: Vec::new(), text_gone: 0, entries: VecDeque::new(), bytes: 0, bytes_max, inserted: 0 }
    }

    /// As RFC 7541 section 4.1 counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries were ever inserted: the number of the next one.
    #[must_use]
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// The entry that is so many behind the youngest.
    #[must_use]
    pub fn get(&self, behind_youngest: usize) -> Option<Line<'_>> {
        let place = self.entries.len().checked_sub(behind_youngest + 1)?;
        let entry = self.entries.get(place)?;
        let text = &self.text[(entry.start - self.text_gone) as usize..];
        let (name, text) = text.split_at(entry.name_bytes as usize);
        let value = &text[..entry.value_bytes as usize];
        Some(Line { meaning: entry.meaning, sound: entry.sound, secret: false, name, value })
    }

    /// How far behind the youngest the entry of that number is, if it is still there.
    #[must_use]
    pub fn behind_youngest(&self, number: u32) -> Option<usize> {
        let behind = self.inserted.wrapping_sub(number.wrapping_add(1)) as usize;
        (behind < self.entries.len()).then_some(behind)
    }

    /// Remembers a field; older ones go as far as there is no room (RFC 7541 section 4.4).
    pub fn insert(&mut self, line: Line<'_>) {
        let bytes = line.name.len() + line.value.len() + ENTRY_OVERHEAD_BYTES;
        self.evict_down_to(self.bytes_max.saturating_sub(bytes));
        // One that is larger than the table leaves it empty.
        if bytes > self.bytes_max {
            return;
        }
        self.compact();
        let start = self.text_gone + self.text.len() as u64;
        self.text.extend_from_slice(line.name);
        self.text.extend_from_slice(line.value);
        self.bytes += bytes;
        self.inserted = self.inserted.wrapping_add(1);
        self.entries.push_back(Entry {
            start,
            name_bytes: line.name.len() as u32,
            value_bytes: line.value.len() as u32,
            meaning: line.meaning,
            sound: line.sound,
        });
    }

    /// Changes how large it may be (RFC 7541 section 4.3).
    pub fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict_down_to(bytes_max);
    }

    fn evict_down_to(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Gives text back that nothing points at any more, when there is more of it than the table may hold.
    fn compact(&mut self) {
        let gone = self.entries.front().map_or(self.text.len(), |oldest| (oldest.start - self.text_gone) as usize);
        if gone > self.bytes_max || gone == self.text.len() {
            self.text.drain(..gone);
            self.text_gone += gone as u64;
        }
    }
}

/// The place of the first entry of the dynamic table, in the numbers of the wire.
pub const DYNAMIC_START: usize = 62;

/// The entry of the static table with that number, which counts from 1.
#[must_use]
pub fn static_line(index: usize) -> Option<Line<'static>> {
    let (meaning, name, value) = *STATIC.get(index.checked_sub(1)?)?;
    Some(Line { meaning, sound: true, secret: false, name: name.as_bytes(), value: value.as_bytes() })
}

const OTHER: Meaning = Meaning::Field(Name::Other);

/// RFC 7541 appendix A.
#[rustfmt::skip]
pub static STATIC: [(Meaning, &str, &str); 61] = [
    (Meaning::Authority, ":authority", ""),
    (Meaning::Method, ":method", "GET"),
    (Meaning::Method, ":method", "POST"),
    (Meaning::Path, ":path", "/"),
    (Meaning::Path, ":path", "/index.html"),
    (Meaning::Scheme, ":scheme", "http"),
    (Meaning::Scheme, ":scheme", "https"),
    (Meaning::Status, ":status", "200"),
    (Meaning::Status, ":status", "204"),
    (Meaning::Status, ":status", "206"),
    (Meaning::Status, ":status", "304"),
    (Meaning::Status, ":status", "400"),
    (Meaning::Status, ":status", "404"),
    (Meaning::Status, ":status", "500"),
    (OTHER, "accept-charset", ""),
    (OTHER, "accept-encoding", "gzip, deflate"),
    (OTHER, "accept-language", ""),
    (OTHER, "accept-ranges", ""),
    (OTHER, "accept", ""),
    (OTHER, "access-control-allow-origin", ""),
    (OTHER, "age", ""),
    (OTHER, "allow", ""),
    (OTHER, "authorization", ""),
    (OTHER, "cache-control", ""),
    (OTHER, "content-disposition", ""),
    (OTHER, "content-encoding", ""),
    (OTHER, "content-language", ""),
    (Meaning::Field(Name::ContentLength), "content-length", ""),
    (OTHER, "content-location", ""),
    (OTHER, "content-range", ""),
    (Meaning::Field(Name::ContentType), "content-type", ""),
    (Meaning::Field(Name::Cookie), "cookie", ""),
    (Meaning::Field(Name::Date), "date", ""),
    (OTHER, "etag", ""),
    (Meaning::Field(Name::Expect), "expect", ""),
    (OTHER, "expires", ""),
    (OTHER, "from", ""),
    (Meaning::Field(Name::Host), "host", ""),
    (OTHER, "if-match", ""),
    (OTHER, "if-modified-since", ""),
    (OTHER, "if-none-match", ""),
    (OTHER, "if-range", ""),
    (OTHER, "if-unmodified-since", ""),
    (OTHER, "last-modified", ""),
    (OTHER, "link", ""),
    (OTHER, "location", ""),
    (Meaning::Field(Name::MaxForwards), "max-forwards", ""),
    (OTHER, "proxy-authenticate", ""),
    (OTHER, "proxy-authorization", ""),
    (OTHER, "range", ""),
    (OTHER, "referer", ""),
    (OTHER, "refresh", ""),
    (Meaning::Field(Name::RetryAfter), "retry-after", ""),
    (OTHER, "server", ""),
    (OTHER, "set-cookie", ""),
    (OTHER, "strict-transport-security", ""),
    (Meaning::Field(Name::TransferEncoding), "transfer-encoding", ""),
    (OTHER, "user-agent", ""),
    (OTHER, "vary", ""),
    (Meaning::Field(Name::Via), "via", ""),
    (OTHER, "www-authenticate", ""),
];

/// The number of the first static entry with that name; a name is looked for by its length first.
#[must_use]
pub fn static_name(name: &[u8]) -> Option<usize> {
    let known = |candidates: &[usize]| candidates.iter().copied().find(|index| STATIC[index - 1].1.as_bytes() == name);
    match name.len() {
        3 => known(&[21, 60]),
        4 => known(&[33, 34, 37, 38, 45, 59]),
        5 => known(&[4, 22, 50]),
        6 => known(&[19, 32, 35, 54]),
        7 => known(&[2, 6, 8, 36, 51, 52]),
        8 => known(&[39, 42, 46]),
        10 => known(&[1, 55, 58]),
        11 => known(&[53]),
        12 => known(&[31, 47]),
        13 => known(&[18, 23, 24, 30, 41, 44]),
        14 => known(&[15, 28]),
        15 => known(&[16, 17]),
        16 => known(&[26, 27, 29, 61]),
        17 => known(&[40, 57]),
        18 => known(&[48]),
        19 => known(&[25, 43, 49]),
        25 => known(&[56]),
        27 => known(&[20]),
        _ => None,
    }
}
