//! Stage 6 of a request's walk: HTTP as the client speaks it. hyper reads and writes the messages; here is what a proxy has to
//! add: which authority is meant, which fields end here, how long a client may take, and what it is told when it is refused.

pub mod client; // who calls, over which connection
pub mod headers; // authority, fields that end here, fields that are added   (pure)
pub mod refuse; // a refusal, as a response
pub mod server; // HTTP/1.1 and h2 on one connection, with its timeouts
pub mod grpc; // outcomes as gRPC tells them   (pure)
pub mod access_log; // one line per request or connection
