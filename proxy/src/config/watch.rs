//! The file changes, or SIGHUP arrives: it is read again. A file that is wrong changes nothing, and says why, once.
//!
//! What is watched is the folder, not the file: editors replace a file by renaming another over it, and Kubernetes swaps a
//! symbolic link beside it; a watch on the file itself would stay with the one that is gone. Only events that may concern the
//! file count: our own log may be written in that folder. What a watch cannot see (the other end of a symbolic link, a folder
//! that was replaced, a network file system) is found by looking once in a while. Whoever said so, what was read is compared
//! with what was read before: without a difference nothing is told.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use mesh_core::config::problem::Problems;

use super::{Config, load};

/// A save is several events (truncate, write, rename); the file is read when none has come for this long.
const QUIET: Duration = Duration::from_millis(50);

/// ... or when events have gone on for this long.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// The file is looked at this often whatever the watch says.
pub const LOOK_PERIOD: Duration = Duration::from_secs(2);

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
    /// As it was when it was read before, good or wrong.
    Unchanged,
    /// `config` is to be applied, when there is anything to apply. `restart_needed` names the keys whose change waits for a
    /// restart; their running values are kept.
    Changed { config: Option<Box<Config>>, restart_needed: Vec<&'static str> },
    /// The last good one stays.
    Wrong(Problems),
}

/// Why the file is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// SIGHUP: whoever sent it wants an answer, also the same one again.
    Asked,
    /// Something happened to the file.
    Noticed,
    /// It is time to look.
    Due,
}

/// Watches one file.
#[derive(Debug)]
pub struct ConfigWatch {
    path: PathBuf,
    reader: Reader,
    hangup: Signal,
    next_look: Instant,
    folder: WatchedFolder,
}

/// The folder as it was when the watch on it began.
#[derive(Debug)]
struct WatchedFolder {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    /// One is enough: a hint that something happened to the file.
    changes: mpsc::Receiver<()>,
    /// Ends the watching when dropped.
    _watcher: RecommendedWatcher,
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
    /// [`WatchError`] when its folder cannot be watched, or the signal not be listened to.
    pub fn start(path: &Path, current: Config) -> Result<Self, WatchError> {
        let folder = WatchedFolder::of(path)?;
        let hangup = signal(SignalKind::hangup()).map_err(|source| WatchError::Signal { source })?;
        // What was saved between the reading and this moment raised no event.
        let next_look = Instant::now();
        Ok(Self { path: path.to_owned(), reader: Reader::new(current), hangup, next_look, folder })
    }

    /// Waits until the file says something new and right. What is wrong is logged, and waited past. Safe to drop at any await.
    pub async fn changed(&mut self) -> Config {
        loop {
            let cause = self.hint().await;
            if cause == Cause::Due {
                self.next_look = Instant::now() + LOOK_PERIOD;
                self.watch_again_if_replaced();
            }
            let file = self.path.display();
            // Reading is one short file from a local disk, on a runtime that carries no requests.
            match self.reader.reread(&self.path, cause == Cause::Asked) {
                Reread::Unchanged if cause == Cause::Asked => tracing::info!(%file, "configuration is unchanged"),
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

    /// Waits for SIGHUP, for changes of the file to come to rest, or until it is time to look.
    async fn hint(&mut self) -> Cause {
        tokio::select! {
            Some(()) = self.hangup.recv() => return Cause::Asked,
            Some(()) = self.folder.changes.recv() => {}
            () = tokio::time::sleep_until(self.next_look) => return Cause::Due,
        }
        let deadline = Instant::now() + QUIET_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, self.folder.changes.recv()).await {
                Ok(Some(())) if Instant::now() < deadline => {}
                _ => return Cause::Noticed,
            }
        }
    }

    /// Another folder in the place of the watched one has no watch yet.
    fn watch_again_if_replaced(&mut self) {
        let identity = identity_of(&self.folder.path);
        if identity.is_none() || identity == self.folder.identity {
            return;
        }
        match WatchedFolder::of(&self.path) {
            Ok(folder) => self.folder = folder,
            // Tried again at the next look, which finds changes of the file as well.
            Err(error) => tracing::debug!(%error, "the folder was replaced"),
        }
    }
}

impl WatchedFolder {
    fn of(file: &Path) -> Result<Self, WatchError> {
        let (hint, changes) = mpsc::channel(1);
        let path = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let told = |source| WatchError::Folder { folder: path.clone(), source };
        let name = file.file_name().map(OsStr::to_owned);
        // Before the watch: a folder that is replaced in between is then seen as another one.
        let identity = identity_of(&path);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| concerns(&event, name.as_deref())) {
                // A full channel holds a hint already.
                let _ = hint.try_send(());
            }
        })
        .map_err(told)?;
        watcher.watch(&path, RecursiveMode::NonRecursive).map_err(told)?;
        Ok(Self { path, identity, changes, _watcher: watcher })
    }
}

/// Whether what happened may have changed the file: it is the file itself, or a link that it may go through (`..data`, as in
/// mounted config maps). Reading it is an event too, and no change.
fn concerns(event: &notify::Event, name: Option<&OsStr>) -> bool {
    let is_it = |path: &PathBuf| {
        let changed = path.file_name();
        changed == name || changed.is_some_and(|changed| changed.as_encoded_bytes().starts_with(b".."))
    };
    !event.kind.is_access() && (event.need_rescan() || event.paths.iter().any(is_it))
}

fn identity_of(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|folder| (folder.dev(), folder.ino()))
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
