//! h2 without bodies in requests: a response for each stream that its client has ended. Responses of all requests that came with one
//! read leave with one write.

use std::collections::VecDeque;
use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{CONTENT_TYPE, DATE, SERVER, SMALL, write};
use crate::frame::{self, Frame};

/// What may be sent before the client says otherwise.
const WINDOW_DEFAULT: i64 = 65_535;
/// HPACK's default; the response's fields are remembered in it.
const TABLE_DEFAULT: u32 = 4096;

struct Connection {
    out: Vec<u8>,
    /// Of the whole connection; a stream's own is never less than a response.
    window: i64,
    waiting: VecDeque<u32>,
    first_block: Option<Vec<u8>>,
    later_block: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    fn new() -> Self {
        let mut first = vec![0x88]; // :status: 200
        let length = SMALL.to_string();
        for (name, value) in [(31, CONTENT_TYPE), (33, DATE), (54, SERVER), (28, length.as_str())] {
            frame::put_remembered(&mut first, name, value);
        }
        let mut later = vec![0x88];
        (1..=4).rev().for_each(|number| frame::put_again(&mut later, number));
        let mut out = Vec::with_capacity(64 << 10);
        frame::put_settings(&mut out, &[]);
        let (first_block, body) = (Some(first), vec![b'x'; SMALL]);
        Self { out, window: WINDOW_DEFAULT, waiting: VecDeque::new(), first_block, later_block: later, body }
    }

    fn take(&mut self, frame: Frame<'_>) -> io::Result<()> {
        match frame.kind {
            frame::HEADERS | frame::DATA if frame.has(frame::END_STREAM) => self.waiting.push_back(frame.stream),
            frame::DATA if !frame.payload.is_empty() => return Err(io::Error::other("a request with a body")),
            frame::SETTINGS if !frame.has(frame::ACK) => {
                for (id, value) in frame.settings() {
                    let too_small = (id == frame::HEADER_TABLE_SIZE && value < TABLE_DEFAULT)
                        || (id == frame::INITIAL_WINDOW_SIZE && (value as usize) < SMALL);
                    if too_small {
                        return Err(io::Error::other("a client that takes less than a response"));
                    }
                }
                frame::put(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
            }
            frame::PING if !frame.has(frame::ACK) => {
                frame::put(&mut self.out, frame::PING, frame::ACK, 0, frame.payload);
            }
            frame::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.increment()),
            frame::GOAWAY => return Err(io::Error::other("the client goes away")),
            _ => {}
        }
        Ok(())
    }

    /// Answers as many of those that wait as the window allows.
    fn answer(&mut self) {
        while self.window >= SMALL as i64 {
            let Some(stream) = self.waiting.pop_front() else { return };
            let first = self.first_block.take();
            let block = first.as_deref().unwrap_or(&self.later_block);
            frame::put(&mut self.out, frame::HEADERS, frame::END_HEADERS, stream, block);
            frame::put(&mut self.out, frame::DATA, frame::END_STREAM, stream, &self.body);
            self.window -= SMALL as i64;
        }
    }
}

pub(super) async fn serve(mut stream: TcpStream, mut input: Vec<u8>) -> io::Result<()> {
    while input.len() < frame::PREFACE.len() {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
    input.drain(..frame::PREFACE.len());
    let mut connection = Connection::new();
    loop {
        let mut taken = 0;
        while let Some(frame) = Frame::first_of(&input[taken..]) {
            taken += frame::HEAD + frame.payload.len();
            connection.take(frame)?;
        }
        input.drain(..taken);
        connection.answer();
        if !connection.out.is_empty() {
            write(&mut stream, &connection.out).await?;
            connection.out.clear();
        }
        input.reserve(16 << 10);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}
