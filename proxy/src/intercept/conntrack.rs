//! Stage 0: the kernel's memory of single connections (nf_conntrack), by netlink.
//!
//! Which rules hold for a connection is decided by its first packet. One that was dialled before its address was named, and has
//! had no answer, goes on asking its way around us. Forgotten here, its next packet is a first one again.
//!
//! Deliberately absent: connections that were answered. They have a direct way, and keep it.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;

use super::connections::Connection;
use super::netlink::{NetlinkError, NetlinkFamily, NetlinkSocket, with_detail};
use super::netns::NetworkNamespace;

/// A connection cannot be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the kernel refused to forget a connection: {errno}{}", with_detail(.detail))]
    Refused { errno: Errno, detail: Option<String> },
}

/// Makes the kernel forget how it treats `connections` of `namespace`; how many it knew.
///
/// # Errors
/// See [`ConntrackError`]; EPERM without CAP_NET_ADMIN.
pub fn forget<'c>(
    namespace: Option<&NetworkNamespace>,
    connections: impl IntoIterator<Item = &'c Connection>,
) -> Result<usize, ConntrackError> {
    let mut socket = NetlinkSocket::open(namespace, NetlinkFamily::Netfilter)?;
    let mut forgotten = 0;
    for connection in connections {
        let sequence = socket.reserve_sequences(1);
        let answers = socket.exchange(&delete(connection, sequence))?;
        match answers.into_iter().find_map(|answer| Some((answer.error?, answer.detail))) {
            None => forgotten += 1,
            // It has come to its end meanwhile, or is not tracked.
            Some((Errno::ENOENT, _)) => {}
            Some((errno, detail)) => return Err(ConntrackError::Refused { errno, detail }),
        }
    }
    Ok(forgotten)
}

/// `IPCTNL_MSG_CT_DELETE` of one TCP connection, as whoever dialled it sees it (`linux/netfilter/nfnetlink_conntrack.h`).
fn delete(connection: &Connection, sequence: u32) -> Vec<u8> {
    let Connection { local, remote } = connection;
    let family = match remote.ip() {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let tuple = vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(local.ip()), IPTuple::DestinationAddress(remote.ip())]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(local.port()),
            ProtoTuple::DestinationPort(remote.port()),
        ]),
    ];
    let message = ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(tuple)]);
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
