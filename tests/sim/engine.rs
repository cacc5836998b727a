//! A simulated container engine: units start after a while, serve, hang, fail, are stopped, killed, restarted and forgotten,
//! and their addresses go to the next one at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::names::{EndpointId, Name};
use mesh_core::model::replicas::{ReplicaId, RuntimeKind};
use mesh_discovery::provider::docker::observe::Containers;
use mesh_discovery::runtime::{ObservedReplica, ReplicaSpec, RuntimeError, UnitId};

use crate::desk::{Answer, Desk, Order};
use crate::sky::Sky;
use crate::unit::{Behaviour, Life, STOP_TIMEOUT, Unit};

/// So few that they come round soon.
const ADDRESSES: u8 = 40;
/// From the start to the end of a unit whose service crashes.
const CRASHES_AFTER: Duration = Duration::from_millis(800);

/// What the engine tells to whoever listens.
#[derive(Debug, Clone)]
pub enum Event {
    Changed,
    /// It was told to stop.
    Kill(EndpointId),
}

#[derive(Default)]
pub struct Engine {
    pub desk: Desk,
    pub units: BTreeMap<UnitId, Unit>,
    /// Services whose units end soon after they start.
    pub crashing: BTreeSet<Name>,
    /// How many units were ever started.
    pub starts: u64,
    /// Orders it has read, and when it carries them out.
    accepted: Vec<(Duration, u64, Order)>,
    /// The last one given back is the next one given out.
    free: Vec<IpAddr>,
    events: Vec<Event>,
    /// Every life there ever was: its address, and when it ended, in waking time.
    lives: BTreeMap<EndpointId, (IpAddr, Option<Duration>)>,
    /// Its API does not answer until then.
    down_until: Duration,
}

impl Engine {
    pub fn new() -> Self {
        let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        Self { free: (1..=ADDRESSES).rev().map(address).collect(), ..Self::default() }
    }

    /// Time passes: orders are carried out, what was told to stop ends, and healthchecks notice.
    pub fn advance(&mut self, sky: &mut Sky) {
        self.serve(sky);
        let (mut ending, mut changed) = (Vec::new(), false);
        for unit in self.units.values_mut().filter(|unit| unit.is_up()) {
            let crashes = self.crashing.contains(&unit.spec.id.service) && sky.now >= unit.started + CRASHES_AFTER;
            match unit.life {
                Life::Stopping { until } if until <= sky.now => ending.push((unit.id.unit.clone(), 0)),
                Life::Up if crashes => ending.push((unit.id.unit.clone(), 1)),
                _ => changed |= unit.advance(sky),
            }
        }
        for (unit, code) in ending {
            self.end(sky, &unit, code);
        }
        if changed {
            self.events.push(Event::Changed);
        }
    }

    fn serve(&mut self, sky: &mut Sky) {
        for (ticket, order) in self.desk.take_orders() {
            let takes = sky.up_to(if sky.is_stormy { 1_000 } else { 100 });
            self.accepted.push((sky.now + takes, ticket, order));
        }
        for (at, ticket, order) in std::mem::take(&mut self.accepted) {
            let answer = if at > sky.now { None } else { self.obey(sky, &order) };
            match answer {
                Some(answer) => self.desk.answer(ticket, answer),
                None => self.accepted.push((at, ticket, order)),
            }
        }
    }

    /// None while it takes longer.
    fn obey(&mut self, sky: &mut Sky, order: &Order) -> Option<Answer> {
        if self.is_down(sky) {
            let message = "nobody listens".to_owned();
            return Some(Err(RuntimeError::Unavailable { runtime: RuntimeKind::Docker, message }));
        }
        match order {
            Order::Stop(unit) => {
                let life = self.units.get(unit).map(|unit| unit.life);
                if life == Some(Life::Up) {
                    self.stop(sky, unit);
                }
                matches!(life, None | Some(Life::Ended { .. })).then(|| Ok(unit.clone()))
            }
            Order::Remove(unit) => Some(self.remove(unit).map(|()| unit.clone())),
            Order::Start(spec) if sky.mishap(10) => {
                let (unit, message) = (spec.id.to_string(), "no space left on device".to_owned());
                Some(Err(RuntimeError::Refused { unit, operation: "start", message }))
            }
            Order::Start(spec) => Some(self.start(sky, spec)),
        }
    }

    /// Slots for which an order was read and not carried out yet.
    pub fn ordered<'a>(&'a self, service: &'a Name) -> impl Iterator<Item = &'a Order> {
        let of_service = move |order: &&Order| match order {
            Order::Start(spec) => spec.id.service == *service,
            Order::Stop(unit) | Order::Remove(unit) => {
                self.units.get(unit).is_some_and(|unit| unit.spec.id.service == *service)
            }
        };
        self.accepted.iter().map(|(_, _, order)| order).filter(of_service)
    }

    /// Makes and starts a unit, as a runtime does it: the living one of that name and configuration is the answer as it is.
    pub fn start(&mut self, sky: &mut Sky, spec: &Arc<ReplicaSpec>) -> Answer {
        if let Some(there) = self.units.values().find(|unit| unit.spec.id == spec.id) {
            let unit = there.id.unit.clone();
            match there.is_up() {
                true if there.spec.config_hash == spec.config_hash => return Ok(unit),
                true => return Err(RuntimeError::NameTaken { name: spec.id.to_string() }),
                false => self.remove(&unit)?,
            }
        }
        self.starts += 1;
        let unit: UnitId = format!("{:064x}", self.starts).into();
        let address = self.free.pop().expect("there are more addresses than units");
        let id = EndpointId::new(&unit, self.starts);
        let takes = sky.up_to(if sky.is_stormy { 4_000 } else { 500 });
        sky.tell(format_args!("{} starts as {} at {address}", spec.id, self.starts));
        self.lives.insert(id.clone(), (address, None));
        self.units.insert(unit.clone(), Unit::new(sky, id, spec.clone(), address, takes));
        self.events.push(Event::Changed);
        Ok(unit)
    }

