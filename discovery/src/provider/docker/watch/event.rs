//! What an event of the engine hints at: which container to look at, how soon, and whether it was told to stop.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};

/// Events of a starting container come in a row (create, connect, start); one look a little later sees them all.
const SETTLE: Duration = Duration::from_millis(10);

/// Events that can change what is told. `exec_*` are left out: every HEALTHCHECK makes three of them each time.
const CONTAINER_EVENTS: [&str; 11] =
    ["start", "die", "kill", "stop", "pause", "unpause", "rename", "update", "destroy", "restart", "health_status"];
const NETWORK_EVENTS: [&str; 2] = ["connect", "disconnect"];

/// A container to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) container: Arc<str>,
    pub(super) kill: Option<Kill>,
    pub(super) step: Step,
    /// How soon.
    pub(super) wait: Duration,
}

/// What it says of a container that does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It joined this network.
    Joins(Arc<str>),
    /// It is not coming after all.
    Leaves,
    Else,
}

/// A signal was sent to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) container: Arc<str>,
    /// A number, or a name.
    pub(super) signal: String,
    /// By the engine's clock.
    pub(super) at_millis: Option<u64>,
}

/// What the engine is asked to tell about.
pub(super) fn filters() -> HashMap<String, Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let events = [&CONTAINER_EVENTS[..], &NETWORK_EVENTS[..]].concat();
    HashMap::from([("type".to_owned(), words(&["container", "network"])), ("event".to_owned(), words(&events))])
}

/// None for an event that says nothing about a container, or about one without the wanted label.
pub(super) fn hint(event: EventMessage, only_label: Option<&(String, String)>) -> Option<Hint> {
    let action = event.action?;
    // `health_status: healthy`
    let word = action.split(':').next().unwrap_or_default();
    let actor = event.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    match event.typ? {
        EventMessageTypeEnum::CONTAINER if CONTAINER_EVENTS.contains(&word) => {
            if only_label.is_some_and(|(key, value)| attributes.get(key) != Some(value)) {
                return None;
            }
            let container: Arc<str> = actor.id?.into();
            let signal = attributes.get("signal").filter(|_| word == "kill").cloned();
            let at_millis = event.time_nano.and_then(|nanos| u64::try_from(nanos / 1_000_000).ok());
            let kill = signal.map(|signal| Kill { container: container.clone(), signal, at_millis });
            let at_once = ["die", "health_status", "pause", "unpause"].contains(&word);
            let step = if ["die", "destroy"].contains(&word) { Step::Leaves } else { Step::Else };
            Some(Hint { container, kill, step, wait: if at_once { Duration::ZERO } else { SETTLE } })
        }
        // Its actor is the network; labels of the container are not among what it tells.
        EventMessageTypeEnum::NETWORK if NETWORK_EVENTS.contains(&word) => {
            let container = attributes.get("container")?.as_str().into();
            let step = if word == "connect" { Step::Joins(actor.id?.into()) } else { Step::Leaves };
            Some(Hint { container, kill: None, step, wait: SETTLE })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(typ: EventMessageTypeEnum, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        EventMessage {
            typ: Some(typ),
            action: Some(action.to_owned()),
            actor: Some(EventActor { id: Some(id.to_owned()), attributes: Some(attributes) }),
            time_nano: Some(1_500_000_000),
            ..EventMessage::default()
        }
    }

    #[test]
    fn hints_name_the_container() {
        use EventMessageTypeEnum::{CONTAINER, IMAGE, NETWORK};
        let check = |event: EventMessage, expected: Option<(&str, u128)>| {
            let seen = hint(event, None).map(|hint| (hint.container.to_string(), hint.wait.as_millis()));
            assert_eq!(seen.as_ref().map(|(id, wait)| (id.as_str(), *wait)), expected);
        };
        check(event(CONTAINER, "start", "a", &[]), Some(("a", 10)));
        check(event(CONTAINER, "health_status: healthy", "a", &[]), Some(("a", 0)));
        check(event(CONTAINER, "die", "a", &[]), Some(("a", 0)));
        check(event(NETWORK, "connect", "n", &[("container", "a")]), Some(("a", 10)));
        check(event(NETWORK, "create", "n", &[]), None);
        check(event(CONTAINER, "exec_create: true", "a", &[]), None);
        check(event(IMAGE, "start", "a", &[]), None);
        check(EventMessage::default(), None);
    }

    #[test]
    fn a_network_is_joined_before_the_start() {
        use EventMessageTypeEnum::{CONTAINER, NETWORK};
        let check = |typ, action: &str, expected: Step| {
            let step = hint(event(typ, action, "n", &[("container", "a")]), None).map(|hint| hint.step);
            assert_eq!(step, Some(expected), "{action}");
        };
        check(NETWORK, "connect", Step::Joins("n".into()));
        check(NETWORK, "disconnect", Step::Leaves);
        check(CONTAINER, "die", Step::Leaves);
        check(CONTAINER, "start", Step::Else);
    }

    #[test]
    fn a_kill_carries_its_signal_and_time() {
        let killed = hint(event(EventMessageTypeEnum::CONTAINER, "kill", "a", &[("signal", "15")]), None).unwrap();
        assert_eq!(killed.kill, Some(Kill { container: "a".into(), signal: "15".to_owned(), at_millis: Some(1500) }));
        let died = hint(event(EventMessageTypeEnum::CONTAINER, "die", "a", &[("signal", "15")]), None).unwrap();
        assert_eq!(died.kill, None);
    }

    #[test]
    fn others_than_the_labelled_ones_are_not_heard() {
        let label = ("mesh.run".to_owned(), "1".to_owned());
        let hinted = |attributes| hint(event(EventMessageTypeEnum::CONTAINER, "start", "a", attributes), Some(&label));
        assert!(hinted(&[("mesh.run", "1")]).is_some());
        assert!(hinted(&[("mesh.run", "2")]).is_none());
        assert!(hinted(&[]).is_none());
    }
}
