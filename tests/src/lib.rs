//! What the end-to-end tests share: real daemons, real peers, addresses of their own, and waiting with a deadline.

pub mod eventually; // wait for a condition, never for a moment
pub mod address; // a loopback address that nobody else has
pub mod need; // what a test needs, and what happens where it is missing
pub mod daemon; // our binaries, as a user starts them
pub mod peer; // programs of others: dig, curl, h2load, Envoy, Python
pub mod backend; // services to be called
