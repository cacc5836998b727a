//! What is to be reported: the counters of live endpoints, less what was reported before, and who is out now.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::names::EndpointId;
use mesh_xds::load::{ClusterLoad, Ejection, EndpointLoad, LoadReport};

use crate::endpoint::{LiveCluster, LiveEndpoint};

/// Endpoints in one report; it stays below 2 MiB then. Those beyond wait for a later one: first come those that are out, then
/// those with the most to tell.
pub const ENDPOINTS_MAX: usize = 8192;

/// Who is out of which cluster, with the end of it on the cluster's clock: two of them differ when an ejection began or ended.
pub type Ejections = BTreeMap<(Arc<str>, EndpointId), u64>;

/// What was reported so far.
#[derive(Debug)]
pub struct Ledger {
    clusters: HashMap<Arc<str>, Entry>,
    /// When the newest report was made, or the ledger began.
    latest: Instant,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    told: HashMap<EndpointId, Counters>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    issued: u64,
    failed: u64,
    in_progress: u64,
}

/// What is said about one endpoint, and what is counted by then.
struct Line {
    cluster: Arc<str>,
    load: EndpointLoad,
    live: Counters,
}

impl Counters {
    fn of(endpoint: &LiveEndpoint) -> Self {
        let stats = &endpoint.stats;
        let in_progress = stats.active_requests().into();
        Self { issued: stats.requests_total(), failed: stats.failures_total(), in_progress }
    }
}

/// Who is out now.
pub fn ejections(clusters: &[Arc<LiveCluster>], now: Instant) -> Ejections {
    let of = |cluster: &Arc<LiveCluster>| {
        let out = cluster.endpoints().iter().filter(|endpoint| cluster.ejected_for(endpoint, now).is_some());
        let named = |endpoint: &Arc<LiveEndpoint>| {
            ((Arc::clone(cluster.name()), endpoint.id().clone()), endpoint.stats.ejected_until_ms())
        };
        out.map(named).collect::<Vec<_>>()
    };
    clusters.iter().flat_map(of).collect()
}

impl Ledger {
    pub fn new(now: Instant) -> Self {
        Self { clusters: HashMap::new(), latest: now }
    }

    /// The next report about those clusters, and how many endpoints found no room in it.
    pub fn report(&mut self, clusters: &[Arc<LiveCluster>], now: Instant) -> (LoadReport, usize) {
        self.forget(clusters);
        let mut lines: Vec<Line> = clusters.iter().flat_map(|cluster| self.lines(cluster, now)).collect();
        let deferred = lines.len().saturating_sub(ENDPOINTS_MAX);
        if deferred > 0 {
            lines.sort_by_key(|line| Reverse((line.load.ejection.is_some(), line.load.issued.max(line.load.failed))));
            lines.truncate(ENDPOINTS_MAX);
        }
        let mut by_cluster: BTreeMap<Arc<str>, Vec<EndpointLoad>> = BTreeMap::new();
        for line in lines {
            let began = || Entry { since: self.latest, told: HashMap::new() };
            let entry = self.clusters.entry(Arc::clone(&line.cluster)).or_insert_with(began);
            entry.told.insert(line.load.id.clone(), line.live);
            by_cluster.entry(line.cluster).or_default().push(line.load);
        }
        let clusters = by_cluster.into_iter().map(|(cluster, endpoints)| {
            let since = self.clusters.get_mut(&cluster).map_or(now, |entry| std::mem::replace(&mut entry.since, now));
            ClusterLoad { cluster, interval: now.saturating_duration_since(since), endpoints }
        });
        let clusters = clusters.collect();
        self.latest = now;
        (LoadReport { clusters }, deferred)
    }

