//! Waiting for a connection where the circuit allows no more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::stream;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::support::*;

/// A backend that answers when it is let; `/news` at once and without an end, `/once` as the last of its connection, and `/flaky` not well where it
/// is the first.
struct Gate {
    backend: Backend,
    open: Arc<Semaphore>,
    paths: Arc<Mutex<Vec<String>>>,
    busiest: Arc<AtomicUsize>,
}

impl Gate {
    async fn new() -> Self {
        let open = Arc::new(Semaphore::new(0));
        let (paths, busy, busiest): (Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (gate, log, most) = (Arc::clone(&open), Arc::clone(&paths), Arc::clone(&busiest));
        let backend = Backend::answering(move |request| {
            let (gate, log, busy, most) = (Arc::clone(&gate), Arc::clone(&log), Arc::clone(&busy), Arc::clone(&most));
            async move {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                log.lock().unwrap().push(request.uri().path().to_owned());
                if request.uri().path() == "/news" {
                    let mut response = Response::new(StreamBody::new(stream::pending()).boxed());
                    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
                    return response;
                }
                gate.acquire().await.unwrap().forget();
                busy.fetch_sub(1, Ordering::SeqCst);
                let mut response = Response::new(full(request.uri().path().to_owned()));
                if request.uri().path() == "/flaky" && log.lock().unwrap().len() == 1 {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                if request.uri().path() == "/once" {
                    response.headers_mut().insert("connection", HeaderValue::from_static("close"));
                }
                response
            }
        })
        .await;
        Self { backend, open, paths, busiest }
    }

    fn let_go(&self, number: usize) {
        self.open.add_permits(number);
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

/// Starts a request for `path`; it has come to one of these, or waits, when this returns.
async fn begin(mesh: &Mesh, gates: &[&Gate], path: &'static str) -> tokio::task::JoinHandle<Answer> {
    // Both only grow, so that it does not matter which is looked at first.
    let known = async || {
        let arrived: usize = gates.iter().map(|gate| gate.backend.count()).sum();
        arrived as f64 + mesh.metric("mesh_circuit_overflows_total", &["limit=\"connections\""]).await
    };
    let before = known().await;
    let proxy = mesh.proxy;
    let task = tokio::spawn(async move { get(proxy, "web", path).await });
    eventually(path, async || known().await > before).await;
    task
}

async fn pending(mesh: &Mesh) -> f64 {
    mesh.metric("mesh_upstream_requests_pending", &[]).await
}

/// A response whose body goes on for ever, on one of the connections. Who drops it says so at once, in h2.
async fn hold(mesh: &Mesh) -> Response<hyper::body::Incoming> {
    let mut client = h2(mesh.proxy).await;
    let response = client.send_request(request("GET", "web", "http://web/news", "")).await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn in_the_order_in_which_they_came() {
    let gate = Gate::new().await;
    let mesh = Mesh::http(&[gate.backend.address], "circuit: { max_connections: 1 }").await;
    let paths = ["/1", "/2", "/3", "/4", "/5", "/6"];
    let mut tasks = Vec::new();
    for path in paths {
        tasks.push(begin(&mesh, &[&gate], path).await);
    }
    assert_eq!(pending(&mesh).await, 5.0);
    assert_eq!(mesh.metric("mesh_upstream_requests_active", &[]).await, 1.0, "who waits is not under way");
    gate.let_go(paths.len());
    for (task, path) in tasks.into_iter().zip(paths) {
        let answer = task.await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, path));
    }
    assert_eq!(gate.paths(), paths);
    assert_eq!(gate.backend.connections.load(Ordering::SeqCst), 1);
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"connections\""]).await, 5.0);
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"pending\""]).await, 0.0);
    eventually("all places are back", async || pending(&mesh).await == 0.0).await;
}

#[tokio::test]
async fn as_many_requests_as_connections_may_be_under_way() {
    let gate = Gate::new().await;
    let mesh = Mesh::http(&[gate.backend.address], "circuit: { max_connections: 1, max_requests: 1 }").await;
    let tasks =
        [begin(&mesh, &[&gate], "/1").await, begin(&mesh, &[&gate], "/2").await, begin(&mesh, &[&gate], "/3").await];
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"requests\""]).await, 0.0);
    gate.let_go(tasks.len());
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    assert_eq!(gate.paths(), ["/1", "/2", "/3"]);
    eventually("all places are back", async || mesh.metric("mesh_upstream_requests_active", &[]).await == 0.0).await;
    // Over h2 the limit of requests is the one that counts.
    let settings = "protocol: http2, circuit: { max_connections: 1, max_requests: 1 }";
    let mesh = Mesh::http(&[gate.backend.address], settings).await;
    let first = begin(&mesh, &[&gate], "/4").await;
    eventually("it is there", async || gate.paths().len() == 4).await;
    assert_eq!(get(mesh.proxy, "web", "/5").await.status, 503);
    gate.let_go(1);
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn beyond_max_pending_the_refusal_is_immediate() {
    let gate = Gate::new().await;
    let mesh = Mesh::http(&[gate.backend.address], "circuit: { max_connections: 1, max_pending: 2 }").await;
    let tasks =
        [begin(&mesh, &[&gate], "/1").await, begin(&mesh, &[&gate], "/2").await, begin(&mesh, &[&gate], "/3").await];
    let refused = get(mesh.proxy, "web", "/4").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers["proxy-status"].to_str().unwrap().contains("\"UO "), "{refused:?}");
    assert!(refused.text().contains("limit of 2 pending"), "{}", refused.text());
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"pending\""]).await, 1.0);
    gate.let_go(4);
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    assert_eq!(get(mesh.proxy, "web", "/5").await.status, 200);
}

