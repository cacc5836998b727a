//! User requests at a steady rate. Each is due at a fixed moment, whether or not earlier ones are answered: a slow answer
//! delays nobody, and nothing is left out because the system was slow. Each answer is checked by its body.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, MissedTickBehavior};

use super::dial::Dialer;

/// Failures whose words are kept.
const FAILURES_KEPT: usize = 10;

/// What has been counted so far.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub sent: u64,
    pub failed: u64,
    /// Answers per replica, by role: `api` → `172.18.0.4/stable` → 210.
    pub answered_by: BTreeMap<String, BTreeMap<String, u64>>,
    /// What the first failures said.
    pub failures: Vec<String>,
    /// The longest answer.
    pub slowest: Duration,
}

/// The counters, shared with the story.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    counts: Arc<Mutex<Counts>>,
}

impl Traffic {
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Sends `rate` requests a second for `run_for`, then waits for the answers still due.
    pub async fn run(&self, dialer: &Dialer, rate: u32, run_for: Duration) {
        let period = Duration::from_secs(1) / rate;
        let end = Instant::now() + run_for;
        let mut due = tokio::time::interval(period);
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut under_way = tokio::task::JoinSet::new();
        loop {
            let moment = due.tick().await;
            if moment >= end {
                break;
            }
            let (traffic, dialer) = (self.clone(), dialer.clone());
            under_way.spawn(async move { traffic.request(&dialer).await });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn request(&self, dialer: &Dialer) {
        self.lock().sent += 1;
        let started = Instant::now();
        let outcome = match dialer.get("/").await {
            Ok((StatusCode::OK, body)) => took_part(&String::from_utf8_lossy(&body)),
            Ok((status, body)) => Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim())),
            Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
        };
        let mut counts = self.lock();
        counts.slowest = counts.slowest.max(started.elapsed());
        match outcome {
            Ok(parts) => {
                for (role, replica) in parts {
                    *counts.answered_by.entry(role).or_default().entry(replica).or_insert(0) += 1;
                }
            }
            Err(failure) => {
                counts.failed += 1;
                if counts.failures.len() < FAILURES_KEPT {
                    counts.failures.push(failure);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who took part in an answer; a body that does not name all three roles in order is a failed request.
fn took_part(body: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("an answer that is not of the shop: {:?}", body.chars().take(200).collect::<String>());
    let parts: Vec<(String, String)> = body
        .split_whitespace()
        .map(|part| part.split_once('=').map(|(role, replica)| (role.to_owned(), replica.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let roles: Vec<&str> = parts.iter().map(|(role, _)| role.as_str()).collect();
    if roles == ["front", "api", "payments"] { Ok(parts) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::took_part;

    #[test]
    fn only_a_whole_chain_is_a_success() {
        let check = |body: &str, fits: bool| assert_eq!(took_part(body).is_ok(), fits, "{body:?}");
        check("front=a/1 api=b/2 payments=c/3\n", true);
        check("front=a api=b\n", false);
        check("api=b front=a payments=c\n", false);
        check("hello", false);
        check("", false);
    }
}
