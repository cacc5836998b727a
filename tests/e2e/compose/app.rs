//! What runs inside the containers: a service that answers with its host name and can be told to fail or to feel ill, and clients
//! that call by name and print a line for each call. Like most programs it knows nothing of draining: SIGTERM ends it at once.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_ctl::demo::dial::{DialError, Dialer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

static FAILS: AtomicBool = AtomicBool::new(false);
static IS_ILL: AtomicBool = AtomicBool::new(false);

/// Between two calls of a client.
const PERIOD: Duration = Duration::from_millis(10);

/// The role that the command line names; none: this is a test run.
pub fn run(words: &[String]) -> Option<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    match words[..] {
        ["serve"] => Some(runtime().block_on(serve())),
        ["health"] => Some(runtime().block_on(async { show(get("http://127.0.0.1:8080", "/health").await) })),
        ["get", url, path] => Some(runtime().block_on(async { show(get(url, path).await) })),
        ["call", manner @ ("kept" | "new"), url] => Some(runtime().block_on(call(url, manner == "kept"))),
        _ => None,
    }
}

async fn serve() -> ExitCode {
    let listener = TcpListener::bind(("0.0.0.0", 8080)).await.expect("the port is free in a container");
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                // A client that breaks off is nothing to tell.
                let connection = async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                };
                tokio::spawn(connection);
            }
            _ = terminated.recv() => return ExitCode::SUCCESS,
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let fails = match path {
        "/fail" | "/feel-ill" => false,
        "/health" => IS_ILL.load(Ordering::Relaxed),
        _ => FAILS.load(Ordering::Relaxed),
    };
    FAILS.fetch_or(path == "/fail", Ordering::Relaxed);
    IS_ILL.fetch_or(path == "/feel-ill", Ordering::Relaxed);
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(host)));
    if fails {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

type Answer = Result<(StatusCode, Bytes), DialError>;

async fn get(url: &str, path: &str) -> Answer {
    Dialer::new(url, None)?.get(path).await
}

fn show(answer: Answer) -> ExitCode {
    let (line, good) = shown(answer);
    println!("{line}");
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shown(answer: Answer) -> (String, bool) {
    match answer {
        Ok((StatusCode::OK, host)) => (format!("200 {}", String::from_utf8_lossy(&host)), true),
        Ok((status, body)) => (format!("FAILED {status} {}", String::from_utf8_lossy(&body).trim()), false),
        Err(error) => (format!("FAILED {}", mesh_proxy::error::chain(&error)), false),
    }
}

/// Calls until SIGTERM, over one kept connection or over a new one each time.
async fn call(url: &str, is_kept: bool) -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
    let mut due = tokio::time::interval(PERIOD);
    let mut dialer = Dialer::new(url, None).expect("a test gives a URL");
    loop {
        tokio::select! {
            _ = due.tick() => {}
            _ = terminated.recv() => return ExitCode::SUCCESS,
        }
        if !is_kept {
            dialer = Dialer::new(url, None).expect("a test gives a URL");
        }
        println!("{}", shown(dialer.get("/").await).0);
    }
}
