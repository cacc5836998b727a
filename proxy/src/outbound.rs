//! Stage 4' of a request's walk, the composer of what a request passes through: whom it is for → which cluster → may it go →
//! which endpoint → a connection → the exchange → once more? → the response.
//!
//! Plain `async fn`s in named phases rather than `tower` layers: the phases share borrowed state (the tries made so far, the body
//! as far as it was read), which a stack of services would have to clone or box for each request, and the walk reads from top to
//! bottom.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::Either;
use http::{Method, StatusCode, Version};
use mesh_core::model::protocol::UpstreamProtocol;

use crate::error::ProxyError;
use crate::http::access_log::AccessLog;
use crate::http::asked::{Answer, Asked};
use crate::http::client::Client;
use crate::http::upgrade::{self, Outcome, Upgrade};
use crate::http::{date, grpc, headers, refuse};
use crate::message::body::{Body, Interim};
use crate::message::name::Name;
use crate::message::{RequestHead, ResponseHead};
use crate::metrics::{ClusterMetrics, Spoken, WorkerMetrics};
use crate::resilience::breaker::{self, Limit, Overflow, Permit};
use crate::resilience::timeout::{Deadlines, Exchange};
use crate::route::dialled::Choice;
use crate::state::local::{LocalCluster, LocalState};
use crate::upstream::pool_h1::PoolH1;
use crate::upstream::pool_h2::PoolH2;
use crate::upstream::request_body::ReplayableBody;
use crate::upstream::response_body::UpstreamBody;

pub mod answer; // the response's body, and what must end with it
pub mod record; // what is counted and logged when a request ends
mod choice; // which endpoint, and what a try goes on
mod pending; // who waits for a connection
mod attempt; // one try: a connection, and the exchange on it
mod retry; // tries, until one answers
pub mod switch; // a connection that becomes something else
mod relay; // bytes both ways, and the end of both connections
pub mod raw; // a connection that is no HTTP
pub mod way; // where a connection comes from, and where it was going

use answer::AnswerBody;
use record::Record;
use switch::Switched;
use way::{Exact, Toward, Way};

/// What one worker has for all its requests.
pub struct Worker {
    pub state: LocalState,
    pub metrics: Arc<WorkerMetrics>,
    /// Requests that lead to no cluster are counted here.
    pub nowhere: Rc<ClusterMetrics>,
    /// Captured connections that are carried as they were dialled are counted here.
    pub passthrough: Rc<ClusterMetrics>,
    pub pool_h1: Rc<PoolH1>,
    pub pool_h2: Rc<PoolH2>,
    pub log: AccessLog,
    pub copying: Rc<crate::tcp::forward::Scratch>,
    random: RefCell<fastrand::Rng>,
}

/// Every byte, in two digits.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = [digits[byte >> 4], digits[byte & 0xf]];
        byte += 1;
    }
    all
};

/// One request on its way, apart from its body.
struct Walk {
    worker: Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    cluster: Rc<LocalCluster>,
    /// The only endpoint that may take it.
    exact: Option<Exact>,
    head: RequestHead,
    body: ReplayableBody,
    interim: Rc<dyn Interim>,
    /// What it wants to become.
    upgrade: Option<Upgrade>,
    protocol: UpstreamProtocol,
    deadlines: Deadlines,
}

