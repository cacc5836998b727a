//! Stage 6' of a request's walk: bytes, where nothing is known about what they mean.

pub mod forward; // both ways, until both are done
