//! Which sockets are open, and which should be. A listener that stays as it was is not touched, nor are its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::resource::{Bind, Resources};

use super::worker::WorkerThread;
use crate::inbound::Entrance;
use crate::listen::failed::FailedListeners;
use crate::listen::limits::Admission;
use crate::listen::socket::{BindError, bind, bind_from};
use crate::upstream::connect::Origin;

/// Open sockets, by the name of their listener.
#[derive(Default)]
pub(super) struct Listeners {
    open: BTreeMap<Arc<str>, Open>,
    /// Those that could not be opened, which is told once and tried again.
    failed: FailedListeners,
    /// Sockets that were bound for us.
    bound: Vec<TcpListener>,
}

struct Open {
    wanted: SocketAddr,
    bound: SocketAddr,
}

impl Listeners {
    /// None open; those of `bound` need no further one.
    pub(super) fn new(bound: Vec<TcpListener>) -> Self {
        Self { bound, ..Self::default() }
    }

    pub(super) fn addresses(&self) -> BTreeMap<Arc<str>, SocketAddr> {
        self.open.iter().map(|(name, open)| (Arc::clone(name), open.bound)).collect()
    }

    /// Those that could not be opened.
    pub(super) fn failed(&self) -> FailedListeners {
        self.failed.clone()
    }

    /// Opens all; the first of those `required` that cannot be is an error. None: all are.
    pub(super) fn open_first(
        &mut self,
        resources: &Resources,
        required: Option<&BTreeSet<Arc<str>>>,
        workers: &[WorkerThread],
    ) -> Result<(), BindError> {
        for (name, address) in wanted(resources) {
            match self.open_one(Arc::clone(&name), address, workers) {
                Err(error) if required.is_none_or(|required| required.contains(&name)) => return Err(error),
                Err(error) => self.note(&name, &error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Closes what is no longer wanted, opens what is; one that cannot be opened is tried again at a later call.
    pub(super) fn follow(&mut self, resources: &Resources, workers: &[WorkerThread]) {
        let wanted = wanted(resources);
        self.failed.retain(|name, address| wanted.get(name) == Some(&address));
        self.open.retain(|name, open| {
            let stays = wanted.get(name) == Some(&open.wanted);
            if !stays {
                tracing::info!(listener = %name, address = %open.bound, "a listener is closed");
                workers.iter().for_each(|worker| worker.commands().close(Arc::clone(name)));
            }
            stays
        });
        for (name, address) in wanted {
            if self.open.contains_key(&name) || !self.failed.is_due(&name, Instant::now()) {
                continue;
            }
            match self.open_one(Arc::clone(&name), address, workers) {
                Ok(()) => {
                    self.failed.opened(&name);
                    tracing::info!(listener = %name, %address, "a listener is open");
                }
                Err(error) => self.note(&name, &error),
            }
        }
    }

    fn note(&self, name: &Arc<str>, error: &BindError) {
        if let Some(problem) = self.failed.note(name, error, Instant::now()) {
            let address = error.address;
            tracing::error!(listener = %name, %address, problem, "a listener is not open; all others are, and it is tried again");
        }
    }

    fn open_one(&mut self, name: Arc<str>, wanted: SocketAddr, workers: &[WorkerThread]) -> Result<(), BindError> {
        let is_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|address| address == wanted);
        let sockets = match self.bound.iter().position(is_it) {
            Some(index) => bind_from(self.bound.swap_remove(index), workers.len())?,
            None => bind(wanted, workers.len())?,
        };
        let bound = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(wanted);
        let (origin, admission) = (Origin::default(), Arc::new(Admission::default()));
        for (worker, socket) in workers.iter().zip(sockets) {
            let entrance = Entrance::Listener { name: Arc::clone(&name), origin: origin.clone() };
            worker.commands().open(Arc::clone(&name), entrance, Arc::clone(&admission), socket);
        }
        self.open.insert(name, Open { wanted, bound });
        Ok(())
    }
}

/// Listeners with a socket of their own.
fn wanted(resources: &Resources) -> BTreeMap<Arc<str>, SocketAddr> {
    let own = |bind: Bind| match bind {
        Bind::Address(address) => Some(address),
        Bind::OriginalDestination(_) | Bind::Captured(_) | Bind::Api => None,
    };
    let listeners = resources.listeners.iter();
    listeners.filter_map(|(name, listener)| Some((Arc::clone(name), own(listener.bind)?))).collect()
}
