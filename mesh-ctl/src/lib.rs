//! The one tool a person needs: it talks to discovery's HTTP API, and runs discovery, controller and proxy in one process
//! for `dev` and `demo`.

pub mod args; // what a person types
pub mod client; // discovery's HTTP API, from here
pub mod ending; // how a person ends what runs
pub mod output; // table, json, yaml
pub mod command; // one module a command
pub mod embedded; // discovery, controller and node proxy in this process
pub mod demo; // the example shop, its traffic and its story
