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
        tokio::time::timeout(QUIET_MAX + QUIET, watch.changed()).await
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

#[test]
fn what_needs_a_restart_is_named_and_keeps_running_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    fs::write(&path, with_service("first")).unwrap();
    let current = load(&path).unwrap();
    assert_eq!(reread(&path, &current), Reread::Unchanged);
    fs::write(&path, with_service("first").replace("workers: 1", "workers: 2\nadmin: { listen: 127.0.0.1:1 }"))
        .unwrap();
    let Reread::Changed { config, restart_needed } = reread(&path, &current) else { panic!("it is not seen") };
    assert_eq!(restart_needed, ["workers", "admin.listen"]);
    assert_eq!(*config, current);
    fs::remove_file(&path).unwrap();
    assert!(matches!(reread(&path, &current), Reread::Wrong(_)));
}
