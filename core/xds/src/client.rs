//! The proxy's end of one control plane, as a pure state machine over streams that come and go: responses go in, requests and
//! consistent [`Resources`] come out. Delta variant.
//!
//! It asks for all clusters, all listeners and, where wanted, for what to capture; for endpoints and route tables by the names
//! that those refer to. What it has, it keeps when a stream ends, and tells the next one.
//!
//! **Consistent** means: a listener is never published before its route table and its clusters are there, and a cluster never
//! before its endpoints are known. What is not complete yet is held back, and what was published before under its name stays.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod assemble;
mod reserved;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as _;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use mesh_core::model::resource::Resources;

use crate::decode::{self, DecodeError, Decoded};
use crate::kind::{Kind, PerKind};

pub use reserved::Reserved;

/// gRPC's INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;

/// Words of a NACK beyond which it is cut.
const NACK_CHARACTERS_MAX: usize = 4096;

/// One resource as it came.
#[derive(Debug, Clone)]
struct Held {
    version: String,
    body: Any,
    decoded: Decoded,
}

/// What we have of one type.
#[derive(Debug, Default)]
struct Shelf {
    resources: BTreeMap<Arc<str>, Held>,
    /// Names we asked for, of a type that is asked for by name.
    names: BTreeSet<Arc<str>>,
    /// Of those, what the server says does not exist.
    absent: BTreeSet<Arc<str>>,
    /// There was a response, on this stream or an earlier one.
    answered: bool,
    /// There was a request on this stream.
    opened: bool,
    /// Of the last response on this stream.
    nonce: Option<String>,
    /// Names of those that clash with what is reserved.
    clashing: BTreeSet<Arc<str>>,
}

/// What follows from a response.
#[derive(Debug, Default)]
pub struct Step {
    /// To be sent in this order.
    pub requests: Vec<DeltaDiscoveryRequest>,
    /// [`Session::published`] changed.
    pub published: bool,
    /// What we hold changed, so a cache of it is stale.
    pub held: bool,
    /// What is wrong now and was not before; it is told in the NACK, too.
    pub refused: Vec<DecodeError>,
    /// The response was rejected, for that or for an older clash.
    pub rejected: bool,
}

/// One control plane, over all streams to it.
#[derive(Debug)]
pub struct Session {
    wants_capture: bool,
    reserved: Reserved,
    shelves: PerKind<Shelf>,
    published: Option<Arc<Resources>>,
    waiting: BTreeSet<String>,
    impatient: bool,
}

impl Session {
    /// A session that knows nothing yet.
    #[must_use]
    pub fn new(wants_capture: bool) -> Self {
        Self {
            wants_capture,
            reserved: Reserved::default(),
            shelves: PerKind::default(),
            published: None,
            waiting: BTreeSet::new(),
            impatient: false,
        }
    }

    /// These names are another's from now on, and no others. What clashes newly is told to the control plane although it was
    /// accepted before, and so is that nothing does any more.
    pub fn reserve(&mut self, reserved: Reserved) -> Step {
        self.reserved = reserved;
        let mut step = Step::default();
        for kind in Kind::ALL {
            let before = self.shelves.get(kind).clashing.clone();
            let clashes = self.clashes(kind);
            let shelf = self.shelves.get(kind);
            if shelf.clashing == before {
                continue;
            }
            if let Some(nonce) = &shelf.nonce {
                step.requests.push(DeltaDiscoveryRequest {
                    type_url: kind.type_url().to_owned(),
                    response_nonce: nonce.clone(),
                    error_detail: (!clashes.is_empty()).then(|| rejection(&words(&clashes))),
                    ..DeltaDiscoveryRequest::default()
                });
            }
            step.rejected |= !clashes.is_empty();
            step.refused.extend(clashes.into_iter().filter(|clash| !before.contains(clash.resource())));
        }
        step
    }

    /// How many resources of a kind clash with what is reserved.
    #[must_use]
    pub fn clashing(&self, kind: Kind) -> usize {
        self.shelves.get(kind).clashing.len()
    }

    /// Of a kind, what clashes now; it is noted.
    fn clashes(&mut self, kind: Kind) -> Vec<DecodeError> {
        let reserved = &self.reserved;
        let shelf = self.shelves.get_mut(kind);
        let clashes: Vec<DecodeError> =
            shelf.resources.values().filter_map(|held| reserved.objection(kind, &held.decoded)).collect();
        shelf.clashing = clashes.iter().map(|clash| clash.resource().into()).collect();
        clashes
    }

    /// The newest consistent resources; none until the first are whole.
    #[must_use]
    pub fn published(&self) -> Option<&Arc<Resources>> {
        self.published.as_ref()
    }

    /// What is referred to and has not come yet, in words.
    #[must_use]
    pub fn waiting_for(&self) -> &BTreeSet<String> {
        &self.waiting
    }

    /// Publishes what is whole even if the rest never comes. Returns whether that changed anything.
    pub fn settle(&mut self) -> bool {
        self.impatient = true;
        self.publish()
    }

