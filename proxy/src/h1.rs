//! HTTP/1.1 on the wire (RFC 9112), the same for both of its ends: heads read and written, where a message ends, chunks. Pure, but for
//! the two buffers that a connection reads through and writes through.
//!
//! What disagrees with the grammar is refused, never guessed: two ends of a connection that guess differently where a message ends
//! are a hole. The few liberties the RFC asks for are named where they are taken.

pub mod limits; // which limit a client reached
pub mod head; // a head, from bytes
mod field_line; // its field lines
pub mod target; // what a request line and Host may say
pub mod framing; // where a message ends
pub mod chunked; // chunks and trailers, from bytes
pub mod unread; // what is still to come of a body
pub mod write; // heads and chunks, to bytes
pub mod inbox; // what was read and not yet used
pub mod outbox; // what is to be written and was not yet taken
