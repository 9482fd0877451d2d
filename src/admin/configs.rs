//! Configurations of topics and brokers.

use std::fmt;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Admin;
use super::topics::broker_error;
use crate::cluster::fields::text;
use crate::code;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::Api;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Resource that has a configuration.
///
/// ```
/// use ailurus::admin::ConfigResource;
///
/// assert_eq!(ConfigResource::Topic("orders".into()).to_string(), "topic \"orders\"");
/// assert_eq!(ConfigResource::Broker(1).to_string(), "broker 1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// One broker.
    Broker(i32),
    /// Dynamic defaults of all brokers; of Redpanda, whose brokers have none of their own, the
    /// cluster's configuration.
    BrokerDefaults,
}

impl ConfigResource {
    /// Returns type and name in the protocol.
    fn parts(&self) -> (i8, StrBytes) {
        match self {
            Self::Topic(name) => (TOPIC, text(name)),
            Self::Broker(id) => (BROKER, text(&id.to_string())),
            Self::BrokerDefaults => (BROKER, StrBytes::default()),
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name:?}"),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::BrokerDefaults => f.write_str("all brokers"),
        }
    }
}

/// Source of a configuration value.
///
/// ```
/// use ailurus::admin::ConfigSource;
///
/// assert_eq!(serde_json::to_string(&ConfigSource::BrokerDefaults).unwrap(), r#""brokerDefaults""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ConfigSource {
    /// Configuration of the topic.
    Topic,
    /// Dynamic configuration of the broker.
    Broker,
    /// Dynamic default of all brokers.
    BrokerDefaults,
    /// Static configuration in the broker's file.
    File,
    /// Default of the broker's release.
    Default,
    /// Unknown, or not reported.
    Other,
}

impl ConfigSource {
    fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::BrokerDefaults,
            4 => Self::File,
            5 => Self::Default,
            _ => Self::Other,
        }
    }
}

/// A configuration entry.
///
/// ```
/// use ailurus::admin::{ConfigEntry, ConfigSource};
///
/// fn given(entries: &[ConfigEntry]) -> impl Iterator<Item = &ConfigEntry> {
///     entries.iter().filter(|e| e.source != ConfigSource::Default)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Name.
    pub name: String,
    /// Value; none if it is sensitive.
    pub value: Option<String>,
    /// Source of the value.
    pub source: ConfigSource,
    /// True if it can't be changed while the broker runs.
    pub read_only: bool,
    /// True if its value is secret.
    pub sensitive: bool,
}

#[cfg(test)]
impl ConfigEntry {
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>, source: ConfigSource) -> Self {
        Self { name: name.into(), value: Some(value.into()), source, read_only: false, sensitive: false }
    }
}

/// A change of one entry; all others stay. `Debug` does not print the value, which may be secret.
///
/// ```
/// use ailurus::admin::ConfigChange;
///
/// let changes = [ConfigChange::set("retention.ms", "86400000"), ConfigChange::append("cleanup.policy", "compact")];
/// assert_eq!(changes[0].name(), "retention.ms");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigChange {
    operation: Operation,
    name: String,
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

impl ConfigChange {
    fn new(operation: Operation, name: impl Into<String>, value: Option<String>) -> Self {
        Self { operation, name: name.into(), value }
    }

    /// Sets the value.
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(Operation::Set, name, Some(value.into()))
    }

    /// Resets to the default.
    pub fn delete(name: impl Into<String>) -> Self {
        Self::new(Operation::Delete, name, None)
    }

    /// Appends items, separated by commas, to a list.
    pub fn append(name: impl Into<String>, items: impl Into<String>) -> Self {
        Self::new(Operation::Append, name, Some(items.into()))
    }

    /// Removes items, separated by commas, from a list.
    pub fn subtract(name: impl Into<String>, items: impl Into<String>) -> Self {
        Self::new(Operation::Subtract, name, Some(items.into()))
    }

    /// Returns the name of the entry.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.operation, self.name)
    }
}

