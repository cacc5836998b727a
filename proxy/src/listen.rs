//! Stage 1 of a request's walk: a connection arrives. Each worker has a socket of its own on every address; the kernel spreads
//! connections over them.

pub mod socket; // bound, after a proof that the port is free
pub mod stream; // a client's connection, as bytes
pub mod accept; // one socket's loop
