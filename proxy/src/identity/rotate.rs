//! TLS of all listeners, behind one swap, read again when a file changes. Connections that are open keep what they began with.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{Listener, Resources, TlsCertificate, TlsServer};
use rustls::server::ProducesTickets;
use rustls::{RootCertStore, ServerConfig};

use super::held::{Identity, TlsError, authorities, identity, server, tickets};
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
    /// Whether it is what a listener of that protocol with these settings wants.
    #[must_use]
    pub fn is_by(&self, protocol: ListenProtocol, tls: &TlsServer) -> bool {
        self.offers_http == offers_http(protocol) && self.tls == *tls
    }

    fn of(listener: &Listener) -> Option<Self> {
        Some(Self { tls: listener.tls.clone()?, offers_http: offers_http(listener.protocol) })
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

/// Every file of one listener, each on its own: one that is of no use holds up none of the others.
struct Watched {
    wanted: Wanted,
    identities: Vec<Piece<Identity>>,
    authorities: Option<Piece<Arc<RootCertStore>>>,
    /// Of the sessions that clients take up again: those of clients that are no longer known must end.
    tickets: Arc<dyn ProducesTickets>,
    config: Option<Arc<ServerConfig>>,
}

/// What was read of one or two files.
struct Piece<T> {
    /// When they were last read, well or not.
    stamps: [Stamp; 2],
    good: Option<T>,
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
            match Watched::read(wanted) {
                Ok((watched, wrong)) => {
                    self.wanted.push(watched);
                    result = wrong.map_or(result, Err);
                }
                Err(error) => result = Err(error),
            }
        }
        self.publish();
        result
    }

    /// Reads again what changed on disk. A file that cannot be used keeps the last good one.
    pub fn check(&mut self) {
        let mut changed = false;
        for watched in &mut self.wanted {
            changed |= watched.check();
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

impl Watched {
    /// Reads every file; beside it the first that is of no use, if there is one.
    fn read(wanted: Wanted) -> Result<(Self, Option<TlsError>), TlsError> {
        let mut wrong = None;
        let certificates = wanted.tls.certificates.iter();
        let identities =
            certificates.map(|one| Piece::read(certificate_stamps(one), identity(one), &mut wrong)).collect();
        let ca = wanted.tls.client_certificate.ca();
        let authorities = ca.map(|ca| Piece::read([stamp(ca), None], authorities(ca), &mut wrong));
        let mut watched = Self { wanted, identities, authorities, tickets: tickets()?, config: None };
        if wrong.is_none() {
            watched.config = watched.server().map_err(|error| wrong = Some(error)).ok().flatten();
        }
        Ok((watched, wrong))
    }

    /// Whether something else is served with from now on.
    fn check(&mut self) -> bool {
        let mut changed = false;
        for (piece, wanted) in self.identities.iter_mut().zip(&self.wanted.tls.certificates) {
            let file = wanted.certificate.display();
            changed |= piece.check(certificate_stamps(wanted), &file, || identity(wanted));
        }
        if let (Some(piece), Some(ca)) = (&mut self.authorities, self.wanted.tls.client_certificate.ca())
            && piece.check([stamp(ca), None], &ca.display(), || authorities(ca))
        {
            changed = true;
            match tickets() {
                Ok(tickets) => self.tickets = tickets,
                // Nobody's session goes on, rather than one of a client that is no longer known.
                Err(_) => self.config = None,
            }
        }
        if !changed {
            return false;
        }
        match self.server() {
            Ok(Some(config)) => self.config = Some(config),
            // Something else was never of use; it was told.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "changed certificates cannot be served with; the last good ones stay");
            }
        }
        true
    }

    /// None while a file was never of use.
    fn server(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let identities: Option<Vec<Identity>> = self.identities.iter().map(|piece| piece.good.clone()).collect();
        let authorities = match &self.authorities {
            Some(piece) if piece.good.is_none() => return Ok(None),
            Some(piece) => piece.good.clone(),
            None => None,
        };
        let Some(identities) = identities else { return Ok(None) };
        let Wanted { tls, offers_http } = &self.wanted;
        server(tls, *offers_http, identities, authorities, Arc::clone(&self.tickets)).map(Some)
    }
}

impl<T> Piece<T> {
    fn read(stamps: [Stamp; 2], read: Result<T, TlsError>, wrong: &mut Option<TlsError>) -> Self {
        let good = match read {
            Ok(good) => Some(good),
            Err(error) => {
                wrong.get_or_insert(error);
                None
            }
        };
        Self { stamps, good }
    }

    /// Whether there is something new of use.
    fn check(
        &mut self,
        now: [Stamp; 2],
        file: &dyn std::fmt::Display,
        read: impl FnOnce() -> Result<T, TlsError>,
    ) -> bool {
        if now == self.stamps {
            return false;
        }
        self.stamps = now;
        match read() {
            Ok(good) => {
                tracing::info!(%file, "a certificate changed on disk and is used from now on");
                self.good = Some(good);
                true
            }
            Err(error) => {
                tracing::warn!(%file, error = %chain(&error), "a changed certificate is of no use; the last good one stays");
                false
            }
        }
    }
}

fn certificate_stamps(wanted: &TlsCertificate) -> [Stamp; 2] {
    [stamp(&wanted.certificate), stamp(&wanted.key)]
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Mark {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        changed_seconds: metadata.ctime(),
        changed_nanoseconds: metadata.ctime_nsec(),
    })
}
