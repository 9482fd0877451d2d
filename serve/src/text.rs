//! Text on stdout and stderr.

use std::fmt;
use std::io::{self, Write};

/// Writes a line on stderr; if that is closed, nothing happens.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes text on stdout as it is.
///
/// # Errors
/// If stdout is closed or can't be written.
pub fn print(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Returns the value as text; a dash if there is none.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Returns names with commas between; of more than 20 the first 20 and the number of the others.
pub fn names<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    const NAMED: usize = 20;
    let mut names = names.into_iter();
    let text = names.by_ref().take(NAMED).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Returns a number with its thousands apart: 1,234,567.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }

    #[test]
    fn a_missing_value_is_a_dash() {
        assert_eq!(or_dash(None::<i64>), "-");
        assert_eq!(or_dash(Some(7)), "7");
    }

    #[test]
    fn a_long_list_is_cut_with_a_count() {
        assert_eq!(names(["a", "b"]), "a, b");
        assert!(names(0..20).ends_with("18, 19"));
        assert!(names(0..1000).ends_with("18, 19 and 980 more"));
    }
}
