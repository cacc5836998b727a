//! One module a command. Each prints what a person asked for, and returns the exit code.

pub mod demo; // the mesh at work
pub mod dev; // the mesh in one process, on a real engine
pub mod project; // up, down, scale, ps, plan: what should run
pub mod get; // services, endpoints, conditions
pub mod why; // how a call is resolved
pub mod check; // what this machine offers
pub mod cleanup; // remove all that Weft made
pub mod version; // client and server

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Arguments, Command};
use crate::client::Client;
use crate::demo::shop;
use crate::output;

/// Runs what was typed.
///
/// # Errors
/// What failed, and what to do next.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { command, global } = arguments;
    let client = || Client::new(&global.server);
    match command {
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Up(arguments) => project::up(&client()?, global.output, arguments).await,
        Command::Down(arguments) => project::down(&client()?, arguments).await,
        Command::Scale(arguments) => project::scale(&client()?, arguments).await,
        Command::Ps(arguments) => project::ps(&client()?, global.output, arguments).await,
        Command::Plan(arguments) => project::plan(&client()?, global.output, arguments).await,
        Command::Get(arguments) => get::run(&client()?, global.output, arguments).await,
        Command::Why(arguments) => why::run(&client()?, global.output, arguments).await,
        Command::Check(arguments) => check::run(global.output, arguments).await,
        Command::Cleanup(arguments) => cleanup::run(arguments).await,
        Command::Version => version::run(&client()?, global.output).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "mesh-ctl", &mut script);
            output::write_bytes(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ShopService(arguments) => shop::serve(arguments).await,
    }
}
