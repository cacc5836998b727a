//! The DNS answers of each snapshot: they say what the snapshot says, and nothing else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::{Name, RData, RecordType};
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::DEFAULT_ZONE;
use mesh_core::model::snapshot::Snapshot;
use mesh_discovery::dns::zone::{Lookup, Question, Zone};

use crate::sky::Sky;

pub struct Resolver {
    zone: Zone,
}

impl Resolver {
    pub fn new() -> Self {
        Self { zone: Zone::new(DEFAULT_ZONE, None).expect("the default zone is a name") }
    }

    pub fn check(&self, sky: &mut Sky, snapshot: &Snapshot) {
        for service in snapshot.services.values() {
            let fqdn = service.id.fqdn(DEFAULT_ZONE);
            let virtual_ip = self.addresses(sky, snapshot, &fqdn);
            assert_eq!(virtual_ip, [service.virtual_ip].into(), "{sky}: {fqdn}");
            let ready = snapshot.ready_endpoints_of(&service.id).flat_map(|endpoint| endpoint.addresses.iter());
            let ready: BTreeSet<IpAddr> = ready.map(|address| address.address).collect();
            let tasks = format!("tasks.{fqdn}");
            assert_eq!(self.addresses(sky, snapshot, &tasks), ready, "{sky}: {tasks}");
            self.check_shares(sky, snapshot, &fqdn, &service.id);
        }
        let nobody = self.ask(sky, snapshot, &format!("nobody.shop.svc.{DEFAULT_ZONE}"), RecordType::A);
        assert!(matches!(nobody, Lookup::Missing { .. }), "{sky}: {nobody:?}");
    }

    /// SRV has exactly those that take requests.
    fn check_shares(&self, sky: &mut Sky, snapshot: &Snapshot, fqdn: &str, id: &mesh_core::model::names::ServiceId) {
        let Some(port) = snapshot.services[id].ports.first() else { return };
        let taking = |endpoint: &&std::sync::Arc<mesh_core::model::endpoint::Endpoint>| {
            endpoint.state == EndpointState::Ready && endpoint.weight > 0 && endpoint.ports.contains_key(&port.name)
        };
        let expected = snapshot.endpoints_of(id).iter().filter(taking).count();
        let name = format!("_{}._tcp.{fqdn}", port.name);
        match self.ask(sky, snapshot, &name, RecordType::SRV) {
            Lookup::Present { answers, .. } => assert_eq!(answers.len(), expected, "{sky}: {name}: {answers:?}"),
            other => panic!("{sky}: {name}: {other:?}"),
        }
    }

    fn addresses(&self, sky: &mut Sky, snapshot: &Snapshot, name: &str) -> BTreeSet<IpAddr> {
        match self.ask(sky, snapshot, name, RecordType::A) {
            Lookup::Present { answers, .. } => {
                let address = |data: &RData| match data {
                    RData::A(a) => IpAddr::V4(Ipv4Addr::from(*a)),
                    other => panic!("{name}: {other:?} is no address"),
                };
                answers.iter().map(|record| address(&record.data)).collect()
            }
            other => panic!("{sky}: {name}: {other:?}"),
        }
    }

    fn ask(&self, sky: &mut Sky, snapshot: &Snapshot, name: &str, kind: RecordType) -> Lookup {
        let mut name = Name::from_ascii(name).expect("the names of the mesh are names");
        name.set_fqdn(true);
        self.zone.lookup(Question { name: &name, kind, source: None }, snapshot, &mut sky.random)
    }
}
