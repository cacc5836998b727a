//! A connection that is no HTTP: an endpoint, a connection to it, tried elsewhere when it does not come about; then bytes both
//! ways.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::RetryOn;

use super::attempt::{connection_permit, dial};
use super::record::Record;
use super::retry::pick;
use super::{Worker, acquire};
use crate::error::{ProxyError, chain};
use crate::http::client::Client;
use crate::listen::stream::ClientStream;
use crate::metrics::Spoken;
use crate::resilience::breaker::Limit;
use crate::resilience::outlier::Outcome;
use crate::resilience::timeout::Deadlines;
use crate::state::local::LocalCluster;
use crate::tcp::forward;
use crate::upstream::connect::Origin;

/// Carries one connection to its end. A refusal closes it with a reset: there is no other way to tell.
pub async fn carry(worker: Rc<Worker>, client: Rc<Client>, origin: Origin, stream: ClientStream) {
    let mut record = Record::begin(&worker, &client, &origin, Spoken::Tcp, Instant::now());
    if let Err(error) = run(&worker, &client, &origin, stream, &mut record).await {
        tracing::debug!(client = %client.peer, error = %chain(&error), "a raw connection was refused");
        record.refused(&error);
    }
}

async fn run(
    worker: &Rc<Worker>,
    client: &Client,
    origin: &Origin,
    stream: ClientStream,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let flags = stream.flags();
    flags.reset_on_close();
    let cluster = destination(worker, client)?;
    record.destined(&cluster);
    let _permit = acquire(&cluster, Limit::Requests)?;
    let _connection = connection_permit(worker, &cluster)?;
    let upstream = connect(&cluster, origin, record).await?;
    let _open = record.open_connection();
    flags.end_orderly();
    let copied = forward::copy(stream, upstream, Bytes::new(), &worker.copying).await;
    record.copied(&copied);
    Ok(())
}

fn destination(worker: &Worker, client: &Client) -> Result<Rc<LocalCluster>, ProxyError> {
    let local = worker.state.current();
    let listener = || Arc::clone(&client.listener);
    let named = local.view.listener(&client.listener).and_then(|found| found.tcp_cluster.as_ref());
    let name = named.ok_or_else(|| ProxyError::NoTcpCluster { listener: listener() })?;
    let cluster = local.clusters.get(name).ok_or_else(|| ProxyError::UnknownCluster { cluster: Arc::clone(name) })?;
    Ok(Rc::clone(cluster))
}

/// Connects to one endpoint after the other. No byte was sent, so that this is always harmless.
async fn connect(
    cluster: &Rc<LocalCluster>,
    origin: &Origin,
    record: &mut Record,
) -> Result<tokio::net::TcpStream, ProxyError> {
    let policy = cluster.live.policy();
    let mut tried: Vec<EndpointId> = Vec::new();
    loop {
        let now = Instant::now();
        let endpoint = pick(cluster, &tried, now)?;
        let connected = match origin.address_of(&endpoint.target) {
            Some(address) => {
                record.trying(&endpoint, address);
                dial(cluster, origin, address, &Deadlines::new(policy, now)).await
            }
            None => Err(ProxyError::NoSharedNetwork { endpoint: Arc::clone(&endpoint.id().unit) }),
        };
        match connected {
            Ok(upstream) => {
                record.judge(Outcome::Success, Instant::now());
                return Ok(upstream);
            }
            Err(error) => {
                record.judge(Outcome::LocalFailure, Instant::now());
                let spent = tried.len() >= policy.retry.attempts as usize;
                if spent || !policy.retry.on.contains(&RetryOn::ConnectFailure) {
                    return Err(error);
                }
                cluster.metrics.counts.retried(RetryOn::ConnectFailure);
                tried.push(endpoint.id().clone());
            }
        }
    }
}
