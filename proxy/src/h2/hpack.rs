//! HPACK (RFC 7541): fields, compressed over the life of a connection.
//!
//! What an entry of the table means (which pseudo-header or field it is, and whether it may stand in a message at all) is told once,
//! when it enters the table. A head that repeats on a connection is then a few copies.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod decoder; // from the wire
pub mod encoder; // onto the wire
pub mod huffman; // the code of strings
pub mod table; // what both ends remember

#[cfg(test)]
mod tests;

use thiserror::Error;

/// A header block that cannot be read. Nothing that follows on the connection could be (RFC 9113 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HpackError {
    #[error("a header block ends within a field")]
    Truncated,
    #[error("a number in a header block is too large")]
    IntegerOverflow,
    #[error("a header block points at entry {index} of the table, which is not there")]
    UnknownIndex { index: usize },
    #[error("a header block makes the table {bytes} bytes large; {bytes_max} were allowed")]
    TableTooLarge { bytes: usize, bytes_max: usize },
    #[error("a header block changes the size of the table behind its first field")]
    LateTableSize,
    #[error("a Huffman-coded string has wrong padding")]
    HuffmanPadding,
    #[error("a Huffman-coded string has the end-of-string symbol")]
    HuffmanEndOfString,
}
