//! `mesh-ctl dev`: discovery, controller and node proxy in one process, until Ctrl-C.

use std::process::ExitCode;

use anyhow::Context;
use mesh_core::telemetry::log;
use mesh_core::tell;
use mesh_discovery::config::{Environment, default_state_dir};
use mesh_discovery::provider::docker::DockerProviderConfig;
use mesh_proxy::ambient::{CaptureOptions, Own};

use crate::args::DevArguments;
use crate::embedded::{API_PORT, Mesh, Parts, engine};
use crate::ending;

/// # Errors
/// When the state folder is another's, an address is taken, or a part breaks off.
pub async fn run(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    log::init("info");
    let state_dir = match arguments.state_dir {
        Some(folder) => folder,
        None => default_state_dir(&Environment::of_process()).context("--state-dir says where state is kept")?,
    };
    let url = engine::choose(arguments.docker.as_deref()).map_err(|reason| anyhow::anyhow!("--docker: {reason}"))?;
    let docker =
        url.map(|url| DockerProviderConfig { url, exposed_by_default: arguments.exposed_by_default, only_label: None });
    // Without an engine virtual IPs are addresses of this host, and the proxy listens there: nothing has to be captured.
    let virtual_ips = docker.is_none() && !arguments.no_host;
    let capture = capture(docker.is_some(), docker.is_some() && !arguments.no_host).await;
    let parts =
        Parts { state_dir, docker, processes: true, file: arguments.file, virtual_ips, capture: capture.clone() };
    let mesh = Mesh::start(parts).await?;
    tell!("API http://{}, DNS {}, proxy http://{}", mesh.api_address, mesh.dns_address, mesh.admin_address);
    if mesh.api_address.port() != API_PORT {
        let server = mesh.api_address;
        tell!("Port {API_PORT} is taken: other commands need --server http://{server}, or MESH_SERVER=http://{server}");
    }
    if virtual_ips {
        tell!("this host reaches virtual IPs");
    }
    if let Some(capture) = capture {
        let containers = capture.containers.map(|_| "calls of meshed containers to each other are captured");
        let host = capture.own.map(|_| "this host reaches virtual IPs");
        tell!("{}", [containers, host].into_iter().flatten().collect::<Vec<_>>().join("; "));
    }
    tell!("HTTP clients reach services by name with http_proxy=http://{}; Ctrl-C ends it", mesh.http_proxy);
    ending::wanted().await;
    mesh.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// What is captured: the calls of containers, and those of this host to virtual IPs. Without the right to, nothing is, and the
/// mesh is still of use to who asks for it by name.
async fn capture(containers: bool, host: bool) -> Option<CaptureOptions> {
    if !containers && !host {
        return None;
    }
    if let Some(reason) = engine::cannot_capture().await {
        tell!("Nothing is captured: {reason}. Run as root; `mesh-ctl check` says what else is missing.");
        return None;
    }
    let own = host.then_some(Own::Host);
    // Any container that appears may turn out to be meshed.
    Some(if containers {
        CaptureOptions { own, ..CaptureOptions::docker(true) }
    } else {
        CaptureOptions { own, ..CaptureOptions::default() }
    })
}
