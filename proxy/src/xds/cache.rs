//! The last good resources on disk, in their wire form: one file per node, replaced atomically. A file that is torn, of another
//! version or made for other metadata counts as none; it is never an error that keeps a proxy from starting.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;
use thiserror::Error;

use super::XdsConfig;

/// First bytes of every file; the number grows when the layout changes.
const MAGIC: &[u8] = b"mesh-xds-cache 1\n";

/// Files beyond this are not read.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why the cache cannot be used.
#[derive(Debug, Error)]
pub(super) enum CacheError {
    #[error("cannot use {path:?}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} has {bytes} bytes; at most {FILE_BYTES_MAX} are read")]
    TooBig { path: PathBuf, bytes: u64 },
    #[error("{path:?} is torn, or of another version, node or metadata")]
    NotOurs { path: PathBuf },
    #[error("{path:?} holds something that is no xDS response")]
    Malformed { path: PathBuf, source: prost::DecodeError },
}

#[derive(Debug, Clone)]
pub(super) struct Cache {
    path: PathBuf,
    /// Resources made for other metadata are of no use.
    fingerprint: String,
}

impl Cache {
    pub fn new(directory: &Path, config: &XdsConfig) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let safe: String = config.node_id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let fingerprint = format!("{} {} {}\n", config.server, config.node_id.escape_debug(), config.metadata);
        Self { path: directory.join(format!("xds-{safe}.cache")), fingerprint }
    }

    /// What was stored last; nothing where there is nothing usable.
    pub fn load(&self) -> Vec<DeltaDiscoveryResponse> {
        match self.read() {
            Ok(responses) => responses,
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "the xDS cache is not used");
                Vec::new()
            }
        }
    }

    fn read(&self) -> Result<Vec<DeltaDiscoveryResponse>, CacheError> {
        let path = || self.path.clone();
        let wrong = |source| CacheError::Io { path: path(), source };
        let bytes = fs::metadata(&self.path).map_err(wrong)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(CacheError::TooBig { path: path(), bytes });
        }
        let content = fs::read(&self.path).map_err(wrong)?;
        let body = content.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(self.fingerprint.as_bytes()));
        let framed = body.and_then(|rest| rest.split_first_chunk::<8>());
        let Some((length, mut body)) = framed else { return Err(CacheError::NotOurs { path: path() }) };
        if u64::from_be_bytes(*length) != body.len() as u64 {
            return Err(CacheError::NotOurs { path: path() });
        }
        let mut responses = Vec::new();
        while !body.is_empty() {
            let response = DeltaDiscoveryResponse::decode_length_delimited(&mut body)
                .map_err(|source| CacheError::Malformed { path: path(), source })?;
            responses.push(response);
        }
        Ok(responses)
    }

    /// Replaces the file. Blocks; not for a thread that serves.
    ///
    /// # Errors
    /// [`CacheError::Io`]; the file is then as it was.
    pub fn store(&self, responses: &[DeltaDiscoveryResponse]) -> Result<(), CacheError> {
        let body: Vec<u8> = responses.iter().flat_map(Message::encode_length_delimited_to_vec).collect();
        self.replace(&body).map_err(|source| CacheError::Io { path: self.path.clone(), source })
    }

    fn replace(&self, body: &[u8]) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = self.path.with_extension("new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(MAGIC)?;
        file.write_all(self.fingerprint.as_bytes())?;
        file.write_all(&(body.len() as u64).to_be_bytes())?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::Resource;

    use super::*;

    fn config(metadata: serde_json::Value) -> XdsConfig {
        XdsConfig { server: "127.0.0.1:1".to_owned(), node_id: "a/b".to_owned(), metadata, cache_dir: None }
    }

    fn sample() -> Vec<DeltaDiscoveryResponse> {
        let resource = Resource { name: "x".to_owned(), version: "1".to_owned(), ..Resource::default() };
        vec![
            DeltaDiscoveryResponse { resources: vec![resource], ..DeltaDiscoveryResponse::default() },
            DeltaDiscoveryResponse { type_url: "t".to_owned(), ..DeltaDiscoveryResponse::default() },
        ]
    }

    #[test]
    fn what_was_stored_comes_back_and_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(&directory.path().join("deep/er"), &config(serde_json::json!({})));
        assert_eq!(cache.load(), []);
        cache.store(&sample()).unwrap();
        assert_eq!(cache.load(), sample());
        cache.store(&sample()[..1]).unwrap();
        assert_eq!(cache.load(), &sample()[..1]);
    }

    #[test]
    fn torn_and_foreign_files_count_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path(), &config(serde_json::json!({})));
        cache.store(&sample()).unwrap();
        let whole = fs::read(&cache.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&cache.path, &whole[..length]).unwrap();
            assert_eq!(cache.load(), [], "cut to {length} bytes");
        }
        fs::write(&cache.path, &whole).unwrap();
        assert_eq!(cache.load(), sample());
        let other = Cache::new(directory.path(), &config(serde_json::json!({"mesh": {"capture": true}})));
        assert_eq!(other.load(), [], "made for other metadata");
    }
}
