//! What one request costs inside the proxy's process, with every policy on: allocations of the proxy's threads, counted exactly, and
//! the time of the whole exchange over loopback.
//!
//! The real app runs beside a client and a service that are not counted. One request is under way at a time, so that what is counted
//! belongs to it. How the proxy stands beside others is told by `tests/bench/compare`, not by these times.
//!
//!   cargo bench -p mesh-proxy --bench request
#![allow(clippy::unwrap_used)] // a benchmark ends where something unexpected happens

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkGroup, Criterion};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_proxy::app::{App, Options};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

mod allocations; // counted by thread

use allocations::{Allocations, Bytes as AllocatedBytes, leave_out};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const BODY: &[u8] = &[b'x'; 1024];

/// Which version a side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

const CASES: [(&str, Version, Version); 3] = [
    ("h1", Version::Http1, Version::Http1),
    ("h2-h1", Version::Http2, Version::Http1),
    ("h2-h2", Version::Http2, Version::Http2),
];

fn main() {
    leave_out();
    let runtime = runtime();
    let endpoints: Vec<_> = (0..3).map(|_| service()).collect();
    let mut clients: Vec<_> = CASES
        .into_iter()
        .map(|(name, version, upstream)| {
            (name, runtime.block_on(Client::connect(proxy(&endpoints, upstream), version)))
        })
        .collect();
    let base = || Criterion::default().without_plots().configure_from_args();
    let mut time: Criterion<WallTime> = base().measurement_time(Duration::from_secs(3));
    group(&mut time.benchmark_group("time"), &runtime, &mut clients);
    let short = || base().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    group(&mut short().with_measurement(Allocations).benchmark_group("allocations"), &runtime, &mut clients);
    group(&mut short().with_measurement(AllocatedBytes).benchmark_group("bytes allocated"), &runtime, &mut clients);
    time.final_summary();
}

fn group<M: Measurement>(group: &mut BenchmarkGroup<'_, M>, runtime: &Runtime, clients: &mut [(&'static str, Client)]) {
    for (name, client) in clients {
        group.bench_function(*name, |bencher| bencher.iter(|| runtime.block_on(client.request())));
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The real proxy with one worker, on threads of its own.
fn proxy(endpoints: &[SocketAddr], upstream: Version) -> SocketAddr {
    let each: Vec<_> = endpoints.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    let protocol = if upstream == Version::Http2 { "http2" } else { "http1" };
    let file = format!(
        "listeners: [ {{ listen: \"127.0.0.1:0\", service: web, protocol: http }} ]
services:
  web:
    lb: least_request
    protocol: {protocol}
    timeout: 15s
    retry: {{ on: [connect-failure, refused-stream, reset, gateway-error], attempts: 2, budget: 20%, methods: idempotent }}
    circuit: {{ max_connections: 1024, max_pending: 1024, max_requests: 1024 }}
    outlier: {{ consecutive_5xx: 5, base_ejection_time: 30s, max_ejection_percent: 50% }}
    endpoints: [ {} ]
",
        each.join(", ")
    );
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let resources =
            mesh_proxy::config::parse("bench", &file).unwrap_or_else(|problems| panic!("{problems}")).resources;
        runtime().block_on(async {
            let (_told, watched) = watch::channel(Arc::new(resources));
            let app = App::bind(Options::default(), watched).await.unwrap();
            sender.send(*app.addresses().values().next().unwrap()).unwrap();
            app.run(std::future::pending()).await;
        });
    });
    address.recv().unwrap()
}

/// A service that answers every request with 1 KiB, in HTTP/1.1 and h2, on a thread that is not counted.
fn service() -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        leave_out();
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let answer = service_fn(async |_| {
                    let response = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(BODY))).unwrap())
                });
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
    });
    address.recv().unwrap()
}

/// One connection to the proxy.
enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn connect(proxy: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(proxy).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = TokioIo::new(stream);
        match version {
            Version::Http1 => {
                let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Version::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        }
    }

    /// One request, and its whole response.
    async fn request(&mut self) {
        let request = |uri: &str| {
            let request = Request::get(uri).header("host", "web.bench.test").header("user-agent", "bench/1.0");
            request.header("accept", "*/*").body(Empty::new()).unwrap()
        };
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request("/")).await
            }
            Self::Http2(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request("http://web.bench.test/")).await
            }
        };
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), BODY.len());
    }
}
