//! One service of the file.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::port::{published_ports, service_ports};
use super::read::{DEFAULT_NETWORK, x_mesh_runtime};
use super::{
    Attachment, DEFAULT_STOP_GRACE_PERIOD, Dependency, DependencyCondition, EnvFile, HealthTest, Healthcheck, Restart,
    Service, Volume, command, keys,
};
use crate::config::section::{Section, text_of};
use crate::model::names::Name;
use crate::model::replicas::RuntimeKind;

/// More replicas than this are taken for a slip of the finger.
pub const REPLICAS_MAX: u32 = 1000;

/// What holds for all services of a file.
pub(super) struct Defaults<'a> {
    pub(super) runtime: RuntimeKind,
    pub(super) directory: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
}

pub(super) fn read(section: &Section<'_>, defaults: &Defaults<'_>) -> Option<Service> {
    keys::SERVICE.check(section);
    let x_mesh = section.section("x-mesh");
    let runtime = x_mesh.and_then(|section| x_mesh_runtime(&section)).unwrap_or(defaults.runtime);
    let deploy = section.section_or_empty("deploy");
    let labels = list_or_map(section, "labels", &BTreeMap::new());
    let published_ports = published_ports(section);
    let service = Service {
        runtime,
        image: section.optional("image"),
        entrypoint: words(section, "entrypoint"),
        command: words(section, "command"),
        environment: list_or_map(section, "environment", defaults.environment),
        env_file: env_files(section, defaults.directory),
        working_dir: section.optional("working_dir"),
        user: section.optional("user"),
        service_ports: service_ports(section, &labels, &published_ports),
        labels,
        deploy_labels: deploy.as_ref().map(|d| list_or_map(d, "labels", &BTreeMap::new())).unwrap_or_default(),
        healthcheck: section.section_or_empty("healthcheck").and_then(|section| healthcheck(&section)),
        networks: networks(section),
        published_ports,
        volumes: volumes(section, defaults.directory),
        depends_on: depends_on(section),
        replicas: replicas(section, deploy.as_ref()),
        restart: section.word("restart", &RESTARTS).unwrap_or_default(),
        stop_signal: section.optional("stop_signal"),
        stop_grace_period: section.optional("stop_grace_period").unwrap_or(DEFAULT_STOP_GRACE_PERIOD),
    };
    check_runtime(section, &service);
    Some(service)
}

const RESTARTS: [(&str, Restart); 4] = [
    ("no", Restart::No),
    ("on-failure", Restart::OnFailure),
    ("always", Restart::Always),
    ("unless-stopped", Restart::Always),
];

/// What one runtime needs, and the other cannot do.
fn check_runtime(section: &Section<'_>, service: &Service) {
    if service.runtime == RuntimeKind::Docker {
        if !section.has("image") {
            section.problem("image", "is missing; an image, or x-mesh: { runtime: process } and a command, is wanted");
        }
        return;
    }
    let words = [&service.entrypoint, &service.command].into_iter().flatten().map(Vec::len).sum::<usize>();
    if words == 0 {
        section.problem("command", "is missing; a process needs the command that it runs");
    }
    if !service.volumes.is_empty() {
        section.note(section.path_of("volumes"), None, "are not for a process: it sees the host's files as they are");
    }
    if service.user.is_some() {
        section.problem("user", "is not supported for a process, which runs as whoever runs discovery");
    }
    if service.published_ports.iter().any(|port| port.published.is_some()) {
        let wanted = "are not published for a process yet; `expose` says on which port of its own address it serves";
        section.note(section.path_of("ports"), None, wanted);
    }
}

/// A list of words, or one text that is split as a shell does.
fn words(section: &Section<'_>, key: &str) -> Option<Vec<String>> {
    match section.raw(key)? {
        Value::Sequence(_) => section.values(key),
        value => {
            let text = text_of(value);
            match text.as_deref().map(command::split) {
                Some(Ok(words)) => return Some(words),
                Some(Err(error)) => section.problem(key, error.to_string()),
                None => section.problem(key, "a command line, or a list of words, is wanted"),
            }
            None
        }
    }
}

