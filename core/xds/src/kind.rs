//! The resource types that travel on a stream, and the order they are sent in.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;

/// A resource type, in make-before-break order: what is referred to comes before what refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cluster,
    Assignment,
    Listener,
    Route,
    /// Our own: what to capture. It comes last, when there is something behind every captured address.
    Capture,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Assignment, Self::Listener, Self::Route, Self::Capture];

    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Assignment => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Capture => "type.googleapis.com/mesh.v1.Capture",
        }
    }

    #[must_use]
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Envoy's short word for the discovery service of this type, as in logs, metrics and config dumps.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Assignment => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Capture => "capture",
        }
    }

    /// Whether a first request without any name asks for everything of this type. For the others it asks for nothing: they
    /// are referred to by name.
    #[must_use]
    pub fn is_wildcard_by_default(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::Capture)
    }

    /// Whether a state-of-the-world response holds all there is, so that a resource missing from it is gone.
    #[must_use]
    pub fn is_full_state(self) -> bool {
        self.is_wildcard_by_default()
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// One value for each [`Kind`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerKind<T>([T; 5]);

impl<T> PerKind<T> {
    pub fn get(&self, kind: Kind) -> &T {
        &self.0[kind.index()]
    }

    pub fn get_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_kind_is_found_by_its_url() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::from_type_url("type.googleapis.com/envoy.config.cluster.v2.Cluster"), None);
    }
}
