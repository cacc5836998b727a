//! The network namespace that this process lives in: its addresses, and whether it is the host's own.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The addresses of its interfaces, each with the network behind it; not those of loopback.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn addresses() -> io::Result<Vec<IpNet>> {
    let found = getifaddrs()?.filter_map(|interface| {
        let address = ip(interface.address.as_ref()?)?;
        IpNet::with_netmask(address, ip(interface.netmask.as_ref()?)?).ok()
    });
    Ok(found.filter(|network| !network.addr().is_loopback()).collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// What shows that this is the host's own namespace; none where nothing does.
///
/// A container cannot see the host's process 1 to compare with, so this goes by what only a host has: an interface on real (or
/// a virtual machine's) hardware, or a bridge that containers are plugged into.
///
/// # Errors
/// When `/sys/class/net` cannot be read.
pub(super) fn sign_of_host() -> io::Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        for (sign, what) in [("device", "hardware"), ("bridge", "a bridge")] {
            if entry.path().join(sign).exists() {
                return Ok(Some(format!("its interface {} is {what}", entry.file_name().to_string_lossy())));
            }
        }
    }
    Ok(None)
}
