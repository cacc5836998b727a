//! An origin behind the proxy: it keeps every byte it is sent, connection by connection, reads them strictly, and answers as its
//! script says.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::client::Delivery;
use crate::watched::{Watched, is_drained, listen};
use crate::wire::{self, Progress, Request, shown};

/// What the origin does on a connection.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Vec<u8>),
    /// An orderly end of its side.
    Finish,
    /// An end that breaks what is under way.
    Reset,
}

/// What it does for one target, instead of its usual answer.
#[derive(Debug, Clone)]
pub struct Script {
    pub target: &'static str,
    /// As soon as the head is there.
    pub early: bool,
    pub acts: Vec<Act>,
}

/// What one connection from the proxy has brought.
#[derive(Default)]
pub struct Connection {
    stream: Option<Arc<TcpStream>>,
    pub bytes: Vec<u8>,
    /// Bytes of `bytes` that belong to whole requests.
    read: usize,
    pub requests: Vec<Request>,
    /// The one that is not whole yet.
    pub partial: Option<Request>,
    early_done: bool,
    /// The origin has switched it: what follows is no HTTP.
    switched: bool,
    /// Why its bytes have no one meaning.
    pub broken: Option<String>,
    /// The proxy ended it.
    pub ended: bool,
    /// The origin has let go of it.
    left: bool,
}

#[derive(Debug, Default)]
pub struct Log {
    pub connections: Vec<Connection>,
    scripts: Vec<Script>,
    delivery: Delivery,
    over: bool,
}

type Shared = Watched<Log>;

/// The origin; it ends when dropped.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Backend {
    pub fn start(scripts: Vec<Script>, delivery: Delivery) -> Self {
        let (listener, address) = listen();
        let shared = Arc::new(Shared::new(Log { scripts, delivery, ..Log::default() }));
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // Torn bytes are to arrive as such.
                let _ = stream.set_nodelay(true);
                let stream = Arc::new(stream);
                let number = {
                    let mut log = accepting.log();
                    if log.over {
                        return;
                    }
                    log.connections.push(Connection { stream: Some(Arc::clone(&stream)), ..Connection::default() });
                    log.connections.len() - 1
                };
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    shared.serve(number, &stream);
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
        self.shared.wait(what, look, |log| format!("{:?}", log.connections))
    }

    /// The number of the connection on which a request for `target` has begun.
    pub fn wait_head(&self, target: &str) -> usize {
        self.wait(&format!("the head of {target}"), |log| {
            log.connections.iter().position(|one| one.all().any(|request| request.target == target))
        })
    }

    /// The same, once all of it is there.
    pub fn wait_request(&self, target: &str) -> (usize, Request) {
        self.wait(&format!("all of {target}"), |log| {
            let mut all = log.connections.iter().enumerate();
            all.find_map(|(n, one)| one.requests.iter().find(|r| r.target == target).map(|r| (n, r.clone())))
        })
    }

    pub fn wait_end(&self, connection: usize) {
        self.wait("the end of a connection", |log| log.connections[connection].ended.then_some(()));
    }

    /// Does something on a connection now.
    pub fn act(&self, connection: usize, act: &Act) {
        let stream = self.shared.log().connections[connection].stream.clone();
        let stream = stream.expect("a connection that was not reset");
        self.shared.perform(connection, &stream, act);
        if matches!(act, Act::Reset) {
            // Its last holder sends RST; what the test does next comes behind it.
            drop(stream);
            self.wait("a reset", |log| log.connections[connection].left.then_some(()));
        }
    }

    pub fn send(&self, connection: usize, bytes: &str) {
        self.act(connection, &Act::Send(bytes.as_bytes().to_vec()));
    }

    /// Begins anew, and answers so: what came so far, all of it whole or ended, is not looked at any more.
    pub fn begin_anew(&self, delivery: Delivery) {
        self.settled(|_| ());
        let mut log = self.shared.log();
        log.delivery = delivery;
        for connection in &mut log.connections {
            connection.bytes.clear();
            connection.read = 0;
            connection.requests.clear();
            connection.partial = None;
        }
    }

    /// What came, once every byte that the proxy has sent so far is read.
    pub fn settled<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        let look = std::cell::Cell::new(Some(look));
        self.wait("reading what was sent", |log| {
            log.connections.iter().all(Connection::is_drained).then(|| look.take().expect("it is taken once")(log))
        })
    }
}

