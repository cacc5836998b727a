//! The file changes, or SIGHUP arrives: it is read again. A file that is wrong changes nothing, and says why.
//!
//! What is watched is the folder, not the file: editors replace a file by renaming another over it, and Kubernetes swaps a
//! symbolic link beside it; a watch on the file itself would stay with the one that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use mesh_core::config::problem::Problems;

use super::{Config, load};

/// A save is several events (truncate, write, rename); the file is read when none has come for this long.
const QUIET: Duration = Duration::from_millis(50);

/// ... or when events have gone on for this long.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Why a file cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    #[error("the folder {} cannot be watched", .folder.display())]
    Folder { folder: PathBuf, source: notify::Error },
    #[error("SIGHUP cannot be listened to")]
    Signal { source: std::io::Error },
}

/// What reading again came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reread {
    Unchanged,
    /// To be applied. `restart_needed` names the keys whose change waits for a restart; their running values are kept.
    Changed {
        config: Box<Config>,
        restart_needed: Vec<&'static str>,
    },
    /// The last good one stays.
    Wrong(Problems),
}

/// Watches one file.
#[derive(Debug)]
pub struct ConfigWatch {
    path: PathBuf,
    current: Config,
    hangup: Signal,
    /// One is enough: a hint that something happened in the folder.
    changes: mpsc::Receiver<()>,
    /// Ends the watching when dropped.
    _watcher: RecommendedWatcher,
}

impl ConfigWatch {
    /// Watches `path`, of which `current` was read.
    ///
    /// # Errors
    /// [`WatchError`] when its folder cannot be watched, or the signal not be listened to.
    pub fn start(path: &Path, current: Config) -> Result<Self, WatchError> {
        let (hint, changes) = mpsc::channel(1);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let told = |source| WatchError::Folder { folder: folder.clone(), source };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let only_read = event.is_ok_and(|event| event.kind.is_access());
            // A full channel holds a hint already.
            if !only_read {
                let _ = hint.try_send(());
            }
        })
        .map_err(told)?;
        watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(told)?;
        let hangup = signal(SignalKind::hangup()).map_err(|source| WatchError::Signal { source })?;
        Ok(Self { path: path.to_owned(), current, hangup, changes, _watcher: watcher })
    }

    /// Waits until the file says something new and right. What is wrong is logged, and waited past. Safe to drop at any await.
    pub async fn changed(&mut self) -> Config {
        loop {
            let asked = self.hint().await;
            // Reading is one short file from a local disk, on a runtime that carries no requests.
            match reread(&self.path, &self.current) {
                Reread::Unchanged if asked => tracing::info!(file = %self.path.display(), "configuration is unchanged"),
                Reread::Unchanged => {}
                Reread::Wrong(problems) => {
                    tracing::warn!(%problems, "configuration is wrong; the last good one stays");
                }
                Reread::Changed { config, restart_needed } => {
                    if !restart_needed.is_empty() {
                        let keys = restart_needed.join(", ");
                        tracing::warn!(keys, "these take effect with the next start only");
                    }
                    self.current = (*config).clone();
                    tracing::info!(file = %self.path.display(), "configuration is read again");
                    return *config;
                }
            }
        }
    }

    /// Waits for SIGHUP (true), or for changes in the folder to come to rest (false).
    async fn hint(&mut self) -> bool {
        tokio::select! {
            Some(()) = self.hangup.recv() => return true,
            Some(()) = self.changes.recv() => {}
            // Neither can end while this value holds both senders; if one did, waiting is all that is left.
            else => return std::future::pending().await,
        }
        let deadline = tokio::time::Instant::now() + QUIET_MAX;
        loop {
            let quiet = (tokio::time::Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(())) if tokio::time::Instant::now() < deadline => {}
                _ => return false,
            }
        }
    }
}

/// Reads the file again beside the configuration that runs.
#[must_use]
pub fn reread(path: &Path, current: &Config) -> Reread {
    match load(path) {
        Ok(config) => compare(config, current),
        Err(problems) => Reread::Wrong(problems),
    }
}

/// What of `config` can be applied while `current` runs: threads and the admin address stay until a restart.
fn compare(config: Config, current: &Config) -> Reread {
    let keys = [("workers", config.workers != current.workers), ("admin.listen", config.admin != current.admin)];
    let restart_needed: Vec<_> = keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    let config = Config { workers: current.workers, admin: current.admin, ..config };
    if config == *current && restart_needed.is_empty() {
        return Reread::Unchanged;
    }
    Reread::Changed { config: Box::new(config), restart_needed }
}

#[cfg(test)]
mod tests;
