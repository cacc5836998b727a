//! Connections on sockets, against another implementation of both roles, and against each other.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;

use super::*;
use crate::h2::drive::Serve;
use crate::message::body::{Body, Interim};
use crate::message::name::Name;

/// A body of pieces, and trailers behind it.
struct Pieces {
    pieces: Vec<Bytes>,
    trailers: Option<Fields>,
}

impl Body for Pieces {
    type Error = std::convert::Infallible;

    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Self::Error>>> {
        if !self.pieces.is_empty() {
            return Poll::Ready(Some(Ok(Frame::Data(self.pieces.remove(0)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::Trailers(trailers))))
    }

    fn is_end(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// Answers every request with its own body, behind a 103, and trailers that say its length.
struct Echo;

impl Serve for Echo {
    fn request(&mut self, stream: Stream, head: RequestHead) {
        tokio::task::spawn_local(async move {
            let stream = Rc::new(stream);
            let hints = ResponseHead::new(StatusCode::EARLY_HINTS, Version::HTTP_11, Fields::default());
            Interim::tell(&*stream, &hints);
            let (body, trailers) = whole(StreamBody(Rc::clone(&stream))).await;
            assert!(trailers.is_none());
            let fields = [("Content-Type", "text/plain"), ("x-path", std::str::from_utf8(head.path()).unwrap())];
            let response = ResponseHead::new(StatusCode::OK, Version::HTTP_11, fields.into_iter().collect());
            let length = body.len().to_string();
            let pieces = body.chunks(20_000).map(Bytes::copy_from_slice).collect();
            let trailers = Some([("x-length", length.as_str())].into_iter().collect());
            let mut sending = Sending::new(Pieces { pieces, trailers });
            stream.send_response(&response, sending.is_over()).unwrap();
            poll_fn(|cx| sending.poll(&stream, |_| Code::INTERNAL_ERROR, cx)).await.unwrap();
        });
    }
}

async fn whole(mut body: impl Body<Error = crate::error::Broken>) -> (Vec<u8>, Option<Fields>) {
    let (mut all, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame.unwrap() {
            Frame::Data(data) => all.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    (all, trailers)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

fn serve(io: DuplexStream, serve: impl Serve + 'static) -> (Rc<Link>, tokio::task::JoinHandle<Ended>) {
    let link = Link::new(Connection::server(&Settings::default(), &Limits::default(), Instant::now()));
    let driver = Driver::new(io, Rc::clone(&link));
    (link, tokio::task::spawn_local(driver.run(serve)))
}

fn connect(io: DuplexStream) -> (Rc<Link>, tokio::task::JoinHandle<Ended>) {
    let link = Link::new(Connection::client(&Settings::default(), &Limits::default(), Instant::now()));
    let driver = Driver::new(io, Rc::clone(&link));
    (link, tokio::task::spawn_local(driver.run(())))
}

fn body_of(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place / 7) as u8).collect()
}

/// What another implementation's client hears of our server.
async fn ask(sender: ::h2::client::SendRequest<Bytes>, path: String, length: usize) {
    let request = Request::builder().method("POST").uri(format!("http://a.example{path}")).body(()).unwrap();
    let (response, mut sending) = sender.ready().await.unwrap().send_request(request, length == 0).unwrap();
    let sent = async {
        let mut rest = Bytes::from(body_of(length));
        while !rest.is_empty() {
            sending.reserve_capacity(rest.len());
            let allowed = poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
            let piece = rest.split_to(allowed.min(rest.len()));
            sending.send_data(piece, rest.is_empty()).unwrap();
        }
    };
    let got = async {
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!((parts.status, parts.headers["x-path"].to_str().unwrap()), (StatusCode::OK, path.as_str()));
        let mut all = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            all.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["x-length"].to_str().unwrap(), length.to_string());
        assert!(all == body_of(length));
    };
    tokio::join!(sent, got);
}

#[test]
fn a_client_of_another_make_is_served() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(10_000);
        let (link, served) = serve(ours, Echo);
        let (sender, connection) = ::h2::client::handshake(theirs).await.unwrap();
        let driven = tokio::task::spawn_local(connection);
        let lengths = [0, 1, 1000, 16_384, 100_000, 1_000_000];
        let all = (0..60).map(|turn| {
            let sender = sender.clone();
            tokio::task::spawn_local(ask(sender, format!("/{}", turn % 5), lengths[turn % lengths.len()]))
        });
        for asked in all.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        assert_eq!(link.with(|connection| (connection.active_streams(), connection.unread_bytes())), (0, 0));
        link.with(|connection| connection.shutdown(Instant::now()));
        drop(sender);
        assert!(matches!(served.await.unwrap(), Ended::Closed));
        driven.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_of_another_make_is_asked() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(10_000);
        let server = tokio::task::spawn_local(async move {
            let mut connection = ::h2::server::handshake(theirs).await.unwrap();
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted.unwrap();
                tokio::task::spawn_local(async move {
                    assert_eq!(request.uri(), "http://a.example/some");
                    let mut body = request.into_body();
                    let mut all = Vec::new();
                    while let Some(piece) = body.data().await {
                        let piece = piece.unwrap();
                        body.flow_control().release_capacity(piece.len()).unwrap();
                        all.extend_from_slice(&piece);
                    }
                    let mut sending = respond.send_response(Response::new(()), all.is_empty()).unwrap();
                    let mut rest = Bytes::from(all);
                    while !rest.is_empty() {
                        sending.reserve_capacity(rest.len());
                        let Some(Ok(allowed)) = poll_fn(|cx| sending.poll_capacity(cx)).await else { return };
                        let piece = rest.split_to(allowed.min(rest.len()));
                        sending.send_data(piece, rest.is_empty()).unwrap();
                    }
                });
            }
        });
        let (link, driven) = connect(ours);
        let exchange = |length: usize| {
            let link = Rc::clone(&link);
            tokio::task::spawn_local(async move {
                let mut head = RequestHead::new(Method::POST, Version::HTTP_11, b"/some", Fields::default());
                head.set_authority(b"a.example");
                let pieces = body_of(length).chunks(9000).map(Bytes::copy_from_slice).collect();
                let mut exchange = Exchange::begin(&link, &head, Pieces { pieces, trailers: None }).unwrap();
                let head = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
                assert_eq!(head.status, StatusCode::OK);
                assert!(whole(exchange).await.0 == body_of(length));
            })
        };
        let all: Vec<_> = [0, 1, 70_000, 500_000].into_iter().cycle().take(40).map(exchange).collect();
        for asked in all {
            asked.await.unwrap();
        }
        assert_eq!(link.with(|connection| connection.active_streams()), 0);
        link.with(|connection| connection.shutdown(Instant::now()));
        assert!(matches!(driven.await.unwrap(), Ended::Closed));
        server.await.unwrap();
    });
}