    /// What went is not remembered; should it come again, it counts from 0.
    fn forget(&mut self, clusters: &[Arc<LiveCluster>]) {
        let live: HashMap<&Arc<str>, _> = clusters.iter().map(|cluster| (cluster.name(), cluster)).collect();
        self.clusters.retain(|name, entry| {
            let Some(cluster) = live.get(name) else { return false };
            entry.told.retain(|id, _| cluster.endpoint(id).is_some());
            true
        });
    }

    /// All there is to say about a cluster.
    fn lines(&self, cluster: &LiveCluster, now: Instant) -> Vec<Line> {
        let told = self.clusters.get(cluster.name()).map(|entry| &entry.told);
        let line = |endpoint: &Arc<LiveEndpoint>| {
            let told = told.and_then(|told| told.get(endpoint.id())).copied().unwrap_or_default();
            let live = Counters::of(endpoint);
            let load = load(cluster, endpoint, (told, live), now)?;
            Some(Line { cluster: Arc::clone(cluster.name()), load, live })
        };
        cluster.endpoints().iter().filter_map(line).collect()
    }
}

/// What of the counter was told: nothing when it is below that, since the endpoint went and came again meanwhile.
fn restarted(told: u64, live: u64) -> u64 {
    if live < told { 0 } else { told }
}

/// None when there is nothing to say.
fn load(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    (told, live): (Counters, Counters),
    now: Instant,
) -> Option<EndpointLoad> {
    let issued = live.issued - restarted(told.issued, live.issued);
    let failed = live.failed - restarted(told.failed, live.failed);
    let ended = told.in_progress.saturating_add(issued).saturating_sub(live.in_progress);
    let ejection = cluster.ejected_for(endpoint, now).map(|left| Ejection { left, reason: reason(cluster) });
    if issued == 0 && ended == 0 && failed == 0 && live.in_progress == 0 && ejection.is_none() {
        return None;
    }
    Some(EndpointLoad {
        id: endpoint.id().clone(),
        address: endpoint.target.address,
        zone: endpoint.target.zone.clone(),
        priority: endpoint.target.priority,
        issued,
        succeeded: ended.saturating_sub(failed),
        failed,
        in_progress: live.in_progress,
        ejection,
    })
}

