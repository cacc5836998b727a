//! When to look at the engine, and what is told of it. One task holds everything that is known; events are heard while a look is
//! under way, so that a container that was told to stop is draining within milliseconds.

mod event; // what an event hints at (pure)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::task::backoff::Backoff;
use mesh_core::task::drain::Drain;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

use super::NAME;
use super::arrive::{ARRIVALS_MAX, Arrival, Arrivals, look};
use super::client::{Engine, EngineError, EngineUrl, describe};
use super::drain::{self, DrainBook};
use super::metrics::{Metrics, Resync};
use super::observe::{Containers, Scope, arriving, observe};
use super::read::{Order, Seen, read};
use crate::provider::{Observation, ObservationSender, Sight};
use event::{Hint, Kill, Step};

/// Everything is inspected again this often, whatever the events said.
pub const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Between two tries to reach an engine that does not answer.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A session that lasted this long was a good one: the next failure is a first one again.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// Events from this long before the subscription are asked for as well, so that none falls between it and the list.
const OVERLAP: Duration = Duration::from_secs(2);

/// `kill` events of containers that are not known yet; the eldest are forgotten first.
const EARLY_KILLS_MAX: usize = 256;

/// Why a session with the engine ended.
enum End {
    Engine(EngineError),
    NobodyListens,
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Seen, EngineError>> + Send>>;
type Look = Pin<Box<dyn Future<Output = Result<Option<Arrival>, EngineError>> + Send>>;

/// All that is known of one engine.
pub(super) struct Watch {
    url: EngineUrl,
    scope: Scope,
    observations: ObservationSender,
    metrics: Metrics,
    containers: Containers,
    /// Containers that the engine cannot tell about, by id: name and why.
    odd: BTreeMap<Arc<str>, (Arc<str>, String)>,
    drains: DrainBook,
    arrivals: Arrivals,
    early_kills: VecDeque<Kill>,
    /// The engine's own time of the newest event, in nanoseconds; the next subscription begins there.
    heard_until_nanos: Option<i64>,
    listed: bool,
    told: Option<Observation>,
}

/// What is to be read next, and when.
#[derive(Default)]
struct Agenda {
    due: Option<Instant>,
    everything: Option<Resync>,
    changed: BTreeSet<Arc<str>>,
    /// Containers that joined a network before they run.
    joining: Vec<(Arc<str>, Arc<str>)>,
}

impl Agenda {
    /// Reads at `at` or earlier; hints that come meanwhile ride along.
    fn at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Watch {
    pub(super) fn new(url: EngineUrl, scope: Scope, observations: ObservationSender, metrics: Metrics) -> Self {
        Self {
            url,
            scope,
            observations,
            metrics,
            containers: Containers::new(),
            odd: BTreeMap::new(),
            drains: DrainBook::default(),
            arrivals: Arrivals::default(),
            early_kills: VecDeque::new(),
            heard_until_nanos: None,
            listed: false,
            told: None,
        }
    }

    pub(super) async fn run(mut self, mut announced: Option<mpsc::Receiver<Arc<str>>>, mut drain: Drain) {
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_MAX, fastrand::u64(..));
        let mut warned: Option<String> = None;
        loop {
            let began = Instant::now();
            let end = tokio::select! {
                () = drain.started() => return,
                end = self.session(&mut announced) => end,
            };
            let Err(End::Engine(error)) = end else { return };
            if began.elapsed() >= GOOD_SESSION {
                backoff.reset();
                warned = None;
            }
            let wait = backoff.next_wait();
            let kept = self.kept();
            // An engine that is not there is not told anew with every try.
            match Some(describe(&error)) {
                error if error == warned => tracing::debug!(engine = %self.url, error, "still lost; {kept}"),
                error => {
                    tracing::warn!(engine = %self.url, error, "engine lost; {kept}");
                    warned = error;
                }
            }
            self.metrics.failed();
            if self.tell(Some(&error)).await.is_err() {
                return;
            }
            tokio::select! {
                () = drain.started() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// From a connection to its loss.
    async fn session(
        &mut self,
        announced: &mut Option<mpsc::Receiver<Arc<str>>>,
    ) -> Result<std::convert::Infallible, End> {
        let engine = Engine::connect(&self.url).await?;
        // Polled before the first list is asked for; what falls between is in the overlap.
        let mut events = engine.docker.events(Some(self.subscription()));
        let first = if self.listed { Resync::Reconnect } else { Resync::Start };
        let now = Instant::now();
        let mut agenda = Agenda { due: Some(now), everything: Some(first), ..Agenda::default() };
        let mut reading: Option<Reading> = None;
        let mut looks: FuturesUnordered<Look> = FuturesUnordered::new();
        let mut period = interval_at((now + RESYNC_INTERVAL).into(), RESYNC_INTERVAL);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look_at = agenda.due.filter(|_| reading.is_none());
            let undrain_at = self.drains.next_deadline();
            for (container, network) in std::mem::take(&mut agenda.joining) {
                if looks.len() < ARRIVALS_MAX {
                    looks.push(Box::pin(look(engine.clone(), container, network)));
                }
            }
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => self.hear(event, &mut agenda).await?,
                    Some(Err(error)) => return Err(engine.failed("events", &error).into()),
                    None => return Err(EngineError::StreamEnded { url: self.url.to_string() }.into()),
                },
                Some(seen) = OptionFuture::from(reading.as_mut()) => {
                    reading = None;
                    self.apply(seen?);
                    self.tell(None).await?;
                }
                Some(arrival) = looks.next() => match arrival {
                    Ok(Some(arrival)) => {
                        self.welcome(arrival);
                        self.tell(None).await?;
                    }
                    Ok(None) => {}
                    // It will be seen when it runs.
                    Err(error) => tracing::debug!(error = %describe(&error), "who is about to start cannot be found out"),
                },
                () = at(self.arrivals.next_expiry()) => {
                    self.arrivals.retain(Instant::now(), |_| true);
                    self.tell(None).await?;
                }
                Some(Some(id)) = OptionFuture::from(announced.as_mut().map(mpsc::Receiver::recv)) => {
                    if self.note_stop(&id, Instant::now()) {
                        self.tell(None).await?;
                    }
                }
                () = at(look_at) => reading = Some(self.begin_reading(&engine, &mut agenda)),
                () = at(undrain_at) => {
                    self.forget_drained();
                    self.tell(None).await?;
                }
                _ = period.tick() => {
                    agenda.everything = Some(Resync::Period);
                    agenda.at(Instant::now());
                }
            }
        }
    }

