//! The control plane of one host: the walk of a container event, in the order of the modules.

// Each part adds its line when it is there; keep this order.
pub mod app; // wires every part, in story order
pub mod config; // flags and environment, checked
pub mod provider; // 1  who says what runs: the engine, a file, the processes we started
pub mod health; // 2  does it accept yet
pub mod registry; // 3  everything merged into the next numbered snapshot
pub mod store; // 4  what must survive a restart
pub mod xds; // 5a published to proxies
pub mod dns; // 5b published to resolvers
pub mod controller; // 6  compared with what was asked for: observe, plan, execute
pub mod runtime; // what execute acts through: the engine, or local processes
pub mod admin; // HTTP API, ready, metrics
