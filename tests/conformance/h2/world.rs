//! One proxy in front of one h2 origin.

use super::client::Client;
use super::origin::{Manners, Origin};
use crate::world::{LIMITS, Running, SERVICE};

/// Both end when dropped.
pub struct World {
    pub proxy: Running,
    pub origin: Origin,
}

impl World {
    /// Nothing is tried twice, and nobody is ejected.
    pub fn start(manners: Manners) -> Self {
        Self::with(manners, LIMITS, SERVICE)
    }

    /// With these settings of the listener and of the service.
    pub fn with(manners: Manners, listener: &str, service: &str) -> Self {
        let origin = Origin::start(manners);
        let service = format!("endpoints: [ {{ address: \"{}\" }} ], protocol: http2, {service}", origin.address);
        Self { proxy: Running::start(listener, &service), origin }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.proxy.address)
    }

    /// Somebody else gets his own answer.
    pub fn serves(&self, target: &str) {
        self.client().serves(target);
        let mut old = crate::client::Client::connect(self.proxy.address);
        old.send(format!("GET {target} HTTP/1.1\r\nHost: probe\r\n\r\n"));
        let answer = old.response("GET").entire();
        assert_eq!((answer.status, answer.text()), (200, format!("GET {target}")), "another client's answer");
        self.origin.sound();
    }
}
