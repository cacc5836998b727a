//! What is to be written to a connection: one growing buffer, and large pieces of bodies that are written from where they are.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::frame::{FrameHeader, HEADER_BYTES};

/// Shorter pieces are copied: that costs less than one more place in a vectored write.
const COPIED_BYTES_MAX: usize = 4096;

/// Buffers larger than this are not kept while there is nothing to write.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub struct Output {
    buffer: Vec<u8>,
    /// So much of `buffer` has been written.
    written: usize,
    segments: VecDeque<Segment>,
    segment_bytes: usize,
    /// How much of all that, at most, are answers to what the peer sent.
    answer_bytes: usize,
}

#[derive(Debug)]
struct Segment {
    /// It comes in front of what stands at this place of the buffer.
    place: usize,
    bytes: Bytes,
}

impl Output {
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.written + self.segment_bytes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what comes next; returns how many were filled.
    pub fn slices<'o>(&'o self, slices: &mut [IoSlice<'o>]) -> usize {
        let mut filled = 0;
        let mut from = self.written;
        let mut push = |piece: &'o [u8]| {
            let Some(slice) = slices.get_mut(filled) else { return false };
            if !piece.is_empty() {
                *slice = IoSlice::new(piece);
                filled += 1;
            }
            true
        };
        for segment in &self.segments {
            if !push(&self.buffer[from..segment.place]) || !push(&segment.bytes) {
                return filled;
            }
            from = segment.place;
        }
        push(&self.buffer[from..]);
        filled
    }

    /// So many bytes were written.
    pub fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let until = self.segments.front().map_or(self.buffer.len(), |segment| segment.place);
            let taken = bytes.min(until - self.written);
            self.written += taken;
            bytes -= taken;
            let Some(segment) = self.segments.front_mut().filter(|_| bytes > 0) else { break };
            let taken = bytes.min(segment.bytes.len());
            segment.bytes.advance(taken);
            self.segment_bytes -= taken;
            bytes -= taken;
            if segment.bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        debug_assert_eq!(bytes, 0, "more was written than there was");
        self.tidy();
        self.answer_bytes = self.answer_bytes.min(self.len());
    }

    /// Gives back what an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.buffer = Vec::new();
            self.segments = VecDeque::new();
        }
    }

    fn tidy(&mut self) {
        if self.is_empty() {
            self.buffer.clear();
            self.written = 0;
            if self.buffer.capacity() > BUFFER_KEPT_BYTES {
                self.buffer = Vec::new();
            }
        } else if self.written > BUFFER_KEPT_BYTES {
            self.buffer.drain(..self.written);
            for segment in &mut self.segments {
                segment.place -= self.written;
            }
            self.written = 0;
        }
    }

    /// How much of what is not written yet answers the peer's own frames.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// The buffer, to append to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let header = FrameHeader { length: payload.len(), kind, flags, stream };
        self.buffer.extend_from_slice(&header.bytes());
        self.buffer.extend_from_slice(payload);
    }

    /// A frame that the peer provoked.
    pub(super) fn answer(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frame(kind, flags, stream, payload);
        self.answer_bytes += HEADER_BYTES + payload.len();
    }

    /// A piece of a payload whose header has been written.
    pub(super) fn payload(&mut self, piece: Bytes) {
        if piece.len() <= COPIED_BYTES_MAX {
            self.buffer.extend_from_slice(&piece);
        } else {
            self.segment_bytes += piece.len();
            self.segments.push_back(Segment { place: self.buffer.len(), bytes: piece });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_however_they_are_taken() {
        for seed in 0..10 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut output, mut expected, mut seen) = (Output::default(), Vec::new(), Vec::new());
            for turn in 0..60u32 {
                let piece = vec![turn as u8; random.usize(..3 * COPIED_BYTES_MAX)];
                if random.bool() {
                    output.frame(0, 0, turn, &piece);
                    expected.extend(FrameHeader { length: piece.len(), kind: 0, flags: 0, stream: turn }.bytes());
                } else {
                    output.payload(Bytes::from(piece.clone()));
                }
                expected.extend(piece);
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = output.slices(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = random.usize(..=all.len());
                seen.extend(&all[..taken]);
                output.advance(taken);
                assert_eq!(output.len(), expected.len() - seen.len());
            }
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                assert!(output.slices(&mut slices) > 0);
                let first = slices[0].to_vec();
                output.advance(first.len());
                seen.extend(first);
            }
            assert!(seen == expected, "seed {seed}");
        }
    }
}
