//! Which containers are on their way out. The engine's inspection says plain `running` until the very end, so this is the one
//! thing that is learnt from an event: a `kill` whose signal is the container's stop signal, or SIGKILL.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::model::names::EndpointId;

/// A container that still runs this long after its own stop timeout was not being stopped.
pub const STOP_MARGIN: Duration = Duration::from_secs(2);

/// The engine's stop timeout where neither container nor image says one.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

const SIGKILL: u8 = 9;
const SIGTERM: u8 = 15;

/// Linux numbers of the signals a container may be stopped with (`signal(7)`, x86 and ARM).
const SIGNALS: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of `TERM`, `SIGTERM`, `sigterm`, `15` or `RTMIN+3`; none for what is no signal.
#[must_use]
pub fn signal_number(signal: &str) -> Option<u8> {
    let upper = signal.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<u8>().ok().filter(|offset| *offset <= 30),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, '+').map(|offset| 34 + offset);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, '-').map(|offset| 64 - offset);
    }
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Whether a `kill` event with this signal means the end, for a container with this stop signal (none: the engine's default).
#[must_use]
pub fn is_stop(signal: &str, stop_signal: Option<&str>) -> bool {
    let Some(sent) = signal_number(signal) else { return false };
    // A stop signal nobody can read is TERM to the engine too.
    let stop = stop_signal.filter(|text| !text.is_empty()).and_then(signal_number).unwrap_or(SIGTERM);
    sent == SIGKILL || sent == stop
}

/// The draining ones, by container id.
#[derive(Debug, Default)]
pub struct DrainBook {
    draining: BTreeMap<Arc<str>, Draining>,
}

#[derive(Debug, Clone, Copy)]
struct Draining {
    /// The life that ends; a restart of the same container is another one.
    start: u64,
    /// When it counts as not stopped after all.
    until: Instant,
}

impl DrainBook {
    /// Notes that `id` was told to end. True when that is news.
    pub fn note(&mut self, id: &EndpointId, stop_timeout: Duration, now: Instant) -> bool {
        let until = now + stop_timeout + STOP_MARGIN;
        let before = self.draining.insert(id.unit.clone(), Draining { start: id.start, until });
        before.is_none_or(|before| before.start != id.start)
    }

    #[must_use]
    pub fn is_draining(&self, id: &EndpointId, now: Instant) -> bool {
        self.draining.get(&id.unit).is_some_and(|draining| draining.start == id.start && now < draining.until)
    }

    /// Forgets the ones that ended, and those whose time is over.
    pub fn retain(&mut self, now: Instant, runs: impl Fn(&EndpointId) -> bool) {
        self.draining.retain(|unit, draining| {
            now < draining.until && runs(&EndpointId { unit: unit.clone(), start: draining.start })
        });
    }

    /// When the next one counts as not stopped after all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.draining.values().map(|draining| draining.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_compared_by_number() {
        let check = |text: &str, expected: Option<u8>| assert_eq!(signal_number(text), expected, "{text:?}");
        check("TERM", Some(15));
        check("SIGTERM", Some(15));
        check("sigquit", Some(3));
        check("15", Some(15));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX", Some(64));
        check("RTMAX-1", Some(63));
        for wrong in ["", "0", "65", "SIG", "TERMINATE", "RTMIN+99", "RTMIN-1", "-9"] {
            check(wrong, None);
        }
    }

    #[test]
    fn only_the_stop_signal_and_kill_mean_the_end() {
        let check = |sent: &str, stop: Option<&str>, expected: bool| {
            assert_eq!(is_stop(sent, stop), expected, "{sent} sent, {stop:?} is the stop signal");
        };
        check("15", None, true);
        check("15", Some(""), true);
        check("SIGTERM", Some("15"), true);
        check("3", Some("SIGQUIT"), true);
        check("9", Some("SIGQUIT"), true);
        check("15", Some("SIGQUIT"), false);
        check("1", None, false);
        check("nonsense", Some("nonsense"), false);
    }

    #[test]
    fn draining_ends_with_the_life_or_with_the_time() {
        let start = Instant::now_for_tests();
        let (id, restarted) = (EndpointId::new("a", 1), EndpointId::new("a", 2));
        let timeout = Duration::from_secs(10);
        let mut book = DrainBook::default();
        assert!(book.note(&id, timeout, start));
        assert!(!book.note(&id, timeout, start + Duration::from_secs(1)), "the second signal is no news");
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(book.is_draining(&id, at(12)), "11 s after the second signal");
        assert!(!book.is_draining(&id, at(13)));
        assert!(!book.is_draining(&restarted, at(2)), "another life");
        assert_eq!(book.next_deadline(), Some(at(13)));
        book.retain(at(2), |id| id.start == 1);
        assert!(book.is_draining(&id, at(2)));
        book.retain(at(2), |_| false);
        assert!(!book.is_draining(&id, at(2)) && book.next_deadline().is_none());
    }

    /// `Instant::now` is banned here, since a decision takes it as an argument; a test needs one to begin with.
    trait NowForTests {
        fn now_for_tests() -> Instant;
    }

    impl NowForTests for Instant {
        #[expect(clippy::disallowed_methods, reason = "the one place where the test's clock begins")]
        fn now_for_tests() -> Instant {
            Instant::now()
        }
    }
}
