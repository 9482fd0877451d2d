//! Dead letters: what they keep, what they say, and that nothing is committed without them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::admin::{ConfigResource, NewTopic};
use ailurus::processor::{Batching, DeadLetter, Truncation};
use ailurus::{
    Admin, Client, ConfigBuilder, ConsumerEvent, Headers, Message, ProducerRecord, Record, StartOffset, Timestamp,
    TopicPartition,
};
use ailurus_broker::Fault;
use ailurus_test_support::{self as support, TestBroker};

const PRODUCE: i16 = 0;
const CREATE_TOPICS: i16 = 19;
const DESCRIBE_CONFIGS: i16 = 32;
const LONG: Duration = Duration::from_secs(300);

async fn connect(config: ConfigBuilder) -> Client {
    Client::connect(config.build().unwrap()).await.unwrap()
}

async fn topic(broker: &TestBroker, client: &Client, name: &str) -> String {
    let topic = broker.topic(name);
    support::create_topic(client, &topic, 1).await.unwrap();
    topic
}

async fn send(client: &Client, record: ProducerRecord<'_>) -> i64 {
    let producer = client.producer().start().unwrap();
    let ack = producer.send(record).await.unwrap().await.unwrap();
    producer.close(LONG).await.unwrap();
    ack.offset.unwrap()
}

/// All records of a topic, once there are `count`.
async fn read(client: &Client, topic: &str, count: usize) -> Vec<Record> {
    let partitions = Admin::new(client).describe_topic(topic).await.unwrap().partitions.len();
    let from = (0..partitions).map(|p| (TopicPartition::new(topic, p as i32), StartOffset::Earliest));
    let mut consumer = client.reader().assign(from).await.unwrap();
    let mut all = Vec::new();
    let reading = async {
        while all.len() < count {
            if let ConsumerEvent::Records(mut r) = consumer.recv().await.unwrap() {
                all.append(&mut r.records);
            }
        }
    };
    assert!(tokio::time::timeout(LONG, reading).await.is_ok(), "{} of {count} records of {topic}", all.len());
    consumer.close().await.unwrap();
    all
}

async fn committed(client: &Client, group: &str) -> Option<i64> {
    let described = Admin::new(client).describe_group(group).await.unwrap();
    described.offsets.first().and_then(|o| o.committed)
}

fn refuse(_: Message) -> impl Future<Output = Result<(), &'static str>> {
    std::future::ready(Err("refused"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_the_record_and_its_origin() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(2_u32).retry_backoff(Duration::from_millis(1))).await;
    let topic = topic(&broker, &client, "orders").await;
    let mut headers = Headers::new().with("h", "1").with("traceparent", "00-a-b-01").with("h", "2").with("h", "1");
    headers.push("null", None);
    headers.push("", Some(b""));
    let record = ProducerRecord::to(&topic)
        .key("k")
        .value(b"\xff\x00")
        .headers(&headers)
        .timestamp(Timestamp::from_millis(1_234_567));
    send(&client, ProducerRecord::to(&topic).value("before")).await;
    let offset = send(&client, record).await;
    let tombstone = send(&client, ProducerRecord::to(&topic).key("gone")).await;

    let group = broker.group("billing");
    let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
    let letters = read(&client, &format!("{topic}.dlq"), 3).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, Some(3));

    let record = letters.iter().find(|r| r.key.as_deref() == Some(b"k")).unwrap();
    assert_eq!(record.value.as_deref(), Some(&b"\xff\x00"[..]));
    assert!(record.timestamp.as_millis() > 1_234_567, "it is as old as its writing, not as its record");
    let letter = DeadLetter::parse(&record.headers).unwrap();
    assert_eq!(letter.headers, headers, "in order, with duplicates and nulls");
    assert_eq!((letter.error.as_str(), letter.attempts, letter.truncation), ("refused", 2, Truncation::Nothing));
    let origin = &letter.origin;
    assert_eq!((origin.topic.as_str(), origin.partition, origin.offset), (topic.as_str(), 0, offset));
    assert_eq!(
        (origin.timestamp.map(Timestamp::as_millis), origin.group.as_deref()),
        (Some(1_234_567), Some(group.as_str()))
    );
    assert!(letter.first_failure.is_some() && letter.first_failure <= letter.last_failure);

    let record = letters.iter().find(|r| r.key.as_deref() == Some(b"gone")).unwrap();
    assert_eq!(record.value, None, "a tombstone stays one");
    let letter = DeadLetter::parse(&record.headers).unwrap();
    assert_eq!((letter.origin.offset, letter.truncation), (tombstone, Truncation::Nothing));
    client.close().await;
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn setting(client: &Client, topic: &str, name: &str) -> String {
    let all = Admin::new(client).describe_configs(&ConfigResource::Topic(topic.to_owned())).await.unwrap();
    all.into_iter().find(|c| c.name == name).and_then(|c| c.value).unwrap()
}

