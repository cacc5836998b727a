//! `mesh-discovery`: parse, start, wait for a signal, drain.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_core::task::drain;
use mesh_core::telemetry::log;
use mesh_core::tell;
use mesh_discovery::app::App;
use mesh_discovery::config::{Config, Environment, Flags};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    log::init("info");
    let config = match Config::from_flags(&Flags::parse(), &Environment::of_process()) {
        Ok(config) => config,
        Err(problems) => {
            tell!("{problems}\nmesh-discovery --help tells of every flag");
            return ExitCode::from(2);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("mesh-discovery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    // First of all: a signal that comes while we start ends us in order, too.
    let mut signals = StopSignals::listen()?;
    let (drainer, drain) = drain::channel();
    let app = App::bind(config, &[], drain).await?;
    let mut running = tokio::spawn(app.run());
    tokio::select! {
        ended = &mut running => return Ok(ended.context("discovery panicked")??),
        signal = signals.next() => tracing::info!(signal, "draining; once more ends at once"),
    }
    drainer.start();
    tokio::select! {
        ended = &mut running => Ok(ended.context("discovery panicked")??),
        signal = signals.next() => anyhow::bail!("ended by a second {signal}"),
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Listened to so that it does not end us: there is nothing to read again, the file is looked at all the time.
    _hangup: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            _hangup: handler(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
