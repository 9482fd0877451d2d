//! Dependencies of handlers that are down: what waits for them, what goes on, and that no dead letter is
//! written for them. Seeded ones, on a paused clock, are in `testing/tests/holds.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod policies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::health::{Activity, Status};
use ailurus::processor::{Batching, ExactlyOnce, Hold, HoldScope, Outputs, PauseReason, Unavailable};
use ailurus::{
    Admin, Client, HandlerOrdering, Message, OffsetReset, Outcome, Processor, ProducerRecord, StartOffset,
    Subscription, TopicPartition,
};
use ailurus_metrics::Registry;
use ailurus_test_support::{self as support, TestBroker};

/// More than any test needs, less than anyone wants to wait.
const PATIENCE: Duration = Duration::from_secs(300);
const PARTITIONS: i32 = 3;

/// A topic with records under ten keys, and a dependency.
struct Setup {
    _broker: TestBroker,
    client: Client,
    topic: String,
    group: String,
    dependency: Dependency,
    metrics: Arc<Registry>,
}

/// A dependency of handlers, and what they stored in it.
#[derive(Clone, Default)]
struct Dependency {
    is_up: Arc<AtomicBool>,
    attempts: Arc<AtomicUsize>,
    /// Numbers of each key, in the order in which they were handled.
    handled: Arc<Mutex<BTreeMap<String, Vec<usize>>>>,
}

impl Dependency {
    /// Stores a record, if it is up.
    fn store(&self, message: &Message) -> Result<(), &'static str> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if !self.is_up.load(Ordering::SeqCst) {
            return Err("connection refused");
        }
        self.note(message);
        Ok(())
    }

    fn note(&self, message: &Message) {
        let key = String::from_utf8_lossy(message.key.as_deref().unwrap()).into_owned();
        self.handled.lock().unwrap().entry(key).or_default().push(number(message));
    }

    fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::SeqCst);
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn handled(&self) -> Vec<usize> {
        let mut all = self.handled.lock().unwrap().values().flatten().copied().collect::<Vec<_>>();
        all.sort_unstable();
        all
    }

    /// Each of the first `count` was handled once, in the order of its key.
    fn assert_complete(&self, count: usize) {
        assert_eq!(self.handled(), (0..count).collect::<Vec<_>>());
        let handled = self.handled.lock().unwrap();
        assert!(handled.values().all(|numbers| numbers.is_sorted()), "{handled:?}");
    }
}

fn number(message: &Message) -> usize {
    message.text().unwrap().unwrap().parse().unwrap()
}

impl Setup {
    async fn new(count: usize) -> Self {
        let broker = support::broker().await;
        let metrics = Arc::new(Registry::new());
        let config = broker.config().metrics(metrics.clone()).consumer(|c| c.offset_reset(OffsetReset::Earliest));
        let client = Client::connect(config.build().unwrap()).await.unwrap();
        let (topic, group) = (broker.topic("orders"), broker.group("g"));
        support::create_topic(&client, &topic, PARTITIONS).await.unwrap();
        let setup = Self { _broker: broker, client, topic, group, dependency: Dependency::default(), metrics };
        setup.produce(0..count).await;
        setup
    }

    /// Writes records with these numbers, under key n modulo 10.
    async fn produce(&self, numbers: std::ops::Range<usize>) {
        let producer = self.client.producer().start().unwrap();
        for n in numbers {
            let record = ProducerRecord::to(&*self.topic).key((n % 10).to_string()).value(n.to_string());
            drop(producer.send(record).await.unwrap());
        }
        producer.close(PATIENCE).await.unwrap();
    }

    /// Two attempts, and quick probes.
    fn processor(&self) -> Processor {
        self.client
            .processor(&*self.group)
            .ordering(HandlerOrdering::Key)
            .max_attempts(2_u32)
            .retry_backoff(Duration::from_millis(2))
            .hold_backoff(Duration::from_millis(5))
            .hold_backoff_max(Duration::from_millis(20))
    }

