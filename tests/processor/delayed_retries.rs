//! Delayed retries: over a restart, to the last one, beside others; and what applications add to dead letters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::health::Activity;
use ailurus::processor::{Batching, DeadLetter, ExactlyOnce, Outputs, PauseReason, WrittenDeadLetter};
use ailurus::{
    Admin, Client, ConsumerEvent, ErrorKind, HandlerOrdering, Headers, IsolationLevel, Message, Outcome,
    ProducerRecord, Record, StartOffset, TopicPartition,
};

use tokio::time::Instant;

use super::dropped::Log;
use super::ordering::until;
use super::{LONG, Seen, committed, connect, filled, number, support};

/// Returns the records of a topic, once there are `count`.
async fn read(client: &Client, topic: &str, count: usize) -> Vec<Record> {
    let from = [(TopicPartition::new(topic, 0), StartOffset::Earliest)];
    let reader = client.reader().isolation_level(IsolationLevel::ReadCommitted);
    let mut reader = reader.assign(from).await.unwrap();
    let mut all = Vec::new();
    let reading = async {
        while all.len() < count {
            if let ConsumerEvent::Records(mut records) = reader.recv().await.unwrap() {
                all.append(&mut records.records);
            }
        }
    };
    assert!(tokio::time::timeout(LONG, reading).await.is_ok(), "{} of {count} records of {topic}", all.len());
    reader.close().await.unwrap();
    all
}

async fn nothing(_: Message) {}

/// Handles nothing, until it is cancelled.
async fn never() -> Outcome {
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_retry_survives_a_restart() {
    const DELAY: Duration = Duration::from_secs(3);
    let broker = support::broker().await;
    let client = connect(broker.config().max_attempts(1_u32).delayed_retries([DELAY])).await;
    let (topic, group, seen) = (filled(&broker, &client, "late", 1, 0).await, broker.group("late"), Seen::new());
    let producer = client.producer().start().unwrap();
    let headers = Headers::new().with("h", "1");
    let record = ProducerRecord::to(&topic).key("k").value("0").headers(&headers);
    producer.send(record).await.unwrap().await.unwrap();
    producer.close(LONG).await.unwrap();

    let failed_at = Arc::new(Mutex::new(None));
    let first_failed = Arc::clone(&failed_at);
    let fail = move |message: Message| {
        let first_failed = Arc::clone(&first_failed);
        async move {
            if message.attempt > 1 {
                return never().await; // the restart came late: it is cancelled
            }
            first_failed.lock().unwrap().get_or_insert_with(Instant::now);
            Outcome::retry("down")
        }
    };
    let first = client.processor(&group).shutdown_timeout(Duration::ZERO).subscribe([&topic], fail).await.unwrap();
    until(&first, |s| s.retries == 1).await;
    first.shutdown().await.unwrap();
    assert_eq!(committed(&client, &group).await, 1, "the record waits in its retry topic");

    let handled = seen.clone();
    let handle = move |message: Message| {
        let handled = handled.clone();
        async move { handled.push(message) }
    };
    let second = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(1).await;
    assert!(failed_at.lock().unwrap().unwrap().elapsed() >= DELAY, "no sooner than it is due");
    assert!(second.shutdown().await.unwrap().is_empty());
    let all = seen.all();
    let [late] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*late.topic, late.partition, late.offset), (&*topic, 0, 0), "as it was in its topic");
    assert_eq!((late.key.as_deref(), late.value.as_deref()), (Some(&b"k"[..]), Some(&b"0"[..])));
    assert_eq!((&late.headers, late.attempt), (&headers, 2));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_delayed_retry_is_handled() {
    let broker = support::broker().await;
    let hour = Duration::from_secs(3600);
    let config = broker.config().handler_ordering(HandlerOrdering::Key).max_attempts(1_u32);
    let client = connect(config.delayed_retries([hour]).stall_timeout(Duration::from_millis(100))).await;
    let (topic, group, seen) = (filled(&broker, &client, "behind", 1, 40).await, broker.group("behind"), Seen::new());
    let retry_topic = format!("{topic}.retry.{group}.1h");
    let handled = seen.clone();
    let handle = move |message: Message| {
        let handled = handled.clone();
        async move {
            if number(&message) < 10 {
                return Err("down"); // the first of each key
            }
            handled.push(message);
            Ok(())
        }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    seen.until_numbers(30).await;
    until(&subscription, |s| s.retries == 10).await;
    read(&client, &retry_topic, 10).await;
    let caught_up = tokio::time::timeout(LONG, subscription.control().caught_up()).await;
    caught_up.expect("what is delayed does not count").unwrap();
    // It is paused, and neither busy nor stalled with what it has fetched.
    let of_retries = || subscription.health().partitions.into_iter().find(|p| p.topic == retry_topic);
    let held = async {
        while !of_retries().is_some_and(|p| p.paused_by == [PauseReason::Delay] && p.activity == Activity::Idle) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, held).await.is_ok(), "{:?}", of_retries());
    subscription.control().pause(&topic).unwrap();
    assert_eq!(of_retries().unwrap().paused_by, [PauseReason::Control, PauseReason::Delay], "with its topic");
    let left = subscription.shutdown().await.unwrap();
    assert!(left.is_empty(), "what is not due is not left over: {left}");
    assert_eq!(seen.all().len(), 30);
    assert_eq!(committed(&client, &group).await, 40);
    client.close().await;
}

