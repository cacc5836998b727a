//! Stage 0: the rules that bring traffic to us, written to the kernel from this binary (`nft(8)` prints them back).
//!
//! Two tables in each captured namespace, of family inet. The first is ours while we live:
//!
//! ```text
//! table inet mesh { flags owner                      # vanishes when our netlink socket closes, kill -9 included
//!   set alive      { type inet_proto; timeout 5s; elements = { tcp } }    # … and holds only while we renew it
//!   set addresses  { type ipv4_addr; }               # endpoints' own addresses
//!   set addresses6 { type ipv6_addr; }
//!   chain output { type nat hook output priority dstnat;
//!     meta mark MARK return                          # the proxy's own connections
//!     tcp flags syn / fin,syn,rst,ack  meta l4proto @alive  ip daddr 240.240.0.0/16  redirect to :14001
//!     oif lo return                                  # to itself
//!     tcp flags syn / fin,syn,rst,ack  meta l4proto @alive  ip daddr @addresses      redirect to :14001
//!     tcp flags syn / fin,syn,rst,ack  meta l4proto @alive  ip6 daddr @addresses6    redirect to :14001
//!   }
//!   chain input { type filter hook input priority filter;     # the same for IPv6 and @addresses6
//!     tcp flags syn,ack / fin,syn,rst,ack                 ct state invalid  meta l4proto @alive  ip saddr @addresses  drop
//!     tcp flags rst,ack / fin,syn,rst,ack tcp sequence 0  ct state invalid  meta l4proto @alive  ip saddr @addresses  drop
//! } }
//! ```
//!
//! The second stays when we are gone, until it is removed on request:
//!
//! ```text
//! table inet mesh_refuse {
//!   chain keep_nat { type nat hook output priority dstnat; ct state new return }      # decides nothing
//!   chain refuse   { type filter hook input priority filter;
//!     tcp flags syn / fin,syn,rst,ack  ip daddr 240.240.0.0/16  reject with tcp reset
//!     meta l4proto udp                 ip daddr 240.240.0.0/16  reject with icmpx port-unreachable
//! } }
//! ```
//!
//! - The local route ([`super::route`]) alone would let an application that dials a virtual IP reach *itself*, where it
//!   listens on that port on all addresses (tried), and let in others, whose way out this namespace is: hence `refuse`.
//!   A redirected packet has another destination by then. On the way out a refusal would be EPERM to a sender of
//!   datagrams.
//! - The kernel translates the packets of established connections only while some nat chain hangs in the namespace, and
//!   tracks connections only while some rule asks for it. Without `keep_nat` the proxy's last FIN or RST would not be
//!   translated back once our table is gone, and a client that waits for an answer would wait for ever (tried).
//! - Only the packet that opens a connection is looked at: connections older than the rules are left alone. But for those that
//!   had no answer yet: the kernel is made to forget them ([`super::conntrack`]), so that the next packet opens them. An answer to
//!   the one before it may come all the same (it may wait for the address to be found on the wire); it is nobody's then, and
//!   dropped, or the application would go past us after all.
//!
//! A kernel before 5.12 knows no owner: the table is then deleted on drop, and after a `kill -9` the set `alive` runs
//! out.
//!
//! Deliberately absent: reading rules back, counters, and any other family, hook or protocol.

mod expression;
mod message;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use nix::errno::Errno;

use self::expression::{self as expr, Expression};
use self::message::{Key, KeyType, Place};
use self::transaction::Transaction;
pub use self::transaction::{NftablesError, Object};
use super::netlink::{NetlinkFamily, NetlinkSocket};
use super::netns::NetworkNamespace;
use super::route::LOOPBACK_INDEX;

/// The table that redirects.
pub const TABLE: &str = "mesh";
/// The table that refuses virtual IPs when nobody redirects them.
pub const REFUSING_TABLE: &str = "mesh_refuse";

const SET_ALIVE: &str = "alive";
const SET_ADDRESSES: &str = "addresses";
const SET_ADDRESSES6: &str = "addresses6";
const CHAIN_OUTPUT: &str = "output";
const CHAIN_INPUT: &str = "input";
const CHAIN_KEEP_NAT: &str = "keep_nat";
const CHAIN_REFUSE: &str = "refuse";

/// The key of the set `alive`: we redirect TCP.
const ALIVE: Key = Key::Protocol(6);

/// An attribute is at most 64 KiB long, an IPv6 element 32 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;
/// One transaction has to fit the socket's send buffer (`net.core.wmem_default`, 208 KiB).
const ELEMENTS_PER_TRANSACTION: usize = 2000;

