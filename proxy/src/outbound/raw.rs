//! A connection that is no HTTP: an endpoint, a connection to it, tried elsewhere when it does not come about; then bytes both
//! ways.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::RetryOn;
use mesh_core::model::resource::ANY_PORT;

use super::attempt::dial;
use super::choice::pick;
use super::pending::wait_for_place;
use super::record::Record;
use super::relay::relay;
use super::way::{Toward, Way};
use super::{Told, Worker, acquire, unheard};
use crate::error::{ProxyError, chain};
use crate::http::client::Client;
use crate::listen::stream::ClientStream;
use crate::metrics::Spoken;
use crate::resilience::breaker::Limit;
use crate::resilience::outlier::Outcome;
use crate::resilience::timeout::Deadlines;
use crate::route::dialled::Choice;
use crate::state::local::LocalCluster;

use crate::upstream::connect;

/// Where nothing is known about a destination, its caller's own patience counts; this only bounds what we hold for it.
const PASS_THROUGH_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries one connection to its end. A refusal closes it with a reset: there is no other way to tell.
pub async fn carry(worker: Rc<Worker>, client: Rc<Client>, way: Rc<Way>, stream: ClientStream) {
    let mut record = Record::begin(&worker, &client, &way, Spoken::Tcp, Instant::now());
    if let Err(error) = run(&worker, &client, &way, stream, &mut record).await {
        tracing::debug!(client = %client.peer, error = %chain(&error), "a raw connection was refused");
        record.cut(&error);
    }
}

/// Refuses one connection before anything is read of it.
pub fn refuse(worker: &Rc<Worker>, client: &Rc<Client>, way: &Rc<Way>, stream: &ClientStream, error: &ProxyError) {
    stream.flags().reset_on_close();
    unheard(worker, client, way, Spoken::Tcp, Told::Nothing, error);
}

async fn run(
    worker: &Rc<Worker>,
    client: &Client,
    way: &Way,
    stream: ClientStream,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let flags = stream.flags();
    flags.reset_on_close();
    let (mut cluster, choice) = match destination(worker, client, way)? {
        Towards::Cluster(cluster, choice) => (cluster, choice),
        Towards::Address(address) => return pass_through(worker, way, address, stream, record).await,
    };
    record.destined(&cluster, choice == Choice::Exactly);
    let _permit = acquire(&cluster, Limit::Requests)?;
    let (_connection, pending) = wait_for_place(worker, &mut cluster).await?;
    let upstream = connect(&cluster, client.local.port(), way, choice, record).await?;
    drop(pending);
    let _open = record.open_connection();
    flags.end_orderly();
    let copied = relay(stream, upstream, Bytes::new(), &worker.copying).await;
    record.copied(&copied);
    Ok(())
}

enum Towards {
    Cluster(Rc<LocalCluster>, Choice),
    Address(SocketAddr),
}

fn destination(worker: &Worker, client: &Client, way: &Way) -> Result<Towards, ProxyError> {
    let local = worker.state.current();
    match &way.toward {
        Toward::Listener => {
            let listener = || Arc::clone(&client.listener);
            let named = local.view.listener(&client.listener).and_then(|found| found.tcp_cluster.as_ref());
            let name = named.ok_or_else(|| ProxyError::NoTcpCluster { listener: listener() })?;
            let cluster = local.clusters.get(name);
            let cluster = cluster.ok_or_else(|| ProxyError::UnknownCluster { cluster: Arc::clone(name) })?;
            Ok(Towards::Cluster(Rc::clone(cluster), Choice::Balanced))
        }
        Toward::Endpoint { dialled, .. } => Ok(match local.clusters.get(&dialled.cluster) {
            Some(cluster) => Towards::Cluster(Rc::clone(cluster), dialled.choose_raw()),
            None => Towards::Address(dialled.address),
        }),
        Toward::Elsewhere(address) => Ok(Towards::Address(*address)),
    }
}

/// As if we were not there, but counted.
async fn pass_through(
    worker: &Worker,
    way: &Way,
    address: SocketAddr,
    stream: ClientStream,
    record: &mut Record,
) -> Result<(), ProxyError> {
    record.passes_through();
    let upstream = connect::connect(&way.origin, address, Instant::now() + PASS_THROUGH_CONNECT_TIMEOUT).await?;
    stream.flags().end_orderly();
    let copied = relay(stream, upstream, Bytes::new(), &worker.copying).await;
    record.copied(&copied);
    Ok(())
}

/// Connects to one endpoint after the other. No byte was sent, so that this is always harmless. `dialled` stands in for the port of
/// endpoints that have none of their own.
async fn connect(
    cluster: &Rc<LocalCluster>,
    dialled: u16,
    way: &Way,
    choice: Choice,
    record: &mut Record,
) -> Result<tokio::net::TcpStream, ProxyError> {
    let policy = cluster.live.policy();
    let mut tried: Vec<EndpointId> = Vec::new();
    let mut exact = way.exact(&cluster.live).filter(|exact| match choice {
        Choice::Exactly => true,
        Choice::DialledFirst => cluster.live.may_take(&exact.endpoint, Instant::now()),
        Choice::Balanced => false,
    });
    loop {
        let now = Instant::now();
        let (endpoint, address) = match exact.take() {
            Some(exact) => (exact.endpoint, Some(exact.address)),
            None => match pick(cluster, &tried, now) {
                Ok(endpoint) => {
                    let address = way.origin.address_of(&endpoint.target);
                    (endpoint, address)
                }
                Err(error) => match way.last_resort(&cluster.live) {
                    Some(exact) if tried.is_empty() => (exact.endpoint, Some(exact.address)),
                    _ => return Err(error),
                },
            },
        };
        let connected = match address {
            Some(mut address) => {
                if address.port() == ANY_PORT {
                    address.set_port(dialled);
                }
                record.trying(&endpoint, address);
                dial(cluster, &way.origin, address, &Deadlines::new(policy, now)).await
            }
            None => Err(ProxyError::NoSharedNetwork { endpoint: Arc::clone(&endpoint.id().unit) }),
        };
        match connected {
            Ok(upstream) => {
                record.judge(Outcome::Success, Instant::now());
                return Ok(upstream);
            }
            Err(error) => {
                if !matches!(error, ProxyError::NoSharedNetwork { .. }) {
                    record.judge(Outcome::LocalFailure, Instant::now());
                }
                let spent = tried.len() >= policy.retry.attempts as usize || choice == Choice::Exactly;
                if spent || !policy.retry.on.contains(&RetryOn::ConnectFailure) {
                    return Err(error);
                }
                cluster.metrics.counts.retried(RetryOn::ConnectFailure);
                tried.push(endpoint.id().clone());
            }
        }
    }
}
