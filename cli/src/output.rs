//! Results on stdout: aligned tables for people, JSON for machines. Notes go to stderr.

use std::fmt;
use std::io::{self, Write};

pub use ailurus_serve::text::{names, note, or_dash, print, thousands};
use serde::Serialize;

/// Writes a value on stdout as JSON in one line.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Returns numbers with commas between.
pub fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let text = values.into_iter().map(|v| v.to_string()).collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Returns numbers with commas between, and ranges of consecutive ones: `0-5,7`. Of more than 20 parts the first 20.
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

/// Prints on stderr which parts of a result are missing: the first five reasons in full, of the others the names. Returns
/// whether there are any.
pub fn note_missing<T: ToString, E: fmt::Display>(what: &str, missing: &[(T, E)]) -> bool {
    const REASONS: usize = 5;
    for (_, why) in missing.iter().take(REASONS) {
        note(format_args!("{what}: {why}"));
    }
    if let Some(rest) = missing.get(REASONS..).filter(|rest| !rest.is_empty()) {
        note(format_args!("{what}: also of {}", names(rest.iter().map(|(name, _)| name.to_string()))));
    }
    !missing.is_empty()
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
    fn an_empty_list_is_a_dash() {
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
}
