//! A command line as a list of words, by a shell's rules of quoting: `'…'` as it stands, `"…"` with `\"`, `\\`, `` \` `` and
//! `\$`, a backslash before anything outside quotes. Nothing else of a shell: no globs, pipes or substitution.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use thiserror::Error;

/// Why a text is no command line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CommandError {
    #[error("has a {quote} that is not closed")]
    Quote { quote: char },
    #[error("ends with a backslash")]
    Backslash,
}

pub(super) fn split(text: &str) -> Result<Vec<String>, CommandError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => quoted(&mut characters, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut characters, '"', word.get_or_insert_default())?,
            '\\' => match characters.next() {
                // A line that goes on.
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(CommandError::Backslash),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(characters: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Result<(), CommandError> {
    loop {
        match characters.next().ok_or(CommandError::Quote { quote })? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match characters.next().ok_or(CommandError::Quote { quote })? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                '\n' => {}
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}
