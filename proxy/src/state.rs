//! Everything we were told, behind one swap. Whoever tells us (a file, xDS, DNS) fills the same resources; each change becomes
//! one immutable, numbered view, which carries the counters of what is still there over from the one before.

pub mod view; // the whole truth at one moment, and the swap
pub mod local; // a worker's own picture of it: balancers and series by cluster
