use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use mesh_core::model::policy::{Circuit, Policy};

use super::*;
use crate::endpoint::tests::{cluster_with, next_version, start, target};

const NOTHING_TO_EVICT: fn() -> bool = || false;

fn policy(connections_max: u32) -> Policy {
    Policy { circuit: Circuit { connections_max, ..Circuit::default() }, ..Policy::default() }
}

fn cluster(connections_max: u32) -> LiveCluster {
    cluster_with(vec![target(0, 1)], policy(connections_max), start())
}

/// Whether it was woken since it was last asked.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

#[test]
fn a_worker_without_any_opens_one_beyond_the_limit() {
    let cluster = cluster(2);
    let [one, other] = [(); 2].map(|()| Rc::new(Places::default()));
    let held = [(); 2].map(|()| one.take(&cluster, NOTHING_TO_EVICT).unwrap());
    assert!(one.take(&cluster, NOTHING_TO_EVICT).is_none());
    let beyond = other.take(&cluster, NOTHING_TO_EVICT).unwrap();
    assert!(other.take(&cluster, NOTHING_TO_EVICT).is_none(), "one, and no more");
    assert_eq!(cluster.stats().connections(), 3);
    drop(held);
    assert!(other.take(&cluster, NOTHING_TO_EVICT).is_some(), "there is room again");
    drop(beyond);
    assert_eq!(cluster.stats().connections(), 0);
}

#[test]
fn one_that_nobody_uses_makes_room() {
    let cluster = cluster(1);
    let places = Rc::new(Places::default());
    let idle = RefCell::new(places.take(&cluster, NOTHING_TO_EVICT));
    let evict = || idle.borrow_mut().take().is_some();
    let taken = places.take(&cluster, evict).unwrap();
    assert_eq!(cluster.stats().connections(), 1);
    assert!(places.take(&cluster, evict).is_none(), "it is in use");
    assert!(taken.is_of(cluster.stats()));
}

#[test]
fn a_raised_limit_counts_at_once_and_a_lowered_one_ends_nothing() {
    let first = cluster(1);
    let places = Rc::new(Places::default());
    let held = places.take(&first, NOTHING_TO_EVICT).unwrap();
    let second = next_version(Some(&first), vec![target(0, 1)], policy(2), start());
    let more = places.take(&second, NOTHING_TO_EVICT).unwrap();
    assert!(places.take(&first, NOTHING_TO_EVICT).is_none());
    drop(held);
    assert!(places.take(&first, NOTHING_TO_EVICT).is_none());
    drop(more);
    assert!(places.take(&first, NOTHING_TO_EVICT).is_some());
}

#[test]
fn a_place_that_comes_free_wakes_the_next() {
    let cluster = cluster(1);
    let places = Rc::new(Places::default());
    let held = places.take(&cluster, NOTHING_TO_EVICT).unwrap();
    held.call();
    assert!(!places.anyone_waits());
    let woken = Arc::<Woken>::default();
    let (waker, ticket) = (Waker::from(Arc::clone(&woken)), places.join(Class::Connection));
    let context = Context::from_waker(&waker);
    assert_eq!(places.turn(ticket, &context), Turn::Called);
    assert_eq!(places.turn(ticket, &context), Turn::Next);
    held.call();
    assert!(woken.take(), "a connection that somebody may use");
    assert_eq!(places.turn(ticket, &context), Turn::Called);
    assert_eq!(places.turn(ticket, &context), Turn::Next);
    drop(held);
    assert!(woken.take(), "and one that is gone");
    assert_eq!(places.turn(ticket, &context), Turn::Called);
    assert!(places.take(&cluster, NOTHING_TO_EVICT).is_some(), "its place came back before");
    places.leave(ticket);
    assert!(!places.anyone_waits());
}

/// One worker of the run below.
#[derive(Default)]
struct Worker {
    places: Rc<Places>,
    held: Vec<Place>,
    waiting: VecDeque<(u64, Ticket, Arc<Woken>)>,
    /// The last that was served.
    served: u64,
}

