//! Settings of a command: the environment and `.env`, then the command line.

use ailurus::{Admin, Client, Config, ConfigBuilder};

use crate::args::Global;
use crate::oauth;

/// Returns the settings of a tool: what joins a group here is a dynamic member, for a tool under the static id of a service
/// would fence the service.
pub fn builder(global: &Global) -> ailurus::Result<ConfigBuilder> {
    Ok(service(global)?.consumer(|mut consumer| {
        consumer.group_instance_id = None;
        consumer
    }))
}

/// Returns the settings of a service: the library's with `--brokers` on top.
pub fn service(global: &Global) -> ailurus::Result<ConfigBuilder> {
    let builder = ConfigBuilder::from_env()?.token_endpoint(oauth::source);
    #[cfg(feature = "otlp")]
    let builder = crate::otlp::traced(builder);
    Ok(match &global.brokers {
        Some(brokers) => builder.brokers(brokers),
        None => builder,
    })
}

/// Settings of a command that only looks: whatever it is asked for, it creates no topic.
pub fn read_only(global: &Global) -> ailurus::Result<Config> {
    builder(global)?.allow_auto_topic_creation(false).build()
}

/// Does what an operator asks for on a client of its own, which creates no topic unasked.
pub async fn admin<T>(global: &Global, work: impl AsyncFnOnce(&Admin) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let client = Client::connect(read_only(global)?).await?;
    let result = work(&Admin::new(&client)).await;
    client.close().await;
    result
}

/// Returns whether the command line, the environment or `.env` says which brokers to use.
pub fn names_brokers(global: &Global) -> ailurus::Result<bool> {
    Ok(global.brokers.is_some() || ConfigBuilder::from_env()?.has_variable("REDPANDA_BROKERS"))
}

/// The brokers as text, for messages.
pub fn broker_list(config: &Config) -> String {
    config.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
