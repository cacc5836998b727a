//! The example shop, its traffic, and the story that is told about it.

pub mod shop; // the services: front end, api, payments
pub mod dial; // how a shop service calls the next one
pub mod traffic; // user requests at a steady rate, each answer checked
pub mod story; // what happens, told live
pub mod facts; // what has to be shown, and whether it was
