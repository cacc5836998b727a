//! What several targets need: a snapshot to ask about, all that is made of what a provider saw, and HTTP/1.1 read in pieces, by us and
//! by somebody else.

pub mod cuts; // one input, however it arrives
pub mod chunks; // a chunked body, as we read it
pub mod peer; // HTTP/1.1, as hyper reads it

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::snapshot::Snapshot;
use mesh_discovery::provider::{Observation, Verdict};
use mesh_discovery::registry::Registry;
use mesh_discovery::xds::node::ClientKind;
use mesh_discovery::xds::{Settings, port_conflicts, resources};
use mesh_xds::{Kind, decode};

/// The range virtual IPs come from.
const RANGE: &str = "240.240.0.0/16";

/// A shop of three services, as a file tells it.
pub const SHOP: &str = "services:
  - name: web
    namespace: shop
    ports: [{ name: http, port: 80, protocol: http }]
    endpoints: [{ address: '10.0.0.5:8080', weight: 3 }, { address: '10.0.0.6:8080', priority: 1, zone: b }]
  - name: db
    namespace: shop
    ports: [{ name: sql, port: 5432, protocol: tcp }, { name: stats, port: 9187 }]
    endpoints: [{ address: '10.0.0.7:5432', port: sql }]
  - { name: web, namespace: other, ports: [{ name: http, port: 80 }], endpoints: [] }
";

/// The snapshot that follows from one observation; its invariants are checked on the way.
///
/// # Panics
/// When an invariant does not hold.
pub fn snapshot_of(observation: Observation) -> Arc<Snapshot> {
    let now = Instant::now();
    let range = RANGE.parse().expect("a network");
    let mut registry = Registry::new(range, BTreeMap::new(), 0, now).also_telling(port_conflicts);
    registry.observe("file", observation);
    for target in registry.probe_targets() {
        registry.judge(target.id, Verdict::Accepted);
    }
    registry.next(now).expect("the first snapshot is made in any case");
    assert!(registry.next(now).is_none(), "nothing changed, and yet there is another snapshot");
    registry.snapshot().clone()
}

/// Publishes a snapshot to every kind of proxy and reads it back as they do.
///
/// # Panics
/// When a proxy would refuse any of it.
pub fn check_published(snapshot: &Snapshot) {
    let settings = Settings::new(RANGE.parse().expect("a network"));
    let client = ClientKind {
        bind_address: Some("127.0.0.1".parse().expect("an address")),
        outbound: Some("0.0.0.0:14001".parse().expect("an address and port")),
        http_proxy: Some("127.0.0.1:14008".parse().expect("an address and port")),
        virtual_ips: true,
    };
    let set = resources::build(snapshot, &client, &settings);
    for kind in Kind::ALL {
        for packed in set.all(kind) {
            if let Err(error) = decode::resource(kind, &packed.name, &packed.body) {
                panic!("what discovery publishes is refused: {error}");
            }
        }
    }
}

/// Input as text: what is no UTF-8 is replaced, so that no input is wasted.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
