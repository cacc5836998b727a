//! Its own namespace alone. A sidecar lives in the namespace it captures, so each of these tests runs itself once more in there.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use mesh_core::model::endpoint::EndpointState;
use mesh_proxy::ambient::{AmbientError, CaptureOptions};
use mesh_proxy::app::{App, AppError, Options};
use tokio::sync::watch;

use super::told::{Proxy, Told, VIRTUAL};
use super::world::{Namespace, World, eventually, is_root};

const VARIABLE: &str = "MESH_TEST_SIDECAR";

fn told(app: &str) -> Told {
    let told = Told::default().endpoint(11, EndpointState::Ready).endpoint(12, EndpointState::Ready);
    told.workload_at("client.shop", app, 1)
}

/// Until its input ends.
fn live_as_sidecar() {
    let _proxy = Proxy::start(told("/unseen/from/here").resources(), CaptureOptions::sidecar());
    println!("captured");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn sidecar_of(namespace: &Namespace, test: &str) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new("ip")
        .args(["netns", "exec", &namespace.name, this.to_str().unwrap()])
        .args(["--exact", &format!("ambient::sidecar::{test}"), "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("captured")), "it did not start");
    child
}

#[test]
fn a_sidecar_balances_the_calls_of_its_neighbour() {
    if std::env::var_os(VARIABLE).is_some() {
        return live_as_sidecar();
    }
    let Some(world) = World::new() else { return };
    let (app, one, two) = (world.namespace(2), world.namespace(11), world.namespace(12));
    one.serve_http(8080, "one");
    two.serve_http(8080, "two");
    let mut sidecar = sidecar_of(&app, "a_sidecar_balances_the_calls_of_its_neighbour");
    let found: std::collections::BTreeSet<_> =
        (0..40).map(|_| app.get(&format!("{VIRTUAL}:8080"), "web").unwrap()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    eventually("its networks are known by its neighbours", || {
        let found: std::collections::BTreeSet<_> = (0..8).map(|_| app.get("10.78.0.11:8080", "web").unwrap()).collect();
        (found.len() == 2).then_some(())
    });
    assert_eq!(app.get("10.78.0.12:8080", "10.78.0.12:8080").unwrap(), "two 10.78.0.2");

    // Killed, it does no harm.
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    eventually("calls are direct", || app.get("10.78.0.11:8080", "web").ok());
    assert_eq!(app.get("10.78.0.11:8080", "web").unwrap(), "one 10.78.0.2");
    assert!(app.connect(&format!("{VIRTUAL}:8080")).is_err(), "refused at once");
}

#[test]
fn a_sidecar_refuses_to_capture_the_host() {
    if !is_root() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_told, resources) = watch::channel(told("/unseen").resources());
    let options = Options { capture: Some(CaptureOptions::sidecar()), ..Options::default() };
    let error = runtime.block_on(App::bind(options, resources)).err();
    let refused = matches!(error, Some(AppError::Capture { source: AmbientError::SidecarOnHost { .. } }));
    // A machine whose only interface is a container's own is no host by any sign.
    let on_host =
        std::fs::read_dir("/sys/class/net").unwrap().any(|entry| entry.unwrap().path().join("device").exists());
    assert!(refused || !on_host, "{error:?}");
}
