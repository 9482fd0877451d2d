//! The `REDPANDA_*` variables of the environment and of `.env`.

mod sasl;
mod unknown;

use std::collections::BTreeMap;
use std::path::Path;

use super::table::{Row, row};
use super::{
    Compression, Config, ConfigBuilder, ConsumerConfig, ProcessorConfig, ProducerConfig, TlsConfig, dotenv, parse,
};
use crate::error::{Error, ErrorKind, Result};

/// Settings without a field of their own.
const OTHERS: &[Row] = &[row!(
    "Compression::Gzip",
    "compression_level",
    "REDPANDA_COMPRESSION_LEVEL",
    "Level of gzip, as codec of all topics.",
    "Compression::DEFAULT_GZIP_LEVEL",
    "gzip_level",
    ""
)];

/// Variables of crates on top of this one.
const OF_OTHER_CRATES: [&str; 5] = [
    "REDPANDA_SCHEMA_REGISTRY_CONTEXT",
    "REDPANDA_SCHEMA_REGISTRY_PASSWORD",
    "REDPANDA_SCHEMA_REGISTRY_TOKEN_FILE",
    "REDPANDA_SCHEMA_REGISTRY_URL",
    "REDPANDA_SCHEMA_REGISTRY_USERNAME",
];

/// Returns the names of all variables that have an effect.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|row| row.variable).chain(OF_OTHER_CRATES)
}

/// Returns the rows of all tables.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    let roles = [ProducerConfig::ROWS, OTHERS, ConsumerConfig::ROWS, ProcessorConfig::ROWS];
    [Config::ROWS, TlsConfig::ROWS, sasl::ROWS].into_iter().chain(roles).flatten()
}

/// Names the variable of each setting that a text names by its field, for programs that are configured
/// by variables: their operators know these, and not the types of the library.
///
/// ```
/// let text = "the buffer is full: raise ProducerConfig::buffer_memory";
/// assert_eq!(
///     ailurus::config::name_variables(text),
///     "the buffer is full: raise buffer memory (REDPANDA_BUFFER_MEMORY)"
/// );
/// ```
pub fn name_variables(text: &str) -> String {
    let mut named = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| !is_of_path(c)) {
        let path = word.trim_end_matches(|c: char| !is_of_path(c)).trim_end_matches(':');
        match rows().find(|row| row.path == path) {
            Some(row) => {
                let setting = row.setter.replace('_', " ");
                named.extend([&*setting, " (", row.variable, ")", &word[path.len()..]]);
            }
            None => named.push_str(word),
        }
    }
    named
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// Reads settings from the environment and, for those not set there, from the file.
pub(super) fn read(file: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<ConfigBuilder> {
    let mut settings = from_file(file)?;
    let mut origins: BTreeMap<_, _> = settings.keys().map(|name| (name.clone(), file.display().to_string())).collect();
    // An empty variable of the environment counts as not set, and does not hide one of the file.
    for (name, value) in environment.into_iter().filter(|(_, value)| !value.trim().is_empty()) {
        if name.starts_with("REDPANDA_") && !unknown::is_service_link(&name, &value) {
            origins.insert(name.clone(), "the environment".to_owned());
            settings.insert(name, value);
        }
    }
    unknown::warn(origins.iter().map(|(name, origin)| (name.as_str(), origin.as_str())));
    let mut builder = ConfigBuilder::default();
    apply(&mut builder, |name| settings.get(name).cloned());
    Ok(builder)
}

/// Returns the settings of the file; none if it does not exist.
fn from_file(file: &Path) -> Result<BTreeMap<String, String>> {
    // A directory of that name belongs to another tool, such as a Python virtual environment.
    let parsed = match std::fs::read(file) {
        Ok(text) => dotenv::parse(&text),
        Err(_) if file.is_dir() => return Ok(BTreeMap::new()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => Err(e.to_string()),
    };
    parsed.map_err(|why| Error::new(ErrorKind::Config, format!("{}: {why}; see .env.example", file.display())))
}

/// Applies the variables that are set, and collects the invalid ones.
pub(super) fn apply(builder: &mut ConfigBuilder, read: impl Fn(&str) -> Option<String>) {
    builder.reads_variables = true;
    let problems = std::mem::take(&mut builder.problems);
    // Empty counts as not set: templates of environments can't omit a variable.
    let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
    builder.set_by_variable.extend(rows().map(|row| row.variable).filter(|name| read(name).is_some()));
    let others = OF_OTHER_CRATES.into_iter().filter_map(|name| Some((name, read(name)?.trim().into())));
    builder.other_variables.extend(others);
    let mut vars = Vars { read: &read, problems };
    let config = &mut builder.config;
    config.read(&mut vars);
    config.tls.read(&mut vars);
    sasl::read(&mut vars, &mut config.sasl, &mut builder.token_endpoint);
    config.producer.read(&mut vars);
    config.consumer.read(&mut vars);
    config.processor.read(&mut vars);
    let mut gzip_level = Compression::DEFAULT_GZIP_LEVEL;
    vars.set("REDPANDA_COMPRESSION_LEVEL", parse::gzip_level, &mut gzip_level);
    if let Compression::Gzip { level } = &mut config.producer.compression {
        *level = gzip_level;
    }
    builder.problems = vars.problems;
}

pub(super) struct Vars<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Vars<'_> {
    pub(super) fn set<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>, into: &mut T) {
        let Some(value) = (self.read)(name) else { return };
        match parse(value.trim()) {
            Ok(parsed) => *into = parsed,
            Err(allowed) => self.problems.push(format!("{name} is {value:?}: {allowed}")),
        }
    }
}
