//! Discovery, the controller and a node proxy in this process, joined by the same wires as between processes: the proxy hears
//! from discovery by xDS over loopback, and commands speak to its HTTP API.

pub mod engine; // is there a Docker engine, and what of it may be used

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mesh_core::model::names::DEFAULT_HTTP_PROXY_PORT;
use mesh_core::task::drain::{self, Drain, Drainer};
use mesh_discovery::app::{App as Discovery, AppError};
use mesh_discovery::config::check::LOOPBACK_VIP_RANGE;
use mesh_discovery::config::{Config, State};
use mesh_discovery::provider::docker::DockerProviderConfig;
use mesh_discovery::runtime::process::ProcessSettings;
use mesh_proxy::ambient::CaptureOptions;
use mesh_proxy::app::{App as Proxy, AppError as ProxyError, Options as ProxyOptions};
use mesh_proxy::sources::Sources;
use mesh_proxy::xds::XdsConfig;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;

/// How long requests under way may take when the mesh ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where commands look for the API.
pub const API_PORT: u16 = 14000;
const XDS_PORT: u16 = 14010;
const DNS_PORT: u16 = 14053;
const ADMIN_PORT: u16 = 14020;

/// What the mesh is to be made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub state_dir: PathBuf,
    /// None: no engine.
    pub docker: Option<DockerProviderConfig>,
    /// Whether processes of this host may be started.
    pub processes: bool,
    /// Services from a file.
    pub file: Option<PathBuf>,
    /// Whether the proxy may listen on virtual IPs, which are loopback addresses where there is no engine.
    pub virtual_ips: bool,
    /// Whose connections are captured; none: nobody's.
    pub capture: Option<CaptureOptions>,
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// Discovery's API.
    pub api: Client,
    pub api_address: SocketAddr,
    pub dns_address: SocketAddr,
    /// The proxy's admin API.
    pub admin: Client,
    pub admin_address: SocketAddr,
    /// Where the proxy serves clients that know it as their HTTP proxy.
    pub http_proxy: SocketAddr,
    drainer: Drainer,
    discovery: JoinHandle<anyhow::Result<()>>,
    proxy_end: oneshot::Sender<()>,
    proxy: JoinHandle<()>,
}

impl Mesh {
    /// Starts every part; default ports are used where they are free.
    ///
    /// # Errors
    /// When the state folder is another's, or no port can be had.
    pub async fn start(parts: Parts) -> anyhow::Result<Self> {
        let (drainer, drain) = drain::channel();
        let (state_dir, capture, virtual_ips) = (parts.state_dir.clone(), parts.capture.clone(), parts.virtual_ips);
        let app = start_discovery(parts, &drain).await?;
        let addresses = app.addresses();
        let processes = app.process_runtime();
        // Processes of an earlier run go on calling where it was then.
        let before = processes.as_ref().map(|processes| processes.http_proxy().address());
        let listener = listen_near(before.map_or(DEFAULT_HTTP_PROXY_PORT, |before| before.port()))?;
        let http_proxy = listener.local_addr().context("a listener without an address")?;
        if let Some(processes) = processes {
            processes.set_http_proxy(Some(http_proxy));
        }
        let discovery = tokio::spawn(async move { Ok(app.run().await?) });

        let control = XdsConfig {
            server: addresses.xds.to_string(),
            node_id: "mesh-ctl".to_owned(),
            metadata: json!({ "mesh": {
                "http_proxy": http_proxy.to_string(), "capture": capture.is_some(), "virtual_ips": virtual_ips,
            } }),
            cache_dir: Some(state_dir.join("proxy")),
        };
        let (proxy_end, proxy, admin_address) = start_proxy(control, capture, listener).await?;
        Ok(Self {
            api: Client::at(addresses.api),
            api_address: addresses.api,
            dns_address: addresses.dns,
            admin: Client::at(admin_address),
            admin_address,
            http_proxy,
            drainer,
            discovery,
            proxy_end,
            proxy,
        })
    }

    /// Whether a part has ended by itself, which none should.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.discovery.is_finished() || self.proxy.is_finished()
    }

    /// Lets requests under way finish, then ends every part.
    ///
    /// # Errors
    /// When a part had failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        // A proxy that is gone already cannot be told.
        let _ = self.proxy_end.send(());
        self.proxy.await.context("the proxy panicked")?;
        self.drainer.start();
        self.discovery.await.context("discovery panicked")?
    }
}

/// Discovery on its default ports. Each that is taken is another's, by look or by a race that was lost: then any free one.
async fn start_discovery(parts: Parts, drain: &Drain) -> anyhow::Result<Discovery> {
    let defaults = Config::ephemeral();
    let range = if parts.docker.is_none() { LOOPBACK_VIP_RANGE.parse()? } else { defaults.vip_range };
    let config = Config {
        docker: parts.docker,
        process: parts.processes.then(|| ProcessSettings::new(&parts.state_dir)),
        file: parts.file,
        state: State::Folder(parts.state_dir),
        vip_range: range,
        ..defaults
    };
    let on_defaults = Config {
        api_listen: free_or_any(API_PORT),
        xds_listen: free_or_any(XDS_PORT),
        dns_listen: free_or_any(DNS_PORT),
        ..config.clone()
    };
    match Discovery::bind(on_defaults, &[], drain.clone()).await {
        // Any free port is what `config` says.
        Err(AppError::Bind { .. } | AppError::Xds(_) | AppError::Dns(_)) => {
            Discovery::bind(config, &[], drain.clone()).await.context("discovery cannot start")
        }
        outcome => outcome.context("discovery cannot start"),
    }
}

async fn start_proxy(
    control: XdsConfig,
    capture: Option<CaptureOptions>,
    http_proxy: TcpListener,
) -> anyhow::Result<(oneshot::Sender<()>, JoinHandle<()>, SocketAddr)> {
    let sources = Sources { file: None, control: Some(control) };
    let readiness = mesh_core::task::ready::Readiness::default();
    let mut told = sources.start(&readiness).context("the proxy cannot start")?;
    let options = |admin, bound| ProxyOptions {
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        admin: Some(admin),
        access_log: None,
        drain_timeout: DRAIN_TIMEOUT,
        readiness: readiness.clone(),
        capture: capture.clone(),
        // A virtual IP's port may be somebody's; the others are carried all the same.
        required: Some(BTreeSet::new()),
        bound,
    };
    let again = http_proxy.try_clone().context("a socket cannot be kept")?;
    let app = match Proxy::bind(options(free_or_any(ADMIN_PORT), vec![http_proxy]), told.resources.clone()).await {
        Err(ProxyError::Admin { .. }) => {
            Proxy::bind(options(free_or_any(0), vec![again]), told.resources.clone()).await
        }
        outcome => outcome,
    };
    let app = app.context("the proxy cannot start")?;
    let admin_address = app.admin_address().context("the proxy has no admin address")?;
    told.tell_back(app.view(), app.registry()).context("the proxy cannot start")?;
    let (end, ended) = oneshot::channel();
    let proxy = tokio::spawn(async move {
        app.run(async move { drop(ended.await) }).await;
        drop(told);
    });
    Ok((end, proxy, admin_address))
}

/// The port if it is free at this moment, else 0, which is any. Whoever binds it may still find it taken.
fn free_or_any(port: u16) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(address).is_ok() { address } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// Listens on the port, or on any where it is taken.
fn listen_near(port: u16) -> anyhow::Result<TcpListener> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    listen(port).or_else(|_| listen(0)).context("no port of 127.0.0.1 can be listened on")
}
