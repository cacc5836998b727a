//! Stage 10 of a request's walk: a connection to the chosen endpoint, reused or new, and the exchange on it.
//!
//! Each worker has its own pools. HTTP/1.1 connections are driven inline by the request that uses them, and lie in the pool
//! undriven; each h2 connection has one driver task, owned by the pool.

pub mod connect; // a socket to an address, as seen from somewhere
pub mod request_body; // what is sent, remembered as far as it may be sent again
pub mod h1; // an HTTP/1.1 connection, and the exchange on it
pub mod pool_h1; // those that wait for their next exchange
pub mod pool_h2; // many streams per connection
pub mod response_body; // what comes back, driving its connection
pub mod idle; // how long a body may be silent