#[test]
fn interim_responses_and_trailers_come_through() {
    run(async {
        let (near, far) = tokio::io::duplex(1000);
        let (_server, _served) = serve(far, Echo);
        let (link, _driven) = connect(near);
        let mut head = RequestHead::new(Method::GET, Version::HTTP_11, b"/x", Fields::default());
        head.set_authority(b"a.example");
        let mut exchange = Exchange::begin(&link, &head, None::<Pieces>).unwrap();
        let hints = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
        assert_eq!(hints.status, StatusCode::EARLY_HINTS);
        let head = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
        assert_eq!(head.fields.get(Name::ContentType), Some(b"text/plain".as_slice()));
        let (body, trailers) = whole(exchange).await;
        assert!(body.is_empty());
        assert_eq!(trailers.unwrap().named(b"x-length"), Some(b"0".as_slice()));
    });
}

/// Keeps its streams, and answers nothing.
#[derive(Clone, Default)]
struct Keeps(Rc<RefCell<Vec<Stream>>>);

impl Serve for Keeps {
    fn request(&mut self, stream: Stream, _head: RequestHead) {
        self.0.borrow_mut().push(stream);
    }
}

#[test]
fn what_one_side_drops_the_other_hears() {
    run(async {
        let (near, far) = tokio::io::duplex(1000);
        let kept = Keeps::default();
        let (_server, served) = serve(far, kept.clone());
        let (link, driven) = connect(near);
        let mut head = RequestHead::new(Method::GET, Version::HTTP_11, b"/x", Fields::default());
        head.set_authority(b"a.example");
        let exchange = Exchange::begin(&link, &head, None::<Pieces>).unwrap();
        let mut other = Exchange::begin(&link, &head, None::<Pieces>).unwrap();
        while kept.0.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        // The client gives up.
        drop(exchange);
        let stream = kept.0.borrow_mut().remove(0);
        let reset = poll_fn(|cx| stream.poll_reset(cx)).await;
        assert_eq!((reset.code, reset.by), (Code::CANCEL, ResetBy::Peer));
        // The server does.
        kept.0.borrow_mut().clear();
        let failed = poll_fn(|cx| other.poll_head(cx)).await.unwrap_err();
        assert!(matches!(failed, exchange::Failed::Stream(Reset { code: Code::INTERNAL_ERROR, .. })), "{failed:?}");
        // The whole connection.
        let mut last = Exchange::begin(&link, &head, None::<Pieces>).unwrap();
        served.abort();
        let failed = poll_fn(|cx| last.poll_head(cx)).await.unwrap_err();
        assert!(
            matches!(failed, exchange::Failed::Stream(Reset { by: ResetBy::Connection, seen: true, .. })),
            "{failed:?}"
        );
        drop(last);
        assert!(matches!(driven.await.unwrap(), Ended::Closed | Ended::Broken(_)));
        assert!(!link.with(|connection| connection.can_open()));
    });
}

