//! The moment a response was made, as `Date` has it (RFC 9110 section 5.6.7). Written once a second, not once a response.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::fields::Fields;
use crate::message::name::Name;

thread_local! {
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Adds `Date` where there is none (RFC 9110 section 6.6.1).
pub fn ensure(fields: &mut Fields) {
    if fields.has(Name::Date) {
        return;
    }
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(written, text)| {
        if *written != second {
            *written = second;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        fields.add(Name::Date, text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_added_where_there_is_none() {
        let mut fields: Fields = [("date", "then")].into_iter().collect();
        ensure(&mut fields);
        assert_eq!(fields.get(Name::Date), Some(b"then".as_slice()));
        let mut fields = Fields::default();
        ensure(&mut fields);
        let text = std::str::from_utf8(fields.get(Name::Date).unwrap()).unwrap();
        assert!(text.ends_with(" GMT") && text.len() == 29, "{text}");
    }
}
