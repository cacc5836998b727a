//! Where processes send their HTTP calls, so that `http://api:8080` works unchanged. A process learns it once, when it is started: so
//! it is always told an address, that of a proxy that is there, else of the one that was, else where a proxy listens by default.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A proxy that is away for no longer than this is being restarted, or has not heard yet that discovery is back.
pub(super) const AWAY_MAX: Duration = Duration::from_secs(6);

/// What is known of the proxy of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpProxy {
    address: SocketAddr,
    /// None while it is there.
    away_since: Option<Instant>,
}

impl HttpProxy {
    /// One that listens at `address`.
    #[must_use]
    pub fn there(address: SocketAddr) -> Self {
        Self { address, away_since: None }
    }

    /// One that is expected at `address`, and was there last, if ever, at `since`.
    #[must_use]
    pub fn away(address: SocketAddr, since: Instant) -> Self {
        Self { address, away_since: Some(since) }
    }

    /// Takes what is known now; true where that is news. The address of one that went stays: it is where it comes back.
    pub(super) fn note(&mut self, address: Option<SocketAddr>, now: Instant) -> bool {
        let before = *self;
        match address {
            Some(address) => *self = Self::there(address),
            None => drop(self.away_since.get_or_insert(now)),
        }
        before != *self
    }

    /// Where it listens, or is going to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether one is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.away_since.is_none()
    }

    /// When it has been away for too long to be on its way back; none while it is there.
    #[must_use]
    pub fn missed_at(&self) -> Option<Instant> {
        Some(self.away_since? + AWAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_one_that_went_stays() {
        let (start, [first, second]) =
            (Instant::now(), [14008, 15000].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
        let mut proxy = HttpProxy::away(first, start);
        assert!(!proxy.note(None, start + AWAY_MAX), "none has come, as before");
        assert_eq!((proxy.address(), proxy.is_there(), proxy.missed_at()), (first, false, Some(start + AWAY_MAX)));
        assert!(proxy.note(Some(second), start));
        assert!(!proxy.note(Some(second), start + AWAY_MAX));
        assert_eq!((proxy.address(), proxy.is_there(), proxy.missed_at()), (second, true, None));
        let gone = start + 3 * AWAY_MAX;
        assert!(proxy.note(None, gone));
        assert_eq!((proxy.address(), proxy.missed_at()), (second, Some(gone + AWAY_MAX)));
    }
}
