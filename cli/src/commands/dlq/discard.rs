//! `ailurus dlq discard`.

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::{Admin, Client, Producer, TopicPartition};
use ailurus_serve::dead_letters::{Entry, Filter, Lock, Log, Offsets, State};
use serde::Serialize;

use super::{dead_letters, read};
use crate::exit::Exit;
use crate::output::{self, note};
use crate::signals::Shutdown;

/// Maximum time for closing the producer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Options {
    pub filter: Filter,
    pub delete: bool,
    pub yes: bool,
    pub json: bool,
}

/// The change in a partition.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    topic: String,
    partition: i32,
    /// Number of dead letters to mark.
    discard: u64,
    #[serde(skip)]
    offsets: Offsets,
    /// Offsets of those dead letters, as `3-5,9`.
    #[serde(rename = "offsets")]
    offsets_text: String,
    /// First offset of the log.
    first: i64,
    /// First offset of the log after the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_before: Option<i64>,
    /// Number of deleted records that are not dead letters.
    foreign: u64,
    done: bool,
}

pub async fn run(client: &Client, topic: &str, options: Options, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let lock = if options.yes { Some(Lock::take(client, topic).await?) } else { None };
    let result = act(client, topic, &options, shutdown).await;
    let released = match lock {
        Some(lock) => lock.release().await,
        None => Ok(()),
    };
    let exit = result?; // the first error is the one to report
    released?;
    Ok(exit)
}

async fn act(client: &Client, topic: &str, options: &Options, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let reading = async {
        let (log, exit) = super::open(client, topic, options.filter.partition).await?;
        anyhow::Ok((plans(&log, options).await?, exit))
    };
    let Some((mut plans, exit)) = read(shutdown, reading).await? else { return Ok(Exit::Interrupted) };
    plans.retain(|p| p.discard > 0 || p.delete_before.is_some());
    if options.yes {
        let producer = client.producer().start()?;
        let done = carry_out(client, &producer, &mut plans).await;
        let closed = producer.close(CLOSE_TIMEOUT).await;
        plans.retain(|p| p.done);
        print(&plans, options)?; // also after an error
        done?;
        closed?;
    } else {
        print(&plans, options)?;
        if !plans.is_empty() {
            note(format_args!("nothing was changed; --yes does it"));
        }
    }
    if plans.is_empty() {
        note(format_args!("there is nothing to discard in {topic}"));
    }
    Ok(exit)
}

async fn plans(log: &Log, options: &Options) -> anyhow::Result<Vec<Plan>> {
    let mut plans = BTreeMap::new();
    let mut foreign = BTreeMap::<i32, Vec<i64>>::new();
    for (partition, first, end) in log.bounds() {
        let plan = Plan { topic: log.topic().to_owned(), partition, first, ..Plan::default() };
        plans.insert(partition, Plan { delete_before: Some(end), ..plan });
    }
    let mut reader = log.records(None).await?;
    while let Some((partition, records)) = reader.next().await? {
        let Some(plan) = plans.get_mut(&partition) else { continue };
        for record in records {
            let offset = record.offset;
            match log.entry(partition, record) {
                Some(Entry::DeadLetter(dead_letter)) if dead_letter.state == State::Open => {
                    if options.filter.matches(&dead_letter) {
                        plan.discard += 1;
                        plan.offsets.insert(offset);
                    } else {
                        plan.delete_before = plan.delete_before.map(|before| before.min(offset));
                    }
                }
                Some(Entry::Foreign) => foreign.entry(partition).or_default().push(offset),
                _ => {}
            }
        }
    }
    reader.close().await?;
    for plan in plans.values_mut() {
        plan.delete_before = plan.delete_before.filter(|before| options.delete && *before > plan.first);
        plan.offsets_text = plan.offsets.to_string();
        let deleted = foreign.get(&plan.partition).into_iter().flatten();
        plan.foreign = deleted.filter(|o| plan.delete_before.is_some_and(|before| **o < before)).count() as u64;
    }
    Ok(plans.into_values().collect())
}

async fn carry_out(client: &Client, producer: &Producer, plans: &mut [Plan]) -> anyhow::Result<()> {
    let admin = Admin::new(client);
    for plan in plans {
        ailurus_serve::dead_letters::discard(producer, &plan.topic, plan.partition, &plan.offsets).await?;
        if let Some(before) = plan.delete_before {
            let place = TopicPartition::new(plan.topic.as_str(), plan.partition);
            admin.delete_records(&BTreeMap::from([(place, before)])).await?;
        }
        plan.done = true;
    }
    Ok(())
}

fn print(plans: &[Plan], options: &Options) -> std::io::Result<()> {
    if options.json {
        return output::json(&plans);
    }
    let (discarded, deleted) =
        if options.yes { ("discarded", "deleted") } else { ("would be discarded", "would be deleted") };
    for p in plans {
        let place = format!("{}/{}", p.topic, p.partition);
        if p.discard > 0 {
            let text = format!("{place}: {} {discarded}, at offsets {}", dead_letters(p.discard), p.offsets_text);
            output::print(format_args!("{text}: not replayed any more\n"))?;
        }
        if let Some(before) = p.delete_before {
            let foreign =
                if p.foreign > 0 { format!(", {} of them no dead letters", p.foreign) } else { String::new() };
            let text = format!("{place}: all records from offset {} to {}{foreign} {deleted}", p.first, before - 1);
            output::print(format_args!("{text} for good\n"))?;
        }
    }
    Ok(())
}
