//! Stage 2 of a request's walk: which protocol is it, told from the client's first bytes.

pub mod verdict; // bytes in, protocol out   (pure)
pub mod peek; // the first bytes, for so long at most
