//! Stage 1 of a request's walk: a connection arrives. Each worker has a socket of its own on every address; the kernel spreads
//! connections over them, and workers even out what it leaves uneven.

pub mod socket; // bound, after a proof that the port is free
pub mod failed; // those that could not be, and when they are tried again
pub mod stream; // a client's connection, as bytes
pub mod accept; // one socket's loop
pub mod spread; // which worker carries it
pub mod limits; // how many there may be
pub mod proxy_protocol; // who is behind it   (pure)
pub mod proxied; // the bytes that say so