#[tokio::test]
async fn who_waits_too_long_is_told_for_what() {
    let gate = Gate::new().await;
    let settings = "timeout: 300ms, circuit: { max_connections: 1 }, outlier: { consecutive_5xx: 1 }";
    let mesh = Mesh::http(&[gate.backend.address], settings).await;
    let held = hold(&mesh).await;
    let late = get(mesh.proxy, "web", "/late").await;
    assert_eq!(late.status, 504);
    assert!(late.headers["proxy-status"].to_str().unwrap().contains("\"UT "), "{late:?}");
    assert!(late.text().contains("no connection to web came free within"), "{}", late.text());
    assert!(late.text().contains("1 are in use, of 1 allowed"), "{}", late.text());
    assert_eq!(mesh.metric("mesh_ejections_total", &[]).await, 0.0, "no endpoint is to blame");
    assert!(mesh.metric("mesh_upstream_wait_seconds_total", &[]).await > 0.0);
    assert_eq!(pending(&mesh).await, 0.0);
    drop(held);
    gate.let_go(1);
    assert_eq!(get(mesh.proxy, "web", "/after").await.status, 200);
    assert_eq!(gate.paths(), ["/news", "/after"]);
}

#[tokio::test]
async fn who_goes_away_makes_room_for_the_next() {
    let gate = Gate::new().await;
    let mesh = Mesh::http(&[gate.backend.address], "circuit: { max_connections: 1 }").await;
    let first = begin(&mesh, &[&gate], "/1").await;
    let client = h2(mesh.proxy).await;
    let mut gone = client.clone();
    let gone = tokio::spawn(async move { gone.send_request(request("GET", "web", "http://web/2", "")).await });
    eventually("it waits", async || pending(&mesh).await == 1.0).await;
    let third = begin(&mesh, &[&gate], "/3").await;
    gone.abort();
    eventually("it went away", async || pending(&mesh).await == 1.0).await;
    gate.let_go(2);
    for task in [first, third] {
        assert_eq!(task.await.unwrap().status, 200);
    }
    assert_eq!(gate.paths(), ["/1", "/3"]);
}

#[tokio::test]
async fn workers_get_on_side_by_side() {
    let gate = Gate::new().await;
    let service = format!("{}, circuit: {{ max_connections: 1 }}", endpoints(&[gate.backend.address]));
    let mesh = Mesh::start_with(resources(&yaml("protocol: http", &service)), 2).await;
    let tasks: Vec<_> = (0..40).map(|_| tokio::spawn(get(mesh.proxy, "web", "/"))).collect();
    eventually("many wait", async || pending(&mesh).await >= 38.0).await;
    gate.let_go(tasks.len());
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    let busiest = gate.busiest.load(Ordering::SeqCst);
    assert!(busiest <= 2, "{busiest} at once: one, and one for the other worker");
    // What the one worker holds no more the other may open, whichever is asked.
    for _ in 0..10 {
        gate.let_go(1);
        assert_eq!(get(mesh.proxy, "web", "/").await.status, 200);
    }
}

#[tokio::test]
async fn what_another_worker_gives_back_is_found() {
    let gate = Gate::new().await;
    let allowing = |connections: usize| {
        let service = format!("{}, circuit: {{ max_connections: {connections} }}", endpoints(&[gate.backend.address]));
        resources(&yaml("protocol: http", &service))
    };
    let mesh = Mesh::start_with(allowing(100), 2).await;
    // One on each worker at least, so that neither may open one beyond the limit.
    let mut held = Vec::new();
    for worker in ["worker=\"0\"", "worker=\"1\""] {
        while mesh.metric("mesh_worker_connections_active", &[worker]).await == 0.0 {
            held.push(hold(&mesh).await);
            assert!(held.len() < 100, "all of them came to one worker");
        }
    }
    mesh.told.send_replace(allowing(held.len()));
    let limit = format!("\"max\": {}", held.len());
    eventually("the limit", async || get(mesh.admin, "admin", "/clusters").await.text().contains(&limit)).await;
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(get(mesh.proxy, "web", "/once"))).collect();
    eventually("all wait", async || pending(&mesh).await == 8.0).await;
    // One worker alone has a connection that ends.
    held.pop();
    gate.let_go(tasks.len());
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    let left = async || mesh.metric("mesh_upstream_connections_active", &[]).await;
    eventually("nothing stays open", async || left().await == held.len() as f64).await;
}

