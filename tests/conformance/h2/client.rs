//! An h2 client that sends exactly the frames it is given, and reads what comes back strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frame::{self, PREFACE, code, flag, setting};
use super::heard::{Heard, Said, Speaker};
use super::hpack;
use super::transport::Transport;
use crate::client::Delivery;
use crate::world::DEADLINE;

#[derive(Debug)]
pub struct Client {
    transport: Transport,
    pub heard: Heard,
    /// It acknowledges, and gives back windows.
    pub polite: bool,
    delivery: Delivery,
    next: u32,
    /// DATA, as far as it counts against the connection's window.
    sent_bytes: u64,
}

/// The head of an ordinary request.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]
}

pub fn post(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

impl Client {
    /// Connected, and nothing said.
    pub fn mute(address: SocketAddr) -> Self {
        Self::over_transport(Transport::Plain(socket(address)))
    }

    fn over_transport(transport: Transport) -> Self {
        let heard = Heard::new(Speaker::Server, &[]);
        Self { transport, heard, polite: true, delivery: Delivery::Whole, next: 1, sent_bytes: 0 }
    }

    /// Both sides have greeted each other.
    pub fn connect(address: SocketAddr) -> Self {
        Self::with_settings(address, &[])
    }

    /// The same over TLS.
    pub fn connect_tls(address: SocketAddr) -> Self {
        Self::over_transport(Transport::tls(socket(address))).greeted(&[])
    }

    pub fn with_settings(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::mute(address).greeted(settings)
    }

    fn greeted(self, settings: &[(u16, u32)]) -> Self {
        let mut client = Self { heard: Heard::new(Speaker::Server, settings), ..self };
        client.send([PREFACE, &frame::settings(settings)].concat());
        client
            .wait("the proxy's greeting", |heard| (heard.settings_frames > 0 && heard.settings_acks > 0).then_some(()));
        client
    }

    pub fn torn(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have refused already, and closed: what it said is read afterwards.
        let _ = self.delivery.write(&mut self.transport, bytes.as_ref());
    }

    /// A stream of its own for the next request.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Sends a request without a body on a stream of its own.
    pub fn ask(&mut self, head: &[(&str, &str)]) -> u32 {
        let stream = self.stream();
        self.send(frame::long_headers(stream, flag::END_STREAM, &hpack::block(head)));
        stream
    }

    /// The same, of which more is to come.
    pub fn begin(&mut self, head: &[(&str, &str)]) -> u32 {
        let stream = self.stream();
        self.send(frame::long_headers(stream, 0, &hpack::block(head)));
        stream
    }

    /// Sends a body as far as windows allow, and the end.
    pub fn send_body(&mut self, stream: u32, body: &[u8]) {
        let mut sent = 0u64;
        let before = self.sent_bytes;
        for piece in body.chunks(frame::FRAME_BYTES_MAX) {
            let wanted = sent + piece.len() as u64;
            let told = move |heard: &Heard, stream| heard.windows.get(&stream).copied().unwrap_or(0);
            self.wait("a window", move |heard| {
                let initial =
                    heard.settings.get(&setting::INITIAL_WINDOW_SIZE).map_or(65_535, |value| u64::from(*value));
                let fits = told(heard, stream) + initial >= wanted && told(heard, 0) + 65_535 >= before + wanted;
                fits.then_some(())
            });
            self.send(frame::data(stream, 0, piece));
            sent = wanted;
        }
        self.sent_bytes += sent;
        self.send(frame::data(stream, flag::END_STREAM, b""));
    }

    /// Whether anything comes, be it the end, within that time.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        let socket = self.transport.socket();
        socket.set_read_timeout(Some(time)).unwrap();
        let is_there = socket.peek(&mut [0]).is_ok();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        is_there
    }

    /// Reads what is there.
    pub fn read_some(&mut self) {
        if self.hears_within(Duration::from_millis(1)) {
            self.read_more("what is there");
        }
    }

    pub fn finish(&self) {
        // It may have ended already.
        let _ = self.transport.socket().shutdown(Shutdown::Write);
    }

    /// Breaks the connection off.
    pub fn break_off(self) {
        socket2::SockRef::from(self.transport.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads more; false once the connection has ended.
    pub fn read_more(&mut self, what: &str) -> bool {
        if self.heard.ended {
            return false;
        }
        let mut more = vec![0; 64 * 1024];
        match self.transport.read(&mut more) {
            Ok(0) => self.heard.ended = true,
            Ok(length) => {
                let manners = self.heard.feed(&more[..length]);
                if self.polite {
                    // As in `send`.
                    let _ = self.transport.write_all(&manners);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the proxy is silent for {DEADLINE:?} instead of {what}: {:?}", self.heard.frames)
            }
            Err(_) => self.heard.ended = true,
        }
        assert_eq!(self.heard.broken, None, "the proxy broke a rule: {:?}", self.heard.frames);
        !self.heard.ended
    }

    /// Reads until `look` finds something; none if the connection ends before.
    pub fn wait_or_end<T>(&mut self, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(&self.heard) {
                return Some(found);
            }
            assert!(Instant::now() < deadline, "no {what}: {:?}", self.heard.frames);
            if !self.read_more(what) {
                return look(&self.heard);
            }
        }
    }

    pub fn wait<T>(&mut self, what: &str, look: impl FnMut(&Heard) -> Option<T>) -> T {
        let found = self.wait_or_end(what, look);
        found.unwrap_or_else(|| panic!("the connection ended instead of {what}: {:?}", self.heard.frames))
    }

    /// Streams from here on.
    pub fn begin_at(&mut self, stream: u32) {
        self.next = stream;
    }

    /// Everything that the proxy said before it read this far.
    pub fn settle(&mut self) {
        assert!(self.settle_or_end(), "the connection ended: {:?}", self.heard.frames);
    }

    /// The same; false if the connection ended before.
    pub fn settle_or_end(&mut self) -> bool {
        let seen = self.heard.pongs.len();
        self.send(frame::ping(b"settled?"));
        self.wait_or_end("an answer to PING", |heard| (heard.pongs.len() > seen).then_some(())).is_some()
    }

    /// What came on a stream, once it is over.
    pub fn over(&mut self, stream: u32) -> Said {
        self.wait(&format!("the end of stream {stream}"), |heard| {
            heard.on(stream).filter(|said| said.is_over()).cloned()
        })
    }

    /// The whole answer on a stream.
    pub fn answer(&mut self, stream: u32) -> Said {
        let said = self.over(stream);
        assert!(said.is_entire(), "a whole answer was to come, not {said:?}");
        said
    }

    /// Asks for `path`, and must get the usual answer.
    pub fn serves(&mut self, path: &str) {
        let stream = self.ask(&get(path));
        let said = self.answer(stream);
        assert_eq!((said.status(), said.text()), ("200", format!("GET {path}")), "{said:?}");
    }

    /// Waits for the end of the connection.
    pub fn end(&mut self) {
        while self.read_more("the end of the connection") {}
    }

    /// The stream was refused, with one of these codes.
    pub fn stream_error(&mut self, stream: u32, codes: &[u32]) {
        let found = self.wait_or_end("a stream error", |heard| {
            let reset = heard.on(stream).and_then(|said| said.reset).filter(|reset| *reset != code::NO_ERROR);
            reset.or(heard.goaways.last().map(|(_, code)| *code))
        });
        assert!(found.is_none_or(|code| codes.contains(&code)), "{found:?}, not {codes:?}: {:?}", self.heard.frames);
    }

    /// The connection was refused, with one of these codes, and closed.
    pub fn connection_error(&mut self, codes: &[u32]) {
        self.end();
        let found = self.heard.goaways.last().map(|(_, code)| *code);
        assert!(found.is_none_or(|code| codes.contains(&code)), "{found:?}, not {codes:?}: {:?}", self.heard.frames);
        assert!(found.is_some(), "the connection was closed without a word: {:?}", self.heard.frames);
    }
}
