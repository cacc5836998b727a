//! The labels that say how calls to a service are treated: `mesh.lb`, `mesh.timeout`, `mesh.retry.*`, `mesh.circuit.*`,
//! `mesh.outlier.*`, `mesh.upstream.*`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use mesh_core::config::{duration, percent::Percent, size};
use mesh_core::model::policy::{Balance, Policy, RetryMethods, RetryOn};

use super::{Wrong, did_you_mean, number, one_of};

pub(super) const KEYS: [&str; 17] = [
    "mesh.lb",
    "mesh.timeout",
    "mesh.retry.on",
    "mesh.retry.attempts",
    "mesh.retry.budget",
    "mesh.retry.methods",
    "mesh.circuit.max-connections",
    "mesh.circuit.max-pending",
    "mesh.circuit.max-requests",
    "mesh.outlier.consecutive-5xx",
    "mesh.outlier.base-ejection-time",
    "mesh.outlier.max-ejection-percent",
    "mesh.connect-timeout",
    "mesh.upstream.idle-timeout",
    "mesh.upstream.max-idle-connections",
    "mesh.upstream.max-header-bytes",
    "mesh.upstream.max-headers",
];

/// More tries than this help nobody and hurt a service that is down.
const ATTEMPTS_MAX: u32 = 10;

/// Limits and counts: far beyond what one host can have under way.
const COUNT_MAX: u32 = 10_000_000;

/// As in a proxy's file.
const HEADER_BYTES: RangeInclusive<u64> = 1 << 10..=16 << 20;
const HEADER_COUNT: RangeInclusive<u32> = 16..=10_000;

/// Takes the key where it is one of these; a policy begins with the first good value.
pub(super) fn take(policy: &mut Option<Policy>, key: &str, value: &str) -> Option<Result<(), Wrong>> {
    if !KEYS.contains(&key) {
        return None;
    }
    let mut changed = policy.clone().unwrap_or_default();
    Some(set(&mut changed, key, value).map(|()| *policy = Some(changed)))
}

fn set(policy: &mut Policy, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        "mesh.lb" => policy.balance = balance(value)?,
        // 0s says "none", as in a file.
        "mesh.timeout" => policy.timeout = Some(time(value)?).filter(|timeout| *timeout > Duration::ZERO),
        "mesh.connect-timeout" => policy.connect_timeout.0 = positive(value)?,
        "mesh.retry.on" => policy.retry.on = retry_on(value)?,
        "mesh.retry.attempts" => policy.retry.attempts = number(value, ATTEMPTS_MAX)?,
        "mesh.retry.budget" => policy.retry.budget = share(value)?,
        "mesh.retry.methods" => {
            policy.retry.methods =
                one_of(value, [("idempotent", RetryMethods::Idempotent), ("any", RetryMethods::Any)])?;
        }
        "mesh.circuit.max-connections" => policy.circuit.connections_max = number(value, COUNT_MAX)?,
        "mesh.circuit.max-pending" => policy.circuit.pending_max = number(value, COUNT_MAX)?,
        "mesh.circuit.max-requests" => policy.circuit.requests_max = number(value, COUNT_MAX)?,
        "mesh.outlier.consecutive-5xx" => policy.outlier.consecutive_5xx = number(value, COUNT_MAX)?,
        "mesh.outlier.base-ejection-time" => {
            policy.outlier.base_ejection_time = positive(value)?;
            policy.outlier.max_ejection_time = policy.outlier.max_ejection_time.max(policy.outlier.base_ejection_time);
        }
        "mesh.upstream.idle-timeout" => policy.upstream.idle_timeout = Some(positive(value)?),
        "mesh.upstream.max-idle-connections" => policy.upstream.idle_connections_max = number(value, COUNT_MAX)?,
        "mesh.upstream.max-header-bytes" => policy.upstream.header_bytes_max = bytes(value, HEADER_BYTES)?,
        "mesh.upstream.max-headers" => policy.upstream.header_count_max = headers(value)?,
        _ => policy.outlier.max_ejection_percent = share(value)?,
    }
    Ok(())
}

fn bytes(value: &str, range: RangeInclusive<u64>) -> Result<u32, Wrong> {
    let found = size::parse(value).ok().filter(|bytes| range.contains(bytes));
    let found = found.and_then(|bytes| u32::try_from(bytes).ok());
    found.ok_or_else(|| Wrong::Value("a size from 1KiB to 16MiB is wanted".to_owned()))
}

fn headers(value: &str) -> Result<u32, Wrong> {
    let found = value.parse().ok().filter(|count| HEADER_COUNT.contains(count));
    found.ok_or_else(|| {
        Wrong::Value(format!("a whole number from {} to {} is wanted", HEADER_COUNT.start(), HEADER_COUNT.end()))
    })
}

fn time(value: &str) -> Result<Duration, Wrong> {
    duration::parse(value).map_err(|error| Wrong::Value(error.to_string()))
}

fn positive(value: &str) -> Result<Duration, Wrong> {
    match time(value)? {
        Duration::ZERO => Err(Wrong::Value("more than 0s is wanted".to_owned())),
        time => Ok(time),
    }
}

fn share(value: &str) -> Result<Percent, Wrong> {
    Percent::parse(value).map_err(|error| Wrong::Value(error.to_string()))
}

fn balance(value: &str) -> Result<Balance, Wrong> {
    if ["p2c", "ewma", "ring_hash", "maglev", "random"].contains(&value) {
        return Err(Wrong::Value("known, but not supported yet; least_request and round_robin are".to_owned()));
    }
    one_of(value, [("least_request", Balance::LeastRequest), ("round_robin", Balance::RoundRobin)])
}

/// A comma-separated list; empty turns retries off.
fn retry_on(value: &str) -> Result<BTreeSet<RetryOn>, Wrong> {
    let known = || RetryOn::ALL.iter().map(|on| on.as_str());
    let read = |word: &str| {
        RetryOn::ALL.into_iter().find(|on| on.as_str() == word).ok_or_else(|| {
            let all = known().collect::<Vec<_>>().join(", ");
            Wrong::Value(did_you_mean(word, known(), &format!("{word:?} is none of {all}")))
        })
    };
    value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(read).collect()
}
