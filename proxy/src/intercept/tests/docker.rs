//! A capture inside containers of a real engine, from an image that holds one static binary and nothing else: this one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::capture::{CaptureConfig, Captured};
use super::super::netns::NetworkNamespace;
use super::super::original_dst::original_destination;
use super::super::watch::{NamespaceEvent, NamespaceWatch};
use super::{PATIENCE, address, eventually, is_root, run};

const VIRTUAL: &str = "240.240.1.7:80";
const VARIABLE: &str = "MESH_TEST_APPLICATION";

/// Whether there is an engine to talk to; says why not.
fn has_engine() -> bool {
    if !is_root() {
        return false;
    }
    let answer = Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]).output();
    if answer.as_ref().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let reason = format!("no Docker engine answers: {answer:?}");
    assert!(std::env::var_os("MESH_E2E").is_none_or(|value| value != "1"), "MESH_E2E=1, but {reason}");
    println!("skipped: {reason}");
    false
}

/// Removes with `docker` what it names, on drop.
struct Made {
    kind: &'static [&'static str],
    name: String,
}

impl Drop for Made {
    fn drop(&mut self) {
        // A failed removal must not hide why the test failed.
        let _ = Command::new("docker").args(self.kind).arg(&self.name).stdout(Stdio::null()).status();
    }
}

/// An image out of this binary alone.
fn image() -> Made {
    let name = format!("mesh-test-intercept-{}:latest", std::process::id());
    let binary = std::env::current_exe().unwrap();
    let mut tar = Command::new("tar")
        .args(["-c", "--transform", "s|.*|application|", "-C"])
        .args([binary.parent().unwrap(), binary.file_name().unwrap().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let imported =
        Command::new("docker").args(["import", "-", &name]).stdin(tar.stdout.take().unwrap()).output().unwrap();
    assert!(tar.wait().unwrap().success() && imported.status.success(), "{imported:?}");
    Made { kind: &["rmi"], name }
}

/// The program in the container: dials the virtual IP until we answer. Before the capture it may go anywhere.
fn dial_until_answered(target: &str) {
    const PAUSE: Duration = Duration::from_millis(500);
    eventually("the virtual IP answers", || {
        let mut stream = TcpStream::connect_timeout(&address(target), PAUSE).ok()?;
        stream.set_read_timeout(Some(PAUSE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (answer == "hello").then_some(())
    });
}

#[test]
fn a_container_from_an_empty_image_is_captured() {
    if let Ok(target) = std::env::var(VARIABLE) {
        return dial_until_answered(&target);
    }
    if !has_engine() {
        return;
    }
    let image = image();
    let network = Made { kind: &["network", "rm"], name: format!("mesh-test-intercept-{}", std::process::id()) };
    run("docker", &["network", "create", &network.name]);
    // The default bridge leaves the namespace without a rule; a network of one's own has the engine's, for its DNS.
    for network in ["bridge", &network.name, "none"] {
        capture_one(&image.name, network);
    }
}

fn capture_one(image: &str, network: &str) {
    let (_, test) = concat!(module_path!(), "::a_container_from_an_empty_image_is_captured").split_once("::").unwrap();
    let variable = format!("{VARIABLE}={VIRTUAL}");
    let arguments = ["run", "-d", "--network", network, "-e", &variable, image, "/application", "--exact", test];
    let id = run("docker", &arguments).trim().to_owned();
    let container = Made { kind: &["rm", "-f"], name: id.clone() };
    let path = run("docker", &["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", &id]).trim().to_owned();
    let namespace = NetworkNamespace::open(&path).unwrap();
    assert!(!namespace.is_host().unwrap());

    let folder = std::path::Path::new(&path).parent().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut watch = NamespaceWatch::open(folder).unwrap();
        loop {
            let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the sandbox is told").unwrap();
            if matches!(event, NamespaceEvent::Appeared { id, .. } if id == namespace.id()) {
                break;
            }
        }
    });

    let mut captured = Captured::open(Some(&namespace), &CaptureConfig::default()).unwrap();
    let listener = captured.take_listeners().remove(0).ipv4;
    let mut stream = eventually("the application dials", || listener.accept().ok()).0;
    assert_eq!(original_destination(&stream).unwrap(), Some(address(VIRTUAL)), "{network}");
    stream.write_all(b"hello").unwrap();
    drop(stream);
    let code = run("docker", &["wait", &id]);
    assert_eq!(code.trim(), "0", "{network}: {}", run("docker", &["logs", &container.name]));
}