/// What the rules say. All of it is fixed for the life of a [`Ruleset`]; the addresses are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The port of the listener on 127.0.0.1 (and ::1) that takes redirected connections.
    pub port: u16,
    /// Every address of this range is captured.
    pub virtual_ips: Ipv4Net,
    /// Connections of sockets with this SO_MARK pass untouched.
    pub mark: u32,
    /// How long the rules hold without [`Ruleset::renew_alive`].
    pub alive_timeout: Duration,
}

/// Who removes the table when this process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The kernel, when our socket closes.
    Socket,
    /// Nobody (kernel before 5.12): its rules stop to match after the alive timeout.
    AliveSet,
}

/// The table `mesh` in one namespace. Dropping it removes the table.
#[derive(Debug)]
pub struct Ruleset {
    socket: NetlinkSocket,
    ownership: Ownership,
    addresses: BTreeSet<IpAddr>,
}

impl Ruleset {
    /// Writes the table, with no addresses yet and `alive` fresh. The virtual IP range is redirected from here on.
    ///
    /// A table of that name that nobody owns (a leftover) is replaced.
    ///
    /// # Errors
    /// [`NftablesError::OwnedByAnother`] where another process captures this namespace; see [`NftablesError`].
    pub fn open(namespace: Option<&NetworkNamespace>, rules: &Rules) -> Result<Self, NftablesError> {
        match Self::open_as(namespace, rules, Ownership::Socket) {
            Err(NftablesError::Refused {
                object: Object::Table(_), errno: Errno::EINVAL | Errno::EOPNOTSUPP, ..
            }) => {
                tracing::warn!("this kernel knows no table owner: after a kill -9 rules hold until their timeout");
                Self::open_as(namespace, rules, Ownership::AliveSet)
            }
            result => result,
        }
    }

    fn open_as(
        namespace: Option<&NetworkNamespace>,
        rules: &Rules,
        ownership: Ownership,
    ) -> Result<Self, NftablesError> {
        let mut socket = NetlinkSocket::open(namespace, NetlinkFamily::Netfilter)?;
        match redirecting_table(rules, ownership).commit(&mut socket) {
            Err(NftablesError::Refused { object: Object::Table(_), errno: Errno::EEXIST, .. }) => {
                let mut replacement = Transaction::default();
                replacement.push(Object::Table(TABLE), 0, message::delete_table(TABLE));
                replacement.commit(&mut socket).map_err(name_the_owner)?;
                redirecting_table(rules, ownership).commit(&mut socket).map_err(name_the_owner)?;
            }
            result => result.map_err(name_the_owner)?,
        }
        Ok(Self { socket, ownership, addresses: BTreeSet::new() })
    }

    /// Who removes the table when this process dies.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The endpoint addresses that are redirected now.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Makes `wanted` the endpoint addresses that are redirected, writing only the difference.
    ///
    /// # Errors
    /// See [`NftablesError`]. Up to 2000 changes are one transaction; of more, those before the refused one hold, and
    /// are what [`Ruleset::addresses`] says.
    pub fn set_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), NftablesError> {
        let gone: Vec<IpAddr> = self.addresses.difference(wanted).copied().collect();
        let new: Vec<IpAddr> = wanted.difference(&self.addresses).copied().collect();
        for chunk in gone.chunks(ELEMENTS_PER_TRANSACTION) {
            let mut transaction = Transaction::default();
            // Adding first makes deleting one that is not there succeed.
            push_addresses(&mut transaction, chunk, Change::Add);
            push_addresses(&mut transaction, chunk, Change::Delete);
            transaction.commit(&mut self.socket)?;
            for address in chunk {
                self.addresses.remove(address);
            }
        }
        for chunk in new.chunks(ELEMENTS_PER_TRANSACTION) {
            let mut transaction = Transaction::default();
            push_addresses(&mut transaction, chunk, Change::Add);
            transaction.commit(&mut self.socket)?;
            self.addresses.extend(chunk);
        }
        Ok(())
    }

    /// Makes the rules hold for another alive timeout from now. To be called well within it.
    ///
    /// # Errors
    /// See [`NftablesError`]; ENOENT when the table was deleted by somebody else.
    pub fn renew_alive(&mut self) -> Result<(), NftablesError> {
        let mut transaction = Transaction::default();
        // A plain add leaves the timeout of a present element as it is; delete fails once it has run out.
        transaction.push(Object::Elements(SET_ALIVE), NLM_F_CREATE, message::add_elements(TABLE, SET_ALIVE, [ALIVE]));
        transaction.push(Object::Elements(SET_ALIVE), 0, message::delete_elements(TABLE, SET_ALIVE, [ALIVE]));
        transaction.push(Object::Elements(SET_ALIVE), NLM_F_CREATE, message::add_elements(TABLE, SET_ALIVE, [ALIVE]));
        transaction.commit(&mut self.socket)
    }
}

