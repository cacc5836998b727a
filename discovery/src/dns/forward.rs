//! Names that are not ours: the client's bytes go to an upstream under an id and a source port of our own choice, and the answer
//! comes back only when id and question match (RFC 5452). One upstream after another, two seconds each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::Transport;
use super::metrics::{ForwardOutcome, Metrics};

/// How long one upstream may take.
pub const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// Queries that may wait for upstreams at once; further ones get SERVFAIL.
pub const FORWARDS_MAX: usize = 1024;

/// Who is asked about other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// These, in this order.
    List(Vec<SocketAddr>),
    /// The `nameserver` lines of this file, read again when it changes.
    ResolvConf(PathBuf),
}

impl Upstreams {
    /// `list`, or the host's resolv.conf where it is empty.
    #[must_use]
    pub fn new(list: Vec<SocketAddr>) -> Self {
        if list.is_empty() { Self::ResolvConf("/etc/resolv.conf".into()) } else { Self::List(list) }
    }
}

/// Asks upstreams.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    /// Ourselves: never an upstream, or a query would go around in circles.
    own: SocketAddr,
    read: Mutex<ResolvConf>,
    permits: Semaphore,
    metrics: Metrics,
}

/// The file as it was last read.
#[derive(Debug, Default)]
struct ResolvConf {
    modified: Option<SystemTime>,
    servers: Arc<[SocketAddr]>,
}

impl Forwarder {
    #[must_use]
    pub fn new(upstreams: Upstreams, own: SocketAddr, metrics: Metrics) -> Self {
        Self { upstreams, own, read: Mutex::default(), permits: Semaphore::new(FORWARDS_MAX), metrics }
    }

    /// The answer of the first upstream that has one, under the client's id; `None` when none has, or too many are asked.
    pub async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.forwarded(ForwardOutcome::Overflow);
            return None;
        };
        self.metrics.forwards_in_flight.inc();
        let answer = self.ask_each(query, transport).await;
        self.metrics.forwards_in_flight.dec();
        let outcome = if answer.is_some() { ForwardOutcome::Answered } else { ForwardOutcome::Failed };
        self.metrics.forwarded(outcome);
        answer
    }

    async fn ask_each(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut last_resort = None;
        for upstream in self.servers().iter().filter(|upstream| !self.is_own(**upstream)) {
            let asked = tokio::time::timeout(UPSTREAM_TIMEOUT, exchange(*upstream, query, transport)).await;
            match asked {
                Ok(Ok(answer)) if is_trouble(&answer) => last_resort = Some(answer),
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "an upstream resolver failed"),
                Err(_) => tracing::debug!(%upstream, timeout = ?UPSTREAM_TIMEOUT, "an upstream resolver is silent"),
            }
        }
        last_resort
    }

    fn is_own(&self, upstream: SocketAddr) -> bool {
        let everywhere = self.own.ip().is_unspecified() && upstream.ip().is_loopback();
        upstream.port() == self.own.port() && (upstream.ip() == self.own.ip() || everywhere)
    }

    fn servers(&self) -> Arc<[SocketAddr]> {
        let path = match &self.upstreams {
            Upstreams::List(list) => return list.as_slice().into(),
            Upstreams::ResolvConf(path) => path,
        };
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if modified.is_some() && modified != read.modified {
            match std::fs::read_to_string(path) {
                Ok(text) => *read = ResolvConf { modified, servers: nameservers(&text).into() },
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read; the last good one stays"),
            }
        }
        read.servers.clone()
    }
}

/// The `nameserver` lines of a resolv.conf (resolv.conf(5)); lines that hold no address are passed over.
#[must_use]
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let word = (words.next()? == "nameserver").then(|| words.next())??;
        // A scope (`fe80::1%eth0`) names an interface; without it the address may still be reached.
        word.split('%').next()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|address| SocketAddr::new(address, 53)).collect()
}

/// SERVFAIL and REFUSED: another upstream may do better.
fn is_trouble(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|byte| matches!(byte & 0x0f, 2 | 5))
}

async fn exchange(upstream: SocketAddr, query: &[u8], transport: Transport) -> std::io::Result<Vec<u8>> {
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&fastrand::u16(..).to_be_bytes());
    let mut answer = exchange_udp(upstream, &sent).await?;
    if transport == Transport::Tcp && answer[2] & 0x02 != 0 {
        answer = exchange_tcp(upstream, &sent).await?;
    }
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

async fn exchange_udp(upstream: SocketAddr, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket of its own for each query: the kernel draws its port at random, and takes answers of this upstream alone.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if answers(sent, &buffer[..len]) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn exchange_tcp(upstream: SocketAddr, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let invalid = |reason| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let len = u16::try_from(sent.len()).map_err(|_| invalid("the query is longer than a DNS message may be"))?;
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_all(&[len.to_be_bytes().as_slice(), sent].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    if answers(sent, &answer) { Ok(answer) } else { Err(invalid("the answer is to another question")) }
}

/// Whether `answer` is a response with the id and the question of `sent`. Some upstreams change the question's case.
fn answers(sent: &[u8], answer: &[u8]) -> bool {
    let question = question_of(sent);
    let same = match (question, question_of(answer)) {
        (Some(asked), Some(answered)) => asked.eq_ignore_ascii_case(answered),
        _ => false,
    };
    same && answer[..2] == sent[..2] && answer[2] & 0x80 != 0
}

/// The bytes of the one question: labels, type and class.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    let question = message.get(12..)?;
    let mut at = 0;
    while let length @ 1.. = *question.get(at)? {
        at += 1 + usize::from(length);
    }
    question.get(..at + 5)
}
