//! Shares, written `20%`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A share of a whole, exact to a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Percent {
    hundredths: u32,
}

/// A string that is no share.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a percentage such as 20% or 0.5% is wanted, at most 1000%")]
pub struct PercentError;

impl Percent {
    /// `from_hundredths(20_00)` is 20 %.
    #[must_use]
    pub const fn from_hundredths(hundredths: u32) -> Self {
        Self { hundredths }
    }

    #[must_use]
    pub const fn hundredths(self) -> u32 {
        self.hundredths
    }

    /// 20 % is 0.2.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }

    /// The share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.hundredths) / 10_000).try_into().unwrap_or(u64::MAX)
    }

    /// Reads `20%`; the sign is part of it.
    ///
    /// # Errors
    /// [`PercentError`] without the sign, with more than two decimals, or over 1000 %.
    pub fn parse(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').ok_or(PercentError)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 || whole.len() > 4 {
            return Err(PercentError);
        }
        let fraction: u32 = format!("{fraction:0<2}").parse().map_err(|_| PercentError)?;
        let hundredths = whole.parse::<u32>().map_err(|_| PercentError)? * 100 + fraction;
        if hundredths <= 1000_00 { Ok(Self { hundredths }) } else { Err(PercentError) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hundredths / 100, self.hundredths % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, fraction) => write!(f, "{whole}.{fraction:02}%"),
        }
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> Self {
        percent.to_string()
    }
}

impl TryFrom<String> for Percent {
    type Error = PercentError;
    fn try_from(text: String) -> Result<Self, PercentError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::Percent;

    #[test]
    fn reads_and_writes_shares() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(Percent::parse(text).ok().map(Percent::hundredths), expected, "{text:?}");
        };
        check("20%", Some(2000));
        check("0.5%", Some(50));
        check("100%", Some(10_000));
        for wrong in ["20", "%", "-1%", "1.234%", "1001%", "a%", "1.%"] {
            check(wrong, None);
        }
        assert_eq!(Percent::from_hundredths(50).to_string(), "0.50%");
        assert_eq!(Percent::from_hundredths(2000).of(99), 19);
    }
}
