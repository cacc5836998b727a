//! Datagrams that know where they were sent to. A socket that is bound to every address would answer from whichever one the
//! kernel prefers, and a client that asked another takes no such answer; so each reply leaves from where its query came to
//! (`ip(7)`, IP_PKTINFO; RFC 3542 section 6).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A socket, and whether its replies have to say where they come from.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    everywhere: bool,
}

/// Who asked, and at which of our addresses; none where there is but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) client: SocketAddr,
    asked_at: Option<IpAddr>,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let everywhere = match socket.local_addr()?.ip() {
            IpAddr::V4(address) if address.is_unspecified() => {
                setsockopt(&socket, Ipv4PacketInfo, &true)?;
                true
            }
            IpAddr::V6(address) if address.is_unspecified() => {
                setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
                true
            }
            _ => false,
        };
        Ok(Self { socket, everywhere })
    }

    /// The next datagram's length in `buffer`; a longer one is cut off.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Exchange)> {
        if !self.everywhere {
            let (len, client) = self.socket.recv_from(buffer).await?;
            return Ok((len, Exchange { client, asked_at: None }));
        }
        self.socket.async_io(Interest::READABLE, || receive_with_destination(&self.socket, buffer)).await
    }

    pub(super) async fn reply(&self, bytes: &[u8], to: Exchange) -> io::Result<()> {
        match to.asked_at {
            None => drop(self.socket.send_to(bytes, to.client).await?),
            Some(from) => {
                let send = || send_from(&self.socket, bytes, from, to.client);
                self.socket.async_io(Interest::WRITABLE, send).await?;
            }
        }
        Ok(())
    }
}

fn receive_with_destination(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Exchange)> {
    let mut control = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let asked_at = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    let client = received.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(std::net::SocketAddrV6::from(*v6))))
    });
    let client = client.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((received.bytes, Exchange { client, asked_at }))
}

fn send_from(socket: &UdpSocket, bytes: &[u8], from: IpAddr, client: SocketAddr) -> io::Result<usize> {
    let to = SockaddrStorage::from(client);
    let parts = [IoSlice::new(bytes)];
    let send = |message: ControlMessage<'_>| {
        sendmsg(socket.as_raw_fd(), &parts, &[message], MsgFlags::MSG_DONTWAIT, Some(&to)).map_err(io::Error::from)
    };
    match from {
        // Index 0: the route decides on the interface, as it does for any other reply.
        IpAddr::V4(from) => {
            let source = in_addr { s_addr: u32::from(from).to_be() };
            send(ControlMessage::Ipv4PacketInfo(&in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: in_addr { s_addr: 0 },
            }))
        }
        IpAddr::V6(from) => {
            let source = in6_addr { s6_addr: from.octets() };
            send(ControlMessage::Ipv6PacketInfo(&in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 }))
        }
    }
}
