//! The bytes that say who is behind a connection, read off its beginning: not one more, since what follows may be TLS.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{HEADER_MAX, Header, ProxyProtocolError, Said, parse};

/// As much as is looked at in one go: version 1 whole, version 2 with some additions.
const LOOK: usize = 256;

/// Why nobody knows who is behind a connection.
#[derive(Debug, Error)]
pub enum ProxiedError {
    #[error("no PROXY protocol header is there")]
    Header(#[from] ProxyProtocolError),
    #[error("it broke off before its PROXY protocol header was whole")]
    Broken(#[from] io::Error),
    #[error("its PROXY protocol header was not whole within {0:?}")]
    Timeout(Duration),
}

/// Reads the header off the beginning of a connection, within `timeout`.
///
/// # Errors
/// [`ProxiedError`]: the connection must be dropped.
pub async fn read(stream: &mut TcpStream, timeout: Duration) -> Result<Said, ProxiedError> {
    // In a box: it is over soon, and the connection is not.
    let reading = Box::pin(read_header(stream));
    tokio::time::timeout(timeout, reading).await.map_err(|_| ProxiedError::Timeout(timeout))?
}

async fn read_header(stream: &mut TcpStream) -> Result<Said, ProxiedError> {
    let mut bytes = [0; HEADER_MAX];
    // A header comes in one piece but for accidents; looking before reading takes it in two calls.
    let seen = stream.peek(&mut bytes[..LOOK]).await?;
    if let Header::Whole { length, said } = parse(&bytes[..seen])? {
        stream.read_exact(&mut bytes[..length]).await?;
        return Ok(said);
    }
    let mut read = 0;
    loop {
        match parse(&bytes[..read])? {
            Header::Whole { said, .. } => return Ok(said),
            Header::Incomplete { needed } => {
                stream.read_exact(&mut bytes[read..needed]).await?;
                read = needed;
            }
        }
    }
}
