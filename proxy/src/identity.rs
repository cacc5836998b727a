//! Stage 3 of a request's walk: TLS. Who are we, and who are they.

pub mod held; // certificates, keys and authorities, read from PEM files
pub mod by_name; // which certificate a client is shown
pub mod remembered; // signatures of authorities that were checked before
pub mod rotate; // read again when a file changes
pub mod handshake; // the handshake itself, or why it failed, in words
