//! Variables in the texts of a Compose file: `$X`, `${X}`, `${X:-d}`, `${X-d}`, `${X:?err}`, `${X?err}`, `${X:+r}`, `${X+r}`,
//! and `$$` for a dollar (Compose Specification, section "Interpolation"). Defaults may hold variables themselves.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;

use serde_yaml::Value;
use thiserror::Error;

use crate::config::problem::Problem;
use crate::config::section::show;

/// Deeper nesting of defaults is refused, so that no file exhausts the stack.
const NESTING_MAX: usize = 16;

/// Why a text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum InterpolationError {
    #[error("has a `$` before {found:?}; write $$ for a dollar sign, or ${{NAME}} for a variable")]
    Dollar { found: String },
    #[error("has a `${{` that is not closed, or no variable name in it; ${{NAME}} or ${{NAME:-default}} is wanted")]
    Braces,
    #[error("needs the variable {name}: {message}")]
    Required { name: String, message: String },
    #[error("nests variables deeper than {NESTING_MAX}")]
    Nesting,
}

/// What fills a text in.
pub(super) struct Variables<'a> {
    pub(super) values: &'a BTreeMap<String, String>,
    /// Names that stay as `${NAME}`, for the runtime to fill in per replica.
    pub(super) kept: &'a [&'a str],
}

impl Variables<'_> {
    pub(super) fn fill(&self, text: &str) -> Result<String, InterpolationError> {
        self.fill_nested(text, 0)
    }

    fn fill_nested(&self, text: &str, depth: usize) -> Result<String, InterpolationError> {
        if depth > NESTING_MAX {
            return Err(InterpolationError::Nesting);
        }
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                filled.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let end = closing_brace(inner).ok_or(InterpolationError::Braces)?;
                filled.push_str(&self.braced(&inner[..end], depth)?);
                rest = &inner[end + 1..];
            } else {
                let length = name_len(rest);
                if length == 0 {
                    let found = rest.chars().take(1).collect();
                    return Err(InterpolationError::Dollar { found });
                }
                filled.push_str(&self.plain(&rest[..length]));
                rest = &rest[length..];
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// As Compose does, a variable that nobody set is empty.
    fn plain(&self, name: &str) -> String {
        if self.kept.contains(&name) {
            return format!("${{{name}}}");
        }
        self.values.get(name).cloned().unwrap_or_default()
    }

    fn braced(&self, inner: &str, depth: usize) -> Result<String, InterpolationError> {
        let length = name_len(inner);
        if length == 0 {
            return Err(InterpolationError::Braces);
        }
        let (name, rest) = inner.split_at(length);
        if rest.is_empty() || self.kept.contains(&name) {
            return Ok(self.plain(name));
        }
        let value = self.values.get(name).map(String::as_str);
        let (operator, word) = match rest.strip_prefix(':') {
            Some(strict) => (strict, value.filter(|value| !value.is_empty())),
            None => (rest, value),
        };
        let mut characters = operator.chars();
        let kind = characters.next().ok_or(InterpolationError::Braces)?;
        let operand = characters.as_str();
        match (kind, word) {
            ('-' | '?', Some(value)) => Ok(value.to_owned()),
            ('-', None) => self.fill_nested(operand, depth + 1),
            ('?', None) => {
                let message = self.fill_nested(operand, depth + 1)?;
                let message = if message.is_empty() { "it is not set".to_owned() } else { message };
                Err(InterpolationError::Required { name: name.to_owned(), message })
            }
            ('+', Some(_)) => self.fill_nested(operand, depth + 1),
            ('+', None) => Ok(String::new()),
            _ => Err(InterpolationError::Braces),
        }
    }
}

/// Fills in every text below `value`; keys are left as they are. `path` is where `value` stands.
pub(super) fn fill_tree(
    value: &mut Value,
    path: &str,
    values: &BTreeMap<String, String>,
    kept_at: &dyn Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::String(text) if text.contains('$') => {
            let kept: &[&str] = if kept_at(path) { &["HOST", "PORT"] } else { &[] };
            match (Variables { values, kept }).fill(text) {
                Ok(filled) => *text = filled,
                Err(error) => problems.push(Problem {
                    key: path.to_owned(),
                    value: Some(show(&Value::String(text.clone()))),
                    wanted: error.to_string(),
                }),
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_tree(item, &format!("{path}[{index}]"), values, kept_at, problems);
            }
        }
        Value::Mapping(mapping) => {
            for (key, item) in mapping.iter_mut() {
                let key = crate::config::section::text_of(key).unwrap_or_else(|| show(key));
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                fill_tree(item, &path, values, kept_at, problems);
            }
        }
        Value::Tagged(tagged) => fill_tree(&mut tagged.value, path, values, kept_at, problems),
        _ => {}
    }
}

fn name_len(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the brace that is open already is closed, over nested ones.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut previous = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
        previous = c;
    }
    None
}
