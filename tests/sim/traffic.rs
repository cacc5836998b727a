//! Requests through the simulated proxies: the walk of `outbound.rs` over the real breaker, budget, balancer, deadlines, retry
//! rule and outlier rule, at the simulated engine's units. Each is accounted for exactly once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::names::EndpointId;
use mesh_proxy::endpoint::{ActiveRequest, ClusterStats, EndpointStats, LiveCluster, LiveEndpoint, OpenConnection};
use mesh_proxy::resilience::breaker::{self, Limit, Permit};
use mesh_proxy::resilience::budget;
use mesh_proxy::resilience::outlier::Outcome;
use mesh_proxy::resilience::retry::{self, Failure, Verdict};
use mesh_proxy::resilience::timeout::Deadlines;

use crate::engine::Engine;
use crate::proxy::{Proxy, WORKERS};
use crate::request_rules::{check_pick, judge};
use crate::sky::Sky;
use crate::unit::Behaviour;
use crate::watch::STALE_MAX;

/// Whoever asked goes away then.
const PATIENCE: Duration = Duration::from_secs(20);

/// For how long a proxy may go on with an endpoint whose life is over: discovery's own delay, then a restart of it, and the way
/// to the proxy, once over a broken stream.
const GONE_MAX: Duration = Duration::from_secs(STALE_MAX.as_secs() + 10 + 30);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Answered,
    /// A 5xx went to the client.
    Failed,
    /// No endpoint took it up.
    Unreached,
    Overflow,
    Nobody,
    OutOfTime,
    /// The client went away.
    GivenUp,
    /// The proxy was killed.
    ProxyGone,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub begun: u64,
    pub ends: BTreeMap<End, u64>,
    pub tries: u64,
    pub retries: u64,
    pub ejections: u64,
    /// Answered by whoever had the address after the one that was meant.
    pub astray: u64,
}

/// One request on its way.
struct Call {
    number: u64,
    proxy: usize,
    worker: usize,
    begun: Duration,
    /// As it was when the request began.
    cluster: Arc<LiveCluster>,
    deadlines: Deadlines,
    idempotent: bool,
    attempt: u32,
    tried: Vec<EndpointId>,
    current: Try,
    _permit: Permit,
}

/// One try of it.
struct Try {
    endpoint: Arc<LiveEndpoint>,
    phase: Phase,
    _active: ActiveRequest,
}

enum Phase {
    /// Nobody says no, and nobody says yes, until then.
    Connecting {
        until: Duration,
    },
    Refused {
        at: Duration,
    },
    Waiting {
        at: Duration,
        with: Option<EndpointId>,
        _connection: OpenConnection,
    },
}

/// What a step of a call came to.
enum Further {
    Waits(Call),
    Ends(End),
}

#[derive(Default)]
pub struct Traffic {
    pub tally: Tally,
    under_way: Vec<Call>,
    /// Tries of each endpoint, counted here too; the value keeps its key alive.
    tries: HashMap<*const EndpointStats, (Arc<EndpointStats>, u64)>,
    /// First tries and charged retries of each cluster.
    budgets: HashMap<*const ClusterStats, Budget>,
}

struct Budget {
    stats: Arc<ClusterStats>,
    since: Duration,
    requests: u64,
    charged: u64,
}

impl Traffic {
    /// One request to some cluster that the proxy knows.
    pub fn call(&mut self, sky: &mut Sky, engine: &Engine, proxies: &mut [Proxy], at: usize) -> Option<End> {
        let names = proxies[at].cluster_names();
        let name = names[sky.any_of(names.len())?].clone();
        self.call_cluster(sky, engine, proxies, at, &name)
    }

    pub fn call_cluster(
        &mut self,
        sky: &mut Sky,
        engine: &Engine,
        proxies: &mut [Proxy],
        at: usize,
        name: &str,
    ) -> Option<End> {
        let idempotent = sky.random.u8(0..4) > 0;
        self.begin(sky, engine, (proxies, at), name, idempotent)
    }

    pub fn call_idempotent(
        &mut self,
        sky: &mut Sky,
        engine: &Engine,
        proxies: &mut [Proxy],
        at: usize,
        name: &str,
    ) -> Option<End> {
        self.begin(sky, engine, (proxies, at), name, true)
    }

    /// The end of it, where it comes at once.
    fn begin(
        &mut self,
        sky: &mut Sky,
        engine: &Engine,
        (proxies, at): (&mut [Proxy], usize),
        name: &str,
        idempotent: bool,
    ) -> Option<End> {
        let cluster = proxies[at].cluster(name)?.clone();
        self.tally.begun += 1;
        let ended = |tally: &mut Tally, end| {
            *tally.ends.entry(end).or_default() += 1;
            Some(end)
        };
        let Ok(permit) = breaker::acquire(&cluster, Limit::Requests) else {
            assert!(cluster.stats().requests() >= cluster.policy().circuit.requests_max, "{sky}: {name} is not full");
            return ended(&mut self.tally, End::Overflow);
        };
        budget::note_request(&cluster, sky.instant());
        self.budget(sky, &cluster).requests += 1;
        let deadlines = Deadlines::new(cluster.policy(), sky.instant());
        let worker = sky.random.usize(0..WORKERS);
        let endpoint = match pick(sky, &mut proxies[at], worker, &cluster, &[]) {
            Some(endpoint) => endpoint,
            None => return ended(&mut self.tally, End::Nobody),
        };
        let current = self.begin_try(sky, engine, &endpoint, &deadlines);
        let call = Call {
            number: self.tally.begun,
            proxy: at,
            worker,
            begun: sky.now,
            cluster,
            deadlines,
            idempotent,
            attempt: 0,
            tried: Vec::new(),
            current,
            _permit: permit,
        };
        self.under_way.push(call);
        None
    }

