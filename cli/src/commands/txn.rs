//! `ailurus txn`: list, describe and end transactions.

mod end;
mod hanging;

use std::time::Duration;

use ailurus::admin::{ProducerState, TransactionDescription, TransactionFilter, TransactionListing, TransactionState};
use ailurus::{Admin, ErrorKind, TopicPartition};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::options::{Global, Json};
use crate::output::{self, Table, or_dash, ranges};
use crate::place::duration;
use crate::selection::Selection;
use crate::settings;

/// List, describe and end transactions; find those that hang.
#[derive(Debug, Args)]
pub struct Txn {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the transactional ids of all brokers with their coordinator, producer id and state.
    ///
    /// Exits with 1 if a broker does not respond; the ids of the others are listed.
    #[command(after_help = "\
Examples:
  ailurus txn list --state ongoing --older-than 5m
  ailurus txn list --producer-id 4001 --json")]
    List {
        /// Only ids in one of these states, separated by commas.
        #[arg(long, value_name = "STATE", value_delimiter = ',', ignore_case = true)]
        state: Vec<State>,
        /// Only transactions that are open for longer than this, such as 90s or 15m.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        /// Only the ids that have one of these producer ids, separated by commas.
        #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = clap::value_parser!(i64).range(0..))]
        producer_id: Vec<i64>,
        #[command(flatten)]
        output: Json,
    },
    /// Describe a transactional id: coordinator, producer id and epoch, state, timeout, and age and partitions of its open
    /// transaction. Exits with 3 if it does not exist.
    Describe {
        /// Transactional id.
        id: String,
        #[command(flatten)]
        output: Json,
    },
    /// List the producers that have written to the partitions of a topic, and where their open transactions begin.
    ///
    /// The first open transaction of a partition holds its last stable offset: readers of committed records stop there. Exits
    /// with 1 if a partition can't be described; the producers of the others are listed.
    Producers {
        /// Topic, or TOPIC:0,3 for these of its partitions.
        #[arg(value_name = "TOPIC[:P,…]")]
        topic: Selection,
        #[command(flatten)]
        output: Json,
    },
    FindHanging(hanging::FindHanging),
    Abort(end::Abort),
    Fence(end::Fence),
}

/// States of a transactional id, as brokers name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum State {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
    PrepareEpochFence,
    Dead,
}

impl From<State> for TransactionState {
    fn from(state: State) -> Self {
        match state {
            State::Empty => Self::Empty,
            State::Ongoing => Self::Ongoing,
            State::PrepareCommit => Self::PrepareCommit,
            State::PrepareAbort => Self::PrepareAbort,
            State::CompleteCommit => Self::CompleteCommit,
            State::CompleteAbort => Self::CompleteAbort,
            State::PrepareEpochFence => Self::PrepareEpochFence,
            State::Dead => Self::Dead,
        }
    }
}

pub async fn run(global: &Global, args: Txn) -> anyhow::Result<Exit> {
    let act = async |admin: &Admin| match args.action {
        Action::List { state, older_than, producer_id, output } => {
            let filter = state.into_iter().fold(TransactionFilter::default(), TransactionFilter::state);
            let filter = producer_id.into_iter().fold(filter, TransactionFilter::producer_id);
            let filter = older_than.into_iter().fold(filter, TransactionFilter::older_than);
            list(admin, &filter, output.json).await
        }
        Action::Describe { id, output } => {
            let described = admin.describe_transaction(&id).await?;
            if output.json {
                output::json(&described)?;
            } else {
                output::print(description(&described))?;
            }
            Ok(Exit::Success)
        }
        Action::Producers { topic, output } => producers(admin, &topic, output.json).await,
        Action::FindHanging(args) => hanging::run(admin, args).await,
        Action::Abort(args) => end::abort(admin, args).await,
        Action::Fence(args) => end::fence(admin, args).await,
    };
    settings::admin(global, act).await
}

