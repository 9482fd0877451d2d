//! Sequence numbers: retries are written once, in order; unknown results are indeterminate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ailurus::{Acks, Client, ErrorKind, ProducerRecord, producer::TrySendError};
use ailurus_broker::{Broker, Fault};

use super::{PATIENCE, Setup, support, text};

const PRODUCE: i16 = 0;
const INIT_PRODUCER_ID: i16 = 22;

/// Spoils requests of one kind: the hook gets their number, from 0.
fn spoil(broker: &Broker, api: i16, fault: impl Fn(u32) -> Option<Fault> + Send + Sync + 'static) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    broker.set_hook(move |request| {
        (request.api_key == api).then(|| fault(counter.fetch_add(1, Ordering::SeqCst))).flatten()
    });
    count
}

/// Producer id, epoch and first sequence of a batch, and its number of records.
fn stamp(batch: &[u8]) -> (i64, i16, i32, i32) {
    let i32_at = |at: usize| i32::from_be_bytes(batch[at..at + 4].try_into().unwrap());
    let id = i64::from_be_bytes(batch[43..51].try_into().unwrap());
    (id, i16::from_be_bytes(batch[51..53].try_into().unwrap()), i32_at(53), i32_at(57))
}

/// Sends numbers to partition 0, in batches of ten, and gives those that were acknowledged, with their offsets.
async fn send_batches(s: &Setup, count: u32) -> HashMap<i64, u32> {
    let mut handles = Vec::new();
    for n in 0..count {
        let value = format!("{n:0100}");
        handles.push(s.producer.send(ProducerRecord::to(&s.topic).value(&value).partition(0)).await.unwrap());
    }
    let mut places = HashMap::new();
    for (n, handle) in (0..).zip(handles) {
        match handle.await {
            Ok(ack) => drop(places.insert(ack.offset.unwrap(), n)),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Indeterminate, "{e:?}"),
        }
    }
    places
}

