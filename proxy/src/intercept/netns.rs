//! Stage 0: a network namespace — opened by path, told apart by (device, inode), entered to create a socket, and left.
//!
//! A socket belongs for life to the namespace its thread was in when it was created (`network_namespaces(7)`), so
//! entering is needed for `socket(2)` and for reading `/proc/thread-self/net` alone: binding, connecting, accepting and
//! every byte after that happen from outside. [`NetworkNamespace::enter`] therefore takes a *synchronous* closure: no
//! `await` (another task would run in the wrong namespace) and no spawn (the new thread would stay there) can come
//! between entering and coming back.
//!
//! A thread that cannot come back ends the process: it would open every later socket in a stranger's namespace.
//!
//! Deliberately absent: creating or deleting namespaces, and any namespace other than the network's.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use socket2::{Domain, Protocol, Socket, Type};

/// What makes two paths the same namespace: the device and inode of the nsfs file (`namespaces(7)`, `stat(2)`).
///
/// Unique among the namespaces that exist now; the kernel may give the inode of a dead one to a new one. Who holds a
/// [`NetworkNamespace`] keeps it alive, and its id with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    pub device: u64,
    pub inode: u64,
}

impl fmt::Display for NamespaceId {
    /// `net:[4026531840]`, as `readlink /proc/PID/ns/net` prints it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "net:[{}]", self.inode)
    }
}

/// An open network namespace. Cloning is cheap; the namespace lives at least as long as the last clone.
#[derive(Debug, Clone)]
pub struct NetworkNamespace {
    file: Arc<File>,
    id: NamespaceId,
    path: PathBuf,
}

/// Why a namespace could not be opened or entered, or a socket not be made in it.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("cannot open the network namespace {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a network namespace: expected an nsfs file such as /proc/PID/ns/net or /run/docker/netns/ID"
    )]
    NotANamespace { path: PathBuf },
    #[error("cannot enter the network namespace {path}: CAP_SYS_ADMIN is needed (setns(2))")]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot enter the network namespace {path} from inside another one that this thread has entered")]
    AlreadyInside { path: PathBuf },
    #[error("cannot listen on {address} in {namespace}")]
    Listen { address: SocketAddr, namespace: String, source: io::Error },
    #[error("cannot make a {what} socket in {namespace}")]
    Socket { what: &'static str, namespace: String, source: io::Error },
    #[error("cannot set the mark {mark:#x} on a socket: CAP_NET_ADMIN is needed (SO_MARK, socket(7))")]
    Mark { mark: u32, source: io::Error },
}

impl NamespaceError {
    /// The error number of the system call that failed, where one did.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. }
            | Self::Enter { source, .. }
            | Self::Listen { source, .. }
            | Self::Socket { source, .. }
            | Self::Mark { source, .. } => source.raw_os_error(),
            Self::NotANamespace { .. } | Self::AlreadyInside { .. } => None,
        }
    }
}

thread_local! {
    /// Whether this thread is inside a namespace that is not the process's own.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl NetworkNamespace {
    /// Opens the namespace behind `path`: `/proc/PID/ns/net`, `/run/docker/netns/ID`, `/var/run/netns/NAME`.
    ///
    /// # Errors
    /// [`NamespaceError::Open`]; [`NamespaceError::NotANamespace`] for a file of another kind, which is also what a
    /// namespace file is between its creation and its bind mount (see [`super::watch`]). A namespace that is not a
    /// network's is found out on entering it (EINVAL).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NamespaceError> {
        let path = path.as_ref();
        let failed = |source: io::Error| NamespaceError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let statistics = fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        if statistics.filesystem_type() != NSFS_MAGIC {
            return Err(NamespaceError::NotANamespace { path: path.to_owned() });
        }
        let stat = fstat(&file).map_err(|errno| failed(errno.into()))?;
        // Every namespace file lives on the one nsfs; its id differs from kernel to kernel, and is equal for all of
        // them.
        let id = NamespaceId { device: stat.st_dev, inode: stat.st_ino };
        Ok(Self { file: Arc::new(file), id, path: path.to_owned() })
    }

    /// The namespace this process lives in.
    ///
    /// # Errors
    /// [`NamespaceError::Open`] where `/proc` is not mounted.
    pub fn own() -> Result<Self, NamespaceError> {
        // Resolved once, and before this process has entered any other: `enter` asks here first.
        static OWN: OnceLock<NetworkNamespace> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(own.clone());
        }
        let own = Self::open("/proc/self/ns/net")?;
        Ok(OWN.get_or_init(|| own).clone())
    }

    /// What tells this namespace from others.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the namespace this process lives in.
    ///
    /// # Errors
    /// As [`NetworkNamespace::own`].
    pub fn is_own(&self) -> Result<bool, NamespaceError> {
        Ok(Self::own()?.id == self.id)
    }

    /// Whether it is the host's own: that of process 1 as this process sees it, or the one this process lives in (a
    /// node proxy runs in the host's network). Such a namespace is shared by everything on the host and is not to be
    /// captured for the sake of a container.
    ///
    /// # Errors
    /// As [`NetworkNamespace::own`]. Where `/proc/1/ns/net` cannot be read, only the second question is asked.
    pub fn is_host(&self) -> Result<bool, NamespaceError> {
        if self.is_own()? {
            return Ok(true);
        }
        Ok(Self::open("/proc/1/ns/net").is_ok_and(|init| init.id == self.id))
    }

    /// Enters this namespace, runs `body` on this thread, and comes back, whether `body` returns or panics.
    ///
    /// `body` must not spawn a thread or block for long. It runs directly, without a system call, where this namespace
    /// is the process's own.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`] without CAP_SYS_ADMIN; [`NamespaceError::AlreadyInside`] when called within `body`.
    ///
    /// # Aborts
    /// The process ends when the thread cannot come back.
    pub fn enter<T>(&self, body: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        let own = Self::own()?;
        if INSIDE.get() {
            return Err(NamespaceError::AlreadyInside { path: self.path.clone() });
        }
        if own.id == self.id {
            return Ok(body());
        }
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Enter { path: self.path.clone(), source: errno.into() })?;
        INSIDE.set(true);
        let _way_back = WayBack { own };
        Ok(body())
    }
}

