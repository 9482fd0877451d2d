//! The settings of nodes that clients can ask for and change.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::config::BrokerConfig;
use crate::error::ApiError;

/// Where a setting's value comes from, as DescribeConfigs numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// A setting as it is told.
#[derive(Debug)]
pub(crate) struct NodeConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub source: ConfigSource,
}

/// What can be changed while a node runs, and its default. It is told but not acted upon.
const DYNAMIC_SETTINGS: &[(&str, &str)] = &[("log.retention.ms", "604800000")];

type Overrides = BTreeMap<&'static str, String>;

/// The settings that were given to single nodes, and to all.
#[derive(Debug, Default)]
pub(crate) struct NodeConfig {
    all: Overrides,
    nodes: BTreeMap<i32, Overrides>,
}

impl NodeConfig {
    /// All settings of a node; of all nodes (`None`) those that were given to all.
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

    /// Makes all of the changes or none; `None` goes back to the default.
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

/// What a node is started with.
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
