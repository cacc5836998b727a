//! How things are called: services, namespaces, ports and endpoints, and the DNS names and cluster names made of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The DNS zone of the mesh (`.internal` is reserved for private use by ICANN).
pub const DEFAULT_ZONE: &str = "mesh.internal";

/// Where a proxy listens for clients that know it as their HTTP proxy, and where processes look for it, unless they are told otherwise.
pub const DEFAULT_HTTP_PROXY_PORT: u16 = 14008;

/// A string that cannot be a name, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("a name is empty; 1 to 63 of a-z, 0-9 and - are wanted")]
    Empty,
    #[error("{value:?} has {length} characters; a name has at most 63 (RFC 1035 section 2.3.4)")]
    TooLong { value: String, length: usize },
    #[error("{value:?} contains {found:?}; a name is made of a-z, 0-9 and -, and does not begin or end with -")]
    Character { value: String, found: char },
}

/// One DNS label (RFC 1123 section 2.1): 1 to 63 of `a-z`, `0-9`, `-`; `_` is let through since Compose allows it in
/// project and service names. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Checks `value` as it stands.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(value: &str) -> Result<Self, NameError> {
        if value.is_empty() {
            return Err(NameError::Empty);
        }
        if value.len() > 63 {
            return Err(NameError::TooLong { value: value.to_owned(), length: value.chars().count() });
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if let Some(found) = value.chars().find(|c| !fits(*c)) {
            return Err(NameError::Character { value: value.to_owned(), found });
        }
        if value.starts_with('-') || value.ends_with('-') {
            return Err(NameError::Character { value: value.to_owned(), found: '-' });
        }
        Ok(Self(value.into()))
    }

    /// Makes a name of whatever an engine calls a thing: lower case, `.` becomes `-`.
    ///
    /// # Errors
    /// [`NameError`] when something is left that no DNS label can hold.
    pub fn from_foreign(value: &str) -> Result<Self, NameError> {
        Self::new(&value.trim_start_matches('/').to_ascii_lowercase().replace('.', "-"))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(value: &str) -> Result<Self, NameError> {
        Self::new(value)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(value: String) -> Result<Self, NameError> {
        Self::new(&value)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// A service: a name within a namespace (Compose: service and project). Written `web.shop`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId {
    pub namespace: Name,
    pub name: Name,
}

impl ServiceId {
    #[must_use]
    pub fn new(name: Name, namespace: Name) -> Self {
        Self { namespace, name }
    }

    /// `web.shop.svc.mesh.internal`, without a final dot.
    #[must_use]
    pub fn fqdn(&self, zone: &str) -> String {
        format!("{}.{}.svc.{zone}", self.name, self.namespace)
    }

    /// `outbound|8080||web.shop.svc.mesh.internal`: the cluster of one service port, in Istio's form.
    #[must_use]
    pub fn cluster_name(&self, port: u16, zone: &str) -> String {
        format!("outbound|{port}||{}", self.fqdn(zone))
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An endpoint's identity: what serves, and which of its lives. It survives every new snapshot, and is never carried over
/// to another container that got the same address. Written `0f3a9c@1763887000123`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId {
    /// Container id, `pid-123`, or the configured `address:port`.
    pub unit: Arc<str>,
    /// Start generation: the start time in milliseconds since the epoch, or 0 where nothing ever restarts (a file).
    pub start: u64,
}

impl EndpointId {
    #[must_use]
    pub fn new(unit: &str, start: u64) -> Self {
        Self { unit: unit.into(), start }
    }

    /// At most 12 characters of the unit, as `docker ps` prints an id; addresses and names are printed whole.
    #[must_use]
    pub fn short(&self) -> &str {
        let id = self.unit.len() == 64 && self.unit.bytes().all(|b| b.is_ascii_hexdigit());
        if id { &self.unit[..12] } else { &self.unit }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.unit, self.start)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A string that is not `unit@start`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{value:?} is no endpoint id; `<unit>@<start>` is wanted")]
pub struct EndpointIdError {
    pub value: String,
}

impl FromStr for EndpointId {
    type Err = EndpointIdError;
    fn from_str(value: &str) -> Result<Self, EndpointIdError> {
        let wrong = || EndpointIdError { value: value.to_owned() };
        let (unit, start) = value.rsplit_once('@').ok_or_else(wrong)?;
        Ok(Self::new(unit, start.parse().map_err(|_| wrong())?))
    }
}

impl TryFrom<String> for EndpointId {
    type Error = EndpointIdError;
    fn try_from(value: String) -> Result<Self, EndpointIdError> {
        value.parse()
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        let check = |value: &str, fits: bool| assert_eq!(Name::new(value).is_ok(), fits, "{value:?}");
        for good in ["web", "a", "web-1", "my_app", "0", &"x".repeat(63)] {
            check(good, true);
        }
        for bad in ["", "Web", "-web", "web-", "web.shop", "wéb", "a b", &"x".repeat(64)] {
            check(bad, false);
        }
    }

    #[test]
    fn foreign_names_are_brought_into_shape() {
        let check = |value: &str, expected: &str| assert_eq!(Name::from_foreign(value).unwrap().as_str(), expected);
        check("/Web.Front", "web-front");
        check("plain", "plain");
        assert!(Name::from_foreign("/a b").is_err());
    }

    #[test]
    fn ids_survive_a_round_trip() {
        let id = EndpointId::new("10.0.0.5:8080", 17);
        assert_eq!(id.to_string().parse::<EndpointId>().unwrap(), id);
        assert!("nothing".parse::<EndpointId>().is_err());
        let container = EndpointId::new(&"ab".repeat(32), 1);
        assert_eq!(container.short(), "abababababab");
        assert_eq!(id.short(), "10.0.0.5:8080");
    }

    #[test]
    fn services_have_one_name_everywhere() {
        let id = ServiceId::new(Name::new("web").unwrap(), Name::new("shop").unwrap());
        assert_eq!(id.to_string(), "web.shop");
        assert_eq!(id.fqdn(DEFAULT_ZONE), "web.shop.svc.mesh.internal");
        assert_eq!(id.cluster_name(8080, DEFAULT_ZONE), "outbound|8080||web.shop.svc.mesh.internal");
    }
}
