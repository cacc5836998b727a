//! Stage 7 of a request's walk: which cluster its authority names. Exact names, without case, with or without a port; `*` takes
//! what nothing else does. No allocation on a lookup that succeeds.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::model::resource::RouteTable;
use rustc_hash::FxHashMap;
use thiserror::Error;

pub mod dialled; // where a captured connection was going, and what that decides

/// Longest authority that is brought to lower case on the stack: a DNS name has at most 253 characters (RFC 1035 section 2.3.4).
const STACK_BYTES: usize = 272;

/// One route table, made for lookups.
#[derive(Debug, Clone, Default)]
pub struct Router {
    clusters: FxHashMap<Arc<str>, Arc<str>>,
    default: Option<Arc<str>>,
    /// Every name one may ask for, without ports: what an unknown authority is answered with.
    known: Arc<[Arc<str>]>,
}

/// Nobody is called that (reason `NR`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no service is called {authority:?} here; known are: {}", names(.known))]
pub struct UnknownAuthority {
    /// As the client wrote it.
    pub authority: String,
    /// In order, each once.
    pub known: Arc<[Arc<str>]>,
}

impl Router {
    /// Where two virtual hosts claim one domain, the first has it.
    #[must_use]
    pub fn build(table: &RouteTable) -> Self {
        let mut router = Self::default();
        let mut known = BTreeSet::new();
        for host in &table.hosts {
            for domain in &host.domains {
                if **domain == *"*" {
                    router.default.get_or_insert_with(|| Arc::clone(&host.cluster));
                    continue;
                }
                let domain: Arc<str> = without_final_dot(domain).to_ascii_lowercase().into();
                known.insert(Arc::from(without_port(&domain)));
                router.clusters.entry(domain).or_insert_with(|| Arc::clone(&host.cluster));
            }
        }
        router.known = known.into_iter().collect();
        router
    }

    /// The cluster for an authority (`:authority`, `Host`, or that of an absolute URI): the whole of it first, then without its
    /// port, then whatever takes the rest.
    ///
    /// # Errors
    /// [`UnknownAuthority`] with the known names.
    pub fn route(&self, authority: &str) -> Result<&Arc<str>, UnknownAuthority> {
        let mut stack = [0; STACK_BYTES];
        let found = if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            match lower_case(authority, &mut stack) {
                Some(lower) => self.find(lower),
                None => self.find(&authority.to_ascii_lowercase()),
            }
        } else {
            self.find(authority)
        };
        found.or(self.default.as_ref()).ok_or_else(|| self.unknown(authority))
    }

    /// The names one may ask for, without ports, in order.
    #[must_use]
    pub fn known(&self) -> &Arc<[Arc<str>]> {
        &self.known
    }

    fn find(&self, authority: &str) -> Option<&Arc<str>> {
        let found = self.clusters.get(authority);
        found.or_else(|| self.clusters.get(without_final_dot(without_port(authority))))
    }

    #[cold]
    fn unknown(&self, authority: &str) -> UnknownAuthority {
        UnknownAuthority { authority: authority.to_owned(), known: Arc::clone(&self.known) }
    }
}

/// `web` of `web:8080`, `[::1]` of `[::1]:80`.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address (RFC 3986 section 3.2.2).
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => {
            let bare_v6 = host.contains(':') && !host.ends_with(']');
            if bare_v6 { authority } else { host }
        }
        _ => authority,
    }
}

/// A name may be written as fully qualified (RFC 1034 section 3.1).
fn without_final_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn lower_case<'s>(authority: &str, stack: &'s mut [u8; STACK_BYTES]) -> Option<&'s str> {
    let place = stack.get_mut(..authority.len())?;
    place.copy_from_slice(authority.as_bytes());
    place.make_ascii_lowercase();
    std::str::from_utf8(place).ok()
}

fn names(known: &[Arc<str>]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests;
