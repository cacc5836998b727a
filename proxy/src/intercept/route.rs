//! Stage 0: virtual IPs stay inside — a local route for their range, written by `rtnetlink(7)`.
//!
//! `ip route replace local 240.240.0.0/16 dev lo src 127.0.0.1 proto 109`: with it a virtual IP can be dialled where
//! there is no default route, is refused at once where nobody listens, and never leaves the host. The source address is
//! 127.0.0.1, else the kernel would take the dialled address itself; an interface's own address is not taken, since the
//! kernel drops a route together with the source address it prefers, and a container's networks come and go.
//!
//! The protocol number marks the route as ours, in `ip route show table local` and for removal.
//!
//! Deliberately absent: IPv6 ranges, and reading routes back.

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::netlink::{NetlinkError, NetlinkFamily, NetlinkSocket, with_detail};
use super::netns::NetworkNamespace;

/// Who made the route (`rtm_protocol`): ours, one of the numbers above RTPROT_STATIC that no routing daemon uses.
pub const ROUTE_PROTOCOL: u8 = 109;
/// `lo` is the first interface of every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;
/// RT_TABLE_LOCAL (`linux/rtnetlink.h`).
const TABLE_LOCAL: u8 = 255;

/// A route could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the kernel refused to {operation}: {errno}{}", with_detail(detail))]
    Refused { operation: String, errno: Errno, detail: Option<String> },
    #[error("the kernel did not answer the request to {operation}")]
    NoAnswer { operation: String },
}

/// Brings `lo` up, which also gives the namespace 127.0.0.1 and ::1. A namespace that was created a moment ago does not
/// have it yet. Doing it twice does no harm.
///
/// # Errors
/// See [`RouteError`]; EPERM without CAP_NET_ADMIN.
pub fn bring_up_loopback(namespace: Option<&NetworkNamespace>) -> Result<(), RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK_INDEX;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    request(namespace, "bring up lo".to_owned(), 0, RouteNetlinkMessage::SetLink(message)).map(drop)
}

/// Makes every address of `range` a local one in `namespace`. Doing it twice does no harm.
///
/// # Errors
/// See [`RouteError`]; ENETDOWN while `lo` is down.
pub fn install(namespace: Option<&NetworkNamespace>, range: Ipv4Net) -> Result<(), RouteError> {
    let message = RouteNetlinkMessage::NewRoute(local_route(range));
    request(namespace, format!("add the local route {range}"), NLM_F_CREATE | NLM_F_REPLACE, message).map(drop)
}

/// Takes the route away; whether there was one.
///
/// # Errors
/// See [`RouteError`].
pub fn remove(namespace: Option<&NetworkNamespace>, range: Ipv4Net) -> Result<bool, RouteError> {
    let message = RouteNetlinkMessage::DelRoute(local_route(range));
    match request(namespace, format!("delete the local route {range}"), 0, message) {
        Ok(()) => Ok(true),
        Err(RouteError::Refused { errno: Errno::ESRCH, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn local_route(range: Ipv4Net) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: range.prefix_len(),
        table: TABLE_LOCAL,
        protocol: RouteProtocol::Other(ROUTE_PROTOCOL),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(range.network())),
        RouteAttribute::PrefSource(RouteAddress::Inet(std::net::Ipv4Addr::LOCALHOST)),
        RouteAttribute::Oif(LOOPBACK_INDEX),
    ];
    message
}

/// One message there, one answer back.
fn request(
    namespace: Option<&NetworkNamespace>,
    operation: String,
    flags: u16,
    message: RouteNetlinkMessage,
) -> Result<(), RouteError> {
    let mut socket = NetlinkSocket::open(namespace, NetlinkFamily::Route)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    header.sequence_number = socket.reserve_sequences(1);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let answers = socket.exchange(&bytes)?;
    match answers.into_iter().find(|answer| answer.sequence == header.sequence_number) {
        None => Err(RouteError::NoAnswer { operation }),
        Some(answer) => match answer.error {
            None => Ok(()),
            Some(errno) => Err(RouteError::Refused { operation, errno, detail: answer.detail }),
        },
    }
}
