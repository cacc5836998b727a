//! Namespace files coming and going.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::tests::{PATIENCE, TestNamespace, is_root};
use super::{NamespaceEvent, NamespaceWatch};

/// A namespace bound over a file, as the engine does it; let go of on drop.
struct Bound {
    path: PathBuf,
}

impl Bound {
    fn new(namespace: &TestNamespace, path: &Path) -> Self {
        File::create(path).unwrap();
        Self::over_existing(namespace, path)
    }

    fn over_existing(namespace: &TestNamespace, path: &Path) -> Self {
        mount(Some(namespace.path().as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self { path: path.to_owned() }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs `body` on a runtime like a worker's.
fn on_runtime(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

async fn next(watch: &mut NamespaceWatch) -> NamespaceEvent {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("an event in time").unwrap()
}

async fn expect_nothing(watch: &mut NamespaceWatch, during: Duration) {
    let event = tokio::time::timeout(during, watch.next()).await;
    assert!(event.is_err(), "{event:?}");
}

fn appeared(path: &Path, namespace: &TestNamespace) -> NamespaceEvent {
    NamespaceEvent::Appeared { path: path.to_owned(), id: namespace.handle().id() }
}

fn disappeared(path: &Path, namespace: &TestNamespace) -> NamespaceEvent {
    NamespaceEvent::Disappeared { path: path.to_owned(), id: namespace.handle().id() }
}

#[test]
fn namespaces_appear_and_disappear() {
    let (Some(first), Some(second)) = (TestNamespace::new(), TestNamespace::new()) else { return };
    let folder = tempfile::tempdir().unwrap();
    on_runtime(async {
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let bound_old = Bound::new(&first, &old);
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        assert_eq!(next(&mut watch).await, appeared(&old, &first), "what is there at the start is told");
        let bound_new = Bound::new(&second, &new);
        assert_eq!(next(&mut watch).await, appeared(&new, &second));
        drop(bound_old);
        assert_eq!(next(&mut watch).await, disappeared(&old, &first));
        drop(bound_new);
        assert_eq!(next(&mut watch).await, disappeared(&new, &second));
    });
}

#[test]
fn a_file_counts_once_a_namespace_is_bound_over_it_whether_or_not_mounts_are_told() {
    for mounts_are_told in [true, false] {
        check_late_mount(mounts_are_told);
    }
}

fn check_late_mount(mounts_are_told: bool) {
    let Some(namespace) = TestNamespace::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    on_runtime(async {
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        assert!(watch.mounts.is_some());
        if !mounts_are_told {
            watch.mounts = None;
        }
        let path = folder.path().join("sandbox");
        File::create(&path).unwrap();
        expect_nothing(&mut watch, Duration::from_millis(100)).await;
        let _bound = Bound::over_existing(&namespace, &path);
        assert_eq!(next(&mut watch).await, appeared(&path, &namespace));
        expect_nothing(&mut watch, Duration::from_millis(20)).await;
    });
}

#[test]
fn an_unmounted_namespace_is_gone_though_its_file_stays() {
    let Some(namespace) = TestNamespace::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    on_runtime(async {
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        let path = folder.path().join("sandbox");
        let bound = Bound::new(&namespace, &path);
        assert_eq!(next(&mut watch).await, appeared(&path, &namespace));
        for _ in 0..2 {
            umount2(&path, MntFlags::MNT_DETACH).unwrap();
            assert_eq!(next(&mut watch).await, disappeared(&path, &namespace));
            // Bound once more, with no event of the folder's.
            mount(Some(namespace.path().as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            assert_eq!(next(&mut watch).await, appeared(&path, &namespace));
        }
        drop(bound);
        assert_eq!(next(&mut watch).await, disappeared(&path, &namespace));
        expect_nothing(&mut watch, Duration::from_millis(20)).await;
    });
}

#[test]
fn a_file_that_stays_a_file_is_given_up() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        File::create(folder.path().join("file")).unwrap();
        // The clock jumps from look to look; nothing is left to wait for but the folder.
        expect_nothing(&mut watch, Duration::from_secs(60)).await;
        assert!(format!("{watch:?}").contains("pending: {}"), "{watch:?}");
    });
}

#[test]
fn one_name_can_be_another_namespace_later() {
    let (Some(first), Some(second)) = (TestNamespace::new(), TestNamespace::new()) else { return };
    let folder = tempfile::tempdir().unwrap();
    on_runtime(async {
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        let path = folder.path().join("name");
        let bound = Bound::new(&first, &path);
        assert_eq!(next(&mut watch).await, appeared(&path, &first));
        drop(bound);
        let _bound = Bound::new(&second, &path);
        assert_eq!(next(&mut watch).await, disappeared(&path, &first));
        assert_eq!(next(&mut watch).await, appeared(&path, &second));
    });
}

#[test]
fn the_folder_may_come_later_and_go_again() {
    let Some(namespace) = TestNamespace::new() else { return };
    let root = tempfile::tempdir().unwrap();
    on_runtime(async {
        let folder = root.path().join("run/docker/netns");
        let mut watch = NamespaceWatch::open(&folder).unwrap();
        expect_nothing(&mut watch, Duration::from_millis(20)).await;
        for _ in 0..2 {
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join("sandbox");
            let bound = Bound::new(&namespace, &path);
            assert_eq!(next(&mut watch).await, appeared(&path, &namespace));
            drop(bound);
            fs::remove_dir_all(root.path().join("run")).unwrap();
            assert_eq!(next(&mut watch).await, disappeared(&path, &namespace));
        }
    });
}

#[test]
fn nothing_is_lost_when_a_wait_is_cancelled_or_the_queue_overflows() {
    let Some(namespace) = TestNamespace::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let events_max: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    on_runtime(async {
        let mut watch = NamespaceWatch::open(folder.path()).unwrap();
        watch.mounts = None;
        // Each file is two events that the kernel cannot merge.
        for _ in 0..=events_max / 2 {
            let path = folder.path().join("noise");
            File::create(&path).unwrap();
            fs::remove_file(&path).unwrap();
        }
        let path = folder.path().join("sandbox");
        let _bound = Bound::new(&namespace, &path);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let event = loop {
            match tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
                Ok(event) => break event.unwrap(),
                Err(_) => assert!(tokio::time::Instant::now() < deadline),
            }
        };
        assert_eq!(event, appeared(&path, &namespace));
    });
}
