//! Ways between the parts: one that loses, delays, doubles and reorders, and one that only delays, as TCP and channels do.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sky::Sky;

/// One message in this many is lost, and as many come twice.
const MISHAP_ONE_IN: u32 = 8;
const LOSSY_DELAY_MS: u64 = 3_000;
const PIPE_DELAY_MS: u64 = 500;
const CALM_DELAY_MS: u64 = 50;

/// Messages that come in the order in which chance brings them, if at all.
pub struct Lossy<T> {
    under_way: Vec<(Duration, T)>,
}

impl<T: Clone> Lossy<T> {
    pub fn new() -> Self {
        Self { under_way: Vec::new() }
    }

    pub fn send(&mut self, sky: &mut Sky, message: T) {
        if sky.mishap(MISHAP_ONE_IN) {
            return;
        }
        if sky.mishap(MISHAP_ONE_IN) {
            self.send_once(sky, message.clone());
        }
        self.send_once(sky, message);
    }

    fn send_once(&mut self, sky: &mut Sky, message: T) {
        let delay = sky.up_to(if sky.is_stormy { LOSSY_DELAY_MS } else { CALM_DELAY_MS });
        self.under_way.push((sky.now + delay, message));
    }

    pub fn receive(&mut self, sky: &Sky) -> Vec<T> {
        let all = std::mem::take(&mut self.under_way);
        let (mut due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at <= sky.now);
        self.under_way = later;
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, message)| message).collect()
    }
}

/// Messages that come in order, or, once it is dropped, not at all.
pub struct Pipe<T> {
    under_way: VecDeque<(Duration, T)>,
}

impl<T> Pipe<T> {
    pub fn new() -> Self {
        Self { under_way: VecDeque::new() }
    }

    pub fn send(&mut self, sky: &mut Sky, message: T) {
        let earliest = self.under_way.back().map_or(Duration::ZERO, |(at, _)| *at);
        let delay = sky.up_to(if sky.is_stormy { PIPE_DELAY_MS } else { CALM_DELAY_MS });
        self.under_way.push_back((earliest.max(sky.now + delay), message));
    }

    pub fn receive(&mut self, sky: &Sky) -> Option<T> {
        let due = self.under_way.front().is_some_and(|(at, _)| *at <= sky.now);
        if due { self.under_way.pop_front().map(|(_, message)| message) } else { None }
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
