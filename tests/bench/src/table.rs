//! Results as Markdown, and as JSON.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use serde::Serialize;

use crate::sample::Spread;

/// What one case has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub case: String,
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub verdicts: Vec<Verdict>,
    pub notes: Vec<String>,
    /// Every sample.
    pub raw: serde_json::Value,
}

/// A wanted number beside the one that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    pub what: String,
    pub wanted: String,
    pub found: String,
    pub met: bool,
}

/// Which side of a bound is right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    #[must_use]
    pub fn shown(self, unit: &str) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
        }
    }
}

impl Report {
    /// The case as a section of a document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("### `{}`: {}\n\n{}", self.case, self.title, table(&self.columns, &self.rows));
        if !self.verdicts.is_empty() {
            let columns = ["wanted", "", "found", ""].map(str::to_owned);
            let row = |verdict: &Verdict| {
                let met = if verdict.met { "met" } else { "**missed**" };
                vec![verdict.what.clone(), verdict.wanted.clone(), verdict.found.clone(), met.to_owned()]
            };
            text.push('\n');
            text.push_str(&table(&columns, &self.verdicts.iter().map(row).collect::<Vec<_>>()));
        }
        if !self.notes.is_empty() {
            text.push('\n');
            self.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
        }
        text
    }
}

/// A Markdown table; the first column is text, the others are numbers.
#[must_use]
pub fn table(columns: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(columns.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| {
                let cell = cells.get(column).map_or("", String::as_str);
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<_> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) })
        .collect();
    let mut text = line(columns);
    text.push_str(&format!("| {} |\n", rule.join(" | ")));
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// `0.84 (0.81–0.90)`.
#[must_use]
pub fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.min, s.max))
}

/// A number with as many digits as mean something.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[must_use]
pub fn mebibytes(bytes: f64) -> String {
    number(bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = table(&cells(&["proxy", "µs"]), &[cells(&["Weft", "13.25"]), cells(&["HAProxy", "–"])]);
        assert_eq!(text, "| proxy   |    µs |\n| ------- | ----: |\n| Weft    | 13.25 |\n| HAProxy |     – |\n");
    }

    #[test]
    fn numbers_show_what_they_know() {
        for (value, wanted) in [(63_412.3, "63412"), (17.44, "17.4"), (0.852, "0.85"), (-12.34, "-12.3")] {
            assert_eq!(number(value), wanted);
        }
        assert_eq!(mebibytes(3_145_728.0), "3.00");
        assert_eq!(ratio(None), "–");
        assert_eq!(ratio(Some(Spread { median: 0.841, min: 0.8, max: 0.9 })), "0.84 (0.80–0.90)");
    }

    #[test]
    fn a_bound_has_a_right_side() {
        assert!(Bound::AtMost(0.85).holds(0.85) && !Bound::AtMost(0.85).holds(0.86));
        assert!(Bound::AtLeast(1.4).holds(1.4) && !Bound::AtLeast(1.4).holds(1.39));
        assert_eq!(Bound::AtMost(8.0).shown(" KiB"), "≤ 8 KiB");
    }

    #[test]
    fn a_report_says_what_was_missed() {
        let verdict =
            |met| Verdict { what: "Weft ÷ nginx".into(), wanted: "≤ 0.9".into(), found: "1.1".into(), met };
        let report = Report {
            case: "h1".into(),
            title: "keep-alive".into(),
            columns: vec!["proxy".into()],
            rows: vec![vec!["Weft".into()]],
            verdicts: vec![verdict(true), verdict(false)],
            notes: vec!["a note".into()],
            raw: serde_json::Value::Null,
        };
        let text = report.markdown();
        assert!(text.starts_with("### `h1`: keep-alive\n\n| proxy |"), "{text}");
        assert!(text.contains("| met |") || text.contains("|        met |"), "{text}");
        assert!(text.contains("**missed**") && text.ends_with("a note\n"), "{text}");
    }
}
