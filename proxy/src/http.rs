//! Stage 6 of a request's walk: HTTP as the client speaks it. Which authority is meant, which fields end here, how long a client
//! may take, and what it is told when it is refused.

pub mod client; // who calls, over which connection
pub mod asked; // a request, and what it comes to
pub mod headers; // authority, fields that end here   (pure)
pub mod upgrade; // what is to become another protocol   (pure)
pub mod forwarded; // who called, as services are told   (pure)
pub mod date; // when a response was made
pub mod refuse; // a refusal, as a response
pub mod timer; // one timer for a whole connection
pub mod server_h1; // HTTP/1.1 on one connection, with its timeouts
pub mod server_h2; // h2 on one connection, with its timeouts
pub mod grpc; // outcomes as gRPC tells them   (pure)
pub mod access_log; // one line per request or connection
