//! Step 1, in words: the `mesh.*` labels of one container, typed. A mistake is a problem of that one key; the others hold, and
//! what is missing has its default.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod policy; // the keys that say how calls to the service are treated
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use mesh_core::config::suggest;
use mesh_core::model::condition::ConditionKind;
use mesh_core::model::endpoint::CaptureMode;
use mesh_core::model::names::Name;
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;

/// What our labels begin with.
pub const PREFIX: &str = "mesh.";

/// The same in reverse-DNS form, as Docker's guidelines want it of third parties; the short form wins where both stand.
pub const LONG_PREFIX: &str = "internal.mesh.";

/// Compose's labels, read and written.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
pub const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";

/// An image's own version, the default of `mesh.version` (OCI image spec, annotations).
pub const IMAGE_VERSION: &str = "org.opencontainers.image.version";

/// What our own controller writes on what it makes; said nothing about here. `mesh.own.` is its prefix for everything else.
pub const OWN_KEYS: [&str; 2] = [RUN_KEY, "mesh.managed-by"];
/// On the containers of a mesh that has some to itself (the demo): no other mesh of the engine takes them.
pub const RUN_KEY: &str = "mesh.run";
pub const OWN_PREFIX: &str = "mesh.own.";

/// Every key with a meaning, for "did you mean".
const KEYS: [&str; 11] = [
    "mesh.enable",
    "mesh.service",
    "mesh.namespace",
    "mesh.port",
    "mesh.protocol",
    "mesh.weight",
    "mesh.version",
    "mesh.network",
    "mesh.publish-not-ready",
    "mesh.capture",
    "mesh.zone",
];

/// Keys that the conventions name and this version does not act on yet: an operator learns that, not a wrong guess.
const LATER: [&str; 5] = ["mesh.tier", "mesh.health.", "mesh.heal", "mesh.scale.", "mesh.depends-on"];

/// A weight beyond this would overflow the sum that xDS allows for one locality with any sensible number of replicas.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Free text (a version, a zone) is cut off nowhere: longer than this is a mistake.
const TEXT_LENGTH_MAX: usize = 128;

/// What the labels of one container say. `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub enable: Option<bool>,
    pub service: Option<Name>,
    pub namespace: Option<Name>,
    /// In order of name; empty: what the image exposes.
    pub ports: Vec<PortSetting>,
    /// Of ports that say nothing themselves.
    pub protocol: Protocol,
    pub weight: Option<u32>,
    pub version: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    /// As written: a network's name, with or without the Compose project, or its id.
    pub network: Option<Arc<str>>,
    pub publish_not_ready: bool,
    pub capture: CaptureMode,
    /// Some where any key of it is there.
    pub policy: Option<Policy>,
}

/// One port that the labels name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSetting {
    pub name: Name,
    pub port: u16,
    pub protocol: Protocol,
}

/// What is wrong with one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelProblem {
    pub key: String,
    pub kind: ConditionKind,
    /// Names key and value, and what would be right.
    pub message: String,
}

/// Reads what `labels` say to the mesh; labels of others are passed over.
#[must_use]
pub fn read(labels: &BTreeMap<String, String>) -> (Settings, Vec<LabelProblem>) {
    let mut reader =
        Reader { settings: Settings::default(), problems: Vec::new(), ports: BTreeMap::new(), single: None };
    for (key, value) in labels {
        let Some(short) = short_form(key) else { continue };
        if short != *key && labels.contains_key(&short) {
            continue;
        }
        reader.take(key, &short, value.trim());
    }
    reader.finish()
}

/// `mesh.port` of `mesh.port` and of `internal.mesh.port`; none for a label that is not ours.
fn short_form(key: &str) -> Option<String> {
    if key.starts_with(PREFIX) {
        return Some(key.to_owned());
    }
    key.strip_prefix(LONG_PREFIX).map(|rest| format!("{PREFIX}{rest}"))
}

