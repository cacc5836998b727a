//! A file that people and config managers change while we run: when is it worth reading again?
//!
//! What is watched is the folder, not the file: editors replace a file by renaming another over it, and Kubernetes swaps a
//! symbolic link beside it; a watch on the file itself would stay with the one that is gone. Only events that may concern the
//! file count: our own log may be written in that folder. Whoever writes into the file itself has emptied it first: it is read
//! when they have closed it, since half a list of services may be a valid, shorter one. What a watch cannot see (the other end of
//! a symbolic link, a folder that was replaced, a network file system) is found by looking once in a while.

use std::ffi::OsStr;
use std::future::pending;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A save is several events (truncate, write, rename); the file is read when none has come for this long.
const QUIET: Duration = Duration::from_millis(50);

/// ... or when events have gone on for this long.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// ... or when somebody has held it open behind a change for this long.
const WRITING_MAX: Duration = Duration::from_secs(10);

/// Why the file is worth reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Something happened to it, and has come to rest.
    Noticed,
    /// It is time to look.
    Due,
}

/// One file, from its first reading on.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    look_period: Duration,
    next_look: Instant,
    /// None where it cannot be watched.
    folder: Option<WatchedFolder>,
    /// Since when something has been happening to the file.
    noticed: Option<Instant>,
}

/// The folder as it was when the watch on it began.
#[derive(Debug)]
struct WatchedFolder {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    events: watch::Receiver<Pulse>,
    /// Ends the watching when dropped.
    _watcher: RecommendedWatcher,
}

/// What events have said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Pulse {
    /// Somebody has changed the file, and not closed it yet.
    writing: bool,
}

/// What one event says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Changed,
    Written,
    Closed,
}

impl FollowedFile {
    /// Follows `path`, and looks at it every `look_period` whatever the watch says: the first time at once, since what was saved
    /// before the watch began raised no event. Where its folder cannot be watched, that is logged, and looking is all there is.
    #[must_use]
    pub fn follow(path: &Path, look_period: Duration) -> Self {
        let folder = WatchedFolder::of(path)
            .inspect_err(|error| {
                let (file, seconds) = (path.display(), look_period.as_secs());
                tracing::warn!(%file, %error, "its folder cannot be watched; the file is read every {seconds} s");
            })
            .ok();
        Self { path: path.to_owned(), look_period, next_look: Instant::now(), folder, noticed: None }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the file may say something new, and whoever changes it is done. Safe to drop at any await.
    pub async fn changed(&mut self) -> Cause {
        if self.noticed.is_none() {
            tokio::select! {
                () = happens(&mut self.folder) => self.noticed = Some(Instant::now()),
                () = sleep_until(self.next_look) => {
                    self.next_look = Instant::now() + self.look_period;
                    self.watch_again_if_replaced();
                    if !self.is_being_written() {
                        return Cause::Due;
                    }
                    self.noticed = Some(Instant::now());
                }
            }
        }
        self.come_to_rest().await;
        self.noticed = None;
        Cause::Noticed
    }

    async fn come_to_rest(&mut self) {
        let (Some(folder), Some(since)) = (&mut self.folder, self.noticed) else { return };
        loop {
            let writing = folder.events.borrow_and_update().writing;
            let deadline = since + if writing { WRITING_MAX } else { QUIET_MAX };
            let quiet = if writing { deadline } else { deadline.min(Instant::now() + QUIET) };
            match timeout_at(quiet, folder.events.changed()).await {
                Ok(Ok(())) if Instant::now() < deadline => {}
                _ => return,
            }
        }
    }

    fn is_being_written(&self) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.events.borrow().writing)
    }

    /// Another folder in the place of the watched one has no watch yet.
    fn watch_again_if_replaced(&mut self) {
        if let Some(folder) = &self.folder {
            let identity = identity_of(&folder.path);
            if identity.is_none() || identity == folder.identity {
                return;
            }
        }
        match WatchedFolder::of(&self.path) {
            Ok(folder) => self.folder = Some(folder),
            // Tried again at the next look, which finds changes of the file as well.
            Err(error) => tracing::debug!(%error, "the folder cannot be watched"),
        }
    }
}

/// Waits for an event; for ever where nothing is watched.
async fn happens(folder: &mut Option<WatchedFolder>) {
    let Some(folder) = folder else { return pending().await };
    if folder.events.changed().await.is_err() {
        // The watcher's thread is gone; looking goes on.
        pending().await
    }
}