impl PartialEq for NetworkNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NetworkNamespace {}

/// Brings the thread back when it goes out of scope, on unwinding too.
struct WayBack {
    own: NetworkNamespace,
}

impl Drop for WayBack {
    fn drop(&mut self) {
        if let Err(errno) = setns(&*self.own.file, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%errno, "cannot leave a network namespace: ending the process");
            std::process::abort();
        }
        INSIDE.set(false);
    }
}

/// How a listener is opened.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Connections the kernel completes before anybody accepts them; capped by `net.core.somaxconn` (`listen(2)`).
    pub backlog: i32,
    /// SO_REUSEPORT: several listeners of this user on one address, each served by one worker.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: false }
    }
}

/// A listening, non-blocking, close-on-exec TCP socket in `namespace`; `None` is the process's own.
///
/// SO_REUSEADDR is set, so that a restart is not refused for the connections of the last run (`socket(7)`).
///
/// # Errors
/// [`NamespaceError::Listen`] with EADDRINUSE, EADDRNOTAVAIL or EACCES; or the namespace cannot be entered.
pub fn tcp_listener_in(
    namespace: Option<&NetworkNamespace>,
    address: SocketAddr,
    options: &ListenOptions,
) -> Result<TcpListener, NamespaceError> {
    let socket = tcp_socket_in(namespace, Domain::for_address(address))?;
    let listen = || -> io::Result<()> {
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.bind(&address.into())?;
        socket.listen(options.backlog)
    };
    match listen() {
        Ok(()) => Ok(socket.into()),
        Err(source) => Err(NamespaceError::Listen { address, namespace: describe(namespace), source }),
    }
}

/// An unconnected, non-blocking, close-on-exec TCP socket in `namespace` for an outgoing connection.
///
/// # Errors
/// [`NamespaceError::Socket`], or the namespace cannot be entered.
pub fn tcp_socket_in(namespace: Option<&NetworkNamespace>, domain: Domain) -> Result<Socket, NamespaceError> {
    socket_in(namespace, domain, Type::STREAM, Protocol::TCP, "TCP")
}

/// A bound, non-blocking, close-on-exec UDP socket in `namespace`.
///
/// # Errors
/// [`NamespaceError::Listen`], [`NamespaceError::Socket`], or the namespace cannot be entered.
pub fn udp_socket_in(namespace: Option<&NetworkNamespace>, address: SocketAddr) -> Result<UdpSocket, NamespaceError> {
    let socket = socket_in(namespace, Domain::for_address(address), Type::DGRAM, Protocol::UDP, "UDP")?;
    match socket.bind(&address.into()) {
        Ok(()) => Ok(socket.into()),
        Err(source) => Err(NamespaceError::Listen { address, namespace: describe(namespace), source }),
    }
}

/// Marks `socket` as the proxy's own, so that the rules of [`super::nftables`] let its connection pass.
///
/// # Errors
/// [`NamespaceError::Mark`] without CAP_NET_ADMIN over the socket's namespace.
pub fn mark(socket: &Socket, mark: u32) -> Result<(), NamespaceError> {
    socket.set_mark(mark).map_err(|source| NamespaceError::Mark { mark, source })
}

fn socket_in(
    namespace: Option<&NetworkNamespace>,
    domain: Domain,
    kind: Type,
    protocol: Protocol,
    what: &'static str,
) -> Result<Socket, NamespaceError> {
    let create = || Socket::new(domain, kind.nonblocking(), Some(protocol));
    let created = match namespace {
        Some(namespace) => namespace.enter(create)?,
        None => create(),
    };
    created.map_err(|source| NamespaceError::Socket { what, namespace: describe(namespace), source })
}

fn describe(namespace: Option<&NetworkNamespace>) -> String {
    match namespace {
        Some(namespace) => format!("the network namespace {}", namespace.path.display()),
        None => "the process's own network namespace".to_owned(),
    }
}