    /// Subscribes with a handler that holds for the dependency.
    async fn subscribe(&self, hold: Hold) -> Subscription {
        let dependency = self.dependency.clone();
        let handle = move |message: Message| {
            let outcome = match dependency.store(&message) {
                Ok(()) => Outcome::Done,
                Err(e) => Outcome::hold(hold.clone(), e),
            };
            async move { outcome }
        };
        self.processor().subscribe([&self.topic], handle).await.unwrap()
    }

    /// Returns the sum of a metric.
    fn total(&self, metric: &str) -> f64 {
        self.metrics.snapshot().total(&format!("ailurus_processor_{metric}"))
    }

    async fn until_handled(&self, count: usize) {
        until(&format!("{count} records"), async || self.dependency.handled().len() >= count).await;
    }

    async fn committed(&self) -> i64 {
        let described = Admin::new(&self.client).describe_group(&self.group).await.unwrap();
        described.offsets.iter().filter_map(|o| o.committed).sum()
    }

    /// Ends the subscription: everything is committed, without dead letters.
    async fn end(self, subscription: Subscription, count: usize) {
        until("the commit", async || self.committed().await == count as i64).await;
        let stats = subscription.stats();
        assert_eq!((stats.dead_letters, stats.handled), (0, count as u64), "{stats:?}");
        assert!(subscription.health().waiting_for.is_empty());
        assert!(subscription.shutdown().await.unwrap().is_empty());
        self.dependency.assert_complete(count);
        assert_eq!(self.dead_letters().await, 0, "dead letters");
        self.client.close().await;
    }

    /// Returns the number of dead letters in their topic.
    async fn dead_letters(&self) -> i64 {
        let topic = format!("{}.dlq", self.topic);
        let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new(&*topic, p)).collect();
        let ends = Admin::new(&self.client).list_offsets(&partitions, StartOffset::Latest).await.unwrap();
        ends.values().sum()
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looks = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looks).await.is_ok(), "no {what} within {PATIENCE:?}");
}

/// Waits until so many probes have failed.
async fn until_failed_probes(subscription: &Subscription, count: u32) {
    let failed = || subscription.health().waiting_for.iter().map(|w| w.failed_probes).sum::<u32>();
    until(&format!("{count} failed probes"), async || failed() >= count).await;
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Records,
    Batches,
    Pipeline,
    PipelineOfBatches,
}

