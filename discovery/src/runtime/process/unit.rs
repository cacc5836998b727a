//! One process: what is known of it, and how its end is noticed.

use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, SystemTime};

use mesh_core::model::replicas::ReplicaState;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::health::Health;
use super::kernel;
use super::record::Record;
use crate::runtime::{ObservedReplica, StopOrder, UnitId};

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) record: Record,
    /// None for one that an earlier discovery started: it is nobody's child here.
    pub(super) child: Option<Child>,
    pub(super) health: Option<Health>,
    pub(super) is_stopping: bool,
    pub(super) exited: Option<Option<i32>>,
}

impl Unit {
    pub(super) fn state(&self) -> ReplicaState {
        match (&self.exited, self.is_stopping, self.health.as_ref().map(|health| health.healthy)) {
            (Some(code), ..) => ReplicaState::Exited { code: *code },
            (None, true, _) => ReplicaState::Stopping,
            (None, false, None) => ReplicaState::Running,
            (None, false, Some(None)) => ReplicaState::Starting,
            (None, false, Some(Some(true))) => ReplicaState::Healthy,
            (None, false, Some(Some(false))) => ReplicaState::Unhealthy,
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.record.identity.as_ref().map(|identity| identity.pid)
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(millis_since_epoch().saturating_sub(self.record.started_millis))
    }

    pub(super) fn observed(&self) -> ObservedReplica {
        let service = &self.record.service;
        ObservedReplica {
            unit: self.record.unit(),
            id: self.record.id.clone(),
            name: self.record.id.to_string(),
            state: self.state(),
            config_hash: self.record.config_hash.clone(),
            managed: true,
            address: Some(IpAddr::V4(self.record.address)),
            ports: service.service_ports.iter().map(|port| port.port).collect(),
            started_millis: Some(self.record.started_millis),
            stop: StopOrder { signal: service.stop_signal.clone(), grace_period: service.stop_grace_period },
        }
    }

    /// Looks whether it has ended, and if so kills what it left running in its group. True when it ended just now.
    pub(super) fn reap(&mut self) -> bool {
        if self.exited.is_some() {
            return false;
        }
        let Some(child) = &mut self.child else {
            if self.record.identity.as_ref().is_some_and(kernel::is_alive) {
                return false;
            }
            kernel::kill_leftovers(&self.record);
            self.exited = Some(None);
            return true;
        };
        let pid = child.id().cast_signed();
        // Not waited for yet: the group's number is still its own while the rest of it is killed.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(Pid::from_raw(pid)), flags) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) => kernel::signal_group(pid, Signal::SIGKILL),
            Err(error) => tracing::warn!(pid, %error, "a process cannot be waited for"),
        }
        let status = child.wait().ok();
        self.exited = Some(status.and_then(exit_code));
        true
    }
}

/// A signal counts as 128 plus its number, as shells and Docker count.
fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// One that lives goes on; one that ended is reported as such, and the controller replaces it; one that was never started, or
/// whose start nobody got to write down, is killed and forgotten.
pub(super) fn take_over(record: Record, folder: &Path) -> Option<(UnitId, Unit)> {
    let Some(identity) = &record.identity else {
        kernel::kill_leftovers(&record);
        let _ = record.delete(folder);
        return None;
    };
    tracing::info!(replica = %record.id, pid = identity.pid, alive = kernel::is_alive(identity), "found from an earlier run");
    let health = Health::new(record.service.healthcheck.as_ref(), record.healthy);
    let mut unit = Unit { health, record, child: None, is_stopping: false, exited: None };
    unit.reap();
    Some((unit.record.unit(), unit))
}

pub(super) fn millis_since_epoch() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
