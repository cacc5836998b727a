//! A mistake in what a person wrote, and the list of them.

use std::fmt;

use serde::Serialize;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Key path: `services.web.endpoints[0].address`.
    pub key: String,
    /// What stands there; none where a key is missing.
    pub value: Option<String>,
    /// What would be right: `a duration such as 500ms or 1m30s is wanted`.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value}: {}", self.key, self.wanted),
            None => write!(f, "{}: {}", self.key, self.wanted),
        }
    }
}

/// Every mistake of one file, or of one set of labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// What was read: a file's path, or the object that carries the labels.
    pub origin: String,
    pub list: Vec<Problem>,
}

impl Problems {
    #[must_use]
    pub fn one(
        origin: impl Into<String>,
        key: impl Into<String>,
        value: Option<String>,
        wanted: impl Into<String>,
    ) -> Self {
        let problem = Problem { key: key.into(), value, wanted: wanted.into() };
        Self { origin: origin.into(), list: vec![problem] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{}: {problem}", self.origin)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
