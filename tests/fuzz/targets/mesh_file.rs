//! The file of services and endpoints, and all that follows from it: a snapshot, and resources that a proxy accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_discovery::provider::file;

fuzz_target!(|bytes: &[u8]| {
    match file::parse::parse("mesh.yaml", &mesh_fuzz::text(bytes)) {
        Ok(observation) => mesh_fuzz::check_published(&mesh_fuzz::snapshot_of(observation)),
        Err(problems) => assert!(!problems.list.is_empty() && !problems.to_string().is_empty()),
    }
});
