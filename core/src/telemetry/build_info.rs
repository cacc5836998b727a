//! What runs: `mesh_build_info{binary, version} 1`.

use prometheus::{IntGauge, Opts, Registry};

/// The version of the whole workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Adds `mesh_build_info` to a registry.
///
/// # Errors
/// When the registry has it already.
pub fn register(registry: &Registry, binary: &str) -> Result<(), prometheus::Error> {
    let options = Opts::new("mesh_build_info", "Always 1; the labels say what runs.")
        .const_label("binary", binary)
        .const_label("version", VERSION);
    let gauge = IntGauge::with_opts(options)?;
    gauge.set(1);
    registry.register(Box::new(gauge))
}
