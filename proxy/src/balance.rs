//! Stage 9 of a request's walk: which endpoint takes it.
//!
//! Each worker has a [`Balancer`] per cluster, with a seed of its own; nothing in it is shared. What it looks at is: the load and
//! ejection of endpoints, which all workers share as atomics of [`crate::endpoint`].
//!
//! The order of preference, from the best: an endpoint of the first priority that has one which takes requests and was not tried
//! for this request yet; one that is ejected (panic), since a doubtful endpoint is better than one that just failed, and than
//! none; and one that was tried, again those that are not ejected first.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::Balance;
use mesh_core::model::reason::Reason;
use thiserror::Error;

use crate::endpoint::level::{Level, Place};
use crate::endpoint::{LiveCluster, LiveEndpoint};

pub mod least_request; // power of two choices
pub mod round_robin; // in turn, by weight

use round_robin::Schedule;

/// Picks endpoints of one cluster, for one worker.
#[derive(Debug)]
pub struct Balancer {
    random: fastrand::Rng,
    least_request: least_request::Draw,
    /// By level, for the generation below.
    schedules: Vec<Schedule>,
    generation: Option<u64>,
}

/// The endpoint picked.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'c> {
    pub endpoint: &'c Arc<LiveEndpoint>,
    /// It is ejected: all that take requests and were not tried are.
    pub panic: bool,
    /// It was tried for this request already: there is no other.
    pub again: bool,
}

/// No endpoint takes requests (reason `UH`), and why each does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{known} endpoints known, none takes requests: {not_ready} not ready, {draining} draining, {weight_zero} with weight 0"
)]
pub struct Unavailable {
    pub known: usize,
    pub not_ready: usize,
    pub draining: usize,
    /// Ready, with weight 0.
    pub weight_zero: usize,
    /// Always 0 where nothing else is wrong: ejected endpoints are used before none is.
    pub ejected: usize,
}

/// Whether an endpoint would be picked, and why not: for `/clusters` and `mesh-ctl why`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In the draw.
    Taken,
    /// Ejected, and in the draw since all are.
    TakenInPanic {
        ejected_for: Duration,
    },
    NotReady,
    Draining,
    WeightZero,
    /// Out for this long still.
    Ejected {
        ejected_for: Duration,
    },
    /// Endpoints of this lower priority number take the requests.
    OtherPriority {
        used: u32,
    },
}

/// Which members of a level may be picked.
pub(crate) struct Candidates<'a> {
    pub(crate) cluster: &'a LiveCluster,
    pub(crate) level: &'a Level,
    tried: &'a [EndpointId],
    /// On the cluster's clock.
    clock_ms: u64,
    with_ejected: bool,
}

impl Balancer {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, least_request: least_request::Draw::new(), schedules: Vec::new(), generation: None }
    }

    /// Picks an endpoint that is not in `tried`, if there is one.
    ///
    /// # Errors
    /// [`Unavailable`] when no endpoint takes requests.
    pub fn pick<'c>(
        &mut self,
        cluster: &'c LiveCluster,
        tried: &[EndpointId],
        now: Instant,
    ) -> Result<Pick<'c>, Unavailable> {
        if cluster.policy().balance == Balance::RoundRobin && self.generation != Some(cluster.generation()) {
            Schedule::rebuild(&mut self.schedules, cluster, &mut self.random);
            self.generation = Some(cluster.generation());
        }
        let clock_ms = cluster.stats().clock_ms(now);
        for (panic, tried_too) in [(false, false), (true, false), (false, true), (true, true)] {
            if tried_too && tried.is_empty() {
                break;
            }
            let tried = if tried_too { &[] } else { tried };
            for (index, level) in cluster.levels().iter().enumerate() {
                let candidates = Candidates { cluster, level, tried, clock_ms, with_ejected: panic };
                if let Some(position) = self.draw(index, &candidates) {
                    return Ok(Pick { endpoint: &level.place(position).endpoint, panic, again: tried_too });
                }
            }
        }
        Err(Unavailable::of(cluster, now))
    }

    fn draw(&mut self, index: usize, candidates: &Candidates<'_>) -> Option<usize> {
        match candidates.cluster.policy().balance {
            Balance::LeastRequest => self.least_request.pick(candidates, &mut self.random),
            Balance::RoundRobin => self.schedules[index].pick(candidates),
        }
    }
}

impl Candidates<'_> {
    pub(crate) fn place(&self, position: usize) -> &Place {
        self.level.place(position)
    }

    pub(crate) fn may_take(&self, position: usize) -> bool {
        let ejected = !self.with_ejected && self.place(position).stats.ejected_until_ms() > self.clock_ms;
        let was_tried = || self.tried.contains(self.place(position).endpoint.id());
        !ejected && (self.tried.is_empty() || !was_tried())
    }
}

impl Unavailable {
    /// Counts what keeps each endpoint from taking requests.
    #[must_use]
    pub fn of(cluster: &LiveCluster, now: Instant) -> Self {
        let mut counts = Self { known: 0, not_ready: 0, draining: 0, weight_zero: 0, ejected: 0 };
        for endpoint in cluster.endpoints() {
            counts.known += 1;
            match endpoint.target.state {
                EndpointState::NotReady => counts.not_ready += 1,
                EndpointState::Draining => counts.draining += 1,
                EndpointState::Ready if endpoint.target.weight == 0 => counts.weight_zero += 1,
                EndpointState::Ready => counts.ejected += usize::from(cluster.ejected_for(endpoint, now).is_some()),
            }
        }
        counts
    }
}

impl Standing {
    /// One word for it, as it stands in `/clusters`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::TakenInPanic { .. } => "taken-in-panic",
            Self::NotReady => "not-ready",
            Self::Draining => "draining",
            Self::WeightZero => "weight-zero",
            Self::Ejected { .. } => "ejected",
            Self::OtherPriority { .. } => "other-priority",
        }
    }

    /// What a request that could go nowhere else would be refused with.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Taken | Self::TakenInPanic { .. } => None,
            Self::NotReady | Self::Draining | Self::WeightZero | Self::Ejected { .. } | Self::OtherPriority { .. } => {
                Some(Reason::NoHealthyUpstream)
            }
        }
    }
}

/// How every endpoint of a cluster stands, in order of id.
#[must_use]
pub fn explain(cluster: &LiveCluster, now: Instant) -> Vec<(Arc<LiveEndpoint>, Standing)> {
    let serves = |level: &&Level| {
        let out = |member: &u32| cluster.ejected_for(&cluster.endpoints()[*member as usize], now).is_some();
        !level.members().iter().all(out)
    };
    let used = cluster.levels().iter().find(serves);
    let panic = used.is_none();
    let used_priority = used.or(cluster.levels().first()).map_or(0, Level::priority);
    let standing = |endpoint: &LiveEndpoint| {
        let ejected_for = cluster.ejected_for(endpoint, now);
        match (endpoint.target.state, ejected_for) {
            (EndpointState::NotReady, _) => Standing::NotReady,
            (EndpointState::Draining, _) => Standing::Draining,
            _ if endpoint.target.weight == 0 => Standing::WeightZero,
            (_, Some(ejected_for)) if panic && endpoint.target.priority == used_priority => {
                Standing::TakenInPanic { ejected_for }
            }
            (_, Some(ejected_for)) => Standing::Ejected { ejected_for },
            _ if endpoint.target.priority != used_priority => Standing::OtherPriority { used: used_priority },
            _ => Standing::Taken,
        }
    };
    cluster.endpoints().iter().map(|endpoint| (Arc::clone(endpoint), standing(endpoint))).collect()
}

#[cfg(test)]
mod tests;
