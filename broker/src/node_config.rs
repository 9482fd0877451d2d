//! The settings of nodes that clients can ask for and change.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::config::BrokerConfig;
use crate::error::Refused;

/// Where a setting's value comes from, as DescribeConfigs numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Node = 2,
    AllNodes = 3,
    Static = 4,
    Default = 5,
}

/// A setting as it is told.
#[derive(Debug)]
pub(crate) struct Described {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// What can be changed while a node runs, and its default. It is told but not acted upon.
const DYNAMIC: &[(&str, &str)] = &[("log.retention.ms", "604800000")];

type Given = BTreeMap<&'static str, String>;

/// The settings that were given to single nodes, and to all.
#[derive(Debug, Default)]
pub(crate) struct NodeConfig {
    all: Given,
    nodes: BTreeMap<i32, Given>,
}

impl NodeConfig {
    /// All settings of a node; of all nodes (`None`) those that were given to all.
    pub fn describe(&self, node: Option<i32>, config: &BrokerConfig) -> Vec<Described> {
        let given = |given: &Given, source| {
            given.iter().map(|(&name, value)| Described { name, value: value.clone(), source }).collect::<Vec<_>>()
        };
        let Some(node) = node else { return given(&self.all, Source::AllNodes) };
        let own = self.nodes.get(&node);
        let dynamic = DYNAMIC.iter().map(|&(name, default)| {
            let of = |given: &Given, source| given.get(name).map(|v| (v.clone(), source));
            let found = own.and_then(|g| of(g, Source::Node)).or_else(|| of(&self.all, Source::AllNodes));
            let (value, source) = found.unwrap_or_else(|| (default.to_owned(), Source::Default));
            Described { name, value, source }
        });
        let fixed = fixed(config).into_iter().map(|(name, value)| Described { name, value, source: Source::Static });
        let mut all: Vec<_> = fixed.chain(dynamic).collect();
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
    ) -> Result<(), Refused> {
        let mut given = match node {
            Some(node) => self.nodes.get(&node).cloned().unwrap_or_default(),
            None => self.all.clone(),
        };
        for (name, value) in changes {
            let Some(&(known, _)) = DYNAMIC.iter().find(|(known, _)| known == name) else {
                return Err(refuse(name, config));
            };
            match value {
                None => _ = given.remove(known),
                Some(value) if value.parse::<i64>().is_ok_and(|n| n >= -1) => _ = given.insert(known, value.clone()),
                Some(value) => {
                    let why = format!("Invalid value {value} for configuration {name}");
                    return Err((ResponseError::InvalidRequest, why));
                }
            }
        }
        match node {
            _ if dry_run => {}
            Some(node) => _ = self.nodes.insert(node, given),
            None => self.all = given,
        }
        Ok(())
    }
}

fn refuse(name: &str, config: &BrokerConfig) -> Refused {
    let why = match fixed(config).iter().any(|(known, _)| *known == name) {
        true => format!("Cannot update these configs dynamically: Set({name})"),
        false => format!("Unknown broker config name: {name}"),
    };
    (ResponseError::InvalidRequest, why)
}

/// What a node is started with.
fn fixed(c: &BrokerConfig) -> [(&'static str, String); 7] {
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