async fn create(client: &Client, topic: &str, max_message_bytes: &str) {
    let new = NewTopic::new(topic).partitions(1).config("max.message.bytes", max_message_bytes);
    Admin::new(client).create_topic_with(&new).await.unwrap();
}

/// A topic of large records is all that the member with the default settings knows of their size.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letter_of_a_large_record_is_complete() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let (one, many) = (broker.topic("one"), broker.topic("many"));
    let value = noise(2_000_000);
    let writer = connect(broker.config().max_request_size(4_000_000_usize)).await;
    for topic in [&one, &many] {
        create(&client, topic, "5000000").await;
        send(&writer, ProducerRecord::to(topic).key("k").value(&value)).await;
    }
    let group = broker.group("large");
    let each = client.processor(&group).subscribe([&one], refuse).await.unwrap();
    let refuse_all = |_: Vec<Message>| std::future::ready(Err::<(), _>("refused"));
    let batching = Batching::new(10, Duration::from_millis(1));
    let (topics, group) = ([many.as_str()], broker.group("batches"));
    let batches = client.processor(&group).subscribe_batches(topics, batching, refuse_all).await.unwrap();
    for topic in [&one, &many] {
        let letter = read(&client, &format!("{topic}.dlq"), 1).await.remove(0);
        assert_eq!(letter.value.as_deref(), Some(&value[..]));
        assert_eq!(DeadLetter::parse(&letter.headers).unwrap().truncation, Truncation::Nothing);
        let limit: u64 = setting(&client, &format!("{topic}.dlq"), "max.message.bytes").await.parse().unwrap();
        assert!(limit >= 5_000_000 + 4096, "{limit}");
    }
    each.shutdown().await.unwrap();
    batches.shutdown().await.unwrap();
    writer.close().await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_too_large_for_its_topic_is_compressed() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let topic = topic(&broker, &client, "text").await;
    let dlq = format!("{topic}.dlq");
    create(&client, &dlq, "20000").await;
    let value = "a line of text\n".repeat(10_000);
    send(&client, ProducerRecord::to(&topic).value(&value)).await;
    // The member may not be allowed to see the limit.
    for (group, may_look) in [("looks", true), ("looks-not", false)] {
        if let Some(embedded) = broker.embedded().filter(|_| !may_look) {
            embedded.set_hook(|r| (r.api_key == DESCRIBE_CONFIGS).then_some(Fault::Error(29)));
        }
        let group = broker.group(group);
        let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
        let letters = read(&client, &dlq, if may_look { 1 } else { 2 }).await;
        subscription.shutdown().await.unwrap();
        let last = letters.last().unwrap();
        assert_eq!(last.value.as_deref(), Some(value.as_bytes()));
        let letter = DeadLetter::parse(&last.headers).unwrap();
        assert_eq!((letter.truncation, letter.origin.group), (Truncation::Nothing, Some(group)));
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_dead_letter_topic_is_created_again() {
    let broker = support::broker().await;
    let config = broker.config().max_attempts(1_u32);
    let client = connect(config).await;
    let admin = Admin::new(&client);
    let topic = broker.topic("deleted");
    let dlq = format!("{topic}.dlq");
    let new = NewTopic::new(&topic).partitions(3).config("max.message.bytes", "3000000");
    admin.create_topic_with(&new).await.unwrap();
    let subscription = client.processor(broker.group("deleted")).subscribe([&topic], refuse).await.unwrap();

    send(&client, ProducerRecord::to(&topic).value("before")).await;
    assert_eq!(read(&client, &dlq, 1).await[0].value.as_deref(), Some(&b"before"[..]));
    for (round, letters) in [("once", 4), ("and again", 7)] {
        admin.delete_topic(&dlq).await.unwrap();
        // Each waits for the topic: one of them creates it.
        for partition in 0..3 {
            send(&client, ProducerRecord::to(&topic).partition(partition).value(round)).await;
        }
        let written = async {
            while subscription.stats().dead_letters < letters {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(LONG, written).await.is_ok(), "{:?}", subscription.stats());
    }
    let letters = read(&client, &dlq, 3).await;
    assert!(letters.iter().all(|l| l.value.as_deref() == Some(b"and again")), "{letters:?}");
    assert_eq!(admin.describe_topic(&dlq).await.unwrap().partitions.len(), 3);
    let limit: u64 = setting(&client, &dlq, "max.message.bytes").await.parse().unwrap();
    assert!(limit > 3_000_000, "{limit}");
    assert_eq!(setting(&client, &dlq, "retention.ms").await, "-1");
    subscription.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_retained_unless_a_retention_is_set() {
    let broker = support::broker().await;
    let day = Duration::from_secs(86_400);
    for (name, retention, expected) in [("good", None, "-1"), ("day", Some(day), "86400000")] {
        let client = connect(broker.config().dead_letter_retention(retention)).await;
        let topic = topic(&broker, &client, name).await;
        let subscription = client.processor(broker.group(name)).subscribe([&topic], refuse).await.unwrap();
        let dlq = format!("{topic}.dlq");
        assert_eq!(setting(&client, &dlq, "retention.ms").await, expected);
        assert_eq!(setting(&client, &dlq, "retention.bytes").await, "-1");
        assert_eq!(setting(&client, &dlq, "cleanup.policy").await, "delete");
        subscription.shutdown().await.unwrap();
        client.close().await;
    }
}

/// Clusters have policies: what they refuse is no reason not to handle records.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_is_created_within_the_cluster_policy() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let topic = topic(&broker, &client, "policy").await;
    send(&client, ProducerRecord::to(&topic).value("v")).await;
    embedded.set_hook(|r| {
        let names = |name: &str| r.body.windows(name.len()).any(|w| w == name.as_bytes());
        (r.api_key == CREATE_TOPICS && names("retention.ms")).then_some(Fault::Error(44))
    });
    let group = broker.group("policy");
    let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
    assert_eq!(read(&client, &format!("{topic}.dlq"), 1).await.len(), 1);
    subscription.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_dead_letter_is_truncated() {
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let topic = topic(&broker, &client, "large").await;
    create(&client, &format!("{topic}.dlq"), "4096").await;
    let large = noise(20_000);
    let (few, many) = (Headers::new().with("h", "1"), Headers::new().with("h", &large));
    for record in [
        ProducerRecord::to(&topic).key("value").value(&large).headers(&few),
        ProducerRecord::to(&topic).key("headers").value("v").headers(&many),
        ProducerRecord::to(&topic).key(&large).value("v").headers(&few),
        ProducerRecord::to(&topic).key("small").value("v").headers(&few),
    ] {
        send(&client, record).await;
    }
    let group = broker.group("large");
    let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
    let letters = read(&client, &format!("{topic}.dlq"), 4).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, Some(4));

    let seen: Vec<_> = letters
        .iter()
        .map(|r| {
            let letter = DeadLetter::parse(&r.headers).unwrap();
            let key = r.key.as_deref().map(|k| std::str::from_utf8(k).unwrap());
            (letter.origin.offset, key, r.value.is_some(), letter.headers.len(), letter.truncation)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0, Some("value"), false, 1, Truncation::Value),
            (1, Some("headers"), false, 0, Truncation::ValueAndHeaders),
            (2, None, false, 0, Truncation::ValueHeadersAndKey),
            (3, Some("small"), true, 1, Truncation::Nothing),
        ]
    );
    assert_eq!(letters[0].headers.get_str("dlq-left-out"), Some("value"));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_commit_before_the_dead_letter_is_acknowledged() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let client = connect(broker.config().max_attempts(1_u32)).await;
    let topic = topic(&broker, &client, "ack").await;
    for value in ["good", "bad", "good"] {
        send(&client, ProducerRecord::to(&topic).value(value)).await;
    }
    let dlq = format!("{topic}.dlq");
    Admin::new(&client).create_topic(&dlq, 1, None).await.unwrap();
    // Each write of a dead letter is refused, and counted.
    let (refused, mut refusals) = tokio::sync::watch::channel(0);
    let name = dlq.clone();
    embedded.set_hook(move |request: &ailurus_broker::RequestInfo<'_>| {
        let to_dlq = request.api_key == 0 && request.body.windows(name.len()).any(|w| w == name.as_bytes());
        to_dlq.then(|| {
            refused.send_modify(|n| *n += 1);
            ailurus_broker::Fault::Error(29)
        })
    });
    let group = broker.group("ack");
    let handle =
        |message: Message| async move { if message.value.as_deref() == Some(b"bad") { Err("bad") } else { Ok(()) } };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let some = tokio::time::timeout(LONG, refusals.wait_for(|n| *n >= 3)).await;
    assert!(some.is_ok_and(|n| n.is_ok()), "the letter was tried {} times", *refusals.borrow());
    let before = tokio::time::timeout(LONG, async {
        while committed(&client, &group).await.is_none() {
            tokio::task::yield_now().await;
        }
    });
    assert!(before.await.is_ok(), "the record before it is committed");
    assert_eq!(committed(&client, &group).await, Some(1));

    embedded.clear_hook();
    let letters = read(&client, &dlq, 1).await;
    assert_eq!(letters.len(), 1);
    subscription.shutdown().await.unwrap();
    let ended = committed(&client, &group).await;
    assert!(matches!(ended, Some(2 | 3)), "{ended:?}: the shutdown may come before the record behind it");
    client.close().await;
}

