//! h2 on the wire (RFC 9113, 7541, 8441), both roles: a state machine without input and output of its own.
//!
//! Bytes and `now` go in, bytes and messages come out; nothing here waits, locks or is shared. Whoever drives a [`Connection`] feeds it
//! what was read, tells it what to send, and writes what is in its output: many streams' frames in one write.
//!
//! The last four modules are the shell around that: a task that drives a connection on a socket, and handles of its streams for other
//! tasks of the same thread.
//!
//! Priorities (RFC 9218) are not acted on: streams that have something to send take turns.

pub mod frame; // what stands on the wire
pub mod hpack; // fields, compressed
pub mod error; // how it ends
pub mod limits; // what one peer may make us do
pub mod settings; // what each end says of itself
pub mod head; // from field lines to messages, checked
mod streams; // what is known of each stream
pub mod output; // what is to be written
pub mod connection; // one connection
mod endings; // how its streams end
mod receive; // frames of the peer
mod blocks; // its header blocks
mod windows; // what it may send, and we
mod send; // frames of ours
pub mod link; // shell: a connection, and who reads and writes its streams
pub mod drive; // shell: a connection on a socket
pub mod exchange; // shell: messages, as bodies are read and written
pub mod duplex; // shell: a stream that carries another protocol

#[cfg(test)]
mod tests;

pub use connection::{Connection, Event, Refused};
pub use drive::{Driver, Ended};
pub use duplex::Duplex;
pub use error::{ConnectionError, Reset, ResetBy, SendError};
pub use exchange::{Exchange, Sending, StreamBody};
pub use frame::Code;
pub use head::HeadError;
pub use limits::{Limit, Limits};
pub use link::{Link, Stream};
pub use settings::Settings;
pub use streams::{Received, StreamKey};
