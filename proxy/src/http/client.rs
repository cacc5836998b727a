//! Who calls, over which connection. Made once per connection, shared by its requests.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::resource::Limits;
use mesh_core::task::drain::Drain;

use super::forwarded::Forwarding;
use super::timer::LazyTimer;

/// A client's connection, as its requests see it.
#[derive(Debug)]
pub struct Client {
    pub peer: SocketAddr,
    /// What it dialled.
    pub local: SocketAddr,
    /// What its requests tell of who called.
    pub forwarding: Forwarding,
    pub listener: Arc<str>,
    pub limits: Limits,
    /// For the deadlines of its requests.
    pub timer: RefCell<LazyTimer>,
    /// Requests under way on this connection.
    active: Cell<u32>,
    /// When the last request ended, or the connection began.
    idle_since: Cell<Instant>,
    /// The proxy drains until its last request, or switched connection, is over.
    _held: Drain,
}

impl Client {
    #[must_use]
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        forwarding: Forwarding,
        listener: Arc<str>,
        limits: Limits,
        held: Drain,
    ) -> Self {
        Self {
            peer,
            local,
            forwarding,
            listener,
            limits,
            timer: RefCell::default(),
            active: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            _held: held,
        }
    }

    pub fn begin_request(&self) {
        self.active.set(self.active.get() + 1);
    }

    pub fn end_request(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
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
