//! A steady load of transactions, some of them aborted, beside a reader of committed records; then a comparison of what is
//! visible with what the producers reported.
//!
//! ```text
//! cargo run --example steady_transactions -- BOOTSTRAP TOPIC SECONDS
//! ```
//!
//! The topic must exist and be empty. `tests/kafka/transaction_faults.rs` runs this while it kills and pauses the brokers.
//! Two producers share a transactional id: each start fences the other. One commits offsets of a group with its records. The
//! last line is the result; the exit code is 1 if a transaction was torn, lost or doubled, an aborted record was visible, the
//! committed offset is not that of the last transaction, or a last stable offset stays behind the end.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "so does the checker, which is made for tests"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ailurus::producer::{TransactionAction, TransactionOutcome};
use ailurus::{
    Admin, Client, Config, Consumer, ConsumerEvent, OffsetReset, ProducerRecord, Result, TopicPartition,
    TransactionalProducer,
};
use ailurus_test_support::transaction_cluster::{await_stable, read_committed, read_until};
use ailurus_test_support::transaction_history::{OutputId, SetId, SetStatus, TransactionHistory};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Maximum time until the cluster is healthy after the load.
const PATIENCE: Duration = Duration::from_secs(60);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Producers with an id of their own; the first commits offsets, too.
const PRODUCERS: u32 = 3;
/// Interval at which a new owner of the shared id starts.
const TAKEOVER: Duration = Duration::from_secs(3);
/// Stream of the first owner of the shared id.
const SHARED: u32 = 100;
const SIZE: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.get(2).and_then(|text| text.parse().ok());
    let (Some(bootstrap), Some(topic), Some(seconds)) = (args.first(), args.get(1), seconds) else {
        println!("usage: steady_transactions BOOTSTRAP TOPIC SECONDS");
        return ExitCode::from(2);
    };
    match run(bootstrap, topic, Duration::from_secs(seconds)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("steady_transactions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// State that all producers share.
struct Load {
    client: Client,
    topic: String,
    partitions: Vec<TopicPartition>,
    end: Instant,
    /// A clock that rises with each look.
    clock: AtomicU64,
}

impl Load {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// Returns whether the history has no error.
async fn run(bootstrap: &str, topic: &str, time: Duration) -> Result<bool> {
    // An unresponsive broker is disconnected after 3 s; a transaction has 10.
    let config = Config::builder()
        .brokers(bootstrap)
        .request_timeout(Duration::from_secs(3))
        .connect_timeout(Duration::from_secs(3))
        .build()?;
    let client = Client::connect(config).await?;
    let partitions = Admin::new(&client).describe_topic(topic).await?.partitions.len() as i32;
    let load = Arc::new(Load {
        partitions: (0..partitions).map(|p| TopicPartition::new(topic, p)).collect(),
        topic: topic.to_owned(),
        end: Instant::now() + time,
        clock: AtomicU64::new(0),
        client,
    });
    let stop = CancellationToken::new();
    let reader = tokio::spawn(read_until(stop.clone(), load.client.clone(), load.partitions.clone(), |_| {}));
    let member = Arc::new(member(&load).await?);
    let mut owners = JoinSet::new();
    for stream in 0..PRODUCERS {
        let consumer = (stream == 0).then(|| Arc::clone(&member));
        owners.spawn(run_alone(Arc::clone(&load), stream, consumer));
    }
    owners.spawn(run_in_turns(Arc::clone(&load)));
    let mut history = TransactionHistory::default();
    let (mut count, mut longest, mut fenced) = (0, Duration::ZERO, 0);
    for owner in owners.join_all().await.into_iter().flatten() {
        count += owner.ended.len();
        longest = longest.max(owner.longest);
        fenced += u32::from(owner.fenced);
        owner.add_to(&mut history);
    }
    await_stable(&load.client, &load.partitions, PATIENCE, &mut history).await?;
    stop.cancel();
    history.readers.push(reader.await.expect("the reader does not panic"));
    read_committed(&load.client, &load.partitions, |batch| _ = history.log.read_batch(batch)).await;
    let group = Admin::new(&load.client).describe_group(&group_of(topic)).await?;
    history.committed_offset(&input(topic), group.offsets.iter().find_map(|at| at.committed));
    Arc::into_inner(member).expect("its producer has ended").close().await?;

    let report = history.check();
    print!("{}", report.details());
    let rate = count as f64 / time.as_secs_f64();
    println!("{report}; {rate:.0} transactions/s, longest time of one {longest:.2?}, {fenced} producers fenced");
    Ok(report.is_clean())
}

fn group_of(topic: &str) -> String {
    format!("{topic}-group")
}

/// The partition whose offset the group commits: its records do not matter.
fn input(topic: &str) -> TopicPartition {
    TopicPartition::new(format!("{topic}-input"), 0)
}

async fn member(load: &Load) -> Result<Consumer> {
    let input = input(&load.topic);
    Admin::new(&load.client).create_topic(&input.topic, 1, Some(3)).await?;
    let producer = load.client.producer().start()?;
    producer.send(ProducerRecord::to(&*input.topic).value("input")).await?.await?;
    producer.close(PATIENCE).await?;
    let mut config = load.client.config().consumer.clone();
    config.offset_reset = OffsetReset::Earliest;
    let group = group_of(&load.topic);
    let mut consumer = load.client.consumer(group.as_str()).config(config).subscribe([&*input.topic]).await?;
    loop {
        if let ConsumerEvent::Records(batch) = consumer.recv().await? {
            if !batch.records.is_empty() {
                return Ok(consumer);
            }
        }
    }
}

/// A transaction that has ended.
struct Ended {
    id: SetId,
    count: u32,
    status: SetStatus,
    commit_called: Option<u64>,
    offset: Option<i64>,
    error: String,
}

/// A producer that has ended, and its transactions.
struct Owner {
    stream: u32,
    transactional_id: String,
    started: u64,
    ended: Vec<Ended>,
    longest: Duration,
    fenced: bool,
    topic: String,
}

impl Owner {
    fn add_to(self, history: &mut TransactionHistory) {
        history.owner(self.stream, &self.transactional_id, self.started);
        for Ended { id, count, status, commit_called, offset, error } in self.ended {
            let set = history.set(id, status, count).error(error);
            if let Some(at) = commit_called {
                set.commit_called(at);
            }
            if let Some(offset) = offset {
                set.offset(&input(&self.topic), offset);
            }
        }
    }
}

async fn run_alone(load: Arc<Load>, stream: u32, consumer: Option<Arc<Consumer>>) -> Vec<Owner> {
    let id = format!("{}-{stream}", load.topic);
    let mut owners = Vec::new();
    // A transaction that took too long fences its producer: the next one takes over.
    while Instant::now() < load.end {
        let Some(owner) = start(&load, &id).await else { continue };
        let stream = stream + owners.len() as u32 * PRODUCERS;
        assert!(stream < SHARED, "producers are fenced again and again");
        owners.push(run_owner(&load, owner, stream, consumer.as_deref()).await);
    }
    owners
}

/// Starts an owner of the shared id after the other, without a word to the one before.
async fn run_in_turns(load: Arc<Load>) -> Vec<Owner> {
    let id = format!("{}-shared", load.topic);
    let (mut running, mut stream) = (JoinSet::new(), SHARED);
    while Instant::now() < load.end {
        if let Some(owner) = start(&load, &id).await {
            let load = Arc::clone(&load);
            running.spawn(async move { run_owner(&load, owner, stream, None).await });
            stream += 1;
        }
        sleep_until(load.end.min(Instant::now() + TAKEOVER)).await;
    }
    running.join_all().await
}

async fn start(load: &Load, id: &str) -> Option<(TransactionalProducer, u64)> {
    let builder = load.client.transactional_producer(id).transaction_timeout(TRANSACTION_TIMEOUT);
    let producer = builder.linger(Duration::from_millis(2)).start().await.ok()?;
    Some((producer, load.now()))
}

/// Runs transactions until the load ends or the producer is fenced.
async fn run_owner(
    load: &Load,
    (mut producer, started): (TransactionalProducer, u64),
    stream: u32,
    consumer: Option<&Consumer>,
) -> Owner {
    let transactional_id = producer.transactional_id().to_owned();
    let (mut ended, mut longest, mut fenced) = (Vec::new(), Duration::ZERO, false);
    for sequence in 0.. {
        if Instant::now() >= load.end {
            break;
        }
        let begun = Instant::now();
        let id = SetId { stream, sequence };
        match transact(load, &mut producer, id, consumer).await {
            Ok(one) => {
                let is_unknown = one.status == SetStatus::Unknown;
                ended.push(one);
                if is_unknown {
                    break;
                }
            }
            Err(TransactionAction::Abort) => {}
            Err(action) => {
                fenced = action == TransactionAction::Fenced;
                break;
            }
        }
        longest = longest.max(begun.elapsed());
    }
    // A commit without a response is repeated until there is one.
    if let Some(last) = ended.last_mut().filter(|last| last.status == SetStatus::Unknown) {
        resolve(&mut producer, last).await;
    }
    _ = producer.close(PATIENCE).await; // one that was not ended is ended by its timeout
    Owner { stream, transactional_id, started, ended, longest, fenced, topic: load.topic.clone() }
}

/// Runs a transaction; returns the action after the error if it can't begin.
async fn transact(
    load: &Load,
    producer: &mut TransactionalProducer,
    id: SetId,
    consumer: Option<&Consumer>,
) -> Result<Ended, TransactionAction> {
    let count = 1 + (id.sequence % 8) as u32;
    let mut transaction = producer.begin().await.map_err(|e| e.action())?;
    for index in 0..count {
        let to = (id.sequence + u64::from(index + id.stream)) as usize % load.partitions.len();
        let value = OutputId { set: id, lane: 0, attempt: 0, index, count }.value(SIZE);
        // A failed one fails the commit.
        let record = ProducerRecord::to(&*load.topic).partition(load.partitions[to].partition).value(&value);
        _ = transaction.send(record).await;
    }
    let metadata = consumer.and_then(|consumer| consumer.group_metadata().ok());
    let offset = metadata.and_then(|metadata| {
        let offset = load.now() as i64;
        transaction.send_offsets(&metadata, [(input(&load.topic), offset)]).is_ok().then_some(offset)
    });
    let mut ended = Ended { id, count, status: SetStatus::Aborted, commit_called: None, offset, error: String::new() };
    if id.sequence % 5 == 4 {
        sleep(Duration::from_millis(20)).await; // some of it is written before it is aborted
        _ = transaction.abort().await;
        return Ok(ended);
    }
    ended.commit_called = Some(load.now());
    let result = transaction.commit().await;
    ended.status = SetStatus::of(&result);
    ended.error = result.err().map_or(String::new(), |e| e.to_string());
    if ended.status == SetStatus::Unknown {
        resolve(producer, &mut ended).await;
    }
    Ok(ended)
}

/// Waits for the outcome of the last transaction.
async fn resolve(producer: &mut TransactionalProducer, last: &mut Ended) {
    match producer.outcome().await {
        Some(Ok(TransactionOutcome::Committed)) => last.status = SetStatus::Committed,
        Some(Ok(_)) => last.status = SetStatus::Aborted,
        Some(Err(e)) => {
            last.error = e.to_string();
            last.status = SetStatus::of(&Err(e));
        }
        None => {}
    }
}
