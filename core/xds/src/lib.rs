//! The wire between discovery and the proxies: xDS v3. Core types become the messages that Envoy 1.40 and gRPC's own clients
//! accept, and come back from them; and both ends of a stream are here as pure state machines. No I/O.

pub mod kind; // the resource types, and the order they are sent in
pub mod packed; // one encoded resource with its version; everything one client may have
pub mod metadata; // what xDS has no word for: JSON in `metadata.filter_metadata["mesh"]`
pub mod load; // what a proxy tells back: its load, and whom it took out
pub mod encode; // core → wire
pub mod decode; // wire → core
pub mod server; // discovery's end of a stream
pub mod client; // the proxy's end of a stream

pub use kind::Kind;
pub use packed::{Packed, ResourceSet};

#[cfg(test)]
mod sample; // seeded random resources
#[cfg(test)]
mod roundtrip; // decode(encode(x)) == x
