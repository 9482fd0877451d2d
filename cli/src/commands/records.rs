//! `ailurus records`: delete records.

use std::collections::BTreeMap;

use ailurus::{Admin, StartOffset, TopicPartition};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::exit::Exit;
use crate::options::{Global, Json};
use crate::output::{self, Table, names, note};
use crate::place::Place;
use crate::selection::{Selection, all_known};
use crate::settings;

/// Delete records from the beginning of logs.
#[derive(Debug, Args)]
pub struct Records {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Delete the records of a topic before a position in each partition, irrevocably.
    ///
    /// Dry run without --yes: prints what would be done.
    #[command(after_help = "\
Exit codes:
  0    done, or dry run
  2    an option or a setting is wrong
  3    the topic or partition does not exist
  5    no broker is reachable, or a partition has no leader
  6    a broker refused; records of some partitions may be deleted

Examples:
  ailurus records delete orders --before 2026-01-31T12:00:00Z         # dry run
  ailurus records delete orders --before 1700 --partition 2 --yes
  ailurus records delete orders --before latest --yes                 # all records")]
    Delete {
        /// Name of the topic.
        topic: String,
        /// Position before which records are deleted: an offset (of every partition chosen), the time of the first record to
        /// keep (a time ago such as 2h, a date, a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970 where no
        /// partition has such an offset), or latest for all.
        #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
        before: Place,
        /// Partition to delete from; may be given several times [default: all].
        #[arg(long = "partition", value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
        partitions: Vec<i32>,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Json,
    },
}

/// The change in a partition.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    partition: i32,
    /// First offset of the log.
    first: i64,
    /// New first offset.
    before: i64,
    end: i64,
}

pub async fn run(global: &Global, args: Records) -> anyhow::Result<Exit> {
    settings::admin(global, async |admin| act(admin, args.action).await).await?;
    Ok(Exit::Success)
}

async fn act(admin: &Admin, action: Action) -> anyhow::Result<()> {
    let Action::Delete { topic, before: place, partitions, yes, output } = action;
    let partitions = Selection::new(&topic, &partitions).find(admin).await?;
    let plans = plan(admin, &partitions, place).await?;
    if yes {
        let before = plans.iter().map(|p| (TopicPartition::new(topic.as_str(), p.partition), p.before)).collect();
        admin.delete_records(&before).await?;
    }
    if output.json {
        output::json(&json!({"topic": topic, "done": yes, "partitions": plans}))?;
    } else {
        let mut table = Table::new(["PARTITION", "FIRST", "NEW FIRST", "END"]);
        for p in &plans {
            table.row([p.partition.to_string(), p.first.to_string(), p.before.to_string(), p.end.to_string()]);
        }
        output::print(table)?;
    }
    if plans.is_empty() {
        note(format_args!("there is nothing to delete in {topic}"));
    } else if !yes {
        note(format_args!("nothing was deleted; --yes does it, for good"));
    }
    Ok(())
}

/// Returns the change of each partition that has one. A position behind the end of a log means all of it.
async fn plan(admin: &Admin, partitions: &[TopicPartition], place: Place) -> anyhow::Result<Vec<Plan>> {
    let at = async |place| all_known(admin.list_offsets_each(partitions, place).await?, "--partition");
    let (first, end) = (at(StartOffset::Earliest).await?, at(StartOffset::Latest).await?);
    let place = place.resolve(end.values().copied());
    let before = at(place).await?;
    if let StartOffset::Offset(offset) = place {
        let beyond = end.iter().filter(|(_, end)| **end < offset).map(|(tp, end)| format!("{tp} (ends at {end})"));
        let beyond: Vec<_> = beyond.collect();
        if !beyond.is_empty() {
            note(format_args!("offset {offset} is beyond the end of {}: all records there", names(beyond)));
        }
    }
    let of = |offsets: &BTreeMap<TopicPartition, i64>, p| offsets.get(p).copied();
    let one = |p| {
        let (first, end) = (of(&first, p)?, of(&end, p)?);
        let before = of(&before, p)?.min(end);
        (before > first).then_some(Plan { partition: p.partition, first, before, end })
    };
    Ok(partitions.iter().filter_map(one).collect())
}
