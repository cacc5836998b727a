//! What one client wants of one type, and what it has been told of it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{KindStatus, Verdict};
use crate::kind::Kind;
use crate::packed::Packed;

/// Asks for everything of a type.
const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// There was a request of this type.
    pub requested: bool,
    pub wildcard: bool,
    /// The wildcard came as "no name at all", so an empty list of names still means it.
    implicit_wildcard: bool,
    pub names: BTreeSet<Arc<str>>,
    /// What the client knows: the version, or that there is no such thing.
    pub told: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// A response is due even if there is nothing to say: the client waits for it.
    pub owed: bool,
    /// Nonce and version of the response that was neither accepted nor rejected yet.
    pub in_flight: Option<(String, Arc<str>)>,
    last_nonce: Option<String>,
    sent_version: Option<Arc<str>>,
    acked_version: Option<Arc<str>>,
    rejected: Option<String>,
}

impl Subscription {
    /// Whether the client has the resource.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.told.get(name), Some(Some(_)))
    }

    pub fn rejecting(&self) -> bool {
        self.rejected.is_some()
    }

    pub fn sent(&mut self, nonce: &str, version: &Arc<str>) {
        self.in_flight = Some((nonce.to_owned(), version.clone()));
        self.last_nonce = Some(nonce.to_owned());
        self.sent_version = Some(version.clone());
    }

    /// Takes the nonce of a request: an ACK, a NACK, or nothing of that kind.
    pub fn answered(&mut self, kind: Kind, nonce: &str, rejection: Option<&str>) -> Option<Verdict> {
        let awaited = self.in_flight.take_if(|(awaited, _)| awaited == nonce).map(|(_, version)| version);
        let version = awaited.or_else(|| self.changed_mind(nonce, rejection))?;
        if let Some(words) = rejection {
            self.rejected = Some(words.to_owned());
            return Some(Verdict::Rejected { kind, version, words: words.to_owned() });
        }
        self.acked_version = Some(version.clone());
        self.rejected = None;
        Some(Verdict::Accepted { kind, version })
    }

    /// The version that a client rejects although it had accepted it: its own configuration changed, and clashes with it.
    fn changed_mind(&self, nonce: &str, rejection: Option<&str>) -> Option<Arc<str>> {
        let is_last = self.in_flight.is_none() && self.last_nonce.as_deref() == Some(nonce);
        self.sent_version.clone().filter(|_| is_last && rejection.is_some() && self.rejected.as_deref() != rejection)
    }

    /// As [`Self::answered`], where nothing but an answer has a nonce: a rejection may be taken back, too.
    pub fn answered_alone(&mut self, kind: Kind, nonce: &str, rejection: Option<&str>) -> Option<Verdict> {
        let takes_back = self.rejected.is_some() && rejection.is_none() && self.in_flight.is_none();
        if takes_back && self.last_nonce.as_deref() == Some(nonce) {
            self.in_flight = Some((nonce.to_owned(), self.sent_version.clone()?));
        }
        self.answered(kind, nonce, rejection)
    }

    /// Whether a state-of-the-world request answers an older response than our last.
    pub fn is_stale(&self, nonce: &str) -> bool {
        self.last_nonce.as_ref().is_some_and(|last| !nonce.is_empty() && last != nonce)
    }

    /// What to send to get from what was told to what is wanted.
    pub fn differences(&self, wanted: &BTreeMap<Arc<str>, Option<Arc<Packed>>>) -> (Vec<Arc<Packed>>, Vec<Arc<str>>) {
        let known = |name: &Arc<str>| self.told.get(name);
        let is_news = |one: &&Arc<Packed>| known(&one.name) != Some(&Some(one.version.clone()));
        let changed = wanted.values().flatten().filter(is_news).cloned().collect();
        let absent = wanted.iter().filter(|(name, found)| found.is_none() && known(name) != Some(&None));
        let mut removed: Vec<Arc<str>> = absent.map(|(name, _)| name.clone()).collect();
        let gone = self.told.iter().filter(|(name, version)| version.is_some() && !wanted.contains_key(*name));
        removed.extend(gone.map(|(name, _)| name.clone()));
        (changed, removed)
    }

    /// The subscription part of a delta request. `is_offered` tells whether a wildcard brings a name.
    pub fn change(&mut self, kind: Kind, request: &DeltaDiscoveryRequest, is_offered: impl Fn(&str) -> bool) {
        if !self.requested {
            self.requested = true;
            if request.resource_names_subscribe.is_empty() && kind.is_wildcard_by_default() {
                self.subscribe_to_all();
            }
            // What the client still has from an earlier stream, told in the first request of a new one.
            let held = request.initial_resource_versions.iter();
            self.told = held.map(|(name, version)| (name.as_str().into(), Some(version.as_str().into()))).collect();
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.subscribe_to_all();
                continue;
            }
            self.names.insert(name.as_str().into());
            // Who subscribes again has lost it, and gets it again.
            if !request.initial_resource_versions.contains_key(name) {
                self.told.remove(name.as_str());
            }
        }
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name, &is_offered);
        }
        let (wildcard, names) = (self.wildcard, &self.names);
        self.told.retain(|name, _| wildcard || names.contains(name));
    }

    fn subscribe_to_all(&mut self) {
        self.wildcard = true;
        self.owed = true;
    }

    /// Under a wildcard, the client cannot know whether what it dropped by name still comes: it is told again.
    fn unsubscribe(&mut self, name: &str, is_offered: impl Fn(&str) -> bool) {
        if name == WILDCARD {
            self.wildcard = false;
            self.implicit_wildcard = false;
            return;
        }
        self.names.remove(name);
        if !self.wildcard || is_offered(name) {
            self.told.remove(name);
        }
    }

    /// The subscription part of a state-of-the-world request: the whole list, each time.
    pub fn replace(&mut self, kind: Kind, list: &[String]) {
        if !self.requested {
            self.requested = true;
            self.implicit_wildcard = list.is_empty() && kind.is_wildcard_by_default();
            self.owed = kind.is_full_state() && (self.implicit_wildcard || !list.is_empty());
        }
        // Once a name was given, an empty list means nothing and no longer everything.
        self.implicit_wildcard &= list.is_empty();
        let wildcard = self.implicit_wildcard || list.iter().any(|name| name == WILDCARD);
        let names: BTreeSet<Arc<str>> =
            list.iter().filter(|name| *name != WILDCARD).map(|name| name.as_str().into()).collect();
        let gained = (wildcard && !self.wildcard) || names.iter().any(|name| !self.names.contains(name));
        self.owed |= gained && kind.is_full_state();
        self.wildcard = wildcard;
        self.names = names;
        let names = &self.names;
        self.told.retain(|name, _| wildcard || names.contains(name));
    }

    pub fn status(&self, kind: Kind) -> KindStatus {
        KindStatus {
            kind,
            wildcard: self.wildcard,
            names: self.names.len(),
            sent_version: self.sent_version.clone(),
            acked_version: self.acked_version.clone(),
            rejected: self.rejected.clone(),
        }
    }
}
