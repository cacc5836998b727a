//! Stage 0, its composer: capture one network namespace — listeners, local route, refusal, rules; and give it back.
//!
//! ```text
//! NetworkNamespace ──open──▶ Captured ──release──▶ (virtual IPs refused, the rest direct) ──remove──▶ (as it was)
//!                                │                            ▲
//!                                └── process dies, any way ───┘
//! ```
//!
//! The order of opening: first what refuses (so that a virtual IP never leaves the host), then listeners (so that
//! nothing is redirected to nobody), then the rules; only then is looked what was there before. Connections that arrive before a
//! worker accepts wait in the backlog.
//!
//! Everything here is a handful of system calls. Opening takes some 3 ms, looking and releasing some 10 to 40 ms, in which the kernel
//! walks its table of connections, or waits for its own readers of rules (RCU): they belong on a thread that may block
//! (`spawn_blocking`), never on a worker's.
//! [`Captured::renew_alive`] and [`Captured::set_addresses`] take well under a millisecond, unless hundreds of
//! addresses change.
//!
//! Deliberately absent: when to capture and what (the caller's), accepting (stage 1), renewing by itself (a timer of
//! the caller's calls [`Captured::renew_alive`], so that a caller that hangs is noticed by the kernel).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::errno::Errno;

use super::connections::{self, Connection, State};
use super::conntrack::{self, ConntrackError};
use super::netns::{ListenOptions, NamespaceError, NetworkNamespace, tcp_listener_in};
use super::nftables::{self, NftablesError, Ownership, Rules, Ruleset};
use super::route::{self, RouteError};

/// SO_MARK of the proxy's own connections: "mesh". It is seen inside the namespace alone; the kernel clears it on the
/// way out.
pub const UPSTREAM_MARK: u32 = 0x6d65_7368;

/// At most so many connections that are older than capture are remembered for each namespace.
const OLDER_LEN_MAX: usize = 65_536;

/// Room for some 400 connections of 150 bytes; more than that grows.
const CONNECTION_TABLE_LEN: usize = 64 * 1024;

/// How a namespace is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// The port of the listener on 127.0.0.1; where the application has taken it, or for 0, a free one is used instead.
    pub port: u16,
    /// The range of virtual IPs.
    pub virtual_ips: Ipv4Net,
    /// SO_MARK of connections that pass untouched.
    pub mark: u32,
    /// How long rules hold without [`Captured::renew_alive`]. Several times the period of renewing.
    pub alive_timeout: Duration,
    /// One listener for each worker, all on one port (SO_REUSEPORT). At least 1.
    pub workers: usize,
    /// Backlog of each listener.
    pub backlog: i32,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            port: 14001,
            virtual_ips: Ipv4Net::new_assert(Ipv4Addr::new(240, 240, 0, 0), 16),
            mark: UPSTREAM_MARK,
            alive_timeout: Duration::from_secs(5),
            workers: 1,
            backlog: 4096,
        }
    }
}

/// A namespace could not be captured, or what holds there not be changed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Rules(#[from] NftablesError),
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    #[error("cannot read {path} of a captured network namespace")]
    Connections { path: &'static str, source: io::Error },
}

/// What one worker accepts from, in this namespace.
#[derive(Debug)]
pub struct WorkerListeners {
    pub ipv4: TcpListener,
    /// `None` where the namespace has no IPv6; nothing is redirected there then.
    pub ipv6: Option<TcpListener>,
}

/// A captured namespace. Dropping it is [`Captured::release`].
#[derive(Debug)]
pub struct Captured {
    namespace: Option<NetworkNamespace>,
    virtual_ips: Ipv4Net,
    port: u16,
    has_ipv6: bool,
    listeners: Vec<WorkerListeners>,
    ruleset: Ruleset,
    older: BTreeSet<Connection>,
}

impl Captured {
    /// Captures `namespace`; `None` is the process's own. Virtual IPs are redirected from here on, endpoint addresses
    /// once [`Captured::set_addresses`] names them.
    ///
    /// # Errors
    /// See [`CaptureError`]; [`NftablesError::OwnedByAnother`] where another proxy captures it. The refusal of virtual
    /// IPs may have been installed by then, and stays.
    pub fn open(namespace: Option<&NetworkNamespace>, config: &CaptureConfig) -> Result<Self, CaptureError> {
        route::bring_up_loopback(namespace)?;
        nftables::refuse_virtual_ips(namespace, config.virtual_ips)?;
        route::install(namespace, config.virtual_ips)?;
        let (port, listeners) = open_listeners(namespace, config)?;
        let rules =
            Rules { port, virtual_ips: config.virtual_ips, mark: config.mark, alive_timeout: config.alive_timeout };
        Ok(Self {
            namespace: namespace.cloned(),
            virtual_ips: config.virtual_ips,
            port,
            has_ipv6: listeners.iter().all(|worker| worker.ipv6.is_some()),
            listeners,
            ruleset: Ruleset::open(namespace, &rules)?,
            older: BTreeSet::new(),
        })
    }

