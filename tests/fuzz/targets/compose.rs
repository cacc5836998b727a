//! Compose files. What is accepted is kept in the store as JSON, and has to come back the same.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mesh_core::compose::{self, Overrides, Project};

fuzz_target!(|bytes: &[u8]| {
    let environment = BTreeMap::from([("SET".to_owned(), "value".to_owned()), ("EMPTY".to_owned(), String::new())]);
    let overrides = Overrides { directory: "/shop".into(), ..Overrides::default() };
    match compose::read("compose.yaml", &mesh_fuzz::text(bytes), &environment, &overrides) {
        Ok(project) => {
            let json = serde_json::to_vec(&project).expect("a project is plain data");
            let again: Project = serde_json::from_slice(&json).expect("and comes back");
            assert_eq!(again, project);
        }
        Err(problems) => assert!(!problems.list.is_empty() && !problems.to_string().is_empty()),
    }
});