/// `{A: 1, B:}` or `[A=1, B]`; one without a value takes it from `given`, and is left out where that has none.
pub(super) fn list_or_map(
    section: &Section<'_>,
    key: &str,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    match section.raw(key) {
        None => {}
        Some(Value::Mapping(mapping)) => {
            for (name, value) in mapping {
                let name = text_of(name).unwrap_or_default();
                let value = match value {
                    // A label without a value is an empty one; a variable is passed on.
                    Value::Null if key == "labels" => Some(String::new()),
                    Value::Null => given.get(&name).cloned(),
                    value => text_of(value).or_else(|| {
                        section.note(section.path_of(&format!("{key}.{name}")), Some(value), "a text is wanted");
                        None
                    }),
                };
                pairs.extend(value.map(|value| (name, value)));
            }
        }
        Some(Value::Sequence(_)) => {
            for text in section.values::<String>(key).unwrap_or_default() {
                match text.split_once('=') {
                    Some((name, value)) => drop(pairs.insert(name.to_owned(), value.to_owned())),
                    None if key == "labels" => drop(pairs.insert(text, String::new())),
                    None => pairs.extend(given.get(&text).map(|value| (text.clone(), value.clone()))),
                }
            }
        }
        Some(_) => section.problem(key, "a mapping, or a list of NAME=value, is wanted"),
    }
    pairs
}

/// `true` or `false`, also where a variable was filled in.
pub(super) fn switch(section: &Section<'_>, key: &str) -> Option<bool> {
    section.word(key, &[("true", true), ("false", false)])
}

/// A whole number, also where a variable was filled in.
fn number(section: &Section<'_>, key: &str) -> Option<u32> {
    let number = text_of(section.raw(key)?).and_then(|text| text.parse().ok());
    if number.is_none() {
        section.problem(key, "a whole number is wanted");
    }
    number
}

fn replicas(section: &Section<'_>, deploy: Option<&Section<'_>>) -> u32 {
    let stated = deploy.and_then(|deploy| {
        keys::DEPLOY.check(deploy);
        deploy.word("mode", &[("replicated", ())]);
        number(deploy, "replicas")
    });
    let scale = number(section, "scale");
    if let (Some(replicas), Some(scale)) = (stated, scale)
        && replicas != scale
    {
        section.problem("scale", format!("contradicts deploy.replicas, which says {replicas}; one of them is enough"));
    }
    let replicas = stated.or(scale).unwrap_or(1);
    if replicas > REPLICAS_MAX {
        let key = if stated.is_some() { "deploy.replicas" } else { "scale" };
        section.note(section.path_of(key), None, format!("is {replicas}; at most {REPLICAS_MAX} are run"));
    }
    replicas
}

fn env_files(section: &Section<'_>, directory: &Path) -> Vec<EnvFile> {
    let file = |path: PathBuf, required| EnvFile { path: directory.join(path), required };
    match section.raw("env_file") {
        None => Vec::new(),
        Some(Value::String(path)) => vec![file(PathBuf::from(path), true)],
        Some(_) => {
            let items = section.list("env_file").into_iter();
            let read = |(path, value): (String, &Value)| match value {
                Value::String(text) => Some(file(PathBuf::from(text), true)),
                value => {
                    let inner = section.as_section(path, value)?;
                    keys::ENV_FILE.check(&inner);
                    Some(file(inner.required("path")?, switch(&inner, "required").unwrap_or(true)))
                }
            };
            items.filter_map(read).collect()
        }
    }
}

fn healthcheck(section: &Section<'_>) -> Option<Healthcheck> {
    keys::HEALTHCHECK.check(section);
    let disabled = switch(section, "disable").unwrap_or(false);
    let test = section.raw("test").and_then(|value| health_test(section, value));
    let enabled = Healthcheck::Enabled {
        test: match test {
            Some(Test::None) => return Some(Healthcheck::Disabled),
            Some(Test::Run(test)) => Some(test),
            None => None,
        },
        interval: section.optional("interval"),
        timeout: section.optional("timeout"),
        retries: number(section, "retries"),
        start_period: section.optional("start_period"),
        start_interval: section.optional("start_interval"),
    };
    Some(if disabled { Healthcheck::Disabled } else { enabled })
}

enum Test {
    None,
    Run(HealthTest),
}

