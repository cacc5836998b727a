//! The sums over all workers, as families for a scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mesh_core::model::policy::RetryOn;
use mesh_core::model::reason::Reason;
use mesh_core::telemetry::metrics::DURATION_BUCKETS_SECONDS;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::{CLASSES, ClusterCounts, ConnectionEnd, Count, Series, WorkerMetrics};
use crate::balance::{Standing, explain};
use crate::h1::limits::Limit as H1Limit;
use crate::h2::Limit as H2Limit;
use crate::identity::handshake::Why;
use crate::resilience::breaker::Limit;
use crate::state::view::SharedView;

/// Everything a proxy counts.
pub struct ProxyCollector {
    workers: Vec<Arc<WorkerMetrics>>,
    view: SharedView,
}

impl ProxyCollector {
    #[must_use]
    pub fn new(workers: Vec<Arc<WorkerMetrics>>, view: SharedView) -> Self {
        Self { workers, view }
    }

    fn series(&self) -> Vec<Arc<Series>> {
        let alive = |worker: &Arc<WorkerMetrics>| alive(&mut worker.shared().series);
        self.workers.iter().flat_map(alive).collect()
    }

    fn counts(&self) -> Vec<Arc<ClusterCounts>> {
        let alive = |worker: &Arc<WorkerMetrics>| alive(&mut worker.shared().counts);
        self.workers.iter().flat_map(alive).collect()
    }

    fn sum(&self, count: impl Fn(&WorkerMetrics) -> &Count) -> u64 {
        // A gauge's worker may have counted below zero what another counted above: they add up all the same.
        self.workers.iter().fold(0, |sum, worker| sum.wrapping_add(count(worker).get()))
    }
}

/// Those still held by someone; the others are dropped.
fn alive<T>(list: &mut Vec<Weak<T>>) -> Vec<Arc<T>> {
    list.retain(|one| one.strong_count() > 0);
    list.iter().filter_map(Weak::upgrade).collect()
}

impl Collector for ProxyCollector {
    fn desc(&self) -> Vec<&Desc> {
        // Families come and go with what is counted: an unchecked collector, in the words of Prometheus' clients.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = requests(&self.series());
        families.extend(clusters(&self.counts()));
        families.extend(self.connections());
        families.extend(self.endpoints());
        families
    }
}

fn requests(series: &[Arc<Series>]) -> Vec<MetricFamily> {
    let mut outcomes: Family = Family::new();
    let mut durations: BTreeMap<Labels, ([u64; DURATION_BUCKETS_SECONDS.len() + 1], u64)> = BTreeMap::new();
    for one in series {
        let base = || {
            vec![
                ("source", one.source.to_string()),
                ("destination", one.destination.to_string()),
                ("protocol", one.spoken.as_str().to_owned()),
            ]
        };
        for (class, reasons) in CLASSES.iter().zip(&one.outcomes) {
            for (index, count) in reasons.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let reason = index.checked_sub(1).map_or("-", |index| Reason::ALL[index].flag());
                let mut labels = base();
                labels.extend([("code_class", (*class).to_owned()), ("reason", reason.to_owned())]);
                *outcomes.entry(labels).or_default() += count.get() as f64;
            }
        }
        let (buckets, nanos) = durations.entry(base()).or_default();
        one.buckets.iter().zip(buckets).for_each(|(count, sum)| *sum += count.get());
        *nanos += one.duration_nanos.get();
    }
    vec![
        counter("mesh_requests_total", "Requests and raw connections that ended.", outcomes),
        histogram(
            "mesh_request_duration_seconds",
            "From the whole request head to the last byte of the response; of raw connections, their life.",
            durations,
        ),
    ]
}

