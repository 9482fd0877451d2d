//! What is written on stdout: aligned tables for people, JSON for machines. Notes go to stderr.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// Writes a line on stderr. If that is closed, nobody wants to know.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes text on stdout as it is.
pub fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Writes a value on stdout as JSON in one line.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// A cell of a table for something that may be missing.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Numbers with commas between.
pub fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let text = values.into_iter().map(|v| v.to_string()).collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Numbers with commas between, those that follow each other as a range: `0-5,7`. Of more than 20 of them the first 20.
pub fn ranges(numbers: &[i32]) -> String {
    const SHOWN: usize = 20;
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut all: Vec<String> = sorted
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let text = all.join(",");
    if more > 0 { format!("{text},…") } else { text }
}

/// Names in a message: of more than 20 the first 20 and the number of the others.
pub fn names<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    const NAMED: usize = 20;
    let mut names = names.into_iter();
    let text = names.by_ref().take(NAMED).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Says on stderr what is missing from a result: the first five reasons in full, of the rest the names. Whether there is any.
pub fn note_missing<T: ToString, E: fmt::Display>(what: &str, missing: &[(T, E)]) -> bool {
    const REASONS: usize = 5;
    for (_, why) in missing.iter().take(REASONS) {
        note(format_args!("{what}: {why}"));
    }
    if let Some(rest) = missing.get(REASONS..).filter(|rest| !rest.is_empty()) {
        note(format_args!("{what}: the same of {}", names(rest.iter().map(|(name, _)| name.to_string()))));
    }
    !missing.is_empty()
}

/// A number with its thousands apart: 1,234,567.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns of text, each as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self { rows: vec![heads.map(str::to_owned).into()] }
    }

    /// Adds a row, a cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let pad = width - cell.chars().count() + 2;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(["TOPIC", "N"]);
        table.row(["a".into(), "1".into()]);
        table.row(["größe".into(), "23".into()]);
        assert_eq!(table.to_string(), "TOPIC  N\na      1\ngröße  23\n");
    }

    #[test]
    fn thousands_are_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }

    #[test]
    fn nothing_is_a_dash() {
        assert_eq!(or_dash(None::<i64>), "-");
        assert_eq!(or_dash(Some(7)), "7");
        assert_eq!(list(Vec::<i32>::new()), "-");
        assert_eq!(list([1, 2]), "1,2");
    }

    #[test]
    fn numbers_that_follow_each_other_are_a_range() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3, 0, 1, 2, 7]), "0-3,7");
        assert_eq!(ranges(&(0..1000).collect::<Vec<_>>()), "0-999");
        assert!(ranges(&(0..100).map(|n| n * 2).collect::<Vec<_>>()).ends_with("36,38,…"));
    }

    #[test]
    fn a_long_list_in_a_message_is_cut_with_a_count() {
        assert_eq!(names(["a", "b"]), "a, b");
        assert!(names(0..20).ends_with("18, 19"));
        assert!(names(0..1000).ends_with("18, 19 and 980 more"));
    }
}
