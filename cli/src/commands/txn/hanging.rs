//! `ailurus txn find-hanging`.

use std::time::Duration;

use ailurus::admin::HangingTransaction;
use ailurus::{Admin, ErrorKind, TopicPartition};
use clap::Args;

use crate::exit::{Exit, NotFound};
use crate::options::Json;
use crate::output::{self, Table, note, or_dash};
use crate::place::duration;
use crate::selection::Selection;

/// Find hanging transactions: open in a partition, but not at their coordinator, so that nothing ends them.
///
/// Readers of committed records stop before a hanging transaction, and the log is not compacted beyond it. Such a transaction
/// comes from a write that was delayed until its transaction had ended, on brokers that do not verify that (Kafka before 3.6,
/// or with transaction.partition.verification.enable=false). `ailurus txn abort` ends it.
///
/// Exits with 1 if a partition can't be examined; what hangs in the others is listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ailurus txn find-hanging                                          # in all partitions of the cluster
  ailurus txn find-hanging --topic orders
  ailurus txn abort --partition orders:3 --start-offset 1742        # a dry run")]
pub struct FindHanging {
    /// Topic to examine, or TOPIC:0,3 for these of its partitions; may be given several times [default: all topics].
    #[arg(long = "topic", value_name = "TOPIC[:P,…]")]
    topics: Vec<Selection>,
    /// Only partitions that this broker leads.
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Time for which the producer has written nothing: at least the brokers' transaction.max.timeout.ms, after which a
    /// coordinator ends a transaction that it has.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    idle: Duration,
    #[command(flatten)]
    output: Json,
}

pub async fn run(admin: &Admin, args: FindHanging) -> anyhow::Result<Exit> {
    let partitions = partitions(admin, &args).await?;
    let (mut hanging, mut failed, mut deleted) = (Vec::new(), Vec::new(), 0);
    for (partition, outcome) in admin.find_hanging_transactions(&partitions, args.idle).await? {
        match outcome {
            Ok(found) => hanging.extend(found),
            // A topic that was listed and is deleted has no transactions; one that was chosen is missing.
            Err(e) if e.is_unknown_topic() && args.topics.is_empty() => deleted += 1,
            // All leaders refuse it.
            Err(e) if e.kind() == ErrorKind::Unsupported => return Err(e.into()),
            Err(e) => failed.push((partition, format!("{e:#}"))),
        }
    }
    if args.output.json {
        output::json(&hanging)?;
    } else {
        output::print(table(&hanging))?;
    }
    if hanging.is_empty() {
        note(format_args!(
            "no transaction hangs in the {} partitions examined",
            partitions.len() - failed.len() - deleted
        ));
    } else {
        note(format_args!("ailurus txn abort --partition TOPIC:PARTITION --start-offset OFFSET ends one"));
    }
    Ok(if output::note_missing("a partition was not examined", &failed) { Exit::Failure } else { Exit::Success })
}

/// Returns the partitions to examine: internal topics are among them, since offsets are committed in transactions, too.
async fn partitions(admin: &Admin, args: &FindHanging) -> anyhow::Result<Vec<TopicPartition>> {
    let chosen = Selection::find_all(&args.topics, admin).await?;
    if !args.topics.is_empty() && args.broker.is_none() {
        return Ok(chosen);
    }
    if let Some(id) = args.broker
        && !admin.describe_cluster().await?.brokers.iter().any(|b| b.id == id)
    {
        return Err(NotFound(format!("--broker is {id}: the cluster has no such broker now")).into());
    }
    let topics = admin.list_topics().await?;
    let all =
        topics.iter().flat_map(|t| t.partitions.iter().map(|p| (TopicPartition::new(t.name.as_str(), p.partition), p)));
    let led = all.filter(|(_, p)| args.broker.is_none() || p.leader == args.broker).map(|(place, _)| place);
    Ok(led.filter(|p| args.topics.is_empty() || chosen.contains(p)).collect())
}

fn table(hanging: &[HangingTransaction]) -> Table {
    let heads = ["TOPIC", "PARTITION", "START OFFSET", "PRODUCER ID", "EPOCH", "LAST RECORD", "TRANSACTIONAL ID"];
    let mut table = Table::new(heads);
    for HangingTransaction { transaction: t, transactional_id, .. } in hanging {
        table.row([
            t.topic.clone(),
            t.partition.to_string(),
            t.start_offset.to_string(),
            t.producer_id.to_string(),
            t.producer_epoch.to_string(),
            format!("{:.0}", t.last_timestamp),
            or_dash(transactional_id.as_deref()),
        ]);
    }
    table
}
