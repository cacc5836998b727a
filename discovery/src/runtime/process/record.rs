//! What is written down about each process, so that whoever comes next finds it: one JSON file per replica in the state folder,
//! readable by its owner alone since an environment may hold secrets.
//!
//! A process is told from another that got its pid later by the time it was started (field 22 of `/proc/PID/stat`) and the
//! boot it was started in. The file is written before the process is started, with a token that the process carries in its
//! environment, so that even an end between the two leaves nothing behind that cannot be found.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::compose::Service;
use mesh_core::model::replicas::ReplicaId;
use serde::{Deserialize, Serialize};

/// The variable that carries [`Record::token`].
pub(super) const TOKEN_VARIABLE: &str = "MESH_UNIT";

/// Which process it is, beyond doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Clock ticks since boot.
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: ReplicaId,
    pub(super) service: Arc<Service>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) config_hash: Arc<str>,
    pub(super) directory: PathBuf,
    pub(super) address: Ipv4Addr,
    /// Where it was told to send its HTTP calls.
    #[serde(default)]
    pub(super) http_proxy: Option<SocketAddr>,
    pub(super) token: String,
    /// None between the writing of this file and the start.
    pub(super) identity: Option<Identity>,
    /// Milliseconds since the epoch.
    pub(super) started_millis: u64,
    /// The last verdict of its healthcheck: kept, so that nothing flaps when discovery comes back.
    pub(super) healthy: Option<bool>,
}

impl Record {
    /// The `unit` of its endpoint: a pid alone could come back as another process.
    pub(super) fn unit(&self) -> Arc<str> {
        match &self.identity {
            Some(identity) => format!("pid-{}-{}", identity.pid, identity.start_ticks).into(),
            None => format!("unstarted-{}", self.token).into(),
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.id))
    }

    /// Replaces the file in one move, so that a reader never sees half of it.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let draft = folder.join(format!("{}.json.new", self.id));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_data()?;
        fs::rename(draft, self.path(folder))
    }

    pub(super) fn delete(&self, folder: &Path) -> io::Result<()> {
        match fs::remove_file(self.path(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Every record of a folder. One that cannot be read is logged and left: it is never guessed what it named.
pub(super) fn read_all(folder: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a process record cannot be read; left as it is")
            }
        }
    }
    records.sort_by(|a: &Record, b: &Record| a.id.cmp(&b.id));
    Ok(records)
}