impl Admin {
    /// Returns the configuration of a topic or a broker, by name. Kafka returns only entries that
    /// are set for [`ConfigResource::BrokerDefaults`].
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`]; [`ErrorKind::Connect`] if the broker does not exist; other
    /// errors of the broker.
    pub async fn describe_configs(&self, of: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        let (kind, name) = of.parts();
        let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(name);
        let resource = resource.with_configuration_keys(None); // none means all
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let what = format!("describing the settings of {of}");
        let (cluster, timeout) = (self.cluster(), self.cluster().request_timeout());
        let response = match of {
            // A broker describes only itself.
            ConfigResource::Broker(id) => cluster.request_to(*id, request, timeout).await,
            _ => cluster.request_any(request, timeout).await,
        };
        let response = response.map_err(|e| e.context(&what))?;
        let Some(found) = response.results.into_iter().next() else {
            return Err(Error::new(ErrorKind::Corrupt, format!("{what}: the response is empty")));
        };
        match found.error_code {
            0 => {}
            code @ code::UNKNOWN_TOPIC_OR_PARTITION => {
                return Err(Error::from_code(code, format!("{what}: it does not exist")));
            }
            code => return Err(broker_error(code, found.error_message, &what)),
        }
        let mut entries: Vec<_> = found.configs.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Returns the entries `names` of several topics, in one request; topics that do not exist or
    /// may not be described are omitted.
    pub(crate) async fn topic_configs(
        &self,
        topics: &[String],
        names: &[&'static str],
    ) -> Result<Vec<(String, Vec<ConfigEntry>)>> {
        let names: Vec<_> = names.iter().map(|name| StrBytes::from_static_str(name)).collect();
        let resource = |topic: &String| {
            DescribeConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(topic))
                .with_configuration_keys(Some(names.clone()))
        };
        let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
        let cluster = self.cluster();
        let response = cluster.request_any(request, cluster.request_timeout()).await;
        let response = response.map_err(|e| e.context("describing the settings of topics"))?;
        let found = response.results.into_iter().filter(|r| r.error_code == 0);
        Ok(found.map(|r| (r.resource_name.to_string(), r.configs.into_iter().map(entry).collect())).collect())
    }

    /// Applies all changes, or none. Brokers adopt them a moment later.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`]; a name or value that the broker rejects, in its words.
    pub async fn alter_configs(&self, of: &ConfigResource, changes: &[ConfigChange]) -> Result<()> {
        self.send_alter_configs(of, changes, false).await
    }

    /// Validates what [`alter_configs`](Self::alter_configs) would do; nothing is changed.
    ///
    /// # Errors
    /// Those of [`alter_configs`](Self::alter_configs).
    pub async fn check_configs(&self, of: &ConfigResource, changes: &[ConfigChange]) -> Result<()> {
        self.send_alter_configs(of, changes, true).await
    }

    async fn send_alter_configs(
        &self,
        of: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<()> {
        let change = |c: &ConfigChange| {
            let out = AlterableConfig::default().with_name(text(&c.name)).with_config_operation(c.operation as i8);
            out.with_value(c.value.as_deref().map(text))
        };
        let (kind, name) = of.parts();
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configs(changes.iter().map(change).collect());
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
        let what = format!("changing the settings of {of}");
        let code = |r: &<IncrementalAlterConfigsRequest as Api>::Response| {
            let first = r.responses.first();
            let message = first.and_then(|r| r.error_message.clone()).map(|m| redact_secrets(&m, changes));
            Some((first?.error_code, message))
        };
        let ConfigResource::Broker(id) = of else {
            return self.request_controller(request, &what, code).await.map(drop);
        };
        // A broker takes what is meant for itself alone.
        let cluster = self.cluster();
        let response = cluster.request_to(*id, request, cluster.request_timeout()).await;
        match code(&response.map_err(|e| e.context(&what))?).unwrap_or((code::UNKNOWN_TOPIC_OR_PARTITION, None)) {
            (0, _) => Ok(()),
            (code, message) => Err(broker_error(code, message, &what)),
        }
    }
}

fn entry(c: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: c.name.to_string(),
        value: c.value.map(|v| v.to_string()).filter(|_| !c.is_sensitive),
        source: ConfigSource::from_code(c.config_source),
        read_only: c.read_only,
        sensitive: c.is_sensitive,
    }
}

/// Removes values that may be secret from a broker's message, which repeats a rejected value.
fn redact_secrets(message: &str, changes: &[ConfigChange]) -> StrBytes {
    let secret = |c: &&ConfigChange| ["password", "secret", "jaas", ".key"].iter().any(|part| c.name.contains(part));
    let values = changes.iter().filter(secret).filter_map(|c| c.value.as_deref()).filter(|v| !v.is_empty());
    StrBytes::from_string(values.fold(message.to_owned(), |text, value| text.replace(value, "…")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_text() {
        let changes = [ConfigChange::set("ssl.keystore.password", "hunter2"), ConfigChange::set("retention.ms", "x7")];
        assert_eq!(format!("{changes:?}"), "[Set ssl.keystore.password, Set retention.ms]");
        let found = redact_secrets("Invalid value hunter2, and x7 too", &changes);
        assert_eq!(found.as_str(), "Invalid value …, and x7 too");
        let found = DescribeConfigsResourceResult::default().with_is_sensitive(true).with_value(Some("hunter2".into()));
        assert_eq!(entry(found).value, None);
    }
}