#[test]
fn a_peer_that_breaks_a_rule_hears_it() {
    run(async {
        let (mut near, far) = tokio::io::duplex(1000);
        let (_link, served) = serve(far, Echo);
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x09\0\0\0\0\0").await.unwrap();
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        let last = frames(&all).pop().unwrap();
        assert_eq!((last.kind, last.payload[7]), (kind::GOAWAY, 1));
        let ended = served.await.unwrap();
        assert!(matches!(ended, Ended::Failed(ConnectionError::Protocol { .. })), "{ended:?}");
    });
}

#[test]
fn a_client_that_is_gone_without_a_word_is_found_out() {
    run(async {
        let (_near, far) = tokio::io::duplex(1000);
        let (_link, served) = serve(far, Echo);
        // The clock is paused: it runs on to the next timer.
        assert!(matches!(served.await.unwrap(), Ended::Failed(ConnectionError::Silent)));
    });
}

#[test]
fn answers_of_one_turn_share_a_write() {
    run(async {
        let (mut near, far) = tokio::io::duplex(100_000);
        let (_link, _served) = serve(far, Echo);
        let requests: Vec<u8> = (0..20).flat_map(|turn| headers(turn * 2 + 1, WHOLE | END, GET)).collect();
        near.write_all(&[PREFACE, &settings(&[]), &requests].concat()).await.unwrap();
        let mut buffer = vec![0; 100_000];
        let mut reads = 0;
        let mut all = Vec::new();
        while frames(&all).iter().filter(|frame| frame.kind == kind::HEADERS && frame.flags & END != 0).count() < 20 {
            let read = near.read(&mut buffer).await.unwrap();
            all.extend_from_slice(&buffer[..read]);
            reads += 1;
        }
        assert!(reads <= 2, "{reads} writes for 20 answers");
    });
}
