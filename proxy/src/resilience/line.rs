//! Who waits for a connection, and whose turn it is: a queue of one cluster on one worker, in order of arrival.
//!
//! ```text
//!   join ──▶ waiting ──front of its class, and something changed──▶ called ──▶ looks ──found──▶ leaves
//!               │                                                     │          └─nothing──▶ waiting
//!               └──▶ leaves (deadline, client gone) ◀─────────────────┘
//! ```
//! Only the front of a class looks, and whoever leaves calls the one behind: a call that reaches somebody who goes away is not lost.
//! Those of one class can stand in for one another, so that where the front finds nothing nobody behind it would. Those of different
//! classes do not hold each other up.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::VecDeque;
use std::net::SocketAddr;

/// What one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A connection of one's own, to any endpoint: every one that comes free can be used, or closed to open another.
    Connection,
    /// A stream on a connection that others share: it must start where the caller is, and lead to the endpoint that was dialled, if one was.
    Stream { origin: u64, only: Option<SocketAddr> },
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    class: Class,
    number: u64,
}

/// What whoever looks at the queue finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something changed since it looked last.
    Called,
    /// It is the next of its class, and nothing changed.
    Next,
    Behind,
}

/// The queue. `W` wakes whoever waits.
#[derive(Debug)]
pub struct Line<W> {
    classes: Vec<(Class, VecDeque<Waiter<W>>)>,
    joined: u64,
}

#[derive(Debug)]
struct Waiter<W> {
    number: u64,
    called: bool,
    waker: Option<W>,
}

impl<W> Line<W> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.iter().map(|(_, waiting)| waiting.len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Behind all others of its class. Who is the first of it is called at once.
    pub fn join(&mut self, class: Class) -> Ticket {
        self.joined += 1;
        let number = self.joined;
        match self.classes.iter_mut().find(|(of, _)| *of == class) {
            Some((_, waiting)) => waiting.push_back(Waiter { number, called: false, waker: None }),
            None => self.classes.push((class, VecDeque::from([Waiter { number, called: true, waker: None }]))),
        }
        self.check_invariants();
        Ticket { class, number }
    }

    /// Something changed: the front of each class is called. Those to be woken, in order of arrival.
    #[must_use]
    pub fn call(&mut self) -> Vec<W> {
        let fronts = self.classes.iter_mut().filter_map(|(_, waiting)| waiting.front_mut());
        let mut called: Vec<_> = fronts.filter_map(|front| front.call().map(|waker| (front.number, waker))).collect();
        called.sort_by_key(|(number, _)| *number);
        called.into_iter().map(|(_, waker)| waker).collect()
    }

    /// Whose turn it is, seen from `ticket`; a call is answered by asking. Who is not called is woken by `waker` once it is.
    pub fn turn(&mut self, ticket: Ticket, waker: impl FnOnce() -> W) -> Turn {
        let Some((waiting, index)) = self.find(ticket) else { return Turn::Behind };
        let waiter = &mut waiting[index];
        if std::mem::take(&mut waiter.called) {
            return Turn::Called;
        }
        waiter.waker = Some(waker());
        if index == 0 { Turn::Next } else { Turn::Behind }
    }

    /// Whoever is behind is the next, and called. Who is to be woken.
    #[must_use]
    pub fn leave(&mut self, ticket: Ticket) -> Option<W> {
        let (waiting, index) = self.find(ticket)?;
        drop(waiting.remove(index));
        let woken = if index == 0 { waiting.front_mut().and_then(Waiter::call) } else { None };
        if waiting.is_empty() {
            self.classes.retain(|(_, waiting)| !waiting.is_empty());
        }
        self.check_invariants();
        woken
    }

    fn find(&mut self, ticket: Ticket) -> Option<(&mut VecDeque<Waiter<W>>, usize)> {
        let (_, waiting) = self.classes.iter_mut().find(|(class, _)| *class == ticket.class)?;
        let index = waiting.binary_search_by_key(&ticket.number, |waiter| waiter.number).ok()?;
        Some((waiting, index))
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            for (class, waiting) in &self.classes {
                assert!(!waiting.is_empty(), "nobody waits in {class:?}");
                let in_order = waiting.iter().zip(waiting.iter().skip(1)).all(|(one, next)| one.number < next.number);
                assert!(in_order, "{class:?} is out of order");
                assert!(waiting.iter().skip(1).all(|waiter| !waiter.called), "one was called who is not the next");
            }
        }
    }
}

impl<W> Waiter<W> {
    fn call(&mut self) -> Option<W> {
        self.called = true;
        self.waker.take()
    }
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { classes: Vec::new(), joined: 0 }
    }
}

#[cfg(test)]
mod tests;
