//! Exactly-once pipelines against a broker: outputs and offsets become visible together, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aborts;
mod members;
mod unknown;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{Batching, BoxError, DeadLetter, ExactlyOnce, Outputs};
use ailurus::{
    Admin, Client, ConsumerEvent, ErrorKind, HandlerOrdering, IsolationLevel, Message, OffsetReset, Outcome, Processor,
    ProducerRecord, Record, StartOffset, Subscription, TopicPartition,
};
use ailurus_test_support::{self as support, TestBroker};
use tokio::sync::watch;

/// More than any test needs, less than anyone wants to wait.
const PATIENCE: Duration = Duration::from_secs(300);
const PARTITIONS: i32 = 3;

/// An input and an output topic, and a group that has handled nothing.
struct Setup {
    broker: TestBroker,
    client: Client,
    input: String,
    output: String,
    group: String,
}

impl Setup {
    async fn new() -> Self {
        Self::on(support::broker().await).await
    }

    async fn on(broker: TestBroker) -> Self {
        let config = broker.config().retry_backoff(Duration::from_millis(5));
        let config = config.consumer(|c| c.offset_reset(OffsetReset::Earliest)).build().unwrap();
        let client = Client::connect(config).await.unwrap();
        let (input, output, group) = (broker.topic("input"), broker.topic("output"), broker.group("g"));
        for topic in [&input, &output] {
            support::create_topic(&client, topic, PARTITIONS).await.unwrap();
        }
        Self { broker, client, input, output, group }
    }

    /// Writes records with these numbers, under key n modulo 10.
    async fn produce(&self, numbers: std::ops::Range<usize>) {
        let producer = self.client.producer().start().unwrap();
        for n in numbers {
            let record = ProducerRecord::to(&*self.input).key((n % 10).to_string()).value(n.to_string());
            drop(producer.send(record).await.unwrap());
        }
        producer.close(PATIENCE).await.unwrap();
    }

    fn processor(&self) -> Processor {
        self.client.processor(&*self.group).ordering(HandlerOrdering::Key).retry_backoff(Duration::from_millis(5))
    }

    /// A pipeline that writes each record to the output topic; `before` may fail or wait.
    async fn copy<F>(
        &self,
        settings: ExactlyOnce,
        before: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
    ) -> Subscription
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let output = self.output.clone();
        let handle = move |message: Message| {
            let (output, before) = (output.clone(), before.clone());
            async move {
                before(number(&message)).await?;
                Ok::<_, BoxError>(Outputs::new().send(copy_of(&message, output)))
            }
        };
        self.processor().exactly_once(settings).subscribe([&*self.input], handle).await.unwrap()
    }

    /// The records of committed transactions up to the end of the log, by partition.
    async fn read(&self, topic: &str) -> Vec<Record> {
        let mut config = self.client.config().consumer.clone();
        config.isolation_level = IsolationLevel::ReadCommitted;
        let count = if topic == self.input || topic == self.output { PARTITIONS } else { self.partitions(topic).await };
        let partitions: Vec<_> = (0..count).map(|p| TopicPartition::new(topic, p)).collect();
        let assignment = partitions.iter().map(|p| (p.clone(), StartOffset::Earliest));
        let mut consumer = self.client.reader().config(config).assign(assignment).await.unwrap();
        let mut open = Admin::new(&self.client).list_offsets(&partitions, StartOffset::Latest).await.unwrap();
        open.retain(|_, end| *end > 0);
        let mut records = BTreeMap::<_, Vec<_>>::new();
        while !open.is_empty() {
            let event = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("records come").unwrap();
            if let ConsumerEvent::Records(batch) = event {
                if open.get(&batch.topic_partition()).is_some_and(|end| batch.next_offset >= *end) {
                    open.remove(&batch.topic_partition());
                }
                records.entry(batch.partition).or_default().extend(batch.records);
            }
        }
        consumer.close().await.unwrap();
        records.into_values().flatten().collect()
    }

    async fn partitions(&self, topic: &str) -> i32 {
        let described = Admin::new(&self.client).describe_topic(topic).await.unwrap();
        i32::try_from(described.partitions.len()).unwrap()
    }

    /// The numbers in the output topic. Those of a key must be in order.
    async fn numbers(&self) -> Vec<usize> {
        let all: Vec<_> = self.read(&self.output).await.iter().map(value).collect();
        let mut last = BTreeMap::new();
        for n in &all {
            let before = last.insert(n % 10, *n);
            assert!(before.is_none_or(|b| b < *n), "{n} after {before:?}");
        }
        let mut all = all;
        all.sort_unstable();
        all
    }

    async fn dead_letters(&self) -> Vec<(usize, DeadLetter)> {
        let letters = self.read(&format!("{}.dlq", self.input)).await;
        let mut all: Vec<_> = letters.iter().map(|r| (value(r), DeadLetter::parse(&r.headers).unwrap())).collect();
        all.sort_by_key(|(n, _)| *n);
        all
    }

    /// Reads the output topic until a reader of committed records has seen so many.
    async fn until_written(&self, count: usize) {
        let mut config = self.client.config().consumer.clone();
        config.isolation_level = IsolationLevel::ReadCommitted;
        let assignment = partitions(&self.output).map(|p| (p, StartOffset::Earliest));
        let mut consumer = self.client.reader().config(config).assign(assignment).await.unwrap();
        let mut seen = 0;
        while seen < count {
            let event = tokio::time::timeout(PATIENCE, consumer.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("{seen} outputs of {count}")).unwrap();
            if let ConsumerEvent::Records(batch) = event {
                seen += batch.records.len();
            }
        }
        consumer.close().await.unwrap();
    }

    /// The number of records in the output topic, those of aborted transactions and markers included.
    async fn log_size(&self) -> i64 {
        let all: Vec<_> = partitions(&self.output).collect();
        Admin::new(&self.client).list_offsets(&all, StartOffset::Latest).await.unwrap().values().sum()
    }

    /// The sum of the committed offsets.
    async fn committed(&self) -> i64 {
        let described = Admin::new(&self.client).describe_group(&self.group).await.unwrap();
        described.offsets.iter().filter_map(|o| o.committed).sum()
    }
}