/// Log lines of all tests of this binary: a subscriber of one thread misses what others log first.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN);
        tracing::subscriber::set_global_default(lines.with_writer(move || writer.clone()).finish()).unwrap();
        log
    }

    /// Those that name this.
    fn lines(&self, name: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|l| l.contains(name)).map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_record_and_dead_letter() {
    let log = Log::begin();
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(2_u32).retry_backoff(Duration::from_millis(1))).await;
    let topic = topic(&broker, &client, "words").await;
    let dlq = format!("{topic}.dlq");
    create(&client, &dlq, "1000000").await;
    send(&client, ProducerRecord::to(&dlq).value("older")).await;
    send(&client, ProducerRecord::to(&topic).key("k\n1").value("v")).await;
    if let Some(embedded) = broker.embedded() {
        let (name, refusals) = (dlq.clone(), AtomicU32::new(3));
        embedded.set_hook(move |r| {
            let to_dlq = r.api_key == PRODUCE && r.body.windows(name.len()).any(|w| w == name.as_bytes());
            let refuse = to_dlq && refusals.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
            refuse.then_some(Fault::Error(29))
        });
    }
    let group = broker.group("words");
    let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
    read(&client, &dlq, 2).await;
    subscription.shutdown().await.unwrap();
    client.close().await;

    let lines = log.lines(&topic);
    let logged: Vec<_> = lines.iter().filter(|l| l.contains("ERROR") && l.contains("for the last time")).collect();
    let [last] = &logged[..] else { panic!("{lines:#?}") };
    for part in [
        format!("record={topic}/0@0"),
        format!("group={group}"),
        r#"key="k\\n1""#.to_owned(),
        "attempts=2".to_owned(),
        format!("dead_letter=\"{dlq}/0@1\""),
        "error=refused".to_owned(),
    ] {
        assert!(last.contains(&part), "{part} is not in {last}");
    }
    let unwritten = lines.iter().filter(|l| l.contains("can't be written")).count();
    assert_eq!(unwritten, usize::from(broker.embedded().is_some()), "logged once and not at each attempt: {lines:#?}");
    let kept = lines.iter().filter(|l| l.contains("deletes records after 7 days")).count();
    assert_eq!(kept, 1, "{lines:#?}");
}

/// The partitions of a topic's dead letters are as many as its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_has_the_origin_partitions_and_limits() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let admin = Admin::new(&client);
    let topic = broker.topic("wide");
    admin.create_topic(&topic, 5, None).await.unwrap();
    let group = broker.group("wide");
    let subscription = client.processor(&group).subscribe([&topic], refuse).await.unwrap();
    let created = admin.describe_topic(&format!("{topic}.dlq")).await.unwrap();
    let partitions: BTreeSet<_> = created.partitions.iter().map(|p| p.partition).collect();
    assert_eq!(partitions, (0..5).collect());
    subscription.shutdown().await.unwrap();
    client.close().await;
}
