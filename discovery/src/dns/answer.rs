//! A query's bytes to a reply's: the rules of the protocol around what `zone` found. Never a panic, whatever comes; never an
//! answer to an answer.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use mesh_core::model::snapshot::Snapshot;

use super::zone::{Lookup, Question, Zone};

/// What fits into a datagram without fragments on nearly every path (DNS flag day 2020).
pub const UDP_PAYLOAD_MAX: u16 = 1232;
/// What a client takes that says nothing about it (RFC 1035 section 4.2.1).
const UDP_PAYLOAD_MIN: u16 = 512;
/// The header's size (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// RFC 8482 section 4.2 leaves it to us; it is as short as an endpoint's.
const ANY_TTL_SECONDS: u32 = 3600;

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub transport: Transport,
    /// Whether its source is one that gets answers.
    pub allowed: bool,
    /// Its address, IPv4 as such.
    pub source: Option<IpAddr>,
}

/// What is done about a packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not a query: nothing is sent.
    Ignore,
    /// `bytes` are sent back.
    Reply { bytes: Vec<u8>, code: ResponseCode },
    /// An upstream is asked the packet as it stands.
    Forward,
}

/// What was asked and what is done about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The type asked for, `None` where the packet does not even say that.
    pub kind: Option<RecordType>,
    pub verdict: Verdict,
}

impl Decision {
    fn reply(kind: Option<RecordType>, message: Message, limit: u16) -> Self {
        let code = message.metadata.response_code;
        let verdict = match encode(message, limit) {
            Ok(bytes) => Verdict::Reply { bytes, code },
            // Only records longer than a message could be do that, and we have none.
            Err(_) => Verdict::Ignore,
        };
        Self { kind, verdict }
    }
}

/// Decides about one packet.
#[must_use]
pub fn respond(packet: &[u8], asker: Asker, zone: &Zone, snapshot: &Snapshot, random: &mut fastrand::Rng) -> Decision {
    let ignored = Decision { kind: None, verdict: Verdict::Ignore };
    let Some(header) = packet.first_chunk::<HEADER_LEN>() else { return ignored };
    if header[2] & 0x80 != 0 {
        return ignored; // QR: a response; answering one could go on forever.
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let bare = |code| Decision::reply(None, Message::error_msg(id, op_code, code), UDP_PAYLOAD_MIN);
    if !asker.allowed {
        return bare(ResponseCode::Refused);
    }
    if op_code != OpCode::Query {
        return bare(ResponseCode::NotImp);
    }
    // Checked before decoding: counts are the sender's word. RFC 9619: exactly one question.
    if header[4..6] != [0, 1] {
        return bare(ResponseCode::FormErr);
    }
    let Ok(query) = Message::from_vec(packet) else { return bare(ResponseCode::FormErr) };
    match query.queries.first() {
        Some(question) => answer(&query, question, asker, zone, snapshot, random),
        None => bare(ResponseCode::FormErr),
    }
}

/// The reply that says that no upstream answered; none for what is no query.
#[must_use]
pub fn failure(packet: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).ok()?;
    let mut reply = reply_to(&query);
    reply.metadata.response_code = ResponseCode::ServFail;
    encode(reply, UDP_PAYLOAD_MIN).ok()
}

fn answer(
    query: &Message,
    question: &Query,
    asker: Asker,
    zone: &Zone,
    snapshot: &Snapshot,
    random: &mut fastrand::Rng,
) -> Decision {
    let kind = question.query_type();
    let limit = match (asker.transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD_MAX),
        (Transport::Udp, None) => UDP_PAYLOAD_MIN,
    };
    let mut reply = reply_to(query);
    if let Some(code) = refusal(query, question) {
        reply.metadata.response_code = code;
        return Decision::reply(Some(kind), reply, limit);
    }
    match zone.lookup(Question { name: question.name(), kind, source: asker.source }, snapshot, random) {
        Lookup::Foreign => return Decision { kind: Some(kind), verdict: Verdict::Forward },
        // Asked again in a moment; whoever is told NXDOMAIN now would believe it for a while.
        Lookup::Unknown => reply.metadata.response_code = ResponseCode::ServFail,
        Lookup::Missing { authority } => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(zone.soa(&authority, snapshot.number));
        }
        // RFC 8482 section 4.2: one made-up HINFO instead of everything.
        Lookup::Present { .. } if kind == RecordType::ANY => {
            let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            reply.metadata.authoritative = true;
            reply.add_answer(Record::from_rdata(question.name().clone(), ANY_TTL_SECONDS, data));
        }
        Lookup::Present { authority, answers, additionals } => {
            reply.metadata.authoritative = true;
            if answers.is_empty() {
                reply.add_authority(zone.soa(&authority, snapshot.number));
            }
            reply.answers = answers;
            reply.additionals = additionals;
        }
    }
    Decision::reply(Some(kind), reply, limit)
}

/// What is refused whatever the name.
fn refusal(query: &Message, question: &Query) -> Option<ResponseCode> {
    if query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS); // RFC 6891 section 6.1.3
    }
    if question.query_class() != DNSClass::IN {
        return Some(ResponseCode::Refused);
    }
    match question.query_type() {
        RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused), // RFC 5936 section 2.2.1: no transfers here
        RecordType::OPT => Some(ResponseCode::FormErr),                     // RFC 6891 section 6.1.1: never asked for
        _ => None,
    }
}

/// An empty reply with the question as it was asked, and an OPT where the query had one (RFC 6891 section 6.1.1).
fn reply_to(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.queries.extend(query.queries.first().cloned());
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX).set_dnssec_ok(asked.flags().dnssec_ok);
        reply.edns = Some(edns);
    }
    reply
}

/// Encodes within `limit`: additional records only as far as they fit (RFC 2181 section 9: leaving them out sets no TC), then
/// answers as far as they fit, with TC. A client that cannot ask again over TCP still has some of a shuffled list.
fn encode(mut message: Message, limit: u16) -> Result<Vec<u8>, ProtoError> {
    let limit = usize::from(limit);
    let additionals = std::mem::take(&mut message.additionals);
    let mut bytes = message.to_vec()?;
    while bytes.len() > limit && !message.answers.is_empty() {
        let fitting = message.answers.len() * limit / bytes.len();
        message.answers.truncate(fitting.min(message.answers.len() - 1));
        message.metadata.truncation = true;
        bytes = message.to_vec()?;
    }
    if additionals.is_empty() || message.metadata.truncation {
        return Ok(bytes);
    }
    let mut room = limit.saturating_sub(bytes.len());
    for record in additionals {
        // The name unpacked, then type, class, TTL, length and the longest address: never less than it will take.
        let Some(left) = room.checked_sub(record.name.len() + 1 + 10 + 16) else { break };
        room = left;
        message.additionals.push(record);
    }
    message.to_vec()
}
