//! An address of its own for each process: all of 127.0.0.0/8 is this host, so that several replicas listen on the same port.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use ipnet::Ipv4Net;

/// How many addresses are tried before a port counts as taken everywhere.
const TRIES_MAX: usize = 64;

/// Hands out addresses in turn, so that one that was given back rests for as long as possible: its last connections may still
/// linger in the kernel.
#[derive(Debug)]
pub(super) struct Addresses {
    range: Ipv4Net,
    next: u32,
}

impl Addresses {
    /// Two that start from another seed rarely meet in one range.
    pub(super) fn new(range: Ipv4Net, seed: u64) -> Self {
        let next = u32::try_from(seed % u64::from(hosts(range))).unwrap_or(0);
        Self { range, next }
    }

    /// An address that is not in `used`, and where nobody listens on any of `ports`.
    ///
    /// # Errors
    /// Why the last one tried was refused: a program that listens on 0.0.0.0 has the port on every address.
    pub(super) fn take(&mut self, used: &BTreeSet<Ipv4Addr>, ports: &[u16]) -> io::Result<Ipv4Addr> {
        let mut last =
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("every address of {} is in use", self.range));
        let tries = usize::try_from(hosts(self.range)).unwrap_or(usize::MAX).min(TRIES_MAX + used.len());
        for _ in 0..tries {
            let address = Ipv4Addr::from(u32::from(self.range.network()) + 1 + self.next);
            self.next = (self.next + 1) % hosts(self.range);
            if used.contains(&address) {
                continue;
            }
            match ports.iter().try_for_each(|port| TcpListener::bind((address, *port)).map(drop)) {
                Ok(()) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Without the first and the last, which look like a network's own.
fn hosts(range: Ipv4Net) -> u32 {
    (1_u32.checked_shl(32 - u32::from(range.prefix_len())).unwrap_or(u32::MAX)).saturating_sub(2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_in_turn_and_only_where_free() {
        let range: Ipv4Net = "127.77.200.0/29".parse().unwrap();
        let mut addresses = Addresses::new(range, 4);
        let mut used = BTreeSet::new();
        for expected in [5, 6, 1, 2, 3, 4] {
            let address = addresses.take(&used, &[]).unwrap();
            assert_eq!(address, Ipv4Addr::new(127, 77, 200, expected));
            used.insert(address);
        }
        assert!(addresses.take(&used, &[]).is_err(), "none is left");
    }

    #[test]
    fn an_address_where_somebody_listens_is_passed_over() {
        let range: Ipv4Net = "127.77.201.0/29".parse().unwrap();
        let taken = TcpListener::bind("127.77.201.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = Addresses::new(range, 0).take(&BTreeSet::new(), &[port]).unwrap();
        assert_eq!(address, Ipv4Addr::new(127, 77, 201, 2));
    }
}