    /// One step of all that are on their way.
    pub fn advance(&mut self, sky: &mut Sky, engine: &Engine, proxies: &mut [Proxy]) {
        for call in std::mem::take(&mut self.under_way) {
            let (number, begun) = (call.number, call.begun);
            match self.further(sky, engine, proxies, call) {
                Further::Waits(call) => self.under_way.push(call),
                Further::Ends(end) => {
                    if end != End::Answered {
                        sky.tell(format_args!("request {number} of {begun:?} ends: {end:?}"));
                    }
                    *self.tally.ends.entry(end).or_default() += 1;
                }
            }
        }
        self.check(sky, proxies);
    }

    /// What was on its way through a proxy that is killed.
    pub fn lose(&mut self, proxy: usize) {
        let before = self.under_way.len();
        self.under_way.retain(|call| call.proxy != proxy);
        let lost = before - self.under_way.len();
        *self.tally.ends.entry(End::ProxyGone).or_default() += lost as u64;
    }

    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn ended(&self, end: End) -> u64 {
        self.tally.ends.get(&end).copied().unwrap_or(0)
    }

    fn further(&mut self, sky: &mut Sky, engine: &Engine, proxies: &mut [Proxy], mut call: Call) -> Further {
        let now = sky.instant();
        if call.deadlines.expired(now) {
            self.judge(sky, &call, Outcome::LocalFailure);
            return Further::Ends(End::OutOfTime);
        }
        if sky.now >= call.begun + PATIENCE {
            return Further::Ends(End::GivenUp);
        }
        let failure = match &call.current.phase {
            Phase::Connecting { until } | Phase::Refused { at: until } if sky.now < *until => {
                return Further::Waits(call);
            }
            Phase::Connecting { .. } | Phase::Refused { .. } => Failure::Connect,
            Phase::Waiting { at, with, .. } => match listen(sky, engine, *at, with.as_ref()) {
                Heard::Nothing => return Further::Waits(call),
                Heard::Status(status) if status < 500 => {
                    self.judge(sky, &call, Outcome::of_status(status));
                    return Further::Ends(End::Answered);
                }
                Heard::Status(status) => Failure::Status(status),
                Heard::Reset => Failure::Reset { connection_reused: false, bytes_sent: true, response_begun: false },
            },
        };
        let outcome = if matches!(failure, Failure::Status(_)) { Outcome::ServerError } else { Outcome::LocalFailure };
        self.judge(sky, &call, outcome);
        let ends = Further::Ends(if outcome == Outcome::ServerError { End::Failed } else { End::Unreached });
        let request = retry::Request { idempotent: call.idempotent, replayable: true, attempt: call.attempt };
        let Verdict::Retry { charged, .. } = retry::decide(&call.cluster.policy().retry, request, failure) else {
            return ends;
        };
        let may = call.idempotent || call.cluster.policy().retry.methods == mesh_core::model::policy::RetryMethods::Any;
        assert!(may || failure == Failure::Connect, "{sky}: request {}: {failure:?} is tried again", call.number);
        if charged {
            if !budget::withdraw(&call.cluster, now) {
                return ends;
            }
            self.budget(sky, &call.cluster).charged += 1;
        }
        call.tried.push(call.current.endpoint.id().clone());
        call.attempt += 1;
        self.tally.retries += 1;
        let attempts = call.cluster.policy().retry.attempts;
        assert!(call.attempt <= attempts, "{sky}: request {}: retry {} of {attempts}", call.number, call.attempt);
        match pick(sky, &mut proxies[call.proxy], call.worker, &call.cluster, &call.tried) {
            Some(endpoint) => {
                call.current = self.begin_try(sky, engine, &endpoint, &call.deadlines);
                Further::Waits(call)
            }
            None => Further::Ends(End::Nobody),
        }
    }