    /// Remembers which connections are older than the rules: those that are established, but for what was redirected already. To be
    /// called when all is set, since it takes ten times as long as that (reading the namespace's connection table, 5 to 30 ms), and
    /// before anything is accepted: what we dial from here looks like an application's.
    ///
    /// # Errors
    /// [`CaptureError::Connections`].
    pub fn note_older_connections(&mut self) -> Result<(), CaptureError> {
        let all = read_connections(self.namespace.as_ref(), State::Established, |_| true)?;
        // Its other end is ours, and knows it by the application's own address.
        let is_ours =
            |connection: &&Connection| connection.local.port() == self.port && connection.local.ip().is_loopback();
        let redirected: BTreeSet<SocketAddr> = all.iter().filter(is_ours).map(|ours| ours.remote).collect();
        let is_older =
            |connection: &Connection| !connection.remote.ip().is_loopback() && !redirected.contains(&connection.local);
        self.older = all.into_iter().filter(is_older).take(OLDER_LEN_MAX).collect();
        Ok(())
    }

    /// The port that connections are redirected to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Hands over the listeners, one item for each worker; empty the second time. They are non-blocking, and stay in
    /// the namespace wherever they are used.
    pub fn take_listeners(&mut self) -> Vec<WorkerListeners> {
        std::mem::take(&mut self.listeners)
    }

    /// Makes `addresses` the endpoint addresses whose connections are redirected. IPv6 ones are left direct where there
    /// is no IPv6 listener; virtual IPs and loopback addresses are left out.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn set_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CaptureError> {
        let can_redirect =
            |ip: &&IpAddr| !ip.is_loopback() && !is_virtual(self.virtual_ips, **ip) && (ip.is_ipv4() || self.has_ipv6);
        let wanted: BTreeSet<IpAddr> = addresses.iter().filter(can_redirect).copied().collect();
        Ok(self.ruleset.set_addresses(&wanted)?)
    }

    /// Who removes the rules when this process dies.
    pub fn ownership(&self) -> Ownership {
        self.ruleset.ownership()
    }

    /// The endpoint addresses that are redirected now.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        self.ruleset.addresses()
    }

    /// Makes the rules hold for another alive timeout.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn renew_alive(&mut self) -> Result<(), CaptureError> {
        Ok(self.ruleset.renew_alive()?)
    }

    /// How many connections to addresses that are captured now are older than the capture, and so go past us. Reads the
    /// namespace's connection table (some 5 ms), unless there were none the last time.
    ///
    /// # Errors
    /// [`CaptureError::Connections`].
    pub fn count_older_connections(&mut self) -> Result<usize, CaptureError> {
        if self.older.is_empty() {
            return Ok(0);
        }
        let addresses: BTreeSet<IpAddr> = self.older.iter().map(|connection| connection.remote.ip()).collect();
        let now = read_connections(self.namespace.as_ref(), State::Established, |ip| addresses.contains(&ip))?;
        self.older.retain(|connection| now.contains(connection));
        let is_captured = |connection: &&Connection| {
            let ip = connection.remote.ip();
            self.ruleset.addresses().contains(&ip) || is_virtual(self.virtual_ips, ip)
        };
        Ok(self.older.iter().filter(is_captured).count())
    }

    /// Stops redirecting: new connections to endpoint addresses go direct, those to virtual IPs are refused.
    /// Connections that were redirected before live on until their sockets are closed.
    pub fn release(self) {
        // Dropping the ruleset is what does it.
    }

    /// Stops redirecting, and makes the namespace as it was: virtual IPs are unknown there. Connections that were
    /// redirected break, unless the namespace translates addresses for another reason.
    ///
    /// # Errors
    /// See [`remove`].
    pub fn remove(self) -> Result<(), CaptureError> {
        let Self { namespace, virtual_ips, ruleset, .. } = self;
        drop(ruleset);
        remove(namespace.as_ref(), virtual_ips).map(drop)
    }
}

