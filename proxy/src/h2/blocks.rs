//! The peer's header blocks: put together, decoded, and turned into requests, responses and trailers (RFC 9113 sections 4.3, 8.1).
//!
//! Every block is decoded, whatever becomes of its stream: the compression of all that follow depends on it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Instant;

use http::{Method, StatusCode};

use super::connection::{Connection, Event, Going, Refused, Role};
use super::error::{ConnectionError, Reset, ResetBy};
use super::frame::{Code, FRAME_BYTES_MAX, FrameHeader, STREAM_ID_MAX, flag, kind, number};
use super::head::{Assembly, HeadError, Part};
use super::limits::Limit;
use super::receive::broken;
use super::streams::{StreamKey, Unread};
use crate::message::name::Name;
use crate::message::trailers::may_trail;

/// Room for the text of a head that is larger than the last one.
const TEXT_SPARE_BYTES: usize = 128;

/// No head is expected to be larger than that.
const TEXT_EXPECTED_BYTES_MAX: usize = 4096;

/// A header block of which more is to come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    ends: bool,
    depends_on_itself: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

/// What stands in front of a whole block.
#[derive(Debug, Clone, Copy)]
struct Opening {
    stream: u32,
    /// Nothing follows the block on the stream.
    ends: bool,
    depends_on_itself: bool,
}

type Handled = Result<(), ConnectionError>;

impl Connection {
    pub(super) fn on_headers(&mut self, header: FrameHeader, mut payload: &[u8], now: Instant) -> Handled {
        if header.stream == 0 {
            return broken(Code::PROTOCOL_ERROR, "HEADERS on stream 0");
        }
        if header.has(flag::PADDED) {
            let Some((padding, rest)) = payload.split_first() else {
                return broken(Code::FRAME_SIZE_ERROR, "HEADERS that end within their padding");
            };
            let Some(length) = rest.len().checked_sub(usize::from(*padding)) else {
                return broken(Code::PROTOCOL_ERROR, "HEADERS with more padding than payload");
            };
            payload = &rest[..length];
        }
        let mut depends_on_itself = false;
        if header.has(flag::PRIORITY) {
            let Some((dependency, [_, rest @ ..])) = number(payload) else {
                return broken(Code::FRAME_SIZE_ERROR, "HEADERS that end within their priority");
            };
            depends_on_itself = dependency & STREAM_ID_MAX == header.stream;
            payload = rest;
        }
        let opening = Opening { stream: header.stream, ends: header.has(flag::END_STREAM), depends_on_itself };
        if header.has(flag::END_HEADERS) {
            return self.on_block(opening, payload, now);
        }
        let Opening { stream, ends, .. } = opening;
        let block = Block { stream, ends, depends_on_itself, bytes: payload.to_vec(), continuations: 0 };
        self.input.block = Some(block);
        Ok(())
    }

    pub(super) fn on_continuation(&mut self, header: FrameHeader, payload: &[u8], now: Instant) -> Handled {
        let Some(block) = &mut self.input.block else { return Ok(()) };
        block.continuations += 1;
        if block.continuations > self.limits.continuations_max {
            return Err(ConnectionError::Flood { limit: Limit::Continuations });
        }
        if block.bytes.len() + payload.len() > self.limits.header_block_bytes_max {
            return Err(ConnectionError::Flood { limit: Limit::HeaderBlockBytes });
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS)
            && let Some(Block { stream, ends, depends_on_itself, bytes, .. }) = self.input.block.take()
        {
            return self.on_block(Opening { stream, ends, depends_on_itself }, &bytes, now);
        }
        Ok(())
    }

