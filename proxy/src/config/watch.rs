//! The file changes, or SIGHUP arrives: it is read again. A file that is wrong changes nothing, and says why, once. Whoever said so,
//! what was read is compared with what was read before: without a difference nothing is told.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use mesh_core::config::followed::FollowedFile;
use mesh_core::config::problem::Problems;

use super::{Config, load};

/// The file is looked at this often whatever the watch says.
pub const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// Why a file cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    #[error("SIGHUP cannot be listened to")]
    Signal { source: std::io::Error },
}

/// What reading again came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reread {
    /// As it was when it was read before, good or wrong.
    Unchanged,
    /// `config` is to be applied, when there is anything to apply. `restart_needed` names the keys whose change waits for a
    /// restart; their running values are kept.
    Changed { config: Option<Box<Config>>, restart_needed: Vec<&'static str> },
    /// The last good one stays.
    Wrong(Problems),
}

/// Watches one file.
#[derive(Debug)]
pub struct ConfigWatch {
    file: FollowedFile,
    reader: Reader,
    hangup: Signal,
}

/// What was read of the file, and what of it runs.
#[derive(Debug)]
pub struct Reader {
    current: Config,
    last_read: Result<Config, Problems>,
}

impl ConfigWatch {
    /// Watches `path`, of which `current` was read, without what the command line says over it.
    ///
    /// # Errors
    /// [`WatchError`] when the signal cannot be listened to.
    pub fn start(path: &Path, current: Config) -> Result<Self, WatchError> {
        let file = FollowedFile::follow(path, LOOK_PERIOD);
        let hangup = signal(SignalKind::hangup()).map_err(|source| WatchError::Signal { source })?;
        Ok(Self { file, reader: Reader::new(current), hangup })
    }

    /// Waits until the file says something new and right. What is wrong is logged, and waited past. Safe to drop at any await.
    pub async fn changed(&mut self) -> Config {
        loop {
            // Whoever sends a signal wants an answer, also the same one again.
            let asked = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                _ = self.file.changed() => false,
            };
            let file = self.file.path().display();
            // Reading is one short file from a local disk, on a runtime that carries no requests.
            match self.reader.reread(self.file.path(), asked) {
                Reread::Unchanged if asked => tracing::info!(%file, "configuration is unchanged"),
                Reread::Unchanged => {}
                Reread::Wrong(problems) => {
                    tracing::warn!(%problems, "configuration is wrong; the last good one stays");
                }
                Reread::Changed { config, restart_needed } => {
                    if !restart_needed.is_empty() {
                        let keys = restart_needed.join(", ");
                        tracing::warn!(keys, "these take effect with the next start only");
                    }
                    if let Some(config) = config {
                        tracing::info!(%file, "configuration is read again");
                        return *config;
                    }
                }
            }
        }
    }
}

impl Reader {
    /// `current` was read of the file, and runs.
    #[must_use]
    pub fn new(current: Config) -> Self {
        Self { last_read: Ok(current.clone()), current }
    }

    /// Reads the file again beside what it said before. `again`: what is wrong is told also when it was told before.
    pub fn reread(&mut self, path: &Path, again: bool) -> Reread {
        let read = load(path);
        let same = read == self.last_read;
        self.last_read = read.clone();
        match read {
            Err(problems) if !same || again => Reread::Wrong(problems),
            Ok(config) if !same => self.compare(config),
            Ok(_) | Err(_) => Reread::Unchanged,
        }
    }

    /// What of `config` can be applied: threads, the admin address and the access log stay until a restart.
    fn compare(&mut self, config: Config) -> Reread {
        let current = &self.current;
        let keys = [
            ("workers", config.workers != current.workers),
            ("admin.listen", config.admin != current.admin),
            ("access_log", config.access_log != current.access_log),
        ];
        let restart_needed: Vec<_> = keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        let Config { workers, admin, access_log, .. } = *current;
        let config = Config { workers, admin, access_log, ..config };
        if config != *current {
            self.current = config.clone();
            return Reread::Changed { config: Some(Box::new(config)), restart_needed };
        }
        match restart_needed.is_empty() {
            true => Reread::Unchanged,
            false => Reread::Changed { config: None, restart_needed },
        }
    }
}

#[cfg(test)]
mod tests;
