//! Settings of a command: the environment and `.env`, then the command line.

use ailurus::{Admin, Client, Config, ConfigBuilder};
use ailurus_serve::settings::service;

use crate::options::Global;

/// Returns the settings of a tool: its consumers are dynamic members, since one with the static id of a service would fence
/// the service.
pub fn builder(global: &Global) -> ailurus::Result<ConfigBuilder> {
    Ok(service(global)?.consumer(|mut consumer| {
        consumer.group_instance_id = None;
        consumer
    }))
}

/// Returns the settings of a command that only reads: it creates no topic.
pub fn read_only(global: &Global) -> ailurus::Result<Config> {
    builder(global)?.allow_auto_topic_creation(false).build()
}

/// Runs administrative work on a client of its own, which creates no topic by itself.
pub async fn admin<T>(global: &Global, work: impl AsyncFnOnce(&Admin) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let client = Client::connect(read_only(global)?).await?;
    let result = work(&Admin::new(&client)).await;
    client.close().await;
    result
}

/// Returns whether the command line, the environment or `.env` names brokers.
pub fn names_brokers(global: &Global) -> ailurus::Result<bool> {
    Ok(global.brokers.is_some() || ConfigBuilder::from_env()?.has_variable("REDPANDA_BROKERS"))
}

/// Returns the brokers as text, for messages.
pub fn broker_list(config: &Config) -> String {
    config.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
