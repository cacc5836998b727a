//! The peer's frames: cut out of its bytes, and acted on (RFC 9113 sections 4 to 6).
//!
//! DATA is passed on as it comes; any other frame is looked at when it is whole. What is kept of one that is not is limited by the
//! size of frames.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::{Duration, Instant};

use super::blocks::Block;
use super::connection::{Connection, Event, Role};
use super::error::{ConnectionError, Reset, ResetBy};
use super::frame::{Code, FRAME_BYTES_MAX, FrameHeader, HEADER_BYTES, PREFACE, STREAM_ID_MAX, flag, kind, number};
use super::limits::Limit;
use super::streams::StreamKey;

/// A stream that is reset so soon after its beginning was not worth opening.
const RESET_EARLY: Duration = Duration::from_secs(1);

/// Buffers larger than this are not kept between frames.
const PARTIAL_KEPT_BYTES: usize = 1024;

type Handled = Result<(), ConnectionError>;

pub(super) fn broken(code: Code, what: &'static str) -> Handled {
    Err(ConnectionError::Protocol { code, what })
}

/// Where we are in the peer's bytes.
#[derive(Debug)]
pub(super) struct Input {
    /// What is still to come of the client's preface.
    preface: &'static [u8],
    settings_seen: bool,
    /// The beginning of a frame that is not whole.
    partial: Vec<u8>,
    /// A DATA frame of which more is to come.
    data: Option<DataFrame>,
    /// A header block of which more is to come.
    pub(super) block: Option<Block>,
}

#[derive(Debug)]
struct DataFrame {
    /// None if nobody wants it.
    stream: Option<StreamKey>,
    data_left: usize,
    padding_left: usize,
    ends: bool,
}

impl Input {
    pub(super) fn new(role: Role) -> Self {
        let preface = if role == Role::Server { PREFACE } else { &[] };
        Self { preface, settings_seen: false, partial: Vec::new(), data: None, block: None }
    }

    /// A frame that is no DATA, or a header block, has begun and is not whole.
    pub(super) fn is_within(&self) -> bool {
        !self.partial.is_empty() || self.block.is_some()
    }

    pub(super) fn data_left(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.data_left + data.padding_left)
    }

    pub(super) fn data_stream(&self) -> Option<u32> {
        self.data.as_ref()?.stream.map(|key| key.id)
    }
}

