//! HTTP/1.1: one request under way on a connection.

use anyhow::{Context, anyhow, bail, ensure};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Run;
use crate::certificates::NAME;
use crate::head;

/// What one read takes at most.
const BUFFER: usize = 256 << 10;

/// Requests one after the other on one connection, until the load ends.
pub(super) async fn keep_alive(run: &Run) -> anyhow::Result<()> {
    let stream = run.connect().await?;
    match run.tls() {
        None => exchange(run, stream).await,
        Some(tls) => {
            let name = ServerName::try_from(NAME).context("a name")?;
            exchange(run, tls.connect(name, stream).await.context("TLS handshake")?).await
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(run: &Run, mut stream: S) -> anyhow::Result<()> {
    let request = request(run.plan.path, "");
    let mut buffer = vec![0; buffer_size(run.plan.body)];
    while let Some(due) = run.next().await {
        send(&mut stream, &request).await?;
        response(&mut stream, &mut buffer, run.plan.body).await?;
        run.answered(due);
    }
    Ok(())
}

/// One request, when it is this connection's turn; then nothing until the load ends.
pub(super) async fn idle(run: &Run) -> anyhow::Result<()> {
    let mut ended = run.ended.subscribe();
    let turn = run.turn.acquire().await.context("a turn")?;
    let stream = run.connect().await?;
    let mut stream: Box<dyn Stream> = match run.tls() {
        None => Box::new(stream),
        Some(tls) => {
            let name = ServerName::try_from(NAME).context("a name")?;
            Box::new(tls.connect(name, stream).await.context("TLS handshake")?)
        }
    };
    if let Some(due) = run.next().await {
        send(&mut stream, &request(run.plan.path, "")).await?;
        response(&mut stream, &mut vec![0; buffer_size(run.plan.body)], run.plan.body).await?;
        run.answered(due);
    }
    drop(turn);
    let mut byte = [0];
    tokio::select! {
        _ = ended.wait_for(|ended| *ended) => Ok(()),
        read = stream.read(&mut byte) => bail!("an idle connection was closed: {read:?}"),
    }
}

/// A connection, in TLS or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection for every request, one after the other.
pub(super) async fn new_each(run: &Run) -> anyhow::Result<()> {
    let request = request(run.plan.path, "connection: close\r\n");
    let mut buffer = vec![0; buffer_size(run.plan.body)];
    while let Some(due) = run.next().await {
        let mut stream = run.connect().await?;
        match run.tls() {
            None => {
                send(&mut stream, &request).await?;
                response(&mut stream, &mut buffer, run.plan.body).await?;
            }
            Some(tls) => {
                let name = ServerName::try_from(NAME).context("a name")?;
                let mut stream = tls.connect(name, stream).await.context("TLS handshake")?;
                send(&mut stream, &request).await?;
                response(&mut stream, &mut buffer, run.plan.body).await?;
                // The close is part of the cost; how politely the other side closes is its own affair.
                let _ = stream.shutdown().await;
            }
        }
        run.answered(due);
    }
    Ok(())
}

/// Room for the whole of a small response.
fn buffer_size(body: usize) -> usize {
    (body + 4096).min(BUFFER)
}

/// A request as clients send it.
fn request(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nuser-agent: bench/1.0\r\naccept: */*\r\n{more}\r\n").into_bytes()
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await.context("sending a request")?;
    stream.flush().await.context("sending a request")
}

/// Reads one response whole, and finds it right.
async fn response<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut [u8], body: usize) -> anyhow::Result<()> {
    let mut filled = 0;
    let head = loop {
        ensure!(filled < buffer.len(), "a response head without an end");
        let read = stream.read(&mut buffer[filled..]).await.context("reading a response")?;
        ensure!(read > 0, "the connection ended before a response");
        filled += read;
        if let Some(end) = head::end(&buffer[..filled]) {
            break end;
        }
    };
    let length = head::body_length(&buffer[..head]).map_err(|error| anyhow!(error))?;
    ensure!(length == body, "a body of {length} bytes; {body} are right");
    let mut missing = (head + body).checked_sub(filled).context("more than one response")?;
    while missing > 0 {
        let room = buffer.len().min(missing);
        let read = stream.read(&mut buffer[..room]).await.context("reading a body")?;
        ensure!(read > 0, "the connection ended {missing} bytes before the end of a body");
        missing -= read;
    }
    Ok(())
}
