//! Discovery's end of one stream, as a pure state machine: requests and new resource sets go in, responses come out.
//!
//! Rules, for both variants of the protocol:
//! - **One response per type is under way at most.** Until the client has said ACK or NACK to it, changes of that type gather,
//!   and go out as one. So a client that does not read costs five messages, whatever happens meanwhile.
//! - **Make before break.** Clusters, then endpoints, then listeners, then routes, then capture: a type waits until those before
//!   it are acknowledged. What a new set no longer has of clusters, endpoints and routes is *retained* until all others are
//!   acknowledged, and goes last. While the client rejects a listener or a table, it stays too: the client still uses it.
//! - A rejected resource is not sent again until it changes.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource, ResourceError,
    ResourceName,
};
use envoy_types::pb::google::rpc::Status;
use thiserror::Error;

use crate::kind::{Kind, PerKind};
use crate::packed::{Packed, ResourceSet, version_of_all};
use subscription::Subscription;

/// Retained resources of one kind beyond which they go at once: a client that rejects everything must not make us keep it all.
const RETAINED_MAX: usize = 4096;

/// Names one client may ask for, of one kind.
const NAMES_MAX: usize = 16_384;

/// `NOT_FOUND` of `google.rpc.Code`.
const NOT_FOUND: i32 = 5;

/// Which variant of the protocol the stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    Delta,
    StateOfTheWorld,
}

/// A request we cannot make sense of.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("resource type {type_url:?} is not served")]
    UnknownType { type_url: String },
    #[error("more than {NAMES_MAX} names of type {kind} on one stream")]
    TooManyNames { kind: Kind },
}

/// What the client said about a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted { kind: Kind, version: Arc<str> },
    Rejected { kind: Kind, version: Arc<str>, words: String },
}

/// What follows from a request.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub responses: Vec<Response>,
    pub verdict: Option<Verdict>,
}

/// One message to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub kind: Kind,
    pub nonce: String,
    pub version: Arc<str>,
    pub resources: Vec<Arc<Packed>>,
    /// Names that are no more, or never were. In the state of the world, where leaving out says as much of what came by
    /// wildcard, those alone that the client asked for by name.
    pub removed: Vec<Arc<str>>,
}

/// How one type stands on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindStatus {
    pub kind: Kind,
    /// Asked for everything.
    pub wildcard: bool,
    /// Asked for by name.
    pub names: usize,
    pub sent_version: Option<Arc<str>>,
    pub acked_version: Option<Arc<str>>,
    /// The words of the last rejection, until something is accepted again.
    pub rejected: Option<String>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    flavor: Flavor,
    set: Arc<ResourceSet>,
    subscriptions: PerKind<Subscription>,
    /// What the set no longer has, but the client may still use.
    retained: PerKind<BTreeMap<Arc<str>, Arc<Packed>>>,
    next_nonce: u64,
}

impl Session {
    #[must_use]
    pub fn new(flavor: Flavor, set: Arc<ResourceSet>) -> Self {
        Self { flavor, set, subscriptions: PerKind::default(), retained: PerKind::default(), next_nonce: 1 }
    }

    /// Everything is as in `set` from now on.
    pub fn update(&mut self, set: Arc<ResourceSet>) -> Vec<Response> {
        let old = std::mem::replace(&mut self.set, set);
        for kind in [Kind::Cluster, Kind::Assignment, Kind::Route] {
            let told = self.subscriptions.get(kind);
            let retained = self.retained.get_mut(kind);
            retained.extend(old.all(kind).filter(|one| told.has(&one.name)).map(|one| (one.name.clone(), one.clone())));
            retained.retain(|name, _| self.set.by_name(kind, name).is_none());
            if retained.len() > RETAINED_MAX {
                retained.clear();
            }
        }
        self.flush()
    }

    /// A request of the delta variant.
    ///
    /// # Errors
    /// [`RequestError`]; the stream goes on.
    pub fn delta_request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Outcome, RequestError> {
        let kind = kind_of(&request.type_url)?;
        let retained = self.retained.get(kind);
        let set = &self.set;
        let is_offered = |name: &str| set.offered(kind).contains_key(name) || retained.contains_key(name);
        let subscription = self.subscriptions.get_mut(kind);
        if subscription.names.len() + request.resource_names_subscribe.len() > NAMES_MAX {
            return Err(RequestError::TooManyNames { kind });
        }
        let verdict =
            subscription.answered_alone(kind, &request.response_nonce, request.error_detail.as_ref().map(words));
        subscription.change(kind, request, is_offered);
        Ok(Outcome { responses: self.flush(), verdict })
    }

    /// A request of the state-of-the-world variant.
    ///
    /// # Errors
    /// [`RequestError`]; the stream goes on.
    pub fn sotw_request(&mut self, request: &DiscoveryRequest) -> Result<Outcome, RequestError> {
        let kind = kind_of(&request.type_url)?;
        let subscription = self.subscriptions.get_mut(kind);
        if request.resource_names.len() > NAMES_MAX {
            return Err(RequestError::TooManyNames { kind });
        }
        if subscription.is_stale(&request.response_nonce) {
            // It crossed a response of ours; the client will answer that one, with all its names.
            return Ok(Outcome::default());
        }
        let verdict = subscription.answered(kind, &request.response_nonce, request.error_detail.as_ref().map(words));
        subscription.replace(kind, &request.resource_names);
        Ok(Outcome { responses: self.flush(), verdict })
    }

