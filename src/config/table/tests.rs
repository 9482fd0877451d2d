//! `.env.example` is generated from the table; the READMEs and the guides say what it says.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

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
        matches!(self.text.default, "None" | "HashMap::new()" | "Vec::new()")
    }

    /// Returns whether this text of the variable means the default.
    fn has_default(&self, text: &str) -> bool {
        match self.text.default {
            "true" | "false" => text == self.text.default,
            "Compression::None" => text == "none",
            _ => vars(self.variable, text).build().is_ok_and(|config| config == vars("", "").config),
        }
    }

    /// Returns what is allowed by the error of this value; `None` if it is allowed.
    fn allowed(&self, value: &str) -> Option<String> {
        let of_this = [format!(" {} is ", self.variable), format!("({}) is ", self.variable)];
        let error = format!(" {}", vars(self.variable, value).build().err()?);
        let problem = error.split(';').find(|problem| of_this.iter().any(|this| problem.contains(this)))?;
        Some(problem.split_once(": allowed ")?.1.split_once(' ')?.1.to_owned())
    }

    /// Returns the least and the most that is allowed, in milliseconds, bytes or records, where they depend on no other
    /// setting; `None` if the row has no bounds.
    fn bounds(&self) -> Option<[Option<u128>; 2]> {
        let number = |text: &str| {
            let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let per_unit = if &text[unit..] == "s" { 1000 } else { 1 };
            text[..unit].parse::<u128>().unwrap() * per_unit
        };
        let (least_source, most_source) = self.text.bounds.split_once("..=")?;
        // The smaller one for a variable of 32 bits, of which the larger is no number.
        let mut allowed = ["1000000000000000", "4000000000"].iter().filter_map(|value| self.allowed(value));
        let allowed = allowed.find(|allowed| allowed.contains(" to ")).unwrap();
        let (least, most) = allowed.split_once(" to ").unwrap();
        let fixed = |text, source: &str| (!source.contains("self.")).then(|| number(text));
        Some([fixed(least, least_source), fixed(most, most_source)])
    }

    /// Returns the comment of the setting in `.env.example`: the first sentence of its documentation, and what is allowed.
    fn comment(&self) -> String {
        let doc = self.plain_doc();
        let sentence = doc.find(". ").map_or(doc.trim_end_matches('.'), |end| &doc[..end]);
        let unit = match self.text.parser {
            "millis" | "limit" => "\u{a0}ms",
            "bytes" => "\u{a0}bytes",
            _ => "",
        };
        let or_none = if self.text.parser == "limit" { ", or 0 for none" } else { "" };
        let allowed = match self.bounds().filter(|_| self.text.parser != "retention") {
            Some([Some(least), Some(most)]) => Some(format!("{least} to {most}{unit}{or_none}")),
            Some([None, Some(most)]) => Some(format!("up to {most}{unit}{or_none}")),
            Some([Some(least), None]) => Some(format!("{least}{unit} or more")),
            _ => self.allowed("?"),
        };
        format!("{sentence}.{}", allowed.map(|allowed| format!(" Allowed: {allowed}.")).unwrap_or_default())
    }

    /// Returns the documentation without marks; other settings of the role are named by their variables.
    fn plain_doc(&self) -> String {
        let role = self.path.split("::").next().unwrap();
        let mut plain = String::new();
        for (i, part) in self.text.doc.trim().split('`').enumerate() {
            // Every other part is code.
            if i % 2 == 1 {
                let setting = env::rows().find(|row| row.path == format!("{role}::{part}"));
                plain += setting.map_or(part, |row| row.variable);
                continue;
            }
            // What is left of a link around the code before it, and around the one behind it.
            let part = part.strip_prefix(']').unwrap_or(part);
            let part = if part.starts_with('(') && i > 0 { part.split_once(')').unwrap().1 } else { part };
            plain += part.strip_suffix('[').unwrap_or(part);
        }
        plain
    }

    fn heading(&self) -> &'static str {
        match self.path.split("::").next().unwrap() {
            "Config" => "Client",
            "TlsConfig" => "TLS, with the security protocols SSL and SASL_SSL",
            "ProducerConfig" | "Compression" => "Producers",
            "ConsumerConfig" => "Consumers",
            "ProcessorConfig" => "Handlers",
            _ => "Login, with the security protocols SASL_PLAINTEXT and SASL_SSL",
        }
    }
}