    fn subscription(&self) -> bollard::query_parameters::EventsOptions {
        let since = match self.heard_until_nanos {
            Some(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
            // Another clock than the engine's perhaps; a wrong one costs at most a repeated or a missing overlap.
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP),
        };
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        EventsOptionsBuilder::default().since(&since).filters(&event::filters()).build()
    }

    /// Notes what an event hints at; a container told to stop is told on at once, before anything is read.
    async fn hear(&mut self, event: EventMessage, agenda: &mut Agenda) -> Result<(), End> {
        self.metrics.heard();
        self.heard_until_nanos = event.time_nano.max(self.heard_until_nanos);
        let Some(Hint { container, kill, step, wait }) = event::hint(event, self.scope.only_label.as_ref()) else {
            return Ok(());
        };
        let now = Instant::now();
        if let Some(kill) = kill {
            if self.note_kill(&kill, now) {
                return self.tell(None).await;
            }
            if !self.containers.contains_key(&kill.container) {
                self.early_kills.push_back(kill);
                if self.early_kills.len() > EARLY_KILLS_MAX {
                    self.early_kills.pop_front();
                }
            }
        }
        match step {
            Step::Joins(network) if !self.containers.contains_key(&container) => {
                agenda.joining.push((container.clone(), network));
            }
            Step::Leaves if self.arrivals.forget(&container) => self.tell(None).await?,
            Step::Joins(_) | Step::Leaves | Step::Else => {}
        }
        agenda.changed.insert(container);
        agenda.at(now + wait);
        Ok(())
    }

    /// It may have started while we asked about it.
    fn welcome(&mut self, arrival: Arrival) {
        if !self.containers.contains_key(&arrival.container) {
            tracing::debug!(container = %arrival.name, addresses = ?arrival.addresses, "about to start");
            self.arrivals.add(arrival, Instant::now());
        }
    }

