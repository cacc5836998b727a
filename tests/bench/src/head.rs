//! Heads of HTTP/1.1 messages, as far as both ends of a benchmark look into them.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// Where the first head ends, behind its empty line.
#[must_use]
pub fn end(bytes: &[u8]) -> Option<usize> {
    // Heads are short; a search for the last byte of the four looks at each of them once.
    let mut from = 3;
    while let Some(found) = bytes.get(from..)?.iter().position(|byte| *byte == b'\n') {
        let at = from + found;
        if bytes[at - 3..at] == *b"\r\n\r" {
            return Some(at + 1);
        }
        from = at + 1;
    }
    None
}

/// The length of the body of a response with status 200.
///
/// # Errors
/// What is wrong with the head.
pub fn body_length(head: &[u8]) -> Result<usize, String> {
    let shown = || String::from_utf8_lossy(&head[..head.len().min(300)]).into_owned();
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("not a 200: {}", shown()));
    }
    let name = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let mut values = lines.filter(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name));
    let value = values.next().ok_or_else(|| format!("no content-length: {}", shown()))?;
    let value = std::str::from_utf8(&value[name.len()..]).ok().and_then(|text| text.trim().parse().ok());
    value.ok_or_else(|| format!("no number for a content-length: {}", shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_behind_its_empty_line() {
        for (bytes, wanted) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Some(27)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET", Some(27)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r", None),
            (b"\r\n\r\n", Some(4)),
            (b"", None),
            (b"\n\n\n\n\n\n", None),
        ] {
            assert_eq!(end(bytes), wanted, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn only_whole_successes_have_a_length() {
        for (head, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nx: y\r\n\r\n", Some(1024)),
            ("HTTP/1.1 200 OK\r\ncontent-length:7\r\n\r\n", Some(7)),
            ("HTTP/1.1 200 OK\r\ncontent-length: seven\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", None),
        ] {
            assert_eq!(body_length(head.as_bytes()).ok(), wanted, "{head}");
        }
    }
}
