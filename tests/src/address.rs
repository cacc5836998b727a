//! A loopback address that no other test has, so that every test can use any port on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of 127.64.0.0/10 that belongs to this process and call alone.
#[must_use]
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let call = NEXT.fetch_add(1, Ordering::Relaxed);
    // 22 bits: 14 of the process id, 8 of the call.
    let bits = ((std::process::id() & 0x3fff) << 8) | (call & 0xff);
    IpAddr::V4(Ipv4Addr::from(0x7f40_0000 | bits))
}

/// A port that was free a moment ago on `address`.
///
/// # Panics
/// When no port can be had.
#[must_use]
pub fn free_port(address: IpAddr) -> u16 {
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).expect("a loopback address has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}
