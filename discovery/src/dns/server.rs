//! The shell: UDP and TCP (RFC 7766) on one port, each query answered from the snapshot of that moment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use ipnet::IpNet;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use prometheus::Registry;
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::allow::Allow;
use super::answer::{self, Asker, Transport, Verdict};
use super::connection;
use super::datagram::{Datagrams, Exchange};
use super::forward::{Forwarder, Upstreams};
use super::metrics::Metrics;
use super::zone::Zone;

/// TCP connections open at once; further ones are closed at once.
pub const TCP_CONNECTIONS_MAX: usize = 1024;
/// Longer datagrams are no query of any sense, and are read as malformed.
const UDP_QUERY_LEN_MAX: usize = 4096;
/// Tries to find a port that is free for both transports, where the system chooses.
const PORT_TRIES_MAX: usize = 16;

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    pub listen: SocketAddr,
    /// `mesh.internal`
    pub zone: String,
    pub upstreams: Upstreams,
    pub allow: Allow,
    /// Whose reverse names are ours, known or not.
    pub virtual_ip_range: IpNet,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum DnsError {
    #[error("{zone:?} is no DNS zone; a name such as mesh.internal is wanted")]
    Zone { zone: String, source: ProtoError },
    #[error("cannot listen on {listen} ({transport}); choose another with --dns-listen")]
    Listen { listen: SocketAddr, transport: &'static str, source: io::Error },
    #[error("the DNS metrics cannot be registered")]
    Metrics { source: prometheus::Error },
}

/// Bound, and not yet running.
#[derive(Debug)]
pub struct DnsServer {
    udp: Datagrams,
    tcp: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    zone: Zone,
    allow: Allow,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    forwarder: Forwarder,
    metrics: Metrics,
}

/// A reply at hand, or an upstream to be asked.
pub(super) enum Step {
    Ignore,
    Reply(Vec<u8>),
    Forward,
}

impl DnsServer {
    /// Binds both transports on one port; with port 0 the system chooses it.
    ///
    /// # Errors
    /// [`DnsError`] names the address, the zone or the metric.
    pub async fn bind(
        config: DnsConfig,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        registry: &Registry,
    ) -> Result<Self, DnsError> {
        let (udp, tcp, address) = bind_both(config.listen).await?;
        let named = (!address.ip().is_unspecified()).then(|| address.ip());
        let zone =
            Zone::new(&config.zone, named).map_err(|source| DnsError::Zone { zone: config.zone.clone(), source })?;
        let zone = zone.with_virtual_ips(config.virtual_ip_range);
        let udp =
            Datagrams::new(udp).map_err(|source| DnsError::Listen { listen: address, transport: "UDP", source })?;
        let metrics = Metrics::new(registry).map_err(|source| DnsError::Metrics { source })?;
        let forwarder = Forwarder::new(config.upstreams, address, metrics.clone());
        let shared = Shared { zone, allow: config.allow, snapshots, forwarder, metrics };
        Ok(Self { udp, tcp, address, shared: Arc::new(shared) })
    }

    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until draining begins; then what is under way is finished.
    pub async fn run(self, drain: Drain) {
        let Self { udp, tcp, shared, .. } = self;
        tokio::join!(serve_udp(udp, shared.clone(), drain.clone()), serve_tcp(tcp, shared, drain));
    }
}

impl Shared {
    pub(super) fn decide(
        &self,
        packet: &[u8],
        source: IpAddr,
        transport: Transport,
        random: &mut fastrand::Rng,
    ) -> Step {
        let started = Instant::now();
        let asker = Asker { transport, allowed: self.allow.permits(source), source: Some(source.to_canonical()) };
        let decision = {
            let snapshot = self.snapshots.borrow();
            answer::respond(packet, asker, &self.zone, &snapshot, random)
        };
        self.metrics.asked(transport, decision.kind);
        match decision.verdict {
            Verdict::Ignore => Step::Ignore,
            Verdict::Forward => Step::Forward,
            Verdict::Reply { bytes, code } => {
                self.metrics.answered(code, started.elapsed());
                Step::Reply(bytes)
            }
        }
    }

    pub(super) async fn forward(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let started = Instant::now();
        let reply = match self.forwarder.ask(packet, transport).await {
            Some(reply) => reply,
            None => answer::failure(packet)?,
        };
        let code = ResponseCode::from_low(reply.get(3).map_or(0, |byte| byte & 0x0f));
        self.metrics.answered(code, started.elapsed());
        Some(reply)
    }
}

async fn bind_both(listen: SocketAddr) -> Result<(UdpSocket, TcpListener, SocketAddr), DnsError> {
    let failed = |transport| move |source| DnsError::Listen { listen, transport, source };
    let mut tries_left = PORT_TRIES_MAX;
    loop {
        let tcp = TcpListener::bind(listen).await.map_err(failed("TCP"))?;
        let address = tcp.local_addr().map_err(failed("TCP"))?;
        tries_left -= 1;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((udp, tcp, address)),
            Err(error) if listen.port() == 0 && tries_left > 0 => {
                tracing::debug!(%address, %error, "free for TCP but not for UDP; another one");
            }
            Err(source) => return Err(failed("UDP")(source)),
        }
    }
}

async fn serve_udp(socket: Datagrams, shared: Arc<Shared>, mut drain: Drain) {
    let socket = Arc::new(socket);
    let mut random = fastrand::Rng::new();
    let mut buffer = vec![0; UDP_QUERY_LEN_MAX];
    // Bounded: the forwarder turns away what is more than it may ask at once.
    let mut forwards = JoinSet::new();
    loop {
        let received = tokio::select! {
            received = socket.receive(&mut buffer) => received,
            () = drain.started() => break,
        };
        while forwards.try_join_next().is_some() {}
        // An error is a client's ICMP refusal of an earlier answer, not ours.
        let Ok((len, exchange)) = received else { continue };
        match shared.decide(&buffer[..len], exchange.client.ip(), Transport::Udp, &mut random) {
            Step::Ignore => {}
            Step::Reply(reply) => send(&socket, &reply, exchange).await,
            Step::Forward => {
                let (packet, shared, socket) = (buffer[..len].to_vec(), shared.clone(), socket.clone());
                forwards.spawn(async move {
                    if let Some(reply) = shared.forward(&packet, Transport::Udp).await {
                        send(&socket, &reply, exchange).await;
                    }
                });
            }
        }
    }
    while forwards.join_next().await.is_some() {}
}

async fn send(socket: &Datagrams, reply: &[u8], exchange: Exchange) {
    if let Err(error) = socket.reply(reply, exchange).await {
        tracing::debug!(client = %exchange.client, %error, "a DNS reply could not be sent");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>, mut drain: Drain) {
    let permits = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: without a pause this would spin.
                tracing::warn!(%error, "cannot accept DNS over TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            shared.metrics.tcp_connections_refused.inc();
            continue;
        };
        let (shared, drain) = (shared.clone(), drain.clone());
        connections.spawn(async move {
            shared.metrics.tcp_connections.inc();
            if let Err(error) = connection::serve(stream, client.ip(), shared.clone(), drain).await {
                tracing::debug!(%client, %error, "a DNS connection ended");
            }
            shared.metrics.tcp_connections.dec();
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
}
