//! `mesh-ctl`: parse, run, and say what to do next when it fails.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_core::tell;
use mesh_ctl::args::{Arguments, Command, DemoArguments};
use mesh_ctl::command;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            tell!("mesh-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Demo(DemoArguments { inside: true, .. }) = &arguments.command {
        // Before there is a second thread.
        command::demo::container::enter_host()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("the runtime cannot start")?.block_on(command::run(arguments))
}