    /// A new stream is open: the first requests on it, the very first with the node. What we have goes along, so that only what
    /// changed comes back.
    pub fn connected(&mut self, node: Node) -> Vec<DeltaDiscoveryRequest> {
        for kind in Kind::ALL {
            let shelf = self.shelves.get_mut(kind);
            (shelf.opened, shelf.nonce) = (false, None);
        }
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let by_name = !kind.is_wildcard_by_default();
            let unwanted = kind == Kind::Capture && !self.wants_capture;
            let shelf = self.shelves.get_mut(kind);
            if unwanted || (by_name && shelf.names.is_empty()) {
                continue;
            }
            shelf.opened = true;
            shelf.absent.clear();
            requests.push(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: shelf.names.iter().map(ToString::to_string).collect(),
                initial_resource_versions: shelf.versions(),
                ..DeltaDiscoveryRequest::default()
            });
        }
        if let Some(first) = requests.first_mut() {
            first.node = Some(node);
        }
        requests
    }

    /// A response came.
    pub fn response(&mut self, response: DeltaDiscoveryResponse) -> Step {
        let mut answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        let Some(kind) = Kind::from_type_url(&response.type_url) else {
            answer.error_detail = Some(rejection("a resource type that was not asked for"));
            return Step { requests: vec![answer], rejected: true, ..Step::default() };
        };
        let mut refused = self.take(kind, response.resources, &response.removed_resources);
        let before = self.shelves.get(kind).clashing.clone();
        let clashes = self.clashes(kind);
        let rejected = !(refused.is_empty() && clashes.is_empty());
        if rejected {
            answer.error_detail = Some(rejection(&words(refused.iter().chain(&clashes))));
        }
        refused.extend(clashes.into_iter().filter(|clash| !before.contains(clash.resource())));
        self.shelves.get_mut(kind).nonce = Some(response.nonce);
        // New subscriptions go before the ACK, so that a server that keeps the order sends endpoints before listeners.
        let mut requests = self.follow_references();
        requests.push(answer);
        Step { requests, published: self.publish(), held: true, refused, rejected }
    }

    /// Everything we hold, as a server would send it: for a cache on disk.
    #[must_use]
    pub fn wire(&self) -> Vec<DeltaDiscoveryResponse> {
        self.shelves.iter().filter(|(_, shelf)| shelf.answered).map(|(kind, shelf)| shelf.wire(kind)).collect()
    }

    /// Takes back what [`Session::wire`] gave, before the first stream. What does not decode any more is left out and returned.
    pub fn restore(&mut self, wire: Vec<DeltaDiscoveryResponse>) -> Vec<DecodeError> {
        let mut refused = Vec::new();
        let mut by_kind: Vec<(Kind, DeltaDiscoveryResponse)> =
            wire.into_iter().filter_map(|one| Some((Kind::from_type_url(&one.type_url)?, one))).collect();
        // What refers comes before what is referred to: only names that are asked for are taken.
        by_kind.sort_by_key(|(kind, _)| !kind.is_wildcard_by_default());
        for (kind, response) in by_kind {
            refused.extend(self.take(kind, response.resources, &response.removed_resources));
            self.follow_references();
        }
        // What had not come yet when this was kept was not served either, and a server that is down never sends it.
        let was_impatient = std::mem::replace(&mut self.impatient, true);
        self.publish();
        self.impatient = was_impatient;
        refused
    }

    /// Puts resources on their shelf. Good ones are taken even beside bad ones; a bad one leaves the last good one in place.
    fn take(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[String]) -> Vec<DecodeError> {
        let shelf = self.shelves.get_mut(kind);
        let mut refused = Vec::new();
        for resource in resources {
            if !kind.is_wildcard_by_default() && !shelf.names.contains(resource.name.as_str()) {
                continue; // it was unsubscribed while this was under way
            }
            let body = resource.resource.unwrap_or_default();
            match decode::resource(kind, &resource.name, &body) {
                Ok(decoded) => {
                    let name: Arc<str> = resource.name.into();
                    shelf.absent.remove(&name);
                    shelf.resources.insert(name, Held { version: resource.version, body, decoded });
                }
                Err(error) => refused.push(error),
            }
        }
        for name in removed {
            shelf.resources.remove(name.as_str());
            if shelf.names.contains(name.as_str()) {
                shelf.absent.insert(name.as_str().into());
            }
        }
        shelf.answered = true;
        refused
    }

    /// Subscribes to what is newly referred to, and from what no longer is.
    fn follow_references(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let assignments = self.clusters().map(|cluster| cluster.assignment.clone()).collect();
        let tables = self.listeners().filter_map(|listener| listener.routes.clone()).collect();
        let requests = [(Kind::Assignment, assignments), (Kind::Route, tables)];
        requests.into_iter().filter_map(|(kind, names)| self.shelves.get_mut(kind).follow(kind, names)).collect()
    }
}

impl Shelf {
    fn follow(&mut self, kind: Kind, names: BTreeSet<Arc<str>>) -> Option<DeltaDiscoveryRequest> {
        if names == self.names {
            return None;
        }
        let gained: Vec<String> = names.difference(&self.names).map(ToString::to_string).collect();
        let lost: Vec<String> = self.names.difference(&names).map(ToString::to_string).collect();
        self.names = names;
        self.resources.retain(|name, _| self.names.contains(name));
        self.absent.retain(|name| self.names.contains(name));
        self.opened = true;
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: gained,
            resource_names_unsubscribe: lost,
            ..DeltaDiscoveryRequest::default()
        })
    }

    fn versions(&self) -> HashMap<String, String> {
        self.resources.iter().map(|(name, held)| (name.to_string(), held.version.clone())).collect()
    }

    fn wire(&self, kind: Kind) -> DeltaDiscoveryResponse {
        let envelope = |(name, held): (&Arc<str>, &Held)| Resource {
            name: name.to_string(),
            version: held.version.clone(),
            resource: Some(held.body.clone()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            resources: self.resources.iter().map(envelope).collect(),
            removed_resources: self.absent.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn rejection(message: &str) -> Status {
    let message = message.chars().take(NACK_CHARACTERS_MAX).collect();
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}

fn words<'a>(refused: impl IntoIterator<Item = &'a DecodeError>) -> String {
    let told = refused.into_iter().map(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
