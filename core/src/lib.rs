//! The words of the mesh: what a service, an endpoint and a policy are, how configuration is read, how the daemons log,
//! count, get ready and drain. No network here: every other crate speaks these words.

pub mod model; // what the mesh is made of
pub mod config; // how values are written by people, and how mistakes are told
pub mod telemetry; // log, metrics, build
pub mod task; // drain, readiness, back-off: the life of a task
pub mod compose; // what was asked for: the Compose file
