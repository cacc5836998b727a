//! Step 4 of a container event: what must survive a restart, since nothing else knows it: which virtual IP a service has, and
//! what was asked for. What can be read again from an engine or a file is never stored.
//!
//! Keys are paths (`virtual-ip/shop/web`), values are small texts. Every write is numbered by one revision that only grows; a
//! write may demand what it expects to find, so that two writers cannot undo each other's work unseen.

pub mod embedded; // one host: a file of its own

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;

/// Numbers writes; 0 before the first.
pub type Revision = u64;

/// A key with its value, and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub revision: Revision,
}

/// What a write expects to find at its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    /// The entry as that revision wrote it.
    Revision(Revision),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { key: String, value: Vec<u8>, expect: Expect },
    Delete { key: String, expect: Expect },
}

impl Write {
    #[must_use]
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>, expect: Expect) -> Self {
        Self::Put { key: key.into(), value: value.into(), expect }
    }

    #[must_use]
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self::Delete { key: key.into(), expect }
    }

    #[must_use]
    pub fn key(&self) -> &str {
        let (Self::Put { key, .. } | Self::Delete { key, .. }) = self;
        key
    }
}

/// Entries under a prefix, at one revision of the whole store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub revision: Revision,
    /// In order of key.
    pub entries: Vec<Entry>,
}

/// Whether a lease was had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leased {
    /// Ours until then, if it is not renewed. `term` grows each time the holder changes, so that what an earlier holder still
    /// has under way can be told apart.
    Held {
        term: u64,
    },
    HeldBy {
        holder: String,
    },
}

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "{path} is in use by another process; run one mesh-discovery per state directory, or give this one another --state-dir",
        path = path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} is damaged ({detail}); move it away and start again: services may then get other virtual IPs, and what was \
         asked for with mesh-ctl has to be asked for again",
        path = path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "{path} has format {found}, and this version reads format {wanted}; use the version that wrote it, or move the file \
         away",
        path = path.display()
    )]
    Format { path: PathBuf, found: u64, wanted: u64 },
    #[error("{path} cannot be opened; is {folder} a folder that this user may write to? Else give another --state-dir",
        path = path.display(), folder = path.parent().unwrap_or(path).display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{key} is not as expected: {found}")]
    Conflict { key: String, found: Found },
    #[error("the store failed to {operation}")]
    Engine { operation: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

/// What stood at a key instead of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Revision(Revision),
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing is there"),
            Self::Revision(revision) => write!(f, "revision {revision} is there"),
        }
    }
}

/// What every engine can do. Futures are boxed, so that the engine is chosen at run time.
pub trait Store: std::fmt::Debug + Send + Sync {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// All entries whose key begins with `prefix`.
    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>>;

    /// All of `writes` or none, under one new revision, which is returned; it is durable then.
    fn apply(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// The revision, as it changes. A hint to look again: in between, changes may have come and gone.
    fn revisions(&self) -> watch::Receiver<Revision>;

    /// Takes or renews the lease `name` for `holder`. It is free again after `ttl` without renewal, or with the death of the
    /// holder, if that is noticed sooner.
    fn lease(&self, name: &str, holder: &str, ttl: Duration) -> BoxFuture<'_, Result<Leased, StoreError>>;

    /// Gives the lease back, if `holder` has it.
    fn release(&self, name: &str, holder: &str) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The store as it is handed around.
pub type SharedStore = Arc<dyn Store>;
