//! Our binaries, started as a user starts them; killed on drop, with their log printed when the test failed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::eventually::eventually;

/// Long enough for a debug build on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The binary `name` of this build.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in deps/, binaries above it");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing; `cargo build --workspace --bins` makes it", path.display());
    path
}

/// A running program of ours.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts `name` with these arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_command(name, Command::new(binary(name)).args(arguments))
    }

    /// Starts any command as a daemon, its output kept.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_command(name: &str, command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = |kind: &str| File::create(folder.path().join(kind)).expect("a file can be made in it");
        let child = command.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr")).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, folder }
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    fn text(&self, kind: &str) -> String {
        let mut text = Vec::new();
        let read = File::open(self.folder.path().join(kind)).and_then(|mut file| file.read_to_end(&mut text));
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        // Gone already is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended.
    ///
    /// # Panics
    /// When it has not ended by `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually(&format!("the end of {}", self.name), deadline, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until stderr has a line with `words`, and returns that line.
    ///
    /// # Panics
    /// When there is none by [`DEADLINE`].
    pub fn wait_for_log(&self, words: &str) -> String {
        eventually(&format!("{words:?} in the log of {}", self.name), DEADLINE, || {
            let text = self.stderr();
            text.lines().find(|line| line.contains(words)).map(str::to_owned).ok_or(text)
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            eprintln!("--- stdout of {}\n{}\n--- stderr of {}\n{}", self.name, tail(&stdout), self.name, tail(&stderr));
        }
    }
}

/// The last lines of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
