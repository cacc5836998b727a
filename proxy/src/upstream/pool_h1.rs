//! HTTP/1.1 connections to endpoints that wait for their next exchange.
//!
//! ```text
//!   connect ──▶ in use (one request) ──▶ idle in the pool ──▶ in use ...
//!                  │ error, cut, not reusable   │ closed by the peer, too old, too many
//!                  ▼                            ▼
//!                dropped                      dropped
//! ```
//! The pool is last in, first out, so that what is not needed ages and goes. An idle connection is looked at once before it is
//! used again; one that the peer closes in between is found out by the exchange, which may then be replayed.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::h1::H1Connection;
use crate::endpoint::{ClusterStats, LiveEndpoint};

/// Idle connections are closed after this long. Common servers close theirs after 5 s (Node.js, Gunicorn, Apache), and the side
/// that closes first wins no race: being the first here keeps requests from being sent into a closing connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Which connections may stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    origin: u64,
    /// The address of the endpoint's counters, which live as long as anything in a pool refers to them.
    endpoint: usize,
    address: SocketAddr,
}

impl PoolKey {
    #[must_use]
    pub fn new(origin: u64, endpoint: &LiveEndpoint, address: SocketAddr) -> Self {
        Self { origin, endpoint: Arc::as_ptr(&endpoint.stats) as usize, address }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn origin(&self) -> u64 {
        self.origin
    }
}

/// What the pool did, for metrics.
#[derive(Debug, Default)]
pub struct PoolCounters {
    pub reused: Cell<u64>,
    /// Closed because the pool had its limit of idle ones already.
    pub idle_overflow: Cell<u64>,
    pub idle_expired: Cell<u64>,
    /// The peer had closed it while it was idle.
    pub idle_closed: Cell<u64>,
}

/// One worker's idle connections.
#[derive(Default)]
pub struct PoolH1 {
    #[expect(clippy::vec_box, reason = "a connection is large, and moves between pool, request and body")]
    idle: RefCell<FxHashMap<PoolKey, Vec<Box<H1Connection>>>>,
    pub counters: PoolCounters,
}

impl PoolH1 {
    /// The idle connection used last that is still open.
    pub fn take(&self, key: &PoolKey) -> Option<Box<H1Connection>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(key)?;
        while let Some(mut connection) = list.pop() {
            if connection.is_open() {
                bump(&self.counters.reused);
                return Some(connection);
            }
            bump(&self.counters.idle_closed);
        }
        None
    }

    /// Takes a connection back whose exchange is over, and which may carry another.
    pub fn put(&self, mut connection: Box<H1Connection>, now: Instant) {
        connection.reused = true;
        connection.idle_since = now;
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(connection.key).or_default();
        if list.len() >= connection.allowed.idle_connections_max as usize {
            bump(&self.counters.idle_overflow);
            return;
        }
        list.push(connection);
        if let Some(connection) = list.last() {
            connection.place.call();
        }
    }

    /// Drops what is too old or was closed by its peer. Run once in a while.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| {
                let idle_timeout = connection.allowed.idle_timeout.unwrap_or(IDLE_TIMEOUT);
                let expired = now.saturating_duration_since(connection.idle_since) >= idle_timeout;
                let open = !expired && connection.is_open();
                match (expired, open) {
                    (true, _) => bump(&self.counters.idle_expired),
                    (false, false) => bump(&self.counters.idle_closed),
                    (false, true) => {}
                }
                open
            });
            !list.is_empty()
        });
    }

    /// Drops all that was opened from `origin`, whose network is gone.
    pub fn forget_origin(&self, origin: u64) {
        self.idle.borrow_mut().retain(|key, _| key.origin != origin);
    }

    /// Drops one idle connection of the cluster that `stats` count, to make room under its limit.
    pub fn evict(&self, stats: &Arc<ClusterStats>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let of_cluster = |connection: &H1Connection| connection.place.is_of(stats);
        for list in idle.values_mut() {
            if let Some(oldest) = list.iter().position(|connection| of_cluster(connection)) {
                list.remove(oldest);
                return true;
            }
        }
        false
    }

    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

#[cfg(test)]
mod tests;
