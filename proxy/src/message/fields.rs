//! Fields (RFC 9110 section 5): in the order they came in, in one piece of memory, with the names that matter known.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;
use std::ops::Range;

use super::name::{Name, Names};

/// A stretch of a head's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    length: u32,
}

/// Where one field stands in the text.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Name,
    /// Its value must never be remembered by a compressor (RFC 7541 section 6.2.3).
    secret: bool,
    letters: Span,
    value: Span,
}

/// Where the fields stand in a text that is being read.
#[derive(Debug, Default)]
pub struct Marks {
    entries: Vec<Entry>,
    known: Names,
}

/// All fields of a head, or of trailers.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Which known names there may be.
    known: Names,
}

/// One field. Its value is without the white space around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'f> {
    pub name: Name,
    /// The name as it was written.
    pub letters: &'f [u8],
    pub value: &'f [u8],
    /// Whoever wrote it asked that no compressor remembers it (RFC 7541 section 6.2.3), on the next connection neither.
    pub secret: bool,
}

impl Span {
    /// The stretch from `start` up to `end`.
    #[must_use]
    pub fn between(start: usize, end: usize) -> Self {
        Self { start: place(start), length: place(end - start) }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..(self.start + self.length) as usize
    }
}

impl Marks {
    /// Room for so many fields before it grows.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Self {
        Self { entries: Vec::with_capacity(fields), known: Names::default() }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One more field. Name and value must be valid (RFC 9110 sections 5.1 and 5.5).
    pub fn push(&mut self, name: Name, letters: Span, value: Span) {
        self.known.insert(name);
        self.entries.push(Entry { name, secret: false, letters, value });
    }

    /// The fields of `text`, which is copied as it is; with room for so many bytes more.
    #[must_use]
    pub fn over(self, text: &[u8], spare_bytes: usize) -> Fields {
        let mut copy = Vec::with_capacity(text.len() + spare_bytes);
        copy.extend_from_slice(text);
        Fields { text: copy, entries: self.entries, known: self.known }
    }
}

impl Fields {
    /// Room for a usual head, so that it grows only when it is an unusual one.
    #[must_use]
    pub fn with_capacity(text_bytes: usize, fields: usize) -> Self {
        Self { text: Vec::with_capacity(text_bytes), entries: Vec::with_capacity(fields), known: Names::default() }
    }

    /// Keeps text that belongs to the head without being a field of it.
    pub fn store(&mut self, text: &[u8]) -> Span {
        let start = place(self.text.len());
        self.text.extend_from_slice(text);
        Span { start, length: place(text.len()) }
    }

    #[must_use]
    pub fn text(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }

