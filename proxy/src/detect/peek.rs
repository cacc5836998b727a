//! The first bytes of a connection, waited for so long at most. What was read is handed on, to be put back in front.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::verdict::{Detected, Verdict, detect};

/// What was found out, and what was read for it.
#[derive(Debug)]
pub struct Peeked {
    pub detected: Detected,
    pub bytes: Bytes,
    /// The time was up; it is taken as raw for that reason.
    pub timed_out: bool,
}

/// Reads until the protocol is known, or the time is up: a client that says nothing for so long waits for its server to speak
/// first.
///
/// # Errors
/// When reading fails.
pub async fn peek(stream: &mut (impl AsyncRead + Unpin), wait: Duration) -> std::io::Result<Peeked> {
    let mut bytes = BytesMut::with_capacity(1024);
    let told = async {
        loop {
            // Reading into a buffer of our own loses nothing when the time is up in between.
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(Detected::Raw);
            }
            if let Verdict::Known(detected) = detect(&bytes) {
                return Ok(detected);
            }
        }
    };
    let told: Result<std::io::Result<Detected>, _> = tokio::time::timeout(wait, told).await;
    let timed_out = told.is_err();
    let detected = told.unwrap_or(Ok(Detected::Raw))?;
    Ok(Peeked { detected, bytes: bytes.freeze(), timed_out })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_words_are_raw_after_a_while() {
        let (mut client, mut server) = duplex(64);
        client.write_all(b"GE").await.unwrap();
        let began = tokio::time::Instant::now();
        let peeked = peek(&mut server, WAIT_MAX).await.unwrap();
        assert!(peeked.timed_out && peeked.detected == Detected::Raw);
        assert_eq!((&peeked.bytes[..], began.elapsed()), (b"GE".as_slice(), WAIT_MAX));
    }

    #[tokio::test]
    async fn nothing_that_was_read_is_lost() {
        let (mut client, mut server) = duplex(3);
        let send = async {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            drop(client);
        };
        let read = async {
            let peeked = peek(&mut server, WAIT_MAX).await.unwrap();
            assert_eq!(peeked.detected, Detected::Http1);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            [&peeked.bytes[..], &rest].concat()
        };
        assert_eq!(tokio::join!(send, read).1, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
}
