//! Partitions chosen by each partitioner, also when a topic grows.

use std::collections::BTreeSet;
use std::time::Duration;

use ailurus::producer::{PartitionInput, Partitioner, TrySendError};
use ailurus::{Admin, ErrorKind, Headers, PartitionerKind, ProducerConfig, ProducerRecord};

use super::{PATIENCE, Setup, support, text};

/// The lines of a file of vectors that begin with `first`, without it: fields, of which the first is a key in hex.
fn vectors(text: &'static str, first: &str) -> Vec<(Vec<u8>, Vec<&'static str>)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(first)).filter(|l| !l.starts_with(['#', '-', 'n']));
    let vectors: Vec<_> = lines
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let hex = fields[0];
            let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            ((0..hex.len()).step_by(2).map(byte).collect(), fields)
        })
        .collect();
    assert!(vectors.len() > 100);
    vectors
}

const JAVA: &str = include_str!("../vectors/murmur2.txt");
const LIBRDKAFKA: &str = include_str!("../vectors/librdkafka.txt");

impl Setup {
    /// Sends a record and returns its partition.
    async fn sent(&self, record: ProducerRecord<'_>) -> i32 {
        self.producer.send(record).await.unwrap().await.unwrap().partition
    }

    /// Waits until each of so many partitions has a leader.
    async fn led(&self, partitions: i32) {
        for partition in 0..partitions {
            self.sent(ProducerRecord::to(&self.topic).partition(partition).value("9999")).await;
        }
    }

