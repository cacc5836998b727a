use super::*;

fn client(source: &str, destination: &str) -> Said {
    Said::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// The whole header is understood so, whatever follows; and no part of it is, nor asks for more than belongs to it.
fn check_whole(header: &[u8], said: Said) {
    let whole = Header::Whole { length: header.len(), said };
    assert_eq!(parse(header), Ok(whole), "{}", header.escape_ascii());
    assert_eq!(parse(&[header, b"\r\nGET / HTTP/1.1"].concat()), Ok(whole), "{}", header.escape_ascii());
    for length in 0..header.len() {
        match parse(&header[..length]) {
            Ok(Header::Incomplete { needed }) => {
                assert!(needed > length && needed <= header.len(), "{length}: {needed}")
            }
            other => panic!("{length} bytes of {}: {other:?}", header.escape_ascii()),
        }
    }
}

/// Version 2 with that command and family, that block, and so much more length than there is.
fn second(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE.as_slice(), &[0x20 | command, family], &length, block].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 203, 0, 113, 9, 0xdd, 0xd5, 0, 80];

#[test]
fn version_1_tells_addresses() {
    check_whole(b"PROXY TCP4 192.0.2.1 203.0.113.9 56789 80\r\n", client("192.0.2.1:56789", "203.0.113.9:80"));
    check_whole(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", client("0.0.0.0:0", "255.255.255.255:65535"));
    check_whole(b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n", client("[2001:db8::1]:1", "[::ffff:192.0.2.1]:2"));
    check_whole(b"PROXY UNKNOWN\r\n", Said::Itself);
    check_whole(b"PROXY UNKNOWN any thing\t\x01\r\n", Said::Itself);
    let widest = "ffff:f000:f000:f000:f000:f000:f000:ffff";
    let longest = format!("PROXY TCP6 {widest} {widest} 65535 65535\r\n");
    check_whole(longest.as_bytes(), client(&format!("[{widest}]:65535"), &format!("[{widest}]:65535")));
    let full = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LINE_MAX - 16));
    assert_eq!(full.len(), LINE_MAX);
    check_whole(full.as_bytes(), Said::Itself);
}

#[test]
fn version_1_is_strict() {
    for line in [
        "PROXY TCP4 192.0.2.1 203.0.113.9 56789\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 56789 80 \r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 56789 80 1\r\n",
        "PROXY TCP4  192.0.2.1 203.0.113.9 56789 80\r\n",
        "PROXY TCP4 192.0.2.1\t203.0.113.9 56789 80\r\n",
        "PROXY TCP4 192.0.2.01 203.0.113.9 56789 80\r\n",
        "PROXY TCP4 192.0.2 203.0.113.9 56789 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 056789 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 +5678 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 65536 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9  80\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY tcp4 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY UDP4 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 1 \u{662}\r\n",
    ] {
        assert!(matches!(parse(line.as_bytes()), Err(ProxyProtocolError::Malformed { .. })), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "f".repeat(LINE_MAX));
    for line in [
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rGET",
        "PROXY UNKNOWN\r\r\n",
        &long,
        &format!("{}\r\n", &long[..LINE_MAX - 1]),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(ProxyProtocolError::Line), "{line:?}");
    }
    for other in ["GET / HTTP/1.1\r\n", "proxy TCP4", "PROXY\r\n", "PROXY\t", "\r\n\r\n\0\r\nQUIT\r", "\n"] {
        assert_eq!(parse(other.as_bytes()), Err(ProxyProtocolError::Absent), "{other:?}");
    }
}

#[test]
fn version_2_tells_addresses() {
    let v4 = client("192.0.2.1:56789", "203.0.113.9:80");
    check_whole(&second(1, 0x11, &V4), v4);
    // Additions are skipped.
    check_whole(&second(1, 0x11, &[V4.as_slice(), &[0x04, 0, 3, 1, 2, 3]].concat()), v4);
    let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0; 16]].concat();
    let v6 = [v6.as_slice(), &[1, 0, 0, 2]].concat();
    check_whole(&second(1, 0x21, &v6), client("[2001:db8::1]:256", "[::]:2"));
    // A health check, with and without addresses; and what is no stream of addresses.
    check_whole(&second(0, 0x00, &[]), Said::Itself);
    check_whole(&second(0, 0x11, &V4), Said::Itself);
    check_whole(&second(0, 0x11, &[1]), Said::Itself);
    check_whole(&second(1, 0x00, &[9; 30]), Said::Itself);
    check_whole(&second(1, 0x12, &V4), Said::Itself);
    check_whole(&second(1, 0x10, &V4), Said::Itself);
    check_whole(&second(1, 0x31, &[b'/'; 216]), Said::Itself);
    check_whole(&second(1, 0x11, &[V4.as_slice(), &vec![0; HEADER_MAX - FIXED - 12]].concat()), v4);
}

#[test]
fn version_2_is_strict() {
    let check = |bytes: &[u8], expected| assert_eq!(parse(bytes), Err(expected), "{}", bytes.escape_ascii());
    check(&second(2, 0x11, &V4), ProxyProtocolError::Command { command: 2 });
    check(&second(1, 0x13, &V4), ProxyProtocolError::Family { family: 0x13 });
    check(&second(1, 0x41, &V4), ProxyProtocolError::Family { family: 0x41 });
    check(&second(1, 0x11, &V4[..11]), ProxyProtocolError::Short { length: 11 });
    check(&second(1, 0x21, &V4), ProxyProtocolError::Short { length: 12 });
    check(&second(1, 0x31, &[0; 215]), ProxyProtocolError::Short { length: 215 });
    check(&second(1, 0x11, &vec![0; HEADER_MAX]), ProxyProtocolError::Long { length: HEADER_MAX + FIXED });
    let mut third = second(1, 0x11, &V4);
    third[12] = 0x31;
    check(&third, ProxyProtocolError::Version { version: 3 });
}
