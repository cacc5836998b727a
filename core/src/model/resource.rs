//! What a proxy is told: listeners, routes, clusters, assignments and what to capture. A file, xDS or DNS fills the same
//! values, so that the proxy has one way to run whoever configures it. Names are the wire's: a route table is found by a
//! listener's `routes`, a cluster by a route, an assignment by its cluster's name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::endpoint::{CaptureMode, EndpointState, NetworkAddress};
use super::forwarded::ForwardedHeaders;
use super::limits::H2Limits;
use super::names::{EndpointId, ServiceId};
use super::policy::Policy;
use super::protocol::{ListenProtocol, Protocol, UpstreamProtocol};

/// Everything one proxy was told, at one moment. Cheap to clone: the values are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    pub routes: BTreeMap<Arc<str>, Arc<RouteTable>>,
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// By the name of the cluster.
    pub assignments: BTreeMap<Arc<str>, Arc<Assignment>>,
    pub capture: Option<Arc<CaptureMap>>,
}

/// In a captured listener: whatever port of its virtual IP is dialled and no other listener has. In a target: the port that was
/// dialled. For services of which nobody has said a port.
pub const ANY_PORT: u16 = 0;

/// Where a listener's connections come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// Opened by the proxy as it stands.
    Address(SocketAddr),
    /// The one captured connections are redirected to; it hands them on by where they were going.
    OriginalDestination(SocketAddr),
    /// Reached through the original-destination listener only: a virtual IP and port, which may be [`ANY_PORT`].
    Captured(SocketAddr),
    /// Not a socket at all: what `xds:///NAME` clients ask for by name.
    Api,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub name: Arc<str>,
    pub bind: Bind,
    pub protocol: ListenProtocol,
    /// The route table for what turns out to be HTTP.
    pub routes: Option<Arc<str>>,
    /// The cluster for what turns out to be bytes.
    pub tcp_cluster: Option<Arc<str>>,
    /// From a file only.
    pub tls: Option<TlsServer>,
    /// Connections begin with who is behind them; none: they do not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long an `auto` listener waits for a client's first bytes before it takes them for raw.
    pub detect_timeout: Duration,
    pub forwarded_headers: ForwardedHeaders,
    pub limits: Limits,
    pub h2_limits: H2Limits,
}

impl Listener {
    /// One in plain text that leads nowhere yet, with every default.
    #[must_use]
    pub fn new(name: Arc<str>, bind: Bind, protocol: ListenProtocol) -> Self {
        Self {
            name,
            bind,
            protocol,
            routes: None,
            tcp_cluster: None,
            tls: None,
            proxy_protocol: None,
            detect_timeout: Self::DETECT_TIMEOUT,
            forwarded_headers: ForwardedHeaders::default(),
            limits: Limits::default(),
            h2_limits: H2Limits::default(),
        }
    }

    /// Long enough for any client that speaks first, short enough for those that wait for their server.
    pub const DETECT_TIMEOUT: Duration = Duration::from_millis(100);
}

/// Connections come through a load balancer that tells whose they are (HAProxy's PROXY protocol, version 1 or 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProxyProtocol {
    /// Whom that is believed; others are refused. Never empty.
    pub trusted: Vec<IpNet>,
}

/// How a listener terminates TLS. Paths are those of PEM files, which are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsServer {
    /// Never empty. A client is shown the one for the name that it asks for (SNI), else the first.
    pub certificates: Vec<TlsCertificate>,
    pub client_certificate: ClientCertificate,
    pub min_version: TlsVersion,
}

/// A certificate that is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TlsCertificate {
    /// With the certificates between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// For which names it is shown, in lower case: exact, or `*.` in front of one. Empty: those in the certificate.
    pub server_names: Vec<Arc<str>>,
}

/// Whether clients show a certificate, and the file of the authorities that it must be signed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Not asked for.
    None,
    /// One that is shown must be good; none is good enough.
    Optional {
        ca: PathBuf,
    },
    Required {
        ca: PathBuf,
    },
}

impl ClientCertificate {
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Optional { ca } | Self::Required { ca } => Some(ca),
        }
    }
}

