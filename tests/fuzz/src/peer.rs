//! hyper as the other end of an HTTP/1.1 connection: what it makes of bytes that are all there from the start. What both sides take they
//! must understand alike, or a request can be smuggled past one of them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{client, ext, server};
use mesh_proxy::message::fields::Fields;

/// A future that is polled more often than this for one input does not end.
const POLLS_MAX: usize = 100_000;

/// A request as a server of hyper read it.
#[derive(Debug)]
pub struct Asked {
    pub method: Method,
    pub target: Uri,
    pub version: Version,
    pub fields: HeaderMap,
    /// None while it is not whole, or when it is wrong.
    pub body: Option<Body>,
}

/// A response as a client of hyper read it.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub version: Version,
    /// None for the usual words.
    pub reason: Option<Vec<u8>>,
    pub fields: HeaderMap,
    /// None when it was not whole, or wrong.
    pub body: Option<Body>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    pub data: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// All requests that a server of hyper finds in `input`, which ends there.
#[must_use]
pub fn served(input: &[u8]) -> Vec<Asked> {
    let all = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let place = all.borrow().len();
        all.borrow_mut().push(Asked {
            method: parts.method,
            target: parts.uri,
            version: parts.version,
            fields: parts.headers,
            body: None,
        });
        let body = whole(body).await;
        all.borrow_mut()[place].body = body;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let wire = Wire::new(input, true);
    let _ = run(server::conn::http1::Builder::new().half_close(true).serve_connection(wire, service));
    all.into_inner()
}

/// What a client of hyper takes `input` for, as the answer to a request of `method`. As a proxy should, it takes out white space before
/// a colon (RFC 9112 section 5.1).
#[must_use]
pub fn answered(input: &[u8], method: &Method) -> Option<Answered> {
    let mut builder = client::conn::http1::Builder::new();
    builder.allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = run(builder.handshake(Wire::new(input, false)))?.ok()?;
    let exchange = async {
        let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new());
        let response = sender.send_request(request.expect("a request")).await.ok()?;
        let (parts, body) = response.into_parts();
        let reason = parts.extensions.get::<ext::ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        let (status, version, fields) = (parts.status, parts.version, parts.headers);
        Some(Answered { status, version, reason, fields, body: whole(body).await })
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let mut is_over = false;
    let both = std::future::poll_fn(|cx| {
        is_over = is_over || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    });
    run(both)?
}

async fn whole(mut body: Incoming) -> Option<Body> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(Body { data, trailers })
}

/// Fields in the order of their names, those of one name in the order they came.
#[must_use]
pub fn ours(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let lower = |letters: &[u8]| String::from_utf8_lossy(letters).to_ascii_lowercase();
    let mut all: Vec<_> = fields.iter().map(|field| (lower(field.letters), field.value.to_vec())).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// The same of hyper's.
#[must_use]
pub fn theirs(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// All lines of a head that was written: none of them holds what would part it for somebody else.
///
/// # Panics
/// When one does.
pub fn check_lines(written: &[u8]) {
    let mut rest = written.strip_suffix(b"\r\n\r\n").expect("it ends in an empty line");
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        check_line(&rest[..end]);
        rest = &rest[end + 2..];
    }
    check_line(rest);
}

fn check_line(line: &[u8]) {
    let parts = line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    assert!(!line.is_empty() && !parts, "{}", line.escape_ascii());
}

/// Runs what waits for nothing but itself; none when it would wait for ever.
fn run<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            return None;
        }
    }
    panic!("it never ends");
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes to read, and then the end; what is written is lost.
struct Wire {
    left: Bytes,
    /// A response is not there before its request.
    is_open: bool,
    reader: Option<Waker>,
}

impl Wire {
    fn new(input: &[u8], is_open: bool) -> Self {
        Self { left: Bytes::copy_from_slice(input), is_open, reader: None }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut room: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.is_open {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = room.remaining().min(self.left.len());
        room.put_slice(&self.left.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_open = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