impl Drop for Ruleset {
    /// Removes the table. Closing a socket that owns it is not enough: a child process that is being started at this
    /// moment has a copy of it until it executes its program (tried).
    fn drop(&mut self) {
        let mut transaction = Transaction::default();
        transaction.push(Object::Table(TABLE), 0, message::delete_table(TABLE));
        match transaction.commit(&mut self.socket) {
            Ok(()) | Err(NftablesError::Refused { errno: Errno::ENOENT, .. }) => {}
            Err(error) => tracing::debug!(%error, "the table {TABLE} was left to the kernel to remove"),
        }
    }
}

/// Makes virtual IPs refused in `namespace` whenever nothing redirects them, and keeps address translation at work. It
/// outlives this process. Doing it again replaces the range.
///
/// # Errors
/// See [`NftablesError`].
pub fn refuse_virtual_ips(namespace: Option<&NetworkNamespace>, virtual_ips: Ipv4Net) -> Result<(), NftablesError> {
    let mut socket = NetlinkSocket::open(namespace, NetlinkFamily::Netfilter)?;
    match refusing_table(virtual_ips, Vec::new()).commit(&mut socket) {
        Err(NftablesError::Refused { object: Object::Table(_), errno: Errno::EEXIST, .. }) => {
            let delete = vec![message::delete_table(REFUSING_TABLE)];
            refusing_table(virtual_ips, delete).commit(&mut socket)
        }
        result => result,
    }
}

/// Takes both tables away, as far as they are there and nobody else owns them; whether there was any.
///
/// # Errors
/// [`NftablesError::OwnedByAnother`] while another process captures this namespace; see [`NftablesError`].
pub fn remove_tables(namespace: Option<&NetworkNamespace>) -> Result<bool, NftablesError> {
    let mut socket = NetlinkSocket::open(namespace, NetlinkFamily::Netfilter)?;
    let mut found = false;
    for table in [TABLE, REFUSING_TABLE] {
        let mut transaction = Transaction::default();
        transaction.push(Object::Table(table), 0, message::delete_table(table));
        match transaction.commit(&mut socket) {
            Ok(()) => found = true,
            Err(NftablesError::Refused { errno: Errno::ENOENT, .. }) => {}
            Err(error) => return Err(name_the_owner(error)),
        }
    }
    Ok(found)
}

/// The kernel says EPERM of a table with another owner; without CAP_NET_ADMIN it refuses the transaction as a whole.
fn name_the_owner(error: NftablesError) -> NftablesError {
    match error {
        NftablesError::Refused { object: Object::Table(table), errno: Errno::EPERM, .. } => {
            NftablesError::OwnedByAnother { table }
        }
        error => error,
    }
}

