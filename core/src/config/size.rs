//! Sizes in bytes: `64KiB`, `10MiB`, `512`; Compose's `64k`, `64m`, `1g` mean the binary units too.

use thiserror::Error;

/// A string that is no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a size such as 512, 64KiB or 10MiB is wanted")]
pub struct SizeError;

const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("ki", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("mi", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
    ("gi", 1 << 30),
];

/// Bytes.
///
/// # Errors
/// [`SizeError`] for unknown units, fractions, and what does not fit 64 bits.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| SizeError)?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SizeError)?.1;
    number.checked_mul(factor).ok_or(SizeError)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse(text).ok(), expected, "{text:?}");
        check("512", Some(512));
        check("64KiB", Some(65_536));
        check("64k", Some(65_536));
        check("10 MiB", Some(10 << 20));
        for wrong in ["", "KiB", "1.5MiB", "-1", "64XB", "99999999999999999999", "18446744073709551615k"] {
            check(wrong, None);
        }
    }
}
