//! The first bytes of a connection, waited for so long at most. What was read is handed on, to be put back in front.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::verdict::{Detected, Verdict, detect, detect_http, guess};

/// What was found out, and what was read for it.
#[derive(Debug)]
pub struct Peeked {
    pub detected: Detected,
    pub bytes: Bytes,
    /// When the first of them came.
    pub began: Option<Instant>,
    /// The time was up; it is guessed for that reason.
    pub timed_out: bool,
}

/// Whatever it may be: reads until the protocol is known, or the time is up. A client that says nothing for so long waits for its
/// server to speak first.
///
/// # Errors
/// When reading fails.
pub async fn peek(stream: &mut (impl AsyncRead + Unpin), wait: Duration) -> std::io::Result<Peeked> {
    peek_for(stream, detect, wait, None).await
}

/// Of a client that may speak nothing but HTTP: reads until HTTP/1.1 is told from h2. The first byte may take `idle`, the next ones
/// `head` together.
///
/// # Errors
/// When reading fails.
pub async fn peek_http(
    stream: &mut (impl AsyncRead + Unpin),
    idle: Duration,
    head: Duration,
) -> std::io::Result<Peeked> {
    peek_for(stream, detect_http, idle, Some(head)).await
}

async fn peek_for(
    stream: &mut (impl AsyncRead + Unpin),
    judge: impl Fn(&[u8]) -> Verdict,
    first: Duration,
    further: Option<Duration>,
) -> std::io::Result<Peeked> {
    let (mut bytes, mut began) = (BytesMut::with_capacity(1024), None);
    let mut deadline = Instant::now() + first;
    let (detected, timed_out) = loop {
        // Reading into a buffer of our own loses nothing when the time is up in between.
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Err(_) => break (guess(&bytes), true),
            Ok(read) => {
                if read? == 0 {
                    break (Detected::Raw, false);
                }
            }
        }
        if let Verdict::Known(detected) = judge(&bytes) {
            began.get_or_insert_with(Instant::now);
            break (detected, false);
        }
        if began.is_none() {
            let now = Instant::now();
            began = Some(now);
            deadline = further.map_or(deadline, |further| now + further);
        }
    };
    Ok(Peeked { detected, bytes: bytes.freeze(), began, timed_out })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_words_are_guessed_after_a_while() {
        for (said, expected) in [("", Detected::Raw), ("GE", Detected::Raw), ("GET / H", Detected::Http1)] {
            let (mut client, mut server) = duplex(64);
            client.write_all(said.as_bytes()).await.unwrap();
            let began = Instant::now();
            let peeked = peek(&mut server, WAIT_MAX).await.unwrap();
            assert!(peeked.timed_out && peeked.detected == expected, "{said}: {peeked:?}");
            assert_eq!((&peeked.bytes[..], began.elapsed()), (said.as_bytes(), WAIT_MAX));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_has_the_time_of_a_head_and_no_more() {
        let (mut client, mut server) = duplex(64);
        let start = Instant::now();
        let say = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            client.write_all(b"PRI").await.unwrap();
        };
        let read = async { peek_http(&mut server, Duration::from_secs(10), Duration::from_secs(2)).await.unwrap() };
        let ((), peeked) = tokio::join!(say, read);
        assert!(peeked.timed_out && peeked.began == Some(start + Duration::from_secs(7)), "{peeked:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(9));
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
