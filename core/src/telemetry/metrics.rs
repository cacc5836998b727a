//! Registries are handed in, never global; here is what turns one into the text of a scrape.

use prometheus::{Encoder, Registry, TextEncoder};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Prometheus text format 0.0.4 of everything in `registry`.
#[must_use]
pub fn render(registry: &Registry) -> String {
    let mut text = Vec::new();
    let encoded = TextEncoder::new().encode(&registry.gather(), &mut text);
    if let Err(error) = encoded {
        tracing::error!(%error, "metrics cannot be encoded");
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Buckets of a request's duration, in seconds: OpenTelemetry's, with finer ones from half a millisecond for a mesh.
pub const DURATION_BUCKETS_SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
