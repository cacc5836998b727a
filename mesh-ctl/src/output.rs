//! How answers are printed: a table for people, JSON and YAML for programs. Tables go to stdout like the rest; what is said
//! beside them goes to stderr.

use anyhow::Context;
use serde_json::Value;

use crate::args::Output;

/// Columns of text, as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|title| (*title).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Lines without trailing spaces, three spaces between columns.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints `value` as asked; `table` makes a table of it for people.
///
/// # Errors
/// When stdout is closed, or YAML cannot hold the value.
pub fn print(output: Output, value: &Value, table: impl FnOnce(&Value) -> Table) -> anyhow::Result<()> {
    let text = match output {
        Output::Table => table(value).render(),
        Output::Json => serde_json::to_string_pretty(value).context("the answer cannot be printed as JSON")? + "\n",
        Output::Yaml => serde_yaml::to_string(value).context("the answer cannot be printed as YAML")?,
    };
    write(&text)
}

/// Writes to stdout; a reader that has enough (`| head`) is no failure.
///
/// # Errors
/// Any other failure to write.
pub fn write(text: &str) -> anyhow::Result<()> {
    write_bytes(text.as_bytes())
}

/// As [`write`].
///
/// # Errors
/// As [`write`].
pub fn write_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            crate::ending::note_closed();
            Ok(())
        }
        outcome => outcome.context("stdout cannot be written"),
    }
}

/// One line for people, in place of `println!`, which panics where nobody reads any more.
pub fn say(line: impl std::fmt::Display) {
    // Whoever tells a story goes on where it cannot be told; an end that is wanted is noted.
    let _ = write(&format!("{line}\n"));
}

/// A field for a table cell: `-` where there is none.
#[must_use]
pub fn cell(item: &Value, key: &str) -> String {
    match &item[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The `items` of an API answer.
#[must_use]
pub fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "PORT"]);
        table.row(["a-long-name".to_owned(), "1".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME          PORT\na-long-name   1\nb\n");
    }

    #[test]
    fn absent_fields_are_dashes() {
        let item = serde_json::json!({ "a": null, "b": "", "c": "x", "d": 5 });
        let cells = ["a", "b", "c", "d", "e"].map(|key| cell(&item, key));
        assert_eq!(cells, ["-", "-", "x", "5", "-"]);
    }
}
