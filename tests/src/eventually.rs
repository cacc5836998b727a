//! Waiting for a condition, with a deadline. The one place of the tests where time passes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(20);

/// Looks until `look` says yes, and returns what it found.
///
/// # Panics
/// After `deadline`, with the last reason why not.
pub fn eventually<T, E: Display>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= end => panic!("{what}: not within {deadline:?}: {reason}"),
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}

/// Like [`eventually`], for a plain condition.
///
/// # Panics
/// After `deadline`.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually(what, deadline, || if condition() { Ok(()) } else { Err("it does not hold") });
}
