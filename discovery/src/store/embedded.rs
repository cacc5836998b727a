//! The store of one host: a `redb` file that one process has open. A crash at any moment leaves it as it was before the write,
//! or after; never in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Entry, Expect, Found, Leased, Listing, Revision, Store, StoreError, Write};

/// The file's name within the state directory.
pub const FILE_NAME: &str = "discovery.redb";

/// Key to the revision that wrote it, and its value.
const VALUES: TableDefinition<'static, &'static str, (u64, &'static [u8])> = TableDefinition::new("values");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

/// One open file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Embedded {
    database: Arc<Database>,
    revisions: watch::Sender<Revision>,
    /// In memory only: the one process that could hold a lease is this one, and a lease ends with its holder.
    leases: Arc<Mutex<BTreeMap<String, Lease>>>,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    until: Instant,
    term: u64,
}

impl Embedded {
    /// Opens `discovery.redb` in `folder`, or makes both.
    ///
    /// # Errors
    /// [`StoreError`] when another process has it, when it is damaged or of another version, or cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        // Without the check a damaged page is found only when it is read, and then by a panic.
        let opened = Database::builder().set_check_integrity_on_open(true).create(&path);
        let database = opened.map_err(|error| open_error(path.clone(), error))?;
        Self::with_database(database, &path)
    }

    /// A store that is gone with the process: for tests, and for meshes that are.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine does not start.
    pub fn in_memory() -> Result<Self, StoreError> {
        let opened = Database::builder().create_with_backend(InMemoryBackend::new());
        Self::with_database(opened.map_err(|error| engine("open in memory", error))?, Path::new("(memory)"))
    }

    fn with_database(database: Database, path: &Path) -> Result<Self, StoreError> {
        let transaction = database.begin_write().map_err(|error| engine("begin", error))?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(|error| engine("open its tables", error))?;
            transaction.open_table(VALUES).map_err(|error| engine("open its tables", error))?;
            let found = meta.get(FORMAT).map_err(|error| engine("read", error))?.map(|value| value.value());
            match found {
                None => drop(meta.insert(FORMAT, FORMAT_VERSION).map_err(|error| engine("write", error))?),
                Some(FORMAT_VERSION) => {}
                Some(found) => {
                    return Err(StoreError::Format { path: path.to_owned(), found, wanted: FORMAT_VERSION });
                }
            }
            revision_of(&meta)?
        };
        transaction.commit().map_err(|error| engine("commit", error))?;
        let (revisions, _) = watch::channel(revision);
        Ok(Self { database: Arc::new(database), revisions, leases: Arc::default() })
    }

    fn get_now(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| engine("read", error))?;
        let values = transaction.open_table(VALUES).map_err(|error| engine("read", error))?;
        let found = values.get(key).map_err(|error| engine("read", error))?;
        Ok(found.map(|value| {
            let (revision, value) = value.value();
            Entry { key: key.to_owned(), value: value.to_vec(), revision }
        }))
    }

    fn list_now(&self, prefix: &str) -> Result<Listing, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| engine("read", error))?;
        let values = transaction.open_table(VALUES).map_err(|error| engine("read", error))?;
        let meta = transaction.open_table(META).map_err(|error| engine("read", error))?;
        let mut listing = Listing { revision: revision_of(&meta)?, entries: Vec::new() };
        for entry in values.range(prefix..).map_err(|error| engine("read", error))? {
            let (key, value) = entry.map_err(|error| engine("read", error))?;
            let (revision, value) = value.value();
            if !key.value().starts_with(prefix) {
                break;
            }
            listing.entries.push(Entry { key: key.value().to_owned(), value: value.to_vec(), revision });
        }
        Ok(listing)
    }

    fn apply_now(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        let transaction = self.database.begin_write().map_err(|error| engine("begin", error))?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(|error| engine("open its tables", error))?;
            let mut values = transaction.open_table(VALUES).map_err(|error| engine("open its tables", error))?;
            let revision = revision_of(&meta)? + 1;
            for write in writes {
                // Returning drops the transaction, which undoes all of it.
                apply_one(&mut values, write, revision)?;
            }
            meta.insert(REVISION, revision).map_err(|error| engine("write", error))?;
            revision
        };
        transaction.commit().map_err(|error| engine("commit", error))?;
        // Two commits may get here in the other order; the number must not go back.
        self.revisions.send_if_modified(|known| std::mem::replace(known, revision.max(*known)) < revision);
        Ok(revision)
    }

    /// Runs `work` where waiting for the disk keeps nobody waiting.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|error| engine(operation, error))?
    }
}

impl Store for Embedded {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        self.blocking("read", move |store| store.get_now(&key)).boxed()
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>> {
        let prefix = prefix.to_owned();
        self.blocking("read", move |store| store.list_now(&prefix)).boxed()
    }

    fn apply(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.blocking("write", move |store| store.apply_now(&writes)).boxed()
    }

    fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }

    fn lease(&self, name: &str, holder: &str, ttl: Duration) -> BoxFuture<'_, Result<Leased, StoreError>> {
        let now = Instant::now();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let lease =
            leases.entry(name.to_owned()).or_insert_with(|| Lease { holder: String::new(), until: now, term: 0 });
        let leased = if lease.holder == holder && lease.until > now {
            lease.until = now + ttl;
            Leased::Held { term: lease.term }
        } else if lease.until <= now {
            *lease = Lease { holder: holder.to_owned(), until: now + ttl, term: lease.term + 1 };
            Leased::Held { term: lease.term }
        } else {
            Leased::HeldBy { holder: lease.holder.clone() }
        };
        std::future::ready(Ok(leased)).boxed()
    }

    fn release(&self, name: &str, holder: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get_mut(name).filter(|lease| lease.holder == holder) {
            lease.until = Instant::now();
        }
        std::future::ready(Ok(())).boxed()
    }
}

fn apply_one(
    values: &mut Table<'_, &'static str, (u64, &'static [u8])>,
    write: &Write,
    revision: Revision,
) -> Result<(), StoreError> {
    let (Write::Put { expect, .. } | Write::Delete { expect, .. }) = write;
    let found = values.get(write.key()).map_err(|error| engine("read", error))?.map(|value| value.value().0);
    let as_expected = match expect {
        Expect::Anything => true,
        Expect::Absent => found.is_none(),
        Expect::Revision(wanted) => found == Some(*wanted),
    };
    if !as_expected {
        let found = found.map_or(Found::Nothing, Found::Revision);
        return Err(StoreError::Conflict { key: write.key().to_owned(), found });
    }
    match write {
        Write::Put { key, value, .. } => {
            drop(values.insert(key.as_str(), (revision, value.as_slice())).map_err(|error| engine("write", error))?)
        }
        Write::Delete { key, .. } => drop(values.remove(key.as_str()).map_err(|error| engine("write", error))?),
    }
    Ok(())
}

fn revision_of(meta: &impl ReadableTable<&'static str, u64>) -> Result<Revision, StoreError> {
    Ok(meta.get(REVISION).map_err(|error| engine("read", error))?.map_or(0, |value| value.value()))
}

fn engine(operation: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Engine { operation, source: error.into() }
}

fn open_error(path: PathBuf, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Open { path, source }
        }
        other => StoreError::Corrupt { path, detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
