//! Step 2 of a container event: does it accept yet? Only of endpoints for which nobody states it; asked until the first
//! accept since their start, and never after, since later failures are the proxies' business.

pub mod verdict; // what the tries so far mean (pure)

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mesh_core::model::names::EndpointId;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::provider::{ProbeTarget, Verdict};
use verdict::{Outcome, Tries};

/// From one round of tries to the next.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// How long one connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Rounds under way at once; the others wait for their turn.
pub const ROUNDS_MAX: usize = 64;

/// Addresses tried in one round; a container with dozens of exposed ports says enough with the first ones.
pub const ADDRESSES_MAX: usize = 8;

/// What probing found out, as it comes.
pub type VerdictSender = mpsc::Sender<(EndpointId, Verdict)>;

/// Runs one task for each endpoint whose first accept is awaited; they end with it.
#[derive(Debug)]
pub struct Prober {
    running: BTreeMap<EndpointId, Probe>,
    rounds: Arc<Semaphore>,
    verdicts: VerdictSender,
}

#[derive(Debug)]
struct Probe {
    target: ProbeTarget,
    task: JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    #[must_use]
    pub fn new(verdicts: VerdictSender) -> Self {
        Self { running: BTreeMap::new(), rounds: Arc::new(Semaphore::new(ROUNDS_MAX)), verdicts }
    }

    /// Probes exactly these from now on: begins with the new ones, and with those that moved; stops with all others.
    pub fn probe_only(&mut self, targets: Vec<ProbeTarget>) {
        let mut wanted: BTreeMap<EndpointId, ProbeTarget> =
            targets.into_iter().map(|target| (target.id.clone(), target)).collect();
        self.running.retain(|id, probe| wanted.get(id) == Some(&probe.target));
        wanted.retain(|id, _| !self.running.contains_key(id));
        for (id, target) in wanted {
            let task = tokio::spawn(probe(target.clone(), self.rounds.clone(), self.verdicts.clone()));
            self.running.insert(id, Probe { target, task });
        }
    }
}

/// Tries until it is decided. The first refusal is told too, so that a start knows when everyone has been asked once.
async fn probe(target: ProbeTarget, rounds: Arc<Semaphore>, verdicts: VerdictSender) {
    let mut tries = Tries::default();
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_waiting = false;
    loop {
        ticks.tick().await;
        let permit = rounds.acquire().await.expect("the semaphore is never closed");
        let connects = target.addresses.iter().take(ADDRESSES_MAX).map(|address| try_once(*address));
        let outcomes = join_all(connects).await;
        drop(permit);
        let verdict = tries.round(&outcomes);
        let decided = verdict != Verdict::Waiting;
        // One that said no is waited for. Silence may be a bad moment of this host: after a restart, an endpoint that was ready
        // all the time would be told as one that is not.
        let said_no = outcomes.contains(&Outcome::Refused);
        if !decided && (!said_no || std::mem::replace(&mut told_waiting, true)) {
            continue;
        }
        let told = verdicts.send((target.id.clone(), verdict)).await;
        if decided || told.is_err() {
            return;
        }
    }
}

/// One connect, closed again at once.
async fn try_once(address: SocketAddr) -> Outcome {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_accepted)) => Outcome::Accepted,
        Ok(Err(error)) if no_way_there(&error) => Outcome::NoWay { address, error: error.to_string() },
        Ok(Err(_refused)) => Outcome::Refused,
        Err(_elapsed) => Outcome::NoWay { address, error: "no answer within 1s".to_owned() },
    }
}

/// Whether the connect failed before the other end could say anything.
fn no_way_there(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied};
    matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable | PermissionDenied)
}

#[cfg(test)]
mod tests;
