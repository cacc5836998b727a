//! Where a container is reached: its addresses on each network, the names it has there, and its network namespace. A container
//! may live in another one's, or in the host's.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mesh_core::config::suggest;
use mesh_core::model::condition::ConditionKind;
use mesh_core::model::endpoint::NetworkAddress;

use super::{Containers, Scope};
use crate::provider::docker::inspect::{Attachment, Container, NetworkMode};
use crate::provider::label::{COMPOSE_PROJECT, Settings};

/// The network of containers that use the host's own.
pub const HOST_NETWORK: &str = "host";

/// The engine refuses a chain of shared namespaces; this ends a ring in what it says all the same.
const OWNER_HOPS_MAX: usize = 4;

/// Where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addresses: Vec<NetworkAddress>,
    /// Ids of all networks its calls can take.
    pub(super) networks: BTreeSet<Arc<str>>,
    /// None in the host's namespace.
    pub(super) namespace_path: Option<Arc<str>>,
    pub(super) own_names: Vec<Arc<str>>,
    pub(super) aliases: Vec<Arc<str>>,
}

type Remarks = Vec<(ConditionKind, String)>;

/// The place, with remarks; or why nobody can reach it.
pub(super) fn find(
    container: &Container,
    settings: &Settings,
    containers: &Containers,
    scope: &Scope,
) -> Result<(Place, Remarks), String> {
    let owner = owner(container, containers)?;
    let shares = owner.id != container.id;
    let mut own_names = vec![container.name.clone(), container.short_id().into()];
    if owner.network == NetworkMode::Host {
        let message = "it uses the host's network: it is an endpoint, but its own calls are not captured";
        let remarks = vec![(ConditionKind::HostNetworkNotCaptured, message.to_owned())];
        return Ok((Place { addresses: host_addresses(containers, scope), own_names, ..Place::default() }, remarks));
    }
    if owner.attachments.is_empty() {
        return Err("it is on no network, so nobody can reach it".to_owned());
    }
    // In another's namespace the hostname is that one's as well.
    if !shares && !container.hostname.is_empty() && !own_names.contains(&container.hostname) {
        own_names.push(container.hostname.clone());
    }
    let mut remarks = Remarks::new();
    let chosen = chosen_network(container, settings, &owner.attachments).unwrap_or_else(|message| {
        remarks.push((ConditionKind::InvalidLabel, message));
        None
    });
    let attached = owner.attachments.iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen == *name));
    let on_network = |(_, attachment): (&String, &Attachment)| {
        let network = attachment.network_id.clone();
        let address = move |address: &IpAddr| NetworkAddress { network: network.clone(), address: *address };
        attachment.addresses.iter().map(address).collect::<Vec<_>>()
    };
    let place = Place {
        addresses: attached.flat_map(on_network).collect(),
        networks: owner.attachments.values().map(|attachment| attachment.network_id.clone()).collect(),
        namespace_path: owner.namespace_path.clone(),
        aliases: aliases(container, &own_names),
        own_names,
    };
    Ok((place, remarks))
}

/// Whose network namespace it is: its own, or another container's.
fn owner<'a>(container: &'a Container, containers: &'a Containers) -> Result<&'a Container, String> {
    let mut at = container;
    for _ in 0..OWNER_HOPS_MAX {
        let NetworkMode::Container(reference) = &at.network else { return Ok(at) };
        let by_id = containers.get(reference);
        at = by_id
            .or_else(|| containers.values().find(|other| other.is_called(reference)))
            .ok_or_else(|| format!("it shares the network of {reference}, which does not run"))?;
    }
    Err("it shares the network of a container that shares another's, and so on".to_owned())
}

/// The names that name its service: what Compose and people called it on its networks, less what names it alone.
fn aliases(container: &Container, own_names: &[Arc<str>]) -> Vec<Arc<str>> {
    let all: BTreeSet<&Arc<str>> = container.attachments.values().flat_map(|attachment| &attachment.aliases).collect();
    let names_it_alone = |alias: &Arc<str>| own_names.contains(alias) || *alias == container.id.unit;
    all.into_iter().filter(|alias| !names_it_alone(alias)).cloned().collect()
}

/// The network that `mesh.network` names: by its name, with or without the Compose project, or by its id.
fn chosen_network<'a>(
    container: &Container,
    settings: &Settings,
    attachments: &'a BTreeMap<String, Attachment>,
) -> Result<Option<&'a String>, String> {
    let Some(wanted) = settings.network.as_deref() else { return Ok(None) };
    let in_project = container.labels.get(COMPOSE_PROJECT).map(|project| format!("{project}_{wanted}"));
    let is_wanted = |name: &str, attachment: &Attachment| {
        let by_id = wanted.len() >= 12 && attachment.network_id.starts_with(wanted);
        name == wanted || in_project.as_deref() == Some(name) || by_id
    };
    if let Some((name, _)) = attachments.iter().find(|(name, attachment)| is_wanted(name, attachment)) {
        return Ok(Some(name));
    }
    let known: Vec<&str> = attachments.keys().map(String::as_str).collect();
    let hint = match suggest::nearest(wanted, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => String::new(),
    };
    Err(format!("mesh.network={wanted}: it is not on that network, but on {}{hint}", known.join(", ")))
}

/// The host as seen from outside, then as seen from each bridge: there it has the gateway's address.
fn host_addresses(containers: &Containers, scope: &Scope) -> Vec<NetworkAddress> {
    let attachments = containers.values().flat_map(|container| container.attachments.values());
    let gateways: BTreeMap<&Arc<str>, IpAddr> =
        attachments.filter_map(|attachment| Some((&attachment.network_id, *attachment.gateways.first()?))).collect();
    let first = scope.host_address.or_else(|| gateways.values().next().copied());
    let host =
        NetworkAddress { network: HOST_NETWORK.into(), address: first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
    let seen_from = gateways.into_iter().map(|(network, address)| NetworkAddress { network: network.clone(), address });
    std::iter::once(host).chain(seen_from).collect()
}
