//! What a load balancer says first on a connection. A header is the same whatever follows it and however it is cut; reading as much
//! as is asked for never reads past it; and an address that was understood is understood again in the other version.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use mesh_proxy::listen::proxy_protocol::{HEADER_MAX, Header, Said, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    match &whole {
        &Ok(Header::Whole { length, said }) => {
            assert!(length <= bytes.len() && length <= HEADER_MAX);
            if let Said::Client { source, destination } = said {
                assert!(length > 20, "{length} bytes tell two addresses");
                check_line(source, destination);
                check_binary(source, destination);
            }
            for end in 0..length {
                let cut = parse(&bytes[..end]);
                let Ok(Header::Incomplete { needed }) = cut else { panic!("{end} of {length}: {cut:?}") };
                assert!(needed > end && needed <= length, "{end} of {length}: {needed}");
            }
        }
        &Ok(Header::Incomplete { needed }) => assert!(needed > bytes.len() && needed <= HEADER_MAX),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let longer = [bytes, b"\r\nPROXY"].concat();
            assert!(parse(&longer).is_err(), "what is no header became one");
        }
    }
    // As the proxy reads: no more than is asked for, until it is over.
    let mut read = 0;
    let step = loop {
        match parse(&bytes[..read]) {
            Ok(Header::Incomplete { needed }) if needed <= bytes.len() => read = needed,
            other => break other,
        }
    };
    match (&whole, &step) {
        (&Ok(Header::Whole { length, .. }), _) => assert_eq!((&whole, read), (&step, length)),
        (Ok(Header::Incomplete { .. }), Ok(Header::Incomplete { .. })) | (Err(_), Err(_)) => {}
        // It was asked for more than there is before the mistake showed.
        (Err(_), &Ok(Header::Incomplete { needed })) => assert!(needed > bytes.len()),
        (whole, step) => panic!("{whole:?}, but step by step {step:?}"),
    }
});

fn check_line(source: SocketAddr, destination: SocketAddr) {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    let said = Said::Client { source, destination };
    assert_eq!(parse(line.as_bytes()), Ok(Header::Whole { length: line.len(), said }));
}

fn check_binary(source: SocketAddr, destination: SocketAddr) {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let block = [address(source.ip()), address(destination.ip()), ports].concat();
    let length = u16::try_from(block.len()).expect("36 at most").to_be_bytes();
    let header = [b"\r\n\r\n\0\r\nQUIT\n\x21".as_slice(), &[family], &length, &block].concat();
    let said = Said::Client { source, destination };
    assert_eq!(parse(&header), Ok(Header::Whole { length: header.len(), said }));
}