impl Worker {
    #[must_use]
    pub fn new(state: LocalState, metrics: Arc<WorkerMetrics>, log: AccessLog, seed: u64) -> Self {
        let nowhere = ClusterMetrics::new(Arc::from("unknown"), &metrics);
        let passthrough = ClusterMetrics::new(Arc::from("passthrough"), &metrics);
        Self {
            state,
            metrics,
            nowhere,
            passthrough,
            pool_h1: Rc::default(),
            pool_h2: Rc::default(),
            log,
            copying: Rc::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// What has to happen once in a while: old connections go, and lines that wait are written.
    pub fn tick(&self, now: Instant) {
        // Series of clusters that vanished go with the picture they were in.
        drop(self.state.current());
        self.pool_h1.sweep(now);
        self.pool_h2.sweep(now);
        self.log.flush();
        let counters = &self.pool_h1.counters;
        self.metrics.pool_reused.set(counters.reused.get());
        self.metrics.pool_idle_overflow.set(counters.idle_overflow.get());
        self.metrics.pool_idle_expired.set(counters.idle_expired.get());
        self.metrics.pool_idle_closed.set(counters.idle_closed.get());
        self.metrics.pool_idle.set(self.pool_h1.idle_count() as u64);
    }

    /// A version 4 UUID (RFC 9562 section 5.4).
    fn request_id(&self) -> [u8; 36] {
        let random = self.random.borrow_mut().u128(..);
        let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let mut text = [b'-'; 36];
        let mut place = 0;
        for (index, byte) in bits.to_be_bytes().into_iter().enumerate() {
            place += usize::from(matches!(index, 4 | 6 | 8 | 10));
            text[place..place + 2].copy_from_slice(&HEXADECIMAL[byte as usize]);
            place += 2;
        }
        text
    }
}

/// Answers one request. Whatever goes wrong becomes a response with its reason; what goes wrong later ends its body.
pub fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    asked: Asked,
) -> impl Future<Output = Answer<AnswerBody, Switched>> {
    let started = Instant::now();
    let Asked { head, body, interim } = asked;
    let version = head.version;
    client.begin_request();
    let is_grpc = version == Version::HTTP_2 && grpc::is_grpc(&head.fields);
    let spoken = match version {
        _ if is_grpc => Spoken::Grpc,
        Version::HTTP_2 => Spoken::Http2,
        _ => Spoken::Http1,
    };
    let mut record = Record::begin(&worker, &client, &way, spoken, started);
    record.note_head(&head);

    // Whom it is for, and which cluster that is. Nothing is known about the destination yet.
    let asked = Asked { head, body, interim };
    let mut walk = match prepare(worker, client, way, asked, started, &mut record) {
        Ok(walk) => walk,
        Err(error) => return Either::Left(ready(refused(error, is_grpc, record))),
    };
    // May it go at all: one place among the requests under way.
    match walk.begin() {
        Ok(permit) => record.hold(permit),
        Err(error) => return Either::Left(ready(refused(error, is_grpc, record))),
    };
    // Which endpoint, a connection, the exchange, and once more where that may help. Only this waits, and so only what it needs
    // is kept in the future that waits.
    Either::Right(async move {
        let answered = {
            let mut exchange = pin!(retry::exchange(&walk, &mut record));
            std::future::poll_fn(|cx| match exchange.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(answered),
                Poll::Pending => walk.interim.poll_malformed(cx).map(|source| Err(ProxyError::ClientCut { source })),
            })
            .await
        };
        let (head, body) = match answered {
            Ok(answered) => answered,
            Err(error) => return refused(error, is_grpc, record),
        };
        respond(&mut walk, head, body, record)
    })
}

