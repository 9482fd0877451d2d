//! Settings of a topic, as DescribeConfigs and IncrementalAlterConfigs see them.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::config::BrokerConfig;
use crate::error::ApiError;

/// Type of a setting, as in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Int = 3,
    Long = 5,
    String = 2,
    List = 7,
}

/// Settings: (name, type, default, allowed values).
///
/// `retention.ms`, `cleanup.policy` and `compression.type` are stored and described: records do not
/// expire, nothing is compacted, and batches are not recompressed. But a compacted topic rejects
/// records without a key.
const TOPIC_SETTINGS: &[(&str, ConfigType, &str, &[&str])] = &[
    ("cleanup.policy", ConfigType::List, "delete", &["delete", "compact", "compact,delete", "delete,compact"]),
    (
        "compression.type",
        ConfigType::String,
        "producer",
        &["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"],
    ),
    ("max.message.bytes", ConfigType::Int, "1048588", &[]),
    ("min.insync.replicas", ConfigType::Int, "1", &[]),
    ("retention.bytes", ConfigType::Long, "-1", &[]),
    ("retention.ms", ConfigType::Long, "604800000", &[]),
];

/// A setting in a DescribeConfigs response.
#[derive(Debug)]
pub(crate) struct TopicConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub config_type: ConfigType,
    pub is_default: bool,
}

/// Settings of a topic that differ from the defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicConfig {
    overrides: BTreeMap<&'static str, String>,
}

impl TopicConfig {
    /// Sets a value; `None` resets it to the default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError::new(ResponseError::InvalidConfig, message);
        let &(name, config_type, _, allowed_values) = TOPIC_SETTINGS
            .iter()
            .find(|known| known.0 == name)
            .ok_or_else(|| invalid(format!("Unknown topic config name: {name}")))?;
        let Some(value) = value else {
            self.overrides.remove(name);
            return Ok(());
        };
        let allowed = match config_type {
            ConfigType::Int => value.parse::<i32>().is_ok_and(|n| n >= 0),
            ConfigType::Long => value.parse::<i64>().is_ok_and(|n| n >= -1),
            ConfigType::String | ConfigType::List => allowed_values.contains(&value),
        };
        if !allowed {
            return Err(invalid(format!("Invalid value {value} for configuration {name}")));
        }
        self.overrides.insert(name, value.to_owned());
        Ok(())
    }

    pub fn describe(&self, defaults: &BrokerConfig) -> Vec<TopicConfigEntry> {
        let one = |&(name, config_type, default, _): &(&'static str, ConfigType, &str, _)| {
            let default = match name {
                "max.message.bytes" => defaults.max_message_bytes.to_string(),
                "retention.bytes" => defaults.retention_bytes.map_or_else(|| "-1".into(), |b| b.to_string()),
                _ => default.to_owned(),
            };
            let overrides = self.overrides.get(name).cloned();
            TopicConfigEntry { name, config_type, is_default: overrides.is_none(), value: overrides.unwrap_or(default) }
        };
        TOPIC_SETTINGS.iter().map(one).collect()
    }

    /// Returns the current items of a setting that is a list.
    pub fn list_value(&self, name: &str, defaults: &BrokerConfig) -> Option<Vec<String>> {
        let found =
            self.describe(defaults).into_iter().find(|d| d.name == name && d.config_type == ConfigType::List)?;
        Some(found.value.split(',').filter(|i| !i.is_empty()).map(str::to_owned).collect())
    }

    pub fn max_message_bytes(&self, defaults: &BrokerConfig) -> usize {
        let bytes = self.integer("max.message.bytes").unwrap_or_else(|| i64::from(defaults.max_message_bytes));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub fn min_insync_replicas(&self) -> usize {
        self.integer("min.insync.replicas").and_then(|n| usize::try_from(n).ok()).unwrap_or(1)
    }

    pub fn is_compacted(&self) -> bool {
        self.overrides.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|word| word == "compact"))
    }

    /// Returns the bytes to retain; `None` if unlimited.
    pub fn retention_bytes(&self, defaults: &BrokerConfig) -> Option<u64> {
        match self.integer("retention.bytes") {
            Some(bytes) => u64::try_from(bytes).ok(),
            None => defaults.retention_bytes,
        }
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.overrides.get(name)?.parse().ok()
    }
}
