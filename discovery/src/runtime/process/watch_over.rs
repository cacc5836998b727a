//! The task beside the process runtime: it notices ends, asks healthchecks when they are due, and keeps logs within bounds.

use std::fs;
use std::time::Duration;

use mesh_core::task::drain::Drain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::{ProcessRuntime, UnitId, health, spawn};

/// Ends of children are told by SIGCHLD at once; those of processes that were taken over are seen by looking.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

impl ProcessRuntime {
    /// Runs until drained. Processes go on.
    pub async fn watch_over(&self, mut drain: Drain) {
        let mut ended = signal(SignalKind::child())
            .inspect_err(|error| tracing::warn!(%error, "no SIGCHLD; ends are seen by looking alone"))
            .ok();
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checks: JoinSet<(UnitId, bool)> = JoinSet::new();
        loop {
            let child_ended = async {
                match &mut ended {
                    Some(ended) => drop(ended.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.started() => return,
                () = child_ended => self.reap_all(),
                Some(Ok((unit, passed))) = checks.join_next() => self.note_health(&unit, passed),
                _ = look.tick() => {
                    self.reap_all();
                    self.begin_checks(&mut checks);
                    self.bound_logs();
                }
            }
        }
    }

    /// At most one check of each unit runs at a time.
    fn begin_checks(&self, checks: &mut JoinSet<(UnitId, bool)>) {
        for (id, unit) in &mut self.lock().known {
            let (age, record, is_over) = (unit.age(), &unit.record, unit.exited.is_some() || unit.is_stopping);
            let Some(health) =
                unit.health.as_mut().filter(|health| !is_over && !health.is_running && health.due <= age)
            else {
                continue;
            };
            health.is_running = true;
            let words = health.words().iter().map(|word| spawn::fill(word, record)).collect();
            // Its own calls are about itself, and never go through the mesh.
            let environment = spawn::environment(record, None);
            let test = health::run(words, environment, spawn::working_directory(record), health.timeout);
            let id = id.clone();
            checks.spawn(async move { (id, test.await) });
        }
    }

    fn note_health(&self, unit: &str, passed: bool) {
        let mut units = self.lock();
        let Some(unit) = units.known.get_mut(unit) else { return };
        let age = unit.age();
        let Some(health) = &mut unit.health else { return };
        if !health.note(passed, age) {
            return;
        }
        unit.record.healthy = health.healthy;
        if let Err(error) = unit.record.write(&self.folder) {
            tracing::warn!(replica = %unit.record.id, %error, "its record cannot be written");
        }
        drop(units);
        self.hint();
    }

    fn bound_logs(&self) {
        for unit in self.lock().known.values() {
            let path = spawn::log_path(&self.folder, &unit.record);
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > self.settings.log_bytes_max) {
                let cut = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
                tracing::info!(path = %path.display(), error = cut.err().map(tracing::field::display), "a log was cut");
            }
        }
    }
}
