//! The provider of the simulated engine: the real one's rules and its pure parts, over hints that may be lost, late, doubled
//! and out of order. A whole list comes every now and then. The file provider stands beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::names::EndpointId;
use mesh_discovery::provider::docker::drain::DrainBook;
use mesh_discovery::provider::docker::observe::{Containers, Scope, observe};
use mesh_discovery::provider::{Observation, ProviderName, Sight, docker, file};

use crate::engine::{Engine, Event};
use crate::link::{Lossy, Pipe};
use crate::sky::Sky;

const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// The longest time for which the engine's API is away.
pub const DOWN_MAX: Duration = Duration::from_secs(8);

/// How long an endpoint may be told of whose life is over: its end fell just after a whole list, the hint was lost, and when the
/// next list was due the engine did not answer; then what was read takes its time to arrive.
pub const STALE_MAX: Duration = Duration::from_secs(30 + 8 + 1 + 2);

/// What a provider tells.
#[derive(Debug, Clone)]
pub struct Told {
    pub provider: ProviderName,
    pub observation: Observation,
    /// It cannot see anything at the moment, and tells what it saw last.
    pub is_error: bool,
}

/// What never changes by itself: two endpoints of one priority, one of another, and one without a share.
fn static_file(heavy: u32) -> String {
    format!(
        "services:\n  - name: cache\n    namespace: shop\n    ports: [{{ name: http, port: 7000, protocol: http }}]\n    \
         endpoints:\n      - {{ address: '192.168.0.1:7000', weight: {heavy} }}\n      \
         - {{ address: '192.168.0.2:7000', weight: 1 }}\n      - {{ address: '192.168.0.3:7000', priority: 1 }}\n      \
         - {{ address: '192.168.0.4:7000', weight: 0 }}\n"
    )
}

pub struct Watch {
    containers: Containers,
    drains: DrainBook,
    hints: Lossy<Event>,
    told: Pipe<Told>,
    last: Option<Observation>,
    read_at: Option<Duration>,
    resync_at: Duration,
    was_down: bool,
    has_looked: bool,
    file: Observation,
    heavy: u32,
}

impl Watch {
    /// Begins to read at once.
    pub fn new(sky: &mut Sky, heavy: u32) -> Self {
        let file = file::parse::parse("mesh.yaml", &static_file(heavy)).expect("the file is right");
        let mut watch = Self {
            containers: Containers::new(),
            drains: DrainBook::default(),
            hints: Lossy::new(),
            told: Pipe::new(),
            last: None,
            read_at: None,
            resync_at: sky.now,
            was_down: false,
            has_looked: false,
            file,
            heavy,
        };
        watch.tell_file(sky, None);
        watch
    }

    pub fn heavy(&self) -> u32 {
        self.heavy
    }

    /// The file changes: to other weights, or to something that does not parse.
    pub fn edit_file(&mut self, sky: &mut Sky) {
        let heavy = sky.random.u32(1..=5);
        let text = if sky.random.bool() { static_file(heavy) } else { "services: [{ nmae: x }]".to_owned() };
        match file::parse::parse("mesh.yaml", &text) {
            Ok(file) => {
                (self.file, self.heavy) = (file, heavy);
                self.tell_file(sky, None);
            }
            Err(problems) => self.tell_file(sky, Some(problems.to_string())),
        }
    }

    fn tell_file(&mut self, sky: &mut Sky, problem: Option<String>) {
        let mut observation = self.file.clone();
        let is_error = problem.is_some();
        let condition = |text| Condition::new("file/mesh.yaml", ConditionKind::InvalidFile, text);
        observation.conditions.extend(problem.map(condition));
        self.told.send(sky, Told { provider: "file", observation, is_error });
    }

    /// One step; what arrives at the registry in it.
    pub fn advance(&mut self, sky: &mut Sky, engine: &mut Engine) -> Vec<Told> {
        let is_down = engine.is_down(sky);
        for event in engine.take_events() {
            // A stream that is broken carries nothing, and nobody repeats it.
            if !is_down {
                self.hints.send(sky, event);
            }
        }
        for hint in self.hints.receive(sky) {
            self.hear(sky, hint);
        }
        if is_down != self.was_down {
            // The loss of the stream is noticed, and after it everything is read again.
            (self.was_down, self.read_at) = (is_down, Some(sky.now));
        }
        if sky.now >= self.resync_at {
            self.resync_at = sky.now + RESYNC_INTERVAL;
            self.look(sky, engine);
        } else if self.read_at.is_some_and(|at| at <= sky.now) {
            self.look(sky, engine);
        }
        if self.drains.next_deadline().is_some_and(|deadline| deadline <= sky.instant()) {
            self.forget_drained(sky);
            self.tell(sky, false);
        }
        std::iter::from_fn(|| self.told.receive(sky)).collect()
    }

    fn hear(&mut self, sky: &mut Sky, hint: Event) {
        if let Event::Kill(id) = hint
            && let Some(container) = self.containers.get(&id.unit).filter(|container| container.id == id)
        {
            self.drains.note(&id, container.stop_timeout, sky.instant());
            self.tell(sky, false);
        }
        let at = sky.now + sky.up_to(200);
        self.read_at = Some(self.read_at.map_or(at, |due| due.min(at)));
    }

    fn look(&mut self, sky: &mut Sky, engine: &Engine) {
        self.read_at = None;
        let is_down = engine.is_down(sky);
        if is_down {
            self.read_at = Some(sky.now + Duration::from_secs(1));
        } else {
            self.containers = engine.containers(sky);
            self.has_looked = true;
            self.forget_drained(sky);
        }
        self.tell(sky, is_down);
    }

    fn forget_drained(&mut self, sky: &Sky) {
        let containers = &self.containers;
        let lives = |id: &EndpointId| containers.get(&id.unit).is_some_and(|container| container.id == *id);
        self.drains.retain(sky.instant(), lives);
    }

    /// Only what is news.
    fn tell(&mut self, sky: &mut Sky, is_error: bool) {
        let mut observation = observe(&self.containers, &Scope::default(), &self.drains, sky.instant());
        let expected: BTreeSet<&EndpointId> = self.containers.values().map(|container| &container.id).collect();
        let seen: BTreeSet<&EndpointId> = observation.endpoints.iter().map(|seen| &seen.endpoint.id).collect();
        assert_eq!(seen, expected, "{sky}: not every container became an endpoint: {:?}", observation.conditions);
        observation.sight = if self.has_looked { Sight::Seen } else { Sight::Blind };
        if is_error {
            let kind = ConditionKind::ProviderUnavailable;
            observation.conditions.push(Condition::new("provider/docker", kind, "the engine does not answer"));
        }
        if self.last.as_ref() != Some(&observation) {
            self.last = Some(observation.clone());
            self.told.send(sky, Told { provider: docker::NAME, observation, is_error });
        }
    }
}
