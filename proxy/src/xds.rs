//! The stream to a control plane, and its cache on disk: what the proxy is told, and what it was told last. The session logic
//! is [`mesh_xds::client`]; a proxy that restarts while its control plane is down serves from the cache, and when it comes
//! back only differences are sent, so nothing flaps. On a second stream the proxy tells back what it sent where, and whom it
//! took out.

mod cache; // last good resources on disk, atomically replaced
mod connect; // a channel to the control plane, by address or name
mod metrics; // how it goes
mod stream; // one stream after the other, for ever
mod ledger; // what is to be told back   (pure)
mod report; // load reports, on a stream of their own

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use mesh_core::model::resource::Resources;
use mesh_core::telemetry::build_info;
use mesh_xds::client::Session;
use mesh_xds::{load, metadata};
use tokio::sync::watch;

use cache::Cache;
use report::Reporter;
use stream::Outputs;

pub use metrics::Metrics;
pub use report::ClusterSource;

/// How to reach a control plane, and who we are to it.
#[derive(Debug, Clone)]
pub struct XdsConfig {
    /// `HOST:PORT`; the host is an address, `localhost` or a name.
    pub server: String,
    pub node_id: String,
    /// The whole node metadata: `{"mesh": {"bind_address": "127.0.0.1"}}`.
    pub metadata: serde_json::Value,
    /// Where the last good resources are kept; nowhere without it.
    pub cache_dir: Option<PathBuf>,
}

/// How it stands with the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XdsStatus {
    pub connected: bool,
    /// There are resources to serve from, be it out of the cache.
    pub published: bool,
    /// They came out of the cache, and the control plane has said nothing yet.
    pub from_cache: bool,
    /// What is referred to and has not come yet, in words.
    pub waiting_for: Vec<String>,
    /// Streams opened so far.
    pub streams: u64,
    /// Responses so far.
    pub responses: u64,
    /// Resources refused so far.
    pub refused: u64,
    /// Why the last stream ended or the last resource was refused.
    pub last_error: Option<String>,
}

/// The client of one control plane.
#[derive(Debug)]
pub struct XdsClient;

impl XdsClient {
    /// Loads the cache at once, so that the first value of the receiver is what was served last; before the very first answer of
    /// a control plane it is empty, and [`XdsStatus::published`] false. Nothing is dialled before the future runs; it never ends
    /// by itself.
    ///
    /// `file` is what the proxy's own file has, if there is one: its names are refused to the control plane.
    pub fn start(
        config: XdsConfig,
        metrics: Metrics,
        file: Option<watch::Receiver<Arc<Resources>>>,
    ) -> (watch::Receiver<Arc<Resources>>, watch::Receiver<XdsStatus>, impl Future<Output = ()> + Send + 'static) {
        let ours = config.metadata.get(metadata::KEY);
        let wants_capture = ours.and_then(|ours| ours.get("capture")).and_then(serde_json::Value::as_bool);
        let mut session = Session::new(wants_capture.unwrap_or(false));
        let cache = config.cache_dir.as_deref().map(|directory| Cache::new(directory, &config));
        if let Some(cache) = &cache {
            for error in session.restore(cache.load()) {
                tracing::warn!(%error, "a cached resource is left out");
            }
        }
        let published = session.published().cloned();
        let status =
            XdsStatus { published: published.is_some(), from_cache: published.is_some(), ..XdsStatus::default() };
        let (resources, receiver) = watch::channel(published.unwrap_or_default());
        let (status, status_receiver) = watch::channel(status);
        let client = stream::Client::new(config, session, cache, Outputs { resources, status, metrics });
        (receiver, status_receiver, client.beside(file).run())
    }

    /// Tells the control plane how `clusters` fare, for as long as the client of that `status` lives. A control plane that takes no
    /// load reports is asked again when the stream of resources was opened anew.
    pub fn report(
        config: XdsConfig,
        status: watch::Receiver<XdsStatus>,
        clusters: ClusterSource,
        metrics: Metrics,
    ) -> impl Future<Output = ()> + Send + 'static {
        Reporter::new(config, status, clusters, metrics).run()
    }
}

impl XdsConfig {
    /// Who we are, for the first message of every stream.
    fn node(&self) -> Node {
        Node {
            id: self.node_id.clone(),
            metadata: Some(metadata::to_struct(&self.metadata)),
            user_agent_name: "mesh-proxy".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(build_info::VERSION.to_owned())),
            client_features: vec![load::SENDS_ALL_CLUSTERS.to_owned()],
            ..Node::default()
        }
    }
}

#[cfg(test)]
mod tests;
