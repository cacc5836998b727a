//! `mesh-proxy`: flags, configuration, the app, a signal, a drain.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use mesh_core::model::resource::Listener;
use mesh_core::task::ready::Readiness;
use mesh_core::telemetry::log;
use mesh_core::tell;
use mesh_proxy::ambient::CaptureOptions;
use mesh_proxy::app::{App, Options};
use mesh_proxy::config::flags::{Flags, HostPort, Mode};
use mesh_proxy::config::{self, Config};
use mesh_proxy::error::chain;
use mesh_proxy::identity::held;
use mesh_proxy::sources::Sources;
use mesh_proxy::xds::XdsConfig;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let flags = Flags::of_process();
    log::init("info");
    match start(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("mesh-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> anyhow::Result<()> {
    let config = match &flags.config {
        Some(path) => config::load(path).map_err(|problems| anyhow::anyhow!("{problems}"))?,
        None => Config::default(),
    };
    if flags.check {
        check_certificates(&config)?;
        let path = flags.config.as_ref().map_or("-".into(), |path| path.display().to_string());
        // Whoever does not read it sees the exit code.
        let _ = writeln!(std::io::stdout(), "{path}: ok");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(run(flags, config))
}

/// Every listener whose certificates, keys and authorities make no TLS server.
fn check_certificates(config: &Config) -> anyhow::Result<()> {
    let of = |(name, listener): (&Arc<str>, &Arc<Listener>)| {
        let error = held::load(listener.tls.as_ref()?, false).err()?;
        Some(format!("listener {name}: tls: {}", chain(&error)))
    };
    let wrong: Vec<String> = config.resources.listeners.iter().filter_map(of).collect();
    if wrong.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("{}", wrong.join("\n"))) }
}

async fn run(flags: &Flags, file: Config) -> anyhow::Result<()> {
    // Who has no file to read again is not ended by it: whoever reloads all proxies of a host sends it to this one as well.
    let _hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be listened to")?;
    let readiness = Readiness::default();
    let config = flags.over(file.clone());
    let sources = Sources {
        // What the file itself says: a flag is no change of it.
        file: flags.config.clone().map(|path| (path, file)),
        control: flags.xds.as_ref().map(|server| control_plane(flags, server, &config)),
    };
    let mut told = sources.start(&readiness)?;
    let options = Options {
        workers: config.workers,
        admin: Some(config.admin),
        access_log: config.access_log.then(|| Box::new(std::io::stdout()) as _),
        drain_timeout: flags.drain_timeout,
        readiness,
        capture: capture(flags.mode()),
        // What a control plane asks for may be taken on this host; what the file says was written for it.
        required: Some(config.resources.listeners.keys().cloned().collect()),
        bound: Vec::new(),
    };
    let app = App::bind(options, told.resources.clone()).await?;
    for (name, address) in app.addresses() {
        tracing::info!(listener = %name, %address, "listening");
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(%address, "admin and metrics");
    }
    told.tell_back(app.view(), app.registry())?;
    let drained = app.run(told_to_end()?).await;
    drop(told);
    tracing::info!(?drained, "ended");
    Ok(())
}

/// Whose connections are captured.
fn capture(mode: Mode) -> Option<CaptureOptions> {
    match mode {
        Mode::Bind(_) => None,
        // Any container that appears may turn out to be meshed.
        Mode::Capture => Some(CaptureOptions::docker(true)),
        Mode::Sidecar => Some(CaptureOptions::sidecar()),
    }
}

/// How to reach the control plane, and what to ask it for.
fn control_plane(flags: &Flags, server: &HostPort, file: &Config) -> XdsConfig {
    let host_name = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut ours = match flags.mode() {
        Mode::Bind(address) => json!({ "bind_address": address, "virtual_ips": true }),
        Mode::Capture | Mode::Sidecar => json!({ "capture": true }),
    };
    if let Some(address) = flags.http_proxy(file) {
        ours["http_proxy"] = address.to_string().into();
    }
    XdsConfig {
        server: server.to_string(),
        node_id: flags.node_id.clone().unwrap_or_else(host_name),
        metadata: json!({ "mesh": ours }),
        cache_dir: flags.state_dir.clone(),
    }
}

/// SIGTERM, or Ctrl-C.
fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
    })
}

/// Many small pieces, taken and given back in any order by one thread: that is what it is best at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
