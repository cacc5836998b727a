//! Services to be called: each answers with its name, counts its calls, and can be told to fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[derive(Debug)]
struct State {
    name: String,
    status: AtomicU16,
    calls: AtomicU64,
}

/// One service on one address, HTTP/1.1 and h2c; it ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    /// Shared by those that were started together.
    _thread: Arc<Thread>,
}

/// Ends when all of its services have.
#[derive(Debug)]
struct Thread(Option<std::thread::JoinHandle<()>>);

impl Backend {
    /// Listens on `address` (port 0: any) and answers `name` to every request, with the request's body behind it.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(name: &str, address: SocketAddr) -> Self {
        Self::start_together(&[(name, address)]).remove(0)
    }

    /// Several in one thread: whatever else the machine does, none of them is faster than another.
    ///
    /// # Panics
    /// When an address is taken.
    #[must_use]
    pub fn start_together(services: &[(&str, SocketAddr)]) -> Vec<Self> {
        let (mut begun, mut serving) = (Vec::new(), Vec::new());
        for (name, address) in services {
            let listener = std::net::TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
            listener.set_nonblocking(true).expect("a socket can be made non-blocking");
            let address = listener.local_addr().expect("a bound socket has an address");
            let state = State { name: (*name).to_owned(), status: AtomicU16::new(200), calls: AtomicU64::new(0) };
            let (state, (stop, stopped)) = (Arc::new(state), oneshot::channel::<()>());
            begun.push((address, Arc::clone(&state), stop));
            serving.push(async move {
                tokio::select! {
                    () = serve(listener, state) => (),
                    _ = stopped => (),
                }
            });
        }
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(futures_util::future::join_all(serving));
        });
        let thread = Arc::new(Thread(Some(thread)));
        let backend = |(address, state, stop)| Self { address, state, stop: Some(stop), _thread: Arc::clone(&thread) };
        begun.into_iter().map(backend).collect()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls answered so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// The status of all answers from now on.
    pub fn answer_with(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic in it was printed where it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("the runtime takes the socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), request));
            // A client that breaks off is the test's own doing.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    state.calls.fetch_add(1, Ordering::Relaxed);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut text = state.name.clone().into_bytes();
    text.extend_from_slice(&body);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let status = state.status.load(Ordering::Relaxed);
    *response.status_mut() = StatusCode::from_u16(status).expect("a test sets real codes");
    Ok(response)
}