/// The one rule by which endpoints are taken out.
fn reason(cluster: &LiveCluster) -> Arc<str> {
    format!("{} failures in a row", cluster.policy().outlier.consecutive_5xx).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::model::policy::Policy;

    use super::*;
    use crate::endpoint::tests::{cluster_with, next_version, start, target};
    use crate::resilience::outlier::{Outcome, Verdict, record};

    const SECOND: Duration = Duration::from_secs(1);

    /// `issued/succeeded/failed/in progress`, by the endpoint's last digit.
    fn shown(report: &LoadReport) -> Vec<String> {
        let endpoints = report.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        let show = |load: &EndpointLoad| {
            let out =
                load.ejection.as_ref().map(|out| format!(" out {:?}: {}", out.left, out.reason)).unwrap_or_default();
            let digit = &load.id.unit[load.id.unit.len() - 1..];
            format!("{digit}: {}/{}/{}/{}{out}", load.issued, load.succeeded, load.failed, load.in_progress)
        };
        endpoints.map(show).collect()
    }

    #[test]
    fn each_request_is_told_once() {
        let now = start();
        let cluster = Arc::new(cluster_with(vec![target(0, 1), target(1, 1), target(2, 1)], Policy::default(), now));
        let (clusters, mut ledger) = (vec![Arc::clone(&cluster)], Ledger::new(now));
        let check = |ledger: &mut Ledger, after: Duration, expected: &[&str]| {
            let (report, deferred) = ledger.report(&clusters, now + after);
            assert_eq!((shown(&report), deferred), (expected.iter().map(ToString::to_string).collect(), 0));
            report
        };
        assert!(check(&mut ledger, SECOND, &[]).clusters.is_empty(), "a silent cluster is left out");
        let [first, second, _] = cluster.endpoints() else { panic!() };
        drop((first.begin_request(), first.begin_request()));
        let under_way = second.begin_request();
        record(&cluster, first, Outcome::ServerError, now);
        let report = check(&mut ledger, SECOND * 3, &["0: 2/1/1/0", "1: 1/0/0/1"]);
        assert_eq!(report.clusters[0].interval, SECOND * 2);
        check(&mut ledger, SECOND * 4, &["1: 0/0/0/1"]);
        drop(under_way);
        check(&mut ledger, SECOND * 5, &["1: 0/1/0/0"]);
        check(&mut ledger, SECOND * 6, &[]);
        // One that went and came again begins anew.
        let without = Arc::new(next_version(Some(&cluster), vec![target(1, 1)], Policy::default(), now));
        let back = next_version(Some(&without), vec![target(0, 1), target(1, 1)], Policy::default(), now);
        drop(back.endpoints()[0].begin_request());
        let (report, _) = ledger.report(&[Arc::new(back)], now + SECOND * 7);
        assert_eq!(shown(&report), ["0: 1/1/0/0"]);
    }

    #[test]
    fn who_is_out_is_told_until_it_is_in_again() {
        let now = start();
        let cluster = Arc::new(cluster_with(vec![target(0, 1), target(1, 1)], Policy::default(), now));
        let (clusters, mut ledger) = (vec![Arc::clone(&cluster)], Ledger::new(now));
        assert!(ejections(&clusters, now).is_empty());
        let fail = || record(&cluster, &cluster.endpoints()[1], Outcome::ServerError, now);
        let verdicts: Vec<Verdict> = (0..5).map(|_| fail()).collect();
        assert!(matches!(verdicts[..], [.., Verdict::Ejected { .. }]), "{verdicts:?}");
        let began = ejections(&clusters, now);
        assert_eq!(
            began.keys().map(|(name, id)| format!("{name} {id}")).collect::<Vec<_>>(),
            ["web endpoint-000001@0"]
        );
        assert_eq!(ejections(&clusters, now + SECOND), began, "nothing began or ended meanwhile");
        let (report, _) = ledger.report(&clusters, now + SECOND * 10);
        assert_eq!(shown(&report), ["1: 0/0/5/0 out 20s: 5 failures in a row"]);
        let (report, _) = ledger.report(&clusters, now + SECOND * 20);
        assert_eq!(shown(&report), ["1: 0/0/0/0 out 10s: 5 failures in a row"]);
        assert!(ejections(&clusters, now + SECOND * 30).is_empty());
        assert!(ledger.report(&clusters, now + SECOND * 30).0.clusters.is_empty());
    }

    #[test]
    fn what_finds_no_room_waits() {
        let now = start();
        let targets = (0..ENDPOINTS_MAX as u32 + 3).map(|i| target(i, 1)).collect();
        let cluster = Arc::new(cluster_with(targets, Policy::default(), now));
        let (clusters, mut ledger) = (vec![Arc::clone(&cluster)], Ledger::new(now));
        for endpoint in cluster.endpoints() {
            drop(endpoint.begin_request());
        }
        let last = cluster.endpoints().last().unwrap();
        for _ in 0..5 {
            record(&cluster, last, Outcome::LocalFailure, now);
        }
        let (report, deferred) = ledger.report(&clusters, now + SECOND);
        let told = |report: &LoadReport| report.clusters.iter().map(|cluster| cluster.endpoints.len()).sum::<usize>();
        assert_eq!((told(&report), deferred), (ENDPOINTS_MAX, 3));
        assert_eq!(report.ejections().map(|(id, _)| id).collect::<Vec<_>>(), [last.id()], "who is out comes first");
        let (report, deferred) = ledger.report(&clusters, now + SECOND * 60);
        assert_eq!((told(&report), deferred), (3, 0), "and the rest is not lost");
        assert_eq!(report.clusters.iter().flat_map(|c| &c.endpoints).map(|load| load.issued).sum::<u64>(), 3);
    }
}