#[tokio::test]
async fn records_in_retry_topics_that_are_read_no_more_are_warned_of() {
    const HOUR: Duration = Duration::from_secs(3600);
    let broker = support::broker().await;
    let config = || broker.config().max_attempts(1_u32);
    let (delayed, without) = (connect(config().delayed_retries([HOUR])).await, connect(config()).await);
    let (topic, group) = (filled(&broker, &delayed, "taken", 1, 3).await, broker.group("taken"));
    let fail = |_: Message| async { Err::<(), _>("down") };
    let subscription = delayed.processor(&group).subscribe([&topic], fail).await.unwrap();
    let retry_topic = format!("{topic}.retry.{group}.1h");
    read(&delayed, &retry_topic, 3).await;
    subscription.shutdown().await.unwrap();

    let log = Log::default();
    let logging = tracing::subscriber::set_default(log.subscriber());
    for (client, warnings) in [(&delayed, 0), (&without, 1), (&without, 2)] {
        client.processor(&group).subscribe([&topic], nothing).await.unwrap().shutdown().await.unwrap();
        let text = log.text();
        let warned = format!("records=3 topics=\"{retry_topic} (3)\"");
        assert_eq!(text.matches(&warned).count(), warnings, "{text}");
    }
    let end = BTreeMap::from([(TopicPartition::new(retry_topic.as_str(), 0), 3)]);
    Admin::new(&without).set_offsets(&group, &end).await.unwrap();
    without.processor(&group).subscribe([&topic], nothing).await.unwrap().shutdown().await.unwrap();
    assert_eq!(
        log.text().matches("records wait in retry topics").count(),
        2,
        "once they are handled there is no warning"
    );
    drop(logging);
    delayed.close().await;
    without.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_delay_a_record_is_a_dead_letter() {
    let broker = support::broker().await;
    let delays = [10, 20].map(Duration::from_millis);
    let config = broker.config().max_attempts(2_u32).handler_retry_backoff(Duration::from_millis(1));
    let client = connect(config.delayed_retries(delays)).await;
    let (topic, group, seen) = (filled(&broker, &client, "last", 1, 1).await, broker.group("last"), Seen::new());
    let attempts = seen.clone();
    let handle = move |message: Message| {
        attempts.push(message);
        async { Err::<(), _>("never") }
    };
    let subscription = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    let letters = read(&client, &format!("{topic}.dlq"), 1).await;
    until(&subscription, |s| s.dead_letters == 1).await;
    assert_eq!((subscription.stats().failed_attempts, subscription.stats().retries), (6, 5));
    subscription.shutdown().await.unwrap();
    let letter = DeadLetter::parse(&letters[0].headers).unwrap();
    assert_eq!((&*letter.origin.topic, letter.origin.offset, letter.attempts), (&*topic, 0, 6));
    assert_eq!(letter.headers, Headers::new(), "nothing of its retries");
    assert!(letter.first_failure < letter.last_failure, "{letter:?}");
    let numbers: Vec<_> = seen.all().iter().map(|m| (m.topic.to_string(), m.attempt)).collect();
    assert_eq!(numbers, (1..=6).map(|attempt| (topic.clone(), attempt)).collect::<Vec<_>>());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_batch_are_delayed_one_by_one() {
    let broker = support::broker().await;
    let config = broker.config().max_attempts(1_u32).delayed_retries([Duration::from_millis(20)]);
    let client = connect(config.handler_ordering(HandlerOrdering::Unordered)).await;
    let (topic, group, seen) = (filled(&broker, &client, "batch", 1, 40).await, broker.group("batch"), Seen::new());
    let handled = seen.clone();
    let handle = move |batch: Vec<Message>| {
        let outcomes: Vec<_> = batch
            .into_iter()
            .map(|message| {
                if number(&message) % 4 == 0 && message.attempt == 1 {
                    return Outcome::retry("down");
                }
                handled.push(message);
                Outcome::Done
            })
            .collect();
        async move { outcomes }
    };
    let batching = Batching::new(8, Duration::from_millis(5));
    let subscription = client.processor(&group).subscribe_batches([&topic], batching, handle).await.unwrap();
    seen.until_numbers(40).await;
    until(&subscription, |s| s.retries == 10).await;
    assert!(subscription.shutdown().await.unwrap().is_empty());
    let late: Vec<_> = seen.all().into_iter().filter(|m| m.attempt == 2).collect();
    assert_eq!((seen.all().len(), late.len()), (40, 10));
    assert!(late.iter().all(|m| *m.topic == *topic && number(m) % 4 == 0));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_retry_of_a_pipeline_has_outputs_once() {
    let broker = support::broker().await;
    let config = broker.config().max_attempts(1_u32).delayed_retries([Duration::from_millis(20)]);
    let client = connect(config.handler_ordering(HandlerOrdering::Key)).await;
    let (topic, group) = (filled(&broker, &client, "once", 1, 20).await, broker.group("once"));
    let output = broker.topic("output");
    Admin::new(&client).create_topic(&output, 1, None).await.unwrap();
    let to = output.clone();
    let handle = move |message: Message| {
        let to = to.clone();
        async move {
            if number(&message) % 2 == 0 && message.attempt == 1 {
                return Err("down");
            }
            Ok(Outputs::new().send(ProducerRecord::to(to).value(message.offset.to_string())))
        }
    };
    let pipeline = client.processor(&group).exactly_once(ExactlyOnce::new());
    let subscription = pipeline.subscribe([&topic], handle).await.unwrap();
    let outputs = read(&client, &output, 20).await;
    subscription.shutdown().await.unwrap();
    let mut offsets: Vec<i64> =
        outputs.iter().map(|r| std::str::from_utf8(r.value.as_deref().unwrap()).unwrap().parse().unwrap()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..20).collect::<Vec<_>>());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_no_topic_can_name_has_no_delayed_retries() {
    let broker = support::broker().await;
    let client = connect(broker.config().delayed_retries([LONG])).await;
    let topic = filled(&broker, &client, "unnamed", 1, 0).await;
    let e = client.processor("mine/yours").subscribe([&topic], nothing).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    let dlq = format!("{topic}.dlq");
    let e = client.processor(broker.group("loop").as_str()).subscribe([&topic, &dlq], nothing).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.to_string().contains("reads both"), "{e}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_to_its_chosen_topic_and_the_hook_is_called() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let (topic, group) = (filled(&broker, &client, "chosen", 1, 5).await, broker.group("chosen"));
    let chosen = broker.topic("other.dlq");
    let written = Arc::new(Mutex::new(Vec::<WrittenDeadLetter>::new()));
    let (hooked, names) = (Arc::clone(&written), (topic.clone(), chosen.clone()));
    let processor = client
        .processor(&group)
        .dead_letter_topic(move |record, error| {
            assert_eq!(error.to_string(), "refused");
            match number(record) {
                0 => Some(names.1.clone()),
                1 => Some(names.0.clone()), // the subscription reads it
                2 => Some("no/name".to_owned()),
                3 => panic!("a fault of the application"),
                _ => None,
            }
        })
        .on_dead_letter(move |letter| {
            hooked.lock().unwrap().push(letter);
            async { panic!("another one") }
        });
    let refuse = |_: Message| async { Outcome::dead_letter("refused") };
    let subscription = processor.subscribe([&topic], refuse).await.unwrap();
    let default = format!("{topic}.dlq");
    let in_default = read(&client, &default, 4).await;
    let in_chosen = read(&client, &chosen, 1).await;
    until(&subscription, |s| s.dead_letters == 5).await;
    subscription.shutdown().await.unwrap();
    assert_eq!((in_default.len(), in_chosen.len()), (4, 1));
    let written = written.lock().unwrap().clone();
    let places: Vec<_> = written.iter().map(|w| (w.message.offset, w.topic.clone(), w.partition, w.offset)).collect();
    let expected = |n: i64| match n {
        0 => (0, chosen.clone(), Some(0), Some(0)),
        n => (n, default.clone(), Some(0), Some(n - 1)),
    };
    assert_eq!(places, (0..5).map(expected).collect::<Vec<_>>());
    assert!(written.iter().all(|w| w.letter.error == "refused"));
    client.close().await;
}
