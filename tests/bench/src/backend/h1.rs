//! HTTP/1.1 without bodies in requests: a response for each head.

use std::io;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{CONTENT_TYPE, DATE, LARGE, LARGE_PATH, SERVER, SMALL, write};
use crate::head;

thread_local! {
    static RESPONSES: Rc<(Vec<u8>, Vec<u8>)> = Rc::new((response(SMALL), response(LARGE)));
}

/// Head and body, rendered once.
fn response(length: usize) -> Vec<u8> {
    let fields = format!("content-type: {CONTENT_TYPE}\r\ndate: {DATE}\r\nserver: {SERVER}\r\n");
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

pub(super) async fn serve(mut stream: TcpStream, mut input: Vec<u8>) -> io::Result<()> {
    let responses = RESPONSES.with(Rc::clone);
    let large = format!("GET {LARGE_PATH} ");
    loop {
        while let Some(end) = head::end(&input) {
            let response = if input.starts_with(large.as_bytes()) { &responses.1 } else { &responses.0 };
            write(&mut stream, response).await?;
            input.drain(..end);
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}
