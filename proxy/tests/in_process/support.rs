//! A mesh of one proxy, backends that behave and backends that do not, and clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::model::resource::Resources;
use mesh_proxy::app::{App, Drained, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Nothing here takes that long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Mesh {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub told: watch::Sender<Arc<Resources>>,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<Drained>,
}

pub fn resources(yaml: &str) -> Arc<Resources> {
    Arc::new(mesh_proxy::config::parse("test", yaml).unwrap_or_else(|problems| panic!("{problems}")).resources)
}

/// One listener with these settings in front of a service `web` with these.
pub fn yaml(listener: &str, service: &str) -> String {
    format!(
        "listeners:\n  - {{ listen: \"127.0.0.1:0\", service: web, {listener} }}\nservices:\n  web: {{ {service} }}\n"
    )
}

pub fn endpoints(addresses: &[SocketAddr]) -> String {
    let each: Vec<_> = addresses.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    format!("endpoints: [ {} ]", each.join(", "))
}

impl Mesh {
    pub async fn start(yaml: &str) -> Self {
        Self::start_from(resources(yaml), Duration::from_secs(5)).await
    }

    pub async fn start_from(resources: Arc<Resources>, drain_timeout: Duration) -> Self {
        Self::start_by(resources, Options { workers: 1, drain_timeout, ..Options::default() }).await
    }

    /// With so many workers.
    pub async fn start_with(resources: Arc<Resources>, workers: usize) -> Self {
        let drain_timeout = Duration::from_secs(5);
        Self::start_by(resources, Options { workers, drain_timeout, ..Options::default() }).await
    }

    async fn start_by(resources: Arc<Resources>, options: Options) -> Self {
        let (told, watched) = watch::channel(resources);
        let admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let options = Options { admin, ..options };
        let app = App::bind(options, watched).await.unwrap();
        let proxy = *app.addresses().values().next().unwrap();
        let admin = app.admin_address().unwrap();
        let (shutdown, ended) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async move {
            let _ = ended.await;
        }));
        Self { proxy, admin, told, shutdown: Some(shutdown), running }
    }

    /// An HTTP mesh over those endpoints, with further settings of the service.
    pub async fn http(backends: &[SocketAddr], settings: &str) -> Self {
        Self::start(&yaml("protocol: http", &format!("{}, {settings}", endpoints(backends)))).await
    }

    pub fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    pub async fn drained(mut self) -> Drained {
        self.shut_down();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap()
    }

    pub async fn metrics(&self) -> String {
        let answer = get(self.admin, "admin", "/metrics").await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// The sum of a family's samples whose line contains all of these.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await; // between two looks
    }
}

/// A backend that counts what it is asked.
#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
}

impl Backend {
    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Answers by `answer`, in HTTP/1.1 and h2.
    pub async fn answering<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<BoxedBody>> + Send + 'static,
    {
        let counted = Arc::new(AtomicUsize::new(0));
        let requests = Arc::clone(&counted);
        let backend = Self::raw(move |stream| {
            let (answer, counted) = (answer.clone(), Arc::clone(&counted));
            async move {
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { requests, ..backend }
    }

    pub async fn saying(status: u16, text: &'static str) -> Self {
        Self::answering(move |_| async move {
            let mut response = Response::new(full(text));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        })
        .await
    }

    /// Does as it likes with each connection.
    pub async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, requests: Arc::default(), connections }
    }
}

pub type BoxedBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

pub fn full(text: impl Into<Bytes>) -> BoxedBody {
    Full::new(text.into()).boxed()
}

/// Reads up to the end of a request head, and as much of its body as `Content-Length` says.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            if bytes.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub async fn whole(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, body) = response.into_parts();
    let collected = tokio::time::timeout(PATIENCE, body.collect()).await.expect("a body that ends")?;
    let trailers = collected.trailers().cloned();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), trailers })
}

/// A kept-alive connection of HTTP/1.1.
pub async fn h1(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<BoxedBody> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// A connection of h2 by prior knowledge.
pub async fn h2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<BoxedBody> {
    let stream = TcpStream::connect(address).await.unwrap();
    let executor = TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn request(method: &str, host: &str, path: &str, body: impl Into<Bytes>) -> Request<BoxedBody> {
    Request::builder().method(method).uri(path).header("host", host).body(full(body)).unwrap()
}

pub async fn send(address: SocketAddr, request: Request<BoxedBody>) -> Answer {
    let response = tokio::time::timeout(PATIENCE, async { h1(address).await.send_request(request).await });
    whole(response.await.expect("an answer in time").unwrap()).await.unwrap()
}

pub async fn get(address: SocketAddr, host: &str, path: &str) -> Answer {
    send(address, request("GET", host, path, "")).await
}

pub async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}
