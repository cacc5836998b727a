//! What a test needs of the machine. Where it is missing the test is reported as ignored with the reason; with `MESH_E2E=1` it
//! fails.

use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::peer;

/// Something that a machine has or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Namespaces and nftables can be made.
    Root,
    /// A Docker engine answers.
    Docker,
    /// A program is on the path.
    Program(&'static str),
    /// Envoy is among the peers.
    Envoy,
    /// Python with these modules is among the peers.
    Python(&'static str),
}

impl Need {
    /// Why the need is not met; none when it is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Docker => (!succeeds("docker", &["info"])).then(|| "no Docker engine answers".to_owned()),
            Self::Program(name) => (!on_path(name)).then(|| format!("{name} is not installed")),
            Self::Envoy => (!peer::path("envoy").exists()).then(|| "Envoy is not among the peers".to_owned()),
            Self::Python(modules) => {
                let python = peer::path("python");
                let there = succeeds(&python.to_string_lossy(), &["-c", &format!("import {modules}")]);
                (!there).then(|| format!("Python with {modules} is not among the peers"))
            }
        }
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let run = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// One test with its needs.
pub fn trial(name: &str, needs: &[Need], test: impl FnOnce() + Send + 'static) -> Trial {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    let required = std::env::var("MESH_E2E").is_ok_and(|value| value == "1");
    if missing.is_empty() {
        return Trial::test(name, move || {
            test();
            Ok(())
        });
    }
    let reason = missing.join("; ");
    if required {
        return Trial::test(name, move || Err(Failed::from(format!("needed under MESH_E2E=1: {reason}"))));
    }
    println!("ignored: {name}: {reason}");
    Trial::test(name, || Ok(())).with_ignored_flag(true)
}

/// The main of a test binary without harness.
pub fn main(trials: Vec<Trial>) {
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
