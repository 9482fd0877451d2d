//! Handlers: order, retry, dead letters, rebalances, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batches;
mod codecs;
mod control;
mod delayed_retries;
mod dropped;
mod listener;
mod ordering;
mod signals;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::BoxError;
use ailurus::{
    Admin, Client, ConfigBuilder, ConsumerEvent, ErrorKind, HandlerOrdering, Message, Outcome, ProducerRecord,
    StartOffset, Subscription, TopicPartition,
};
use ailurus_test_support::{self as support, TestBroker};
use tokio::sync::{Semaphore, watch};

const LONG: Duration = Duration::from_secs(300);

async fn connect(config: ConfigBuilder) -> Client {
    Client::connect(config.build().unwrap()).await.unwrap()
}

/// Creates a topic and puts `count` records into it, record i under key i modulo 10 with the value i.
async fn filled(broker: &TestBroker, client: &Client, name: &str, partitions: i32, count: usize) -> String {
    let topic = broker.topic(name);
    Admin::new(client).create_topic(&topic, partitions, None).await.unwrap();
    produce(client, &topic, 0..count).await;
    topic
}

async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<usize>) {
    let producer = client.producer().start().unwrap();
    let mut sent = Vec::new();
    for i in numbers {
        let (key, value) = ((i % 10).to_string(), i.to_string());
        sent.push(producer.send(ProducerRecord::to(topic).key(&key).value(&value)).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

/// Records that handlers saw, and a way to wait for them.
#[derive(Clone)]
struct Seen(Arc<(Mutex<Vec<Message>>, watch::Sender<usize>)>);

impl Seen {
    fn new() -> Self {
        Self(Arc::new((Mutex::default(), watch::channel(0).0)))
    }
    fn push(&self, message: Message) {
        self.0.0.lock().unwrap().push(message);
        self.0.1.send_modify(|count| *count += 1); // not under the lock, which `until` takes under the channel's
    }
    fn all(&self) -> Vec<Message> {
        self.0.0.lock().unwrap().clone()
    }
    fn values(&self) -> BTreeSet<usize> {
        self.all().iter().map(number).collect()
    }
    /// Waits until what was seen satisfies `done`.
    async fn until(&self, done: impl Fn(&[Message]) -> bool) {
        let mut changed = self.0.1.subscribe();
        let wait = changed.wait_for(|_| done(&self.0.0.lock().unwrap()));
        let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
        assert!(in_time, "{} messages after {LONG:?}", self.all().len());
    }
    async fn until_numbers(&self, count: usize) {
        self.until(|all| all.iter().map(number).collect::<BTreeSet<_>>().len() == count).await;
    }
}

fn number(message: &Message) -> usize {
    std::str::from_utf8(message.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

async fn watching(client: &Client, topic: &str, group: &str, seen: &Seen) -> Subscription {
    let seen = seen.clone();
    let handle = move |message: Message| {
        seen.push(message);
        async { Ok::<_, Infallible>(()) }
    };
    client.processor(group).subscribe([topic], handle).await.unwrap()
}

async fn committed(client: &Client, group: &str) -> i64 {
    let described = Admin::new(client).describe_group(group).await.unwrap();
    described.offsets.iter().filter_map(|o| o.committed).sum()
}

/// Each key's numbers, in the order in which they were first handled, grow.
fn assert_order(all: &[Message]) {
    let mut last = BTreeMap::new();
    for message in all {
        let (key, n) = (message.key.clone().unwrap(), number(message));
        let before = last.insert(key, n);
        assert!(before.is_none_or(|b| b < n), "{n} after {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_handled_in_order_and_committed() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "all", 3, 1000).await;
    let (group, seen) = (broker.group("all"), Seen::new());
    let subscription = watching(&client, &topic, &group, &seen).await;
    seen.until_numbers(1000).await;
    assert_eq!(seen.all().len(), 1000, "none twice");
    assert_order(&seen.all());
    assert_eq!(subscription.stats().rebalances, 1);
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 1000);
    assert!(Admin::new(&client).describe_group(&group).await.unwrap().members.is_empty(), "the group was left");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_record_is_retried_then_dead_lettered() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(3_u32)).await;
    let topic = filled(&broker, &client, "poison", 2, 20).await;
    let (group, seen) = (broker.group("poison"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        handled.push(message.clone());
        async move {
            match number(&message) {
                7 => Err(format!("number 7 on attempt {}", message.attempt)),
                11 if message.attempt == 1 => panic!("eleven"),
                _ => Ok(()),
            }
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(20).await;
    subscription.shutdown().await.unwrap();

    assert_eq!(attempts_at(&seen, 7), [1, 2, 3]);
    assert_eq!(attempts_at(&seen, 11), [1, 2]);
    assert_eq!(attempts_at(&seen, 8), [1]);
    assert_eq!(committed(&client, &group).await, 20, "the dead letter counts as ended");

    let dlq = format!("{topic}.dlq");
    assert_eq!(Admin::new(&client).describe_topic(&dlq).await.unwrap().partitions.len(), 2);
    let letters = read_all(&client, &dlq).await;
    let [letter] = &letters[..] else { panic!("{} dead letters", letters.len()) };
    let origin = seen.all().into_iter().find(|m| number(m) == 7).unwrap();
    assert_eq!((&letter.key, &letter.value), (&origin.key, &origin.value));
    let header = |name| letter.headers.get_str(name).unwrap().to_owned();
    assert_eq!(header("dlq-error"), "number 7 on attempt 3");
    assert_eq!(header("dlq-topic"), topic);
    assert_eq!(header("dlq-partition"), origin.partition.to_string());
    assert_eq!(header("dlq-offset"), origin.offset.to_string());
    assert_eq!(header("dlq-attempts"), "3");
    assert!(header("dlq-first-failure") <= header("dlq-last-failure"));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_layers_is_a_handler() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(2_u32)).await;
    let topic = filled(&broker, &client, "tower", 3, 50).await;
    let (group, seen) = (broker.group("tower"), Seen::new());
    let (handled, running) = (seen.clone(), Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let (count, peak) = (Arc::clone(&running), Arc::clone(&most));
    let handle = tower::service_fn(move |message: Message| {
        let (handled, count, peak) = (handled.clone(), Arc::clone(&count), Arc::clone(&peak));
        async move {
            peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            count.fetch_sub(1, Ordering::SeqCst);
            let hangs = number(&message) == 7 && message.attempt == 1;
            handled.push(message);
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(())
        }
    });
    let layered = tower::ServiceBuilder::new().concurrency_limit(1).timeout(Duration::from_millis(200)).service(handle);
    let subscription = client.processor(&group).subscribe([&topic], layered).await.unwrap();
    seen.until(|all| all.len() == 51).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1, "the limit is kept over all partitions");
    assert_eq!(attempts_at(&seen, 7), [1, 2], "the timeout failed the first attempt");
    assert_eq!(committed(&client, &group).await, 50);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_dead_letter_and_stop() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "verdicts", 1, 10).await;
    let (group, seen) = (broker.group("verdicts"), Seen::new());
    let handled = seen.clone();
    let handle = move |message: Message| {
        handled.push(message.clone());
        async move {
            match number(&message) {
                2 => Outcome::dead_letter("never"),
                3 if message.attempt == 1 => Outcome::retry_after(Duration::from_millis(1), "later"),
                5 => Outcome::stop("the disk is full"),
                _ => Outcome::Done,
            }
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let e = tokio::time::timeout(LONG, subscription.ended()).await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Handler);
    assert!(format!("{e:#}").contains(&format!("{topic}/0@5: the disk is full")), "{e:#}");
    assert_eq!([2, 3, 5].map(|n| attempts_at(&seen, n).len()), [1, 2, 1]);
    assert_eq!(subscription.stats().dead_letters, 1);
    assert_eq!(committed(&client, &group).await, 5, "what ended it is not committed");
    client.close().await;
}

/// The attempts at one record, as the handler saw them.
fn attempts_at(seen: &Seen, n: usize) -> Vec<u32> {
    seen.all().iter().filter(|m| number(m) == n).map(|m| m.attempt).collect()
}

/// All records of a topic.
async fn read_all(client: &Client, topic: &str) -> Vec<ailurus::Record> {
    let count = Admin::new(client).describe_topic(topic).await.unwrap().partitions.len();
    let from: Vec<_> = (0..count).map(|p| (TopicPartition::new(topic, p as i32), StartOffset::Earliest)).collect();
    let mut open: BTreeSet<_> = from.iter().map(|(tp, _)| tp.partition).collect();
    let mut consumer = client.reader().assign(from).await.unwrap();
    let mut all = Vec::new();
    while !open.is_empty() {
        if let ConsumerEvent::Records(mut r) = consumer.recv().await.unwrap() {
            if r.next_offset >= r.high_watermark {
                open.remove(&r.partition);
            }
            all.append(&mut r.records);
        }
    }
    consumer.close().await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_fails_without_a_dead_letter_topic() {
    let broker = support::broker().await;
    let client = connect(broker.config().allow_auto_topic_creation(false)).await;
    let topic = filled(&broker, &client, "strict", 1, 0).await;
    let handle = |_: Message| async { Ok::<_, Infallible>(()) };
    let group = broker.group("strict");
    let e = client.processor(&group).subscribe([&topic], handle).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.to_string().contains("Admin::create_topic_with"), "{e}");
    assert!(e.to_string().contains(&format!("{topic}.dlq\" of ")), "{e}");

    Admin::new(&client).create_topic(&format!("{topic}.dlq"), 1, None).await.unwrap();
    client.processor(&group).subscribe([&topic], handle).await.unwrap().shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_changes_skip_no_handled_record() {
    let broker = support::broker().await;
    let session = broker.shortest_session();
    let config = || broker.config().session_timeout(session).heartbeat_interval(session / 10);
    let client = connect(config()).await;
    let topic = filled(&broker, &client, "churn", 4, 400).await;
    let (group, seen) = (broker.group("churn"), Seen::new());

    let first = watching(&client, &topic, &group, &seen).await;
    seen.until_numbers(400).await;
    let second = watching(&client, &topic, &group, &seen).await;
    let third = watching(&client, &topic, &group, &seen).await;
    produce(&client, &topic, 400..800).await;
    seen.until_numbers(800).await;

    // One dies: its partitions go to the others when its session has expired.
    third.abort().await;
    produce(&client, &topic, 800..1200).await;
    seen.until_numbers(1200).await;

    // One leaves in good order: the rest goes on at once.
    first.shutdown().await.unwrap();
    produce(&client, &topic, 1200..1600).await;
    seen.until_numbers(1600).await;
    second.shutdown().await.unwrap();

    assert_eq!(seen.values(), (0..1600).collect());
    assert_eq!(committed(&client, &group).await, 1600);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_handler_is_cancelled_at_revoke() {
    let broker = support::broker().await;
    let quick = Duration::from_secs(3);
    let config = broker.config().session_timeout(broker.shortest_session()).rebalance_timeout(quick);
    let client = connect(config.heartbeat_interval(Duration::from_millis(200))).await;
    let topic = filled(&broker, &client, "hang", 2, 20).await;
    let (group, seen) = (broker.group("hang"), Seen::new());
    let hanging = seen.clone();
    let handle = move |message: Message| {
        hanging.push(message);
        std::future::pending::<Result<(), Infallible>>()
    };
    let first = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until(|all| all.len() == 2).await;

    // Another member comes: what hangs is cut off, and what it held is handled by the new owner or begun again.
    let others = Seen::new();
    let second = watching(&client, &topic, &group, &others).await;
    others.until(|all| !all.is_empty()).await;
    first.abort().await;
    others.until_numbers(20).await;
    second.shutdown().await.unwrap();
    assert_eq!(others.values(), (0..20).collect(), "nothing of what hung was committed");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_completes_in_flight_records() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "finish", 1, 10).await;
    let (group, seen) = (broker.group("finish"), Seen::new());
    let gate = Arc::new(Semaphore::new(0));
    let (begun, open) = (seen.clone(), Arc::clone(&gate));
    let handle = move |message: Message| {
        begun.push(message);
        let open = Arc::clone(&open);
        async move { open.acquire().await.map(|permit| permit.forget()) }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until(|all| all.len() == 1).await;
    let mut shutdown = std::pin::pin!(subscription.shutdown());
    assert!(futures_util::poll!(&mut shutdown).is_pending(), "a record is in flight");
    gate.add_permits(1);
    shutdown.await.unwrap();
    assert_eq!(seen.all().len(), 1, "nothing else was begun");
    assert_eq!(committed(&client, &group).await, 1);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_cancels_at_its_deadline() {
    let broker = support::broker().await;
    let client = connect(broker.config().shutdown_timeout(Duration::from_millis(100))).await;
    let topic = filled(&broker, &client, "cut", 1, 10).await;
    let (group, seen) = (broker.group("cut"), Seen::new());
    let begun = seen.clone();
    let handle = move |message: Message| {
        let third = number(&message) == 2;
        begun.push(message);
        async move {
            if third {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(())
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until(|all| all.len() == 3).await;
    let left = subscription.shutdown().await.unwrap();
    assert_eq!(left.to_string(), format!("{topic}/0: 1 cancelled, 0 awaiting retry, 7 queued"));
    assert_eq!(committed(&client, &group).await, 2, "what ended is committed, what was cut off is not");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_shutdown_call_cancels() {
    let broker = support::broker().await;
    let client = connect(broker.config().handler_ordering(HandlerOrdering::Key)).await;
    let topic = filled(&broker, &client, "short", 1, 30).await;
    let (group, seen) = (broker.group("short"), Seen::new());
    let begun = seen.clone();
    // Key 0 fails, key 1 hangs and hears of the end, the others are done at once.
    let handle = move |message: Message| {
        let n = number(&message);
        begun.push(message.clone());
        async move {
            match n % 10 {
                0 => return Outcome::retry_after(LONG, "not today"),
                1 => {
                    message.stopping().await;
                    assert!(message.is_stopping());
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            Outcome::Done
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(26).await;
    let stats = subscription.stats();
    assert_eq!((stats.retries, stats.dead_letters), (1, 0));
    let left = subscription.run_until(async {}, async {}).await.unwrap();
    // Records 0 and 1; behind them 10, 20, 11 and 21.
    assert_eq!(left.to_string(), format!("{topic}/0: 1 cancelled, 1 awaiting retry, 4 queued"));
    assert_eq!(committed(&client, &group).await, 0, "the first record has not ended");
    assert!(Admin::new(&client).describe_group(&group).await.unwrap().members.is_empty(), "the group was left");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_dead_letter_blocks_and_shows_in_health() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let topic = filled(&broker, &client, "stuck", 1, 3).await;
    let dlq = format!("{topic}.dlq");
    Admin::new(&client).create_topic(&dlq, 1, None).await.unwrap();
    // No authorization to write to the dead-letter topic, for now.
    let blocked = dlq.clone();
    embedded.set_hook(move |request: &ailurus_broker::RequestInfo<'_>| {
        let to_dlq = request.api_key == 0 && request.body.windows(blocked.len()).any(|w| w == blocked.as_bytes());
        to_dlq.then_some(ailurus_broker::Fault::Error(29))
    });
    let (group, seen) = (broker.group("stuck"), Seen::new());
    let begun = seen.clone();
    let handle = move |message: Message| {
        let bad = number(&message) == 1;
        begun.push(message);
        async move { if bad { Err("bad") } else { Ok(()) } }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let why = tokio::time::timeout(LONG, async {
        loop {
            let health = subscription.health();
            match health.partitions.iter().find_map(|p| p.paused.clone()).filter(|p| p.contains("can't be written")) {
                Some(why) => break why,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let why = why.await.unwrap();
    assert!(why.contains(&dlq) && why.contains("offset 1") && why.contains("TopicAuthorizationFailed"), "{why}");
    assert_eq!(seen.all().len(), 2, "the record behind it waits");

    embedded.clear_hook();
    seen.until_numbers(3).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 3);
    client.close().await;
}