    /// True when a known container begins to drain because of it.
    fn note_kill(&mut self, kill: &Kill, now: Instant) -> bool {
        let Some(container) = self.containers.get(&kill.container) else { return false };
        // Heard again after a reconnect, of a life that is over.
        let of_this_life = kill.at_millis.is_none_or(|at| at >= container.id.start);
        let means_the_end = drain::is_stop(&kill.signal, container.stop_signal.as_deref());
        of_this_life && means_the_end && self.drains.note(&container.id, container.stop_timeout, now)
    }

    /// True when a known container begins to drain because somebody said that it will be stopped.
    fn note_stop(&mut self, id: &str, now: Instant) -> bool {
        let Some(container) = self.containers.get(id) else { return false };
        self.drains.note(&container.id, container.stop_timeout, now)
    }

    fn begin_reading(&self, engine: &Engine, agenda: &mut Agenda) -> Reading {
        let Agenda { everything, changed, .. } = std::mem::take(agenda);
        if let Some(reason) = everything {
            self.metrics.resynced(reason);
            tracing::debug!(engine = %self.url, reason = reason.as_str(), "everything is read again");
        }
        let known = self.containers.iter().map(|(id, container)| (id.clone(), container.network.clone())).collect();
        let only_label = self.scope.only_label.clone();
        Box::pin(read(engine.clone(), Order { all: everything.is_some(), changed, known, only_label }))
    }

    fn apply(&mut self, seen: Seen) {
        self.containers.retain(|id, _| seen.present.contains(id));
        self.odd.retain(|id, _| seen.present.contains(id));
        for container in seen.inspected {
            self.odd.remove(&container.id.unit);
            self.containers.insert(container.id.unit.clone(), container);
        }
        self.odd.extend(seen.odd);
        self.listed = true;
        let now = Instant::now();
        let containers = &self.containers;
        self.arrivals.retain(now, |container| !containers.contains_key(container));
        for kill in std::mem::take(&mut self.early_kills) {
            self.note_kill(&kill, now);
        }
        self.forget_drained();
    }

    fn forget_drained(&mut self) {
        let containers = &self.containers;
        self.drains.retain(Instant::now(), |id| containers.get(&id.unit).is_some_and(|container| container.id == *id));
    }

    /// Tells what is known, where that is news.
    async fn tell(&mut self, lost: Option<&EngineError>) -> Result<(), End> {
        let mut observation = observe(&self.containers, &self.scope, &self.drains, Instant::now());
        observation.arriving = arriving(self.arrivals.iter(), &self.scope);
        for (name, message) in self.odd.values() {
            let message = format!("the engine cannot tell about it: {message}");
            observation.conditions.push(Condition::new(
                format!("container/{name}"),
                ConditionKind::ProviderUnavailable,
                message,
            ));
        }
        if let Some(error) = lost {
            let message = format!("{}; {}", describe(error), self.kept());
            observation.conditions.push(Condition::new("provider/docker", ConditionKind::ProviderUnavailable, message));
        }
        observation.sight = match lost {
            _ if self.listed => Sight::Seen,
            Some(EngineError::Absent { .. }) => Sight::Absent,
            Some(_) | None => Sight::Blind,
        };
        if self.told.as_ref() == Some(&observation) {
            return Ok(());
        }
        self.log_news(&observation);
        self.told = Some(observation.clone());
        self.observations.send((NAME, observation)).await.map_err(|_| End::NobodyListens)
    }

    /// What holds while the engine does not answer.
    fn kept(&self) -> &'static str {
        if self.listed { "the last good list stays" } else { "nothing is known of its containers yet" }
    }

    /// Each condition is logged when it appears, not each time it is told.
    fn log_news(&self, observation: &Observation) {
        let before = self.told.as_ref().map_or(&[][..], |told| &told.conditions);
        for condition in observation.conditions.iter().filter(|condition| !before.contains(condition)) {
            tracing::warn!(object = %condition.object, kind = %condition.kind, "{}", condition.message);
        }
        let (services, endpoints) = (observation.services.len(), observation.endpoints.len());
        tracing::debug!(engine = %self.url, services, endpoints, "observed");
    }
}

/// Until then; for ever where there is no then.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