    async fn send_all(&self, keys: &[(Vec<u8>, Vec<&str>)]) -> Vec<i32> {
        let mut handles = Vec::new();
        for (key, _) in keys {
            handles.push(self.producer.send(ProducerRecord::to(&self.topic).key(key)).await.unwrap());
        }
        let mut partitions = Vec::new();
        for handle in handles {
            partitions.push(handle.await.unwrap().partition);
        }
        partitions
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_matches_kafkas_java_producer() {
    let s = Setup::new(12).await;
    let keys = vectors(JAVA, "");
    for (partition, (_, fields)) in s.send_all(&keys).await.into_iter().zip(&keys) {
        assert_eq!(partition.to_string(), fields[6], "{fields:?}");
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consistent_random_matches_librdkafka() {
    let s = Setup::with(13, |c| c.partitioner = PartitionerKind::ConsistentRandom).await;
    let keys = vectors(LIBRDKAFKA, "consistent_random ");
    for (partition, (_, fields)) in s.send_all(&keys).await.into_iter().zip(&keys) {
        assert_eq!(partition.to_string(), fields[7], "{fields:?}");
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sticky_changes_with_each_batch() {
    let s = Setup::with(6, |c| {
        c.linger = Duration::from_secs(60);
        c.adaptive_partitioning = false;
    })
    .await;
    let mut before = None;
    for _ in 0..5 {
        let mut handles = Vec::new();
        for _ in 0..20 {
            handles.push(s.producer.send(ProducerRecord::to(&s.topic).value("x")).await.unwrap());
        }
        let partition = handles[0].partition();
        assert!(handles.iter().all(|h| h.partition() == partition));
        assert_ne!(before, Some(partition), "another batch, another partition");
        before = Some(partition);
        s.producer.flush(PATIENCE).await.unwrap();
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adaptive_sticky_changes_by_bytes() {
    for partitioner in [PartitionerKind::Murmur2, PartitionerKind::ConsistentRandom] {
        let keys: &[Option<&[u8]>] = if partitioner == PartitionerKind::Murmur2 { &[None] } else { &[None, Some(b"")] };
        let s = Setup::with(3, |c| {
            c.batch_size = 1024;
            c.partitioner = partitioner;
        })
        .await;
        let mut runs: Vec<(i32, usize)> = Vec::new();
        let all = async {
            while runs.iter().map(|(p, _)| *p).collect::<BTreeSet<_>>().len() < 3 {
                for key in keys {
                    let mut record = ProducerRecord::to(&s.topic).value(&[b'x'; 40]);
                    record.key = key.map(Into::into);
                    // Each is a batch.
                    let partition = s.sent(record).await;
                    match runs.last_mut() {
                        Some((last, n)) if *last == partition => *n += 1,
                        _ => runs.push((partition, 1)),
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("it goes to all partitions");
        runs.pop();
        assert!(runs.iter().all(|(_, n)| *n > 10), "it did not stay: {runs:?}");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_ignores_keys() {
    let s = Setup::with(3, |c| c.partitioner = PartitionerKind::RoundRobin).await;
    s.led(3).await;
    let mut partitions = Vec::new();
    for n in 0..30 {
        let record = ProducerRecord::to(&s.topic).value("x");
        partitions.push(s.sent(if n % 2 == 0 { record.key("the same") } else { record }).await);
    }
    for three in partitions.windows(3) {
        assert_eq!(three.iter().collect::<BTreeSet<_>>().len(), 3, "{partitions:?}");
    }
    assert_eq!(s.sent(ProducerRecord::to(&s.topic).partition(1)).await, 1);
    s.close().await;
}

/// Chooses the partition in the record's header or value: a number, nothing for any, or anything else to panic.
#[derive(Debug)]
struct ByContent;

impl Partitioner for ByContent {
    fn partition(&self, record: &PartitionInput<'_>) -> Option<i32> {
        assert!(record.topic.ends_with("records") && record.key == Some(b"key"));
        assert_eq!((record.partitions, record.available), (3, &[0, 1, 2][..]));
        let header = record.headers.and_then(|h| h.get("partition"));
        let number = std::str::from_utf8(header.or(record.value)?).unwrap();
        Some(number.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_partitioner_may_fail_the_record() {
    let s = Setup::with(3, |c| c.partitioner = PartitionerKind::custom(ByContent)).await;
    s.led(3).await;
    let record = || ProducerRecord::to(&s.topic).key("key");
    for partition in [2, 0, 1, 2] {
        assert_eq!(s.sent(record().value(partition.to_string())).await, partition);
    }
    assert_eq!(s.sent(record().value("0").partition(1)).await, 1, "it is not called");
    assert_eq!(s.sent(record().value("0").headers(Headers::new().with("partition", "2"))).await, 2);
    assert!((0..3).contains(&s.sent(record()).await), "any will do");
    for value in ["3", "-1"] {
        let wrong = record().value(value);
        let error = s.producer.send(wrong.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
        let text = format!("chose partition {value} for a record of topic {:?}, which has 3, from 0 to 2", s.topic);
        assert!(error.to_string().contains(&text), "{error}");
        let Err(TrySendError::Refused { error, .. }) = s.producer.try_send(wrong.clone()) else {
            panic!("it is taken")
        };
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
    }
    let (producer, topic) = (s.producer.clone(), s.topic.clone());
    let panics = async move { producer.send(ProducerRecord::to(&topic).key("key").value("x")).await };
    assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
    assert_eq!(s.producer.buffered_bytes(), 0, "what is refused takes no space");
    let outcomes = s.producer.send_batch([record().value("2"), record().value("9"), record().value("2")]).await;
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok());
    s.producer.flush(PATIENCE).await.unwrap();
    let log = s.read().await;
    let values: BTreeSet<_> = log.values().flatten().filter(|r| r.value.is_some()).map(|r| text(&r.value)).collect();
    assert_eq!(values, BTreeSet::from(["0", "1", "2", "9999"]));
    let topic = s.topic.clone();
    let after = s.producer.clone();
    s.close().await;
    assert!(after.send(ProducerRecord::to(&topic).key("key").value("0")).await.unwrap_err().is_closed());
}

/// Looks at how many partitions there are.
#[derive(Debug)]
struct Last;

impl Partitioner for Last {
    fn partition(&self, record: &PartitionInput<'_>) -> Option<i32> {
        record.available.last().copied()
    }
}

/// A topic of 2 partitions that has 5 after the first record.
async fn grown(change: impl FnOnce(&mut ProducerConfig)) -> Setup {
    let often = |c: ailurus::ConfigBuilder| c.metadata_max_age(Duration::from_millis(100));
    let s = Setup::on(support::broker().await, 2, often, change).await;
    assert!(s.sent(ProducerRecord::to(&s.topic)).await < 2);
    Admin::new(&s.client).create_partitions(&s.topic, 5).await.unwrap();
    s
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_use_new_partitions() {
    for (kind, name) in
        [(PartitionerKind::Murmur2, "murmur2_random "), (PartitionerKind::ConsistentRandom, "consistent_random ")]
    {
        let s = grown(|c| c.partitioner = kind).await;
        let keys = vectors(LIBRDKAFKA, name);
        let among = |n: usize| keys.iter().map(|(_, fields)| fields[n].parse().unwrap()).collect::<Vec<i32>>();
        let (among_2, among_5) = (among(2), among(4));
        let all = async {
            loop {
                let sent = s.send_all(&keys).await;
                for (n, partition) in sent.iter().enumerate() {
                    assert!([among_2[n], among_5[n]].contains(partition), "{partition} for {:?}", keys[n]);
                }
                if sent == among_5 {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("all partitions are used");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keyless_records_use_new_partitions() {
    let kinds = [
        (PartitionerKind::Murmur2, true),
        (PartitionerKind::ConsistentRandom, false),
        (PartitionerKind::RoundRobin, true),
    ];
    for (kind, adaptive) in kinds {
        let s = grown(|c| {
            c.batch_size = 1024;
            c.partitioner = kind;
            c.adaptive_partitioning = adaptive;
        })
        .await;
        let mut used = BTreeSet::new();
        let all = async {
            while used.len() < 5 {
                used.insert(s.sent(ProducerRecord::to(&s.topic).value(&[b'x'; 500])).await);
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("all partitions are used");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_partitioner_sees_new_partitions() {
    let s = grown(|c| c.partitioner = PartitionerKind::custom(Last)).await;
    let last = async { while s.sent(ProducerRecord::to(&s.topic)).await < 4 {} };
    tokio::time::timeout(PATIENCE, last).await.expect("the last partition is used");
    s.close().await;
}