    fn begin_try(
        &mut self,
        sky: &mut Sky,
        engine: &Engine,
        endpoint: &Arc<LiveEndpoint>,
        deadlines: &Deadlines,
    ) -> Try {
        let (id, address) = (endpoint.id(), endpoint.target.address);
        let over_for = engine.over_for(sky, id);
        assert!(over_for <= GONE_MAX, "{sky}: {id} gets a request {over_for:?} after its end");
        self.tally.tries += 1;
        let stats = &endpoint.stats;
        self.tries.entry(Arc::as_ptr(stats)).or_insert_with(|| (stats.clone(), 0)).1 += 1;
        let active = endpoint.begin_request();
        let soon = sky.now + sky.up_to(200);
        let silent = sky.now + (deadlines.connect(sky.instant()) - sky.instant());
        let phase = if engine.address_of(id).is_none() {
            // What the file names is beyond the engine: there, and well.
            waiting(endpoint, soon, None)
        } else {
            match engine.at(address) {
                Some(unit) if unit.accepts(sky) => waiting(endpoint, soon, Some(unit.id.clone())),
                Some(_) => Phase::Refused { at: soon },
                // The network says so, or nobody says anything.
                None if sky.random.bool() => Phase::Refused { at: soon },
                None => Phase::Connecting { until: silent },
            }
        };
        if let Phase::Waiting { with: Some(with), .. } = &phase
            && with != id
        {
            assert!(!over_for.is_zero(), "{sky}: {with} gets what was meant for {id}, which lives");
            self.tally.astray += 1;
        }
        Try { endpoint: endpoint.clone(), phase, _active: active }
    }

    fn judge(&mut self, sky: &mut Sky, call: &Call, outcome: Outcome) {
        self.tally.ejections += u64::from(judge(sky, &call.cluster, &call.current.endpoint, outcome));
    }

    fn budget(&mut self, sky: &Sky, cluster: &LiveCluster) -> &mut Budget {
        let stats = cluster.stats();
        let fresh = || Budget { stats: stats.clone(), since: sky.now, requests: 0, charged: 0 };
        self.budgets.entry(Arc::as_ptr(stats)).or_insert_with(fresh)
    }

    /// Nothing is counted twice, and nothing is lost.
    fn check(&self, sky: &Sky, proxies: &[Proxy]) {
        let ended: u64 = self.tally.ends.values().sum();
        let under_way = self.under_way.len() as u64;
        assert_eq!(self.tally.begun, ended + under_way, "{sky}: begun, and ended or under way: {:?}", self.tally);
        for (index, proxy) in proxies.iter().enumerate() {
            for cluster in proxy.view.clusters.values() {
                let of = |call: &&Call| Arc::ptr_eq(call.cluster.stats(), cluster.stats());
                let calls = self.under_way.iter().filter(of);
                let (name, counted) = (cluster.name(), cluster.stats().requests());
                assert_eq!(counted as usize, calls.clone().count(), "{sky}: {name}: requests under way");
                assert!(
                    calls.clone().all(|call| call.proxy == index),
                    "{sky}: two proxies share the counters of {name}"
                );
                for endpoint in cluster.endpoints() {
                    let at = |call: &&Call| Arc::ptr_eq(&call.current.endpoint.stats, &endpoint.stats);
                    let active = endpoint.stats.active_requests() as usize;
                    assert_eq!(
                        active,
                        calls.clone().filter(at).count(),
                        "{sky}: {name}: requests at {}",
                        endpoint.id()
                    );
                    let tries = self.tries.get(&Arc::as_ptr(&endpoint.stats)).map_or(0, |(_, tries)| *tries);
                    assert_eq!(endpoint.stats.requests_total(), tries, "{sky}: {name}: tries at {}", endpoint.id());
                }
            }
        }
        for Budget { stats, since, requests, charged } in self.budgets.values() {
            // Each ten seconds' share may be lent to the next ten.
            let spare = (sky.now - *since).as_secs() * 10 + 20;
            let most = requests * 2 / 5 + spare;
            assert!(*charged <= most, "{sky}: {charged} charged retries for {requests} requests: {stats:?}");
        }
    }
}

enum Heard {
    Nothing,
    Status(u16),
    Reset,
}

/// What has come back so far.
fn listen(sky: &Sky, engine: &Engine, at: Duration, with: Option<&EndpointId>) -> Heard {
    let Some(with) = with else {
        return if sky.now < at { Heard::Nothing } else { Heard::Status(200) };
    };
    match engine.living(with) {
        None => Heard::Reset,
        Some(unit) if sky.now < at || !unit.answers() => Heard::Nothing,
        Some(unit) if unit.behaviour == Behaviour::Answers500 => Heard::Status(500),
        Some(_) => Heard::Status(200),
    }
}

/// A connection that came about, with what it holds.
fn waiting(endpoint: &Arc<LiveEndpoint>, at: Duration, with: Option<EndpointId>) -> Phase {
    Phase::Waiting { at, with, _connection: endpoint.open_connection() }
}

/// The endpoint for one try; none when nobody takes requests.
fn pick(
    sky: &mut Sky,
    proxy: &mut Proxy,
    worker: usize,
    cluster: &Arc<LiveCluster>,
    tried: &[EndpointId],
) -> Option<Arc<LiveEndpoint>> {
    let (seed, now) = (sky.seed, sky.instant());
    let name = cluster.name();
    let picked = proxy.balancer(worker, name, seed).pick(cluster, tried, now);
    check_pick(sky, cluster, tried, picked.as_ref());
    picked.ok().map(|pick| pick.endpoint.clone())
}