fn health_test(section: &Section<'_>, value: &Value) -> Option<Test> {
    if let Some(text) = text_of(value) {
        return Some(Test::Run(HealthTest::Shell(text)));
    }
    let words = section.values::<String>("test")?;
    match words.split_first().map(|(kind, rest)| (kind.as_str(), rest)) {
        Some(("NONE", [])) => Some(Test::None),
        Some(("CMD", rest @ [_, ..])) => Some(Test::Run(HealthTest::Exec(rest.to_vec()))),
        Some(("CMD-SHELL", [line])) => Some(Test::Run(HealthTest::Shell(line.clone()))),
        _ => {
            section.problem("test", r#"["CMD", word, …], ["CMD-SHELL", line], ["NONE"] or one text is wanted"#);
            None
        }
    }
}

fn networks(section: &Section<'_>) -> BTreeMap<String, Attachment> {
    match section.raw("networks") {
        None => BTreeMap::from([(DEFAULT_NETWORK.to_owned(), Attachment::default())]),
        Some(Value::Sequence(_)) => {
            let names = section.values::<String>("networks").unwrap_or_default();
            names.into_iter().map(|name| (name, Attachment::default())).collect()
        }
        Some(_) => {
            let read = |(name, inner): (String, Section<'_>)| {
                keys::ATTACHMENT.check(&inner);
                (name, Attachment { aliases: inner.values("aliases").unwrap_or_default() })
            };
            section.named_sections("networks").into_iter().map(read).collect()
        }
    }
}

const CONDITIONS: [(&str, DependencyCondition); 3] = [
    ("service_started", DependencyCondition::ServiceStarted),
    ("service_healthy", DependencyCondition::ServiceHealthy),
    ("service_completed_successfully", DependencyCondition::ServiceCompletedSuccessfully),
];

fn depends_on(section: &Section<'_>) -> BTreeMap<Name, Dependency> {
    let plain = Dependency { condition: DependencyCondition::ServiceStarted, required: true };
    let read: Vec<(String, Dependency)> = match section.raw("depends_on") {
        None => Vec::new(),
        Some(Value::Sequence(_)) => {
            let names = section.values::<String>("depends_on").unwrap_or_default();
            names.into_iter().map(|name| (name, plain.clone())).collect()
        }
        Some(_) => {
            let read = |(name, inner): (String, Section<'_>)| {
                keys::DEPENDENCY.check(&inner);
                let condition = inner.word("condition", &CONDITIONS).unwrap_or(plain.condition);
                (name, Dependency { condition, required: switch(&inner, "required").unwrap_or(true) })
            };
            section.named_sections("depends_on").into_iter().map(read).collect()
        }
    };
    let named = |(name, dependency): (String, Dependency)| match Name::new(&name) {
        Ok(name) => Some((name, dependency)),
        Err(error) => {
            section.note(section.path_of(&format!("depends_on.{name}")), None, error.to_string());
            None
        }
    };
    read.into_iter().filter_map(named).collect()
}

/// Folders and files of the host; a named volume would have to be made and kept, which is not done yet.
fn volumes(section: &Section<'_>, directory: &Path) -> Vec<Volume> {
    const WANTED: &str =
        "a path of the host, as in ./data:/data:ro, is wanted; named and anonymous volumes are not supported yet";
    let place = |path: &str| path.starts_with(['/', '.']).then(|| directory.join(path));
    let read = |(path, value): (String, &Value)| {
        let volume = match value {
            Value::String(text) => {
                let parts: Vec<&str> = text.split(':').collect();
                match parts[..] {
                    [source, target] => place(source).map(|source| (source, target.to_owned(), false)),
                    [source, target, "ro"] => place(source).map(|source| (source, target.to_owned(), true)),
                    [source, target, "rw"] => place(source).map(|source| (source, target.to_owned(), false)),
                    _ => None,
                }
            }
            value => {
                let inner = section.as_section(path.clone(), value)?;
                keys::VOLUME.check(&inner);
                let bind = inner.required::<String>("type")? == "bind";
                let (source, target) = (inner.required::<String>("source")?, inner.required("target")?);
                let source = place(&source).filter(|_| bind);
                source.map(|source| (source, target, switch(&inner, "read_only").unwrap_or(false)))
            }
        };
        if volume.is_none() {
            section.note(path, Some(value), WANTED);
        }
        volume.map(|(source, target, read_only)| Volume { source, target, read_only })
    };
    section.list("volumes").into_iter().filter_map(read).collect()
}
