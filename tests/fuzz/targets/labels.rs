//! What containers' labels say. Input: lines of `key=value`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mesh_discovery::provider::label;

fuzz_target!(|bytes: &[u8]| {
    let text = mesh_fuzz::text(bytes);
    let pairs = text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
    let labels: BTreeMap<String, String> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let (settings, problems) = label::read(&labels);
    for problem in &problems {
        assert!(!problem.message.is_empty(), "{} is wrong without a word", problem.key);
        // A problem may be one of a port as a whole, whose labels begin with its key.
        let named = labels.keys().any(|key| key.contains(problem.key.trim_start_matches("mesh.")));
        assert!(named, "{} is complained about, but is no label of this container: {labels:?}", problem.key);
    }
    let ports: Vec<u16> = settings.ports.iter().map(|port| port.port).collect();
    assert!(ports.iter().all(|port| *port > 0), "port 0: {ports:?}");
    // Labels of others change nothing.
    let ours: BTreeMap<String, String> =
        labels.into_iter().filter(|(key, _)| key.starts_with("mesh.") || key.starts_with("internal.mesh.")).collect();
    assert_eq!(label::read(&ours), (settings, problems));
});
