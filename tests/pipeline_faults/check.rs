//! Reads what a seed's pipelines have written, for the history.

use std::collections::BTreeMap;

use ailurus::processor::DeadLetter;
use ailurus::{Client, Records, TopicPartition};
use ailurus_broker::Broker;
use ailurus_test_support::transaction_cluster::{committed_by_broker, read_committed};
use ailurus_test_support::transaction_history::{SetId, SetStatus, TransactionHistory};

use super::member::{Context, DEAD_LETTERS, GROUP, INPUT, OUTPUT};

pub fn outputs(count: i32) -> Vec<TopicPartition> {
    (0..count).map(|p| TopicPartition::new(OUTPUT, p)).collect()
}

/// Returns the partitions that pipelines write to.
pub fn output_partitions(outputs_count: i32) -> Vec<TopicPartition> {
    let mut all = outputs(outputs_count);
    all.push(TopicPartition::new(DEAD_LETTERS, 0));
    all
}

/// Returns the end of the log of each partition of the inputs, which grow.
pub fn input_ends(broker: &Broker) -> impl Iterator<Item = (i32, i64)> + '_ {
    (0..).map_while(|partition| Some((partition, broker.log_range(INPUT, partition).ok()?.1)))
}

/// Has a fresh reader of committed records read all outputs, and adds what the broker knows.
pub async fn read_log(context: &Context, client: &Client, history: &mut TransactionHistory) {
    let partitions = outputs(context.plan.outputs);
    read_committed(client, &partitions, |batch| _ = history.log.read_batch(batch)).await;
    history.readers.push(committed_by_broker(&context.broker, &partitions));
}

/// Adds the inputs and what the group has committed; returns the number of dead letters. An input
/// with a dead letter has no outputs.
pub async fn add_inputs(
    context: &Context,
    client: &Client,
    history: &mut TransactionHistory,
    problems: &mut Vec<String>,
) -> usize {
    let mut letters = BTreeMap::<(i32, i64), usize>::new();
    let add_letters = |batch: &Records| {
        for record in &batch.records {
            match DeadLetter::parse(&record.headers) {
                Some(letter) => *letters.entry((letter.origin.partition, letter.origin.offset)).or_default() += 1,
                None => problems.push(format!("a dead letter without its headers: {record:?}")),
            }
        }
    };
    read_committed(client, &[TopicPartition::new(DEAD_LETTERS, 0)], add_letters).await;
    let count = letters.values().sum();
    for (partition, end) in input_ends(&context.broker) {
        let committed = context.broker.committed_offset(GROUP, INPUT, partition).unwrap_or(0);
        if committed != end {
            problems.push(format!("{INPUT}-{partition}: {committed} is committed, the end is {end}"));
        }
        for offset in 0..end {
            let handling = context.plan.handling(partition, offset);
            let found = letters.remove(&(partition, offset)).unwrap_or(0);
            let expected = usize::from(handling.becomes_dead_letter());
            if found != expected {
                problems.push(format!("{INPUT}-{partition}@{offset} has {found} dead letters, {expected} expected"));
            }
            let outputs = if expected > 0 { 0 } else { handling.outputs };
            let set = SetId { stream: partition as u32, sequence: offset as u64 };
            history.set(set, SetStatus::Unknown, outputs);
        }
        history.committed_inputs(partition as u32, committed as u64, []);
    }
    if !letters.is_empty() {
        problems.push(format!("dead letters of no input: {letters:?}"));
    }
    count
}
