//! Step 5a of a container event: the snapshot is published to proxies, to Envoy and to gRPC's own clients, over xDS v3. Each
//! client gets the resources that its node metadata asks for; the session logic is [`mesh_xds::server`]. On the same port they tell back
//! whom they took out.

pub mod node; // what a client asks for, by its node metadata   (pure)
pub mod resources; // a snapshot as one kind of client gets it   (pure)
pub mod cache; // built once per snapshot and kind of client
pub mod clients; // who is connected, and what they acknowledged
pub mod metrics; // streams, responses, rejections
pub mod stream; // one client's stream
pub mod reporters; // whom each proxy has out now   (pure)
pub mod load; // what proxies tell back
pub mod server; // the listener, and both variants of the protocol

pub use clients::Clients;
pub use metrics::Metrics;
pub use reporters::{Ejected, EjectionSink};
pub use resources::{Settings, port_conflicts};
pub use server::{XdsError, XdsServer};