/// Takes away whatever a capture left in `namespace`; whether there was anything.
///
/// # Errors
/// [`NftablesError::OwnedByAnother`] while another process captures it; see [`CaptureError`].
pub fn remove(namespace: Option<&NetworkNamespace>, virtual_ips: Ipv4Net) -> Result<bool, CaptureError> {
    let had_tables = nftables::remove_tables(namespace)?;
    let had_route = route::remove(namespace, virtual_ips)?;
    Ok(had_tables || had_route)
}

fn is_virtual(virtual_ips: Ipv4Net, ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if virtual_ips.contains(&ip))
}

/// A redirect in the output hook goes to 127.0.0.1 or ::1, so nothing outside the namespace can reach these listeners.
fn open_listeners(
    namespace: Option<&NetworkNamespace>,
    config: &CaptureConfig,
) -> Result<(u16, Vec<WorkerListeners>), CaptureError> {
    let port = free_port(namespace, config.port)?;
    let options = ListenOptions { backlog: config.backlog, reuse_port: true };
    let listen = |ip: IpAddr| tcp_listener_in(namespace, SocketAddr::new(ip, port), &options);
    let mut listeners = Vec::with_capacity(config.workers.max(1));
    for _ in 0..config.workers.max(1) {
        let ipv4 = listen(Ipv4Addr::LOCALHOST.into())?;
        let ipv6 = match listen(Ipv6Addr::LOCALHOST.into()) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::debug!(%error, "IPv6 connections of this network namespace stay direct");
                None
            }
        };
        listeners.push(WorkerListeners { ipv4, ipv6 });
    }
    Ok((port, listeners))
}

/// `wanted` where nobody has it, else one that the kernel picks. Asked by a bind without SO_REUSEPORT: with it, two
/// processes would share a port in silence.
fn free_port(namespace: Option<&NetworkNamespace>, wanted: u16) -> Result<u16, NamespaceError> {
    let options = ListenOptions { backlog: 1, reuse_port: false };
    let bind = |port| {
        let listener = tcp_listener_in(namespace, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), &options)?;
        listener.local_addr().map(|address| address.port()).map_err(|source| NamespaceError::Listen {
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            namespace: namespace.map(|namespace| namespace.path().display().to_string()).unwrap_or_default(),
            source,
        })
    };
    match bind(wanted) {
        Err(error) if error.raw_os_error() == Some(Errno::EADDRINUSE as i32) => {
            tracing::info!(
                wanted,
                "the port for redirected connections is taken in this network namespace: using another"
            );
            bind(0)
        }
        result => result,
    }
}

/// Connections to `addresses` that were dialled before these were captured, and had no answer yet, are redirected from their next
/// packet on; how many there were. A container's name leads to it before it is captured, and long before it answers: without
/// this, who dials it meanwhile would go past us for as long as the connection lives. Reads the namespace's connection table (some
/// 5 ms): for a thread that may block.
///
/// # Errors
/// See [`CaptureError`].
pub fn redirect_unanswered(
    namespace: Option<&NetworkNamespace>,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, CaptureError> {
    let unanswered = read_connections(namespace, State::SynSent, |ip| addresses.contains(&ip))?;
    if unanswered.is_empty() {
        return Ok(0);
    }
    Ok(conntrack::forget(namespace, &unanswered)?)
}

/// The connections of `namespace` in that state whose remote address `wanted` takes.
fn read_connections(
    namespace: Option<&NetworkNamespace>,
    state: State,
    wanted: impl Fn(IpAddr) -> bool,
) -> Result<BTreeSet<Connection>, CaptureError> {
    let mut found = BTreeSet::new();
    for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        // The open file stays with the namespace it was opened in; reading it happens outside.
        let opened = match namespace {
            Some(namespace) => namespace.enter(|| File::open(path))?,
            None => File::open(path),
        };
        // Each read makes the kernel walk its table of all connections from where it was: few large ones are ten times
        // faster.
        let mut table = String::with_capacity(CONNECTION_TABLE_LEN);
        match opened.and_then(|mut file| file.read_to_string(&mut table)) {
            Ok(_) => found.extend(connections::parse(&table, state, &wanted)),
            // A kernel without IPv6 has no second file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with('6') => {}
            Err(source) => return Err(CaptureError::Connections { path, source }),
        }
    }
    Ok(found)
}
