//! `ailurus txn abort` and `fence`: end a transaction.

use std::str::FromStr;

use ailurus::{Admin, ErrorKind, TopicPartition};
use clap::Args;
use serde_json::json;

use crate::exit::{Exit, NotFound};
use crate::options::Json;
use crate::output::{self, note, ranges};

/// Abort a hanging transaction in one partition, by a marker in its log. It needs the operation cluster_action on the cluster.
///
/// Only for one that `ailurus txn find-hanging` lists: what a coordinator has open is ended by `ailurus txn fence`, in all of its
/// partitions. Redpanda does not support it: the error names its admin API.
///
/// Dry run without --yes: prints what would be done.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    done, or dry run
  2    an option or a setting is wrong
  3    the topic or partition does not exist, or no open transaction begins at the offset
  5    no broker is reachable, or the partition has no leader
  6    refused: not authorized, the producer has gone on, or the broker is Redpanda

Examples:
  ailurus txn abort --partition orders:3 --start-offset 1742        # dry run
  ailurus txn abort --partition orders:3 --start-offset 1742 --yes")]
pub struct Abort {
    /// Partition.
    #[arg(long, value_name = "TOPIC:P")]
    partition: Place,
    /// Offset at which the transaction begins in the partition.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    start_offset: i64,
    /// Do it; without this option a dry run prints what would be done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Json,
}

/// Fence the producers of a transactional id, as a new producer with this id does: its open transaction is aborted, and they
/// fail from then on. Works on Kafka and Redpanda.
///
/// An application that runs with this id ends with an error: for one that hangs, or that is gone.
///
/// Dry run without --yes: prints what would be done.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    done, or dry run
  2    an option or a setting is wrong
  3    the transactional id does not exist
  5    no broker is reachable, or the id's coordinator does not respond
  6    refused by the coordinator, for example for lack of permission")]
pub struct Fence {
    /// Transactional id.
    id: String,
    /// Do it; without this option a dry run prints what would be done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Json,
}

/// A partition of a topic.
#[derive(Debug, Clone)]
struct Place(TopicPartition);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').filter(|(topic, _)| !topic.is_empty());
        let place = parts.and_then(|(topic, p)| Some((topic, p.parse::<i32>().ok().filter(|p| *p >= 0)?)));
        let (topic, partition) = place.ok_or_else(|| "allowed is TOPIC:PARTITION, such as orders:3".to_owned())?;
        Ok(Self(TopicPartition::new(topic, partition)))
    }
}

pub async fn abort(admin: &Admin, args: Abort) -> anyhow::Result<Exit> {
    let place = args.partition.0;
    let open = match admin.open_transaction(&place, args.start_offset).await {
        Ok(open) => open,
        Err(e) if e.kind() == ErrorKind::OffsetOutOfRange => return Err(NotFound(format!("{e:#}")).into()),
        Err(e) => return Err(e.into()),
    };
    if args.yes {
        admin.abort_transaction(&open).await?;
    }
    if args.output.json {
        output::json(&json!({"done": args.yes, "transaction": open}))?;
    } else {
        let did = if args.yes { "aborted" } else { "would abort" };
        let (id, epoch, start) = (open.producer_id, open.producer_epoch, open.start_offset);
        output::print(format_args!(
            "{did} the transaction of producer id {id}, epoch {epoch}, in {place} from offset {start} on; last record {:.0}\n",
            open.last_timestamp
        ))?;
    }
    if !args.yes {
        note(format_args!(
            "nothing was aborted; --yes does it: the transaction's records in {place} are lost to readers of committed records"
        ));
    }
    Ok(Exit::Success)
}

pub async fn fence(admin: &Admin, args: Fence) -> anyhow::Result<Exit> {
    // Also with --yes: to fence an id that does not exist would create it.
    let before = admin.describe_transaction(&args.id).await?;
    let fenced = if args.yes { Some(admin.fence_producer(&args.id).await?) } else { None };
    if args.output.json {
        output::json(&json!({"done": args.yes, "before": before, "fenced": fenced}))?;
    } else if let Some(fenced) = fenced {
        output::print(format_args!(
            "fenced {}: producer id {} has epoch {} now\n",
            fenced.transactional_id, fenced.producer_id, fenced.producer_epoch
        ))?;
    } else {
        let of = |(topic, p): (&String, &Vec<i32>)| format!("{topic}/{}", ranges(p));
        let open = before.partitions.iter().map(of).collect::<Vec<_>>().join(" ");
        let open = if open.is_empty() { String::new() } else { format!(", and abort its transaction in {open}") };
        output::print(format_args!(
            "would fence {}, which is {} with producer id {} and epoch {}{open}\n",
            args.id, before.state, before.producer_id, before.producer_epoch
        ))?;
    }
    if !args.yes {
        note(format_args!(
            "nothing was fenced; --yes does it: an application that runs with this id ends with an error"
        ));
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_topic_and_one_partition() {
        let of = |text: &str| text.parse::<Place>().map(|p| p.0);
        assert_eq!(of("orders:3"), Ok(TopicPartition::new("orders", 3)));
        for bad in ["orders", "orders:", ":3", "orders:-1", "orders:1,2", "a:b:1"] {
            assert!(of(bad).is_err_and(|e| e.contains("orders:3")), "{bad}");
        }
    }
}
