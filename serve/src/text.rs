//! Text on stdout and stderr.

use std::fmt;
use std::io::{self, Write};

use ailurus::{Health, config};

/// Calls that texts of the library name, each with the command that does the same. A call comes before
/// one whose name it begins with.
pub const COMMANDS: [(&str, &str); 6] = [
    ("Admin::create_topic_with", "ailurus topic create"),
    ("Admin::create_topic", "ailurus topic create"),
    ("Admin::api_versions", "ailurus cluster api-versions"),
    ("Admin::describe_producers", "ailurus txn producers"),
    ("Admin::find_hanging_transactions", "ailurus txn find-hanging"),
    ("Admin::fence_producer", "ailurus txn fence"),
];

/// Names in a text of the library what operators use: the variable of a setting, and the command for a
/// call.
pub fn for_operators(text: &str) -> String {
    COMMANDS.iter().fold(config::name_variables(text), |text, (call, command)| text.replace(call, command))
}

/// Returns health whose texts are [`for_operators`]; names of groups and topics stay as they are.
pub fn health_for_operators(mut health: Health) -> Health {
    let partitions = health.subscriptions.iter_mut().flat_map(|s| &mut s.partitions);
    let of_partitions = partitions.flat_map(|p| [&mut p.paused, &mut p.problem]);
    for text in of_partitions.flatten() {
        *text = for_operators(text);
    }
    let of_subscriptions = health.subscriptions.iter_mut().map(|s| &mut s.problem);
    for text in of_subscriptions.chain(health.brokers.iter_mut().map(|b| &mut b.error)).flatten() {
        *text = for_operators(text);
    }
    for p in &mut health.transactional_producers {
        for text in p.problem.iter_mut().chain(p.last_error.as_mut().map(|e| &mut e.error)) {
            *text = for_operators(text);
        }
    }
    for text in &mut health.problems {
        *text = for_operators(text);
    }
    health
}

/// Writes a line on stderr, [`for_operators`]; if that is closed, nothing happens.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", for_operators(&line.to_string()));
}

/// Stderr for the log, whose lines are [`for_operators`].
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    /// Gets a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(for_operators(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
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

const NULL: &[u8] = b"(null)";

/// Writes bytes as text without line breaks and control characters. Different bytes make different texts.
///
/// # Errors
/// Those of the writer.
pub fn readable(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(bytes) = bytes else { return out.write_all(NULL) };
    if bytes == NULL {
        out.write_all(b"\\")?;
    }
    for chunk in bytes.utf8_chunks() {
        let is_escaped = |c: char| c.is_control() || c == '\\';
        let mut plain = chunk.valid();
        while let Some(at) = plain.find(is_escaped) {
            let (before, rest) = plain.split_at(at);
            let mut rest = rest.chars();
            out.write_all(before.as_bytes())?;
            rest.next().map_or(Ok(()), |c| write!(out, "{}", c.escape_default()))?;
            plain = rest.as_str();
        }
        out.write_all(plain.as_bytes())?;
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Returns bytes as text without line breaks, as [`readable`] writes it; `(null)` without any.
pub fn line(bytes: Option<&[u8]>) -> String {
    let mut out = Vec::new();
    _ = readable(&mut out, bytes); // a Vec can't fail
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn operators_read_variables_and_commands() {
        let text =
            "topic \"a\" does not exist: create it (Admin::create_topic), or set Config::allow_auto_topic_creation";
        let named = "topic \"a\" does not exist: create it (ailurus topic create), or set allow auto topic creation \
                     (REDPANDA_ALLOW_AUTO_TOPIC_CREATION)";
        assert_eq!(for_operators(text), named);
        assert_eq!(for_operators("with retention (Admin::create_topic_with)"), "with retention (ailurus topic create)");
    }

    /// Appends the lines below this folder that name a call of `Admin` in a text: code calls it on a value.
    fn lines_with_calls(folder: &Path, lines: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                lines_with_calls(&entry, lines);
            } else if entry.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
                lines.extend(code.filter(|l| l.replace("Admin::new", "").contains("Admin::")).map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_call_in_a_text_of_the_library_has_a_command() {
        let mut lines = Vec::new();
        lines_with_calls(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../src")), &mut lines);
        for (call, _) in COMMANDS {
            assert!(lines.iter().any(|line| line.contains(call)), "no text names {call}");
        }
        let unknown = lines.iter().filter(|line| for_operators(&line.replace("Admin::new", "")).contains("Admin::"));
        assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn texts_of_health_are_for_operators_and_names_stay() {
        let text = "raise ProducerConfig::linger";
        let health = serde_json::json!({
            "status": "degraded", "problems": [text], "ageMs": 3, "clusterId": null, "controllerId": null, "topics": [],
            "brokers": [{"id": 1, "address": "a:1", "status": "down", "latencyMs": null, "error": text}],
            "subscriptions": [{
                "group": text, "topics": [text], "state": "joining", "stateMs": 7, "memberId": null, "generation": null,
                "activity": "busy", "problem": text, "lag": 0, "partitions": [{
                    "topic": text, "partition": 0, "activity": "busy", "quietMs": null, "position": 1, "committed": null,
                    "lag": null, "inFlight": 0, "parkedKeys": 0, "paused": text, "problem": text,
                }],
            }],
        });
        let health: Health = serde_json::from_value(health).unwrap();
        let json = serde_json::to_string(&health_for_operators(health)).unwrap();
        assert_eq!(json.matches("raise linger (REDPANDA_LINGER)").count(), 5, "{json}");
        assert_eq!(json.matches(text).count(), 3, "{json}");
    }

    #[test]
    fn thousands_are_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }

    #[test]
    fn text_stays_in_its_line() {
        assert_eq!(line(None), "(null)");
        assert_eq!(line(Some("größe".as_bytes())), "größe");
        assert_eq!(line(Some(b"a\nb\t\x1b[31m")), "a\\nb\\t\\u{1b}[31m");
        assert_eq!(line(Some(b"a\xff\xc3b")), r"a\xff\xc3b");
    }

    #[test]
    fn different_bytes_make_different_texts() {
        assert_eq!(line(Some(b"a\\nb")), r"a\\nb");
        assert_eq!(line(Some(b"(null)")), r"\(null)");
        let all: [Option<&[u8]>; 12] = [
            None,
            Some(b""),
            Some(b"(null)"),
            Some(b"\\(null)"),
            Some(b"a\nb"),
            Some(b"a\\nb"),
            Some(b"\xff"),
            Some(b"\\xff"),
            Some("\u{fffd}".as_bytes()),
            Some(b"\xfe"),
            Some(b"\x1b"),
            Some(b"\\u{1b}"),
        ];
        let texts: std::collections::BTreeSet<_> = all.iter().map(|bytes| line(*bytes)).collect();
        assert_eq!(texts.len(), all.len(), "{texts:?}");
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
