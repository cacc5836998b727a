//! The proxy's own file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::config;

fuzz_target!(|bytes: &[u8]| {
    match config::parse("proxy.yaml", &mesh_fuzz::text(bytes)) {
        Ok(config) => {
            assert!(config.workers > 0);
            let resources = &config.resources;
            for table in resources.listeners.values().filter_map(|listener| listener.routes.as_ref()) {
                assert!(resources.routes.contains_key(table), "route table {table} is not there");
            }
            let by_routes = resources.routes.values().flat_map(|table| &table.hosts).map(|host| &host.cluster);
            let by_listeners = resources.listeners.values().filter_map(|listener| listener.tcp_cluster.as_ref());
            for cluster in by_routes.chain(by_listeners) {
                assert!(resources.clusters.contains_key(cluster), "cluster {cluster} is not there");
            }
        }
        Err(problems) => assert!(!problems.list.is_empty() && !problems.to_string().is_empty()),
    }
});