impl WatchedFolder {
    fn of(file: &Path) -> Result<Self, notify::Error> {
        let path = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = file.file_name().map(OsStr::to_owned);
        let (pulse, events) = watch::channel(Pulse::default());
        // Before the watch: a folder that is replaced in between is then seen as another one.
        let identity = identity_of(&path);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let said = event.map_or(Said::Changed, |event| said(&event, name.as_deref()));
            if said != Said::Nothing {
                pulse.send_modify(|pulse| pulse.writing = said == Said::Written);
            }
        })?;
        watcher.watch(&path, RecursiveMode::NonRecursive)?;
        Ok(Self { path, identity, events, _watcher: watcher })
    }
}

/// It concerns the file itself, or a link that it may go through (`..data`, as in mounted config maps). Reading it is an event too,
/// and no change.
fn said(event: &notify::Event, name: Option<&OsStr>) -> Said {
    let is_it = |path: &PathBuf| {
        let changed = path.file_name();
        changed == name || changed.is_some_and(|changed| changed.as_encoded_bytes().starts_with(b".."))
    };
    if !event.need_rescan() && !event.paths.iter().any(is_it) {
        return Said::Nothing;
    }
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => Said::Written,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Said::Closed,
        EventKind::Access(_) => Said::Nothing,
        _ => Said::Changed,
    }
}

fn identity_of(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|folder| (folder.dev(), folder.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    /// So long that whatever a test finds, it did not find by looking.
    const NEVER: Duration = Duration::from_secs(3600);

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn only_what_happens_to_the_file_concerns_it() {
        let name = Some(OsStr::new("mesh.yaml"));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let rows = [
            (written, "/conf/mesh.yaml", Said::Written),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), "/conf/mesh.yaml", Said::Closed),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), "/conf/mesh.yaml", Said::Nothing),
            (EventKind::Create(CreateKind::File), "/conf/mesh.yaml", Said::Changed),
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), "/conf/mesh.yaml", Said::Changed),
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), "/conf/..data", Said::Changed),
            (written, "/conf/mesh.log", Said::Nothing),
            (written, "/conf/.mesh.yaml.swp", Said::Nothing),
        ];
        for (kind, path, expected) in rows {
            assert_eq!(said(&notify::Event::new(kind).add_path(path.into()), name), expected, "{kind:?} {path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_left_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh.yaml");
        fs::write(&path, "whole").unwrap();
        let mut followed = FollowedFile::follow(&path, NEVER);
        assert_eq!(followed.changed().await, Cause::Due);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"first half, ").unwrap();
        // Far longer than quiet is waited for, and dropped in between.
        for _ in 0..3 {
            assert!(tokio::time::timeout(QUIET * 4, followed.changed()).await.is_err(), "half a file is read");
        }
        file.write_all(b"second half").unwrap();
        drop(file);
        let noticed = tokio::time::timeout(PATIENCE, followed.changed()).await;
        assert_eq!(noticed, Ok(Cause::Noticed));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first half, second half");
    }

    #[tokio::test]
    async fn looking_waits_for_whoever_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh.yaml");
        fs::write(&path, "whole").unwrap();
        let mut followed = FollowedFile::follow(&path, QUIET);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !followed.is_being_written() {
            assert!(Instant::now() < deadline, "the watch says nothing");
            tokio::task::yield_now().await;
        }
        assert!(tokio::time::timeout(QUIET * 6, followed.changed()).await.is_err(), "half a file is read");
        drop(file);
        assert_eq!(tokio::time::timeout(PATIENCE, followed.changed()).await, Ok(Cause::Noticed));
        assert_eq!(tokio::time::timeout(PATIENCE, followed.changed()).await, Ok(Cause::Due));
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_looked_at_until_it_is() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("conf").join("mesh.yaml");
        let mut followed = FollowedFile::follow(&path, QUIET);
        assert_eq!(followed.changed().await, Cause::Due);
        fs::create_dir(above.path().join("conf")).unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, followed.changed()).await, Ok(Cause::Due));
        fs::write(&path, "there").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while followed.changed().await != Cause::Noticed {
            assert!(Instant::now() < deadline, "the folder is not watched");
        }
    }
}
