//! Connections over workers. The kernel spreads them by a hash of their addresses, which is as even as tossing a coin: of 64 over
//! two, one in five times a worker gets 37 or more. So a worker that has clearly more than another hands on what it accepts.
//!
//! One number for each worker, on a cache line of its own, written when a connection begins and ends. As long as they are about
//! even, an accept costs a look at those numbers, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many connections each worker carries.
#[derive(Debug)]
pub struct Loads(Box<[Load]>);

/// On a line of its own, and on that of no neighbour: processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicUsize);

impl Loads {
    #[must_use]
    pub fn of(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| Load::default()).collect()))
    }

    #[must_use]
    pub fn get(&self, worker: usize) -> usize {
        self.0.get(worker).map_or(0, |load| load.0.load(Ordering::Relaxed))
    }

    /// Who should carry what `own` has accepted: itself, unless another has clearly fewer.
    #[must_use]
    pub fn choose(&self, own: usize) -> usize {
        let others = (0..self.0.len()).filter(|worker| *worker != own).map(|worker| (self.get(worker), worker));
        match others.min() {
            Some((least, idlest)) if self.get(own) > least + slack(least) => idlest,
            _ => own,
        }
    }

    /// Counts one more for a worker, until the place is dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>, worker: usize) -> Place {
        if let Some(load) = self.0.get(worker) {
            load.0.fetch_add(1, Ordering::Relaxed);
        }
        Place { loads: Arc::clone(self), worker }
    }
}

/// How many more than the least are still even: an eighth, so that among many connections none is handed on for what chance brings.
fn slack(least: usize) -> usize {
    (least / 8).max(1)
}

/// Held by a connection for as long as a worker carries it.
#[derive(Debug)]
pub struct Place {
    loads: Arc<Loads>,
    worker: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.worker) {
            load.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts as the kernel spreads them, with a share for worker 0; tells the loads at the end, and how many were handed on.
    fn spread(workers: usize, connections: usize, seed: u64) -> (Vec<usize>, usize) {
        let (loads, mut random) = (Loads::of(workers), fastrand::Rng::with_seed(seed));
        let (mut places, mut handed) = (Vec::new(), 0);
        for _ in 0..connections {
            let accepting = random.usize(..workers);
            let carrying = loads.choose(accepting);
            handed += usize::from(carrying != accepting);
            places.push(loads.take(carrying));
        }
        let carried = (0..workers).map(|worker| loads.get(worker)).collect();
        drop(places);
        assert!((0..workers).all(|worker| loads.get(worker) == 0));
        (carried, handed)
    }

    #[test]
    fn nobody_has_much_more_than_another() {
        for seed in 0..200 {
            for (workers, connections) in [(2, 8), (2, 64), (2, 1000), (3, 64), (8, 64), (8, 5000)] {
                let (carried, handed) = spread(workers, connections, seed);
                let (least, most) = (carried.iter().min().unwrap(), carried.iter().max().unwrap());
                assert!(*most <= least + slack(*least) + 1, "{workers} workers, seed {seed}: {carried:?}");
                assert!(handed < connections / 2, "{handed} of {connections} were handed on");
            }
            let (carried, _) = spread(2, 64, seed);
            assert!(carried.iter().max().unwrap() * 100 <= 64 * 60, "{carried:?}");
        }
    }

    #[test]
    fn what_is_about_even_stays_where_it_is() {
        let loads = Loads::of(2);
        let _own: Vec<_> = (0..109).map(|_| loads.take(0)).collect();
        let others: Vec<_> = (0..97).map(|_| loads.take(1)).collect();
        assert_eq!((loads.choose(0), loads.choose(1)), (0, 1));
        drop(others);
        assert_eq!((loads.choose(0), loads.choose(1)), (1, 1));
        assert_eq!(Loads::of(1).choose(0), 0);
    }
}
