//! What the mesh is made of, from a name to the whole catalogue, and what of it a proxy is told.

pub mod names; // how things are called
pub mod protocol; // what is spoken on a port
pub mod endpoint; // one place that serves
pub mod service; // what is asked for by name
pub mod policy; // how calls to a service are treated
pub mod condition; // what is wrong with an object, in words
pub mod snapshot; // the whole catalogue, immutable and numbered
pub mod replicas; // what was asked for, what runs, and the plan between
pub mod forwarded; // what a listener tells services of who called
pub mod limits; // what an h2 client may make a listener do
pub mod resource; // what a proxy is told: listeners, routes, clusters, assignments, capture
pub mod reason; // why a request was refused: one vocabulary