    /// Writes all fields but those of some names as lines of HTTP/1.1 (RFC 9112 section 5). Lines that stand in the text as they came,
    /// one behind the other, are copied at once.
    pub fn write_lines(&self, left_out: Names, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for entry in self.entries.iter().filter(|entry| !left_out.has(entry.name)) {
            let line = entry.letters.start as usize..(entry.value.start + entry.value.length) as usize + 2;
            let is_line = entry.value.start == entry.letters.start + entry.letters.length + 2
                && self.text[entry.letters.range().end..].starts_with(b": ")
                && self.text[line.end - 2..].starts_with(b"\r\n");
            if is_line && line.start == run.end {
                run.end = line.end;
                continue;
            }
            out.extend_from_slice(&self.text[std::mem::replace(&mut run, 0..0)]);
            if is_line {
                run = line;
            } else {
                for part in [self.text(entry.letters), b": ", self.text(entry.value), b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// One more field, behind all others. Name and value must be valid (RFC 9110 sections 5.1 and 5.5): nothing here looks at them.
    pub fn push(&mut self, letters: &[u8], value: &[u8]) {
        self.push_known(Name::of(letters), letters, value);
    }

    /// One more field of ours.
    pub fn add(&mut self, name: Name, value: &[u8]) {
        self.push_known(name, name.as_bytes(), value);
    }

    /// One more field, whose name was told already.
    pub fn push_known(&mut self, name: Name, letters: &[u8], value: &[u8]) {
        self.push_field(Field { name, letters, value, secret: false });
    }

    /// One more field, as it stands in another head.
    pub fn push_field(&mut self, field: Field<'_>) {
        let letters = self.store(field.letters);
        let value = self.store(field.value);
        self.known.insert(field.name);
        self.entries.push(Entry { name: field.name, secret: field.secret, letters, value });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a field of that (known) name.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.known.has(name) && self.entries.iter().any(|entry| entry.name == name)
    }

    /// The value of the first field of that (known) name.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Where the value of the first field of that (known) name stands. It stays there, whatever becomes of the field.
    #[must_use]
    pub fn span(&self, name: Name) -> Option<Span> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    /// The values of all fields of that (known) name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let entries = if self.known.has(name) { &self.entries[..] } else { &[][..] };
        entries.iter().filter(move |entry| entry.name == name).map(|entry| self.text(entry.value))
    }

    /// The members of the list that all fields of that (known) name make together (RFC 9110 section 5.6.1), empty ones left out.
    pub fn members(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let members = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        members.map(trimmed).filter(|member| !member.is_empty())
    }

    /// Whether that list has `token`, whatever its case.
    #[must_use]
    pub fn has_member(&self, name: Name, token: &[u8]) -> bool {
        self.known.has(name) && self.members(name).any(|member| member.eq_ignore_ascii_case(token))
    }

    /// Every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// The value of the first field with these letters, whatever their case. For names that are not known.
    #[must_use]
    pub fn named(&self, letters: &[u8]) -> Option<&[u8]> {
        self.iter().find(|field| field.letters.eq_ignore_ascii_case(letters)).map(|field| field.value)
    }

    pub fn remove(&mut self, name: Name) {
        self.remove_all(Names::of(&[name]));
    }

    /// Removes all fields of these names.
    pub fn remove_all(&mut self, names: Names) {
        if self.known.has_any(names) {
            self.entries.retain(|entry| !names.has(entry.name));
            self.known.remove(names);
        }
    }

    /// Whether there may be a field of these names: told without a look at them.
    #[must_use]
    pub fn may_have(&self, names: Names) -> bool {
        self.known.has_any(names)
    }

    /// Keeps the fields of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let Self { text, entries, known } = self;
        let of = |span: Span| &text[span.range()];
        entries.retain(|entry| {
            keep(Field { name: entry.name, letters: of(entry.letters), value: of(entry.value), secret: entry.secret })
        });
        *known = Names::default();
        entries.iter().for_each(|entry| known.insert(entry.name));
    }

    /// Makes it the only field of that (known) name: in the place of the first, or behind all others.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        if !self.has(name) {
            return self.add(name, value);
        }
        let value = self.store(value);
        let mut first = true;
        self.entries.retain_mut(|entry| {
            if entry.name != name {
                return true;
            }
            entry.value = value;
            std::mem::take(&mut first)
        });
    }

    /// Appends a member to the list of that (known) name.
    pub fn append(&mut self, name: Name, member: &[u8]) {
        self.append_parts(name, &[member]);
    }

    /// Appends a member that is made of these parts.
    pub fn append_parts(&mut self, name: Name, parts: &[&[u8]]) {
        if !self.has(name) {
            self.add(name, b"");
        }
        let last = self.entries.iter().rposition(|entry| entry.name == name).unwrap_or_default();
        let before = self.entries[last].value;
        let start = place(self.text.len());
        self.text.extend_from_within(before.range());
        if before.length > 0 {
            self.text.extend_from_slice(b", ");
        }
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        self.entries[last].value = Span { start, length: place(self.text.len()) - start };
    }

    /// How much memory its text takes, values that were replaced included.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        Field {
            name: entry.name,
            letters: self.text(entry.letters),
            value: self.text(entry.value),
            secret: entry.secret,
        }
    }
}

/// Heads are limited to far less than 4 GiB by whoever reads them.
fn place(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a head is limited to less than 4 GiB")
}

/// Without the optional white space around it (RFC 9110 section 5.6.3).
#[must_use]
pub fn trimmed(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.letters.escape_ascii(), self.value.escape_ascii())
    }
}

