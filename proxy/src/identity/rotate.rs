//! TLS of all listeners, behind one swap, read again when a file changes. Connections that are open keep what they began with.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{Listener, Resources, TlsServer};
use rustls::ServerConfig;

use super::held::{TlsError, load};
use crate::error::chain;

/// What is served with, by what is wanted. There are few.
pub type TlsConfigs = Vec<(Wanted, Arc<ServerConfig>)>;

/// What a listener wants of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    tls: TlsServer,
    /// Whether versions of HTTP are offered (ALPN). A listener for bytes offers nothing: what is spoken in them is between the
    /// client and the service, and an offer of ours would promise an h2 that the service may not speak, or turn away a client
    /// that asks for something else (RFC 7301 section 3.2).
    offers_http: bool,
}

impl Wanted {
    /// Whether it is what a listener of that protocol with these files wants.
    #[must_use]
    pub fn is_by(&self, protocol: ListenProtocol, tls: &TlsServer) -> bool {
        self.offers_http == offers_http(protocol) && self.tls == *tls
    }

    fn of(listener: &Listener) -> Option<Self> {
        Some(Self { tls: listener.tls.clone()?, offers_http: offers_http(listener.protocol) })
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        load(&self.tls, self.offers_http)
    }
}

fn offers_http(protocol: ListenProtocol) -> bool {
    protocol != ListenProtocol::Tcp
}

/// The swap that workers read.
pub type SharedTls = Arc<ArcSwap<TlsConfigs>>;

/// Keeps the swap up to date.
pub struct Rotation {
    shared: SharedTls,
    wanted: Vec<Watched>,
}

struct Watched {
    wanted: Wanted,
    /// Of the files when they were last read, well or not.
    stamps: [Stamp; 3],
    config: Option<Arc<ServerConfig>>,
}

/// Which file it is, and when it last changed in any way; none where it is not there. The time of writing is not enough: who
/// copies a file may set it, and in some images and stores all files have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    changed_seconds: i64,
    changed_nanoseconds: i64,
}

type Stamp = Option<Mark>;

impl Rotation {
    #[must_use]
    pub fn new(shared: SharedTls) -> Self {
        Self { shared, wanted: Vec::new() }
    }

    /// Reads the files of listeners that are new.
    ///
    /// # Errors
    /// The first file that cannot be used; its listener refuses handshakes until it can.
    pub fn follow(&mut self, resources: &Resources) -> Result<(), TlsError> {
        let mut all: Vec<Wanted> = Vec::new();
        for wanted in resources.listeners.values().filter_map(|listener| Wanted::of(listener)) {
            if !all.contains(&wanted) {
                all.push(wanted);
            }
        }
        self.wanted.retain(|watched| all.contains(&watched.wanted));
        let mut result = Ok(());
        for wanted in all {
            if self.wanted.iter().any(|watched| watched.wanted == wanted) {
                continue;
            }
            let (stamps, loaded) = (stamps(&wanted.tls), wanted.load());
            let config = loaded.map_err(|error| result = Err(error)).ok();
            self.wanted.push(Watched { wanted, stamps, config });
        }
        self.publish();
        result
    }

    /// Reads again what changed on disk. A file that cannot be used keeps the last good one.
    pub fn check(&mut self) {
        let mut changed = false;
        for watched in &mut self.wanted {
            let now = stamps(&watched.wanted.tls);
            if now == watched.stamps {
                continue;
            }
            watched.stamps = now;
            let certificate = watched.wanted.tls.certificate.display();
            match watched.wanted.load() {
                Ok(config) => {
                    tracing::info!(%certificate, "a certificate changed on disk and is served from now on");
                    watched.config = Some(config);
                    changed = true;
                }
                Err(error) => {
                    tracing::warn!(%certificate, error = %chain(&error), "a changed certificate is of no use; the last good one stays");
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let usable = |watched: &Watched| Some((watched.wanted.clone(), watched.config.clone()?));
        self.shared.store(Arc::new(self.wanted.iter().filter_map(usable).collect()));
    }
}

fn stamps(tls: &TlsServer) -> [Stamp; 3] {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Mark {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed_seconds: metadata.ctime(),
            changed_nanoseconds: metadata.ctime_nsec(),
        })
    };
    [stamp(&tls.certificate), stamp(&tls.key), tls.client_ca.as_deref().and_then(stamp)]
}