    fn on_block(&mut self, opening: Opening, block: &[u8], now: Instant) -> Handled {
        let id = opening.stream;
        if let Some(key) = self.streams.find(id) {
            return self.on_further_block(key, opening, block);
        }
        if !self.is_idle(id) {
            // Skipped by a higher one, reset, or closed.
            return if self.was_reset(id) {
                self.skip(block)?;
                self.count(Limit::Ignored)
            } else if self.role == Role::Server && id < self.peer_last && self.peer_opened < self.peer_last.div_ceil(2)
            {
                broken(Code::PROTOCOL_ERROR, "HEADERS for a stream lower than the last")
            } else {
                broken(Code::STREAM_CLOSED, "HEADERS on a closed stream")
            };
        }
        if self.role == Role::Client || id.is_multiple_of(2) {
            return broken(Code::PROTOCOL_ERROR, "HEADERS on a stream that the peer may not open");
        }
        self.peer_last = id;
        self.peer_opened += 1;
        self.counts.stream_opened();
        if opening.depends_on_itself {
            self.skip(block)?;
            return self.refuse_head(opening, HeadError::Malformed("a stream that depends on itself"));
        }
        // Streams that are over, and whose work is not, may take as much room again.
        let is_full = self.streams.active >= self.limits.streams_max
            || self.streams.len() as u64 >= u64::from(self.limits.streams_max) * 2;
        if is_full || matches!(self.going, Going::Last(_)) {
            self.skip(block)?;
            return self.refuse(id, is_full);
        }
        self.on_request(opening, block, now)
    }

