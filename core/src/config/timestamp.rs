//! Times as engines write them (RFC 3339), as milliseconds.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

/// Milliseconds of an RFC 3339 time such as `2024-05-01T10:00:00.123456789Z`. None for what is none, and for the year 1, which
/// is the engine's "never".
#[must_use]
pub fn millis_since_epoch(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u32>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, offset_minutes) = split_offset(time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<u32>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let minutes = days_since_epoch(year, month, day) * 1440 + i64::from(hour * 60 + minute) - offset_minutes;
    u64::try_from((minutes * 60 + i64::from(second)) * 1000 + millis).ok()
}

/// The time without its offset, and the offset in minutes east of UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let minutes = hours.parse::<i64>().ok()?.checked_mul(60)?.checked_add(minutes.parse::<i64>().ok()?)?;
    if !(0..=1440).contains(&minutes) {
        return None;
    }
    Some((&time[..at], if time[at..].starts_with('-') { -minutes } else { minutes }))
}

/// Days from 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is the last of one.
fn days_since_epoch(year: u32, month: u32, day: u32) -> i64 {
    let (year, month) = (i64::from(year) - i64::from(month <= 2), i64::from(month));
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::millis_since_epoch;

    #[test]
    fn times_are_read_to_the_millisecond() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(millis_since_epoch(text), expected, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2024-02-29T12:34:56.789012345Z", Some(1_709_210_096_789));
        check("2024-02-29T13:34:56.7+01:00", Some(1_709_210_096_700));
        check("2000-03-01T00:00:00Z", Some(951_868_800_000));
        check("2100-03-01T00:00:00Z", Some(4_107_542_400_000));
        for wrong in
            ["0001-01-01T00:00:00Z", "", "2024-02-29", "2024-13-01T00:00:00Z", "2024-02-29T12:34:56", "xTyZ", "TZ"]
        {
            check(wrong, None);
        }
    }
}
