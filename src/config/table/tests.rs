//! `.env.example`, the READMEs and the guides say what the table says.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use super::Row;
use crate::config::{ConfigBuilder, env};

fn document(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// With gzip, so that its level counts.
fn vars(variable: &str, value: &str) -> ConfigBuilder {
    let gzip = |name: &str| (name == "REDPANDA_COMPRESSION").then(|| "gzip".to_owned());
    ConfigBuilder::from_vars(|name| if name == variable { Some(value.to_owned()) } else { gzip(name) })
}

impl Row {
    fn of(variable: &str) -> Option<&'static Self> {
        env::rows().find(|row| row.variable == variable)
    }

    fn is_unset_by_default(&self) -> bool {
        matches!(self.default, "None" | "HashMap::new()")
    }

    /// Returns whether this text of the variable means the default.
    fn has_default(&self, text: &str) -> bool {
        match self.default {
            "true" | "false" => text == self.default,
            "Compression::None" => text == "none",
            _ => vars(self.variable, text).build().is_ok_and(|config| config == vars("", "").config),
        }
    }

    /// Returns the least and the most that is allowed, in milliseconds, bytes or records, where they are numbers.
    fn bounds(&self) -> Vec<u128> {
        let number = |text: &str| {
            let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let per_unit = if &text[unit..] == "s" { 1000 } else { 1 };
            text[..unit].parse::<u128>().unwrap() * per_unit
        };
        // The smaller one for a variable of 32 bits.
        let errors = ["1000000000000000", "4000000000"]
            .map(|value| vars(self.variable, value).build().map_or_else(|e| e.to_string(), |_| String::new()));
        let own = format!("({}) is ", self.variable);
        let problems = errors.iter().flat_map(|e| e.split("; ")).filter(|problem| problem.contains(&own));
        let allowed = problems.filter_map(|problem| problem.split_once(": allowed is ")?.1.split_once(" to ")).next();
        let Some((least, most)) = allowed.filter(|_| !self.bounds.is_empty()) else { return Vec::new() };
        let (least_source, most_source) = self.bounds.split_once("..=").unwrap();
        [(least, least_source), (most, most_source)]
            .into_iter()
            .filter(|(_, source)| !source.contains("self.") && (usize::BITS > 32 || *source != "MEMORY"))
            .map(|(text, _)| number(text))
            .collect()
    }
}

/// A line of `.env.example` with the comment that stands above it.
struct Example {
    variable: String,
    value: String,
    comment: String,
}

fn examples() -> Vec<Example> {
    let (mut examples, mut comment, mut had_setting) = (Vec::new(), String::new(), false);
    for line in document(".env.example").lines() {
        if let Some((variable, value)) = line.split_once('=').filter(|_| line.starts_with("REDPANDA_")) {
            had_setting = true;
            let (variable, value) = (variable.to_owned(), value.to_owned());
            examples.push(Example { variable, value, comment: comment.clone() });
        } else {
            if std::mem::take(&mut had_setting) {
                comment.clear();
            }
            comment += line;
            comment.push('\n');
        }
    }
    examples
}

/// The variables of the table of settings, each with its default, without marks and units.
fn table(document_name: &str) -> Vec<(String, String)> {
    let text = document(document_name);
    let rows = text.lines().filter(|line| line.starts_with("| `REDPANDA_"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells.flat_map(|cells| settings(cells[1], cells[2])).collect()
}

fn settings(names: &str, defaults: &str) -> Vec<(String, String)> {
    let names: Vec<_> = names.split([',', '、']).map(|name| name.trim().trim_matches('`')).collect();
    let defaults = defaults.replace('、', ", ");
    let defaults: Vec<_> = if names.len() == 1 { vec![&*defaults] } else { defaults.split(", ").collect() };
    let bare = |default: &str| {
        let text = default.split('：').next().and_then(|text| text.split(": ").next()).unwrap_or_default();
        let units = [" ms", " bytes", " 字节"];
        let text = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text);
        text.trim_matches('`').to_owned()
    };
    let variable = |name: &str| name.strip_prefix('…').map_or(name, |end| with_end(names[0], end)).to_owned();
    let default = |i: usize| bare(defaults.get(i).unwrap_or(&defaults[0]));
    names.iter().enumerate().map(|(i, name)| (variable(name), default(i))).collect()
}

/// Returns the variable with this end whose beginning is most like that of `first`.
fn with_end(first: &str, end: &str) -> &'static str {
    let common = |variable: &str| variable.bytes().zip(first.bytes()).take_while(|(a, b)| a == b).count();
    env::rows().map(|row| row.variable).filter(|v| v.ends_with(end)).max_by_key(|v| common(v)).unwrap()
}

