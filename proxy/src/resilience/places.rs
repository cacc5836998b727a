//! One worker's connections to one cluster: the places that it holds under the breaker, and who waits for one.
//!
//! The limit is one of the whole process; queues are of one worker each. A worker that holds no connection may open one beyond the
//! limit, as Envoy's may: else its requests would wait for other workers, whose connections never come to it while they are busy.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::breaker::{self, Limit, Permit};
use super::line::{Class, Line, Ticket, Turn};
use crate::endpoint::{ClusterStats, LiveCluster};

/// What one worker holds of one cluster, in all versions of it.
#[derive(Debug, Default)]
pub struct Places {
    held: Cell<u32>,
    /// How many are in the line: what a request looks at that needs not wait.
    waiting: Cell<usize>,
    line: RefCell<Line<Waker>>,
}

/// A place for one connection. When it is dropped, whoever waits for one is called.
#[derive(Debug)]
pub struct Place {
    /// None only while it is dropped.
    permit: Option<Permit>,
    places: Rc<Places>,
}

impl Places {
    /// A place for one more connection. `evict` closes a connection of this worker that nobody uses, if there is one.
    #[must_use]
    pub fn take(self: &Rc<Self>, cluster: &LiveCluster, evict: impl FnOnce() -> bool) -> Option<Place> {
        let permit = breaker::acquire(cluster, Limit::Connections)
            .or_else(|full| if evict() { breaker::acquire(cluster, Limit::Connections) } else { Err(full) });
        let permit = match permit {
            Ok(permit) => permit,
            Err(_) if self.held.get() == 0 => breaker::exceed(cluster, Limit::Connections),
            Err(_) => return None,
        };
        self.held.set(self.held.get() + 1);
        Some(Place { permit: Some(permit), places: Rc::clone(self) })
    }

    /// Who comes now has to queue.
    #[must_use]
    pub fn anyone_waits(&self) -> bool {
        self.waiting.get() > 0
    }

    /// At the end of the queue. How long that may get is for [`Limit::Pending`] to say.
    pub fn join(&self, class: Class) -> Ticket {
        self.waiting.set(self.waiting.get() + 1);
        self.line.borrow_mut().join(class)
    }

    /// Whose turn it is; who is not called is woken once it is.
    pub fn turn(&self, ticket: Ticket, context: &Context<'_>) -> Turn {
        self.line.borrow_mut().turn(ticket, || context.waker().clone())
    }

    /// To be said once of every ticket.
    pub fn leave(&self, ticket: Ticket) {
        self.waiting.set(self.waiting.get() - 1);
        let next = self.line.borrow_mut().leave(ticket);
        next.into_iter().for_each(Waker::wake);
    }

    /// A connection, or a stream on one, came free: who is next looks.
    pub fn call(&self) {
        if self.anyone_waits() {
            let called = self.line.borrow_mut().call();
            called.into_iter().for_each(Waker::wake);
        }
    }
}

impl Place {
    /// Whether it is one of the cluster that `stats` count.
    #[must_use]
    pub fn is_of(&self, stats: &Arc<ClusterStats>) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.is_of(stats))
    }

    /// Its connection is as it was, but somebody may use it now.
    pub fn call(&self) {
        self.places.call();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Given back before anyone is called.
        drop(self.permit.take());
        self.places.held.set(self.places.held.get() - 1);
        self.places.call();
    }
}

#[cfg(test)]
mod tests;