impl Connection {
    pub(super) fn take_bytes(&mut self, mut bytes: &[u8], now: Instant) -> Handled {
        if !self.input.preface.is_empty() {
            bytes = self.take_preface(bytes)?;
        }
        while !bytes.is_empty() {
            if self.input.data.is_some() {
                bytes = self.take_data(bytes)?;
                continue;
            }
            if !self.input.partial.is_empty() {
                bytes = self.complete(bytes, now)?;
                continue;
            }
            let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
                self.input.partial.extend_from_slice(bytes);
                return Ok(());
            };
            let header = FrameHeader::read(header);
            self.check_header(header)?;
            let needed = whole_bytes(header);
            let Some((payload, rest)) = payload.split_at_checked(needed) else {
                self.input.partial.extend_from_slice(bytes);
                return Ok(());
            };
            self.take_frame(header, payload, now)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take_preface<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ConnectionError> {
        let compared = bytes.len().min(self.input.preface.len());
        let (expected, left) = self.input.preface.split_at(compared);
        if bytes[..compared] != *expected {
            broken(Code::PROTOCOL_ERROR, "another preface than that of h2")?;
        }
        self.input.preface = left;
        Ok(&bytes[compared..])
    }

    /// Goes on with a frame whose beginning came before; returns what lies behind it.
    fn complete<'b>(&mut self, mut bytes: &'b [u8], now: Instant) -> Result<&'b [u8], ConnectionError> {
        let mut partial = std::mem::take(&mut self.input.partial);
        let had_header = partial.len() >= HEADER_BYTES;
        let mut take_up_to = |partial: &mut Vec<u8>, length: usize| {
            let (taken, rest) = bytes.split_at(bytes.len().min(length.saturating_sub(partial.len())));
            partial.extend_from_slice(taken);
            bytes = rest;
            partial.len() >= length
        };
        if !take_up_to(&mut partial, HEADER_BYTES) {
            self.input.partial = partial;
            return Ok(bytes);
        }
        let header = partial.first_chunk().map(FrameHeader::read).expect("there are as many bytes");
        if !had_header {
            self.check_header(header)?;
        }
        if !take_up_to(&mut partial, HEADER_BYTES + whole_bytes(header)) {
            self.input.partial = partial;
            return Ok(bytes);
        }
        self.take_frame(header, &partial[HEADER_BYTES..], now)?;
        if partial.capacity() <= PARTIAL_KEPT_BYTES {
            partial.clear();
            self.input.partial = partial;
        }
        Ok(bytes)
    }

    /// What can be said before a frame is whole.
    fn check_header(&mut self, header: FrameHeader) -> Handled {
        if header.length > FRAME_BYTES_MAX {
            return broken(Code::FRAME_SIZE_ERROR, "a frame longer than 16,384 bytes");
        }
        if !std::mem::replace(&mut self.input.settings_seen, true)
            && (header.kind != kind::SETTINGS || header.has(flag::ACK))
        {
            return broken(Code::PROTOCOL_ERROR, "a first frame other than SETTINGS");
        }
        match &self.input.block {
            Some(block) if header.kind != kind::CONTINUATION || header.stream != block.stream => {
                broken(Code::PROTOCOL_ERROR, "another frame within a header block")
            }
            None if header.kind == kind::CONTINUATION => {
                broken(Code::PROTOCOL_ERROR, "CONTINUATION without a header block")
            }
            _ => Ok(()),
        }
    }

    fn take_frame(&mut self, header: FrameHeader, payload: &[u8], now: Instant) -> Handled {
        if !matches!(header.kind, kind::HEADERS | kind::CONTINUATION) {
            // What follows is another frame, which has its own time.
            self.within_since = None;
        }
        match header.kind {
            kind::DATA => self.on_data(header, payload),
            kind::HEADERS => self.on_headers(header, payload, now),
            kind::PRIORITY => self.on_priority(header, payload),
            kind::RST_STREAM => self.on_reset(header, payload, now),
            kind::SETTINGS => self.on_settings(header, payload),
            kind::PUSH_PROMISE => broken(Code::PROTOCOL_ERROR, "PUSH_PROMISE, which we never allow"),
            kind::PING => self.on_ping(header, payload),
            kind::GOAWAY => self.on_goaway(header, payload),
            kind::WINDOW_UPDATE => self.on_window_update(header, payload),
            kind::CONTINUATION => self.on_continuation(header, payload, now),
            // Unknown ones mean nothing (section 5.5).
            _ => self.count(Limit::Ignored),
        }?;
        if self.output.answer_bytes() > self.limits.answers_unread_bytes_max {
            return Err(ConnectionError::Flood { limit: Limit::AnswersUnread });
        }
        Ok(())
    }

    /// A DATA frame begins. Of its payload there is what tells the padding.
    fn on_data(&mut self, header: FrameHeader, begun: &[u8]) -> Handled {
        if header.stream == 0 {
            return broken(Code::PROTOCOL_ERROR, "DATA on stream 0");
        }
        let padding = begun.first().map_or(0, |padding| usize::from(*padding));
        let has_padding_length = begun.len() == usize::from(header.has(flag::PADDED));
        if !has_padding_length || padding + begun.len() > header.length {
            return broken(Code::PROTOCOL_ERROR, "DATA with more padding than payload");
        }
        if header.length as i64 > self.receive_window {
            return broken(Code::FLOW_CONTROL_ERROR, "more DATA than the connection's window");
        }
        if self.is_idle(header.stream) {
            return broken(Code::PROTOCOL_ERROR, "DATA on a stream that was not opened");
        }
        self.receive_window -= header.length as i64;
        let data_left = header.length - begun.len() - padding;
        let stream = self.data_receiver(header, data_left)?;
        self.give_back_padding(stream, begun.len() as u32);
        let ends = header.has(flag::END_STREAM);
        self.input.data = Some(DataFrame { stream, data_left, padding_left: padding, ends });
        if data_left + padding == 0 {
            self.end_data();
        }
        Ok(())
    }

    /// The stream that a DATA frame is for, unless it is to be ignored, or ends the stream.
    fn data_receiver(&mut self, header: FrameHeader, data: usize) -> Result<Option<StreamKey>, ConnectionError> {
        let id = header.stream;
        let ends = header.has(flag::END_STREAM);
        let Some(key) = self.streams.find(id) else {
            if !self.was_reset(id) {
                broken(Code::STREAM_CLOSED, "DATA on a closed stream")?;
            }
            return self.ignore_data(data);
        };
        let Some(stream) = self.streams.get(key) else { return Ok(None) };
        if stream.received_end && stream.is_closed() {
            broken(Code::STREAM_CLOSED, "DATA on a closed stream")?;
        }
        match stream.reset {
            Some(Reset { by: ResetBy::Peer, .. }) => {
                self.stream_error(id, Code::STREAM_CLOSED, "DATA behind RST_STREAM")?;
                return Ok(None);
            }
            Some(_) => return self.ignore_data(data),
            None => {}
        }
        let flaw = if stream.received_end {
            Some((Code::STREAM_CLOSED, "DATA behind the end of the stream"))
        } else if header.length as i64 > stream.receive_window {
            Some((Code::FLOW_CONTROL_ERROR, "more DATA than the stream's window"))
        } else if !stream.received_head {
            Some((Code::PROTOCOL_ERROR, "DATA in front of the head"))
        } else if stream.bodiless && data > 0 {
            Some((Code::PROTOCOL_ERROR, "DATA in a response that has none"))
        } else {
            match &mut stream.length_left {
                Some(left) if (data as u64 > *left) || (ends && data as u64 != *left) => {
                    Some((Code::PROTOCOL_ERROR, "DATA of another length than Content-Length says"))
                }
                Some(left) => {
                    *left -= data as u64;
                    None
                }
                None => None,
            }
        };
        if let Some((code, what)) = flaw {
            self.stream_error(id, code, what)?;
            return Ok(None);
        }
        stream.receive_window -= header.length as i64;
        match data {
            0 if !ends => self.count(Limit::EmptyData)?,
            0 => {}
            _ => self.counts.useful(),
        }
        Ok(Some(key))
    }

    fn ignore_data(&mut self, data: usize) -> Result<Option<StreamKey>, ConnectionError> {
        if data == 0 {
            self.count(Limit::Ignored)?;
        }
        Ok(None)
    }

    /// As much as there is of the DATA frame that has begun; returns what lies behind it.
    fn take_data<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ConnectionError> {
        let Some(frame) = &mut self.input.data else { return Ok(bytes) };
        let (piece, bytes) = bytes.split_at(bytes.len().min(frame.data_left));
        let (padding, bytes) = bytes.split_at(bytes.len().min(frame.padding_left));
        frame.data_left -= piece.len();
        frame.padding_left -= padding.len();
        let (stream, is_whole) = (frame.stream, frame.data_left + frame.padding_left == 0);
        self.give_back_padding(stream, padding.len() as u32);
        match stream {
            Some(key) if !piece.is_empty() && self.deliver(key, piece) => {}
            _ => self.give_back_padding(stream, piece.len() as u32),
        }
        if is_whole {
            self.end_data();
        }
        Ok(bytes)
    }

    /// Whether somebody will read it.
    fn deliver(&mut self, key: StreamKey, piece: &[u8]) -> bool {
        match self.streams.get(key).filter(|stream| stream.held && stream.reset.is_none()) {
            Some(stream) => stream.push_data(piece),
            None => return false,
        }
        self.unread_bytes += piece.len() as u64;
        self.wake_reader(key);
        true
    }

    /// Bytes that nobody will read.
    fn give_back_padding(&mut self, stream: Option<StreamKey>, bytes: u32) {
        if bytes > 0 {
            self.give_back(bytes);
            if let Some(key) = stream {
                self.give_back_to_stream(key, bytes);
            }
        }
    }

    fn end_data(&mut self) {
        if let Some(frame) = self.input.data.take()
            && let Some(key) = frame.stream
            && frame.ends
            && self.streams.get(key).is_some_and(|stream| stream.reset.is_none())
        {
            self.mark_received_end(key);
        }
    }

    fn on_priority(&mut self, header: FrameHeader, payload: &[u8]) -> Handled {
        if header.stream == 0 {
            return broken(Code::PROTOCOL_ERROR, "PRIORITY on stream 0");
        }
        let flaw = match number(payload) {
            Some((dependency, [_])) if dependency & STREAM_ID_MAX != header.stream => None,
            Some((_, [_])) => Some((Code::PROTOCOL_ERROR, "a stream that depends on itself")),
            _ => Some((Code::FRAME_SIZE_ERROR, "PRIORITY whose length is not 5")),
        };
        match flaw {
            Some((code, what)) if self.is_idle(header.stream) => broken(code, what),
            Some((code, what)) => self.stream_error(header.stream, code, what),
            None => self.count(Limit::Priorities),
        }
    }

    fn on_reset(&mut self, header: FrameHeader, payload: &[u8], now: Instant) -> Handled {
        let Some((code, [])) = number(payload) else {
            return broken(Code::FRAME_SIZE_ERROR, "RST_STREAM whose length is not 4");
        };
        if header.stream == 0 || self.is_idle(header.stream) {
            return broken(Code::PROTOCOL_ERROR, "RST_STREAM on a stream that was not opened");
        }
        let Some(key) = self.streams.find(header.stream) else { return self.count(Limit::Ignored) };
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.is_closed()) else {
            return self.count(Limit::Ignored);
        };
        let early = now.saturating_duration_since(stream.opened_at) < RESET_EARLY;
        let seen = Code(code) != Code::REFUSED_STREAM;
        self.mark_reset(key, Reset { code: Code(code), by: ResetBy::Peer, seen });
        match self.role {
            Role::Server if early => self.count(Limit::Resets),
            // A server that ends what we ask of it harms nobody but itself.
            Role::Server | Role::Client => Ok(()),
        }
    }

    fn on_settings(&mut self, header: FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return broken(Code::PROTOCOL_ERROR, "SETTINGS on a stream");
        }
        self.count(Limit::Settings)?;
        if header.has(flag::ACK) {
            return match payload {
                [] => Ok(()),
                _ => broken(Code::FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload"),
            };
        }
        let before = self.peer;
        self.peer.read(payload, self.role == Role::Client)?;
        self.shift_windows(i64::from(self.peer.stream_window_bytes) - i64::from(before.stream_window_bytes))?;
        if self.peer.header_table_bytes != before.header_table_bytes {
            self.encoder.set_table_bytes_max(self.peer.header_table_bytes as usize);
        }
        self.output.answer(kind::SETTINGS, flag::ACK, 0, &[]);
        self.events.push_back(Event::Settings);
        Ok(())
    }

    fn on_ping(&mut self, header: FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return broken(Code::PROTOCOL_ERROR, "PING on a stream");
        }
        if payload.len() != 8 {
            return broken(Code::FRAME_SIZE_ERROR, "PING whose length is not 8");
        }
        if header.has(flag::ACK) {
            self.ping_answered(payload);
        } else {
            self.output.answer(kind::PING, flag::ACK, 0, payload);
        }
        self.count(Limit::Pings)
    }

    fn on_goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return broken(Code::PROTOCOL_ERROR, "GOAWAY on a stream");
        }
        let Some((last, rest)) = number(payload) else {
            return broken(Code::FRAME_SIZE_ERROR, "GOAWAY shorter than 8 bytes");
        };
        let Some((code, _)) = number(rest) else {
            return broken(Code::FRAME_SIZE_ERROR, "GOAWAY shorter than 8 bytes");
        };
        self.count(Limit::Settings)?;
        let last = (last & STREAM_ID_MAX).min(self.peer_going.unwrap_or(STREAM_ID_MAX));
        self.peer_going = Some(last);
        self.events.push_back(Event::GoAway { code: Code(code) });
        if self.role == Role::Client {
            // The peer promises that it did nothing about those (section 6.8).
            let unseen: Vec<StreamKey> = self.streams.keys().filter(|key| key.id > last).collect();
            for key in unseen {
                self.mark_reset(key, Reset { code: Code(code), by: ResetBy::Connection, seen: false });
            }
        }
        Ok(())
    }

    fn on_window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Handled {
        let Some((increment, [])) = number(payload) else {
            return broken(Code::FRAME_SIZE_ERROR, "WINDOW_UPDATE whose length is not 4");
        };
        let increment = increment & STREAM_ID_MAX;
        self.count(Limit::WindowUpdates)?;
        if header.stream == 0 {
            return self.enlarge_connection(increment);
        }
        if self.is_idle(header.stream) {
            return broken(Code::PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was not opened");
        }
        match self.streams.find(header.stream) {
            Some(key) => self.enlarge_stream(key, increment),
            None => Ok(()),
        }
    }
}

/// How much of a payload has to be there before a frame is looked at.
fn whole_bytes(header: FrameHeader) -> usize {
    match header.kind {
        kind::DATA => header.length.min(usize::from(header.has(flag::PADDED))),
        _ => header.length,
    }
}
