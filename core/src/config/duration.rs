//! Durations as Go and Compose write them: `500ms`, `1m30s`, `0s`.

use std::time::Duration;

use thiserror::Error;

/// A string that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a duration such as 500ms, 5s or 1m30s is wanted")]
pub struct DurationError;

const UNITS: [(&str, f64); 6] = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads `1m30s`, `1.5s`, `0` and `0s`.
///
/// # Errors
/// [`DurationError`] for anything else: negative values, missing or unknown units.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError)?;
        let number: f64 = rest[..digits].parse().map_err(|_| DurationError)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = rest[..letters].replace('µ', "u");
        let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError)?.1;
        seconds += number * factor;
        rest = &rest[letters..];
    }
    if text.is_empty() {
        return Err(DurationError);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| DurationError)
}

/// Writes what [`parse`] reads, with as few units as tell it exactly: `1m30s`, `250ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let mut text = String::new();
    if minutes >= 60 {
        text += &format!("{}h", minutes / 60);
    }
    if !minutes.is_multiple_of(60) {
        text += &format!("{}m", minutes % 60);
    }
    if seconds > 0 {
        text += &format!("{seconds}s");
    }
    if nanos > 0 {
        let (value, unit) = match nanos {
            n if n % 1_000_000 == 0 => (n / 1_000_000, "ms"),
            n if n % 1_000 == 0 => (n / 1_000, "us"),
            n => (n, "ns"),
        };
        text += &format!("{value}{unit}");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse(text).ok(), expected.map(Duration::from_micros), "{text:?}");
        };
        check("500ms", Some(500_000));
        check("1m30s", Some(90_000_000));
        check("1.5s", Some(1_500_000));
        check("0s", Some(0));
        check("0", Some(0));
        check("10us", Some(10));
        for wrong in ["", "5", "s", "5 s", "-1s", "5x", "1s2", "1e3s", "99999999999999999999h"] {
            check(wrong, None);
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["0s", "250ms", "5s", "1m30s", "1h", "1h1m1s", "2s500ms", "7us", "13ns"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
