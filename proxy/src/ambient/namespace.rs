//! One namespace, from its capture until it is given back.
//!
//! ```text
//!            ┌── failed: again, ever later ──┐
//! Capture ──▶ opening ──▶ captured ──Release──▶ released ──last connection ends──▶ (as it was)
//!                            │                     │
//!                            └────────Gone─────────┴──▶ every socket closed
//! ```
//!
//! What blocks runs where it may (`spawn_blocking`). The rules hold for a few seconds only, and the same task that follows the map
//! renews them: when it hangs, endpoints are reached directly.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::task::backoff::Backoff;
use mesh_core::task::drain::{self, Drain, Drainer};
use mesh_core::task::ready::NotReady;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::metrics::{Counted, Metrics};
use super::origin::origin;
use super::plan::Wanted;
use crate::app::Handle;
use crate::error::chain;
use crate::inbound::Caller;
use crate::intercept::capture::{CaptureConfig, CaptureError, Captured, redirect_unanswered, remove};
use crate::intercept::netns::{NamespaceId, NetworkNamespace};

/// Rules are renewed this many times within their timeout.
const RENEWALS_PER_TIMEOUT: u32 = 5;

/// How often connections that are older than the capture are counted.
const COUNT_OLDER_EVERY: Duration = Duration::from_secs(10);

/// The waits after failures.
const RETRY_BASE: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The engine's news of a new container come a little after its first act: so long after its namespace was captured they are
/// awaited. A container that nobody names by then is most likely none of ours, and its calls are not kept waiting.
const NAMING_MAX: Duration = Duration::from_millis(1500);

/// What is to be done with a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directive {
    Capture(Arc<Wanted>),
    /// It is none of ours: what is under way finishes, then it is as it was.
    Release,
    /// It is no more: whoever called is gone.
    Gone,
}

/// What one namespace is captured with.
pub(super) struct Namespace {
    pub(super) id: NamespaceId,
    /// None: the process's own.
    pub(super) handle: Option<NetworkNamespace>,
    pub(super) config: CaptureConfig,
    pub(super) directive: watch::Receiver<Directive>,
    /// Held while connections are redirected; when it drains, they are no more.
    pub(super) redirecting: Drain,
    pub(super) workers: Handle,
    pub(super) metrics: Arc<Metrics>,
    /// Dropped when the first try is over.
    pub(super) not_ready: Option<Arc<NotReady>>,
    /// Told then, too.
    pub(super) settled: mpsc::UnboundedSender<NamespaceId>,
}

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Released,
    Gone,
}

/// A capture and what its workers know about it.
struct Open {
    captured: Captured,
    caller: watch::Sender<Caller>,
    /// Until then it may get a name.
    naming_until: Instant,
    /// Its holders are the connections.
    connections: Drainer,
    keys: [Arc<str>; 2],
}

/// Carries one namespace to its end.
pub(super) async fn run(mut namespace: Namespace) {
    let Some(mut open) = namespace.open().await else { return };
    namespace.settle();
    let metrics = Arc::clone(&namespace.metrics);
    let end = namespace.hold(&mut open, Counted::new(&metrics)).await;
    namespace.give_back(open, end).await;
}

