//! The data plane: the walk of a request, in the order of the modules.

// Each part adds its line when it is there; keep this order.
pub mod app; // wires every part, in story order
pub mod config; // the proxy's own file and flags, checked
pub mod error; // what can go wrong with a request, and whose fault it is
pub mod message; // heads, fields, frames: HTTP without its versions
pub mod h1; // HTTP/1.1 on the wire   (pure)
pub mod h2; // h2 on the wire          (pure)
pub mod endpoint; // a live endpoint: counters and state
pub mod metrics; // what is counted, per worker
pub mod intercept; // 0  traffic is brought to us
pub mod ambient; // 0' composer: whose connections, in which namespaces
pub mod listen; // 1  a connection arrives
pub mod detect; // 2  which protocol is it
pub mod identity; // 3  TLS: who are we, who are they
pub mod inbound; // 4  composer: accept, detect, TLS, then http or tcp
pub mod outbound; // 4' composer: route, resilience, balance, upstream
pub mod http; // 6  requests
pub mod tcp; // 6' bytes
pub mod route; // 7  which cluster
pub mod resilience; // 8  timeout, retry, breaker, outlier
pub mod balance; // 9  which endpoint
pub mod upstream; // 10 connect or reuse
pub mod state; // everything we were told, behind one swap
pub mod dns; // SRV clusters
pub mod xds; // the stream to a control plane, and its cache on disk
pub mod sources; // composer: a file, a control plane, or both
pub mod admin; // ready, metrics, dump