async fn list(admin: &Admin, filter: &TransactionFilter, as_json: bool) -> anyhow::Result<Exit> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for (broker, outcome) in admin.list_transactions_by_broker(filter).await? {
        match outcome {
            Ok(of_broker) => all.extend(of_broker),
            // All brokers of the cluster refuse it.
            Err(e) if e.kind() == ErrorKind::Unsupported => return Err(e.into()),
            Err(e) => failed.push((broker, format!("{e:#}"))),
        }
    }
    all.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    all.dedup_by(|a, b| a.transactional_id == b.transactional_id); // one that moved while it was listed
    if as_json {
        output::json(&all)?;
    } else {
        output::print(listing(all))?;
    }
    Ok(if output::note_missing("transactions are missing", &failed) { Exit::Failure } else { Exit::Success })
}

fn listing(all: Vec<TransactionListing>) -> Table {
    let mut table = Table::new(["TRANSACTIONAL ID", "COORDINATOR", "PRODUCER ID", "STATE"]);
    for t in all {
        table.row([t.transactional_id, t.coordinator.to_string(), t.producer_id.to_string(), t.state.to_string()]);
    }
    table
}

fn description(t: &TransactionDescription) -> String {
    let TransactionDescription { transactional_id: id, state, producer_id, producer_epoch, coordinator, .. } = t;
    let timeout = t.timeout;
    let mut text = format!(
        "transactional id {id}  state {state}  producer id {producer_id}  epoch {producer_epoch}  coordinator {coordinator}  \
         timeout {timeout:?}\n"
    );
    if let (Some(start), Some(age)) = (t.start_time, t.age()) {
        text += &format!("open for {} s, since {start:.0}\n", age.as_secs());
    }
    if !t.partitions.is_empty() {
        let mut table = Table::new(["TOPIC", "PARTITIONS"]);
        for (topic, partitions) in &t.partitions {
            table.row([topic.clone(), ranges(partitions)]);
        }
        text += &format!("\n{table}");
    }
    text
}

async fn producers(admin: &Admin, topic: &Selection, as_json: bool) -> anyhow::Result<Exit> {
    let partitions = topic.find(admin).await?;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (partition, outcome) in admin.describe_producers(&partitions).await? {
        match outcome {
            Ok(producers) => found.push((partition, producers)),
            // All leaders refuse it.
            Err(e) if e.kind() == ErrorKind::Unsupported => return Err(e.into()),
            Err(e) => failed.push((partition, format!("{e:#}"))),
        }
    }
    if as_json {
        let partition = |(p, producers): &(TopicPartition, Vec<ProducerState>)| -> Value {
            json!({"topic": &*p.topic, "partition": p.partition, "producers": producers})
        };
        output::json(&found.iter().map(partition).collect::<Vec<_>>())?;
    } else {
        output::print(producer_table(&found))?;
    }
    Ok(if output::note_missing("producers are not known", &failed) { Exit::Failure } else { Exit::Success })
}

fn producer_table(found: &[(TopicPartition, Vec<ProducerState>)]) -> Table {
    let heads = ["PARTITION", "PRODUCER ID", "EPOCH", "SEQUENCE", "LAST RECORD", "COORDINATOR EPOCH", "OPEN FROM"];
    let mut table = Table::new(heads);
    for (place, producers) in found {
        for p in producers {
            table.row([
                place.partition.to_string(),
                p.producer_id.to_string(),
                p.producer_epoch.to_string(),
                or_dash(Some(p.last_sequence).filter(|n| *n >= 0)),
                format!("{:.0}", p.last_timestamp),
                or_dash(p.coordinator_epoch),
                or_dash(p.transaction_start_offset),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_of_brokers() {
        for state in State::value_variants() {
            let name = state.to_possible_value().map(|v| v.get_name().to_owned());
            assert_eq!(name.as_deref(), Some(TransactionState::from(*state).as_str()));
        }
    }
}