/// What `mesh.ports.<n>.*` says so far.
#[derive(Debug, Default)]
struct PortParts {
    port: Option<u16>,
    /// A port that was given, but wrong: its absence needs no second complaint.
    port_was_wrong: bool,
    protocol: Option<Protocol>,
}

struct Reader {
    settings: Settings,
    problems: Vec<LabelProblem>,
    ports: BTreeMap<Name, PortParts>,
    single: Option<u16>,
}

impl Reader {
    fn take(&mut self, key: &str, short: &str, value: &str) {
        if OWN_KEYS.contains(&short) || short.starts_with(OWN_PREFIX) {
            return;
        }
        let taken = match short {
            "mesh.enable" => boolean(value).map(|v| self.settings.enable = Some(v)),
            "mesh.service" => name(value).map(|v| self.settings.service = Some(v)),
            "mesh.namespace" => name(value).map(|v| self.settings.namespace = Some(v)),
            "mesh.port" => port(value).map(|v| self.single = Some(v)),
            "mesh.protocol" => protocol(value).map(|v| self.settings.protocol = v),
            "mesh.weight" => number(value, WEIGHT_MAX).map(|v| self.settings.weight = Some(v)),
            "mesh.version" => text(value).map(|v| self.settings.version = Some(v)),
            "mesh.zone" => text(value).map(|v| self.settings.zone = Some(v)),
            "mesh.network" => text(value).map(|v| self.settings.network = Some(v)),
            "mesh.publish-not-ready" => boolean(value).map(|v| self.settings.publish_not_ready = v),
            "mesh.capture" => capture(value).map(|v| self.settings.capture = v),
            _ if short.starts_with("mesh.ports.") => self.take_port(short, value),
            _ => match policy::take(&mut self.settings.policy, short, value) {
                Some(taken) => taken,
                None => Err(Wrong::Unknown(unknown(short))),
            },
        };
        match taken {
            Ok(()) => {}
            Err(Wrong::Value(wanted)) => {
                self.complain(key, ConditionKind::InvalidLabel, format!("{key}={value}: {wanted}"));
            }
            Err(Wrong::Unknown(hint)) => {
                self.complain(key, ConditionKind::UnknownLabel, format!("{key}={value}: {hint}"));
            }
        }
    }

    /// `mesh.ports.<n>.port` and `mesh.ports.<n>.protocol`.
    fn take_port(&mut self, short: &str, value: &str) -> Result<(), Wrong> {
        let rest = short.strip_prefix("mesh.ports.").unwrap_or_default();
        let Some((port_name, field)) = rest.rsplit_once('.') else {
            return Err(Wrong::Unknown("mesh.ports.<name>.port and mesh.ports.<name>.protocol are known".to_owned()));
        };
        let port_name = Name::new(port_name).map_err(|error| Wrong::Value(error.to_string()))?;
        match field {
            "port" => {
                let parts = self.ports.entry(port_name).or_default();
                parts.port_was_wrong = true;
                parts.port = Some(port(value)?);
            }
            "protocol" => {
                let spoken = protocol(value)?;
                self.ports.entry(port_name).or_default().protocol = Some(spoken);
            }
            _ => return Err(Wrong::Unknown(did_you_mean(field, ["port", "protocol"], "port and protocol are known"))),
        }
        Ok(())
    }

    fn complain(&mut self, key: &str, kind: ConditionKind, message: String) {
        self.problems.push(LabelProblem { key: key.to_owned(), kind, message });
    }

