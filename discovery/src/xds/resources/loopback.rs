//! Where virtual IPs are loopback addresses, a proxy of this host can listen on them: then whoever dials one is carried, without
//! capture and without a right to it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::SocketAddr;

use mesh_core::model::forwarded::ForwardedHeaders;
use mesh_core::model::resource::Bind;

use super::Builder;
use super::bound::overlap;
use super::service_port::ServicePortRef;

impl Builder<'_> {
    /// One listener per virtual IP and service port. What the client listens on besides (`others`; port 0 is every port of the
    /// address) has these sockets already where it is all addresses.
    pub(super) fn add_loopback(&mut self, ports: &[ServicePortRef<'_>], others: [Option<SocketAddr>; 2]) {
        let range = self.settings.virtual_ip_range;
        if !(range.network().is_loopback() && range.broadcast().is_loopback()) {
            return;
        }
        for port in ports {
            let socket = SocketAddr::new(port.service.virtual_ip, port.port.port);
            let is_taken = |other: &SocketAddr| match other.port() {
                0 => overlap(SocketAddr::new(other.ip(), socket.port()), socket),
                _ => overlap(*other, socket),
            };
            if !others.iter().flatten().any(is_taken) {
                self.add_virtual(port, Bind::Address(socket), ForwardedHeaders::bound_to(socket.ip()));
            }
        }
    }
}
