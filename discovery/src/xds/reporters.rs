//! Whom each proxy has out now, by the streams that say so. Two proxies may go by one node id, and one proxy may have two
//! streams for a moment: what is told on is all that the streams of a node say together, and a stream that ends takes back what
//! it said.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mesh_core::model::names::EndpointId;
use mesh_xds::load::LoadReport;

/// Streams that may report at once.
pub const REPORTERS_MAX: usize = 1024;

/// Endpoints that one stream may have out at once; those beyond are left out.
pub const EJECTIONS_MAX: usize = 1024;

/// An endpoint that a proxy has out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    pub endpoint: EndpointId,
    /// When the proxy lets it in again.
    pub until: Instant,
    pub reason: Arc<str>,
}

/// Where it is told on. Called with a lock held: it must not wait.
pub trait EjectionSink: Debug + Send + Sync + 'static {
    /// These and no others are out as far as the node is concerned.
    fn replace(&self, node: &str, ejected: Vec<Ejected>, now: Instant);
}

/// All streams that report. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporters {
    sink: Arc<dyn EjectionSink>,
    streams: Arc<Mutex<Streams>>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    /// Each with its node and what it says.
    open: BTreeMap<u64, (Arc<str>, Out)>,
}

type Out = BTreeMap<EndpointId, (Instant, Arc<str>)>;

/// Held by a stream; dropping it takes back what it said.
#[derive(Debug)]
pub struct Reporting {
    number: u64,
    node: Arc<str>,
    reporters: Reporters,
    clock: fn() -> Instant,
}

impl Reporters {
    #[must_use]
    pub fn new(sink: Arc<dyn EjectionSink>) -> Self {
        Self { sink, streams: Arc::default() }
    }

    /// One more stream of that node; none when there are too many. `clock` is asked once more when it ends.
    #[must_use]
    pub fn begin(&self, node: &str, clock: fn() -> Instant) -> Option<Reporting> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.open.len() >= REPORTERS_MAX {
            return None;
        }
        let (number, node) = (streams.next, Arc::<str>::from(node));
        streams.next += 1;
        streams.open.insert(number, (node.clone(), Out::new()));
        Some(Reporting { number, node, reporters: self.clone(), clock })
    }

    /// Puts `out` in the place of what the stream said before, or forgets the stream.
    fn replace(&self, number: u64, node: &Arc<str>, out: Option<Out>, now: Instant) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let is_silent = out.as_ref().is_none_or(BTreeMap::is_empty);
        let before = match out {
            Some(out) => streams.open.insert(number, (node.clone(), out)),
            None => streams.open.remove(&number),
        };
        if is_silent && before.is_none_or(|(_, before)| before.is_empty()) {
            return; // as most reports are
        }
        let mut together = Out::new();
        for (_, out) in streams.open.values().filter(|(other, _)| other == node) {
            merge(&mut together, out.iter().map(|(id, (until, reason))| (id, *until, reason)));
        }
        together.retain(|_, (until, _)| *until > now);
        let ejected = together.into_iter().map(|(endpoint, (until, reason))| Ejected { endpoint, until, reason });
        self.sink.replace(node, ejected.collect(), now);
    }
}

impl Reporting {
    /// The stream's newest report, in place of the one before. Returns how many ejections were left out.
    pub fn told(&self, report: &LoadReport, now: Instant) -> usize {
        let all: Vec<_> = report.ejections().collect();
        let taken = all.iter().take(EJECTIONS_MAX).filter_map(|(id, ejection)| {
            // Further away than this clock reaches is no time at all.
            Some((*id, now.checked_add(ejection.left)?, &ejection.reason))
        });
        let mut out = Out::new();
        merge(&mut out, taken.filter(|(_, until, _)| *until > now));
        self.reporters.replace(self.number, &self.node, Some(out), now);
        all.len().saturating_sub(EJECTIONS_MAX)
    }

    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.reporters.replace(self.number, &self.node, None, (self.clock)());
    }
}