fn redirecting_table(rules: &Rules, ownership: Ownership) -> Transaction {
    let mut transaction = Transaction::default();
    let owned = ownership == Ownership::Socket;
    transaction.push(Object::Table(TABLE), NLM_F_CREATE | NLM_F_EXCL, message::new_table(TABLE, owned));
    let sets = [
        (SET_ALIVE, KeyType::InetProtocol, Some(rules.alive_timeout)),
        (SET_ADDRESSES, KeyType::Ipv4Address, None),
        (SET_ADDRESSES6, KeyType::Ipv6Address, None),
    ];
    for (id, (name, keys, timeout)) in (1..).zip(sets) {
        transaction.push(Object::Set(name), NLM_F_CREATE, message::new_set(TABLE, name, id, keys, timeout));
    }
    transaction.push(Object::Elements(SET_ALIVE), NLM_F_CREATE, message::add_elements(TABLE, SET_ALIVE, [ALIVE]));
    let chain = message::new_base_chain(TABLE, CHAIN_OUTPUT, Place::NatOutput);
    transaction.push(Object::Chain(CHAIN_OUTPUT), NLM_F_CREATE, chain);
    let redirect = |destination: Vec<Expression>| {
        let matched = [expr::is_first_of_tcp_connection(), expr::protocol_in(SET_ALIVE), destination].concat();
        [matched, expr::redirect_to(rules.port)].concat()
    };
    push_rules(
        &mut transaction,
        TABLE,
        CHAIN_OUTPUT,
        [
            ("the proxy's own connections pass", [expr::mark_is(rules.mark), expr::give_back()].concat()),
            ("to a virtual IP", redirect(expr::ipv4_destination_in_prefix(rules.virtual_ips))),
            ("to itself", [expr::output_interface_is(LOOPBACK_INDEX), expr::give_back()].concat()),
            ("to an endpoint", redirect(expr::ipv4_destination_in_set(SET_ADDRESSES))),
            ("to an IPv6 endpoint", redirect(expr::ipv6_destination_in_set(SET_ADDRESSES6))),
        ],
    );
    let chain = message::new_base_chain(TABLE, CHAIN_INPUT, Place::FilterInput);
    transaction.push(Object::Chain(CHAIN_INPUT), NLM_F_CREATE, chain);
    let nobodys = |answer: Vec<Expression>, source: Vec<Expression>| {
        [answer, expr::is_of_unknown_connection(), expr::protocol_in(SET_ALIVE), source, expr::drop_it()].concat()
    };
    let (ipv4, ipv6) = (|| expr::ipv4_source_in_set(SET_ADDRESSES), || expr::ipv6_source_in_set(SET_ADDRESSES6));
    push_rules(
        &mut transaction,
        TABLE,
        CHAIN_INPUT,
        [
            ("dialled past the proxy", nobodys(expr::is_acceptance(), ipv4())),
            ("dialled past the proxy", nobodys(expr::is_acceptance(), ipv6())),
            ("refused past the proxy", nobodys(expr::is_refusal(), ipv4())),
            ("refused past the proxy", nobodys(expr::is_refusal(), ipv6())),
        ],
    );
    transaction
}

/// `before` comes first in the transaction.
fn refusing_table(virtual_ips: Ipv4Net, before: Vec<NfTablesMessage>) -> Transaction {
    let mut transaction = Transaction::default();
    for message in before {
        transaction.push(Object::Table(REFUSING_TABLE), 0, message);
    }
    let table = message::new_table(REFUSING_TABLE, false);
    transaction.push(Object::Table(REFUSING_TABLE), NLM_F_CREATE | NLM_F_EXCL, table);
    for (name, place) in [(CHAIN_KEEP_NAT, Place::NatOutput), (CHAIN_REFUSE, Place::FilterInput)] {
        let chain = message::new_base_chain(REFUSING_TABLE, name, place);
        transaction.push(Object::Chain(name), NLM_F_CREATE, chain);
    }
    let keep = [("keeps connections translated", [expr::is_new_connection(), expr::give_back()].concat())];
    push_rules(&mut transaction, REFUSING_TABLE, CHAIN_KEEP_NAT, keep);
    let range = || expr::ipv4_destination_in_prefix(virtual_ips);
    push_rules(
        &mut transaction,
        REFUSING_TABLE,
        CHAIN_REFUSE,
        [
            (
                "no proxy for this virtual IP",
                [expr::is_first_of_tcp_connection(), range(), expr::reject_with_reset()].concat(),
            ),
            ("virtual IPs carry TCP", [expr::is_udp(), range(), expr::reject_with_port_unreachable()].concat()),
        ],
    );
    transaction
}

fn push_rules(
    transaction: &mut Transaction,
    table: &'static str,
    chain: &'static str,
    rules: impl IntoIterator<Item = (&'static str, Vec<Expression>)>,
) {
    for (comment, expressions) in rules {
        let rule = message::new_rule(table, chain, comment, expressions);
        transaction.push(Object::Rule(comment), NLM_F_CREATE | NLM_F_APPEND, rule);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Delete,
}

fn push_addresses(transaction: &mut Transaction, addresses: &[IpAddr], change: Change) {
    let ipv4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(Key::Ipv4(*address)),
        IpAddr::V6(_) => None,
    });
    let ipv6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(Key::Ipv6(*address)),
        IpAddr::V4(_) => None,
    });
    push_keys(transaction, SET_ADDRESSES, &ipv4.collect::<Vec<_>>(), change);
    push_keys(transaction, SET_ADDRESSES6, &ipv6.collect::<Vec<_>>(), change);
}

fn push_keys(transaction: &mut Transaction, set: &'static str, keys: &[Key], change: Change) {
    for chunk in keys.chunks(ELEMENTS_PER_MESSAGE) {
        let keys = chunk.iter().copied();
        let (flags, message) = match change {
            Change::Add => (NLM_F_CREATE, message::add_elements(TABLE, set, keys)),
            Change::Delete => (0, message::delete_elements(TABLE, set, keys)),
        };
        transaction.push(Object::Elements(set), flags, message);
    }
}
