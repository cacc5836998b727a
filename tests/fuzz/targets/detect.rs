//! The first bytes of a connection. Whatever is known of a beginning stays true of what follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::detect::verdict::{BYTES_MAX, Verdict, detect};
use mesh_proxy::route;

fuzz_target!(|bytes: &[u8]| {
    let mut known = None;
    for end in 1..=bytes.len().min(BYTES_MAX + 8) {
        match (known, detect(&bytes[..end])) {
            (Some(before), verdict) => assert_eq!(verdict, before, "{:?}", &bytes[..end]),
            (None, verdict @ Verdict::Known(_)) => known = Some(verdict),
            (None, Verdict::MoreBytes) => assert!(end < BYTES_MAX, "not decided after {end} bytes: {bytes:?}"),
        }
    }
    let authority = mesh_fuzz::text(bytes);
    assert!(authority.starts_with(route::without_port(&authority)));
});
