//! A client that sends exactly the bytes it is given, and reads what comes back strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{self, Progress, Response, shown};
use crate::world::DEADLINE;

/// How a message is cut into writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    #[default]
    Whole,
    /// Byte by byte, as far as that is sensible.
    Torn,
}

/// So many bytes go one by one, the others in so many pieces.
const TORN_BYTES: usize = 300;
const TORN_PIECES: usize = 64;

impl Delivery {
    pub fn write(self, mut stream: impl Write, bytes: &[u8]) -> std::io::Result<()> {
        let (torn, rest) = match self {
            Self::Whole => (&[][..], bytes),
            Self::Torn => bytes.split_at(bytes.len().min(TORN_BYTES)),
        };
        for byte in torn {
            stream.write_all(&[*byte])?;
            std::thread::yield_now();
        }
        rest.chunks((rest.len() / TORN_PIECES).max(1 << 14)).try_for_each(|piece| stream.write_all(piece))
    }
}

/// A connection to the proxy.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Read, and not yet taken by a response.
    pub buffer: Vec<u8>,
    ended: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Orderly,
    Reset,
}

/// What came in answer to one request.
#[derive(Debug)]
pub struct Heard {
    pub interim: Vec<Response>,
    /// None: the connection ended before a response head was whole.
    pub response: Option<Response>,
    /// All of it, as far as its receiver can tell.
    pub whole: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, buffer: Vec::new(), ended: None }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have refused already, and closed: what it said is read afterwards.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub fn deliver(&mut self, bytes: &[u8], delivery: Delivery) {
        // As above.
        let _ = delivery.write(&mut self.stream, bytes);
    }

    /// Nothing more is to come from this side.
    pub fn finish(&self) {
        // Likewise.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection so that what is under way breaks.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads more; false once the connection has ended.
    fn read_more(&mut self) -> bool {
        let mut more = vec![0; 64 * 1024];
        if self.ended.is_some() {
            return false;
        }
        match self.stream.read(&mut more) {
            Ok(0) => self.ended = Some(End::Orderly),
            Ok(length) => self.buffer.extend_from_slice(&more[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the proxy is silent for {DEADLINE:?} after {}", shown(&self.buffer))
            }
            Err(_) => self.ended = Some(End::Reset),
        }
        self.ended.is_none()
    }

    /// Whether anything comes, be it the end, within that time.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() || self.ended.is_some() {
            return true;
        }
        // A socket cannot be told to wait for no time at all.
        self.stream.set_read_timeout(Some(time.max(Duration::from_micros(1)))).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        !peeked.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Reads up to so many bytes and forgets them; how many came.
    pub fn skip(&mut self, bytes: usize) -> usize {
        let mut skipped = 0;
        loop {
            let length = self.buffer.len().min(bytes - skipped);
            self.buffer.drain(..length);
            skipped += length;
            if skipped == bytes || !self.read_more() {
                return skipped;
            }
        }
    }

    /// The next response head, be it an interim one.
    pub fn head(&mut self) -> Response {
        loop {
            match wire::response(&self.buffer, "HEAD") {
                Ok((Some(response), Progress::Whole(length))) => {
                    self.buffer.drain(..length);
                    return response;
                }
                Ok(_) => assert!(self.read_more(), "no response head: {:?} after {}", self.ended, shown(&self.buffer)),
                Err(why) => panic!("no strict response: {why}: {}", shown(&self.buffer)),
            }
        }
    }

    /// Waits for `bytes`, as they are.
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.buffer.len() < bytes.len() && self.read_more() {}
        assert!(self.buffer.starts_with(bytes), "{} was to come, not {}", shown(bytes), shown(&self.buffer));
        self.buffer.drain(..bytes.len());
    }

    /// The response to a request of that method, with the interim ones before it.
    pub fn response(&mut self, method: &str) -> Heard {
        let mut interim = Vec::new();
        loop {
            let (response, progress) = wire::response(&self.buffer, method)
                .unwrap_or_else(|why| panic!("no strict response: {why}: {}", shown(&self.buffer)));
            match (response, progress) {
                (Some(response), Progress::Whole(length)) => {
                    self.buffer.drain(..length);
                    if response.status >= 200 || response.status == 101 {
                        return Heard { interim, response: Some(response), whole: true };
                    }
                    interim.push(response);
                }
                (response, progress) => {
                    if !self.read_more() {
                        let orderly = self.ended == Some(End::Orderly);
                        self.buffer.clear();
                        return Heard { interim, response, whole: orderly && progress == Progress::UntilClose };
                    }
                }
            }
        }
    }

    /// Whether another request may be sent behind that response, as its receiver sees it.
    pub fn may_go_on(&self, response: &Response, version: &str) -> bool {
        let kept = response.fields.lists("connection", "keep-alive");
        self.ended.is_none() && !response.closes() && (version == "HTTP/1.1" && response.version == "HTTP/1.1" || kept)
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub fn end(&mut self) -> End {
        while self.read_more() {}
        assert!(self.buffer.is_empty(), "the connection was to end, but there came {}", shown(&self.buffer));
        self.ended.unwrap_or(End::Orderly)
    }
}

impl Heard {
    /// The response, which must be there and whole.
    pub fn entire(self) -> Response {
        match self.response {
            Some(response) if self.whole => response,
            other => panic!("a whole response was to come, not {other:?}"),
        }
    }
}

impl Response {
    pub fn closes(&self) -> bool {
        self.fields.lists("connection", "close")
    }

    pub fn text(&self) -> String {
        wire::text(&self.body)
    }
}
