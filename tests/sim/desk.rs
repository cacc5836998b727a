//! The runtime that the executor acts through: it hands its orders in at the engine's desk, and waits for the answers. Dropping
//! what waits, as a crash does, leaves the orders that were handed in.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::future::BoxFuture;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::RuntimeKind;
use mesh_discovery::runtime::{ObservedReplica, ReplicaSpec, Runtime, RuntimeError, StopOrder, UnitId};
use tokio::sync::watch;

#[derive(Debug, Clone)]
pub enum Order {
    Stop(UnitId),
    Remove(UnitId),
    Start(Arc<ReplicaSpec>),
}

/// An answer: the unit that was meant, or that was made.
pub type Answer = Result<UnitId, RuntimeError>;

/// Shared by the executor and the engine.
#[derive(Clone, Default)]
pub struct Desk {
    papers: Arc<Mutex<Papers>>,
}

#[derive(Default)]
struct Papers {
    tickets: u64,
    orders: Vec<(u64, Order)>,
    answers: BTreeMap<u64, Answer>,
}

impl Desk {
    /// Everything handed in since the last call.
    pub fn take_orders(&self) -> Vec<(u64, Order)> {
        std::mem::take(&mut self.lock().orders)
    }

    /// Starts of a service that were handed in and not read yet.
    pub fn starts_of(&self, service: &Name) -> usize {
        let papers = self.lock();
        let starts = papers
            .orders
            .iter()
            .filter(|(_, order)| matches!(order, Order::Start(spec) if spec.id.service == *service));
        starts.count()
    }

    pub fn answer(&self, ticket: u64, answer: Answer) {
        self.lock().answers.insert(ticket, answer);
    }

    /// How many orders were ever handed in.
    pub fn tickets(&self) -> u64 {
        self.lock().tickets
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, order: Order) -> Answer {
        let ticket = {
            let mut papers = self.lock();
            papers.tickets += 1;
            let ticket = papers.tickets;
            papers.orders.push((ticket, order));
            ticket
        };
        // Nobody wakes it: whoever waits asks again at each step.
        poll_fn(|_| self.lock().answers.remove(&ticket).map_or(Poll::Pending, Poll::Ready)).await
    }
}

impl Runtime for Desk {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    /// The planner's world is read from the engine itself.
    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>> {
        Box::pin(std::future::pending())
    }

    fn start(&self, spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<UnitId, RuntimeError>> {
        Box::pin(self.ask(Order::Start(spec)))
    }

    fn stop(&self, unit: UnitId, _order: StopOrder) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async { self.ask(Order::Stop(unit)).await.map(drop) })
    }

    fn remove(&self, unit: UnitId) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async { self.ask(Order::Remove(unit)).await.map(drop) })
    }

    fn hints(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}
