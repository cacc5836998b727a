//! Step 5b of a container event: the snapshot answers resolvers. `zone` says what each name holds, `answer` turns a query's
//! bytes into a reply's, `forward` asks others about names that are not ours, `server` carries it all over UDP and TCP.

pub mod zone; // what a name holds (pure)
pub mod answer; // a query's bytes to a reply's (pure)
pub mod allow; // who may ask (pure)
pub mod forward; // names that are not ours
pub mod metrics; // what is counted
mod datagram; // UDP, from the address that was asked
mod connection; // TCP, many queries at once
pub mod server; // both, on one port

#[cfg(test)]
mod tests;

pub use allow::Allow;
pub use forward::Upstreams;
pub use server::{DnsConfig, DnsError, DnsServer};
