//! Discovery, the controller and a node proxy in this process, joined by the same wires as between processes: the proxy hears
//! from discovery by xDS over loopback, and commands speak to its HTTP API.

pub mod engine; // is there a Docker engine, and what of it may be used

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mesh_core::task::drain::{self, Drainer};
use mesh_discovery::config::{Config, State};
use mesh_discovery::provider::docker::DockerProviderConfig;
use mesh_discovery::runtime::process::ProcessSettings;
use mesh_proxy::ambient::CaptureOptions;
use mesh_proxy::app::{App as Proxy, Options as ProxyOptions};
use mesh_proxy::sources::Sources;
use mesh_proxy::xds::XdsConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;

/// How long requests under way may take when the mesh ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

const API_PORT: u16 = 14000;
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
    /// Where virtual IPs come from; none: the default range.
    pub virtual_ip_range: Option<ipnet::IpNet>,
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
        let (state_dir, capture) = (parts.state_dir.clone(), parts.capture.clone());
        let http_proxy = free_near(0).await?;
        let config = discovery_config(parts).await?;
        let app = mesh_discovery::app::App::bind(config, &[], drain).await.context("discovery cannot start")?;
        let addresses = app.addresses();
        if let Some(processes) = app.process_runtime() {
            processes.set_http_proxy(Some(http_proxy));
        }
        let discovery = tokio::spawn(async move { Ok(app.run().await?) });

        let control = XdsConfig {
            server: addresses.xds.to_string(),
            node_id: "mesh-ctl".to_owned(),
            metadata: json!({ "mesh": { "http_proxy": http_proxy.to_string(), "capture": capture.is_some() } }),
            cache_dir: Some(state_dir.join("proxy")),
        };
        let (proxy_end, proxy, admin_address) = start_proxy(control, capture).await?;
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

async fn discovery_config(parts: Parts) -> anyhow::Result<Config> {
    let defaults = Config::ephemeral();
    Ok(Config {
        docker: parts.docker,
        process: parts.processes.then(|| ProcessSettings::new(&parts.state_dir)),
        file: parts.file,
        state: State::Folder(parts.state_dir),
        api_listen: free_near(API_PORT).await?,
        xds_listen: free_near(XDS_PORT).await?,
        dns_listen: free_near(DNS_PORT).await?,
        vip_range: parts.virtual_ip_range.unwrap_or(defaults.vip_range),
        ..defaults
    })
}

async fn start_proxy(
    control: XdsConfig,
    capture: Option<CaptureOptions>,
) -> anyhow::Result<(oneshot::Sender<()>, JoinHandle<()>, SocketAddr)> {
    let sources = Sources { file: None, control: Some(control) };
    let readiness = mesh_core::task::ready::Readiness::default();
    let mut told = sources.start(&readiness).context("the proxy cannot start")?;
    let options = ProxyOptions {
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        admin: Some(free_near(ADMIN_PORT).await?),
        access_log: None,
        drain_timeout: DRAIN_TIMEOUT,
        readiness,
        capture,
        required: Some(std::collections::BTreeSet::new()),
    };
    let app = Proxy::bind(options, told.resources.clone()).await.context("the proxy cannot start")?;
    let admin_address = app.admin_address().context("the proxy has no admin address")?;
    told.tell_back(app.view(), app.registry()).context("the proxy cannot start")?;
    let (end, ended) = oneshot::channel();
    let proxy = tokio::spawn(async move {
        app.run(async move { drop(ended.await) }).await;
        drop(told);
    });
    Ok((end, proxy, admin_address))
}

/// The port if it is free, else any that is. It is free for an instant only: whoever binds it may still fail.
async fn free_near(port: u16) -> anyhow::Result<SocketAddr> {
    for candidate in [port, 0] {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).await {
            return listener.local_addr().context("a listener without an address");
        }
    }
    anyhow::bail!("no port of 127.0.0.1 can be listened on")
}
