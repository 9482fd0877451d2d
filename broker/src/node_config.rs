//! Settings of nodes, as DescribeConfigs and IncrementalAlterConfigs see them.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::config::BrokerConfig;
use crate::error::ApiError;

/// Source of a setting's value, as in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// A setting in a DescribeConfigs response.
#[derive(Debug)]
pub(crate) struct NodeConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub source: ConfigSource,
}

/// Settings that can be changed, with their defaults. They are stored and described, and have no
/// effect.
const DYNAMIC_SETTINGS: &[(&str, &str)] = &[("log.retention.ms", "604800000")];

type Overrides = BTreeMap<&'static str, String>;

/// Changed settings, of single nodes and of all.
#[derive(Debug, Default)]
pub(crate) struct NodeConfig {
    all: Overrides,
    nodes: BTreeMap<i32, Overrides>,
}

impl NodeConfig {
    /// Returns all settings of a node; for `None`, the cluster-wide overrides.
    pub fn describe(&self, node: Option<i32>, config: &BrokerConfig) -> Vec<NodeConfigEntry> {
        let overrides = |overrides: &Overrides, source| {
            overrides
                .iter()
                .map(|(&name, value)| NodeConfigEntry { name, value: value.clone(), source })
                .collect::<Vec<_>>()
        };
        let Some(node) = node else { return overrides(&self.all, ConfigSource::DynamicDefaultBroker) };
        let own = self.nodes.get(&node);
        let dynamic = DYNAMIC_SETTINGS.iter().map(|&(name, default)| {
            let of = |overrides: &Overrides, source| overrides.get(name).map(|v| (v.clone(), source));
            let found = own
                .and_then(|g| of(g, ConfigSource::DynamicBroker))
                .or_else(|| of(&self.all, ConfigSource::DynamicDefaultBroker));
            let (value, source) = found.unwrap_or_else(|| (default.to_owned(), ConfigSource::Default));
            NodeConfigEntry { name, value, source }
        });
        let static_settings = static_settings(config).into_iter().map(|(name, value)| NodeConfigEntry {
            name,
            value,
            source: ConfigSource::StaticBroker,
        });
        let mut all: Vec<_> = static_settings.chain(dynamic).collect();
        all.sort_by_key(|d| d.name);
        all
    }

    /// Applies all changes or none; a value of `None` resets a setting to its default.
    pub fn alter(
        &mut self,
        node: Option<i32>,
        changes: &[(String, Option<String>)],
        config: &BrokerConfig,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let mut overrides = match node {
            Some(node) => self.nodes.get(&node).cloned().unwrap_or_default(),
            None => self.all.clone(),
        };
        for (name, value) in changes {
            let Some(&(known, _)) = DYNAMIC_SETTINGS.iter().find(|(known, _)| known == name) else {
                return Err(not_dynamic(name, config));
            };
            match value {
                None => _ = overrides.remove(known),
                Some(value) if value.parse::<i64>().is_ok_and(|n| n >= -1) => {
                    _ = overrides.insert(known, value.clone())
                }
                Some(value) => {
                    let message = format!("Invalid value {value} for configuration {name}");
                    return Err(ApiError::new(ResponseError::InvalidRequest, message));
                }
            }
        }
        match node {
            _ if dry_run => {}
            Some(node) => _ = self.nodes.insert(node, overrides),
            None => self.all = overrides,
        }
        Ok(())
    }
}

fn not_dynamic(name: &str, config: &BrokerConfig) -> ApiError {
    let message = match static_settings(config).iter().any(|(known, _)| *known == name) {
        true => format!("Cannot update these configs dynamically: Set({name})"),
        false => format!("Unknown broker config name: {name}"),
    };
    ApiError::new(ResponseError::InvalidRequest, message)
}

/// Returns the settings that a node is started with.
fn static_settings(c: &BrokerConfig) -> [(&'static str, String); 7] {
    [
        ("auto.create.topics.enable", c.auto_create.to_string()),
        ("default.replication.factor", c.default_replication.to_string()),
        ("group.initial.rebalance.delay.ms", c.initial_rebalance_delay.as_millis().to_string()),
        ("group.max.session.timeout.ms", c.session_timeout_max.as_millis().to_string()),
        ("group.min.session.timeout.ms", c.session_timeout_min.as_millis().to_string()),
        ("message.max.bytes", c.max_message_bytes.to_string()),
        ("num.partitions", c.default_partitions.to_string()),
    ]
}
