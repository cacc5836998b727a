//! What a client's hello says in the clear: the name that it asks for, and what it would speak. For the words of a handshake that
//! failed; what is agreed on is rustls' to say.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// A whole ClientHello (RFC 8446 section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// SNI (RFC 6066 section 3).
    pub server_name: Option<Box<str>>,
    /// ALPN (RFC 7301 section 3.1).
    pub alpn: Vec<Box<[u8]>>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Reads the hello at the beginning of a connection; none while it is not whole, and when it is none.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Hello> {
    let message = joined(bytes)?;
    let mut hello = Reader(&message);
    let (_version, _random) = (hello.take(2)?, hello.take(32)?);
    let (_session, _suites, _compression) = (hello.short()?, hello.long()?, hello.short()?);
    let mut found = Hello::default();
    // A hello of TLS 1.2 may do without extensions.
    let mut extensions = Reader(hello.long().unwrap_or_default());
    while let Some(kind) = extensions.number() {
        let body = extensions.long()?;
        match kind {
            SERVER_NAME => found.server_name = server_name(body),
            ALPN => found.alpn = protocols(body).unwrap_or_default(),
            _ => {}
        }
    }
    Some(found)
}

/// The body of the first message, which may lie in several records.
fn joined(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut records, mut message) = (Reader(bytes), Vec::new());
    loop {
        let [kind, major, minor] = *records.take(3)? else { return None };
        // What no client sends is not heard as one, as where protocols are detected.
        if kind != HANDSHAKE || major != 3 || minor > 4 {
            return None;
        }
        message.extend_from_slice(records.long()?);
        if let [kind, a, b, c, ..] = message[..] {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind != CLIENT_HELLO {
                return None;
            }
            if let Some(body) = message.get(4..4 + length) {
                return Some(body.to_vec());
            }
        }
    }
}

fn server_name(body: &[u8]) -> Option<Box<str>> {
    let mut list = Reader(Reader(body).long()?);
    let [0] = *list.take(1)? else { return None };
    let name = std::str::from_utf8(list.long()?).ok()?;
    // Nothing else is a name, and this goes to a log.
    let is_name = !name.is_empty() && name.len() < 256 && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| name.into())
}

fn protocols(body: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let (mut list, mut found) = (Reader(Reader(body).long()?), Vec::new());
    while !list.0.is_empty() {
        found.push(list.short()?.into());
    }
    Some(found)
}

/// Bytes from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// As many as the byte in front says.
    fn short(&mut self) -> Option<&'b [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// As many as the two bytes in front say.
    fn long(&mut self) -> Option<&'b [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with these extensions, in records of at most so many bytes.
    fn hello(extensions: &[u8], record: usize) -> Vec<u8> {
        let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        let body = [&[3, 3][..], &[7; 32], &[1, 9], &[0, 2, 0x13, 1], &[1, 0], &length, extensions].concat();
        let message = [&[CLIENT_HELLO, 0], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
        let records = message
            .chunks(record)
            .map(|part| [&[HANDSHAKE, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat());
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn names_and_protocols_are_found_once_it_is_whole() {
        let name = [&[0, 0, 0, 11, 0, 9, 0, 0, 6][..], b"a.test"].concat();
        let alpn = [&[0, 16, 0, 14, 0, 12, 2][..], b"h2", &[8], b"http/1.1"].concat();
        let expected = Hello {
            server_name: Some("a.test".into()),
            alpn: vec![b"h2".as_slice().into(), b"http/1.1".as_slice().into()],
        };
        for record in [1, 7, 16_000] {
            let whole = hello(&[&[0x0a, 0x0a, 0, 0][..], &name, &alpn].concat(), record);
            assert_eq!(read(&whole).as_ref(), Some(&expected));
            assert_eq!(read(&[&whole[..], b"more"].concat()).as_ref(), Some(&expected));
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut]), None, "{cut}");
            }
        }
        assert_eq!(read(&hello(&[], 100)), Some(Hello::default()));
    }

    #[test]
    fn what_is_none_is_none() {
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            &[22, 2, 0, 0, 1, 1],
            &[22, 3, 3, 0, 4, 2, 0, 0, 0],
            &[21, 3, 3, 0, 2, 2, 40],
        ] {
            assert_eq!(read(bytes), None);
        }
        // A name that would forge a line of the log, and lists that lie about their length.
        let forged = [&[0, 0, 0, 8, 0, 6, 0, 0, 3][..], b"a\nb"].concat();
        assert_eq!(read(&hello(&forged, 999)), Some(Hello::default()));
        assert_eq!(read(&hello(&[0, 0, 0, 9], 999)), None);
        assert_eq!(read(&hello(&[0, 16, 0, 4, 0, 2, 9, 1], 999)), Some(Hello::default()));
    }
}
