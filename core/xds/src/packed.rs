//! One encoded resource with its version, and everything one client may have.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::kind::{Kind, PerKind};

/// Part of every version: two releases that encode the same value differently must not share one.
const ENCODING_REVISION: u32 = 1;

/// One resource as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    pub name: Arc<str>,
    /// Hash of the content: equal versions mean equal resources, whoever made them, and whenever.
    pub version: Arc<str>,
    pub body: Any,
}

/// The version of a value: the first 16 hex digits of a SHA-256. It is taken of the value and not of the encoded bytes, in
/// which the entries of a protobuf map stand in no fixed order.
#[must_use]
pub fn version_of<T: Serialize + ?Sized>(kind: Kind, value: &T) -> Arc<str> {
    let content = serde_json::to_vec(value).expect("core types have string keys and serialise to JSON");
    let mut hasher = Sha256::new();
    hasher.update(ENCODING_REVISION.to_be_bytes());
    hasher.update(kind.type_url());
    hasher.update(content);
    hex_prefix(&hasher.finalize())
}

/// One version for a whole list of resources, as a state-of-the-world response has it.
#[must_use]
pub fn version_of_all<'a>(resources: impl IntoIterator<Item = &'a Arc<Packed>>) -> Arc<str> {
    let mut hasher = Sha256::new();
    for resource in resources {
        hasher.update(resource.name.as_bytes());
        hasher.update([0]);
        hasher.update(resource.version.as_bytes());
        hasher.update([0]);
    }
    hex_prefix(&hasher.finalize())
}

fn hex_prefix(digest: &[u8]) -> Arc<str> {
    let mut text = String::with_capacity(16);
    for byte in &digest[..8] {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text.into()
}

type ByName = BTreeMap<Arc<str>, Arc<Packed>>;

/// Everything one client may have, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSet {
    /// For whoever asks for everything, and by name.
    offered: PerKind<ByName>,
    /// For whoever asks by name only.
    on_demand: PerKind<ByName>,
}

impl ResourceSet {
    /// Adds a resource that a wildcard brings too; one of the same name is replaced.
    pub fn offer(&mut self, kind: Kind, resource: Packed) {
        self.offered.get_mut(kind).insert(resource.name.clone(), Arc::new(resource));
    }

    /// Adds a resource that only its name brings.
    pub fn offer_on_demand(&mut self, kind: Kind, resource: Packed) {
        self.on_demand.get_mut(kind).insert(resource.name.clone(), Arc::new(resource));
    }

    /// What a wildcard brings, in order of name.
    pub fn offered(&self, kind: Kind) -> &BTreeMap<Arc<str>, Arc<Packed>> {
        self.offered.get(kind)
    }

    /// What the name brings.
    #[must_use]
    pub fn by_name(&self, kind: Kind, name: &str) -> Option<&Arc<Packed>> {
        self.offered.get(kind).get(name).or_else(|| self.on_demand.get(kind).get(name))
    }

    /// Everything there is of a kind.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Packed>> {
        self.offered.get(kind).values().chain(self.on_demand.get(kind).values())
    }
}
