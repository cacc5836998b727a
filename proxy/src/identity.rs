//! Stage 3 of a request's walk: TLS. Who are we, and who are they.

pub mod held; // certificates and keys, read from PEM files
pub mod rotate; // read again when a file changes
