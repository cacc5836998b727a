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

/// A time that was measured, as people read it: to 1 ms, 10 ms from 100 ms on, 100 ms from 10 s on.
#[must_use]
pub fn rounded(measured: Duration) -> String {
    let step = match measured.as_nanos() {
        ..100_000_000 => 1_000_000,
        100_000_000..10_000_000_000 => 10_000_000,
        _ => 100_000_000,
    };
    let nanos = (measured.as_nanos() + step / 2) / step * step;
    match u64::try_from(nanos) {
        Ok(0) if !measured.is_zero() => "less than 1ms".to_owned(),
        Ok(nanos) => format(Duration::from_nanos(nanos)),
        Err(_) => format(Duration::from_secs(measured.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_readable() {
        let check = |nanos: u64, expected: &str| assert_eq!(rounded(Duration::from_nanos(nanos)), expected, "{nanos}");
        check(0, "0s");
        check(300_000, "less than 1ms");
        check(25_400_000, "25ms");
        check(501_065_213, "500ms");
        check(999_970_000, "1s");
        check(1_001_194_633, "1s");
        check(1_251_194_633, "1s250ms");
        check(60_012_345_678, "1m");
    }

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
