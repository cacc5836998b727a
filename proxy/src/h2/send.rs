//! Our frames: heads at once, and the data of many streams in turns (RFC 9113 sections 5.2, 6.1, 8.1).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Instant;

use bytes::{Buf, Bytes};
use http::Method;

use super::connection::{Connection, Role};
use super::error::{Reset, ResetBy, SendError};
use super::frame::{Code, FRAME_BYTES_MAX, FrameHeader, HEADER_BYTES, flag, kind};
use super::hpack::encoder::Encoder;
use super::hpack::table::ENTRY_OVERHEAD_BYTES;
use super::streams::StreamKey;
use crate::message::fields::Fields;
use crate::message::name::Name;
use crate::message::{RequestHead, ResponseHead};

/// More than this is not made ready to be written; what comes later then has its turn sooner.
const OUTPUT_BYTES_AIM: usize = 128 << 10;

/// A stream takes no further data while so much of it waits.
const UNSENT_BYTES_MAX: usize = 32 << 10;

impl Connection {
    /// Opens a stream with the head of a request. Its stream is held: [`Connection::release`] ends that.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn send_request(&mut self, head: &RequestHead, end: bool, now: Instant) -> Result<StreamKey, SendError> {
        if !self.can_open() {
            return Err(SendError::NoRoom);
        }
        let target = [head.path(), head.authority().unwrap_or_default(), head.scheme().unwrap_or_default()];
        self.check_head(target.iter().map(|text| text.len() + ENTRY_OVERHEAD_BYTES).sum(), &head.fields)?;
        let id = self.next_id;
        self.next_id += 2;
        let key = self.open_stream(id, now);
        if let Some(stream) = self.streams.get(key) {
            stream.bodiless = head.method == Method::HEAD;
            stream.sent_head = true;
        }
        self.counts.stream_opened();
        self.write_head(id, end, |encoder, out| {
            encoder.method(&head.method, out);
            if head.method != Method::CONNECT || head.protocol().is_some() {
                encoder.scheme(head.scheme().unwrap_or(b"http"), out);
                encoder.path(head.path(), out);
            }
            if let Some(authority) = head.authority().or_else(|| head.fields.get(Name::Host)) {
                encoder.authority(authority, out);
            }
            if let Some(protocol) = head.protocol() {
                encoder.protocol(protocol, out);
            }
            write_fields(&head.fields, encoder, out);
        });
        if end {
            self.mark_sent_end(key);
        }
        Ok(key)
    }

    /// Sends a response head; an interim one (1xx) may be followed by another.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn send_response(&mut self, key: StreamKey, head: &ResponseHead, end: bool) -> Result<(), SendError> {
        self.check_head(ENTRY_OVERHEAD_BYTES, &head.fields)?;
        let is_interim = head.status.is_informational();
        let Some(stream) = self.streams.get(key) else { return Err(SendError::Over) };
        if stream.is_done_sending() || stream.sent_head {
            return Err(SendError::Over);
        }
        stream.sent_head = !is_interim;
        let end = end && !is_interim;
        self.write_response(key.id, head, end);
        if end {
            self.mark_sent_end(key);
        }
        Ok(())
    }

    pub(super) fn write_response(&mut self, id: u32, head: &ResponseHead, end: bool) {
        self.write_head(id, end, |encoder, out| {
            encoder.status(head.status, out);
            write_fields(&head.fields, encoder, out);
        });
    }

    /// What was handed over on a stream and waits for its peer.
    pub fn unsent_bytes(&mut self, key: StreamKey) -> usize {
        self.streams.get(key).map_or(0, |stream| stream.unsent_bytes)
    }

    /// Whether a stream takes data; if not, [`super::Event::Writable`] tells when it does.
    pub fn has_room(&mut self, key: StreamKey) -> bool {
        match self.streams.get(key) {
            Some(stream) if !stream.is_done_sending() && stream.unsent_bytes >= UNSENT_BYTES_MAX => {
                stream.writer_waits = true;
                false
            }
            _ => true,
        }
    }

    /// Sends data, all of it in its turn. Ask [`Self::has_room`] before.
    ///
    /// # Errors
    /// [`SendError::Over`].
    pub fn send_data(&mut self, key: StreamKey, data: Bytes, end: bool) -> Result<(), SendError> {
        let has_room = self.output.len() < OUTPUT_BYTES_AIM;
        let window = self.send_window;
        let Some(stream) = self.streams.get(key) else { return Err(SendError::Over) };
        if stream.is_done_sending() || !stream.sent_head {
            return Err(SendError::Over);
        }
        if data.is_empty() && !end {
            return Ok(());
        }
        let length = data.len() as i64;
        let fits = has_room && length <= window.min(stream.send_window).min(FRAME_BYTES_MAX as i64);
        if stream.unsent_bytes == 0 && (fits || length == 0) {
            stream.send_window -= length;
            self.send_window -= length;
            let flags = if end { flag::END_STREAM } else { 0 };
            let header = FrameHeader { length: data.len(), kind: kind::DATA, flags, stream: key.id };
            self.output.buffer().extend_from_slice(&header.bytes());
            self.output.payload(data);
            self.counts.useful();
            if end {
                self.sent_all(key);
            }
            return Ok(());
        }
        stream.unsent_bytes += data.len();
        stream.unsent_end = end;
        if !data.is_empty() {
            stream.unsent.push_back(data);
        }
        self.streams.enter_ring(key);
        Ok(())
    }

    /// Sends trailers behind all data, and ends the stream.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_trailers(&mut self, key: StreamKey, fields: Fields) -> Result<(), SendError> {
        self.check_head(0, &fields)?;
        let Some(stream) = self.streams.get(key) else { return Err(SendError::Over) };
        if stream.is_done_sending() || !stream.sent_head {
            return Err(SendError::Over);
        }
        if stream.unsent_bytes == 0 {
            self.write_trailers(key, &fields);
        } else {
            stream.unsent_trailers = Some(fields);
            stream.unsent_end = true;
        }
        Ok(())
    }

    fn write_trailers(&mut self, key: StreamKey, fields: &Fields) {
        self.write_head(key.id, true, |encoder, out| write_fields(fields, encoder, out));
        self.sent_all(key);
    }

    /// Ends a stream before its messages are whole.
    pub fn reset(&mut self, key: StreamKey, code: Code) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.is_closed() {
            return;
        }
        self.output.frame(kind::RST_STREAM, 0, key.id, &code.0.to_be_bytes());
        self.mark_reset(key, Reset { code, by: ResetBy::Us, seen: true });
    }

    /// Nobody will read or write that stream any more. What was sent of it goes out; what is missing then ends it before its time.
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if !std::mem::replace(&mut stream.held, false) {
            return;
        }
        let unread = std::mem::take(&mut stream.unread_bytes);
        stream.unread.clear();
        stream.owed += unread;
        stream.reader_waits = false;
        stream.writer_waits = false;
        let (is_closed, has_sent, received_end) = (stream.is_closed(), stream.is_done_sending(), stream.received_end);
        let flushed = stream.sent_end;
        self.unread_bytes -= u64::from(unread);
        self.give_back(unread);
        match (self.role, is_closed) {
            (_, true) => {}
            (Role::Server, false) if !has_sent => self.reset(key, Code::INTERNAL_ERROR),
            // The request is of no interest any more (RFC 9113 section 8.1).
            (Role::Server, false) if flushed && !received_end => self.reset(key, Code::NO_ERROR),
            (Role::Server, false) => {}
            (Role::Client, false) => self.reset(key, Code::CANCEL),
        }
        self.remove_if_free(key);
    }

    /// Lets streams that have something to send take turns, until there is enough to write.
    pub(super) fn fill(&mut self) {
        while self.output.len() < OUTPUT_BYTES_AIM
            && self.send_window > 0
            && let Some(slot) = self.streams.ring.pop_front()
        {
            let key = self.streams.key_of(slot);
            if let Some(stream) = self.streams.get(key) {
                stream.in_ring = false;
            }
            self.write_data(key);
            self.streams.enter_ring(key);
        }
    }

    /// One frame of a stream's data, and what ends it.
    fn write_data(&mut self, key: StreamKey) {
        let window = self.send_window;
        let Some(stream) = self.streams.get(key).filter(|stream| stream.can_send()) else { return };
        let allowed = window.min(stream.send_window).clamp(0, FRAME_BYTES_MAX as i64) as usize;
        let length = stream.unsent_bytes.min(allowed);
        let is_last = length == stream.unsent_bytes && stream.unsent_end;
        let trailers = if is_last { stream.unsent_trailers.take() } else { None };
        let flags = if is_last && trailers.is_none() { flag::END_STREAM } else { 0 };
        let header = FrameHeader { length, kind: kind::DATA, flags, stream: key.id };
        self.output.buffer().extend_from_slice(&header.bytes());
        let mut left = length;
        while left > 0
            && let Some(first) = stream.unsent.front_mut()
        {
            let taken = left.min(first.len());
            left -= taken;
            if taken == first.len() {
                self.output.payload(std::mem::take(first));
                stream.unsent.pop_front();
            } else {
                self.output.payload(first.slice(..taken));
                first.advance(taken);
            }
        }
        stream.unsent_bytes -= length;
        stream.send_window -= length as i64;
        self.send_window -= length as i64;
        let has_room = stream.unsent_bytes < UNSENT_BYTES_MAX;
        self.counts.useful();
        if has_room {
            self.wake_writer(key);
        }
        match trailers {
            Some(trailers) => self.write_trailers(key, &trailers),
            None if is_last => self.sent_all(key),
            None => {}
        }
    }

    /// The last frame of our message is on its way.
    fn sent_all(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let unwanted = !stream.held && !stream.received_end;
        self.mark_sent_end(key);
        if unwanted {
            self.reset(key, Code::NO_ERROR);
        }
    }

    /// Whether the peer takes a head of that size (RFC 9113 section 6.5.2).
    fn check_head(&self, pseudo_bytes: usize, fields: &Fields) -> Result<(), SendError> {
        let bytes_max = self.peer.head_bytes_max as usize;
        if self.peer.head_bytes_max == u32::MAX {
            return Ok(());
        }
        let bytes = |fields: &Fields| -> usize {
            fields.iter().map(|field| field.letters.len() + field.value.len() + ENTRY_OVERHEAD_BYTES).sum()
        };
        // Mostly, that is known without looking at every field.
        let at_most = pseudo_bytes + fields.text_bytes() + fields.len() * ENTRY_OVERHEAD_BYTES;
        if at_most <= bytes_max {
            return Ok(());
        }
        match pseudo_bytes + bytes(fields) {
            bytes if bytes > bytes_max => Err(SendError::HeadTooLarge { bytes, bytes_max }),
            _ => Ok(()),
        }
    }

    /// HEADERS, and CONTINUATION for as long as they do not fit.
    fn write_head(&mut self, id: u32, end: bool, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let out = self.output.buffer();
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        self.encoder.begin(out);
        write(&mut self.encoder, out);
        let length = out.len() - start - HEADER_BYTES;
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let mut header = FrameHeader { length, kind: kind::HEADERS, flags: end_stream | flag::END_HEADERS, stream: id };
        if length <= FRAME_BYTES_MAX {
            out[start..start + HEADER_BYTES].copy_from_slice(&header.bytes());
            return;
        }
        let block = out.split_off(start + HEADER_BYTES);
        out.truncate(start);
        let mut fragments = block.chunks(FRAME_BYTES_MAX).peekable();
        header.flags = end_stream;
        while let Some(fragment) = fragments.next() {
            header.length = fragment.len();
            if fragments.peek().is_none() {
                header.flags |= flag::END_HEADERS;
            }
            out.extend_from_slice(&header.bytes());
            out.extend_from_slice(fragment);
            (header.kind, header.flags) = (kind::CONTINUATION, 0);
        }
    }
}

/// Fields, without those that belong to a connection of another version (RFC 9113 section 8.2.2).
fn write_fields(fields: &Fields, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for field in fields.iter() {
        match field.name {
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::Http2Settings
            // It is in `:authority`.
            | Name::Host => {}
            Name::Te if !field.value.eq_ignore_ascii_case(b"trailers") => {}
            name => encoder.field(name, field.letters, field.value, field.secret, out),
        }
    }
}
