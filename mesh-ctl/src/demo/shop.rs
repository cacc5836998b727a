//! The shop's services. A user's request goes to the front end, which orders at the api, which pays at payments; the body of
//! the answer names who took part: `front=A api=B/stable payments=C/stable`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::task::drain::{self, Drain};
use mesh_core::tell;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::dial::{self, Dialer};
use crate::args::{ShopArguments, ShopRole};

/// How long requests under way may take after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection carries so many requests and is closed, as most servers do it (nginx: `keepalive_requests`), so that no caller stays
/// with what it once dialled.
const CONNECTION_REQUESTS_MAX: u32 = 100;

/// One replica of one service.
#[derive(Debug)]
struct Replica {
    role: ShopRole,
    /// What it calls itself in answers: its host name or address, and its version.
    name: String,
    fail: bool,
    next: Option<Dialer>,
}

/// Serves until SIGTERM or SIGINT, then finishes what is under way.
///
/// # Errors
/// When the address is taken, or the upstream is no URL.
pub async fn serve(arguments: ShopArguments) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::new(arguments.host, arguments.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened on"))?;
    let upstream = arguments.upstream.as_deref();
    let next = upstream.map(|url| Dialer::new(url, dial::proxy_from_environment())).transpose()?;
    let host = if arguments.host.is_unspecified() { host_name() } else { arguments.host.to_string() };
    let name = format!("{host}/{}", arguments.version);
    let replica = Arc::new(Replica { role: arguments.role, name, fail: arguments.fail, next });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (drainer, drain) = drain::channel();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, replica.clone(), drain.clone()))),
                Err(error) => tracing::debug!(%error, "accept failed"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop((listener, drain));
    if tokio::time::timeout(DRAIN_TIMEOUT, drainer.drain()).await.is_err() {
        tell!("requests under way were given up after {} s", DRAIN_TIMEOUT.as_secs());
    }
    Ok(ExitCode::SUCCESS)
}

async fn connection(stream: TcpStream, replica: Arc<Replica>, mut drain: Drain) {
    // A response that waits for its last segment is slow, not wrong.
    let _ = stream.set_nodelay(true);
    let requests = AtomicU32::new(0);
    let service = service_fn(move |request| {
        let is_last = requests.fetch_add(1, Relaxed) + 1 >= CONNECTION_REQUESTS_MAX;
        answer(replica.clone(), request, is_last)
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(
    replica: Arc<Replica>,
    request: Request<Incoming>,
    is_last: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = replica.answer(request.uri().path()).await;
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

impl Replica {
    async fn answer(&self, path: &str) -> (StatusCode, String) {
        let role = match self.role {
            ShopRole::Front => "front",
            ShopRole::Api => "api",
            ShopRole::Payments => "payments",
        };
        if path == "/healthz" {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        if self.fail {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{role} {} is broken\n", self.name));
        }
        let own = format!("{role}={}", self.name);
        let Some(next) = &self.next else { return (StatusCode::OK, own + "\n") };
        match next.get("/").await {
            Ok((StatusCode::OK, rest)) => (StatusCode::OK, format!("{own} {}", String::from_utf8_lossy(&rest))),
            Ok((status, rest)) => {
                let rest = String::from_utf8_lossy(&rest).into_owned();
                (StatusCode::BAD_GATEWAY, format!("{own} was answered {status}: {rest}"))
            }
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{own} had no answer: {:#}\n", anyhow::Error::new(error))),
        }
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