/// Generates `.env.example`; header and values are those of this text.
fn generate_example(example: &str) -> String {
    let values: BTreeMap<_, _> = example.lines().filter_map(|line| line.split_once('=')).collect();
    let (mut text, mut heading) = (example.split("\n\n").next().unwrap().to_owned() + "\n", "");
    for row in env::rows() {
        if row.heading() != heading {
            heading = row.heading();
            text += &format!("\n## {heading}\n");
        }
        let mut line = String::from("#");
        for word in row.comment().split(' ') {
            if line.len() + 1 + word.len() > 120 {
                text += &(std::mem::replace(&mut line, "#".into()) + "\n");
            }
            line = line + " " + word;
        }
        text += &format!("{line}\n{}={}\n", row.variable, values.get(row.variable).copied().unwrap_or("?"));
    }
    text.replace('\u{a0}', " ")
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
    if usize::BITS < 64 {
        return; // with lower bounds of memory
    }
    let example = document(".env.example");
    let generated = generate_example(&example);
    if std::env::var_os("AILURUS_WRITE_ENV_EXAMPLE").is_some() {
        return fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example"), &generated).unwrap();
    }
    let command = "AILURUS_WRITE_ENV_EXAMPLE=1 cargo test -p ailurus --lib config::table writes it again";
    for (written, expected) in example.lines().zip(generated.lines()) {
        assert_eq!(written, expected, "{command}");
    }
    assert_eq!(example, generated, "{command}");
    for (variable, value) in example.lines().filter_map(|line| line.split_once('=')).filter(|(v, _)| !v.contains('#')) {
        let row = Row::of(variable).unwrap();
        let is_default = if value.is_empty() { row.is_unset_by_default() } else { row.has_default(value) };
        assert!(is_default, ".env.example: {variable} is {value:?}: the default is {}", row.text.default);
    }
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
                row.text.default
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
            assert!(env::names().any(|known| known == word), "{}: {word} is no setting", guide.display());
        }
    }
}

/// Lines of code of the library below this folder, without those of tests.
fn code_lines(folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            if name != "tests" {
                code_lines(&entry, lines);
            }
        } else if name.ends_with(".rs") && !name.contains("test") {
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
            lines.extend(code.map(|line| format!("{}: {line}", entry.display())));
        }
    }
}

/// Returns the fields in a line: `ProducerConfig::linger` and the like.
fn paths_of_fields(line: &str) -> impl Iterator<Item = &str> {
    let roles =
        ["Config", "ProducerConfig", "ConsumerConfig", "ProcessorConfig", "TlsConfig", "SaslConfig", "Credentials"];
    let words = line.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    words.filter(|word| !word.ends_with('(')).filter_map(move |word| {
        let path = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let (role, field) = path.split_once("::")?;
        let is_field = field.starts_with(|c: char| c.is_ascii_lowercase()) && !field.contains("::");
        (is_field && roles.contains(&role)).then_some(path)
    })
}

/// Returns whether a line of code names the command `ailurus` with a subcommand, which may be on the next
/// line.
fn names_a_command(line: &str) -> bool {
    line.split("ailurus ").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '\\'))
}

#[test]
fn commands_are_found_in_lines_of_code() {
    assert!(names_a_command(r#""by its id (ailurus txn fence ID)""#) && names_a_command(r#""see ailurus \"#));
    assert!(!names_a_command(r#"("ailurus", "0.2")"#) && !names_a_command(r#""ailurus {version}""#));
}

#[test]
fn texts_of_the_library_name_fields_and_calls() {
    let mut lines = Vec::new();
    code_lines(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut lines);
    let commands = lines.iter().filter(|line| names_a_command(line));
    assert_eq!(commands.collect::<Vec<_>>(), Vec::<&String>::new(), "name the call: see ailurus_serve::text::COMMANDS");
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    lines.retain(|line| !line[src.len()..].starts_with("/config"));
    let variables = lines.iter().filter(|line| line.contains("REDPANDA_"));
    assert_eq!(variables.collect::<Vec<_>>(), Vec::<&String>::new(), "the application may set no variable");
    let named: Vec<_> = lines.iter().flat_map(|line| paths_of_fields(line)).collect();
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<_> = named.into_iter().filter(|path| env::rows().all(|row| row.path != *path)).collect();
    assert!(unknown.is_empty(), "no setting has this field: {unknown:?}");
}

#[test]
fn each_setting_is_named_by_its_variable() {
    for row in env::rows() {
        let named = env::name_variables(&format!("raise {}: x", row.path));
        let setting = row.setter.replace('_', " ");
        assert_eq!(named, format!("raise {setting} ({}): x", row.variable), "{}", row.path);
        // Two are of Kafka's settings: `group.id` of a consumer, `auto.offset.reset`.
        let words =
            row.variable.trim_start_matches("REDPANDA_").trim_start_matches("CONSUMER_").trim_start_matches("AUTO_");
        let name = row.setter.to_uppercase();
        assert_eq!(name.trim_start_matches("AUTO_"), words, "the setting's name and its variable's differ");
    }
    for other in ["see MyProducerConfig::linger", "ProducerConfig::lingers", "a::b: c::", "größer"] {
        assert_eq!(env::name_variables(other), other);
    }
}
