//! Programs of others that the daemons are held against. Those from PyPI lie in `$MESH_PEERS`, which `tests/run` fills.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where a PyPI peer's program is.
#[must_use]
pub fn path(program: &str) -> PathBuf {
    let folder = std::env::var_os("MESH_PEERS").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from);
    folder.join("bin").join(program)
}

/// Runs a program to its end and returns its stdout.
///
/// # Panics
/// When it cannot be started or fails, with what it said.
pub fn run(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = output(&program, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let program = program.as_ref().display();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// Runs a program to its end, however it ends.
///
/// # Panics
/// When it cannot be started.
pub fn output(program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let program = program.as_ref();
    let run = Command::new(program).args(arguments).output();
    run.unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()))
}
