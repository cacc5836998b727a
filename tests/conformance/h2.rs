//! h2 from the outside (RFC 9113, RFC 7541): frames of our own making against the proxy, whole or byte by byte, on both of its sides.

pub mod huffman; // text, coded
pub mod hpack; // field lines, compressed
pub mod frame; // what stands on the wire
pub mod heard; // what one end has said
pub mod client; // a client that sends what it is given
pub mod origin; // an origin that answers as it is told