#[tokio::test]
async fn a_connection_to_elsewhere_that_nobody_uses_makes_room() {
    for protocol in ["http1", "http2"] {
        let [one, other] = [Backend::saying(200, "one").await, Backend::saying(200, "other").await];
        let settings = format!("protocol: {protocol}, lb: round_robin, circuit: {{ max_connections: 1 }}");
        let mesh = Mesh::http(&[one.address, other.address], &settings).await;
        for _ in 0..10 {
            assert_eq!(get(mesh.proxy, "web", "/").await.status, 200);
        }
        assert_eq!((one.count(), other.count()), (5, 5), "{protocol}");
        assert_eq!(mesh.metric("mesh_circuit_overflows_total", &[]).await, 0.0, "nobody waited: {protocol}");
    }
}

#[tokio::test]
async fn a_stream_on_another_connection_will_do() {
    let [one, other] = [Gate::new().await, Gate::new().await];
    let settings = "protocol: http2, lb: round_robin, circuit: { max_connections: 1 }";
    let mesh = Mesh::http(&[one.backend.address, other.backend.address], settings).await;
    let tasks = [
        begin(&mesh, &[&one, &other], "/1").await,
        begin(&mesh, &[&one, &other], "/2").await,
        begin(&mesh, &[&one, &other], "/3").await,
    ];
    eventually("all are there", async || one.paths().len() + other.paths().len() == 3).await;
    assert!(one.paths().is_empty() || other.paths().is_empty(), "there is one connection");
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &[]).await, 0.0, "nobody waited");
    one.let_go(3);
    other.let_go(3);
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_left_meanwhile_gets_nothing() {
    let [old, new] = [Gate::new().await, Gate::new().await];
    let service = |backend: &Backend| format!("{}, circuit: {{ max_connections: 1 }}", endpoints(&[backend.address]));
    let mesh = Mesh::http(&[old.backend.address], "circuit: { max_connections: 1 }").await;
    let held = hold(&mesh).await;
    let waiting = begin(&mesh, &[&old], "/1").await;
    let listen = format!("listeners:\n  - {{ listen: \"{}\", service: web, protocol: http }}\n", mesh.proxy);
    mesh.told.send_replace(resources(&format!("{listen}services:\n  web: {{ {} }}\n", service(&new.backend))));
    eventually("the new one is known", async || {
        let clusters = get(mesh.admin, "admin", "/clusters").await;
        clusters.text().contains(&new.backend.address.to_string())
    })
    .await;
    drop(held);
    new.let_go(1);
    assert_eq!(waiting.await.unwrap().text(), "/1");
    assert_eq!((old.paths(), new.paths()), (vec!["/news".to_owned()], vec!["/1".to_owned()]));
}

#[tokio::test]
async fn a_retry_waits_behind_those_who_came_before_it() {
    let gate = Gate::new().await;
    let settings =
        "circuit: { max_connections: 1 }, outlier: { consecutive_5xx: 0 }, retry: { on: [5xx], attempts: 1 }";
    let mesh = Mesh::http(&[gate.backend.address], settings).await;
    let tasks = [begin(&mesh, &[&gate], "/flaky").await, begin(&mesh, &[&gate], "/2").await];
    gate.let_go(1);
    eventually("the second has its turn", async || gate.paths().len() == 2).await;
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"connections\""]).await, 2.0);
    assert_eq!(pending(&mesh).await, 1.0);
    gate.let_go(2);
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    assert_eq!(gate.paths(), ["/flaky", "/2", "/flaky"]);
    eventually("all places are back", async || pending(&mesh).await == 0.0).await;
}

#[tokio::test]
async fn raw_connections_wait_as_long_as_a_connect_may_take() {
    let backend = Backend::raw(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let echo = async |stream: &mut TcpStream| {
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.map(|_| answer)
    };
    let service = |timeout: &str| {
        format!("{}, connect_timeout: {timeout}, circuit: {{ max_connections: 1 }}", endpoints(&[backend.address]))
    };
    let mesh = Mesh::start(&yaml("protocol: tcp", &service("30s"))).await;
    let mut first = TcpStream::connect(mesh.proxy).await.unwrap();
    assert_eq!(&echo(&mut first).await.unwrap(), b"hello");
    let mut second = TcpStream::connect(mesh.proxy).await.unwrap();
    eventually("it waits", async || pending(&mesh).await == 1.0).await;
    drop(first);
    assert_eq!(&echo(&mut second).await.unwrap(), b"hello");
    let mesh = Mesh::start(&yaml("protocol: tcp", &service("200ms"))).await;
    let mut first = TcpStream::connect(mesh.proxy).await.unwrap();
    assert_eq!(&echo(&mut first).await.unwrap(), b"hello");
    let mut second = TcpStream::connect(mesh.proxy).await.unwrap();
    assert!(echo(&mut second).await.is_err());
    eventually("it is told why", async || mesh.metric("mesh_requests_total", &["reason=\"UT\""]).await == 1.0).await;
    assert_eq!(&echo(&mut first).await.unwrap(), b"hello");
}
