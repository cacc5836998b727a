//! One mapping of a YAML file, read key by key. Unlike a derived deserializer, which stops at the first mistake, it notes
//! every one with its key path and goes on, so that all are reported at once; keys that nobody asked for are mistakes too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::percent::Percent;
use super::problem::{Problem, Problems};
use super::{duration, size, suggest};

/// A whole file under reading: its text as YAML, and the mistakes so far.
#[derive(Debug)]
pub struct Document {
    origin: String,
    root: Value,
    problems: RefCell<Vec<Problem>>,
}

impl Document {
    /// Parses `text` as YAML 1.1 with one mapping at its root. An empty file is a mistake, or about to be written: `{}` is how
    /// nothing is said.
    ///
    /// # Errors
    /// One [`Problem`] with the line and column when it is no YAML or its root is no mapping.
    pub fn parse(origin: impl Into<String>, text: &str) -> Result<Self, Problems> {
        let origin = origin.into();
        let root: Value = serde_yaml::from_str(text)
            .map_err(|error| Problems::one(origin.clone(), "(file)", None, format!("is not valid YAML: {error}")))?;
        if root.is_null() {
            return Err(Problems::one(origin, "(file)", None, "is empty; {} is how a file says nothing on purpose"));
        }
        Self::of(origin, root)
    }

    /// A document of values that were parsed already (and perhaps changed since: variables filled in).
    ///
    /// # Errors
    /// One [`Problem`] when its root is no mapping, or a merge key names none.
    pub fn of(origin: impl Into<String>, mut root: Value) -> Result<Self, Problems> {
        let origin = origin.into();
        root.apply_merge().map_err(|error| {
            Problems::one(origin.clone(), "(file)", None, format!("has a wrong merge key: {error}"))
        })?;
        if root.is_null() {
            root = Value::Mapping(Mapping::new());
        }
        if !root.is_mapping() {
            return Err(Problems::one(origin, "(file)", Some(show(&root)), "a mapping of keys to values is wanted"));
        }
        Ok(Self { origin, root, problems: RefCell::default() })
    }

    #[must_use]
    pub fn root(&self) -> Section<'_> {
        let mapping = self.root.as_mapping().expect("parse() let only a mapping through");
        Section { path: String::new(), mapping, problems: &self.problems, seen: RefCell::default() }
    }

    /// The value read, or every mistake that was noted on the way.
    ///
    /// # Errors
    /// [`Problems`] when any was noted.
    pub fn finish<T>(self, value: T) -> Result<T, Problems> {
        let list = self.problems.into_inner();
        if list.is_empty() { Ok(value) } else { Err(Problems { origin: self.origin, list }) }
    }
}

/// One mapping within a [`Document`].
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    mapping: &'a Mapping,
    problems: &'a RefCell<Vec<Problem>>,
    seen: RefCell<BTreeSet<String>>,
}

/// A value that a person writes in YAML.
pub trait FromYaml: Sized {
    /// What is said when it does not fit: `a port from 1 to 65535 is wanted`.
    const WANTED: &'static str;
    fn from_yaml(value: &Value) -> Option<Self>;
}

