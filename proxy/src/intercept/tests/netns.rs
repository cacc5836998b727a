//! Entering and coming back.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::sys::signal::Signal;

use super::super::netns::{
    ListenOptions, NamespaceError, NamespaceId, NetworkNamespace, tcp_listener_in, udp_socket_in,
};
use super::{TestNamespace, address};

/// The namespace this thread is in now.
fn here() -> NamespaceId {
    NetworkNamespace::open("/proc/thread-self/ns/net").unwrap().id()
}

#[test]
fn enter_runs_inside_and_comes_back() {
    let Some(test) = TestNamespace::new() else { return };
    let (namespace, home) = (test.handle(), here());
    assert_eq!(namespace.enter(here).unwrap(), namespace.id());
    assert_eq!(here(), home);
    assert_ne!(namespace.id(), home);
    assert!(!namespace.is_own().unwrap() && !namespace.is_host().unwrap());
}

#[test]
fn enter_comes_back_from_a_panic() {
    let Some(test) = TestNamespace::new() else { return };
    let (namespace, home) = (test.handle(), here());
    let panicked = catch_unwind(AssertUnwindSafe(|| namespace.enter(|| panic!("expected"))));
    assert!(panicked.is_err());
    assert_eq!(here(), home);
    assert_eq!(namespace.enter(here).unwrap(), namespace.id(), "it can be entered again");
}

#[test]
fn entering_from_inside_is_refused() {
    let Some(test) = TestNamespace::new() else { return };
    let namespace = test.handle();
    let inner = namespace.enter(|| namespace.enter(|| ())).unwrap();
    assert!(matches!(inner, Err(NamespaceError::AlreadyInside { .. })), "{inner:?}");
}

#[test]
fn its_own_namespace_is_known_by_every_path_and_costs_nothing_to_enter() {
    let own = NetworkNamespace::own().unwrap();
    let same = NetworkNamespace::open("/proc/self/ns/net").unwrap();
    assert_eq!(own, same);
    assert!(same.is_own().unwrap() && same.is_host().unwrap());
    assert_eq!(same.enter(here).unwrap(), own.id());
    // No system call: entering twice over is no entering at all.
    assert_eq!(same.enter(|| same.enter(here).unwrap()).unwrap(), own.id());
}

#[test]
fn two_paths_of_one_namespace_have_one_id() {
    let Some(test) = TestNamespace::new() else { return };
    let namespace = test.handle();
    let ids = namespace.enter(|| BTreeSet::from([here(), NetworkNamespace::open(test.path()).unwrap().id()])).unwrap();
    assert_eq!(ids, BTreeSet::from([namespace.id()]));
}

#[test]
fn what_is_not_a_namespace_is_told_apart() {
    let missing = NetworkNamespace::open("/nonexistent").unwrap_err();
    assert!(matches!(missing, NamespaceError::Open { .. }), "{missing:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let plain = NetworkNamespace::open(file.path()).unwrap_err();
    assert!(matches!(plain, NamespaceError::NotANamespace { .. }), "{plain:?}");
    assert!(plain.to_string().contains("/run/docker/netns"), "{plain}");
}

#[test]
fn sockets_belong_to_the_namespace_they_were_made_in() {
    let Some(test) = TestNamespace::new() else { return };
    let namespace = test.handle();
    let listener = tcp_listener_in(Some(&namespace), address("127.0.0.1:0"), &ListenOptions::default()).unwrap();
    let inside = listener.local_addr().unwrap();
    test.connect(inside).unwrap();
    // The same address outside is another one.
    let outside = tcp_listener_in(None, inside, &ListenOptions::default());
    assert!(outside.is_ok(), "{outside:?}");

    let left = udp_socket_in(Some(&namespace), address("127.0.0.1:0")).unwrap();
    let right = udp_socket_in(Some(&namespace), address("127.0.0.1:0")).unwrap();
    right.set_nonblocking(false).unwrap();
    right.set_read_timeout(Some(super::PATIENCE)).unwrap();
    left.send_to(b"x", right.local_addr().unwrap()).unwrap();
    assert_eq!(right.recv_from(&mut [0; 2]).unwrap(), (1, left.local_addr().unwrap()));
}

#[test]
fn a_taken_address_is_named() {
    let Some(test) = TestNamespace::new() else { return };
    let taken = address("127.0.0.1:8080");
    let _held = test.listen("127.0.0.1:8080");
    let error = tcp_listener_in(Some(&test.handle()), taken, &ListenOptions::default()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EADDRINUSE));
    assert!(error.to_string().contains("127.0.0.1:8080") && error.to_string().contains(&test.name), "{error}");
}

/// As its own child: gives up, inside, the right to come back.
#[test]
fn a_thread_that_cannot_come_back_ends_the_process() {
    const VARIABLE: &str = "MESH_TEST_NO_WAY_BACK";
    if let Some(path) = std::env::var_os(VARIABLE) {
        let namespace = NetworkNamespace::open(path).unwrap();
        namespace.enter(|| nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap()).unwrap();
        return;
    }
    let Some(test) = TestNamespace::new() else { return };
    let name = concat!(module_path!(), "::a_thread_that_cannot_come_back_ends_the_process");
    let (_, name) = name.split_once("::").unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, test.path())
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(Signal::SIGABRT as i32), "{child:?}");
}