impl<L: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(L, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (L, V)>>(fields: I) -> Self {
        let mut all = Self::default();
        for (letters, value) in fields {
            all.push(letters.as_ref(), value.as_ref());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        all.iter().copied().collect()
    }

    fn shown(fields: &Fields) -> String {
        fields.iter().map(|field| format!("{field:?}\n")).collect()
    }

    #[test]
    fn order_case_and_repetition_stay() {
        let all = fields(&[("Host", "a"), ("X-One", "1"), ("via", "b"), ("X-one", "2")]);
        assert_eq!(shown(&all), "Host: a\nX-One: 1\nvia: b\nX-one: 2\n");
        assert_eq!(all.get(Name::Host), Some(b"a".as_slice()));
        assert_eq!(all.named(b"x-ONE"), Some(b"1".as_slice()));
        assert!(all.has(Name::Via) && !all.has(Name::Te));
    }

    #[test]
    fn lines_are_written_as_they_came() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nX:1\r\nY: 2\r\nZ: 3\r\n\r\n";
        let mut marks = Marks::default();
        for (name, letters, value) in [("Host", 16, 22), ("X", 25, 27), ("Y", 30, 33), ("Z", 36, 39)] {
            let (letters, value) = (Span::between(letters, letters + name.len()), Span::between(value, value + 1));
            marks.push(Name::of(name.as_bytes()), letters, value);
        }
        let mut fields = marks.over(text, 0);
        let written = |fields: &Fields, left_out: &[Name]| {
            let mut out = Vec::new();
            fields.write_lines(Names::of(left_out), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&fields, &[]), "Host: a\r\nX: 1\r\nY: 2\r\nZ: 3\r\n");
        assert_eq!(written(&fields, &[Name::Host]), "X: 1\r\nY: 2\r\nZ: 3\r\n");
        fields.add(Name::Via, b"b");
        fields.append(Name::Host, b"c");
        fields.retain(|field| field.letters != b"Y");
        assert_eq!(written(&fields, &[]), "Host: a, c\r\nX: 1\r\nZ: 3\r\nvia: b\r\n");
        assert_eq!(written(&Fields::default(), &[]), "");
        // What only looks like a line.
        let odd: Fields = [("a", "b"), (": ", "\r\n")].into_iter().collect();
        assert_eq!(written(&odd, &[]), "a: b\r\n: : \r\n\r\n");
    }

    #[test]
    fn one_is_set_in_place_of_all() {
        let mut all = fields(&[("Host", "a"), ("x", "1"), ("host", "b")]);
        all.set(Name::Host, b"c");
        all.set(Name::Te, b"trailers");
        assert_eq!(shown(&all), "Host: c\nx: 1\nte: trailers\n");
        all.remove(Name::Host);
        assert_eq!(shown(&all), "x: 1\nte: trailers\n");
        assert_eq!(all.get(Name::Host), None);
    }

    #[test]
    fn lists_are_read_over_all_fields() {
        let mut all = fields(&[("Connection", "close, , X-A"), ("connection", "Upgrade")]);
        let members: Vec<&[u8]> = all.members(Name::Connection).collect();
        assert_eq!(members, [b"close".as_slice(), b"X-A", b"Upgrade"]);
        assert!(all.has_member(Name::Connection, b"upgrade") && !all.has_member(Name::Connection, b"up"));
        all.append(Name::Connection, b"z");
        all.append(Name::Via, b"1.1 mesh");
        assert_eq!(shown(&all), "Connection: close, , X-A\nconnection: Upgrade, z\nvia: 1.1 mesh\n");
        all.append_parts(Name::Via, &[b"2", b" ", b"x"]);
        all.push(b"te", b"");
        all.append(Name::Te, b"trailers");
        assert_eq!((all.get(Name::Via), all.get(Name::Te)), (Some(&b"1.1 mesh, 2 x"[..]), Some(&b"trailers"[..])));
        all.retain(|field| field.name == Name::Via);
        assert!(!all.has(Name::Connection) && all.len() == 1);
    }

    #[test]
    fn white_space_goes_from_both_ends() {
        let check = |text: &str, expected: &str| assert_eq!(trimmed(text.as_bytes()), expected.as_bytes());
        check(" \ta b\t ", "a b");
        check(" \t", "");
        check("", "");
    }
}
