//! How values are written by people, and how mistakes are told: each with file, key path, value and what would be right, all
//! of them at once.

pub mod duration; // 500ms, 1m30s
pub mod timestamp; // 2024-05-01T10:00:00Z
pub mod size; // 64KiB
pub mod percent; // 20%
pub mod problem; // a mistake, and the list of them
pub mod followed; // when a file is worth reading again
pub mod section; // one mapping of a YAML file, read key by key
pub mod suggest; // did you mean
