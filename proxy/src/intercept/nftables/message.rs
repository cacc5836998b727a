//! The nf_tables messages we send: a table, its sets, chains and rules, and the elements of a set.
//!
//! The attribute types are those of `netlink-packet-netfilter`; what it lacks are the numbers of the datatypes that
//! `nft list ruleset` prints by, and the comment of a rule.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, InetHookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetFlags,
    SetMessage, TableAttribute, TableFlags, TableMessage,
};

use super::expression::Expression;

/// NF_ACCEPT (`linux/netfilter.h`).
const POLICY_ACCEPT: u32 = 1;
/// NFTNL_UDATA_RULE_COMMENT (`libnftnl/udata.h`).
const USER_DATA_COMMENT: u8 = 0;
const COMMENT_LEN_MAX: usize = 127;

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyType {
    Ipv4Address,
    Ipv6Address,
    /// A layer-4 protocol number.
    InetProtocol,
}

impl KeyType {
    /// The number by which `nft` prints the keys (`enum datatypes` in its `datatype.h`); the kernel ignores it.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Address => 7,
            Self::Ipv6Address => 8,
            Self::InetProtocol => 12,
        }
    }

    fn len(self) -> u32 {
        match self {
            Self::Ipv4Address => 4,
            Self::Ipv6Address => 16,
            Self::InetProtocol => 1,
        }
    }
}

/// A key of a set, as the bytes it is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Protocol(u8),
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Ipv4(address) => address.octets().to_vec(),
            Self::Ipv6(address) => address.octets().to_vec(),
            Self::Protocol(number) => vec![number],
        }
    }
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the destination of a new connection of this namespace is decided (NF_IP_PRI_NAT_DST).
    NatOutput,
    /// On the way in to a socket of this namespace, be it from itself or from others (NF_IP_PRI_FILTER).
    FilterInput,
}

/// `table inet NAME { flags owner }`.
pub(super) fn new_table(name: &str, owned: bool) -> NfTablesMessage {
    let flags = if owned { TableFlags::Owner } else { TableFlags::empty() };
    let attributes = vec![TableAttribute::Name(name.to_owned()), TableAttribute::Flags(flags)];
    NfTablesMessage::NewTable(TableMessage { attributes })
}

/// Deletes the table and everything in it.
pub(super) fn delete_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] })
}

/// `set NAME { type KEY_TYPE; }`; with `timeout`, elements are forgotten that long after they were added.
///
/// `id` tells apart the sets of one transaction.
pub(super) fn new_set(table: &str, name: &str, id: u32, keys: KeyType, timeout: Option<Duration>) -> NfTablesMessage {
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(name.to_owned()),
        SetAttribute::Flags(if timeout.is_some() { SetFlags::Timeout } else { SetFlags::empty() }),
        SetAttribute::KeyType(keys.number()),
        SetAttribute::KeyLen(keys.len()),
        SetAttribute::Id(id),
    ];
    attributes.extend(timeout.map(|timeout| SetAttribute::Timeout(millis(timeout))));
    NfTablesMessage::NewSet(SetMessage { attributes })
}

/// `chain NAME { type nat|filter hook output|input priority …; policy accept; }`.
pub(super) fn new_base_chain(table: &str, name: &str, place: Place) -> NfTablesMessage {
    let (kind, hook, priority) = match place {
        Place::NatOutput => ("nat", InetHookNumber::LocalOut, -100i32),
        Place::FilterInput => ("filter", InetHookNumber::LocalIn, 0),
    };
    let hook = vec![
        Hook::Number(HookNumber::Inet(hook)),
        // The attribute is signed (`nft_chain_parse_hook`), the crate's type is not.
        Hook::Priority(priority.cast_unsigned()),
    ];
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Policy(POLICY_ACCEPT),
            ChainAttribute::Type(kind.to_owned()),
        ],
    })
}

/// A rule at the end of `chain`; `comment` is what an operator reads behind it.
pub(super) fn new_rule(table: &str, chain: &str, comment: &str, expressions: Vec<Expression>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
            RuleAttribute::UserData(comment_data(comment)),
        ],
    })
}

/// Adds `keys` to `set`; one that is there stays as it is.
pub(super) fn add_elements(table: &str, set: &str, keys: impl IntoIterator<Item = Key>) -> NfTablesMessage {
    NfTablesMessage::NewSetElement(elements(table, set, keys))
}

/// Deletes `keys` from `set`; one that is not there fails the transaction with ENOENT.
pub(super) fn delete_elements(table: &str, set: &str, keys: impl IntoIterator<Item = Key>) -> NfTablesMessage {
    NfTablesMessage::DeleteSetElement(elements(table, set, keys))
}

fn elements(table: &str, set: &str, keys: impl IntoIterator<Item = Key>) -> SetElementMessage {
    let element = |key: Key| ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(key.bytes()))]);
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Elements(keys.into_iter().map(element).collect()),
        ],
    }
}

/// A type, a length and a text that ends in NUL, as `nft` reads comments back.
fn comment_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(COMMENT_LEN_MAX)];
    let len = u8::try_from(text.len() + 1).expect("a comment was cut to 127 bytes");
    [&[USER_DATA_COMMENT, len], text, &[0]].concat()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
