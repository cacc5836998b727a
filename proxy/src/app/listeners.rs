//! Which sockets are open, and which should be. A listener that stays as it was is not touched, nor are its connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::resource::{Bind, Resources};

use super::worker::WorkerThread;
use crate::error::chain;
use crate::inbound::Entrance;
use crate::listen::limits::Admission;
use crate::listen::socket::{BindError, bind};
use crate::upstream::connect::Origin;

/// Open sockets, by the name of their listener.
#[derive(Default)]
pub(super) struct Listeners {
    open: BTreeMap<Arc<str>, Open>,
    /// Those that could not be opened, which is told once and tried again.
    failed: BTreeMap<Arc<str>, SocketAddr>,
}

struct Open {
    wanted: SocketAddr,
    bound: SocketAddr,
}

impl Listeners {
    pub(super) fn addresses(&self) -> BTreeMap<Arc<str>, SocketAddr> {
        self.open.iter().map(|(name, open)| (Arc::clone(name), open.bound)).collect()
    }

    /// Opens all; the first that cannot be is an error.
    pub(super) fn open_first(&mut self, resources: &Resources, workers: &[WorkerThread]) -> Result<(), BindError> {
        for (name, address) in wanted(resources) {
            self.open_one(name, address, workers)?;
        }
        Ok(())
    }

    /// Closes what is no longer wanted, opens what is; one that cannot be opened is tried again at the next call.
    pub(super) fn follow(&mut self, resources: &Resources, workers: &[WorkerThread]) {
        let wanted = wanted(resources);
        self.failed.retain(|name, address| wanted.get(name) == Some(address));
        self.open.retain(|name, open| {
            let stays = wanted.get(name) == Some(&open.wanted);
            if !stays {
                tracing::info!(listener = %name, address = %open.bound, "a listener is closed");
                workers.iter().for_each(|worker| worker.commands().close(Arc::clone(name)));
            }
            stays
        });
        for (name, address) in wanted {
            if self.open.contains_key(&name) {
                continue;
            }
            match self.open_one(Arc::clone(&name), address, workers) {
                Ok(()) => {
                    self.failed.remove(&name);
                    tracing::info!(listener = %name, %address, "a listener is open");
                }
                Err(error) => {
                    if self.failed.insert(Arc::clone(&name), address).is_none() {
                        tracing::error!(listener = %name, error = %chain(&error), "a listener cannot be opened; trying on");
                    }
                }
            }
        }
    }

    fn open_one(&mut self, name: Arc<str>, wanted: SocketAddr, workers: &[WorkerThread]) -> Result<(), BindError> {
        let sockets = bind(wanted, workers.len())?;
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
