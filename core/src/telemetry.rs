//! How the daemons log and count, and what they say about themselves.

pub mod log; // human log on stderr
pub mod metrics; // registries, and text for a scrape
pub mod build_info; // name and version