impl Namespace {
    /// Until it is captured; none when that is no longer wanted.
    async fn open(&mut self) -> Option<Open> {
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX, fastrand::u64(..));
        loop {
            let Directive::Capture(wanted) = self.directive.borrow_and_update().clone() else { return None };
            let (handle, config, addresses) = (self.handle.clone(), self.config.clone(), Arc::clone(&wanted));
            let opening = spawn_blocking(move || {
                let mut captured = Captured::open(handle.as_ref(), &config)?;
                captured.set_addresses(&addresses.addresses)?;
                captured.note_older_connections()?;
                Ok::<_, CaptureError>(captured)
            });
            let error = match opening.await {
                Ok(Ok(captured)) => {
                    self.redirect_unanswered(captured.addresses().clone());
                    return Some(self.serve(captured, &wanted));
                }
                Ok(Err(error)) => error,
                // The runtime is ending.
                Err(_) => return None,
            };
            self.settle();
            self.metrics.failed(&error);
            let retry_in = backoff.next_wait();
            let (namespace, source) = (self.id, &wanted.source);
            match backoff.failures() {
                // It may be on its way out, or another proxy on its way.
                1 => tracing::info!(%namespace, %source, error = %chain(&error), ?retry_in, "not captured yet"),
                2 => {
                    tracing::warn!(%namespace, %source, error = %chain(&error), "a namespace cannot be captured; trying on")
                }
                _ => tracing::debug!(%namespace, %source, error = %chain(&error), ?retry_in, "not captured"),
            }
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                changed = self.directive.changed() => changed.ok()?,
                () = self.redirecting.started() => return None,
            }
        }
    }

    fn settle(&mut self) {
        self.not_ready = None;
        // Whom it could concern has ended.
        let _ = self.settled.send(self.id);
    }

    /// Hands the listeners to the workers.
    fn serve(&self, mut captured: Captured, wanted: &Wanted) -> Open {
        let (connections, gone) = drain::channel();
        let naming_until = Instant::now() + NAMING_MAX;
        let (caller, told) = watch::channel(self.caller(wanted, naming_until, gone));
        let keys = ["ipv4", "ipv6"].map(|family| Arc::from(format!("{} {family}", self.id)));
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for listeners in captured.take_listeners() {
            ipv4.push(listeners.ipv4);
            ipv6.extend(listeners.ipv6);
        }
        for (key, sockets) in keys.iter().zip([ipv4, ipv6]) {
            self.workers.capture(key, sockets, &told);
        }
        let (namespace, addresses) = (self.id, captured.addresses().len());
        tracing::info!(%namespace, source = %wanted.source, port = captured.port(), addresses, "a namespace is captured");
        Open { captured, caller, naming_until, connections, keys }
    }

    fn caller(&self, wanted: &Wanted, naming_until: Instant, gone: Drain) -> Caller {
        let origin = origin(self.id.inode, self.handle.clone(), wanted);
        Caller { origin, services: Arc::clone(&wanted.services), is_known: wanted.is_known, naming_until, gone }
    }

    /// Keeps it as it should be, for as long as it should be.
    async fn hold(&mut self, open: &mut Open, mut counted: Counted<'_>) -> End {
        let mut renew = tokio::time::interval(self.config.alive_timeout / RENEWALS_PER_TIMEOUT);
        let mut count = tokio::time::interval(COUNT_OLDER_EVERY);
        loop {
            let done = tokio::select! {
                changed = self.directive.changed() => {
                    let directive = self.directive.borrow_and_update().clone();
                    match directive {
                        _ if changed.is_err() => return End::Released,
                        Directive::Release => return End::Released,
                        Directive::Gone => return End::Gone,
                        Directive::Capture(wanted) => self.adopt(open, &wanted),
                    }
                }
                () = self.redirecting.started() => return End::Released,
                _ = renew.tick() => open.captured.renew_alive(),
                _ = count.tick() => open.captured.count_older_connections().map(|older| counted.set_older(older)),
            };
            if let Err(error) = done {
                self.metrics.failed(&error);
                tracing::warn!(namespace = %self.id, error = %chain(&error), "a captured namespace cannot be kept up to date");
            }
        }
    }

    fn adopt(&self, open: &mut Open, wanted: &Wanted) -> Result<(), CaptureError> {
        let gone = open.caller.borrow().gone.clone();
        let before = open.caller.borrow().origin.source.clone();
        if before != wanted.source {
            tracing::info!(namespace = %self.id, source = %wanted.source, "a captured namespace has a name");
        }
        open.caller.send_replace(self.caller(wanted, open.naming_until, gone));
        let known = open.captured.addresses().clone();
        open.captured.set_addresses(&wanted.addresses)?;
        self.redirect_unanswered(open.captured.addresses() - &known);
        Ok(())
    }

    /// Those who dialled one of `added` just before it was captured shall not go past us for it.
    fn redirect_unanswered(&self, added: BTreeSet<IpAddr>) {
        if added.is_empty() {
            return;
        }
        let (namespace, handle, metrics) = (self.id, self.handle.clone(), Arc::clone(&self.metrics));
        drop(spawn_blocking(move || match redirect_unanswered(handle.as_ref(), &added) {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(%namespace, count, "connections dialled before their address was captured are too")
            }
            Err(error) => {
                metrics.failed(&error);
                tracing::warn!(%namespace, error = %chain(&error), "connections dialled before now go past the proxy");
            }
        }));
    }

    async fn give_back(mut self, open: Open, end: End) {
        let Open { captured, caller, mut connections, keys, .. } = open;
        drop(caller);
        // Taking the rules away makes the kernel wait.
        let released = spawn_blocking(move || captured.release()).await;
        drop(self.redirecting);
        keys.iter().for_each(|key| self.workers.close(key));
        if end == End::Released && released.is_ok() {
            tracing::info!(namespace = %self.id, "a namespace is released");
            tokio::select! {
                () = connections.idle() => {}
                // Whatever else is wanted by now begins when this has ended.
                () = told_gone(&mut self.directive) => {}
            }
        }
        connections.start();
        self.workers.forget_origin(self.id.inode);
        if end == End::Gone {
            tracing::info!(namespace = %self.id, "a captured namespace is gone");
            return;
        }
        let (handle, range) = (self.handle, self.config.virtual_ips);
        if let Ok(Err(error)) = spawn_blocking(move || remove(handle.as_ref(), range)).await {
            tracing::debug!(namespace = %self.id, error = %chain(&error), "what was left in a namespace cannot be removed");
        }
    }
}

async fn told_gone(directive: &mut watch::Receiver<Directive>) {
    if directive.wait_for(|directive| *directive == Directive::Gone).await.is_err() {
        std::future::pending().await
    }
}
