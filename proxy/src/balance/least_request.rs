//! The power of two choices, by weight: two different endpoints are drawn in proportion to their weights, and the first keeps
//! the request unless the second is less loaded than it should be beside the first.
//!
//! Comparing loads divided by weights would starve light endpoints: while little is under way, a load is a small whole number,
//! and one request is a whole share for a light endpoint and a third for one of weight 3. So the first is left with a
//! probability that grows *in proportion* to its excess over its fair part of what both have under way. Excesses are zero on
//! average while endpoints are equally fast, whatever the concurrency, so what flows from one to the other flows back, and
//! shares stay those of the weights; an endpoint that is slower gathers excess and is left for others. Where weights are
//! equal nothing can be starved, and any excess decides.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::Candidates;

/// Up to so many members, those that may take the request are looked at one by one; beyond, they are drawn and drawn again.
const SMALL_LEVEL: usize = 8;

/// Draws before all members are looked at one by one after all: with half of them out, one in a thousand picks comes to that.
const DRAWS_MAX: usize = 10;

/// In how many stretches the line is cut that first candidates are drawn from.
const STRETCHES: usize = 16;

/// Where the first candidates come from: of every [`STRETCHES`] points one falls into each stretch of the line, in random order,
/// so that shares are met within a few requests, not only after thousands. (Points in a fixed order would be better still
/// for one request at a time, but resonate with the requests under way at two or three.)
#[derive(Debug)]
pub struct Draw {
    stretches: [u8; STRETCHES],
    used: usize,
}

impl Draw {
    pub(super) fn new() -> Self {
        Self { stretches: std::array::from_fn(|stretch| stretch as u8), used: STRETCHES }
    }

    /// The position of the endpoint that takes the request.
    pub(super) fn pick(&mut self, candidates: &Candidates<'_>, random: &mut fastrand::Rng) -> Option<usize> {
        let point = self.point(random);
        let size = candidates.level.members().len();
        let (pair, weight_total) = if size <= SMALL_LEVEL {
            small(candidates, point, random)
        } else {
            (large(candidates, point, random), candidates.level.weight_total())
        };
        match pair {
            (Some(first), Some(second)) if is_left(candidates, first, second, weight_total, random) => Some(second),
            (first, _) => first,
        }
    }

    /// The next point on the line of all `u64`.
    fn point(&mut self, random: &mut fastrand::Rng) -> u64 {
        if self.used == STRETCHES {
            random.shuffle(&mut self.stretches);
            self.used = 0;
        }
        let stretch = u64::from(self.stretches[self.used]);
        self.used += 1;
        let length = u64::MAX / STRETCHES as u64;
        stretch * length + random.u64(0..=length)
    }
}

type Pair = (Option<usize>, Option<usize>);

/// Draws from the members that may take the request, one by one; also says their weight.
fn small(candidates: &Candidates<'_>, point: u64, random: &mut fastrand::Rng) -> (Pair, u64) {
    let mut weights = [0; SMALL_LEVEL];
    for (position, weight) in weights.iter_mut().enumerate().take(candidates.level.members().len()) {
        if candidates.may_take(position) {
            *weight = u64::from(candidates.place(position).weight);
        }
    }
    let total = weights.iter().sum();
    let first = fall_on(&weights, total, point);
    let left = first.map_or(0, |first| total - std::mem::take(&mut weights[first]));
    let second = if left == 0 { None } else { fall_on(&weights, left, random.u64(..)) };
    ((first, second), total)
}

/// The position whose stretch of the line from 0 to `total` holds `point`.
fn fall_on(weights: &[u64], total: u64, point: u64) -> Option<usize> {
    let mut rest = ((u128::from(point) * u128::from(total)) >> 64) as u64;
    weights.iter().position(|weight| {
        let here = rest < *weight;
        rest = rest.saturating_sub(*weight);
        here
    })
}

/// Draws from the alias table until two different members that may take the request are found.
fn large(candidates: &Candidates<'_>, point: u64, random: &mut fastrand::Rng) -> Pair {
    let mut points = std::iter::once(point).chain(std::iter::repeat_with(|| random.u64(..)));
    let mut first = None;
    for point in points.by_ref().take(DRAWS_MAX) {
        let position = candidates.level.draw(point);
        if first == Some(position) || !candidates.may_take(position) {
            continue;
        }
        if first.is_some() {
            return (first, Some(position));
        }
        first = Some(position);
    }
    (first.or_else(|| one_by_one(candidates, random)), None)
}

/// By weight among those that may take the request, however few.
fn one_by_one(candidates: &Candidates<'_>, random: &mut fastrand::Rng) -> Option<usize> {
    let mut weight_total = 0;
    let mut chosen = None;
    for position in (0..candidates.level.members().len()).filter(|position| candidates.may_take(*position)) {
        let weight = u64::from(candidates.place(position).weight);
        weight_total += weight;
        // Each replaces the one chosen so far with the probability of its share (weighted reservoir sampling).
        if random.u64(0..weight_total) < weight {
            chosen = Some(position);
        }
    }
    chosen
}

/// Whether the first candidate leaves the request to the second.
fn is_left(
    candidates: &Candidates<'_>,
    first: usize,
    second: usize,
    weight_total: u64,
    random: &mut fastrand::Rng,
) -> bool {
    let (first, second) = (candidates.place(first), candidates.place(second));
    let (load, other_load) = (f64::from(first.stats.active_requests()), f64::from(second.stats.active_requests()));
    let (weight, other_weight) = (f64::from(first.weight), f64::from(second.weight));
    if weight == other_weight {
        return load > other_load;
    }
    let excess = (load * other_weight - other_load * weight) / (weight + other_weight);
    excess > 0.0 && random.f64() < leaving(excess, weight, other_weight, weight_total as f64)
}

/// The probability that the first is left, of its excess in requests. Endpoints are drawn first in proportion to their weight,
/// so a heavy one leaves more rarely, for both directions to be equal flows: the factor is 2 (W - w) / (2W - w - w'), 1 on
/// average, and nearly so for each where there are many.
fn leaving(excess: f64, weight: f64, other_weight: f64, weight_total: f64) -> f64 {
    let ratio = weight.max(other_weight) / weight.min(other_weight);
    let steepness = 0.5 * ratio / (ratio - 1.0);
    let factor = 2.0 * (weight_total - weight) / (2.0 * weight_total - weight - other_weight);
    steepness * factor * excess
}
