//! What a load balancer says first on a connection: whose it is. Versions 1 and 2 of the PROXY protocol
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>), read strictly: who is believed here is believed everywhere.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// What version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What version 1 begins with (section 2.1).
const WORD: &[u8; 6] = b"PROXY ";

/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;

/// The shortest header of either version: `PROXY UNKNOWN`, a carriage return, a line feed.
const SHORTEST: usize = 15;

/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// The longest header of version 2 that is read. Addresses take 36 bytes; the rest is additions (TLVs), which are skipped.
pub const HEADER_MAX: usize = 4096;

/// The beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// At least so many bytes belong to the header. To read no more than them reads nothing that comes after it.
    Incomplete { needed: usize },
    /// So many bytes are the header, which is over.
    Whole { length: usize, said: Said },
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// That of whoever opened it: a health check of the load balancer (`LOCAL`), or nothing that we know of (`UNKNOWN`, a Unix
    /// socket, datagrams).
    Itself,
    Client {
        source: SocketAddr,
        /// What it dialled.
        destination: SocketAddr,
    },
}

/// What is no header; the connection must be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProxyProtocolError {
    #[error("it begins with neither version of the PROXY protocol")]
    Absent,
    #[error("the line of version 1 is longer than 107 bytes, or has no proper end")]
    Line,
    #[error("the line of version 1 is malformed: {line:?}")]
    Malformed { line: String },
    #[error("version {version} is not known")]
    Version { version: u8 },
    #[error("the command {command} of version 2 is not known")]
    Command { command: u8 },
    #[error("the family and transport 0x{family:02x} of version 2 are not known")]
    Family { family: u8 },
    #[error("the header of version 2 has {length} bytes, fewer than its addresses take")]
    Short { length: usize },
    #[error("the header of version 2 has {length} bytes; at most {HEADER_MAX} are read")]
    Long { length: usize },
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// [`ProxyProtocolError`] when it can never become one.
pub fn parse(bytes: &[u8]) -> Result<Header, ProxyProtocolError> {
    if bytes.starts_with(WORD) {
        return version_1(bytes);
    }
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if WORD.starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        return Ok(Header::Incomplete { needed: SHORTEST });
    }
    Err(ProxyProtocolError::Absent)
}

fn version_1(bytes: &[u8]) -> Result<Header, ProxyProtocolError> {
    let seen = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match seen.len() {
            LINE_MAX => Err(ProxyProtocolError::Line),
            length => Ok(Header::Incomplete { needed: (length + 2).clamp(SHORTEST, LINE_MAX) }),
        };
    };
    match (seen[end], seen.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if end + 1 < LINE_MAX => return Ok(Header::Incomplete { needed: end + 2 }),
        _ => return Err(ProxyProtocolError::Line),
    }
    let line = &seen[..end];
    let said = std::str::from_utf8(line).ok().and_then(line_said);
    let said = said.ok_or_else(|| ProxyProtocolError::Malformed { line: line.escape_ascii().to_string() })?;
    Ok(Header::Whole { length: end + 2, said })
}

fn line_said(line: &str) -> Option<Said> {
    let rest = line.strip_prefix("PROXY ")?;
    // Whatever follows must be ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(Said::Itself);
    }
    let mut words = rest.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => Ipv4Addr::from_str(word).ok().map(IpAddr::from),
            "TCP6" => Ipv6Addr::from_str(word).ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(port);
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then(|| Said::Client {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Decimal, without a sign or zeros in front.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_plain.then(|| word.parse().ok()).flatten()
}

fn version_2(bytes: &[u8]) -> Result<Header, ProxyProtocolError> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Header::Incomplete { needed: FIXED });
    };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0x0f, fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 {
        return Err(ProxyProtocolError::Version { version });
    }
    if command > 1 {
        return Err(ProxyProtocolError::Command { command });
    }
    // How many bytes a family's addresses take; a transport other than streams is as good as unknown.
    let addresses = match family {
        0x00..=0x02 => 0,
        0x10..=0x12 => 12,
        0x20..=0x22 => 36,
        0x30..=0x32 => 216,
        _ => return Err(ProxyProtocolError::Family { family }),
    };
    let total = FIXED + length;
    if command == 1 && length < addresses {
        return Err(ProxyProtocolError::Short { length });
    }
    if total > HEADER_MAX {
        return Err(ProxyProtocolError::Long { length: total });
    }
    let Some(block) = rest.get(..length) else { return Ok(Header::Incomplete { needed: total }) };
    let said = match (command, family) {
        (1, 0x11) => said_by::<4>(block),
        (1, 0x21) => said_by::<16>(block),
        _ => Said::Itself,
    };
    Ok(Header::Whole { length: total, said })
}

/// Two addresses and two ports, which the caller has proved to be there.
fn said_by<const N: usize>(block: &[u8]) -> Said
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| block.get(at..at + N).and_then(|bytes| <[u8; N]>::try_from(bytes).ok()).map(IpAddr::from);
    let port = |at: usize| block.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match (address(0), address(N), port(2 * N), port(2 * N + 2)) {
        (Some(source), Some(destination), Some(from), Some(to)) => {
            Said::Client { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) }
        }
        _ => Said::Itself,
    }
}

#[cfg(test)]
mod tests;
