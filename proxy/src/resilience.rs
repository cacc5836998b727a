//! Stage 8 of a request's walk: how long it may take, whether it may be tried again, how much may be under way at once, and
//! which endpoints are out. Rules only: inputs and `now` in, verdicts out; state is the atomics of [`crate::endpoint`].

pub mod timeout; // until when each part must have happened
pub mod retry; // whether a failed try is tried again
pub mod budget; // how many retries the whole process may make
pub mod breaker; // how much may be under way at once
pub mod places; // one worker's connections, and who waits for one
pub mod line; // in which order
pub mod outlier; // which endpoints are taken out, and for how long
