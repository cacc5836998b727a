//! A process's healthcheck: when it is due, what its outcomes mean (Compose's rules), and running it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mesh_core::compose::{HealthTest, Healthcheck};

use super::spawn;

/// Compose's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// One replica's healthcheck with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    test: HealthTest,
    interval: Duration,
    pub(super) timeout: Duration,
    retries: u32,
    start_period: Duration,
    start_interval: Duration,
    failures: u32,
    /// None until it passed, or failed for good, the first time.
    pub(super) healthy: Option<bool>,
    /// Since the start of the process.
    pub(super) due: Duration,
    pub(super) is_running: bool,
}

impl Health {
    /// None where there is nothing to ask: a process has no image that could bring a test along.
    pub(super) fn new(healthcheck: Option<&Healthcheck>, healthy: Option<bool>) -> Option<Self> {
        let Healthcheck::Enabled { test, interval, timeout, retries, start_period, start_interval } = healthcheck?
        else {
            return None;
        };
        let interval = interval.unwrap_or(INTERVAL);
        let start_period = start_period.unwrap_or_default();
        let start_interval = start_interval.unwrap_or(START_INTERVAL);
        let mut health = Self {
            test: test.clone()?,
            interval,
            timeout: timeout.unwrap_or(TIMEOUT),
            retries: retries.unwrap_or(RETRIES).max(1),
            start_period,
            start_interval,
            failures: 0,
            healthy,
            due: Duration::ZERO,
            is_running: false,
        };
        health.due = health.wait(Duration::ZERO);
        Some(health)
    }

    /// Notes one outcome; `age` is the time since the start. Within the start period failures do not count until the first
    /// success. True when the verdict changed.
    pub(super) fn note(&mut self, passed: bool, age: Duration) -> bool {
        let before = self.healthy;
        self.is_running = false;
        if passed {
            self.failures = 0;
            self.healthy = Some(true);
        } else if self.healthy.is_some() || age >= self.start_period {
            self.failures += 1;
            if self.failures >= self.retries {
                self.healthy = Some(false);
            }
        }
        self.due = age + self.wait(age);
        self.healthy != before
    }

    fn wait(&self, age: Duration) -> Duration {
        let starting = self.healthy.is_none() && age < self.start_period;
        if starting { self.start_interval.min(self.interval) } else { self.interval }
    }

    /// What is run: a shell line, or words.
    pub(super) fn words(&self) -> Vec<String> {
        match &self.test {
            HealthTest::Exec(words) => words.clone(),
            HealthTest::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        }
    }
}

/// Runs the test once. One that takes longer than `timeout` is killed and has failed.
pub(super) async fn run(
    words: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
    timeout: Duration,
) -> bool {
    let Some((name, arguments)) = words.split_first() else { return false };
    let spawned = tokio::process::Command::new(spawn::program(name, &directory))
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            tracing::debug!(program = %name, %error, "a healthcheck cannot be started");
            return false;
        }
    };
    matches!(tokio::time::timeout(timeout, child.wait()).await, Ok(Ok(status)) if status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(retries: u32, start_period: u64) -> Health {
        let healthcheck = Healthcheck::Enabled {
            test: Some(HealthTest::Shell("true".to_owned())),
            interval: Some(Duration::from_secs(10)),
            timeout: None,
            retries: Some(retries),
            start_period: Some(Duration::from_secs(start_period)),
            start_interval: Some(Duration::from_secs(1)),
        };
        Health::new(Some(&healthcheck), None).unwrap()
    }

    #[test]
    fn verdicts_follow_composes_rules() {
        // (retries, start period, outcomes every 10 s from the 10th second on, verdict)
        let check = |retries, start_period, outcomes: &[bool], expected: Option<bool>| {
            let mut health = health(retries, start_period);
            for (index, passed) in (1_u64..).zip(outcomes) {
                health.note(*passed, Duration::from_secs(10 * index));
            }
            assert_eq!(health.healthy, expected, "{retries} {start_period} {outcomes:?}");
        };
        check(3, 0, &[], None);
        check(3, 0, &[true], Some(true));
        check(3, 0, &[false, false], None);
        check(3, 0, &[false, false, false], Some(false));
        check(3, 0, &[true, false, false], Some(true));
        check(3, 0, &[true, false, false, false], Some(false));
        check(1, 0, &[false, true], Some(true));
        check(1, 60, &[false, false, false], None);
        check(1, 60, &[true, false], Some(false));
        check(1, 15, &[false, false], Some(false));
    }

    #[test]
    fn it_is_asked_more_often_while_it_starts() {
        let mut health = health(3, 60);
        assert_eq!(health.due, Duration::from_secs(1));
        health.note(false, Duration::from_secs(1));
        assert_eq!(health.due, Duration::from_secs(2));
        assert!(health.note(true, Duration::from_secs(2)));
        assert_eq!(health.due, Duration::from_secs(12));
        assert!(!health.note(true, Duration::from_secs(12)), "nothing changed");
    }
}
