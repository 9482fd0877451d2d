//! Settings of a command: the environment and `.env`, then the command line.

use std::path::Path;

use ailurus::{Admin, Client, Config, ConfigBuilder};

use crate::args::Global;
use crate::oauth;

/// The library's settings with `--brokers` on top.
pub fn builder(global: &Global) -> ailurus::Result<ConfigBuilder> {
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

/// Whether anyone has said which brokers to use.
pub fn names_brokers(global: &Global) -> bool {
    const VARIABLE: &str = "REDPANDA_BROKERS";
    let in_file = || {
        let lines = dotenvy::from_path_iter(Path::new(".env")).into_iter().flatten();
        lines.flatten().any(|(name, _)| name == VARIABLE)
    };
    global.brokers.is_some() || std::env::var_os(VARIABLE).is_some() || in_file()
}

/// The brokers as text, for messages.
pub fn broker_list(config: &Config) -> String {
    config.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
