//! Step 1 from a file: services and endpoints that no engine knows, listed by a person. Watched; a file that does not parse
//! keeps the last good one and says why.

pub mod parse; // text to observation (pure)
pub mod metrics; // how often it was read, and with what outcome

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::config::followed::FollowedFile;
use mesh_core::config::problem::Problems;
use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::task::drain::Drain;
use thiserror::Error;

use super::{Observation, ObservationSender, ProviderName, Sight};
pub use metrics::Metrics;

/// As in conditions and metrics.
pub const NAME: ProviderName = "file";

/// Read again this often whatever the watch says: it does not see the other end of a symbolic link, nor network file systems.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Larger files are refused: they are no list written by a person.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why the file says nothing new.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {bytes} bytes; at most {FILE_BYTES_MAX} are read", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{0}")]
    Parse(Problems),
}

/// One watched file.
#[derive(Debug)]
pub struct FileProvider {
    path: PathBuf,
    metrics: Metrics,
    /// What was read last, good or bad, so that an untouched file is not told twice.
    last_read: Option<Result<String, String>>,
    /// With [`Sight::Absent`] until a first one was good.
    last_good: Observation,
}

impl FileProvider {
    #[must_use]
    pub fn new(path: PathBuf, metrics: Metrics) -> Self {
        Self {
            path,
            metrics,
            last_read: None,
            last_good: Observation { sight: Sight::Absent, ..Observation::default() },
        }
    }

    /// Reads, sends, and reads again on every change, until the drain or until nobody listens.
    pub async fn run(mut self, observations: ObservationSender, mut drain: Drain) {
        let mut file = FollowedFile::follow(&self.path, POLL_INTERVAL);
        loop {
            tokio::select! {
                () = drain.started() => return,
                _ = file.changed() => {}
            }
            if let Some(observation) = self.read_again().await
                && observations.send((NAME, observation)).await.is_err()
            {
                return;
            }
        }
    }

    /// What is to be told; none when the file is as it was.
    async fn read_again(&mut self) -> Option<Observation> {
        let read = read(&self.path).await;
        let seen = read.as_ref().map(String::clone).map_err(ToString::to_string);
        if self.last_read.as_ref() == Some(&seen) {
            return None;
        }
        self.last_read = Some(seen);
        let origin = self.path.display().to_string();
        let parsed = read.and_then(|text| parse::parse(&origin, &text).map_err(FileError::Parse));
        match parsed {
            Ok(observation) => {
                let (services, endpoints) = (observation.services.len(), observation.endpoints.len());
                tracing::info!(file = %origin, services, endpoints, "file read");
                self.metrics.ok();
                self.last_good = observation;
                Some(self.last_good.clone())
            }
            Err(error) => {
                let blind = self.last_good.sight != Sight::Seen;
                let kept = if blind { "nothing is known from it" } else { "the last good one stays" };
                tracing::error!(file = %origin, "{kept}: {error}");
                match &error {
                    FileError::Parse(_) => self.metrics.invalid(),
                    FileError::Read { .. } | FileError::TooLarge { .. } => self.metrics.unreadable(),
                }
                let mut observation = self.last_good.clone();
                let message = format!("{error}\n{kept}");
                observation.conditions.push(Condition::new(
                    format!("file/{origin}"),
                    ConditionKind::InvalidFile,
                    message,
                ));
                Some(observation)
            }
        }
    }
}

async fn read(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes });
    }
    tokio::fs::read_to_string(path).await.map_err(failed)
}

#[cfg(test)]
mod tests;
