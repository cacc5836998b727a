//! What the kernel says about processes (proc(5)), and signals to them.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::record::{Identity, Record, TOKEN_VARIABLE};

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// `R`, `S`, `Z`…
    state: char,
    /// Field 22, in clock ticks since boot.
    start_ticks: u64,
}

/// The process name may hold spaces and brackets, so fields are counted from the last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // `state` is field 3.
    let start_ticks = fields.nth(22 - 4)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Who `pid` is; none when there is no such process. A zombie still is one.
pub(super) fn identify(pid: i32) -> Option<Identity> {
    stat(pid).map(|stat| Identity { pid, start_ticks: stat.start_ticks, boot_id: boot_id() })
}

/// Whether exactly this process still runs. A zombie does not.
pub(super) fn is_alive(identity: &Identity) -> bool {
    stat(identity.pid).is_some_and(|stat| stat.start_ticks == identity.start_ticks && !matches!(stat.state, 'Z' | 'X'))
        && boot_id() == identity.boot_id
}

/// Every process that carries the token in its environment: the replica, and whatever it started.
pub(super) fn carriers(token: &str) -> Vec<i32> {
    let wanted = format!("{TOKEN_VARIABLE}={token}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let carries = |pid: &i32| {
        let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes())
    };
    pids.filter(carries).collect()
}

/// Signals the replica's process group. The caller knows that its leader lives, or has ended and was not yet waited for: until
/// then neither its pid nor its group's number is given to anybody else.
pub(super) fn signal_group(pid: i32, signal: Signal) {
    match killpg(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %signal, %error, "a process group cannot be signalled"),
    }
}

/// Kills what is left of a replica that nobody waits for: its process if it is the one that was recorded, and whatever else
/// carries its token. Another process that got the pid later has neither.
pub(super) fn kill_leftovers(record: &Record) -> usize {
    let mut killed = 0;
    if let Some(identity) = record.identity.as_ref().filter(|identity| is_alive(identity)) {
        signal_group(identity.pid, Signal::SIGKILL);
        killed += 1;
    }
    for pid in carriers(&record.token) {
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            killed += 1;
        }
    }
    killed
}

/// `TERM`, `SIGTERM` or `15`.
pub(super) fn parse_signal(text: &str) -> Option<Signal> {
    let name = text.to_ascii_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_last_bracket() {
        let text = "42 (a ) (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200 18446744073709551615";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', start_ticks: 987_654 }));
        assert_eq!(parse_stat("42 (short) S 1"), None);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let check = |text: &str, expected: Option<Signal>| assert_eq!(parse_signal(text), expected, "{text}");
        check("TERM", Some(Signal::SIGTERM));
        check("sigquit", Some(Signal::SIGQUIT));
        check("10", Some(Signal::SIGUSR1));
        check("NOPE", None);
        check("999", None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = identify(std::process::id().cast_signed()).unwrap();
        assert!(is_alive(&own));
        assert!(!is_alive(&Identity { start_ticks: own.start_ticks + 1, ..own.clone() }));
        assert!(!is_alive(&Identity { boot_id: "another".to_owned(), ..own }));
    }
}