fn partitions(topic: &str) -> impl Iterator<Item = TopicPartition> + '_ {
    (0..PARTITIONS).map(move |p| TopicPartition::new(topic, p))
}

fn copy_of(message: &Message, topic: impl Into<String>) -> ProducerRecord<'static> {
    let mut record = ProducerRecord::to(topic.into());
    (record.key, record.value) = (message.key.clone().map(Into::into), message.value.clone().map(Into::into));
    record
}

fn number(message: &Message) -> usize {
    message.text().unwrap().unwrap().parse().unwrap()
}

fn value(record: &Record) -> usize {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

/// Numbers that handlers have seen.
#[derive(Clone)]
struct Seen(Arc<(Mutex<Vec<usize>>, watch::Sender<usize>)>);

impl Seen {
    fn new() -> Self {
        Self(Arc::new((Mutex::default(), watch::channel(0).0)))
    }

    fn push(&self, n: usize) {
        self.0.0.lock().unwrap().push(n);
        self.0.1.send_modify(|count| *count += 1);
    }

    fn all(&self) -> Vec<usize> {
        let mut all = self.0.0.lock().unwrap().clone();
        all.sort_unstable();
        all
    }

    async fn until(&self, count: usize) {
        let mut changed = self.0.1.subscribe();
        let wait = changed.wait_for(|seen| *seen >= count);
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{} of {count}", self.all().len());
    }
}

fn counted(seen: &Seen) -> impl Fn(usize) -> std::future::Ready<Result<(), BoxError>> + Clone + Send + Sync + 'static {
    let seen = seen.clone();
    move |n| {
        seen.push(n);
        std::future::ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_offsets_are_committed_together() {
    let test = Setup::new().await;
    test.produce(0..500).await;
    let seen = Seen::new();
    let subscription = test.copy(ExactlyOnce::new().commit_interval(Duration::from_millis(10)), counted(&seen)).await;
    seen.until(500).await;
    assert!(subscription.shutdown().await.unwrap().is_empty());
    assert_eq!(test.numbers().await, (0..500).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 500);
    assert_eq!(seen.all(), (0..500).collect::<Vec<_>>(), "each is handled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_record_has_the_outputs_of_one_attempt() {
    let test = Setup::new().await;
    test.produce(0..60).await;
    let (seen, failed) = (Seen::new(), Arc::new(Mutex::new(std::collections::BTreeSet::new())));
    let (done, output) = (seen.clone(), test.output.clone());
    let handle = move |message: Message| {
        let outputs = Outputs::new().send(copy_of(&message, &*output));
        let outcome = match number(&message) % 3 == 0 && failed.lock().unwrap().insert(number(&message)) {
            true => Outcome::retry("once"),
            false => {
                done.push(number(&message));
                Outcome::Send(outputs)
            }
        };
        std::future::ready(outcome)
    };
    let subscription =
        test.processor().exactly_once(ExactlyOnce::new()).subscribe([&*test.input], handle).await.unwrap();
    seen.until(60).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..60).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_in_the_transaction_of_its_offset() {
    let test = Setup::new().await;
    test.produce(0..40).await;
    let seen = Seen::new();
    let called = seen.clone();
    let before = move |n| {
        called.push(n);
        std::future::ready(if n % 4 == 0 { Err("never".into()) } else { Ok(()) })
    };
    let subscription = test.copy(ExactlyOnce::new(), before).await;
    seen.until(30 + 10 * 4).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..40).filter(|n| n % 4 != 0).collect::<Vec<_>>());
    let letters = test.dead_letters().await;
    assert_eq!(letters.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..40).step_by(4).collect::<Vec<_>>());
    assert!(letters.iter().all(|(_, letter)| letter.error == "never" && letter.attempts == 4));
    assert_eq!(test.committed().await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_a_batch_are_those_of_all_its_records() {
    let test = Setup::new().await;
    test.produce(0..100).await;
    let (seen, output) = (Seen::new(), test.output.clone());
    let done = seen.clone();
    let handle = move |batch: Vec<Message>| {
        let outputs: Outputs = batch.iter().map(|m| copy_of(m, &*output)).collect();
        batch.iter().for_each(|m| done.push(number(m)));
        std::future::ready(Ok::<_, Infallible>(outputs))
    };
    let batching = Batching::new(7, Duration::from_millis(5));
    let pipeline = test.processor().exactly_once(ExactlyOnce::new().max_records(20));
    let subscription = pipeline.subscribe_batches([&*test.input], batching, handle).await.unwrap();
    seen.until(100).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..100).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_shows_the_transactions_of_a_pipeline() {
    let test = Setup::new().await;
    test.produce(0..20).await;
    let seen = Seen::new();
    let subscription = test.copy(ExactlyOnce::new(), counted(&seen)).await;
    seen.until(20).await;
    let service = ailurus::RedpandaService::new(&test.client).unwrap();
    let of_group = async || {
        let all = service.health().await.transactional_producers;
        all.into_iter().find(|p| p.group.as_deref() == Some(&test.group))
    };
    let producer = of_group().await.expect("it runs");
    assert!(producer.transactional_id.starts_with(&format!("{}.", test.group)), "{producer:?}");
    subscription.shutdown().await.unwrap();
    assert_eq!(of_group().await, None, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_end_a_subscription_that_does_not_send_them() {
    let test = Setup::new().await;
    test.produce(0..1).await;
    let output = test.output.clone();
    let handle = move |message: Message| std::future::ready(Outputs::from(copy_of(&message, &*output)));
    let subscription = test.processor().subscribe([&*test.input], handle).await.unwrap();
    let ended = tokio::time::timeout(
        PATIENCE,
        subscription.run_until(std::future::pending::<()>(), std::future::pending::<()>()),
    );
    let error = ended.await.expect("it ends").unwrap_err();
    assert!(error.to_string().contains("Processor::exactly_once"), "{error}");
    assert_eq!(test.committed().await, 0);
}

#[tokio::test]
async fn settings_out_of_bounds_are_named() {
    let test = Setup::new().await;
    let handle = |_: Message| std::future::ready(Outputs::new());
    let bad = [
        (ExactlyOnce::new().commit_interval(Duration::ZERO), "commit_interval"),
        (ExactlyOnce::new().max_records(0), "max_records"),
        (ExactlyOnce::new().max_bytes(0), "max_bytes"),
        (ExactlyOnce::new().transaction_timeout(Duration::from_secs(3600)), "transaction_timeout"),
    ];
    for (settings, name) in bad {
        let error = test.processor().exactly_once(settings).subscribe([&*test.input], handle).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_paused_and_caught_up_but_not_moved() {
    let test = Setup::new().await;
    test.produce(0..50).await;
    let seen = Seen::new();
    let subscription = test.copy(ExactlyOnce::new().commit_interval(Duration::from_millis(10)), counted(&seen)).await;
    let control = subscription.control();
    tokio::time::timeout(PATIENCE, control.caught_up()).await.unwrap().unwrap();
    assert_eq!(test.numbers().await, (0..50).collect::<Vec<_>>(), "outputs are committed");
    assert_eq!(test.committed().await, 50);
    let e = control.seek(&TopicPartition::new(&*test.input, 0), StartOffset::Earliest).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    control.pause(&test.input).unwrap();
    test.produce(50..60).await;
    control.resume(&test.input).unwrap();
    tokio::time::timeout(PATIENCE, control.caught_up()).await.unwrap().unwrap();
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..60).collect::<Vec<_>>());
}
