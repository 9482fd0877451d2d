//! `ailurus topic`: list, describe, create and delete topics.

use std::collections::BTreeMap;

use ailurus::admin::TopicInfo;
use ailurus::{Admin, Client, StartOffset, TopicPartition};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::{Global, Json};
use crate::exit::Exit;
use crate::output::{self, Table, list, or_dash};
use crate::settings;

/// List, describe, create and delete topics.
#[derive(Debug, Args)]
pub struct Topic {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All topics.
    List {
        /// Also those that belong to the brokers, such as __consumer_offsets.
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Partitions of a topic: leader, replicas, offsets.
    Describe {
        /// The topic.
        name: String,
        #[command(flatten)]
        output: Json,
    },
    /// Create a topic. Fails if it exists.
    Create {
        /// The topic.
        name: String,
        /// How many partitions.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// How many brokers hold each partition; the broker's default if not given.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
        replication: Option<i16>,
    },
    /// Delete a topic with all its records.
    Delete {
        /// The topic.
        name: String,
    },
}

pub async fn run(global: &Global, args: Topic) -> anyhow::Result<Exit> {
    let client = Client::connect(settings::read_only(global)?).await?;
    let result = act(&Admin::new(&client), args.action).await;
    client.close().await;
    result.map(|()| Exit::Success)
}

async fn act(admin: &Admin, action: Action) -> anyhow::Result<()> {
    match action {
        Action::List { internal, output } => {
            let topics = admin.list_topics().await?;
            list_topics(topics.iter().filter(|t| internal || !t.internal).collect(), output.json)?;
        }
        Action::Describe { name, output } => describe(admin, &name, output.json).await?,
        Action::Create { name, partitions, replication } => {
            admin.create_topic(&name, partitions, replication).await?;
            output::print(format_args!("created {name} with {partitions} partitions\n"))?;
        }
        Action::Delete { name } => {
            admin.delete_topic(&name).await?;
            output::print(format_args!("deleted {name}\n"))?;
        }
    }
    Ok(())
}

fn list_topics(topics: Vec<&TopicInfo>, as_json: bool) -> std::io::Result<()> {
    if as_json {
        return output::json(&topics);
    }
    let mut table = Table::new(["TOPIC", "PARTITIONS", "REPLICAS"]);
    for topic in topics {
        let replicas = topic.partitions.iter().map(|p| p.replicas.len()).min();
        table.row([topic.name.clone(), topic.partitions.len().to_string(), or_dash(replicas)]);
    }
    output::print(table)
}

async fn describe(admin: &Admin, name: &str, as_json: bool) -> anyhow::Result<()> {
    let topic = admin.describe_topic(name).await?;
    // A partition without a leader has no offsets to tell.
    let led = topic.partitions.iter().filter(|p| p.leader.is_some());
    let led: Vec<_> = led.map(|p| TopicPartition::new(name, p.partition)).collect();
    let first = admin.list_offsets(&led, StartOffset::Earliest).await?;
    let end = admin.list_offsets(&led, StartOffset::Latest).await?;
    let of = |offsets: &BTreeMap<TopicPartition, i64>, p| offsets.get(&TopicPartition::new(name, p)).copied();
    if as_json {
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|p| {
                json!({
                    "partition": p.partition,
                    "leader": p.leader,
                    "replicas": p.replicas,
                    "inSyncReplicas": p.in_sync_replicas,
                    "firstOffset": of(&first, p.partition),
                    "endOffset": of(&end, p.partition),
                })
            })
            .collect();
        output::json(&json!({"name": topic.name, "internal": topic.internal, "partitions": partitions}))?;
        return Ok(());
    }
    let mut table = Table::new(["PARTITION", "LEADER", "REPLICAS", "IN-SYNC", "FIRST", "END"]);
    for p in &topic.partitions {
        table.row([
            p.partition.to_string(),
            or_dash(p.leader),
            list(&p.replicas),
            list(&p.in_sync_replicas),
            or_dash(of(&first, p.partition)),
            or_dash(of(&end, p.partition)),
        ]);
    }
    output::print(table)?;
    Ok(())
}