/// Checks partition 0: in order, without duplicates, acknowledged records at their offsets.
async fn assert_log(s: &Setup, places: &HashMap<i64, u32>) -> usize {
    let log = s.read().await.remove(&0).unwrap();
    let numbers: Vec<u32> = log.iter().map(|r| text(&r.value).parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    for (offset, n) in places {
        assert_eq!(numbers[usize::try_from(*offset).unwrap()], *n);
    }
    numbers.len()
}

fn small_batches(c: &mut ailurus::ProducerConfig) {
    c.batch_size = 1250;
    c.linger = Duration::from_millis(50);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_a_pipeline_neither_duplicate_nor_reorder() {
    for fault in [Fault::DropResponse, Fault::Close, Fault::Error(6), Fault::Error(7), Fault::Error(20)] {
        let s = Setup::with(1, small_batches).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, PRODUCE, move |n| (n % 7 == 3).then_some(fault));
        let places = send_batches(&s, 500).await;
        assert_eq!(places.len(), 500, "{fault:?}");
        assert_eq!(assert_log(&s, &places).await, 500, "{fault:?}");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_contiguous() {
    let s = Setup::with(1, small_batches).await;
    let places = send_batches(&s, 300).await;
    assert_eq!(assert_log(&s, &places).await, 300);
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let mut next = 0;
    for batch in embedded.log_batches(&s.topic, 0).unwrap() {
        let (id, epoch, sequence, records) = stamp(&batch);
        assert!(id >= 0);
        assert_eq!((epoch, sequence), (0, next));
        next += records;
    }
    assert_eq!(next, 300);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_gap_bumps_the_epoch() {
    for code in [45, 47, 59, 90] {
        let s = Setup::with(1, small_batches).await;
        let Some(embedded) = s.broker.embedded() else { return s.close().await };
        spoil(embedded, PRODUCE, move |n| (n == 5 || n == 12).then_some(Fault::Error(code)));
        let places = send_batches(&s, 300).await;
        assert_log(&s, &places).await;
        assert!(places.len() >= 200, "{code}: {}", places.len());
        let stamps: Vec<_> = embedded.log_batches(&s.topic, 0).unwrap().iter().map(|b| stamp(b)).collect();
        assert!(stamps.iter().any(|s| s.1 > 0 || s.0 != stamps[0].0), "{code}");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loading_coordinator_is_retried_and_a_rejection_fails() {
    let broker = support::broker().await;
    let Some(embedded) = broker.embedded() else { return };
    let tries = spoil(embedded, INIT_PRODUCER_ID, |n| (n < 3).then_some(Fault::Error(14)));
    let topic = broker.topic("records");
    embedded.create_topic(&topic, 1).unwrap();
    let config = broker.config().retry_backoff(Duration::from_millis(5)).build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer().start().unwrap();
    producer.send(ProducerRecord::to(&topic).value("1")).await.unwrap().await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    producer.close(PATIENCE).await.unwrap();

    spoil(embedded, INIT_PRODUCER_ID, |_| Some(Fault::Error(31)));
    let producer = client.producer().start().unwrap();
    let error = producer.send(ProducerRecord::to(&topic).value("1")).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert!(error.to_string().contains("ProducerConfig::idempotence off"), "{error}");
    let mut without = client.config().producer.clone();
    without.idempotence = false;
    without.acks = Acks::Leader;
    let plain = client.producer().config(without).start().unwrap();
    plain.send(ProducerRecord::to(&topic).value("2")).await.unwrap().await.unwrap();
    assert_eq!(stamp(&embedded.log_batches(&topic, 0).unwrap()[1]), (-1, -1, -1, 1));
    for producer in [producer, plain] {
        producer.close(PATIENCE).await.unwrap();
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_leader_requires_idempotence_off() {
    let s = Setup::new(1).await;
    let mut config = s.client.config().producer.clone();
    config.acks = Acks::Leader;
    let error = s.client.producer().config(config).start().unwrap_err();
    assert!(error.to_string().contains("ProducerConfig::idempotence"), "{error}");
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_batch_is_split() {
    let s = Setup::with(1, |c| c.linger = Duration::from_secs(60)).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let strict = s.broker.topic("strict");
    embedded.create_topic_with(&strict, 1, &[("max.message.bytes", "1000")]).unwrap();
    let mut handles = Vec::new();
    for n in 0..50_usize {
        // One of them is too large alone.
        let value = format!("{n:0width$}", width = if n == 20 { 2000 } else { 100 });
        handles.push(s.producer.send(ProducerRecord::to(&strict).value(&value)).await.unwrap());
    }
    s.producer.flush(PATIENCE).await.unwrap();
    let mut offset = 0;
    for (n, handle) in handles.into_iter().enumerate() {
        match handle.await {
            Ok(ack) => {
                assert_eq!(ack.offset, Some(offset), "record {n}");
                offset += 1;
            }
            Err(e) => assert!(n == 20 && e.kind() == ErrorKind::RecordTooLarge, "record {n}: {e:?}"),
        }
    }
    assert_eq!(offset, 49);
    assert_eq!(s.producer.buffered_bytes(), 0);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn try_send_returns_records_that_would_wait() {
    let s = Setup::with(1, |c| {
        c.linger = Duration::from_secs(60);
        c.batch_size = 4096;
        c.max_request_size = 4096;
        c.buffer_memory = 4096;
    })
    .await;
    let value = vec![b'x'; 3000];
    let record = || ProducerRecord::to(&s.topic).value(&value).key("k");
    let first = match s.producer.try_send(record()) {
        Err(TrySendError::UnknownTopic(back)) => {
            assert_eq!(back.key.as_deref(), Some(&b"k"[..]));
            loop {
                match s.producer.try_send(record()) {
                    Ok(delivery) => break delivery,
                    Err(TrySendError::UnknownTopic(_)) => tokio::task::yield_now().await,
                    Err(e) => panic!("{e}"),
                }
            }
        }
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(s.producer.try_send(record()), Err(TrySendError::Full(back)) if back.value.as_deref() == Some(&value[..]))
    );
    let refused = s.producer.try_send(ProducerRecord::to(&s.topic).partition(7));
    assert!(matches!(refused, Err(TrySendError::Refused { error, .. }) if error.kind() == ErrorKind::InvalidRecord));
    s.producer.flush(PATIENCE).await.unwrap();
    assert_eq!(first.await.unwrap().offset, Some(0));
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn send_batch_returns_a_result_per_record() {
    let s = Setup::new(1).await;
    let (results, mut received) = tokio::sync::mpsc::unbounded_channel();
    let record = |partition| ProducerRecord::to(&s.topic).value("x").partition(partition);
    for delivery in s.producer.send_batch([record(0), record(9), record(0)]).await {
        let results = results.clone();
        match delivery {
            Ok(delivery) => delivery.on_complete(move |end| results.send(end.unwrap().offset).unwrap()),
            Err(e) => assert_eq!(e.kind(), ErrorKind::InvalidRecord),
        }
    }
    assert_eq!((received.recv().await.unwrap(), received.recv().await.unwrap()), (Some(0), Some(1)));
    s.close().await;
}
