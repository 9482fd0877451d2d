//! A member of the group: a pipeline, which is started again if it ends with an error.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{Batching, ExactlyOnce, Outputs};
use ailurus::{Client, Config, HandlerOrdering, Message, OffsetReset, Outcome, ProducerRecord, Subscription};
use ailurus_broker::Broker;
use ailurus_test_support::transaction_history::{OutputId, SetId};
use tokio::sync::mpsc;

use super::plan::{MAX_ATTEMPTS, Plan, Poison};

pub const INPUT: &str = "inputs";
pub const OUTPUT: &str = "outputs";
pub const DEAD_LETTERS: &str = "inputs.dlq";
/// A topic that rejects records without a key.
pub const COMPACTED: &str = "compacted";
pub const GROUP: &str = "pipeline";

/// Size of a record that no request may have.
const TOO_LARGE: usize = 2 << 20;

/// A command to a member.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    Leave,
    Crash,
}

/// State shared by all members of a seed.
pub struct Context {
    pub plan: Plan,
    pub broker: Broker,
    /// Number of attempts that returned outputs, which numbers them.
    pub handled: AtomicU32,
    /// Errors with which members ended.
    pub ended: Mutex<Vec<String>>,
}

impl Context {
    fn config(&self) -> Config {
        Config::builder()
            .brokers(self.broker.bootstrap())
            .request_timeout(self.plan.request_timeout)
            .connect_timeout(self.plan.request_timeout)
            .retry_backoff(Duration::from_millis(5))
            .retry_backoff_max(Duration::from_millis(50))
            .metadata_max_age(Duration::from_millis(200)) // so that new partitions are found
            .consumer(|c| c.offset_reset(OffsetReset::Earliest))
            .build()
            .expect("these settings are allowed")
    }
}

/// Runs the member with this number until a command ends it.
pub async fn run(context: Arc<Context>, number: usize, mut commands: mpsc::UnboundedReceiver<Command>) {
    loop {
        let start = start(&context, number);
        let started = tokio::select! {
            started = start => started,
            _ = commands.recv() => return,
        };
        let (client, subscription) = match started {
            Ok(started) => started,
            Err(e) => {
                if !e.is_retriable() {
                    context.ended.lock().unwrap().push(format!("{e:#}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let error = tokio::select! {
            command = commands.recv() => {
                match command {
                    Some(Command::Crash) => subscription.abort().await,
                    // What could not be committed in time is handled by others.
                    Some(Command::Leave) | None => drop(subscription.shutdown().await),
                }
                client.close().await;
                return;
            }
            ended = subscription.ended() => ended,
        };
        // As a service manager would, it starts again.
        context.ended.lock().unwrap().push(format!("{error:?}"));
        drop(subscription);
        client.close().await;
    }
}

async fn start(context: &Arc<Context>, number: usize) -> ailurus::Result<(Client, Subscription)> {
    let plan = &context.plan;
    let config = context.config();
    let client = Client::connect(config.clone()).await?;
    let mut consumer = config.consumer.clone();
    consumer.group_protocol = plan.protocol;
    consumer.group_instance_id = plan.static_members.then(|| format!("instance-{number}"));
    consumer.session_timeout = plan.session_timeout;
    consumer.rebalance_timeout = plan.rebalance_timeout;
    consumer.heartbeat_interval = plan.heartbeat_interval;
    consumer.fetch_max_wait = Duration::from_millis(20);
    consumer.partition_fetch_bytes = 1 << 10; // a few records at a time
    let mut settings = config.processor.clone();
    settings.ordering = HandlerOrdering::Key;
    settings.concurrency = 8;
    settings.max_attempts = MAX_ATTEMPTS;
    settings.retry_backoff = Duration::from_millis(2);
    settings.retry_backoff_max = Duration::from_millis(10);
    settings.shutdown_timeout = Duration::from_secs(5);
    let exactly_once = ExactlyOnce::new()
        .commit_interval(plan.commit_interval)
        .max_records(plan.max_records)
        .transaction_timeout(Duration::from_secs(1));
    let handling = Arc::clone(context);
    let pipeline = client.processor(GROUP).consumer_config(consumer).config(settings).exactly_once(exactly_once);
    let subscription = match plan.batches {
        None => {
            let handler = move |message: Message| handle(Arc::clone(&handling), message);
            pipeline.subscribe([INPUT], handler).await
        }
        Some(size) => {
            let handler = move |batch: Vec<Message>| handle_batch(Arc::clone(&handling), batch);
            pipeline.subscribe_batches([INPUT], Batching::new(size, Duration::from_millis(3)), handler).await
        }
    };
    match subscription {
        Ok(subscription) => Ok((client, subscription)),
        Err(e) => {
            client.close().await;
            Err(e)
        }
    }
}

async fn handle_batch(context: Arc<Context>, batch: Vec<Message>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(batch.len());
    for message in batch {
        outcomes.push(handle(Arc::clone(&context), message).await);
    }
    outcomes
}

async fn handle(context: Arc<Context>, message: Message) -> Outcome {
    let handling = context.plan.handling(message.partition, message.offset);
    if !handling.time.is_zero() {
        tokio::time::sleep(handling.time).await;
    }
    if message.attempt <= handling.failures {
        return Outcome::retry("this attempt fails");
    }
    let attempt = context.handled.fetch_add(1, Ordering::Relaxed);
    let key: u32 = message.key.as_deref().and_then(key_of).expect("the test wrote the key");
    let set = SetId { stream: message.partition as u32, sequence: message.offset as u64 };
    let record = |index| {
        let id = OutputId { set, lane: key, attempt, index, count: handling.outputs };
        let partition = (key + index) % context.plan.outputs as u32;
        ProducerRecord::to(OUTPUT).partition(partition as i32).value(id.value(60))
    };
    let poison = handling.poison.map(|poison| match poison {
        Poison::TooLarge => ProducerRecord::to(OUTPUT).partition(0).value(vec![b'x'; TOO_LARGE]),
        Poison::NoPartition => ProducerRecord::to(OUTPUT).partition(context.plan.outputs).value("nowhere"),
        Poison::NoKey => ProducerRecord::to(COMPACTED).value("without a key"),
    });
    Outcome::Send((0..handling.outputs).map(record).chain(poison).collect::<Outputs>())
}

/// Returns the number of a key.
pub fn key_of(key: &[u8]) -> Option<u32> {
    std::str::from_utf8(key).ok()?.parse().ok()
}
