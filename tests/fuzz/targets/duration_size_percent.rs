//! The small words of configuration: durations, sizes, shares, times, ids, `KEY=value` files.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh_core::config::percent::Percent;
use mesh_core::config::{duration, size, timestamp};
use mesh_core::model::names::{EndpointId, Name};
use mesh_discovery::provider::docker::drain;

/// Beyond it an `f64` of seconds has no nanoseconds left.
const EXACT_MAX: Duration = Duration::from_secs(1 << 20);

fuzz_target!(|bytes: &[u8]| {
    let text = mesh_fuzz::text(bytes);
    if let Ok(read) = duration::parse(&text) {
        let again = duration::parse(&duration::format(read)).expect("what is written can be read");
        let difference = again.abs_diff(read);
        assert!(read > EXACT_MAX || difference <= Duration::from_nanos(1), "{text:?}: {read:?} became {again:?}");
    }
    if let Ok(share) = Percent::parse(&text) {
        assert_eq!(Percent::parse(&share.to_string()), Ok(share));
        assert!(share.of(u64::MAX) > 0 || share.hundredths() == 0);
    }
    if let Ok(name) = Name::new(&text) {
        assert_eq!(Name::from_foreign(&text), Ok(name));
    }
    if let Ok(id) = text.parse::<EndpointId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Some(number) = drain::signal_number(&text) {
        assert!((1..=64).contains(&number));
    }
    let _ = size::parse(&text);
    let _ = timestamp::millis_since_epoch(&text);
    let _ = mesh_core::compose::normalise_project_name(&text);
});