    /// How each type that was asked for stands.
    #[must_use]
    pub fn status(&self) -> Vec<KindStatus> {
        self.subscriptions.iter().filter(|(_, one)| one.requested).map(|(kind, one)| one.status(kind)).collect()
    }

    /// Sends what may be sent now, in order, and breaks what was retained once all else is quiet.
    fn flush(&mut self) -> Vec<Response> {
        let mut responses = self.make();
        if responses.is_empty() && self.may_break() {
            self.retained = PerKind::default();
            responses = self.make();
        }
        responses
    }

    fn may_break(&self) -> bool {
        let anything = self.retained.iter().any(|(_, retained)| !retained.is_empty());
        let quiet = self.subscriptions.iter().all(|(_, one)| one.in_flight.is_none());
        let rejecting = [Kind::Listener, Kind::Route].into_iter().any(|kind| self.subscriptions.get(kind).rejecting());
        anything && quiet && !rejecting
    }

    fn make(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        let mut busy = false;
        for kind in Kind::ALL {
            // Endpoints do not wait for clusters: a client may ask for them before it has said ACK, and wait for them.
            let waits = busy && kind > Kind::Assignment;
            if self.subscriptions.get(kind).in_flight.is_none() && !waits {
                responses.extend(self.response(kind));
            }
            busy |= self.subscriptions.get(kind).in_flight.is_some();
        }
        responses
    }

    /// The next response of a kind, if there is anything to say.
    fn response(&mut self, kind: Kind) -> Option<Response> {
        let wanted = wanted(&self.set, self.retained.get(kind), self.subscriptions.get(kind), kind);
        let subscription = self.subscriptions.get_mut(kind);
        if !subscription.requested {
            return None;
        }
        let (changed, mut removed) = subscription.differences(&wanted);
        let full = self.flavor == Flavor::StateOfTheWorld && kind.is_full_state();
        let silent = self.flavor == Flavor::StateOfTheWorld && !kind.is_full_state();
        let due =
            if silent { !changed.is_empty() } else { subscription.owed || !(changed.is_empty() && removed.is_empty()) };
        if self.flavor == Flavor::StateOfTheWorld {
            removed.retain(|name| subscription.names.contains(name));
        }
        let version = version_of_all(wanted.values().flatten());
        let resources = if full { wanted.values().flatten().cloned().collect() } else { changed };
        subscription.told =
            wanted.into_iter().map(|(name, found)| (name, found.map(|one| one.version.clone()))).collect();
        subscription.owed = false;
        if !due {
            return None;
        }
        let nonce = format!("{:x}", self.next_nonce);
        self.next_nonce += 1;
        subscription.sent(&nonce, &version);
        Some(Response { kind, nonce, version, resources, removed })
    }
}

/// Every name the client should know of, and what is behind it: nothing, where it asked for what does not exist.
fn wanted(
    set: &ResourceSet,
    retained: &BTreeMap<Arc<str>, Arc<Packed>>,
    subscription: &Subscription,
    kind: Kind,
) -> BTreeMap<Arc<str>, Option<Arc<Packed>>> {
    let mut wanted = BTreeMap::new();
    if subscription.wildcard {
        wanted.extend(set.offered(kind).iter().map(|(name, one)| (name.clone(), Some(one.clone()))));
        let kept = retained.iter().filter(|(name, _)| subscription.has(name));
        wanted.extend(kept.map(|(name, one)| (name.clone(), Some(one.clone()))));
    }
    for name in &subscription.names {
        let found = set.by_name(kind, name).or_else(|| retained.get(name));
        wanted.insert(name.clone(), found.cloned());
    }
    wanted
}

fn kind_of(type_url: &str) -> Result<Kind, RequestError> {
    Kind::from_type_url(type_url).ok_or_else(|| RequestError::UnknownType { type_url: type_url.to_owned() })
}

fn words(status: &Status) -> &str {
    &status.message
}

impl Response {
    #[must_use]
    pub fn into_delta(self) -> DeltaDiscoveryResponse {
        let envelope = |one: Arc<Packed>| Resource {
            name: one.name.to_string(),
            version: one.version.to_string(),
            resource: Some(one.body.clone()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: self.version.to_string(),
            resources: self.resources.into_iter().map(envelope).collect(),
            type_url: self.kind.type_url().to_owned(),
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            nonce: self.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }

    /// What does not exist is an error of its own in it: a client that merely misses a name it has just asked for must take
    /// the response for an answer to an earlier question, and waits (gRPC: 15 s). Clients that do not know the field skip it.
    #[must_use]
    pub fn into_sotw(self) -> DiscoveryResponse {
        let missing = |name: &Arc<str>| ResourceError {
            resource_name: Some(ResourceName { name: name.to_string(), ..ResourceName::default() }),
            error_detail: Some(Status {
                code: NOT_FOUND,
                message: format!("the mesh has no {name}"),
                ..Status::default()
            }),
        };
        DiscoveryResponse {
            version_info: self.version.to_string(),
            resources: self.resources.iter().map(|one| one.body.clone()).collect(),
            resource_errors: self.removed.iter().map(missing).collect(),
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce,
            ..DiscoveryResponse::default()
        }
    }
}

#[cfg(test)]
mod tests;
