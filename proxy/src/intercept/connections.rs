//! Stage 0: which connections were there before us? Reads what the kernel prints in `/proc/net/tcp`
//! (`proc_pid_net(5)`).
//!
//! Deliberately absent: connections in any other state, and whose they are.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far a connection is (`net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Established,
    /// Dialled from here, and not answered yet.
    SynSent,
}

/// One connection, seen from inside its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    pub local: SocketAddr,
    /// What was dialled, where it was dialled from here.
    pub remote: SocketAddr,
}

/// The connections of that state in the text of `/proc/net/tcp` or `/proc/net/tcp6`, whose remote address `wanted` takes.
///
/// Lines that do not have the known form are left out. IPv4-mapped addresses are IPv4.
pub fn parse(table: &str, state: State, wanted: impl Fn(IpAddr) -> bool) -> BTreeSet<Connection> {
    let lines = table.lines().filter_map(|line| parse_line(line, state));
    lines.filter(|connection| wanted(connection.remote.ip())).collect()
}

/// `sl: local_address rem_address st …`; the header line has no hexadecimal addresses and is no connection.
fn parse_line(line: &str, wanted: State) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let number = match wanted {
        State::Established => "01",
        State::SynSent => "02",
    };
    if state != number {
        return None;
    }
    Some(Connection { local: parse_address(local)?, remote: parse_address(remote)? })
}

/// `0100007F:1F90`: words of 32 bits as the machine holds them, then the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for index in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(index..index + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = if let Ok(ipv4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        Ipv4Addr::from(ipv4).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &str, expected: &[(&str, &str)]) {
        let connection = |(local, remote): &(&str, &str)| Connection {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        assert_eq!(parse(table, State::Established, |_| true), expected.iter().map(connection).collect(), "{table}");
    }

    #[test]
    fn established_connections_are_read() {
        check(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
            &[],
        );
        check("   0: 0100007F:36B1 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 1 1\n", &[]);
        check(
            "   1: 030012AC:9C40 0A0112AC:1F90 01 00000000:00000000 00:00000000 00000000  0 0 1 1\n",
            &[("172.18.0.3:40000", "172.18.1.10:8080")],
        );
        check(
            "   0: 0000000000000000FFFF0000030012AC:9C40 0000000000000000FFFF00000A0112AC:1F90 01 0:0 0\n",
            &[("172.18.0.3:40000", "172.18.1.10:8080")],
        );
        check(
            "   0: B80D0120000000000000000001000000:0001 B80D0120000000000000000002000000:0002 01 0:0 0\n",
            &[("[2001:db8::1]:1", "[2001:db8::2]:2")],
        );
    }

    #[test]
    fn what_is_not_a_connection_is_left_out() {
        for line in ["", "0:", "0: x:1 0:0 01", "0: 0100007F 0100007F:1 01", "0: 01:1 01:1 01", "0: é00007F:1 é:1 01"]
        {
            check(line, &[]);
        }
    }

    #[test]
    fn only_wanted_addresses_are_kept() {
        let table = "0: 030012AC:9C40 0A0112AC:1F90 01\n1: 030012AC:9C41 0B0112AC:1F90 01\n";
        let wanted: IpAddr = "172.18.1.11".parse().unwrap();
        assert_eq!(parse(table, State::Established, |ip| ip == wanted).len(), 1);
        assert_eq!(parse(&table.replace(" 01", " 02"), State::SynSent, |ip| ip == wanted).len(), 1);
        assert_eq!(parse(table, State::SynSent, |_| true).len(), 0);
    }
}
