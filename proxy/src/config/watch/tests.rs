//! A real folder, real events, a real signal.

use std::fs;

use super::*;

fn with_service(name: &str) -> String {
    format!("workers: 1\nservices: {{ {name}: {{ endpoints: [] }} }}")
}

fn services(config: &Config) -> Vec<&str> {
    config.resources.clusters.keys().map(|name| &**name).collect()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("nothing changed within ten seconds")
}

#[tokio::test]
async fn every_way_to_change_a_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    fs::write(&path, with_service("first")).unwrap();
    let mut watch = ConfigWatch::start(&path, load(&path).unwrap()).unwrap();

    fs::write(&path, with_service("in-place")).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["in-place"]);

    let beside = folder.path().join(".proxy.yaml.swp");
    fs::write(&beside, with_service("renamed")).unwrap();
    fs::rename(&beside, &path).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["renamed"]);

    // As Kubernetes does it: the file is a link through a link to a folder, and that link is swapped.
    for version in ["one", "two"] {
        fs::create_dir(folder.path().join(version)).unwrap();
        fs::write(folder.path().join(version).join("proxy.yaml"), with_service(version)).unwrap();
    }
    std::os::unix::fs::symlink("one", folder.path().join("..data")).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("..data/proxy.yaml", &path).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["one"]);
    std::os::unix::fs::symlink("two", folder.path().join("..next")).unwrap();
    fs::rename(folder.path().join("..next"), folder.path().join("..data")).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["two"]);
}

#[tokio::test]
async fn a_wrong_file_is_waited_past() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    fs::write(&path, with_service("first")).unwrap();
    let mut watch = ConfigWatch::start(&path, load(&path).unwrap()).unwrap();
    let wrong = async {
        fs::write(&path, "listeners: 7").unwrap();
        tokio::time::timeout(LOOK_PERIOD, watch.changed()).await
    };
    assert!(wrong.await.is_err(), "a wrong file was taken");
    fs::write(&path, with_service("right")).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["right"]);
}

#[tokio::test]
async fn a_hangup_reads_again_what_lies_outside_the_folder() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("proxy.yaml");
    fs::write(elsewhere.path().join("real.yaml"), with_service("first")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("real.yaml"), &path).unwrap();
    let mut watch = ConfigWatch::start(&path, load(&path).unwrap()).unwrap();
    fs::write(elsewhere.path().join("real.yaml"), with_service("second")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGHUP).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["second"]);
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_followed() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("conf");
    let path = folder.join("proxy.yaml");
    fs::create_dir(&folder).unwrap();
    fs::write(&path, with_service("first")).unwrap();
    let mut watch = ConfigWatch::start(&path, load(&path).unwrap()).unwrap();
    fs::create_dir(above.path().join("next")).unwrap();
    fs::write(above.path().join("next/proxy.yaml"), with_service("second")).unwrap();
    fs::rename(&folder, above.path().join("gone")).unwrap();
    fs::rename(above.path().join("next"), &folder).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["second"]);
    fs::write(&path, with_service("third")).unwrap();
    assert_eq!(services(&soon(watch.changed()).await), ["third"]);
}

#[test]
fn the_same_mistake_is_told_once_and_again_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    fs::write(&path, with_service("first")).unwrap();
    let mut reader = Reader::new(load(&path).unwrap());
    fs::write(&path, "listeners: 7").unwrap();
    assert!(matches!(reader.reread(&path, false), Reread::Wrong(_)));
    assert_eq!(reader.reread(&path, false), Reread::Unchanged);
    assert!(matches!(reader.reread(&path, true), Reread::Wrong(_)));
    fs::write(&path, "listeners: 8").unwrap();
    assert!(matches!(reader.reread(&path, false), Reread::Wrong(_)), "another mistake is news");
    fs::write(&path, with_service("first")).unwrap();
    assert_eq!(reader.reread(&path, false), Reread::Unchanged, "it says what runs");
}

#[test]
fn what_needs_a_restart_is_named_once_and_keeps_running_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    fs::write(&path, with_service("first")).unwrap();
    let mut reader = Reader::new(load(&path).unwrap());
    assert_eq!(reader.reread(&path, false), Reread::Unchanged);
    let other = |service: &str| {
        with_service(service).replace("workers: 1", "workers: 2\nadmin: { listen: 127.0.0.1:1 }\naccess_log: true")
    };
    fs::write(&path, other("first")).unwrap();
    let restart_needed = vec!["workers", "admin.listen", "access_log"];
    // Nothing of it can be applied, so nothing is.
    assert_eq!(reader.reread(&path, false), Reread::Changed { config: None, restart_needed: restart_needed.clone() });
    assert_eq!(reader.reread(&path, false), Reread::Unchanged);
    fs::write(&path, other("second")).unwrap();
    let Reread::Changed { config: Some(config), restart_needed: named } = reader.reread(&path, false) else {
        panic!("it is not seen")
    };
    assert_eq!((named, config.workers, services(&config)), (restart_needed, 1, vec!["second"]));
    assert_eq!(reader.reread(&path, false), Reread::Unchanged);
    fs::remove_file(&path).unwrap();
    assert!(matches!(reader.reread(&path, false), Reread::Wrong(_)));
}