/// Subscribes with a handler that returns the error of the dependency.
async fn subscribe_in(mode: Mode, setup: &Setup) -> Subscription {
    let (dependency, topics, output) = (setup.dependency.clone(), [&setup.topic], format!("{}.stored", setup.topic));
    let outputs = {
        let (dependency, output) = (dependency.clone(), output.clone());
        move |messages: &[Message]| {
            // All or nothing.
            let failed = messages.iter().find_map(|_| (!dependency.is_up.load(Ordering::SeqCst)).then_some(()));
            dependency.attempts.fetch_add(1, Ordering::SeqCst);
            if failed.is_some() {
                return Err(Unavailable::new("postgres", "connection refused"));
            }
            messages.iter().for_each(|message| dependency.note(message));
            let copy = |m: &Message| ProducerRecord::to(output.clone()).value(number(m).to_string());
            Ok(messages.iter().map(copy).collect::<Outputs>())
        }
    };
    let batching = Batching::new(8, Duration::from_millis(2));
    if matches!(mode, Mode::Pipeline | Mode::PipelineOfBatches) {
        support::create_topic(&setup.client, &output, 1).await.unwrap();
    }
    let pipeline = ExactlyOnce::new().commit_interval(Duration::from_millis(5));
    let subscription = match mode {
        Mode::Records => {
            let handle = move |m: Message| {
                let stored = outputs(&[m]).map(drop);
                async move { stored }
            };
            setup.processor().subscribe(topics, handle).await
        }
        Mode::Batches => {
            let handle = move |all: Vec<Message>| {
                let stored = outputs(&all).map(drop);
                async move { stored }
            };
            setup.processor().subscribe_batches(topics, batching, handle).await
        }
        Mode::Pipeline => {
            let handle = move |m: Message| {
                let stored = outputs(&[m]);
                async move { stored }
            };
            setup.processor().exactly_once(pipeline).subscribe(topics, handle).await
        }
        Mode::PipelineOfBatches => {
            let handle = move |all: Vec<Message>| {
                let stored = outputs(&all);
                async move { stored }
            };
            setup.processor().exactly_once(pipeline).subscribe_batches(topics, batching, handle).await
        }
    };
    subscription.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_makes_no_dead_letter_whatever_the_handler() {
    for mode in [Mode::Records, Mode::Batches, Mode::Pipeline, Mode::PipelineOfBatches] {
        let setup = Setup::new(60).await;
        let subscription = subscribe_in(mode, &setup).await;
        until_failed_probes(&subscription, 6).await;
        let health = subscription.health();
        let [waiting] = &health.waiting_for[..] else { panic!("{:?}", health.waiting_for) };
        assert_eq!((&*waiting.dependency, waiting.scope), ("postgres", HoldScope::Subscription));
        assert_eq!(waiting.error, "postgres is unavailable: connection refused");
        assert!(health.partitions.iter().all(|p| p.paused_by == [PauseReason::Breaker]), "{health:?}");
        assert!(health.partitions.iter().all(|p| p.activity != Activity::Stalled), "{health:?}");
        until("a hold", async || setup.total("open_holds") == 1.0).await;
        until("paused partitions", async || setup.total("paused_partitions") == f64::from(PARTITIONS)).await;
        let health = setup.client.health().await;
        assert_eq!(health.status, Status::Degraded, "{:?}", health.problems);
        assert!(
            health.problems.iter().any(|p| p.contains("is waiting for postgres since 20")),
            "{:?}",
            health.problems
        );

        setup.dependency.set_up(true);
        setup.until_handled(60).await;
        setup.dependency.set_up(false); // and again
        setup.produce(60..80).await;
        until_failed_probes(&subscription, 3).await;
        setup.dependency.set_up(true);
        setup.until_handled(80).await;
        until("resumed partitions", async || setup.total("paused_partitions") == 0.0).await;
        until("the end of the hold", async || setup.total("open_holds") == 0.0).await;
        assert!(setup.total("holds_total") >= 2.0 && setup.total("held_seconds_total") > 0.0);
        setup.end(subscription, 80).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_records_probe() {
    let setup = Setup::new(100).await;
    let subscription = setup.subscribe("postgres".into()).await;
    until_failed_probes(&subscription, 1).await;
    let waiting = || subscription.health().waiting_for[0].clone();
    let (before, failed) = (setup.dependency.attempts(), waiting().failed_probes);
    until_failed_probes(&subscription, failed + 10).await;
    let (probes, attempts) = (waiting().failed_probes - failed, setup.dependency.attempts() - before);
    // One may be in flight, and the health was read between.
    assert!(attempts <= probes as usize + 2, "{attempts} attempts, {probes} probes");
    setup.dependency.set_up(true);
    setup.until_handled(100).await;
    setup.end(subscription, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_need_the_dependency_go_on() {
    let setup = Setup::new(100).await;
    let dependency = setup.dependency.clone();
    let handle = move |message: Message| {
        let needs_it = message.key.as_deref() == Some(b"3");
        let outcome = match needs_it.then(|| dependency.store(&message)) {
            Some(Err(e)) => Outcome::hold(Hold::on("geocoder").scope(HoldScope::Lane), e),
            Some(Ok(())) => Outcome::Done,
            None => {
                dependency.note(&message);
                Outcome::Done
            }
        };
        async move { outcome }
    };
    let subscription = setup.processor().subscribe([&setup.topic], handle).await.unwrap();
    until_failed_probes(&subscription, 5).await;
    setup.until_handled(90).await;
    let health = subscription.health();
    assert!(health.partitions.iter().all(|p| p.paused_by.is_empty()), "{health:?}");
    assert_eq!(health.waiting_for[0].scope, HoldScope::Lane);
    assert_eq!(health.partitions.iter().map(|p| p.parked_keys).sum::<usize>(), 1, "{health:?}");
    setup.dependency.set_up(true);
    setup.until_handled(100).await;
    setup.end(subscription, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_partitions_go_on() {
    let setup = Setup::new(100).await;
    let dependency = setup.dependency.clone();
    let handle = move |message: Message| {
        let outcome = match (message.partition == 1).then(|| dependency.store(&message)) {
            Some(Err(e)) => Outcome::hold(Hold::on("shard 1").scope(HoldScope::Partition), e),
            Some(Ok(())) => Outcome::Done,
            None => {
                dependency.note(&message);
                Outcome::Done
            }
        };
        async move { outcome }
    };
    let subscription = setup.processor().subscribe([&setup.topic], handle).await.unwrap();
    until_failed_probes(&subscription, 3).await;
    let lag = |partition| subscription.health().partitions.iter().find(|p| p.partition == partition).unwrap().lag;
    until("progress of the others", async || lag(0) == Some(0) && lag(2) == Some(0)).await;
    let paused: BTreeSet<_> =
        subscription.health().partitions.iter().map(|p| (p.partition, !p.paused_by.is_empty())).collect();
    assert_eq!(paused, [(0, false), (1, true), (2, false)].into());
    setup.dependency.set_up(true);
    setup.until_handled(100).await;
    setup.end(subscription, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_the_dependency() {
    let setup = Setup::new(60).await;
    setup.dependency.set_up(true);
    let subscription = setup.subscribe("postgres".into()).await;
    setup.until_handled(60).await;
    setup.dependency.set_up(false);
    setup.produce(60..100).await;
    until_failed_probes(&subscription, 2).await;
    let unfinished = tokio::time::timeout(PATIENCE, subscription.shutdown()).await.unwrap().unwrap();
    let held: usize = unfinished.partitions.iter().map(|p| p.awaiting_retry + p.queued).sum();
    assert!(held > 0 && unfinished.partitions.iter().all(|p| p.cancelled == 0), "{unfinished:?}");
    assert_eq!(setup.committed().await, 60, "what was handled, and nothing that waited");

    setup.dependency.set_up(true);
    let next = setup.subscribe("postgres".into()).await;
    setup.until_handled(100).await;
    until("the commit", async || setup.committed().await == 100).await;
    next.shutdown().await.unwrap();
    setup.dependency.assert_complete(100);
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_drops_what_waits() {
    let setup = Setup::new(0).await;
    setup.dependency.set_up(true);
    let subscription = setup.subscribe("postgres".into()).await;
    setup.produce(0..60).await;
    setup.until_handled(60).await;
    setup.dependency.set_up(false);
    setup.produce(60..100).await;
    until_failed_probes(&subscription, 2).await;
    // Nothing waits behind the end of the log: no partition could probe.
    for partition in 0..PARTITIONS {
        let partition = TopicPartition::new(&*setup.topic, partition);
        subscription.control().seek(&partition, StartOffset::Latest).await.unwrap();
    }
    until("the end of the wait", async || subscription.health().waiting_for.is_empty()).await;
    assert!(subscription.health().partitions.iter().all(|p| p.paused_by.is_empty()), "{:?}", subscription.health());
    setup.produce(100..120).await;
    until_failed_probes(&subscription, 2).await;
    setup.dependency.set_up(true);
    setup.until_handled(80).await;
    assert_eq!(setup.dependency.handled(), (0..60).chain(100..120).collect::<Vec<_>>());
    assert_eq!(subscription.stats().dead_letters, 0);
    subscription.shutdown().await.unwrap();
    setup.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_moves_what_waits_and_what_probes() {
    let setup = Setup::new(60).await;
    let first = setup.subscribe("postgres".into()).await;
    until_failed_probes(&first, 1).await;
    let second = setup.subscribe("postgres".into()).await;
    until("a partition of each", async || [&first, &second].iter().all(|s| !s.health().partitions.is_empty())).await;
    until_failed_probes(&first, 2).await;
    until_failed_probes(&second, 2).await;
    // The first leaves while both wait: the second probes with all partitions.
    let unfinished = tokio::time::timeout(PATIENCE, first.shutdown()).await.unwrap().unwrap();
    assert!(!unfinished.is_empty());
    until("all partitions", async || second.health().partitions.len() == PARTITIONS as usize).await;
    setup.dependency.set_up(true);
    setup.until_handled(60).await;
    setup.end(second, 60).await;
}
