//! A transaction: several messages between "begin" and "end" that the kernel takes as a whole or not at all.
//!
//! Each message has its own sequence number, so a refusal names the object it is about. Only the last one asks for an
//! acknowledgement: a refusal is always answered, and the kernel answers everything before `sendmsg(2)` returns.

use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;

use super::super::netlink::{NetlinkError, NetlinkSocket, with_detail};

/// NFNL_SUBSYS_NFTABLES: whose transaction it is (`linux/netfilter/nfnetlink.h`).
const SUBSYSTEM_NFTABLES: u16 = 10;

/// What a message is about, for its error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Table(&'static str),
    Set(&'static str),
    Elements(&'static str),
    Chain(&'static str),
    Rule(&'static str),
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(formatter, "table inet {name}"),
            Self::Set(name) => write!(formatter, "set {name}"),
            Self::Elements(set) => write!(formatter, "elements of set {set}"),
            Self::Chain(name) => write!(formatter, "chain {name}"),
            Self::Rule(comment) => write!(formatter, "rule \"{comment}\""),
        }
    }
}

/// Why rules were not written. Nothing of the transaction holds then.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the kernel refused the {object}: {errno}{}", with_detail(detail))]
    Refused { object: Object, errno: Errno, detail: Option<String> },
    #[error("the kernel refused the whole nf_tables transaction: {errno}{}", with_detail(detail))]
    TransactionRefused { errno: Errno, detail: Option<String> },
    #[error("the kernel did not answer an nf_tables transaction of {messages} messages")]
    NoAnswer { messages: usize },
    #[error("table inet {table} belongs to another running process: only one proxy can capture a network namespace")]
    OwnedByAnother { table: &'static str },
}

impl NftablesError {
    /// The error number, where the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::TransactionRefused { errno, .. } => Some(*errno),
            Self::Netlink(_) | Self::NoAnswer { .. } | Self::OwnedByAnother { .. } => None,
        }
    }
}

/// Messages that are to take effect together.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    object: Object,
    flags: u16,
    message: NfTablesMessage,
}

impl Transaction {
    /// Appends `message`, which is about `object`; `flags` are `NLM_F_CREATE` and the like.
    pub(super) fn push(&mut self, object: Object, flags: u16, message: NfTablesMessage) {
        self.steps.push(Step { object, flags, message });
    }

    /// Hands the messages to the kernel, all or nothing.
    ///
    /// # Errors
    /// The first refusal, by the object it is about.
    pub(super) fn commit(self, socket: &mut NetlinkSocket) -> Result<(), NftablesError> {
        let Some(last_step) = self.steps.len().checked_sub(1) else { return Ok(()) };
        let count = u32::try_from(self.steps.len() + 2).expect("a transaction has some ten messages");
        let begin = socket.reserve_sequences(count);
        let mut answers = socket.exchange(&self.encode(begin))?;
        answers.sort_by_key(|answer| answer.sequence.wrapping_sub(begin));
        let mut acknowledged = false;
        for answer in answers {
            // Message 0 is "begin": the kernel blames it for what is wrong with the whole.
            let step = (answer.sequence.wrapping_sub(begin) as usize).checked_sub(1);
            match (answer.error, step.and_then(|step| self.steps.get(step))) {
                (None, _) => acknowledged |= step == Some(last_step),
                (Some(errno), Some(step)) => {
                    return Err(NftablesError::Refused { object: step.object.clone(), errno, detail: answer.detail });
                }
                (Some(errno), None) => return Err(NftablesError::TransactionRefused { errno, detail: answer.detail }),
            }
        }
        if acknowledged { Ok(()) } else { Err(NftablesError::NoAnswer { messages: self.steps.len() }) }
    }

    /// The bytes of the whole transaction, its messages numbered from `begin`.
    pub(super) fn encode(&self, begin: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = |res_id| NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, res_id);
        let mut sequence = begin;
        append(
            &mut bytes,
            sequence,
            NLM_F_REQUEST,
            NetfilterMessage::new(frame(SUBSYSTEM_NFTABLES), ControlMessage::BatchBegin),
        );
        for (index, step) in self.steps.iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            let acknowledge = if index + 1 == self.steps.len() { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            let message = NetfilterMessage::new(header, step.message.clone());
            append(&mut bytes, sequence, NLM_F_REQUEST | step.flags | acknowledge, message);
        }
        append(
            &mut bytes,
            sequence.wrapping_add(1),
            NLM_F_REQUEST,
            NetfilterMessage::new(frame(SUBSYSTEM_NFTABLES), ControlMessage::BatchEnd),
        );
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, sequence: u32, flags: u16, message: NetfilterMessage) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    // Attributes are padded to 4 bytes each, so the next message starts aligned.
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}