    fn on_request(&mut self, opening: Opening, block: &[u8], now: Instant) -> Handled {
        let id = opening.stream;
        let read = self.assemble(Part::Request, block)?.request(self.settings.extended_connect);
        let (head, length) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse_head(opening, error),
        };
        if opening.ends && length.unwrap_or(0) > 0 {
            return self.refuse_head(opening, HeadError::Malformed("a Content-Length without DATA"));
        }
        self.head_text_bytes = head.fields.text_bytes();
        // What a tunnel carries has no length of its own.
        let length = length.filter(|_| head.method != Method::CONNECT);
        let key = self.open_stream(id, now);
        if let Some(stream) = self.streams.get(key) {
            stream.received_head = true;
            stream.length_left = length;
        }
        if opening.ends {
            self.mark_received_end(key);
        }
        self.events.push_back(Event::Request { stream: key, head });
        Ok(())
    }

    pub(super) fn open_stream(&mut self, id: u32, now: Instant) -> StreamKey {
        let key = self.streams.open(id, now);
        if let Some(stream) = self.streams.get(key) {
            stream.held = true;
            stream.receive_window = i64::from(self.settings.stream_window_bytes);
            stream.receive_target = self.settings.stream_window_bytes;
            stream.send_window = i64::from(self.peer.stream_window_bytes);
        }
        key
    }

    /// A stream that we do not look at; the client may try again (RFC 9113 section 8.7).
    fn refuse(&mut self, id: u32, is_full: bool) -> Handled {
        self.output.answer(kind::RST_STREAM, 0, id, &Code::REFUSED_STREAM.0.to_be_bytes());
        self.remember_reset(id);
        if is_full {
            self.events.push_back(Event::Refused(Refused::Full));
        }
        self.count(Limit::Ignored)
    }

    /// The client is told what is wrong with its request, and no word more on that stream.
    fn refuse_head(&mut self, opening: Opening, error: HeadError) -> Handled {
        let id = opening.stream;
        self.answer_refused(id, i64::from(self.peer.stream_window_bytes), &error);
        let code = match error {
            HeadError::Malformed(_) => Some(Code::PROTOCOL_ERROR),
            HeadError::TooLarge { .. } | HeadError::TooManyFields { .. } => (!opening.ends).then_some(Code::NO_ERROR),
        };
        if let Some(code) = code {
            self.output.answer(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
            self.remember_reset(id);
        }
        self.events.push_back(Event::Refused(Refused::Head(error)));
        self.count(Limit::Resets)
    }

    /// All of an answer at once, with its text if there is `window` for that: nobody waits for a client that is refused.
    pub(super) fn answer_refused(&mut self, id: u32, window: i64, error: &HeadError) {
        let (mut head, text) = (self.settings.refusal)(error);
        let fits = !text.is_empty() && text.len() as i64 <= window.min(self.send_window).min(FRAME_BYTES_MAX as i64);
        if !fits {
            head.fields.remove(Name::ContentLength);
        }
        self.write_response(id, &head, !fits);
        if fits {
            self.send_window -= text.len() as i64;
            self.output.answer(kind::DATA, flag::END_STREAM, id, &text);
        }
    }

    /// A block on a stream that is there: a response, or trailers.
    fn on_further_block(&mut self, key: StreamKey, opening: Opening, block: &[u8]) -> Handled {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if stream.received_end && stream.is_closed() {
            return broken(Code::STREAM_CLOSED, "HEADERS on a closed stream");
        }
        let (reset, is_over, has_head) = (stream.reset, stream.received_end, stream.received_head);
        let flaw = if let Some(Reset { by: ResetBy::Peer, .. }) = reset {
            Some((Code::STREAM_CLOSED, "HEADERS behind RST_STREAM"))
        } else if reset.is_some() {
            self.skip(block)?;
            return self.count(Limit::Ignored);
        } else if is_over {
            Some((Code::STREAM_CLOSED, "HEADERS behind the end of the stream"))
        } else if opening.depends_on_itself {
            Some((Code::PROTOCOL_ERROR, "a stream that depends on itself"))
        } else {
            None
        };
        if let Some((code, what)) = flaw {
            self.skip(block)?;
            return self.stream_error(key.id, code, what);
        }
        match has_head {
            true => self.on_trailers(key, opening, block),
            false => self.on_response(key, opening, block),
        }
    }

    fn on_trailers(&mut self, key: StreamKey, opening: Opening, block: &[u8]) -> Handled {
        let read = self.assemble(Part::Trailers, block)?.trailers();
        let role = self.role;
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        let fields = match read {
            Ok(_) if !opening.ends => Err("trailers that do not end the stream"),
            Ok(_) if stream.length_left.is_some_and(|left| left > 0) => Err("less DATA than Content-Length says"),
            Ok(fields) => Ok(fields),
            Err(HeadError::Malformed(what)) => Err(what),
            Err(HeadError::TooLarge { .. } | HeadError::TooManyFields { .. }) => {
                Err("trailers larger than a head may be")
            }
        };
        match fields {
            Ok(mut fields) => {
                // A service has its say behind an answer; a client may not say there what it could not in a head.
                if role == Role::Server {
                    fields.retain(|field| may_trail(field.name, field.letters));
                }
                if !fields.is_empty() && stream.held {
                    stream.unread.push_back(Unread::Trailers(fields));
                }
                self.mark_received_end(key);
                Ok(())
            }
            Err(what) => self.stream_error(key.id, Code::PROTOCOL_ERROR, what),
        }
    }

    fn on_response(&mut self, key: StreamKey, opening: Opening, block: &[u8]) -> Handled {
        let read = self.assemble(Part::Response, block)?.response();
        let interims_max = self.limits.interims_max;
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        let (head, length) = match read {
            Ok(read) => read,
            Err(HeadError::Malformed(what)) => return self.stream_error(key.id, Code::PROTOCOL_ERROR, what),
            Err(HeadError::TooLarge { .. } | HeadError::TooManyFields { .. }) => {
                return self.stream_error(key.id, Code::PROTOCOL_ERROR, "a head larger than it may be");
            }
        };
        let flaw = if head.status.is_informational() {
            stream.interims += 1;
            match opening.ends {
                true => Some((Code::PROTOCOL_ERROR, "an interim response that ends the stream")),
                false if stream.interims > interims_max => Some((Code::ENHANCE_YOUR_CALM, Limit::Interims.as_str())),
                false => None,
            }
        } else {
            stream.received_head = true;
            stream.bodiless |= matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            stream.length_left = length.filter(|_| !stream.bodiless);
            let missing = opening.ends && stream.length_left.is_some_and(|left| left > 0);
            missing.then_some((Code::PROTOCOL_ERROR, "a Content-Length without DATA"))
        };
        if let Some((code, what)) = flaw {
            return self.stream_error(key.id, code, what);
        }
        let text_bytes = head.fields.text_bytes();
        if stream.held {
            stream.unread.push_back(Unread::Head(Box::new(head)));
        }
        self.head_text_bytes = text_bytes;
        match opening.ends {
            true => self.mark_received_end(key),
            false => self.wake_reader(key),
        }
        Ok(())
    }

    fn assemble(&mut self, part: Part, block: &[u8]) -> Result<Assembly, ConnectionError> {
        let room = if part == Part::Trailers { block.len() } else { self.head_text_bytes.min(TEXT_EXPECTED_BYTES_MAX) };
        let mut assembly = Assembly::new(part, &self.limits, room + TEXT_SPARE_BYTES);
        self.decoder.decode(block, |line| assembly.line(line))?;
        Ok(assembly)
    }

    /// Decodes what nobody wants.
    fn skip(&mut self, block: &[u8]) -> Handled {
        self.decoder.decode(block, |_| {})?;
        Ok(())
    }
}
