//! The demo, as a newcomer starts it: on local processes and on a Docker engine, and after a run that was killed.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use mesh_tests::daemon::{Daemon, binary};
use mesh_tests::eventually::until;
use mesh_tests::need::{Need, main as run, trial};

/// One demo at a time: a second one is refused.
static ONE: Mutex<()> = Mutex::new(());

const NOBODY: u32 = 65534;

/// Starting, the run itself, and removing all of it, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

fn demo(runtime: &str, run_for: &str) -> String {
    let mut demo = Daemon::start("mesh-ctl", &["demo", "--runtime", runtime, "--for", run_for]);
    let status = demo.wait(DEADLINE);
    let told = demo.stdout();
    assert!(status.success(), "{told}\n{}", demo.stderr());
    for words in
        ["is taken out", "is killed (SIGKILL)", "serves again", "have answered users", "Not one user request failed"]
    {
        assert!(told.contains(words), "{words:?} in {told}");
    }
    told
}

fn on_local_processes_and_after_a_kill_9() {
    let _one = ONE.lock().unwrap();
    let mut killed = Daemon::start("mesh-ctl", &["demo", "--runtime", "process", "--for", "60s"]);
    until("users", DEADLINE, || killed.stdout().contains("Users come"));
    killed.kill();
    let told = demo("process", "15s");
    assert!(told.contains("Swept up 8 processes"), "{told}");
}

/// Not root, but of the group that may use the engine: everything happens in one container, and nothing of it is left.
fn in_a_container_of_its_own() {
    let _one = ONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Where the build lies may be root's alone.
    let copy = folder.path().join("mesh-ctl");
    std::fs::copy(binary("mesh-ctl"), &copy).unwrap();
    let group = std::fs::metadata("/var/run/docker.sock").unwrap().gid();
    let mut command = Command::new(&copy);
    command.args(["demo", "--for", "15s"]).uid(NOBODY).gid(group).current_dir("/");
    let mut demo = Daemon::start_command("demo", &mut command);
    let status = demo.wait(DEADLINE);
    let told = demo.stdout();
    assert!(status.success(), "{told}\n{}", demo.stderr());
    for words in ["runs in one privileged container", "The services are containers", "Not one user request failed"] {
        assert!(told.contains(words), "{words:?} in {told}");
    }
    let left = Command::new("docker").args(["ps", "-aq", "--filter", "label=mesh.run"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

fn on_a_docker_engine() {
    let _one = ONE.lock().unwrap();
    let told = demo("docker", "20s");
    assert!(told.contains("The services are containers"), "{told}");
}

/// Another mesh captures whatever appears on the engine, and leaves the demo what is the demo's.
fn beside_another_mesh_on_the_engine() {
    let _one = ONE.lock().unwrap();
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().display().to_string();
    let other = Daemon::start("mesh-ctl", &["dev", "--exposed-by-default", "--state-dir", &folder]);
    until("the other mesh", DEADLINE, || other.stderr().contains("Ctrl-C ends it"));
    let told = demo("docker", "20s");
    assert!(told.contains("The services are containers"), "{told}");
    assert!(!Path::new("/var/lib/mesh/demo").exists(), "the demo leaves nothing behind");
}

fn main() {
    run(vec![
        trial("on_local_processes_and_after_a_kill_9", &[], on_local_processes_and_after_a_kill_9),
        trial("on_a_docker_engine", &[Need::Root, Need::Docker], on_a_docker_engine),
        trial("beside_another_mesh_on_the_engine", &[Need::Root, Need::Docker], beside_another_mesh_on_the_engine),
        trial("in_a_container_of_its_own", &[Need::Root, Need::Docker], in_a_container_of_its_own),
    ]);
}