impl Drop for Backend {
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

impl Connection {
    /// Whole requests, and the one that has begun.
    pub fn all(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().chain(&self.partial)
    }

    fn is_drained(&self) -> bool {
        self.stream.as_ref().filter(|_| !self.ended).is_none_or(|stream| is_drained(stream))
    }

    /// Reads on; which requests became whole, and which has begun.
    fn step(&mut self) {
        while self.broken.is_none() && !self.switched {
            match wire::request(&self.bytes[self.read..]) {
                Ok((Some(request), Progress::Whole(length))) => {
                    self.read += length;
                    self.requests.push(request);
                    self.partial = None;
                    if self.read == self.bytes.len() {
                        return;
                    }
                }
                Ok((partial, _)) => {
                    self.partial = partial;
                    return;
                }
                Err(why) => self.broken = Some(why),
            }
        }
    }
}

impl Shared {
    fn serve(&self, number: usize, mut stream: &TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // Waits without the lock; what is there is then read and entered in one step.
            let waited = stream.peek(&mut [0]);
            let mut log = self.log();
            let length = waited.and_then(|_| stream.read(&mut buffer)).unwrap_or(0);
            let Log { connections, scripts, .. } = &mut *log;
            let connection = &mut connections[number];
            let before = connection.requests.len();
            connection.bytes.extend_from_slice(&buffer[..length]);
            connection.ended = length == 0;
            connection.step();
            let mut acts = Vec::new();
            for request in &connection.requests[before..] {
                if !std::mem::take(&mut connection.early_done) {
                    acts.extend(answer(scripts, request));
                }
            }
            if let Some(request) = &connection.partial
                && !connection.early_done
                && let Some(script) = scripts.iter().find(|script| script.early && script.target == request.target)
            {
                connection.early_done = true;
                acts.extend(script.acts.clone());
            }
            let broken = connection.broken.is_some();
            drop(log);
            self.tell();
            acts.iter().for_each(|act| self.perform(number, stream, act));
            if broken {
                // Nobody is to wait for an answer to it.
                let _ = stream.shutdown(Shutdown::Write);
            }
            if length == 0 {
                return;
            }
        }
    }

    fn perform(&self, number: usize, stream: &TcpStream, act: &Act) {
        if matches!(act, Act::Send(bytes) if bytes.len() < 4096 && bytes.windows(13).any(|part| part == b"HTTP/1.1 101 "))
        {
            self.log().connections[number].switched = true;
        }
        let delivery = self.log().delivery;
        // The proxy may have ended the connection: what it then does is what is tested.
        let _ = match act {
            Act::Send(bytes) => delivery.write(stream, bytes),
            Act::Finish => stream.shutdown(Shutdown::Write),
            Act::Reset => {
                // The last holder's drop sends RST; the end of reading, of which the peer learns nothing, wakes that holder.
                self.log().connections[number].stream = None;
                let lingering = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                lingering.and_then(|()| stream.shutdown(Shutdown::Read))
            }
        };
    }
}

/// What is done for a request: by the script, or the usual answer, which says what was asked.
fn answer(scripts: &[Script], request: &Request) -> Vec<Act> {
    if let Some(script) = scripts.iter().find(|script| script.target == request.target) {
        return script.acts.clone();
    }
    vec![Act::Send(usual_answer(&request.method, &request.target))]
}

pub fn usual_answer(method: &str, target: &str) -> Vec<u8> {
    let said = format!("{method} {target}");
    let body = if method == "HEAD" { "" } else { &said };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-origin: {said}\r\n\r\n{body}", said.len()).into_bytes()
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ended = if self.ended { ", ended" } else { "" };
        write!(out, "[{}{ended}; broken: {:?}]", shown(&self.bytes), self.broken)
    }
}
