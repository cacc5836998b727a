//! The members of a service agree on its ports: each has its own, and callers dial one. They also agree on its policy.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;

use mesh_core::model::names::{Name, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::ServicePort;

use super::Member;
use crate::provider::ObservedService;
use crate::provider::label::PortSetting;

/// The services of `members` (in order of age), whose ports get the names that their service gives them.
pub(super) fn agree(members: &mut [Member<'_>]) -> Vec<ObservedService> {
    let mut drafts: BTreeMap<ServiceId, (Vec<PortSetting>, Policy)> = BTreeMap::new();
    for member in members.iter() {
        let (ports, policy) = drafts.entry(member.service.clone()).or_default();
        ports.extend(member.ports.iter().cloned());
        // The youngest that says anything is the one that was configured last.
        if let Some(newer) = &member.settings.policy {
            *policy = newer.clone();
        }
    }
    let mut services = BTreeMap::new();
    for (id, (said, policy)) in drafts {
        let ports = Ports::agree(&said);
        for member in members.iter_mut().filter(|member| member.service == id) {
            ports.rename(&mut member.ports);
        }
        services.insert(id.clone(), ObservedService { id, ports: ports.ports, policy });
    }
    services.into_values().collect()
}

/// What a service's ports are, and which other names mean one of them.
struct Ports {
    ports: Vec<ServicePort>,
    other_names: BTreeMap<Name, Name>,
}

impl Ports {
    /// One port for each name, at the lowest number any member gives it, whatever the order they came in; where two names
    /// have one number, the one that is no number itself stays.
    fn agree(said: &[PortSetting]) -> Self {
        let mut by_name: BTreeMap<&Name, (u16, Protocol)> = BTreeMap::new();
        for setting in said {
            let (port, protocol) = by_name.entry(&setting.name).or_insert((setting.port, setting.protocol));
            *port = setting.port.min(*port);
            // The eldest that declares one is believed; others only find out.
            if *protocol == Protocol::Auto {
                *protocol = setting.protocol;
            }
        }
        let mut by_number: BTreeMap<u16, Vec<(&Name, Protocol)>> = BTreeMap::new();
        for (name, (port, protocol)) in by_name {
            by_number.entry(port).or_default().push((name, protocol));
        }
        let mut agreed = Self { ports: Vec::new(), other_names: BTreeMap::new() };
        for (port, mut names) in by_number {
            names.sort_by_key(|(name, _)| (name.as_str().bytes().all(|b| b.is_ascii_digit()), *name));
            let name = names[0].0.clone();
            let declared = names.iter().map(|(_, protocol)| *protocol).find(|protocol| *protocol != Protocol::Auto);
            for (other, _) in &names[1..] {
                agreed.other_names.insert((*other).clone(), name.clone());
            }
            agreed.ports.push(ServicePort { name, port, protocol: declared.unwrap_or_default() });
        }
        agreed
    }

    fn rename(&self, ports: &mut Vec<PortSetting>) {
        let known: Vec<Name> = ports.iter().map(|port| port.name.clone()).collect();
        // A member that has the kept name too keeps its own port for it.
        ports.retain(|port| self.other_names.get(&port.name).is_none_or(|kept| !known.contains(kept)));
        for port in ports.iter_mut() {
            if let Some(kept) = self.other_names.get(&port.name) {
                port.name = kept.clone();
            }
        }
    }
}
