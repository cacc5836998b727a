//! One line of JSON per request or connection, written by a thread of its own: a reader that does not take them slows nobody
//! down, lines are dropped and counted instead.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::metrics::WorkerMetrics;

/// Batches on their way to the writer; each is at most [`BATCH_BYTES`] and a line.
const QUEUE_LEN_MAX: usize = 1024;
const BATCH_BYTES: usize = 16 * 1024;

/// What happened, when it was over.
#[derive(Debug, Serialize)]
pub struct Entry<'e> {
    /// Milliseconds since the epoch, when it began.
    pub time_ms: u64,
    pub protocol: &'e str,
    pub client: std::net::SocketAddr,
    pub source: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'e str>,
    pub destination: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<std::net::SocketAddr>,
    /// 0: none was sent.
    pub status: u16,
    pub duration_ms: f64,
    pub attempts: u32,
    /// Envoy's letters, `-` when all went well.
    pub reason: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<&'e str>,
}

/// A worker's end.
pub struct AccessLog {
    batch: RefCell<Vec<u8>>,
    sender: Option<SyncSender<Vec<u8>>>,
    metrics: Arc<WorkerMetrics>,
}

/// The writing thread's end.
pub struct Writer {
    batches: Receiver<Vec<u8>>,
}

/// What workers send to, and what writes it.
#[must_use]
pub fn channel() -> (SyncSender<Vec<u8>>, Writer) {
    let (sender, batches) = sync_channel(QUEUE_LEN_MAX);
    (sender, Writer { batches })
}

impl AccessLog {
    #[must_use]
    pub fn new(sender: Option<SyncSender<Vec<u8>>>, metrics: Arc<WorkerMetrics>) -> Self {
        Self { batch: RefCell::default(), sender, metrics }
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    pub fn write(&self, entry: &Entry<'_>) {
        let mut batch = self.batch.borrow_mut();
        if serde_json::to_writer(&mut *batch, entry).is_ok() {
            batch.push(b'\n');
        }
        if batch.len() >= BATCH_BYTES {
            drop(batch);
            self.flush();
        }
    }

    /// Hands over what is there; called once in a while, so that a line is not held back for long.
    pub fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        if batch.is_empty() {
            return;
        }
        if let Err(refused) = sender.try_send(batch) {
            let (std::sync::mpsc::TrySendError::Full(lost) | std::sync::mpsc::TrySendError::Disconnected(lost)) =
                refused;
            self.metrics.log_lines_dropped.add(lost.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }
}

impl Writer {
    /// Writes until every worker is gone.
    pub fn run(self, mut sink: impl Write) {
        for batch in self.batches {
            if let Err(error) = sink.write_all(&batch).and_then(|()| sink.flush()) {
                tracing::warn!(%error, "the access log cannot be written; it ends here");
                return;
            }
        }
    }
}

/// The wall clock as the log has it, for something that began `ago`.
#[must_use]
pub fn began_ms(ago: Duration) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.saturating_sub(ago).as_millis()).unwrap_or(0)
}
