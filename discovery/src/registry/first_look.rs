//! Who has to have looked before anything is told. A catalogue that has not seen an engine says that its containers are gone,
//! and whoever believes it turns away from services that are well; while nothing is told, proxies keep the last good one. So:
//!
//! - Every provider is awaited until it has seen what it tells of, however long that takes. An engine that takes connections
//!   and does not answer is there, and something runs on it.
//! - One whose engine or file is not there at all ([`Sight::Absent`]) is not awaited, unless an earlier run told what was seen
//!   at the very same place: then there is something to lose, and it counts as down, not as never installed. A socket that
//!   is not there, takes no connection or not from this user is such an engine; one that is to be reached over TCP was named
//!   by somebody, and is awaited whatever its host answers.
//!
//! While somebody is awaited xDS clients get no answer yet, names of our zone are SERVFAIL (NXDOMAIN would be remembered, and
//! believed), readiness names who is awaited, and the unpublished snapshot 0 carries the conditions that say why.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::model::condition::{Condition, ConditionKind};

use super::Registry;
use crate::provider::{ProviderName, Sight};

/// Where a provider looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The engine's URL, the file's path; empty where there is only one.
    pub place: String,
    /// An earlier run told what was seen there.
    pub told_before: bool,
}

/// The providers that are configured.
#[derive(Debug, Clone, Default)]
pub struct FirstLooks {
    expected: BTreeMap<ProviderName, Source>,
}

impl FirstLooks {
    #[must_use]
    pub fn new(expected: BTreeMap<ProviderName, Source>) -> Self {
        Self { expected }
    }

    /// Who is still awaited.
    #[must_use]
    pub fn awaited(&self, registry: &Registry) -> Vec<ProviderName> {
        let is_awaited = |(name, source): &(&ProviderName, &Source)| match registry.sight(name) {
            Some(Sight::Seen) => false,
            Some(Sight::Absent) => source.told_before,
            Some(Sight::Blind) | None => true,
        };
        self.expected.iter().filter(is_awaited).map(|(name, _)| *name).collect()
    }

    /// Who has looked for the first time.
    #[must_use]
    pub fn seen(&self, registry: &Registry) -> Vec<(ProviderName, &str)> {
        let seen = self.expected.iter().filter(|(name, _)| registry.sight(name) == Some(Sight::Seen));
        seen.map(|(name, source)| (*name, source.place.as_str())).collect()
    }

    /// Why nothing is told yet, for people: one condition for each who is awaited.
    #[must_use]
    pub fn conditions(&self, registry: &Registry) -> BTreeSet<Condition> {
        self.awaited(registry).into_iter().map(|name| self.condition(name, registry)).collect()
    }

    fn condition(&self, name: ProviderName, registry: &Registry) -> Condition {
        let said = registry.conditions_of(name).iter();
        let own = said.into_iter().find(|condition| {
            matches!(condition.kind, ConditionKind::ProviderUnavailable | ConditionKind::InvalidFile)
        });
        let why = own.map_or("it has not answered yet", |condition| &condition.message);
        let mut message = format!("{why}; nothing is told before it has been seen, and proxies keep what they have");
        if registry.sight(name) == Some(Sight::Absent) {
            message += match name {
                "docker" => "; if it is gone for good, start with --docker none",
                "file" => "; if it is gone for good, start without --file",
                _ => "",
            };
        }
        let object = own.map_or_else(|| format!("provider/{name}").into(), |condition| condition.object.clone());
        let kind = own.map_or(ConditionKind::ProviderUnavailable, |condition| condition.kind);
        Condition::new(object, kind, message)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::provider::Observation;

    #[test]
    fn only_what_was_never_there_is_not_awaited() {
        let check = |sight: Option<Sight>, told_before: bool, awaited: bool, hint: bool| {
            let mut registry = Registry::new("10.9.0.0/24".parse().unwrap(), BTreeMap::new(), 0, Instant::now());
            if let Some(sight) = sight {
                let said = Condition::new("provider/docker", ConditionKind::ProviderUnavailable, "no answer");
                let conditions = if sight == Sight::Seen { Vec::new() } else { vec![said] };
                registry.observe("docker", Observation { conditions, sight, ..Observation::default() });
            }
            let source = Source { place: "unix:///s".to_owned(), told_before };
            let looks = FirstLooks::new(BTreeMap::from([("docker", source)]));
            assert_eq!(!looks.awaited(&registry).is_empty(), awaited, "{sight:?} {told_before}");
            let told: Vec<String> = looks.conditions(&registry).iter().map(|one| one.message.to_string()).collect();
            assert_eq!(!told.is_empty(), awaited);
            assert_eq!(told.iter().any(|text| text.contains("--docker none")), hint, "{told:?}");
        };
        for told_before in [false, true] {
            check(None, told_before, true, false);
            check(Some(Sight::Blind), told_before, true, false);
            check(Some(Sight::Seen), told_before, false, false);
        }
        check(Some(Sight::Absent), false, false, false);
        check(Some(Sight::Absent), true, true, true);
    }
}
