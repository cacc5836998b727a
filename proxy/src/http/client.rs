//! Who calls, over which connection. Made once per connection, shared by its requests.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Version};
use mesh_core::model::resource::Limits;
use mesh_core::task::drain::Drain;

use crate::listen::stream::Answering;

/// A client's connection, as its requests see it.
#[derive(Debug)]
pub struct Client {
    pub peer: SocketAddr,
    /// What it dialled.
    pub local: SocketAddr,
    /// Its address, as `X-Forwarded-For` has it.
    pub forwarded_for: HeaderValue,
    pub tls: bool,
    pub listener: Arc<str>,
    pub limits: Limits,
    /// Requests under way on this connection.
    active: Cell<u32>,
    /// Requests that began so far.
    requests: Cell<u64>,
    /// A client of HTTP/1.0 knows the end of an unmeasured body by the end of the connection.
    ends_by_close: Cell<bool>,
    /// When the last request ended, or the connection began.
    idle_since: Cell<Instant>,
    /// What the layer that reads the connection is told.
    answering: Arc<Answering>,
    /// The proxy drains until its last request, or switched connection, is over.
    _held: Drain,
}

impl Client {
    #[must_use]
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        tls: bool,
        listener: Arc<str>,
        limits: Limits,
        held: Drain,
    ) -> Self {
        let address = peer.ip().to_canonical().to_string();
        let forwarded_for = HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            peer,
            local,
            forwarded_for,
            tls,
            listener,
            limits,
            active: Cell::new(0),
            requests: Cell::new(0),
            ends_by_close: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            answering: Arc::default(),
            _held: held,
        }
    }

    pub fn begin_request(&self, version: Version) {
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get() + 1);
        self.ends_by_close.set(version == Version::HTTP_10);
    }

    /// A request was heard; `whole` if nothing more of it is to come.
    pub fn heard(&self, whole: bool) {
        if whole {
            self.answering.begin();
        }
    }

    /// Whether a request is being answered of which nothing more is to come. For the layer that reads the connection.
    #[must_use]
    pub fn answering(&self) -> Arc<Answering> {
        Arc::clone(&self.answering)
    }

    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    #[must_use]
    pub fn ends_by_close(&self) -> bool {
        self.ends_by_close.get()
    }

    pub fn end_request(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
        self.answering.end();
        self.idle_since.set(now);
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    #[must_use]
    pub fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }
}
