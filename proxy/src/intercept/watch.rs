//! Stage 0, first step: a network namespace appears — the engine has made a container's sandbox.
//!
//! The engine makes a file in its folder, binds the new namespace over it (`mount(8)`, nsfs), and starts the
//! application some tens of milliseconds later: reading this folder by `inotify(7)` is faster than any event of the
//! engine. When the container has stopped the engine unmounts at once, but removes the file up to a minute later.
//!
//! Mounting and unmounting raise no event in the folder. They do change the mount table, and the kernel says so on
//! `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`, EPOLLPRI): then every file of the folder is looked at. Besides, a
//! new file is looked at again and again, a bounded number of times, for a `/proc` or a mount table that says nothing.
//!
//! ```text
//! (no folder) ──▶ folder ──create──▶ pending ──mounted──▶ Appeared ──unmounted, or deleted──▶ Disappeared
//!                                       └── 2 s ──▶ given up, until the mount table changes
//! ```
//!
//! A full listing is read at the start, when the folder itself appears, and after the kernel's queue overflowed; what
//! it says is compared with what is known, so that nothing is told twice and nothing is missed.
//!
//! Deliberately absent: opening or entering a namespace, and knowing whose it is.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::netns::{NamespaceError, NamespaceId, NetworkNamespace};

/// Where Docker keeps the namespaces of its containers.
pub const DOCKER_FOLDERS: [&str; 2] = ["/run/docker/netns", "/var/run/docker/netns"];

/// A new file is looked at after 1 ms, then after twice as long each time, but at least every 50 ms, for 2 s.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(1);
const LOOK_AGAIN_AFTER_MAX: Duration = Duration::from_millis(50);
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// More folders than any path to watch has.
const FOLDERS_DEEP_MAX: usize = 64;

/// What happened in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// A namespace can be entered by `path` now. Several paths can be one namespace: compare `id`.
    Appeared { path: PathBuf, id: NamespaceId },
    /// The engine has let go of the namespace. It lives on while a process or an open socket is in it.
    Disappeared { path: PathBuf, id: NamespaceId },
}

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("cannot start inotify (limits: fs.inotify.max_user_instances, max_user_watches)")]
    Start { source: io::Error },
    #[error("cannot watch {folder}")]
    Watch { folder: PathBuf, source: io::Error },
    #[error("cannot list {folder}")]
    List { folder: PathBuf, source: io::Error },
    #[error("cannot read inotify events of {folder}")]
    Read { folder: PathBuf, source: io::Error },
}

/// Watches one folder of namespace files, whether or not it exists yet.
#[derive(Debug)]
pub struct NamespaceWatch {
    folder: PathBuf,
    inotify: AsyncFd<Descriptor<Inotify>>,
    /// The mount table; `None` where it cannot be watched.
    mounts: Option<AsyncFd<Descriptor<File>>>,
    watched: Watched,
    known: BTreeMap<OsString, NamespaceId>,
    pending: BTreeMap<OsString, Pending>,
    ready: VecDeque<NamespaceEvent>,
}

/// What the one inotify watch is on.
#[derive(Debug)]
enum Watched {
    Folder(WatchDescriptor),
    /// The nearest folder above it that exists.
    Ancestor(WatchDescriptor),
}

/// A file that is no namespace yet.
#[derive(Debug)]
struct Pending {
    next_look: Instant,
    pause: Duration,
    give_up: Instant,
}

/// What the runtime waits on: open for as long as it is registered.
#[derive(Debug)]
struct Descriptor<T>(T);

impl<T: AsFd> AsRawFd for Descriptor<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The first of [`DOCKER_FOLDERS`] that exists, else the first.
pub fn docker_folder() -> PathBuf {
    let existing = DOCKER_FOLDERS.iter().map(Path::new).find(|folder| folder.is_dir());
    existing.unwrap_or(Path::new(DOCKER_FOLDERS[0])).to_owned()
}