impl<'a> Section<'a> {
    /// The key path of `key` in here.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The raw value; a key with an empty value counts as absent.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.seen.borrow_mut().insert(key.to_owned());
        self.mapping.get(key).filter(|value| !value.is_null())
    }

    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.mapping.contains_key(key)
    }

    /// Notes a mistake at `key`, with the value that stands there.
    pub fn problem(&self, key: &str, wanted: impl Into<String>) {
        let value = self.mapping.get(key).map(show);
        self.problems.borrow_mut().push(Problem { key: self.path_of(key), value, wanted: wanted.into() });
    }

    /// The value of `key`; a mistake is noted when it is there and does not fit.
    pub fn optional<T: FromYaml>(&self, key: &str) -> Option<T> {
        let value = self.raw(key)?;
        let read = T::from_yaml(value);
        if read.is_none() {
            self.problem(key, T::WANTED);
        }
        read
    }

    /// Like [`Self::optional`]; a missing key is a mistake too.
    pub fn required<T: FromYaml>(&self, key: &str) -> Option<T> {
        if self.raw(key).is_none() {
            self.problem(key, format!("is missing; {}", T::WANTED));
            return None;
        }
        self.optional(key)
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.raw(key)?;
        let found = text_of(value).and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let known = words.iter().map(|(word, _)| *word);
            self.problem(key, wanted_words(&text_of(value).unwrap_or_default(), known));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A list; each item is read by `read`, which gets its key path and notes its own mistakes with [`Self::note`].
    pub fn list(&self, key: &str) -> Vec<(String, &'a Value)> {
        match self.raw(key) {
            None => Vec::new(),
            Some(Value::Sequence(items)) => {
                items.iter().enumerate().map(|(i, item)| (self.path_of(&format!("{key}[{i}]")), item)).collect()
            }
            Some(_) => {
                self.problem(key, "a list is wanted");
                Vec::new()
            }
        }
    }

    /// A list of plain values.
    pub fn values<T: FromYaml>(&self, key: &str) -> Option<Vec<T>> {
        self.raw(key)?;
        let read = |(path, value): (String, &'a Value)| {
            T::from_yaml(value).or_else(|| {
                self.note(path, Some(value), T::WANTED);
                None
            })
        };
        Some(self.list(key).into_iter().filter_map(read).collect())
    }

    /// Notes a mistake at any key path.
    pub fn note(&self, path: impl Into<String>, value: Option<&Value>, wanted: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { key: path.into(), value: value.map(show), wanted: wanted.into() });
    }

    /// The mapping at `key`.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let value = self.raw(key)?;
        self.as_section(self.path_of(key), value)
    }

    /// A list of mappings.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        self.list(key).into_iter().filter_map(|(path, value)| self.as_section(path, value)).collect()
    }

    /// The mapping at `key`, as its names with a mapping each.
    pub fn named_sections(&self, key: &str) -> Vec<(String, Section<'a>)> {
        let Some(section) = self.section(key) else { return Vec::new() };
        let names: Vec<String> = section.keys();
        names.into_iter().filter_map(|name| section.section_or_empty(&name).map(|inner| (name, inner))).collect()
    }

    /// The mapping at `key`; `key:` with nothing behind it is an empty one.
    pub fn section_or_empty(&self, key: &str) -> Option<Section<'a>> {
        static EMPTY: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
        self.seen.borrow_mut().insert(key.to_owned());
        let value = self.mapping.get(key)?;
        let empty = EMPTY.get_or_init(|| Value::Mapping(Mapping::new()));
        self.as_section(self.path_of(key), if value.is_null() { empty } else { value })
    }

    /// Reads `value`, which stands at `path`, as a mapping.
    pub fn as_section(&self, path: String, value: &'a Value) -> Option<Section<'a>> {
        let Value::Mapping(mapping) = value else {
            self.note(path, Some(value), "a mapping of keys to values is wanted");
            return None;
        };
        Some(Section { path, mapping, problems: self.problems, seen: RefCell::default() })
    }

    /// Every key, in the order of the file.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.mapping.keys().map(|key| text_of(key).unwrap_or_else(|| show(key))).collect()
    }

    /// Ends the reading: a key that nobody asked for is a mistake, with the nearest one that would have been read.
    pub fn finish(self) {
        let seen = self.seen.borrow();
        for key in self.keys() {
            if !seen.contains(&key) {
                let known = seen.iter().map(String::as_str);
                let wanted = match suggest::nearest(&key, known.clone()) {
                    Some(meant) => format!("is not a key here; did you mean {meant}?"),
                    None => format!("is not a key here; known are {}", known.collect::<Vec<_>>().join(", ")),
                };
                self.note(self.path_of(&key), None, wanted);
            }
        }
    }
}

/// `one of a, b, c is wanted`, with the nearest where one is meant.
#[must_use]
pub fn wanted_words<'w>(value: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    let list = words.clone().collect::<Vec<_>>().join(", ");
    match suggest::nearest(value, words) {
        Some(meant) => format!("one of {list} is wanted; did you mean {meant}?"),
        None => format!("one of {list} is wanted"),
    }
}