/// From the request head to a walk that knows its cluster.
fn prepare(
    worker: Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    asked: Asked,
    now: Instant,
    record: &mut Record,
) -> Result<Walk, ProxyError> {
    let Asked { mut head, body, interim } = asked;
    headers::settle_authority(&mut head).map_err(|problem| ProxyError::BadRequest { problem })?;
    record.note_authority(&head);
    let authority = head.authority().unwrap_or_default();
    if head.method == Method::CONNECT && head.protocol().is_none() {
        return Err(ProxyError::TunnelRefused { authority: String::from_utf8_lossy(authority).into_owned() });
    }
    headers::count_forward(&mut head)?;
    let (cluster, exact) = route(&worker, &client, &way, head.authority().unwrap_or_default())?;
    record.destined(&cluster, exact.is_some());
    let wanted = Upgrade::wanted(&head).map_err(|problem| ProxyError::BadRequest { problem })?;
    let mut upgrade = wanted.and_then(|upgrade| upgrade.of_endpoint(cluster.live.cluster().protocol, &head));
    headers::strip_hop_by_hop(&mut head.fields);
    client.forwarding.request(&mut head);
    headers::ensure_request_id(&mut head.fields, || worker.request_id());
    record.note_request_id(&head.fields);
    let live = &cluster.live;
    let protocol = match (live.cluster().protocol, head.version) {
        _ if upgrade.as_ref().is_some_and(Upgrade::takes_connection) => UpstreamProtocol::Http1,
        (UpstreamProtocol::AsDownstream, Version::HTTP_2) => UpstreamProtocol::Http2,
        (UpstreamProtocol::AsDownstream, _) => UpstreamProtocol::Http1,
        (named, _) => named,
    };
    match protocol {
        // What an endpoint says of going on with a request does not come back over h2: the client is told at once.
        UpstreamProtocol::Http2 if head.fields.has_member(Name::Expect, b"100-continue") => {
            interim.tell(&headers::go_on());
            head.fields.remove(Name::Expect);
        }
        UpstreamProtocol::Http2 => {}
        UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream => {
            // What is of one connection only has to be named as such (RFC 9110 sections 7.8 and 10.1.4).
            if head.fields.has(Name::Te) {
                head.fields.add(Name::Connection, b"te");
            }
        }
    }
    let by_stream = upgrade.as_ref().is_some_and(|upgrade| !upgrade.takes_connection());
    if let Some(upgrade) = &mut upgrade {
        upgrade.ask(&mut head, protocol, || worker.random.borrow_mut().u128(..));
    }
    let deadlines = Deadlines::new(live.policy(), now);
    // A stream of messages is meant to be silent at times; anything else is not.
    let idle_timeout = (!grpc::is_grpc(&head.fields)).then_some(client.limits.body_idle_timeout);
    let retries = &live.policy().retry;
    let remember = (retries.attempts > 0 && !retries.on.is_empty()).then_some(retries.body_bytes_max);
    let body = match protocol {
        // What comes on the stream is for the tunnel.
        UpstreamProtocol::Http2 if by_stream => ReplayableBody::Unanswered,
        _ if by_stream => ReplayableBody::Empty,
        _ => ReplayableBody::new(body, remember, idle_timeout),
    };
    Ok(Walk { worker, client, way, cluster, exact, head, body, interim, upgrade, protocol, deadlines })
}

/// The cluster for a request, and the one endpoint of it that may take it where only that one was meant.
fn route(
    worker: &Worker,
    client: &Client,
    way: &Way,
    authority: &[u8],
) -> Result<(Rc<LocalCluster>, Option<Exact>), ProxyError> {
    let local = worker.state.current();
    let text =
        std::str::from_utf8(authority).map_err(|_| ProxyError::BadRequest { problem: "the authority is not ASCII" })?;
    let cluster = |name: &Arc<str>| {
        let cluster = local.clusters.get(name).map(Rc::clone);
        cluster.ok_or_else(|| ProxyError::UnknownCluster { cluster: Arc::clone(name) })
    };
    if let Toward::Endpoint { dialled, .. } = &way.toward {
        let cluster = cluster(&dialled.cluster)?;
        let exact = match dialled.choose(text) {
            Choice::Balanced => None,
            Choice::Exactly | Choice::DialledFirst => way.exact(&cluster.live),
        };
        return Ok((cluster, exact));
    }
    let listener = &client.listener;
    let no_table = || ProxyError::NoRouteTable { listener: Arc::clone(listener) };
    let routes = local.view.listener(listener).and_then(|listener| listener.routes.as_ref());
    let router = local.view.routers.get(routes.ok_or_else(no_table)?).ok_or_else(no_table)?;
    let name = router
        .route(text)
        .map_err(|unknown| ProxyError::NoRoute { authority: unknown.authority, known: unknown.known })?;
    Ok((cluster(name)?, None))
}

impl Walk {
    /// A place among the requests under way; none yet for one that has to wait for a connection all the same.
    fn begin(&self) -> Result<Option<Permit>, ProxyError> {
        let live = &self.cluster.live;
        match breaker::acquire(live, Limit::Requests) {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if self.protocol != UpstreamProtocol::Http2 && breaker::is_full(live, Limit::Connections) => {
                Ok(None)
            }
            Err(overflow) => Err(refused_by(&self.cluster, overflow)),
        }
    }
}

/// One place under a limit of the cluster's circuit.
fn acquire(cluster: &LocalCluster, limit: Limit) -> Result<Permit, ProxyError> {
    breaker::acquire(&cluster.live, limit).map_err(|overflow| refused_by(cluster, overflow))
}