fn clusters(counts: &[Arc<ClusterCounts>]) -> Vec<MetricFamily> {
    let sum = |count: &dyn Fn(&ClusterCounts) -> &Count| {
        let mut family = Family::new();
        for one in counts {
            let labels = vec![("destination", one.destination.to_string())];
            *family.entry(labels).or_default() += count(one).get() as f64;
        }
        family
    };
    let (mut retries, mut overflows, mut waited) = (Family::new(), Family::new(), Family::new());
    for one in counts {
        let labels = vec![("destination", one.destination.to_string())];
        *waited.entry(labels).or_default() += one.waited_nanos.get() as f64 / 1e9;
        for (on, count) in RetryOn::ALL.iter().zip(&one.retries).filter(|(_, count)| count.get() > 0) {
            let labels = vec![("destination", one.destination.to_string()), ("on", on.as_str().to_owned())];
            *retries.entry(labels).or_default() += count.get() as f64;
        }
        for (limit, count) in Limit::ALL.iter().zip(&one.overflows) {
            let labels = vec![("destination", one.destination.to_string()), ("limit", limit.as_str().to_owned())];
            *overflows.entry(labels).or_default() += count.get() as f64;
        }
    }
    vec![
        counter("mesh_retries_total", "Further tries of requests, by what they were for.", retries),
        counter(
            "mesh_retry_budget_exhausted_total",
            "Retries that were not made since the budget was spent.",
            sum(&|one| &one.budget_exhausted),
        ),
        counter(
            "mesh_retry_bodies_not_kept_total",
            "Retries that were not made since the request's body was longer than is kept, or broke off.",
            sum(&|one| &one.bodies_not_kept),
        ),
        counter("mesh_ejections_total", "Endpoints taken out.", sum(&|one| &one.ejections)),
        counter("mesh_upstream_connects_total", "Connections opened to endpoints.", sum(&|one| &one.connects)),
        counter(
            "mesh_upstream_connect_failures_total",
            "Connections to endpoints that did not come about.",
            sum(&|one| &one.connect_failures),
        ),
        counter(
            "mesh_circuit_overflows_total",
            "Requests that found a limit of the circuit reached: that of connections, and waited; any other, and were refused.",
            overflows,
        ),
        counter(
            "mesh_upstream_wait_seconds_total",
            "How long requests waited for a connection to come free, all together.",
            waited,
        ),
        counter(
            "mesh_tcp_sent_bytes_total",
            "Bytes of raw and switched connections, to endpoints.",
            sum(&|one| &one.sent_bytes),
        ),
        counter(
            "mesh_tcp_received_bytes_total",
            "Bytes of raw and switched connections, from endpoints.",
            sum(&|one| &one.received_bytes),
        ),
    ]
}

impl ProxyCollector {
    fn connections(&self) -> Vec<MetricFamily> {
        let plain =
            |name: &str, help: &str, value: u64| counter(name, help, Family::from([(Vec::new(), value as f64)]));
        let ends = ConnectionEnd::ALL.iter().map(|end| {
            let value = self.sum(|worker| &worker.ends[*end as usize]);
            (vec![("end", end.as_str().to_owned())], value as f64)
        });
        let by_worker = self
            .workers
            .iter()
            .enumerate()
            .map(|(index, worker)| (vec![("worker", index.to_string())], worker.connections_active.get() as f64));
        let failures = Why::ALL.iter().map(|why| {
            let value = self.sum(|worker| &worker.tls_handshake_failures[*why as usize]);
            (vec![("why", why.as_str().to_owned())], value as f64)
        });
        let h1_limits = H1Limit::ALL.iter().map(|limit| {
            let value = self.sum(|worker| &worker.h1_limits[*limit as usize]);
            (vec![("limit", limit.as_str().to_owned())], value as f64)
        });
        let h2_limits = H2Limit::ALL.iter().map(|limit| {
            let value = self.sum(|worker| &worker.h2_limits[*limit as usize]);
            (vec![("limit", limit.as_str().to_owned())], value as f64)
        });
        let idle_closes = [
            ("overflow", self.sum(|worker| &worker.pool_idle_overflow)),
            ("expired", self.sum(|worker| &worker.pool_idle_expired)),
            ("closed_by_peer", self.sum(|worker| &worker.pool_idle_closed)),
        ];
        let idle_closes =
            idle_closes.into_iter().map(|(why, value)| (vec![("why", why.to_owned())], value as f64)).collect();
        let gauge_of = |value: u64| Family::from([(Vec::new(), value as i64 as f64)]);
        vec![
            plain(
                "mesh_connections_accepted_total",
                "Connections accepted from clients.",
                self.sum(|worker| &worker.connections_accepted),
            ),
            gauge(
                "mesh_connections_active",
                "Connections of clients that are open.",
                gauge_of(self.sum(|worker| &worker.connections_active)),
            ),
            gauge(
                "mesh_worker_connections_active",
                "Connections of clients that are open, by the worker that carries them.",
                by_worker.collect(),
            ),
            counter("mesh_connections_ended_total", "Connections of clients that ended, by how.", ends.collect()),
            plain("mesh_accept_errors_total", "Accepts that failed.", self.sum(|worker| &worker.accept_errors)),
            plain("mesh_tls_handshakes_total", "TLS handshakes done.", self.sum(|worker| &worker.tls_handshakes)),
            counter("mesh_tls_handshake_failures_total", "TLS handshakes that failed, by why.", failures.collect()),
            counter(
                "mesh_h1_limits_reached_total",
                "Limits of HTTP/1.1 that clients reached: heads refused, connections given up.",
                h1_limits.collect(),
            ),
            counter(
                "mesh_h2_limits_reached_total",
                "Limits of h2 that clients reached: streams refused, heads answered with 431, connections given up.",
                h2_limits.collect(),
            ),
            plain(
                "mesh_detect_timeouts_total",
                "Connections whose client said nothing while its protocol was awaited.",
                self.sum(|worker| &worker.detect_timeouts),
            ),
            plain(
                "mesh_access_log_dropped_total",
                "Access log lines dropped since nobody took them fast enough.",
                self.sum(|worker| &worker.log_lines_dropped),
            ),
            plain(
                "mesh_upstream_reuses_total",
                "Exchanges on a connection that had carried one before (HTTP/1.1).",
                self.sum(|worker| &worker.pool_reused),
            ),
            gauge(
                "mesh_upstream_connections_idle",
                "Connections that wait in a pool (HTTP/1.1).",
                gauge_of(self.sum(|worker| &worker.pool_idle)),
            ),
            counter("mesh_upstream_idle_closes_total", "Idle connections closed, by why.", idle_closes),
        ]
    }