/// A scalar as a person wrote it.
#[must_use]
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A value in an error message: on one line, and cut where it is long.
#[must_use]
pub fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => serde_json::to_string(other).unwrap_or_else(|_| format!("{other:?}")),
    };
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}

macro_rules! from_yaml {
    ($type:ty, $wanted:literal, |$value:ident| $read:expr) => {
        impl FromYaml for $type {
            const WANTED: &'static str = $wanted;
            fn from_yaml($value: &Value) -> Option<Self> {
                $read
            }
        }
    };
}

from_yaml!(String, "a text is wanted", |value| text_of(value));
from_yaml!(bool, "true or false is wanted", |value| value.as_bool());
from_yaml!(u16, "a number from 1 to 65535 is wanted", |value| value.as_u64()?.try_into().ok());
from_yaml!(u32, "a whole number from 0 to 4294967295 is wanted", |value| value.as_u64()?.try_into().ok());
from_yaml!(u64, "a whole number is wanted", |value| value.as_u64());
from_yaml!(f64, "a number is wanted", |value| value.as_f64());
from_yaml!(PathBuf, "a path is wanted", |value| value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from));
from_yaml!(SocketAddr, "an address such as 127.0.0.1:8080 is wanted", |value| value.as_str()?.parse().ok());
from_yaml!(Percent, "a percentage such as 20% is wanted", |value| Percent::parse(value.as_str()?).ok());
from_yaml!(Duration, "a duration such as 500ms, 5s or 1m30s is wanted", |value| {
    duration::parse(&text_of(value)?).ok()
});

/// A number of bytes, for [`Section::optional`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

from_yaml!(Bytes, "a size such as 512, 64KiB or 10MiB is wanted", |value| {
    size::parse(&text_of(value)?).ok().map(Bytes)
});

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
workers: many
admin: { listen: 127.0.0.1:9, lissten: x }
services:
  web: { timeout: 5, lb: least_requests, endpoints: [ { address: nowhere } ] }
  empty:
";

    #[test]
    fn every_mistake_is_told_with_its_key_path() {
        let document = Document::parse("proxy.yaml", TEXT).unwrap();
        let root = document.root();
        assert_eq!(root.optional::<u16>("workers"), None);
        let admin = root.section("admin").unwrap();
        assert_eq!(admin.optional::<SocketAddr>("listen"), Some("127.0.0.1:9".parse().unwrap()));
        admin.finish();
        let services = root.named_sections("services");
        assert_eq!(services.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web", "empty"]);
        for (_, service) in services {
            assert_eq!(service.optional::<Duration>("timeout"), None);
            assert_eq!(service.word("lb", &[("least_request", 1), ("round_robin", 2)]), None);
            for endpoint in service.sections("endpoints") {
                assert_eq!(endpoint.required::<SocketAddr>("address"), None);
                endpoint.finish();
            }
            service.finish();
        }
        root.finish();
        let text = document.finish(()).unwrap_err().to_string();
        let expected = [
            r#"proxy.yaml: workers: "many": a number from 1 to 65535 is wanted"#,
            "proxy.yaml: admin.lissten: is not a key here; did you mean listen?",
            "proxy.yaml: services.web.timeout: 5: a duration such as 500ms, 5s or 1m30s is wanted",
            r#"proxy.yaml: services.web.lb: "least_requests": one of least_request, round_robin is wanted; did you mean least_request?"#,
            r#"proxy.yaml: services.web.endpoints[0].address: "nowhere": an address such as 127.0.0.1:8080 is wanted"#,
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn what_is_no_mapping_is_told_at_once() {
        assert!(Document::parse("f", "- a").unwrap_err().to_string().contains("a mapping"));
        assert!(Document::parse("f", "a: [").unwrap_err().to_string().contains("not valid YAML"));
        assert!(Document::parse("f", "{}").unwrap().root().keys().is_empty());
        for empty in ["", "# nothing\n", "---\n", "~"] {
            assert!(Document::parse("f", empty).unwrap_err().to_string().contains("is empty"), "{empty:?}");
        }
    }
}
