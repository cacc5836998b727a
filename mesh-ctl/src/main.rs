//! `mesh-ctl`: parse, run, and say what to do next when it fails.

use std::process::ExitCode;

use clap::Parser;
use mesh_ctl::args::Arguments;
use mesh_ctl::command;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command::run(arguments)),
        Err(error) => Err(anyhow::Error::new(error).context("the runtime cannot start")),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