/// An endpoint that is out twice (of two clusters, or for two proxies) is out until the later time.
fn merge<'a>(into: &mut Out, more: impl Iterator<Item = (&'a EndpointId, Instant, &'a Arc<str>)>) {
    for (id, until, reason) in more {
        match into.get_mut(id) {
            Some((known, _)) if *known >= until => {}
            Some(entry) => *entry = (until, reason.clone()),
            None => drop(into.insert(id.clone(), (until, reason.clone()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_xds::load::{ClusterLoad, Ejection, EndpointLoad};

    use super::*;

    /// What it was told last, by node, as `id:seconds`.
    #[derive(Debug, Default)]
    struct Heard(Mutex<BTreeMap<String, Vec<String>>>, Mutex<usize>);

    impl EjectionSink for Heard {
        fn replace(&self, node: &str, ejected: Vec<Ejected>, now: Instant) {
            let shown = ejected.iter().map(|one| format!("{}:{}", one.endpoint, (one.until - now).as_secs()));
            self.0.lock().unwrap().insert(node.to_owned(), shown.collect());
            *self.1.lock().unwrap() += 1;
        }
    }

    impl Heard {
        fn of(&self, node: &str) -> String {
            self.0.lock().unwrap().get(node).map(|all| all.join(" ")).unwrap_or_default()
        }
    }

    /// `c1:30 c2:10`: who is out, and for how many seconds.
    fn report(text: &str) -> LoadReport {
        let endpoint = |word: &str| {
            let (unit, seconds) = word.split_once(':').unwrap();
            let left = seconds.parse().map(Duration::from_secs).unwrap_or(Duration::MAX);
            EndpointLoad {
                id: EndpointId::new(unit, 0),
                address: "10.0.0.5:80".parse().unwrap(),
                zone: None,
                priority: 0,
                issued: 1,
                succeeded: 0,
                failed: 1,
                in_progress: 0,
                ejection: (seconds != "-").then(|| Ejection { left, reason: "5 failures in a row".into() }),
            }
        };
        let endpoints = text.split_whitespace().map(endpoint).collect();
        LoadReport {
            clusters: vec![ClusterLoad { cluster: "web".into(), interval: Duration::from_secs(5), endpoints }],
        }
    }

    #[test]
    fn a_stream_says_all_and_takes_it_back_when_it_ends() {
        let (heard, now) = (Arc::new(Heard::default()), Instant::now());
        let reporters = Reporters::new(heard.clone());
        let one = reporters.begin("a", Instant::now).unwrap();
        one.told(&report("c1:30 c2:10 c3:-"), now);
        assert_eq!(heard.of("a"), "c1@0:30 c2@0:10");
        one.told(&report("c2:8"), now);
        assert_eq!(heard.of("a"), "c2@0:8");
        // Of two clusters, the later; a time that no clock reaches is not believed.
        one.told(&report("c2:8 c2:9 c2:7 c4:forever"), now);
        assert_eq!(heard.of("a"), "c2@0:9");
        // Another proxy of the same name, and one of another.
        let (two, other) = (reporters.begin("a", Instant::now).unwrap(), reporters.begin("b", Instant::now).unwrap());
        two.told(&report("c2:20 c5:1"), now);
        other.told(&report("c1:3"), now);
        assert_eq!((heard.of("a"), heard.of("b")), ("c2@0:20 c5@0:1".into(), "c1@0:3".into()));
        // A second later what is over is not told any more.
        one.told(&report("c1:30"), now + Duration::from_secs(1));
        assert_eq!(heard.of("a"), "c1@0:30 c2@0:19");
        drop(two);
        assert!(heard.of("a").starts_with("c1@0:"), "{}", heard.of("a"));
        assert!(!heard.of("a").contains("c2"), "{}", heard.of("a"));
        drop(one);
        assert_eq!((heard.of("a"), heard.of("b")), (String::new(), "c1@0:3".into()));
    }

    #[test]
    fn who_has_nobody_out_disturbs_nobody() {
        let (heard, now) = (Arc::new(Heard::default()), Instant::now());
        let reporters = Reporters::new(heard.clone());
        let stream = reporters.begin("a", Instant::now).unwrap();
        for _ in 0..3 {
            stream.told(&report("c1:- c2:0"), now);
        }
        drop(stream);
        assert_eq!(*heard.1.lock().unwrap(), 0);
    }

    #[test]
    fn streams_and_ejections_have_a_bound() {
        let (heard, now) = (Arc::new(Heard::default()), Instant::now());
        let reporters = Reporters::new(heard.clone());
        let mut streams: Vec<_> = (0..REPORTERS_MAX).filter_map(|_| reporters.begin("a", Instant::now)).collect();
        assert!(reporters.begin("b", Instant::now).is_none());
        streams.pop();
        let stream = reporters.begin("b", Instant::now).unwrap();
        let many: Vec<String> = (0..EJECTIONS_MAX + 7).map(|number| format!("c{number}:30")).collect();
        assert_eq!(stream.told(&report(&many.join(" ")), now), 7);
        assert_eq!(heard.of("b").split(' ').count(), EJECTIONS_MAX);
    }
}