    fn endpoints(&self) -> Vec<MetricFamily> {
        let view = self.view.load();
        let now = Instant::now();
        let mut families: [Family; 5] = Default::default();
        for (name, live) in &view.clusters {
            let destination = live.cluster().service.as_ref().map_or_else(|| name.to_string(), ToString::to_string);
            let labels = || vec![("destination", destination.clone())];
            let stats = live.stats();
            *families[0].entry(labels()).or_default() += f64::from(stats.requests());
            *families[1].entry(labels()).or_default() += f64::from(stats.pending());
            *families[2].entry(labels()).or_default() += f64::from(stats.connections());
            for (_, standing) in explain(live, now) {
                let mut labels = labels();
                labels.push(("standing", standing.as_str().to_owned()));
                *families[3].entry(labels).or_default() += 1.0;
                let out = matches!(standing, Standing::Ejected { .. } | Standing::TakenInPanic { .. });
                *families[4].entry(vec![("destination", destination.clone())]).or_default() += f64::from(u8::from(out));
            }
        }
        let [requests, pending, connections, standing, ejected] = families;
        vec![
            gauge(
                "mesh_upstream_requests_active",
                "Requests and raw connections on their way; not those that wait for a connection to come free.",
                requests,
            ),
            gauge(
                "mesh_upstream_requests_pending",
                "Requests that wait for a connection: for one to come free, or to be opened.",
                pending,
            ),
            gauge("mesh_upstream_connections_active", "Open connections to endpoints.", connections),
            gauge("mesh_endpoints", "Endpoints, by whether requests go to them and why not.", standing),
            gauge("mesh_endpoints_ejected", "Endpoints that are taken out at the moment.", ejected),
        ]
    }
}

type Labels = Vec<(&'static str, String)>;
type Family = BTreeMap<Labels, f64>;

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn counter(name: &str, help: &str, values: Family) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut metric = Metric::from_label(pairs(labels));
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, values.into_iter().map(metric).collect())
}

fn gauge(name: &str, help: &str, values: Family) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut metric = Metric::from_label(pairs(labels));
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    };
    family(name, help, MetricType::GAUGE, values.into_iter().map(metric).collect())
}

fn histogram<const N: usize>(name: &str, help: &str, values: BTreeMap<Labels, ([u64; N], u64)>) -> MetricFamily {
    let metric = |(labels, (counts, nanos)): (Labels, ([u64; N], u64))| {
        let mut cumulative = 0;
        let bucket = |(bound, count): (&f64, u64)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        };
        let buckets = DURATION_BUCKETS_SECONDS.iter().zip(counts).map(bucket).collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(nanos as f64 / 1e9);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        metric
    };
    family(name, help, MetricType::HISTOGRAM, values.into_iter().map(metric).collect())
}