/// What a client must speak at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// What clients may take of us, for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Limits {
    /// Open at once, over all workers. Further ones are closed as they come.
    pub connections_max: u32,
    /// For TLS, and for what a PROXY protocol says before.
    pub handshake_timeout: Duration,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Between two pieces of a body, in either direction.
    pub body_idle_timeout: Duration,
    /// A kept-alive connection without a request.
    pub idle_timeout: Duration,
    /// The whole request head.
    pub header_bytes_max: usize,
    /// Fields of a request head.
    pub header_count_max: u32,
    /// HTTP/1.1: what still comes of a request that was answered already is read so far, for the sake of its connection.
    pub unread_body_bytes_max: u64,
    /// HTTP/1.1: for that, and for the last words on a connection to arrive.
    pub linger_timeout: Duration,
    /// HTTP/1.1: a client that is done sending, to which nothing was written for so long, is taken for gone.
    pub half_closed_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            header_bytes_max: 64 * 1024,
            header_count_max: 100,
            unread_body_bytes_max: 256 * 1024,
            linger_timeout: Duration::from_secs(1),
            half_closed_timeout: Duration::from_secs(5),
        }
    }
}

/// Which cluster a request goes to, by its authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteTable {
    pub name: Arc<str>,
    pub hosts: Vec<VirtualHost>,
}

/// One or more authorities that share a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VirtualHost {
    pub name: Arc<str>,
    /// Authorities in lower case, with and without a port, exact; `*` takes what nothing else does.
    pub domains: Vec<Arc<str>>,
    pub cluster: Arc<str>,
}

/// How one service port is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    pub name: Arc<str>,
    /// For metrics and people; none in a proxy's own file and from foreign control planes.
    pub service: Option<ServiceId>,
    pub protocol: UpstreamProtocol,
    pub policy: Policy,
    pub source: EndpointSource,
}

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointSource {
    /// The assignment that has the cluster's name.
    Assignment,
    /// SRV records (RFC 2782), resolved again by their TTL.
    Dns {
        /// Without scheme: `_http._tcp.api.shop.svc.mesh.internal`.
        name: Arc<str>,
        /// The system's resolver where none is named.
        resolver: Option<SocketAddr>,
    },
}

/// The endpoints of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    pub cluster: Arc<str>,
    /// In order of id.
    pub endpoints: Vec<Target>,
}

/// One endpoint as a proxy dials it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    pub id: EndpointId,
    /// The address used by a caller that shares no network with it knowingly.
    pub address: SocketAddr,
    /// All its addresses, for a caller that knows its own networks. The port is that of `address`.
    pub networks: Vec<NetworkAddress>,
    /// Share of the traffic; 0 takes none but what is pinned to it.
    pub weight: u32,
    /// 0 first.
    pub priority: u32,
    pub zone: Option<Arc<str>>,
    pub version: Option<Arc<str>>,
    pub state: EndpointState,
}

/// What to capture, and whose each address is. One resource, named [`CaptureMap::NAME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureMap {
    /// Every address in it is a virtual IP.
    pub virtual_ip_range: IpNet,
    pub workloads: Vec<CaptureWorkload>,
    /// Paths of the namespaces of running containers that are known to be none of ours.
    #[serde(default)]
    pub foreign: Vec<Arc<str>>,
    pub addresses: Vec<CapturedAddress>,
}

impl CaptureMap {
    pub const NAME: &'static str = "capture";
}

/// A network namespace whose calls are captured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaptureWorkload {
    pub id: EndpointId,
    pub name: Arc<str>,
    /// Whose calls these are.
    pub service: ServiceId,
    /// Path of the namespace file on the host.
    pub namespace_path: Arc<str>,
    /// Ids of its networks.
    pub networks: Vec<Arc<str>>,
}

/// One address of one endpoint, on one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CapturedAddress {
    pub address: IpAddr,
    pub network: Arc<str>,
    pub service: ServiceId,
    /// None when the endpoint left and its address is only remembered.
    pub endpoint: Option<EndpointId>,
    pub mode: CaptureMode,
    pub ports: Vec<CapturedPort>,
    /// Names that mean exactly this endpoint: container name, hostname.
    pub own_names: Vec<Arc<str>>,
    /// Names that mean its service here: Compose's service name and the network's aliases.
    pub service_names: Vec<Arc<str>>,
}

/// What stands behind one port of a captured address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CapturedPort {
    /// What was dialled.
    pub target: u16,
    /// The service port it belongs to.
    pub service_port: u16,
    pub protocol: Protocol,
}