impl NamespaceWatch {
    /// Starts to watch `folder`. Namespaces that are there already are told first, as if they had just appeared.
    ///
    /// # Errors
    /// See [`WatchError`]. That the folder does not exist is none.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O driver on.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, WatchError> {
        let folder = folder.into();
        let failed = |source| WatchError::Start { source };
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|errno| failed(errno.into()))?;
        let watched = watch_nearest(&inotify, &folder)?;
        let inotify = register(inotify, Interest::READABLE).map_err(failed)?;
        let mounts = File::open("/proc/self/mountinfo").and_then(|file| register(file, Interest::PRIORITY));
        if let Err(error) = &mounts {
            tracing::info!(%error, "cannot watch the mount table: a stopped container may be noticed a minute late");
        }
        let mut watch = Self {
            folder,
            inotify,
            mounts: mounts.ok(),
            watched,
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
            ready: VecDeque::new(),
        };
        watch.list(Instant::now())?;
        Ok(watch)
    }

    /// The next event; waits for it. Cancel safe: what was read but not yet returned is kept.
    ///
    /// # Errors
    /// See [`WatchError`]. It can be called again after one.
    pub async fn next(&mut self) -> Result<NamespaceEvent, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let next_look = self.pending.values().map(|pending| pending.next_look).min();
            let look = async {
                match next_look {
                    Some(instant) => sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                events = read(&self.inotify, &self.folder) => self.take(&events?)?,
                () = mounts_changed(self.mounts.as_ref()) => self.look_at_all()?,
                () = look => {}
            }
            self.look_at_pending(Instant::now());
        }
    }

    /// Works through one batch of events in order.
    fn take(&mut self, events: &[InotifyEvent]) -> Result<(), WatchError> {
        let mut list_again = false;
        for event in events {
            list_again |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            match self.watched {
                Watched::Folder(descriptor) if event.wd == descriptor => {
                    // The watch goes with the folder.
                    list_again |= event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF);
                    if let Some(name) = &event.name {
                        self.take_name(name, event.mask);
                    }
                }
                Watched::Ancestor(descriptor) if event.wd == descriptor => list_again = true,
                // Of a watch that was given up.
                Watched::Folder(_) | Watched::Ancestor(_) => {}
            }
        }
        if list_again {
            self.watch_again()?;
            self.list(Instant::now())?;
        }
        Ok(())
    }

    fn take_name(&mut self, name: &OsStr, mask: AddWatchFlags) {
        if mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            self.forget(name);
        }
        if mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
            self.look_soon(name.to_owned(), Instant::now());
        }
    }

    /// Puts the watch where it belongs now: the folder may have come, or gone.
    fn watch_again(&mut self) -> Result<(), WatchError> {
        let (Watched::Folder(old) | Watched::Ancestor(old)) = self.watched;
        // It is gone already when its folder was deleted.
        let _ = self.inotify.get_ref().0.rm_watch(old);
        self.watched = watch_nearest(&self.inotify.get_ref().0, &self.folder)?;
        Ok(())
    }

    /// Looks at every file once: one may have become a namespace, or have been one.
    fn look_at_all(&mut self) -> Result<(), WatchError> {
        for name in self.names()? {
            let path = self.folder.join(&name);
            match NetworkNamespace::open(&path) {
                Ok(namespace) => {
                    self.pending.remove(&name);
                    self.appear(name, path, namespace.id());
                }
                Err(_) => self.vanish(&name),
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<OsString>, WatchError> {
        list_names(&self.folder).map_err(|source| WatchError::List { folder: self.folder.clone(), source })
    }

    /// Compares the folder with what is known.
    fn list(&mut self, now: Instant) -> Result<(), WatchError> {
        let names = self.names()?;
        let gone: Vec<OsString> = self.known.keys().filter(|name| !names.contains(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        self.pending.retain(|name, _| names.contains(name));
        names.into_iter().for_each(|name| self.look_soon(name, now));
        self.look_at_pending(now);
        Ok(())
    }

    fn forget(&mut self, name: &OsStr) {
        self.pending.remove(name);
        self.vanish(name);
    }

    fn vanish(&mut self, name: &OsStr) {
        if let Some(id) = self.known.remove(name) {
            self.ready.push_back(NamespaceEvent::Disappeared { path: self.folder.join(name), id });
        }
    }

    /// The first look is taken at once.
    fn look_soon(&mut self, name: OsString, now: Instant) {
        let pending = Pending { next_look: now, pause: FIRST_LOOK_AFTER, give_up: now + GIVE_UP_AFTER };
        self.pending.insert(name, pending);
    }

    fn look_at_pending(&mut self, now: Instant) {
        let due: Vec<OsString> =
            self.pending.iter().filter(|(_, pending)| pending.next_look <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let path = self.folder.join(&name);
            match NetworkNamespace::open(&path) {
                Ok(namespace) => {
                    self.pending.remove(&name);
                    self.appear(name, path, namespace.id());
                }
                Err(error) => self.look_again(&name, now, &error),
            }
        }
    }

    fn appear(&mut self, name: OsString, path: PathBuf, id: NamespaceId) {
        match self.known.insert(name, id) {
            Some(old) if old == id => {}
            Some(old) => {
                self.ready.push_back(NamespaceEvent::Disappeared { path: path.clone(), id: old });
                self.ready.push_back(NamespaceEvent::Appeared { path, id });
            }
            None => self.ready.push_back(NamespaceEvent::Appeared { path, id }),
        }
    }

    fn look_again(&mut self, name: &OsStr, now: Instant, error: &NamespaceError) {
        let Some(pending) = self.pending.get_mut(name) else { return };
        if now >= pending.give_up {
            tracing::debug!(name = %name.display(), %error, "not a network namespace: given up");
            self.pending.remove(name);
            return;
        }
        pending.next_look = now + pending.pause;
        pending.pause = (pending.pause * 2).min(LOOK_AGAIN_AFTER_MAX);
    }
}

fn register<T: AsFd>(source: T, interest: Interest) -> io::Result<AsyncFd<Descriptor<T>>> {
    #[allow(deprecated, reason = "its successor is unsafe; what is registered here owns its descriptor")]
    AsyncFd::with_interest(Descriptor(source), interest)
}

/// Waits until something was mounted or unmounted; for ever where that cannot be known.
async fn mounts_changed(mounts: Option<&AsyncFd<Descriptor<File>>>) {
    let ready = match mounts {
        Some(mounts) => mounts.ready(Interest::PRIORITY).await,
        None => std::future::pending().await,
    };
    match ready {
        // Asking whether it has changed is what makes it tell the next change.
        Ok(mut guard) => guard.clear_ready(),
        // The runtime is shutting down.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for events and reads as many as there are. Nothing is lost when it is dropped while it waits.
async fn read(inotify: &AsyncFd<Descriptor<Inotify>>, folder: &Path) -> Result<Vec<InotifyEvent>, WatchError> {
    let failed = |source| WatchError::Read { folder: folder.to_owned(), source };
    loop {
        let mut guard = inotify.readable().await.map_err(failed)?;
        match guard.try_io(|descriptor| descriptor.get_ref().0.read_events().map_err(io::Error::from)) {
            Ok(result) => return result.map_err(failed),
            Err(_would_block) => {}
        }
    }
}

/// Watches `folder`, or while it does not exist the nearest folder above it.
fn watch_nearest(inotify: &Inotify, folder: &Path) -> Result<Watched, WatchError> {
    let in_folder = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let above = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
    // A folder that is made between finding it absent and watching the one above raises no event: look once more then.
    for _ in 0..FOLDERS_DEEP_MAX {
        let existing = nearest_existing(folder);
        let mask = if existing == folder { in_folder } else { above };
        let descriptor = match inotify.add_watch(existing, mask) {
            Ok(descriptor) => descriptor,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(WatchError::Watch { folder: existing.to_owned(), source: errno.into() }),
        };
        if existing == folder {
            return Ok(Watched::Folder(descriptor));
        }
        if nearest_existing(folder) == existing {
            return Ok(Watched::Ancestor(descriptor));
        }
        // It can only have been removed meanwhile.
        let _ = inotify.rm_watch(descriptor);
    }
    Err(WatchError::Watch { folder: folder.to_owned(), source: Errno::ENOENT.into() })
}

/// `folder`, or the nearest above it that exists.
fn nearest_existing(folder: &Path) -> &Path {
    folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."))
}

/// The names in `folder`; none where it does not exist.
fn list_names(folder: &Path) -> io::Result<Vec<OsString>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
