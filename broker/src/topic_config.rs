//! The settings of a topic that clients can ask for and change.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::config::BrokerConfig;
use crate::error::Refused;

/// What a setting holds, as DescribeConfigs numbers the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int = 3,
    Long = 5,
    String = 2,
    List = 7,
}

/// (name, kind, default, allowed words).
///
/// `retention.ms`, `cleanup.policy` and `compression.type` are told but not acted upon: nothing is deleted for its age,
/// nothing is compacted by itself, and batches stay as they were sent. But a topic that is compacted takes no record without a key.
const KNOWN: &[(&str, Kind, &str, &[&str])] = &[
    ("cleanup.policy", Kind::List, "delete", &["delete", "compact", "compact,delete", "delete,compact"]),
    ("compression.type", Kind::String, "producer", &["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    ("max.message.bytes", Kind::Int, "1048588", &[]),
    ("min.insync.replicas", Kind::Int, "1", &[]),
    ("retention.bytes", Kind::Long, "-1", &[]),
    ("retention.ms", Kind::Long, "604800000", &[]),
];

/// A setting as it is told.
#[derive(Debug)]
pub(crate) struct Described {
    pub name: &'static str,
    pub value: String,
    pub kind: Kind,
    pub is_default: bool,
}

/// The settings that a topic was given; all others have their defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicConfig {
    given: BTreeMap<&'static str, String>,
}

impl TopicConfig {
    /// Sets a value, or with `None` goes back to the default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Refused> {
        let refused = |why: String| (ResponseError::InvalidConfig, why);
        let &(name, kind, _, words) = KNOWN
            .iter()
            .find(|known| known.0 == name)
            .ok_or_else(|| refused(format!("Unknown topic config name: {name}")))?;
        let Some(value) = value else {
            self.given.remove(name);
            return Ok(());
        };
        let allowed = match kind {
            Kind::Int => value.parse::<i32>().is_ok_and(|n| n >= 0),
            Kind::Long => value.parse::<i64>().is_ok_and(|n| n >= -1),
            Kind::String | Kind::List => words.contains(&value),
        };
        if !allowed {
            return Err(refused(format!("Invalid value {value} for configuration {name}")));
        }
        self.given.insert(name, value.to_owned());
        Ok(())
    }

    pub fn describe(&self, defaults: &BrokerConfig) -> Vec<Described> {
        let one = |&(name, kind, default, _): &(&'static str, Kind, &str, _)| {
            let default = match name {
                "max.message.bytes" => defaults.max_message_bytes.to_string(),
                "retention.bytes" => defaults.retention_bytes.map_or_else(|| "-1".into(), |b| b.to_string()),
                _ => default.to_owned(),
            };
            let given = self.given.get(name).cloned();
            Described { name, kind, is_default: given.is_none(), value: given.unwrap_or(default) }
        };
        KNOWN.iter().map(one).collect()
    }

    /// What a setting holds now, if it is a list.
    pub fn list(&self, name: &str, defaults: &BrokerConfig) -> Option<Vec<String>> {
        let found = self.describe(defaults).into_iter().find(|d| d.name == name && d.kind == Kind::List)?;
        Some(found.value.split(',').filter(|i| !i.is_empty()).map(str::to_owned).collect())
    }

    pub fn max_message_bytes(&self, defaults: &BrokerConfig) -> usize {
        let bytes = self.number("max.message.bytes").unwrap_or_else(|| i64::from(defaults.max_message_bytes));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub fn min_insync_replicas(&self) -> usize {
        self.number("min.insync.replicas").and_then(|n| usize::try_from(n).ok()).unwrap_or(1)
    }

    pub fn is_compacted(&self) -> bool {
        self.given.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|word| word == "compact"))
    }

    /// `None`: keep everything.
    pub fn retention_bytes(&self, defaults: &BrokerConfig) -> Option<u64> {
        match self.number("retention.bytes") {
            Some(bytes) => u64::try_from(bytes).ok(),
            None => defaults.retention_bytes,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.given.get(name)?.parse().ok()
    }
}
