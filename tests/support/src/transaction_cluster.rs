//! The embedded cluster of seeded tests of transactions: its release and its end; readers of what is
//! visible, in any cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use ailurus::{Admin, Client, Consumer, ConsumerEvent, IsolationLevel, Records, StartOffset, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig, TransactionOutcome, Versions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::transaction_history::{OutputId, ReaderHistory, TransactionHistory};

/// Far longer than a read takes, even on a busy machine.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(3);

/// A release of brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    Redpanda24,
    Redpanda26,
    Kafka3,
    /// Kafka 4 with `transaction.version` 1.
    Kafka4V1,
    /// Kafka 4 with `transaction.version` 2.
    Kafka4V2,
}

impl Release {
    pub const ALL: [Self; 5] = [Self::Redpanda24, Self::Redpanda26, Self::Kafka3, Self::Kafka4V1, Self::Kafka4V2];

    /// Returns whether the version of transactions may change while it runs.
    pub fn has_versions(self) -> bool {
        matches!(self, Self::Kafka4V1 | Self::Kafka4V2)
    }

    /// Starts a broker of this release.
    pub async fn start(self, config: BrokerConfig) -> Broker {
        let versions = match self {
            Self::Redpanda24 => Versions::redpanda_24_3(),
            Self::Redpanda26 => Versions::redpanda_26_2(),
            Self::Kafka3 => Versions::kafka_3_9(),
            Self::Kafka4V1 | Self::Kafka4V2 => Versions::kafka(),
        };
        let broker = Broker::start(config.versions(versions)).await.expect("the embedded broker starts");
        if self == Self::Kafka4V1 {
            assert!(broker.set_transaction_version(1));
        }
        broker
    }
}

/// Serves what is held and waits until no transaction is open, for `limit` at most: those of producers
/// that died, were fenced or stopped end by their timeouts. Adds what is open then, and the ends of
/// the partitions.
pub async fn await_quiet(
    broker: &Broker,
    partitions: &[TopicPartition],
    groups: &[String],
    limit: Duration,
    history: &mut TransactionHistory,
) {
    let is_over = |state: &str| matches!(state, "Empty" | "CompleteCommit" | "CompleteAbort");
    let end_of = |p: &TopicPartition| {
        let stable = broker.last_stable_offset(&p.topic, p.partition).expect("it exists");
        (stable, broker.log_range(&p.topic, p.partition).expect("it exists").1)
    };
    let is_stable = |p: &TopicPartition| {
        let (stable, end) = end_of(p);
        stable == end
    };
    let deadline = Instant::now() + limit;
    loop {
        let is_held = broker.release_held().await > 0;
        let open: Vec<_> = broker.transactions().into_iter().filter(|t| !is_over(t.state)).collect();
        let pending: Vec<_> = groups.iter().flat_map(|group| broker.pending_offsets(group)).collect();
        let is_quiet = !is_held && open.is_empty() && pending.is_empty() && broker.held_requests().is_empty();
        if is_quiet && partitions.iter().all(is_stable) {
            break;
        }
        if Instant::now() >= deadline {
            open.iter().for_each(|t| history.open_transaction(format!("{t:?}")));
            pending.iter().for_each(|p| history.open_transaction(format!("{p:?}")));
            break;
        }
        sleep(POLL).await;
    }
    for partition in partitions {
        let (stable, end) = end_of(partition);
        history.end_of(partition, stable, end);
    }
}

/// Waits until the last stable offset of each partition is its end, for `limit` at most; adds both.
pub async fn await_stable(
    client: &Client,
    partitions: &[TopicPartition],
    limit: Duration,
    history: &mut TransactionHistory,
) -> ailurus::Result<()> {
    let deadline = Instant::now() + limit;
    let stable_reader = reader(client, partitions).await?;
    loop {
        let ends = Admin::new(client).list_offsets(partitions, StartOffset::Latest).await?;
        let stable = stable_reader.end_offsets(partitions).await?;
        if ends == stable || Instant::now() >= deadline {
            for (partition, end) in &ends {
                history.end_of(partition, stable.get(partition).copied().unwrap_or(-1), *end);
            }
            return stable_reader.close().await;
        }
        sleep(POLL).await;
    }
}

/// Serves what is held, at intervals, until `stop`.
pub async fn release_at_intervals(broker: &Broker, interval: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(interval)).await.is_some() {
        broker.release_held().await;
    }
}

async fn reader(client: &Client, partitions: &[TopicPartition]) -> ailurus::Result<Consumer> {
    let mut config = client.config().consumer.clone();
    config.isolation_level = IsolationLevel::ReadCommitted;
    client.reader().config(config).assign(partitions.iter().map(|p| (p.clone(), StartOffset::Earliest))).await
}

/// Reads committed records until `stop`; `on_read` gets the last of each batch.
pub async fn read_until(
    stop: CancellationToken,
    client: Client,
    partitions: Vec<TopicPartition>,
    on_read: impl Fn(OutputId),
) -> ReaderHistory {
    let mut history = ReaderHistory::default();
    let Some(Ok(mut consumer)) = stop.run_until_cancelled(reader(&client, &partitions)).await else { return history };
    while let Some(event) = stop.run_until_cancelled(consumer.recv()).await {
        let Ok(event) = event else { break }; // fatal: what was read until then counts
        let ConsumerEvent::Records(batch) = event else { continue };
        history.read_batch(&batch).into_iter().for_each(&on_read);
    }
    consumer.abort().await;
    history
}

/// Reads all committed records of partitions. Each batch is dropped after `on_batch`: a consumer does not read on while all
/// that its memory may hold is kept.
pub async fn read_committed(client: &Client, partitions: &[TopicPartition], mut on_batch: impl FnMut(&Records)) {
    let ends = Admin::new(client).list_offsets(partitions, StartOffset::Latest).await;
    let mut left: BTreeMap<_, _> = ends.expect("no fault any more");
    left.retain(|_, end| *end > 0);
    let mut consumer = reader(client, partitions).await.expect("no fault any more");
    while !left.is_empty() {
        let event = timeout(READ_TIMEOUT, consumer.recv()).await.expect("nothing is open").expect("no fault any more");
        let ConsumerEvent::Records(batch) = event else { continue };
        left.retain(|partition, end| *partition != batch.topic_partition() || batch.next_offset < *end);
        on_batch(&batch);
    }
    consumer.abort().await;
}

/// Returns the committed records of partitions as the broker knows them.
pub fn committed_by_broker(broker: &Broker, partitions: &[TopicPartition]) -> ReaderHistory {
    let mut history = ReaderHistory::default();
    for partition in partitions {
        let records = broker.transactional_records(&partition.topic, partition.partition).expect("it can be read");
        for found in records.into_iter().filter(|found| found.outcome == TransactionOutcome::Committed) {
            history.read(partition, found.record.offset, found.record.value.as_deref());
        }
        history.set_position(partition, i64::MAX);
    }
    history
}