    /// Tells it to stop; it ends within its stop timeout.
    pub fn stop(&mut self, sky: &mut Sky, unit: &UnitId) {
        let takes = sky.up_to(STOP_TIMEOUT.as_millis() as u64);
        let Some(unit) = self.units.get_mut(unit).filter(|unit| unit.life == Life::Up) else { return };
        unit.life = Life::Stopping { until: sky.now + takes };
        sky.tell(format_args!("{} is told to stop", unit.spec.id));
        self.events.push(Event::Kill(unit.id.clone()));
    }

    /// It ends, this instant.
    pub fn end(&mut self, sky: &mut Sky, unit: &UnitId, code: i32) {
        let Some(unit) = self.units.get_mut(unit).filter(|unit| unit.is_up()) else { return };
        unit.life = Life::Ended { code };
        unit.is_paused = false;
        sky.tell(format_args!("{} ends with {code}, {} is free", unit.spec.id, unit.address));
        self.free.push(unit.address);
        self.lives.insert(unit.id.clone(), (unit.address, Some(sky.awake)));
        self.events.push(Event::Changed);
    }

    /// One that runs starts again: another life, most likely at another's address.
    pub fn restart(&mut self, sky: &mut Sky, unit: &UnitId) {
        if self.units.get(unit).is_none_or(|unit| unit.life != Life::Up) {
            return;
        }
        self.end(sky, unit, 0);
        let Some(there) = self.units.get_mut(unit) else { return };
        self.starts += 1;
        // The oldest free one, so that the next start gets the one just left.
        let address = self.free.remove(0);
        let id = EndpointId::new(unit, self.starts);
        let takes = sky.up_to(2_000);
        *there = Unit::new(sky, id, there.spec.clone(), address, takes);
        sky.tell(format_args!("{} starts again as {} at {address}", there.spec.id, self.starts));
        self.lives.insert(there.id.clone(), (address, None));
    }

    pub fn remove(&mut self, unit: &UnitId) -> Result<(), RuntimeError> {
        match self.units.get(unit) {
            Some(there) if there.is_up() => {
                let (unit, message) = (there.spec.id.to_string(), "it runs".to_owned());
                Err(RuntimeError::Refused { unit, operation: "remove", message })
            }
            Some(_) => {
                self.units.remove(unit);
                self.events.push(Event::Changed);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Frozen, or thawed again.
    pub fn pause(&mut self, sky: &mut Sky, unit: &UnitId, is_paused: bool) {
        if let Some(unit) = self.units.get_mut(unit).filter(|unit| unit.life == Life::Up && unit.is_paused != is_paused)
        {
            unit.is_paused = is_paused;
            sky.tell(format_args!("{} is {}", unit.spec.id, if is_paused { "paused" } else { "unpaused" }));
            self.events.push(Event::Changed);
        }
    }

    pub fn behave(&mut self, sky: &mut Sky, unit: &UnitId, behaviour: Behaviour) {
        if let Some(unit) = self.units.get_mut(unit).filter(|unit| unit.is_up()) {
            unit.behaviour = behaviour;
            sky.tell(format_args!("{} is {behaviour:?} from now on", unit.spec.id));
        }
    }

    /// Its API is away for a while, and what it would have told is never told.
    pub fn go_down(&mut self, sky: &mut Sky, longest: Duration) {
        self.down_until = sky.now + sky.up_to(longest.as_millis() as u64);
        sky.tell(format_args!("the engine does not answer until {:?}", self.down_until));
    }

    pub fn is_down(&self, sky: &Sky) -> bool {
        sky.now < self.down_until
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What a provider reads: everything that runs.
    pub fn containers(&self, sky: &Sky) -> Containers {
        let running = self.units.values().filter(|unit| unit.is_up());
        running.map(|unit| (unit.id.unit.clone(), unit.container(sky))).collect()
    }

    /// What a runtime reads: everything that is there.
    pub fn replicas(&self, sky: &Sky) -> Vec<ObservedReplica> {
        self.units.values().map(|unit| unit.replica(sky)).collect()
    }

    /// Who answers at an address.
    pub fn at(&self, address: SocketAddr) -> Option<&Unit> {
        self.units.values().find(|unit| unit.is_up() && unit.address == address.ip())
    }

    /// Whether this very life goes on.
    pub fn living(&self, id: &EndpointId) -> Option<&Unit> {
        self.units.get(&id.unit).filter(|unit| unit.id == *id && unit.is_up())
    }

    /// For how long it has been over, in waking time; zero while it lives.
    pub fn over_for(&self, sky: &Sky, id: &EndpointId) -> Duration {
        let ended = self.lives.get(id).and_then(|(_, ended)| *ended);
        ended.map_or(Duration::ZERO, |ended| sky.awake - ended)
    }

    pub fn address_of(&self, id: &EndpointId) -> Option<IpAddr> {
        self.lives.get(id).map(|(address, _)| *address)
    }

    /// Living ones in a slot of the service, except those being stopped.
    pub fn staying<'a>(&'a self, of: &'a ReplicaId) -> impl Iterator<Item = &'a Unit> {
        let same = move |unit: &&Unit| unit.spec.id.project == of.project && unit.spec.id.service == of.service;
        self.units.values().filter(same).filter(|unit| unit.life == Life::Up)
    }
}
