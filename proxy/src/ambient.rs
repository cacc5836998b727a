//! Stage 0, the composer: whose connections are captured, in which network namespaces, and by which workers they are carried.
//!
//! A namespace appears ([`crate::intercept::watch`]), or the map that discovery sends names one → [`plan`] says what should hold in
//! each → one task per namespace opens the capture, hands its listeners to the workers, keeps its addresses up to date, renews
//! its rules, and gives it back in the end.
//!
//! A namespace is known by its inode: captured once, however many containers share it, and never the host's own (but for
//! [`Own::Host`], and then its virtual IPs alone). With [`Containers::early`] one that just appeared is captured before anybody
//! has said whose it is, since the engine's own news of a container come after the application's first act; when nobody names
//! it for [`EARLY_MAX`], it is given back. Without, only what the map names is ever entered.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::resource::Resources;
use mesh_core::task::drain::{self, Drainer};
use mesh_core::task::ready::Readiness;
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::Handle;
use crate::intercept::capture::CaptureConfig;
use crate::intercept::netns::{NamespaceError, NetworkNamespace};
use crate::intercept::watch::{NamespaceWatch, WatchError, docker_folder};

mod supervisor; // what holds is brought to what should hold
mod gate; // which endpoints wait until their own calls are captured (pure)
mod interfaces; // which addresses has the namespace we live in, and is it the host's
mod metrics; // how capturing goes
mod namespace; // one namespace, from its capture until it is given back
mod origin; // upstream connections from within it
pub mod plan; // what should hold where (pure)

use metrics::Metrics;
use supervisor::{Parts, Supervisor};

/// How long a namespace that nobody has named is captured.
pub const EARLY_MAX: Duration = Duration::from_secs(5);

/// How long giving back may take when the proxy ends. Each namespace takes some tens of milliseconds.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Which connections are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Those of containers on this host.
    pub containers: Option<Containers>,
    /// Those of the namespace that this process lives in.
    pub own: Option<Own>,
    /// The port of our listeners on loopback inside a namespace; another is taken where an application has it.
    pub port: u16,
    /// How long rules hold when this process hangs.
    pub alive_timeout: Duration,
}

/// How the namespaces of containers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containers {
    /// Where the engine keeps their files.
    pub folder: PathBuf,
    /// Capture one as soon as it appears, before anybody has said whose it is.
    pub early: bool,
}

/// What our own namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Shared with an application, whose calls are captured.
    Sidecar,
    /// The host's: virtual IPs alone are captured.
    Host,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        let CaptureConfig { port, alive_timeout, .. } = CaptureConfig::default();
        Self { containers: None, own: None, port, alive_timeout }
    }
}

impl CaptureOptions {
    /// Containers of the Docker engine on this host.
    #[must_use]
    pub fn docker(early: bool) -> Self {
        let containers = Containers { folder: docker_folder(), early };
        Self { containers: Some(containers), ..Self::default() }
    }

    /// The application beside this process.
    #[must_use]
    pub fn sidecar() -> Self {
        Self { own: Some(Own::Sidecar), ..Self::default() }
    }
}

/// Why nothing can be captured at all.
#[derive(Debug, Error)]
pub enum AmbientError {
    #[error("the folder of network namespaces cannot be watched")]
    Watch { source: WatchError },
    #[error("the network namespace of this process cannot be opened")]
    OwnNamespace { source: NamespaceError },
    #[error("the interfaces of this network namespace cannot be read")]
    Interfaces { source: io::Error },
    #[error(
        "a sidecar captures the namespace it shares with one application, but this one is the host's own ({sign}): give the \
         proxy's container a network of its own, or run it with --capture for all containers of the host"
    )]
    SidecarOnHost { sign: String },
    #[error("metrics cannot be registered")]
    Metrics { source: prometheus::Error },
}

/// All captures of a proxy.
pub struct Ambient {
    /// Its holders are the namespaces that are redirected.
    redirecting: Option<Drainer>,
    supervisor: JoinHandle<()>,
}

impl Ambient {
    /// Starts capturing what the options say, as the resources say it, for as long as this is held. What comes back beside it are
    /// the resources as requests should see them.
    ///
    /// # Errors
    /// See [`AmbientError`]. That one namespace cannot be captured is none: it is told, counted, and tried again.
    pub fn start(
        options: CaptureOptions,
        workers: Handle,
        resources: watch::Receiver<Arc<Resources>>,
        registry: &Registry,
        readiness: &Readiness,
    ) -> Result<(Self, watch::Receiver<Arc<Resources>>), AmbientError> {
        let metrics = Metrics::register(registry).map_err(|source| AmbientError::Metrics { source })?;
        let folder = options.containers.as_ref().map(|containers| NamespaceWatch::open(&containers.folder));
        let folder = folder.transpose().map_err(|source| AmbientError::Watch { source })?;
        if options.own == Some(Own::Sidecar)
            && let Some(sign) = interfaces::sign_of_host().map_err(|source| AmbientError::Interfaces { source })?
        {
            return Err(AmbientError::SidecarOnHost { sign });
        }
        let own = NetworkNamespace::own().map_err(|source| AmbientError::OwnNamespace { source })?;
        let (drainer, redirecting) = drain::channel();
        let parts = Parts { options, workers, resources, folder, metrics: Arc::new(metrics) };
        let (supervisor, seen) = Supervisor::new(own.id(), parts, readiness.hold("capture"));
        let supervisor = tokio::spawn(supervisor.run(redirecting));
        Ok((Self { redirecting: Some(drainer), supervisor }, seen))
    }

    /// Stops redirecting everywhere: new connections to endpoints are direct, those to virtual IPs refused. Connections that
    /// were redirected go on.
    pub async fn release(&mut self) {
        if let Some(redirecting) = self.redirecting.take() {
            // The kernel ends it by itself when this takes too long.
            let _ = tokio::time::timeout(FINISH_MAX, redirecting.drain()).await;
        }
    }

    /// Waits until every namespace is as it was, once its last connection has ended.
    pub async fn finish(mut self) {
        if tokio::time::timeout(FINISH_MAX, &mut self.supervisor).await.is_err() {
            tracing::warn!("some namespaces could not be given back in time; virtual IPs are refused there");
        }
    }
}

impl Drop for Ambient {
    fn drop(&mut self) {
        // Ends every capture: a dropped capture is a released one.
        self.supervisor.abort();
    }
}
