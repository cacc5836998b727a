//! Who is at the other end of a connection within this host: the kernel's table of sockets says which user opened it. The table
//! is read here; what stands in it is understood by [`owner`], which is pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

/// Of this thread's own network namespace: a process that also proxies has threads that visit others.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// While other sockets come and go, one reading of a long table may miss a row.
const READINGS_MAX: usize = 3;

/// The two ends of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Ours; none once the connection is reset.
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok(), remote: *stream.remote_addr() }
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Through a network: nobody can say which user it is.
    Elsewhere { address: IpAddr },
    /// A process of this host, by its user id.
    User { id: u32 },
    /// Of this host, and hung up or in another network namespace.
    Unknown,
}

/// Finds out who calls.
pub async fn caller(ends: Ends) -> Caller {
    let (remote, Some(local)) = (canonical(ends.remote), ends.local.map(canonical)) else { return Caller::Unknown };
    if !remote.ip().is_loopback() {
        return Caller::Elsewhere { address: remote.ip() };
    }
    for _ in 0..READINGS_MAX {
        for path in TABLES {
            // A kernel without IPv6 has one table only.
            let Ok(table) = tokio::fs::read_to_string(path).await else { continue };
            if let Some(id) = owner(&table, remote, local) {
                return Caller::User { id };
            }
        }
    }
    Caller::Unknown
}

/// The user who opened the socket that is bound to `own` and connected to `peer`, out of a table of `/proc/net/tcp` or `tcp6`.
/// A socket that nobody holds any more has no inode and says user 0: it names nobody.
#[must_use]
pub fn owner(table: &str, own: SocketAddr, peer: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, remote, _, _, _, _, user, _, inode] = fields[..] else { return None };
        let held = inode.parse::<u64>().is_ok_and(|inode| inode != 0);
        (held && address(local)? == own && address(remote)? == peer).then(|| user.parse().ok())?
    })
}

/// `0100007F:36B0`: the address in words of 32 bits, each as this machine holds it in memory, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(canonical(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?)))
}

/// An IPv4 address is the same one where an IPv6 socket carries it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_are_read_as_the_kernel_writes_them() {
        let v4 = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:36B0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 100 1 0000000000000000 100 0 0 10 0
   1: 0100007F:36B0 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     8        0 101 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:9C40 0100007F:36B0 01 00000000:00000000 00:00000000 00000000  1000        0 102 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:9C41 0100007F:36B0 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
";
        let v6 = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000100007F:36B0 01 00000000:00000000 00:00000000 00000000  1001        0 103 1 0
   1: 00000000000000000000000001000000:9C43 00000000000000000000000001000000:36B0 01 00000000:00000000 00:00000000 00000000  1002        0 104 1 0
";
        let check = |table: &str, own: &str, peer: &str, expected: Option<u32>| {
            assert_eq!(owner(table, own.parse().unwrap(), peer.parse().unwrap()), expected, "{own} to {peer}");
        };
        check(v4, "127.0.0.1:40000", "127.0.0.1:14000", Some(1000));
        check(v4, "127.0.0.1:14000", "127.0.0.1:40000", Some(8));
        // Closed already: whoever it was, the kernel says 0 from then on.
        check(v4, "127.0.0.1:40001", "127.0.0.1:14000", None);
        check(v4, "127.0.0.1:40002", "127.0.0.1:14000", None);
        check(v4, "127.0.0.2:40000", "127.0.0.1:14000", None);
        check(v6, "127.0.0.1:40002", "127.0.0.1:14000", Some(1001));
        check(v6, "[::1]:40003", "[::1]:14000", Some(1002));
    }

    #[test]
    fn what_is_no_table_names_nobody() {
        let any = "127.0.0.1:1".parse().unwrap();
        for table in ["", "x\n", "x\n0: 0 0 0 0 0 0 0 0 0\n", "x\n0: é:1 0100007F:0001 01 0 0 0 0 0 5\n", "x\n0: :: ::"]
        {
            assert_eq!(owner(table, any, any), None, "{table:?}");
        }
    }

    #[tokio::test]
    async fn this_process_is_found_over_both_families() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            // A machine without IPv6 has only the first.
            let Ok(listener) = TcpListener::bind(listen).await else { continue };
            let mut server = listener.local_addr().unwrap();
            if server.ip().is_unspecified() {
                server.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            let client = tokio::net::TcpStream::connect(server).await.unwrap();
            let (accepted, remote) = listener.accept().await.unwrap();
            let ends = Ends { local: accepted.local_addr().ok(), remote };
            assert_eq!(caller(ends).await, Caller::User { id: nix::unistd::geteuid().as_raw() }, "{listen}");
            drop(client);
            assert_eq!(caller(ends).await, Caller::Unknown, "{listen}: it hung up");
        }
        let far = Ends { local: "10.0.0.1:2".parse().ok(), remote: "10.0.0.9:1".parse().unwrap() };
        assert_eq!(caller(far).await, Caller::Elsewhere { address: "10.0.0.9".parse().unwrap() });
    }
}