/// Counts a refusal.
fn refused_by(cluster: &LocalCluster, Overflow { limit, max }: Overflow) -> ProxyError {
    cluster.metrics.counts.overflowed(limit);
    ProxyError::Overflow { cluster: Arc::clone(cluster.live.name()), limit, max }
}

/// The response of an endpoint, as the client gets it.
fn respond(
    walk: &mut Walk,
    mut head: ResponseHead,
    mut body: UpstreamBody,
    mut record: Record,
) -> Answer<AnswerBody, Switched> {
    let deadlines = walk.deadlines;
    let outcome = match walk.upgrade.take() {
        Some(upgrade) => upgrade.settle(&mut head),
        None if head.status == StatusCode::SWITCHING_PROTOCOLS => upgrade::UNASKED,
        None => Outcome::Answered,
    };
    let problem = match outcome {
        Outcome::Answered => None,
        Outcome::Switched => return switched(walk, head, body, record),
        Outcome::Broken { problem } => Some(problem),
    };
    let required = upgrade::required(&head).filter(|_| walk.head.version != Version::HTTP_2);
    headers::strip_hop_by_hop_of_response(&mut head.fields);
    if let Some(protocols) = required {
        head.fields.add(Name::Upgrade, &protocols);
        head.fields.push(b"connection", b"upgrade");
    }
    walk.client.forwarding.response(&mut head);
    record.answered(head.status.as_u16(), &head.fields);
    if let Some(problem) = problem {
        // What its connection speaks now nobody knows: no other request is to meet it.
        drop(body.into_carrier());
        return refused(ProxyError::BadResponse { problem }, false, record);
    }
    date::ensure(&mut head.fields);
    if head.status == StatusCode::NO_CONTENT {
        // It has neither body nor length (RFC 9110 section 8.6).
        head.fields.remove(Name::ContentLength);
    }
    let deadline = match Exchange::of_response(false, head.fields.get(Name::ContentType)) {
        // Nobody says where it ends: it may be news without end.
        Exchange::Plain if body.length().is_none() => None,
        Exchange::Plain => deadlines.response_end(Exchange::Plain),
        streaming => {
            body.may_be_silent();
            deadlines.response_end(streaming)
        }
    };
    // There is no body to a response to HEAD, whatever it says.
    let is_head = walk.head.method == Method::HEAD;
    let is_bodiless = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Answer::Response(head, AnswerBody::upstream(body, is_bodiless, deadline, record))
}

/// The last that is HTTP of what becomes something else.
fn switched(
    walk: &Walk,
    mut head: ResponseHead,
    body: UpstreamBody,
    mut record: Record,
) -> Answer<AnswerBody, Switched> {
    let Some(endpoint) = body.into_carrier() else {
        let problem = "the endpoint switched protocols before it had the whole request";
        return refused(ProxyError::BadResponse { problem }, false, record);
    };
    walk.client.forwarding.response(&mut head);
    record.answered(head.status.as_u16(), &head.fields);
    if !head.status.is_informational() {
        date::ensure(&mut head.fields);
    }
    Answer::Switch(head, Switched::new(endpoint, record))
}

/// Counts and logs what never became a request. A client that was told nothing of it got no status either.
pub fn unheard(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    way: &Rc<Way>,
    spoken: Spoken,
    told: Told,
    error: &ProxyError,
) {
    if spoken != Spoken::Tcp {
        client.begin_request();
    }
    let mut record = Record::begin(worker, client, way, spoken, Instant::now());
    match told {
        Told::Status => record.refused(error),
        Told::Nothing => record.cut(error),
    }
}

/// What a client was told that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A response.
    Status,
    /// That its stream or its connection is over.
    Nothing,
}

/// A refusal of our own.
fn refused(error: ProxyError, is_grpc: bool, mut record: Record) -> Answer<AnswerBody, Switched> {
    record.refused(&error);
    let (head, text): (ResponseHead, Bytes) = refuse::response(&error, is_grpc);
    let is_last = error.leaves_request_unread();
    let body = AnswerBody::local(text, record);
    if is_last { Answer::Last(head, body) } else { Answer::Response(head, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_that_waits_takes_little_room() {
        // It is taken and given back for each request.
        let bytes = room(answer);
        assert!(bytes <= 1536, "{bytes} bytes");
    }
}