    fn finish(mut self) -> (Settings, Vec<LabelProblem>) {
        let default = self.settings.protocol;
        if let Some(port) = self.single {
            self.settings.ports.push(PortSetting { name: number_name(port), port, protocol: default });
        }
        for (name, parts) in std::mem::take(&mut self.ports) {
            // An unnamed port is named by its number, so such a name says the port as well.
            let port = parts.port.or_else(|| name.as_str().parse().ok().filter(|number| *number > 0));
            match port {
                Some(port) => {
                    let protocol = parts.protocol.unwrap_or(default);
                    // `mesh.port=8080` with `mesh.ports.http.port=8080`: one port, and the name is the better one.
                    self.settings.ports.retain(|other| other.port != port);
                    self.settings.ports.push(PortSetting { name, port, protocol });
                }
                None if parts.port_was_wrong => {}
                None => {
                    let key = format!("mesh.ports.{name}.protocol");
                    let message = format!("{key}: mesh.ports.{name}.port is missing, so it is left out");
                    self.complain(&key, ConditionKind::InvalidLabel, message);
                }
            }
        }
        self.settings.ports.sort_by(|a, b| a.name.cmp(&b.name));
        (self.settings, self.problems)
    }
}

/// The name of a port that has none.
#[must_use]
pub fn number_name(port: u16) -> Name {
    Name::new(&port.to_string()).expect("a number is made of digits, at most five of them")
}

/// Why a label is not taken.
#[derive(Debug)]
enum Wrong {
    /// Its value; what would be right.
    Value(String),
    /// Its key; what may have been meant.
    Unknown(String),
}

fn wanted<T, E>(result: Result<T, E>, wanted: impl Display) -> Result<T, Wrong> {
    result.map_err(|_| Wrong::Value(format!("{wanted} is wanted")))
}

fn unknown(short: &str) -> String {
    if LATER.iter().any(|later| short == *later || (later.ends_with('.') && short.starts_with(later))) {
        return "known, but not supported yet; it has no effect".to_owned();
    }
    let known = KEYS.iter().copied().chain(policy::KEYS);
    did_you_mean(short, known, "no such label")
}

fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    match suggest::nearest(word, known) {
        Some(meant) => format!("{otherwise}; did you mean {meant}?"),
        None => otherwise.to_owned(),
    }
}

fn boolean(value: &str) -> Result<bool, Wrong> {
    wanted(value.parse(), "true or false")
}

fn name(value: &str) -> Result<Name, Wrong> {
    Name::new(value).map_err(|error| Wrong::Value(error.to_string()))
}

fn port(value: &str) -> Result<u16, Wrong> {
    wanted(
        value.parse().map_err(|_| ()).and_then(|port| if port == 0 { Err(()) } else { Ok(port) }),
        "a port from 1 to 65535",
    )
}

fn number(value: &str, max: u32) -> Result<u32, Wrong> {
    let parsed = value.parse().map_err(|_| ()).and_then(|number| if number > max { Err(()) } else { Ok(number) });
    wanted(parsed, format_args!("a whole number from 0 to {max}"))
}

fn protocol(value: &str) -> Result<Protocol, Wrong> {
    one_of(value, Protocol::ALL.map(|protocol| (protocol.as_str(), protocol)))
}

fn capture(value: &str) -> Result<CaptureMode, Wrong> {
    let words = [
        ("auto", CaptureMode::Auto),
        ("service", CaptureMode::Service),
        ("pinned", CaptureMode::Pinned),
        ("off", CaptureMode::Off),
    ];
    one_of(value, words)
}

fn one_of<T: Copy, const N: usize>(value: &str, words: [(&str, T); N]) -> Result<T, Wrong> {
    if let Some((_, found)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(*found);
    }
    let all = words.map(|(word, _)| word);
    Err(Wrong::Value(did_you_mean(value, all, &format!("one of {} is wanted", all.join(", ")))))
}

fn text(value: &str) -> Result<Arc<str>, Wrong> {
    let fits = !value.is_empty() && value.len() <= TEXT_LENGTH_MAX && !value.contains(char::is_whitespace);
    let wanted = format!("1 to {TEXT_LENGTH_MAX} characters without white space are wanted");
    if fits && !value.contains(char::is_control) { Ok(value.into()) } else { Err(Wrong::Value(wanted)) }
}
