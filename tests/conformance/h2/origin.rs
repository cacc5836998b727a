//! An h2 origin behind the proxy: it reads strictly what it is sent, and answers as the test says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{self, code, flag, setting};
use super::heard::{Heard, Said, Speaker};
use super::hpack;
use crate::watched::{Watched, is_drained, listen};
use crate::world::DEADLINE;

/// What begins so is answered by the test.
pub const HELD: &str = "/held";

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Manners {
    pub settings: Vec<(u16, u32)>,
    /// It acknowledges, and gives back windows.
    pub polite: bool,
    /// It answers what is not [`HELD`].
    pub answers: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { settings: Vec::new(), polite: true, answers: true }
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: Option<Arc<TcpStream>>,
    pub heard: Heard,
    /// The highest stream that was answered.
    answered: Vec<u32>,
    left: bool,
}

#[derive(Debug, Default)]
pub struct Log {
    pub connections: Vec<Connection>,
    over: bool,
}

type Shared = Watched<Log>;

/// It ends when dropped.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// Where a request arrived: connection and stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub connection: usize,
    pub stream: u32,
}

impl Origin {
    pub fn start(manners: Manners) -> Self {
        let (listener, address) = listen();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let _ = stream.set_nodelay(true);
                let stream = Arc::new(stream);
                let heard = Heard::new(Speaker::Client, &manners.settings);
                let number = {
                    let mut log = accepting.log();
                    if log.over {
                        return;
                    }
                    let stream = Some(Arc::clone(&stream));
                    log.connections.push(Connection { stream, heard, answered: Vec::new(), left: false });
                    log.connections.len() - 1
                };
                let (shared, manners) = (Arc::clone(&accepting), manners.clone());
                std::thread::spawn(move || {
                    // The proxy may have ended it already.
                    let _ = (&*stream).write_all(&frame::settings(&manners.settings));
                    shared.serve(number, &stream, &manners);
                    drop(stream);
                    shared.log().connections[number].left = true;
                    shared.tell();
                });
            }
        });
        Self { address, shared }
    }

    /// Waits until `look` finds something.
    pub fn wait<T>(&self, what: &str, look: impl FnMut(&Log) -> Option<T>) -> T {
        self.shared.wait(what, look, |log| {
            let frames = log.connections.iter().map(|one| (&one.heard.frames, &one.heard.broken));
            format!("{:?}", frames.collect::<Vec<_>>())
        })
    }

    /// Where the head of a request for `path` has come.
    pub fn wait_head(&self, path: &str) -> Place {
        self.wait(&format!("the head of {path}"), |log| log.find(path, |_| true))
    }

    /// The whole request for `path`.
    pub fn wait_request(&self, path: &str) -> (Place, Said) {
        let place = self.wait(&format!("all of {path}"), |log| log.find(path, |said| said.whole));
        (place, self.said(place))
    }

    pub fn said(&self, place: Place) -> Said {
        self.shared.log().connections[place.connection].heard.streams[&place.stream].clone()
    }

    /// The code with which the proxy reset a stream.
    pub fn wait_reset(&self, place: Place) -> u32 {
        self.wait("a reset", |log| log.connections[place.connection].heard.on(place.stream)?.reset)
    }

    pub fn wait_end(&self, connection: usize) {
        self.wait("the end of a connection", |log| log.connections[connection].heard.ended.then_some(()));
    }

    pub fn send(&self, connection: usize, bytes: impl AsRef<[u8]>) {
        let stream = self.shared.log().connections[connection].stream.clone();
        // The proxy may have ended it: what it then does is what is tested.
        let _ = stream.map(|stream| (&*stream).write_all(bytes.as_ref()));
    }

    /// A head, of which more is to come.
    pub fn head(&self, to: Place, head: &[(&str, &str)]) {
        self.send(to.connection, frame::long_headers(to.stream, 0, &hpack::block(head)));
    }

    /// A head, and the end.
    pub fn only_head(&self, to: Place, head: &[(&str, &str)]) {
        self.send(to.connection, frame::long_headers(to.stream, flag::END_STREAM, &hpack::block(head)));
    }

    pub fn data(&self, to: Place, bytes: &[u8]) {
        let frames: Vec<u8> =
            bytes.chunks(frame::FRAME_BYTES_MAX).flat_map(|piece| frame::data(to.stream, 0, piece)).collect();
        self.send(to.connection, frames);
    }

    pub fn data_and_end(&self, to: Place, bytes: &[u8]) {
        self.send(to.connection, frame::data(to.stream, flag::END_STREAM, bytes));
    }

    /// Whether the proxy's windows have room for so many bytes of a body in all, if that is the only one.
    pub fn window(&self, to: Place, bytes: usize) -> bool {
        let log = self.shared.log();
        let heard = &log.connections[to.connection].heard;
        let told = |stream| heard.windows.get(&stream).copied().unwrap_or(0) as usize;
        let initial = heard.settings.get(&setting::INITIAL_WINDOW_SIZE).map_or(65_535, |value| *value as usize);
        told(to.stream) + initial >= bytes && told(0) + 65_535 >= bytes
    }

    /// Sends a body as far as windows allow; `meanwhile` is what happens while there is no room.
    pub fn send_body(&self, to: Place, body: &[u8], mut meanwhile: impl FnMut()) {
        let deadline = Instant::now() + DEADLINE;
        let mut sent = 0;
        for piece in body.chunks(frame::FRAME_BYTES_MAX) {
            sent += piece.len();
            while !self.window(to, sent) {
                assert!(Instant::now() < deadline, "no window for {sent} bytes");
                meanwhile();
            }
            self.send(to.connection, frame::data(to.stream, 0, piece));
        }
    }

    /// Everything that the proxy said before it read this far.
    pub fn settle(&self, connection: usize) {
        let seen = self.shared.log().connections[connection].heard.pongs.len();
        self.send(connection, frame::ping(b"settled?"));
        self.wait("an answer to PING", |log| (log.connections[connection].heard.pongs.len() > seen).then_some(()));
    }

    pub fn reset(&self, to: Place, code: u32) {
        self.send(to.connection, frame::reset(to.stream, code));
    }

    /// Ends its side of a connection.
    pub fn finish(&self, connection: usize) {
        let stream = self.shared.log().connections[connection].stream.clone();
        let _ = stream.map(|stream| stream.shutdown(Shutdown::Write));
    }

    /// Breaks a connection off.
    pub fn break_off(&self, connection: usize) {
        let stream = self.shared.log().connections[connection].stream.take();
        if let Some(stream) = stream {
            // The last holder's drop sends RST; the end of reading, of which the peer learns nothing, wakes that holder.
            let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
        self.wait("a broken connection", |log| log.connections[connection].left.then_some(()));
    }

    /// What came, once every byte that the proxy has sent so far is read.
    pub fn settled<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        let look = std::cell::Cell::new(Some(look));
        self.wait("reading what was sent", |log| {
            log.connections.iter().all(Connection::is_drained).then(|| look.take().expect("it is taken once")(log))
        })
    }

    /// It got nothing that has no one meaning.
    pub fn sound(&self) {
        self.settled(|log| {
            for connection in &log.connections {
                let heard = &connection.heard;
                assert_eq!(heard.broken, None, "the origin got what has no one meaning: {:?}", heard.frames);
            }
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut log = self.shared.log();
        log.over = true;
        for connection in &log.connections {
            // It may have ended already.
            let _ = connection.stream.as_ref().map(|stream| stream.shutdown(Shutdown::Both));
        }
        drop(log);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Log {
    /// The request for `path` that fits.
    pub fn find(&self, path: &str, fits: impl Fn(&Said) -> bool) -> Option<Place> {
        self.connections.iter().enumerate().find_map(|(connection, one)| {
            let mut streams = one.heard.streams.iter();
            let found = streams.find(|(_, said)| said.first(":path") == path && fits(said));
            found.map(|(stream, _)| Place { connection, stream: *stream })
        })
    }

    /// Every request that has come, in order.
    pub fn requests(&self) -> impl Iterator<Item = &Said> {
        self.connections.iter().flat_map(|one| one.heard.streams.values())
    }
}

impl Connection {
    fn is_drained(&self) -> bool {
        self.stream.as_ref().filter(|_| !self.heard.ended).is_none_or(|stream| is_drained(stream))
    }

    /// Answers to requests that became whole.
    fn answers(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for (stream, said) in &self.heard.streams {
            if said.is_entire() && !self.answered.contains(stream) && !said.first(":path").starts_with(HELD) {
                self.answered.push(*stream);
                out.extend(usual_answer(*stream, said.first(":method"), said.first(":path")));
            }
        }
        out
    }
}

impl Shared {
    fn serve(&self, number: usize, mut stream: &TcpStream, manners: &Manners) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // Waits without the lock; what is there is then read and entered in one step.
            let waited = stream.peek(&mut [0]);
            let mut log = self.log();
            let length = waited.and_then(|_| stream.read(&mut buffer)).unwrap_or(0);
            let connection = &mut log.connections[number];
            connection.heard.ended = length == 0;
            let mut out = connection.heard.feed(&buffer[..length]);
            if !manners.polite {
                out.clear();
            }
            if manners.answers {
                out.extend(connection.answers());
            }
            if connection.heard.broken.is_some() {
                out.extend(frame::goaway(0, code::PROTOCOL_ERROR));
            }
            drop(log);
            self.tell();
            // The proxy may have ended it.
            let _ = stream.write_all(&out);
            if length == 0 {
                return;
            }
        }
    }
}

/// It says what was asked.
pub fn usual_answer(stream: u32, method: &str, path: &str) -> Vec<u8> {
    let said = format!("{method} {path}");
    let head = hpack::block(&[(":status", "200"), ("x-origin", &said), ("content-length", &said.len().to_string())]);
    if method == "HEAD" {
        return frame::headers(stream, flag::END_STREAM, &head);
    }
    [frame::headers(stream, 0, &head), frame::data(stream, flag::END_STREAM, said.as_bytes())].concat()
}
