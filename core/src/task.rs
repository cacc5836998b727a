//! The life of a task: how long it waits before it tries again, when it counts as ready, and how it ends.

pub mod backoff; // how long until the next try
pub mod ready; // a guard held while not ready
pub mod drain; // a signal to end, and waiting for the last one
