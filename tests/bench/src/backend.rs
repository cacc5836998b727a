//! The service behind the proxies: three endpoints in one process, that answer without thinking, in HTTP/1.1 or h2 by the client's
//! first bytes.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod h1; // one response a request head
mod h2; // one response a stream

/// As many as a service has at least, for balancing to have a choice.
pub const ENDPOINTS: usize = 3;

/// Of the small response, and of the large one.
pub const SMALL: usize = 1024;
pub const LARGE: usize = 10 << 20;

/// The path of the large response; any other is answered with the small one.
pub const LARGE_PATH: &str = "/large";

/// Serves until the process ends. The first line on stdout names the addresses.
///
/// # Errors
/// When nothing can be bound.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut addresses = Vec::new();
        let mut serving = Vec::new();
        for _ in 0..ENDPOINTS {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for an endpoint")?;
            addresses.push(listener.local_addr().context("no address")?.to_string());
            serving.push(tokio::task::spawn_local(accept(listener)));
        }
        println!("{}", addresses.join(" "));
        for listener in serving {
            listener.await.context("an endpoint broke off")?;
        }
        Ok(())
    })
}

/// What `serve` says first.
///
/// # Errors
/// When it is something else.
pub fn parse_addresses(line: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let parsed: Result<Vec<SocketAddr>, _> = line.split_whitespace().map(str::parse).collect();
    let addresses = parsed.with_context(|| format!("the backend said {line:?}"))?;
    anyhow::ensure!(addresses.len() == ENDPOINTS, "the backend said {line:?}; {ENDPOINTS} addresses are wanted");
    Ok(addresses)
}

/// Connections are many, but no more than the load generator makes: nothing else knows the port.
async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // A connection that ends, ends: the load generator is the one that tells what was missing.
        tokio::task::spawn_local(async move { connection(stream).await.ok() });
    }
}

async fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    let mut input = Vec::with_capacity(16 << 10);
    while input.len() < 3 {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
    if input.starts_with(b"PRI") { h2::serve(stream, input).await } else { h1::serve(stream, input).await }
}

/// The fields of every response, as services send them.
const CONTENT_TYPE: &str = "application/json";
const DATE: &str = "Mon, 06 Jan 2025 10:00:00 GMT";
const SERVER: &str = "backend/1.0";

/// Writes all of it, with as few calls as the socket allows.
async fn write(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await
}
