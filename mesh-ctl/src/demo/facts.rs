//! What the demo has to show, and whether it did: the last lines it prints, and its exit code.

use std::time::Duration;

use super::traffic::Counts;

/// The share of intended requests that must have been sent, in percent.
const SENT_PERCENT_MIN: u64 = 95;

/// One act of the story: when it was seen to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Act {
    pub took: Option<Duration>,
    /// User requests that failed until then.
    pub failed_by_then: u64,
}

/// Everything that is counted.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub intended: u64,
    pub counts: Counts,
    pub ejection: Act,
    pub replacement: Act,
    pub scale_up: Act,
    /// Answers by the broken replica that reached a user's chain: none may.
    pub retried: Option<u64>,
}

impl Facts {
    /// Why the demo failed; empty when it did not.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.counts.failed > 0 {
            told.push(format!("{} of {} user requests failed", self.counts.failed, self.counts.sent));
            told.extend(self.counts.failures.iter().map(|failure| format!("  {failure}")));
        }
        if self.counts.sent * 100 < self.intended * SENT_PERCENT_MIN {
            told.push(format!("only {} of {} intended requests were sent", self.counts.sent, self.intended));
        }
        let acts = [
            (self.ejection, "the failing replica was not taken out"),
            (self.replacement, "the killed replica was not replaced"),
            (self.scale_up, "the scale-up was not seen in the answers"),
        ];
        told.extend(acts.into_iter().filter(|(act, _)| act.took.is_none()).map(|(_, words)| words.to_owned()));
        told
    }

    /// The counted facts, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let act = |name: &str, act: Act| match act.took {
            Some(took) => format!("{name:<28}{:>7.2} s   {} failed by then", took.as_secs_f64(), act.failed_by_then),
            None => format!("{name:<28}not seen"),
        };
        let mut lines = vec![
            format!("{:<28}{:>7}     of {} intended", "user requests sent", self.counts.sent, self.intended),
            format!("{:<28}{:>7}", "user requests failed", self.counts.failed),
            format!("{:<28}{:>7.1} ms", "slowest answer", self.counts.slowest.as_secs_f64() * 1e3),
            act("failing replica taken out", self.ejection),
            act("killed replica replaced", self.replacement),
            act("scale-up serving", self.scale_up),
        ];
        if let Some(retried) = self.retried {
            lines.push(format!("{:<28}{retried:>7}", "tries repeated elsewhere"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        let done = Act { took: Some(Duration::from_secs(1)), failed_by_then: 0 };
        let counts = Counts { sent: 96, ..Counts::default() };
        Facts { intended: 100, counts, ejection: done, replacement: done, scale_up: done, retried: None }
    }

    #[test]
    fn each_shortcoming_fails_the_demo() {
        let check = |facts: Facts, words: &str| {
            let told = facts.shortcomings();
            assert!(told.iter().any(|line| line.contains(words)), "{words:?} in {told:?}");
        };
        assert!(good().shortcomings().is_empty(), "{:?}", good().shortcomings());
        check(Facts { counts: Counts { sent: 96, failed: 1, ..Counts::default() }, ..good() }, "1 of 96");
        check(Facts { counts: Counts { sent: 94, ..Counts::default() }, ..good() }, "94 of 100");
        check(Facts { ejection: Act::default(), ..good() }, "taken out");
        check(Facts { replacement: Act::default(), ..good() }, "replaced");
        check(Facts { scale_up: Act::default(), ..good() }, "scale-up");
    }
}
