//! Frames of h2 and the few header blocks that a benchmark sends: no more than both ends of it need, so that they cost little.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// What a client says first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before each payload.
pub const HEAD: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// One frame of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'b> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'b [u8],
}

impl<'b> Frame<'b> {
    /// The first whole frame.
    #[must_use]
    pub fn first_of(bytes: &'b [u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = bytes.get(HEAD..HEAD + length)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Self { kind: head[3], flags: head[4], stream, payload })
    }

    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of a HEADERS frame without padding and priority.
    #[must_use]
    pub fn block(&self) -> &'b [u8] {
        let mut block = self.payload;
        if self.has(PADDED) {
            let padding = block.first().copied().unwrap_or(0) as usize;
            block = block.get(1..block.len().saturating_sub(padding)).unwrap_or_default();
        }
        if self.has(PRIORITY) { block.get(5..).unwrap_or_default() } else { block }
    }

    /// The settings in a SETTINGS frame.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> + use<'b> {
        self.payload
            .chunks_exact(6)
            .map(|one| (u16::from_be_bytes([one[0], one[1]]), u32::from_be_bytes([one[2], one[3], one[4], one[5]])))
    }

    /// What a WINDOW_UPDATE adds.
    #[must_use]
    pub fn increment(&self) -> u32 {
        let bytes = self.payload.first_chunk::<4>().copied().unwrap_or_default();
        u32::from_be_bytes(bytes) & 0x7fff_ffff
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
    put(out, SETTINGS, 0, 0, &payload);
}

pub fn put_window(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// A field whose name stands in HPACK's static table, remembered by the receiver (RFC 7541, 6.2.1).
pub fn put_remembered(block: &mut Vec<u8>, static_name: u8, value: &str) {
    assert!(static_name < 63 && value.len() < 127, "each number fits its first byte");
    block.extend_from_slice(&[0x40 | static_name, value.len() as u8]);
    block.extend_from_slice(value.as_bytes());
}

/// The `number`th field remembered last, from 1.
pub fn put_again(block: &mut Vec<u8>, number: u8) {
    block.push(0x80 | (61 + number));
}

/// Whether a response's block begins with `:status: 200`, after changes of the table's size.
#[must_use]
pub fn is_ok(block: &[u8]) -> bool {
    let first = block.iter().find(|byte| *byte & 0xe0 != 0x20);
    first == Some(&0x88)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_put_is_read() {
        let mut out = Vec::new();
        put(&mut out, DATA, END_STREAM, 7, b"hello");
        put_settings(&mut out, &[(INITIAL_WINDOW_SIZE, 70_000), (ENABLE_PUSH, 0)]);
        put_window(&mut out, 0, 1 << 20);
        let first = Frame::first_of(&out).unwrap();
        assert_eq!(first, Frame { kind: DATA, flags: END_STREAM, stream: 7, payload: b"hello" });
        let second = Frame::first_of(&out[HEAD + 5..]).unwrap();
        assert_eq!(second.settings().collect::<Vec<_>>(), [(INITIAL_WINDOW_SIZE, 70_000), (ENABLE_PUSH, 0)]);
        let third = Frame::first_of(&out[HEAD + 5 + HEAD + 12..]).unwrap();
        assert_eq!((third.kind, third.stream, third.increment()), (WINDOW_UPDATE, 0, 1 << 20));
    }

    #[test]
    fn a_cut_frame_is_none() {
        let mut out = Vec::new();
        put(&mut out, HEADERS, END_HEADERS, 1, &[0x88, 0x61]);
        assert!((0..out.len()).all(|length| Frame::first_of(&out[..length]).is_none()));
        assert!(Frame::first_of(&out).is_some());
    }

    #[test]
    fn a_block_is_found_behind_padding_and_priority() {
        let payload = [2, 0, 0, 0, 0, 9, 0x88, 0, 0];
        let frame = Frame { kind: HEADERS, flags: PADDED | PRIORITY, stream: 1, payload: &payload };
        assert_eq!(frame.block(), [0x88]);
        assert!(Frame { flags: PADDED, payload: &[200, 1], ..frame }.block().is_empty());
    }

    #[test]
    fn only_200_is_ok() {
        for (block, ok) in [(&[0x88, 0x61][..], true), (&[0x20, 0x88], true), (&[0x8d], false), (&[], false)] {
            assert_eq!(is_ok(block), ok, "{block:?}");
        }
    }

    #[test]
    fn fields_are_encoded_as_hpack_says() {
        let mut block = Vec::new();
        put_remembered(&mut block, 1, "a.test"); // :authority
        put_again(&mut block, 1);
        assert_eq!(block, [b"\x41\x06a.test".as_slice(), &[0xbe]].concat());
    }
}
