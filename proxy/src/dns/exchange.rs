//! One question, one answer: UDP, then TCP where the answer was cut short; each resolver of the list in turn. Nothing is cached
//! here, so no answer outlives its TTL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::records::Answer;

/// How long one resolver may take for one question.
pub const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
/// What fits into a datagram without fragments on nearly every path (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;
/// Questions for targets' addresses that are asked at once.
const TARGET_QUERIES_MAX: usize = 16;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a name was not resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error("{name:?} is no domain name; one such as _http._tcp.web.shop.svc.mesh.internal is wanted")]
    Name { name: String, source: ProtoError },
    #[error("no resolver is configured, and {RESOLV_CONF} names none")]
    NoResolver,
    #[error("resolver {resolver} cannot be asked")]
    Io { resolver: SocketAddr, source: std::io::Error },
    #[error("resolver {resolver} did not answer within {RESOLVER_TIMEOUT:?}")]
    Timeout { resolver: SocketAddr },
    #[error("the query cannot be encoded")]
    Encode { source: ProtoError },
    #[error("resolver {resolver} said {code} about {name}")]
    Refused { resolver: SocketAddr, name: Name, code: ResponseCode },
}

/// SRV records of `name` with the addresses of all their targets.
///
/// # Errors
/// That of the last resolver asked. A part of the answer missing is an error of the whole: half a list is no list.
pub async fn resolve_srv(name: &str, resolver: Option<SocketAddr>) -> Result<Answer, ResolveError> {
    let mut name = Name::from_ascii(name).map_err(|source| ResolveError::Name { name: name.to_owned(), source })?;
    name.set_fqdn(true);
    let resolvers = match resolver {
        Some(resolver) => vec![resolver],
        None => system_resolvers(),
    };
    let mut result = Err(ResolveError::NoResolver);
    for resolver in resolvers {
        result = resolve_at(resolver, &name).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn resolve_at(resolver: SocketAddr, name: &Name) -> Result<Answer, ResolveError> {
    let message = ask(resolver, name, RecordType::SRV).await?;
    let refused = |code| ResolveError::Refused { resolver, name: name.clone(), code };
    let mut answer = Answer::read(&message).map_err(refused)?;
    let questions = answer.unresolved().into_iter().map(|target| addresses_of(resolver, target));
    let mut found = futures_util::stream::iter(questions).buffer_unordered(TARGET_QUERIES_MAX);
    let mut messages = Vec::new();
    while let Some(of_target) = found.next().await {
        messages.extend(of_target?);
    }
    for (target, mut message) in messages {
        // An alias' addresses are the target's.
        for record in &mut message.answers {
            answer.limit_ttl(record.ttl);
            record.name = target.clone();
        }
        answer.add_addresses(&message.answers);
    }
    Ok(answer)
}

/// A target that does not exist has no address; one whose resolver fails is an error.
async fn addresses_of(resolver: SocketAddr, target: Name) -> Result<Vec<(Name, Message)>, ResolveError> {
    let mut messages = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let message = ask(resolver, &target, kind).await?;
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(ResolveError::Refused { resolver, name: target, code }),
        }
        let found = message.answers.iter().any(|record| record.data.ip_addr().is_some());
        if found {
            messages.push((target.clone(), message));
            break;
        }
    }
    Ok(messages)
}

async fn ask(resolver: SocketAddr, name: &Name, kind: RecordType) -> Result<Message, ResolveError> {
    let mut query = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_MAX);
    query.set_edns(edns);
    let bytes = query.to_vec().map_err(|source| ResolveError::Encode { source })?;
    let exchanged = tokio::time::timeout(RESOLVER_TIMEOUT, async {
        let answer = ask_udp(resolver, &query, &bytes).await?;
        if answer.metadata.truncation { ask_tcp(resolver, &query, &bytes).await } else { Ok(answer) }
    });
    match exchanged.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ResolveError::Io { resolver, source }),
        Err(_) => Err(ResolveError::Timeout { resolver }),
    }
}

async fn ask_udp(resolver: SocketAddr, query: &Message, bytes: &[u8]) -> std::io::Result<Message> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What is no answer to this question is passed over (RFC 5452 section 9.1).
        if let Some(answer) = Message::from_vec(&buffer[..len]).ok().filter(|answer| answers(query, answer)) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &Message, bytes: &[u8]) -> std::io::Result<Message> {
    let invalid = |reason| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let len = u16::try_from(bytes.len()).map_err(|_| invalid("the query is longer than a DNS message may be"))?;
    let mut stream = TcpStream::connect(resolver).await?;
    stream.write_all(&[len.to_be_bytes().as_slice(), bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(len)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(|_| invalid("the answer is no DNS message"))?;
    if answers(query, &answer) { Ok(answer) } else { Err(invalid("the answer is to another question")) }
}

fn answers(query: &Message, answer: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries
}

/// The `nameserver` lines of resolv.conf(5), read each time: they change under a running process.
fn system_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let word = (words.next()? == "nameserver").then(|| words.next())??;
        word.split('%').next()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|address| SocketAddr::new(address, 53)).collect()
}