#[track_caller]
fn assert_all_are_there<'a>(document: &str, names: impl Iterator<Item = &'a str>) {
    let mut there = BTreeSet::new();
    for name in names {
        assert!(there.insert(name), "{document} has {name} twice");
    }
    let settings: BTreeSet<_> = env::rows().map(|row| row.variable).collect();
    let differing: Vec<_> = there.symmetric_difference(&settings).collect();
    assert!(differing.is_empty(), "only in {document}, or not in it: {differing:?}");
}

#[test]
fn the_example_file_has_every_setting_and_default() {
    let examples = examples();
    assert_all_are_there(".env.example", examples.iter().map(|e| &*e.variable));
    for example in examples {
        let row = Row::of(&example.variable).unwrap();
        let is_default =
            if example.value.is_empty() { row.is_unset_by_default() } else { row.has_default(&example.value) };
        assert!(is_default, ".env.example: {} is {:?}: the default is {}", row.variable, example.value, row.default);
    }
}

#[test]
fn the_example_file_has_the_bounds() {
    let (mut found, mut missing) = (0, Vec::new());
    for example in examples() {
        let named = example.comment.split(|c: char| !c.is_ascii_digit()).collect::<Vec<_>>();
        for bound in Row::of(&example.variable).unwrap().bounds() {
            found += 1;
            // That a time is positive needs no word.
            if bound > 1 && !named.contains(&bound.to_string().as_str()) {
                missing.push(format!("{} of {}", bound, example.variable));
            }
        }
    }
    assert!(missing.is_empty(), "not in .env.example: {missing:?}");
    assert!(found > 50, "{found}");
}

#[test]
fn the_tables_of_settings_are_complete_and_have_the_defaults() {
    for document in ["docs/settings.md", "docs/settings.zh-CN.md", "README.md", "README.zh-CN.md"] {
        let table = table(document);
        match document.starts_with("docs/") {
            true => assert_all_are_there(document, table.iter().map(|(variable, _)| &**variable)),
            false => assert_eq!(table.len(), 7, "{document}"),
        }
        for (variable, text) in table {
            let row = Row::of(&variable).unwrap();
            // A word for none, such as "the system's".
            let is_none = row.is_unset_by_default() && !text.contains(|c: char| c.is_ascii_digit());
            assert!(
                is_none || row.has_default(&text),
                "{document}: {variable} is {text:?}: the default is {}",
                row.default
            );
        }
    }
}

/// SASL variables only work together.
#[test]
fn every_variable_sets_something() {
    let texts =
        ["7", "70000", "off", "key", "none", "sticky", "auto", "zstd", "a=zstd", "round_robin", "read_committed"];
    for row in env::rows().filter(|row| !row.variable.contains("_SASL_")) {
        let set = |text: &str| vars(row.variable, text);
        let is_set = |text| set(text).problems.is_empty() && set(text).config != vars("", "").config;
        assert!(texts.into_iter().chain(["leader", "ssl"]).any(is_set), "{}", row.variable);
    }
}

#[test]
fn guides_name_only_existing_settings() {
    let is_lower = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let tuning = document("docs/tuning.md");
    let named: Vec<_> = tuning.split('`').filter(is_lower).collect();
    assert!(named.len() > 50, "{named:?}");
    for setter in named {
        assert!(env::rows().any(|row| row.setter == setter), "docs/tuning.md: {setter} is no setter");
    }
    for guide in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap().map(|entry| entry.unwrap().path())
    {
        let text = fs::read_to_string(&guide).unwrap_or_default();
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        // `REDPANDA_*` is all of them.
        for word in words.filter(|word| word.starts_with("REDPANDA_") && !word.ends_with('_')) {
            assert!(Row::of(word).is_some(), "{}: {word} is no setting", guide.display());
        }
    }
}
