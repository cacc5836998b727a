//! Files of `KEY=value` lines: `.env` beside the Compose file, and `env_file` of a service.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Project;
use crate::config::problem::{Problem, Problems};

/// Reads `KEY=value`, `export KEY=value`, `KEY='as it stands'`, `KEY="with \n"`; `#` begins a comment. Variables are not filled
/// in here.
///
/// # Errors
/// Every line that is none of these, by number.
pub fn parse(origin: &str, text: &str) -> Result<BTreeMap<String, String>, Problems> {
    let mut values = BTreeMap::new();
    let mut list = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match pair(line.strip_prefix("export ").unwrap_or(line)) {
            Some((key, value)) => drop(values.insert(key, value)),
            None => list.push(Problem {
                key: format!("line {}", index + 1),
                // The value may be a secret: only what stands before it is shown.
                value: line.split('=').next().map(|key| format!("{key:?}")),
                wanted: "KEY=value is wanted, with quotes closed".to_owned(),
            }),
        }
    }
    if list.is_empty() { Ok(values) } else { Err(Problems { origin: origin.to_owned(), list }) }
}

fn pair(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let fits = !key.is_empty() && !key.contains(char::is_whitespace);
    let value = match value.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let inner = value[1..].split_once(quote).map(|(inner, _)| inner)?;
            if quote == '"' { inner.replace("\\n", "\n").replace("\\t", "\t") } else { inner.to_owned() }
        }
        _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
    };
    fits.then(|| (key.to_owned(), value))
}

/// What the service says itself holds over its files, a later file over an earlier one.
pub(super) fn merge(project: &mut Project, open: &dyn Fn(&Path) -> io::Result<String>) -> Result<(), Problems> {
    let mut list = Vec::new();
    for (name, service) in &mut project.services {
        let mut merged = BTreeMap::new();
        for file in &service.env_file {
            let path = file.path.display().to_string();
            match open(&file.path) {
                Ok(text) => match parse(&path, &text) {
                    Ok(values) => merged.extend(values),
                    Err(problems) => list.extend(problems.list.into_iter().map(|problem| Problem {
                        key: format!("services.{name}.env_file: {path}: {}", problem.key),
                        ..problem
                    })),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound && !file.required => {}
                Err(error) => list.push(Problem {
                    key: format!("services.{name}.env_file"),
                    value: Some(path),
                    wanted: format!("cannot be read: {error}"),
                }),
            }
        }
        merged.append(&mut service.environment);
        service.environment = merged;
        service.env_file.clear();
    }
    if list.is_empty() { Ok(()) } else { Err(Problems { origin: project.name.to_string(), list }) }
}
