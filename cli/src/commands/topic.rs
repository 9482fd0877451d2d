//! `ailurus topic`: list, describe, create, grow and delete topics.

mod describe;

use std::str::FromStr;

use ailurus::admin::{NewTopic, TopicInfo};
use ailurus::{Admin, ErrorKind, StartOffset, TopicPartition};
use clap::{Args, Subcommand};

use crate::exit::Exit;
use crate::options::{Global, Json, pair};
use crate::output::{self, Table, note, or_dash, thousands};
use crate::settings;

/// Error code INVALID_PARTITIONS.
const INVALID_PARTITIONS: i16 = 37;

/// List, describe, create, grow and delete topics; their settings are under config.
#[derive(Debug, Args)]
pub struct Topic {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all topics.
    List {
        /// Include internal topics, such as __consumer_offsets.
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Describe the partitions of a topic: leader, replicas, in-sync replicas, the first offset and the end, bytes on the
    /// leader's disk (with --json on each replica's). A value that is not known is -, with the reason on stderr; it exits
    /// with 1 then.
    Describe {
        /// Name of the topic.
        name: String,
        #[command(flatten)]
        output: Json,
    },
    /// Create a topic. Exits with 4 if it exists.
    #[command(after_help = "\
Examples:
  ailurus topic create orders                                    # with the brokers' defaults
  ailurus topic create orders --partitions 6 --if-not-exists
  ailurus topic create orders --partitions 6 --replication 3 --config retention.ms=86400000
  ailurus topic create orders --replica-assignment 1:2,2:3,3:1   # three partitions, led by 1, 2, 3
  ailurus topic create orders --partitions 6 --validate-only")]
    Create {
        /// Name of the topic.
        name: String,
        /// Number of partitions [default: the brokers' num.partitions, of Redpanda default_topic_partitions].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..),
            conflicts_with = "replica_assignment")]
        partitions: Option<i32>,
        /// Number of replicas of each partition [default: the brokers'].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..),
            conflicts_with = "replica_assignment")]
        replication: Option<i16>,
        /// Brokers of each partition, its preferred leader first: 1:2,2:3 are two partitions with two replicas each.
        #[arg(long, value_name = "ID:ID,…")]
        replica_assignment: Option<Placement>,
        /// Setting of the topic; may be given several times.
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        config: Vec<(String, String)>,
        /// Only check it on the brokers; nothing is created.
        #[arg(long)]
        validate_only: bool,
        /// Leave a topic that exists as it is, and exit with 0.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Add partitions to a topic.
    ///
    /// Keys hash to a partition modulo the number of partitions: a key's new records may go to another partition than its
    /// old ones, and are not in order with them.
    AddPartitions {
        /// Name of the topic.
        name: String,
        /// New total number of partitions.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
    },
    /// Delete a topic with all its records, for good.
    ///
    /// Dry run without --yes: prints what would be done.
    Delete {
        /// Name of the topic.
        name: String,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(global: &Global, args: Topic) -> anyhow::Result<Exit> {
    settings::admin(global, async |admin| act(admin, args.action).await).await
}

async fn act(admin: &Admin, action: Action) -> anyhow::Result<Exit> {
    match action {
        Action::List { internal, output } => {
            let topics = admin.list_topics().await?;
            list_topics(topics.iter().filter(|t| internal || !t.internal).collect(), output.json)?;
        }
        Action::Describe { name, output } => return describe::run(admin, &name, output.json).await,
        Action::Create { name, partitions, replication, replica_assignment, config, validate_only, if_not_exists } => {
            let mut new = config.into_iter().fold(NewTopic::new(&name), |new, (n, v)| new.config(n, v));
            new = partitions.into_iter().fold(new, NewTopic::partitions);
            new = replication.into_iter().fold(new, NewTopic::replication);
            let placed = replica_assignment.as_ref().map(|p| p.0.len());
            new = replica_assignment.into_iter().fold(new, |new, p| new.replicas(p.0));
            let wanted = partitions.and_then(|n| usize::try_from(n).ok()).or(placed);
            create(admin, &name, &new, wanted, validate_only, if_not_exists).await?;
        }
        Action::AddPartitions { name, partitions } => {
            admin.create_partitions(&name, partitions).await?;
            output::print(format_args!("{name} has {partitions} partitions\n"))?;
        }
        Action::Delete { name, yes: true } => {
            admin.delete_topic(&name).await?;
            output::print(format_args!("deleted {name}\n"))?;
        }
        Action::Delete { name, yes: false } => would_delete(admin, &name).await?,
    }
    Ok(Exit::Success)
}

/// Creates the topic with the `wanted` number of partitions, or the brokers' default.
async fn create(
    admin: &Admin,
    name: &str,
    new: &NewTopic,
    wanted: Option<usize>,
    validate_only: bool,
    if_not_exists: bool,
) -> anyhow::Result<()> {
    let outcome = if validate_only { admin.check_topic(new).await } else { admin.create_topic_with(new).await };
    match outcome {
        Ok(()) if validate_only => {
            let with = wanted.map_or_else(|| "the brokers' default number of".to_owned(), |n| n.to_string());
            output::print(format_args!("{name} with {with} partitions could be created\n"))?;
        }
        Ok(()) => {
            let count = match wanted {
                Some(count) => count,
                None => admin.describe_topic(name).await?.partitions.len(),
            };
            output::print(format_args!("created {name} with {count} partitions\n"))?;
        }
        Err(e) if e.kind() == ErrorKind::TopicExists && if_not_exists => {
            let count = admin.describe_topic(name).await?.partitions.len();
            output::print(format_args!("{name} exists already, with {count} partitions\n"))?;
            if let Some(wanted) = wanted.filter(|wanted| *wanted != count) {
                note(format_args!("it was left as it is, without the {wanted} partitions requested"));
            }
        }
        Err(e) if wanted.is_none() && e.broker_code() == Some(INVALID_PARTITIONS) => {
            return Err(anyhow::Error::from(e)
                .context("this broker has no default number of partitions: give one with --partitions"));
        }
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

async fn would_delete(admin: &Admin, name: &str) -> anyhow::Result<()> {
    let topic = admin.describe_topic(name).await?;
    let all: Vec<_> = topic.partitions.iter().map(|p| TopicPartition::new(name, p.partition)).collect();
    let (first, end) = tokio::try_join!(
        admin.list_offsets_each(&all, StartOffset::Earliest),
        admin.list_offsets_each(&all, StartOffset::Latest),
    )?;
    let records = |p| Some(end.get(p)?.as_ref().ok()? - first.get(p)?.as_ref().ok()?);
    let known: Vec<i64> = all.iter().filter_map(records).collect();
    let records = thousands(u64::try_from(known.iter().sum::<i64>()).unwrap_or_default());
    let besides = match all.len() - known.len() {
        0 => String::new(),
        more => format!(", and those of {more} partitions without a response"),
    };
    let count = all.len();
    output::print(format_args!("would delete {name} with {count} partitions and up to {records} records{besides}\n"))?;
    note(format_args!("nothing was deleted; --yes does it, for good"));
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

/// Brokers of each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placement(Vec<Vec<i32>>);

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |id: &str| id.parse::<i32>().ok().filter(|id| *id >= 0);
        let partition = |ids: &str| ids.split(':').map(id).collect::<Option<Vec<_>>>();
        let all = text.split(',').map(partition).collect::<Option<_>>();
        all.map(Self).ok_or_else(|| "allowed are the ids of brokers, such as 1:2,2:3".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_has_the_brokers_of_each_partition() {
        let of = |text: &str| text.parse::<Placement>().map(|p| p.0);
        assert_eq!(of("1:2,2:3,3"), Ok(vec![vec![1, 2], vec![2, 3], vec![3]]));
        for bad in ["", "1:,2", "a", "1,,2", "-1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
