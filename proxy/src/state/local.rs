//! A worker's own picture of the view: a balancer and the series of each cluster, found without a lock. It is brought up to
//! date when the worker next looks and the swap holds another view.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::Cache;
use rustc_hash::FxHashMap;

use super::view::{SharedView, View};
use crate::balance::Balancer;
use crate::endpoint::LiveCluster;
use crate::metrics::{ClusterMetrics, WorkerMetrics};
use crate::resilience::places::Places;

/// One cluster, for one worker, in one view.
#[derive(Debug)]
pub struct LocalCluster {
    pub live: Arc<LiveCluster>,
    pub balancer: Rc<RefCell<Balancer>>,
    pub metrics: Rc<ClusterMetrics>,
    /// This worker's connections to it, and who waits for one.
    pub places: Rc<Places>,
}

/// One view, for one worker.
#[derive(Debug)]
pub struct LocalView {
    pub view: Arc<View>,
    pub clusters: FxHashMap<Arc<str>, Rc<LocalCluster>>,
}

/// Where a worker looks.
pub struct LocalState {
    cache: RefCell<Cache<SharedView, Arc<View>>>,
    current: RefCell<Rc<LocalView>>,
    metrics: Arc<WorkerMetrics>,
    seed: u64,
}

impl LocalState {
    #[must_use]
    pub fn new(shared: SharedView, metrics: Arc<WorkerMetrics>, seed: u64) -> Self {
        let view = shared.load_full();
        let current = RefCell::new(Rc::new(LocalView::next(None, view, &metrics, seed)));
        Self { cache: RefCell::new(Cache::new(shared)), current, metrics, seed }
    }

    /// The newest view.
    #[must_use]
    pub fn current(&self) -> Rc<LocalView> {
        let mut cache = self.cache.borrow_mut();
        let newest = cache.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(newest, &current.view) {
            *current = Rc::new(LocalView::next(Some(&current), Arc::clone(newest), &self.metrics, self.seed));
        }
        Rc::clone(&current)
    }
}

impl LocalView {
    fn next(old: Option<&LocalView>, view: Arc<View>, metrics: &Arc<WorkerMetrics>, seed: u64) -> Self {
        let clusters = view.clusters.iter().map(|(name, live)| {
            let live = Arc::clone(live);
            let local = match old.and_then(|old| old.clusters.get(name)) {
                Some(before) => {
                    let (balancer, metrics) = (Rc::clone(&before.balancer), Rc::clone(&before.metrics));
                    LocalCluster { live, balancer, metrics, places: Rc::clone(&before.places) }
                }
                None => {
                    let balancer = Rc::new(RefCell::new(Balancer::new(seed)));
                    let destination = live
                        .cluster()
                        .service
                        .as_ref()
                        .map_or_else(|| Arc::clone(name), |service| service.to_string().into());
                    let metrics = ClusterMetrics::new(destination, metrics);
                    LocalCluster { live, balancer, metrics, places: Rc::default() }
                }
            };
            (Arc::clone(name), Rc::new(local))
        });
        let clusters = clusters.collect();
        Self { view, clusters }
    }
}