impl Worker {
    fn arrive(&mut self, cluster: &LiveCluster, number: u64) {
        if !self.places.anyone_waits()
            && let Some(place) = self.places.take(cluster, NOTHING_TO_EVICT)
        {
            self.serve(number, place);
            return;
        }
        // A new task is polled without being woken.
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.waiting.push_back((number, self.places.join(Class::Connection), woken));
    }

    fn serve(&mut self, number: u64, place: Place) {
        assert!(number > self.served, "{number} overtook {}", self.served);
        self.served = number;
        self.held.push(place);
    }

    /// Polls those that were woken, and with `look` those whose timer fires, until nobody is awake any more.
    fn settle(&mut self, cluster: &LiveCluster, mut look: bool) {
        while let Some(index) = self.waiting.iter().position(|(_, _, woken)| woken.take() || look) {
            let (number, ticket, woken) = &self.waiting[index];
            let (number, ticket, waker) = (*number, *ticket, Waker::from(Arc::clone(woken)));
            let turn = self.places.turn(ticket, &Context::from_waker(&waker));
            let looks = turn == Turn::Called || (turn == Turn::Next && look);
            look = false;
            if !looks {
                continue;
            }
            match self.places.take(cluster, NOTHING_TO_EVICT) {
                Some(place) => {
                    self.serve(number, place);
                    self.waiting.remove(index);
                    self.places.leave(ticket);
                }
                None => drop(self.places.turn(ticket, &Context::from_waker(&waker))),
            }
        }
    }
}

#[test]
fn nobody_is_forgotten_and_nobody_overtakes() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let max = random.u32(1..4);
        let cluster = cluster(max);
        let mut workers = [Worker::default(), Worker::default()];
        for number in 1..400 {
            let worker = &mut workers[random.usize(0..2)];
            match random.u8(0..5) {
                0 | 1 => worker.arrive(&cluster, number),
                2 | 3 if !worker.held.is_empty() => drop(worker.held.swap_remove(random.usize(..worker.held.len()))),
                _ if !worker.waiting.is_empty() => {
                    // Woken or not.
                    let index = random.usize(..worker.waiting.len());
                    let (_, ticket, _) = worker.waiting.remove(index).unwrap();
                    worker.places.leave(ticket);
                }
                _ => {}
            }
            // Sometimes more happens before anyone is polled.
            if random.bool() {
                continue;
            }
            worker.settle(&cluster, false);
            let connections = cluster.stats().connections();
            let elsewhere = worker.held.is_empty();
            assert!(worker.waiting.is_empty() || !elsewhere, "seed {seed}: who has none may always open one");
            assert!(connections < max + 2, "seed {seed}: {connections} of {max}");
        }
        // What one worker gives back the other finds by looking.
        for _ in 0..400 {
            for worker in &mut workers {
                worker.held.clear();
                worker.settle(&cluster, true);
            }
        }
        let left: Vec<_> = workers.iter().map(|worker| worker.waiting.len()).collect();
        assert_eq!((left, cluster.stats().connections()), (vec![0, 0], 0), "seed {seed}");
    }
}

#[test]
fn nobody_waits_for_a_place_that_is_free() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let max = random.u32(1..4);
        let (cluster, mut worker) = (cluster(max), Worker::default());
        for number in 1..400 {
            match random.u8(0..5) {
                0..=2 => worker.arrive(&cluster, number),
                3 if !worker.held.is_empty() => drop(worker.held.swap_remove(random.usize(..worker.held.len()))),
                _ if !worker.waiting.is_empty() => {
                    let index = random.usize(..worker.waiting.len());
                    let (_, ticket, _) = worker.waiting.remove(index).unwrap();
                    worker.places.leave(ticket);
                }
                _ => {}
            }
            if random.bool() {
                worker.settle(&cluster, false);
                let free = cluster.stats().connections() < max;
                assert!(!free || worker.waiting.is_empty(), "seed {seed}: {} wait", worker.waiting.len());
            }
        }
    }
}
