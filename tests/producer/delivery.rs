//! Partitions of records and contents of the log.

use std::collections::HashMap;
use std::time::Duration;

use ailurus::admin::NewTopic;
use ailurus::{Admin, Compression, ErrorKind, Headers, ProducerRecord, Timestamp};

use ailurus_broker::Fault;

use super::{PATIENCE, Setup, numbers, text};

const PRODUCE: i16 = 0;
const INVALID_RECORD: i16 = 87;

#[tokio::test(flavor = "multi_thread")]
async fn owned_records_are_sent_from_another_task() {
    let s = Setup::new(1).await;
    let headers = Headers::new().with("trace", "1");
    let record = |n: i32| {
        let record = ProducerRecord::to(s.topic.clone()).key(format!("key {n}")).headers(headers.clone());
        match n % 3 {
            0 => record.value(n.to_string()),
            1 => record.value(n.to_string().into_bytes()),
            _ => record.value(n.to_string().as_str()).into_owned(),
        }
    };
    let records: Vec<ProducerRecord<'static>> = (0..30).map(record).collect();
    let producer = s.producer.clone();
    let sent = tokio::spawn(async move { producer.send_batch(records).await });
    for delivery in sent.await.unwrap() {
        delivery.unwrap().await.unwrap();
    }
    let read = s.read().await.remove(&0).unwrap();
    let pairs: Vec<_> = read.iter().map(|r| format!("{}: {}", text(&r.key), text(&r.value))).collect();
    assert_eq!(pairs, (0..30).map(|n| format!("key {n}: {n}")).collect::<Vec<_>>());
    assert!(read.iter().all(|r| r.headers == headers));
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_have_offsets_in_key_order() {
    let s = Setup::new(4).await;
    let mut handles = Vec::new();
    for n in 0..2000 {
        let (key, value) = (format!("key-{}", n % 7), n.to_string());
        handles.push(s.producer.send(ProducerRecord::to(&s.topic).key(&key).value(&value)).await.unwrap());
    }
    let mut places = HashMap::new();
    for (n, handle) in handles.into_iter().enumerate() {
        let ack = handle.await.unwrap();
        assert_eq!(*ack.topic, *s.topic);
        places.insert((ack.partition, ack.offset.unwrap()), n);
    }
    assert_eq!(places.len(), 2000);
    assert_eq!(s.producer.buffered_bytes(), 0);

    let mut homes = HashMap::new();
    let mut last = HashMap::new();
    for (partition, records) in s.read().await {
        for record in records {
            let n: usize = text(&record.value).parse().unwrap();
            let key = text(&record.key).to_owned();
            assert_eq!(places.remove(&(partition, record.offset)), Some(n));
            assert_eq!(*homes.entry(key.clone()).or_insert(partition), partition, "a key has one partition");
            let before = last.insert(key, n);
            assert!(before < Some(n), "{n} came after {before:?}");
        }
    }
    assert!(places.is_empty());
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_can_be_chosen_and_must_exist() {
    let s = Setup::new(3).await;
    for partition in [2, 0, 1] {
        let record = ProducerRecord::to(&s.topic).key("the same").value("x").partition(partition);
        assert_eq!(s.producer.send(record).await.unwrap().await.unwrap().partition, partition);
    }
    for partition in [3, -1] {
        let record = ProducerRecord::to(&s.topic).value("x").partition(partition);
        let error = s.producer.send(record).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
        assert!(error.to_string().contains("has 3, from 0 to 2"), "{error}");
    }
    let error = s.producer.send(ProducerRecord::to(&s.topic).timestamp(Timestamp::from_millis(-5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRecord);
    assert_eq!(s.producer.buffered_bytes(), 0, "what is refused takes no space");
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_round_trip() {
    let gzip = Compression::gzip(6).unwrap();
    for compression in [Compression::None, gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let s = Setup::with(1, |c| c.compression = compression).await;
        let mut headers = Headers::new().with("trace", "1").with("trace", "2").with("empty", "");
        headers.push("null", None);
        let long = "compressible ".repeat(1000);
        let sent_at = Timestamp::from_millis(1_700_000_000_000);
        let to = || ProducerRecord::to(&s.topic);
        let records = [
            to().key("k").value("v").headers(&headers).timestamp(sent_at),
            to().key("tombstone"),
            to().value("no key"),
            to().key("").value(""),
            to().key("long").value(&long),
        ];
        let mut handles = Vec::new();
        for record in &records {
            handles.push(s.producer.send(record.as_borrowed()).await.unwrap());
        }
        let now = Timestamp::now();
        let mut timestamps = Vec::new();
        for handle in handles {
            timestamps.push(handle.await.unwrap().timestamp);
        }
        let read = s.read().await.remove(&0).unwrap();
        assert_eq!(read.len(), records.len());
        for (read, sent) in read.iter().zip(&records) {
            assert_eq!((read.key.as_deref(), read.value.as_deref()), (sent.key.as_deref(), sent.value.as_deref()));
            assert_eq!(&read.headers, sent.headers.as_deref().unwrap_or(&Headers::new()));
        }
        assert_eq!(read.iter().map(|r| r.timestamp).collect::<Vec<_>>(), timestamps);
        assert_eq!(timestamps[0], sent_at);
        assert!((now.saturating_sub(Duration::from_secs(60))..=now).contains(&timestamps[1]), "now, if none is given");
        s.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_per_record() {
    let gzip = Compression::gzip(1).unwrap();
    let s = Setup::with(1, |c| {
        c.linger = Duration::from_secs(60);
        c.compression = gzip;
    })
    .await;
    let value = |n: u32| format!("{n:0200}");
    for n in 0..1000 {
        s.producer.send(ProducerRecord::to(&s.topic).value(value(n))).await.unwrap().partition();
    }
    s.producer
        .send(ProducerRecord::to(&s.topic).value("plain").compression(Compression::None))
        .await
        .unwrap()
        .partition();
    s.producer.flush(super::PATIENCE).await.unwrap();
    let read = s.read().await.remove(&0).unwrap();
    let got: Vec<&str> = read.iter().map(|r| text(&r.value)).collect();
    let want: Vec<String> = (0..1000).map(value).chain(["plain".into()]).collect();
    assert_eq!(got, want);
    if let Some(embedded) = s.broker.embedded() {
        let batches = embedded.log_batches(&s.topic, 0).unwrap();
        let codecs: Vec<u8> = batches.iter().map(|b| b[22] & 7).collect();
        assert_eq!(codecs, [1, 0]);
        assert!(batches[0].len() < 20_000, "{} bytes", batches[0].len());
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_per_topic_and_record() {
    let s = Setup::new(1).await;
    let mut settings = s.client.config().producer.clone();
    settings.linger = Duration::from_secs(60);
    settings.compression = Compression::Snappy;
    settings.topic_compression.insert(s.topic.clone(), Compression::Zstd);
    settings.topic_compression.insert("another".into(), Compression::gzip(1).unwrap());
    let producer = s.client.producer().config(settings).start().unwrap();
    let value = "compressible ".repeat(5000);
    let record = ProducerRecord::to(&s.topic).value(&value);
    for record in [record.clone(), record.clone().compression(Compression::Lz4), record] {
        drop(producer.send(record).await.unwrap());
    }
    producer.close(super::PATIENCE).await.unwrap();
    let read = s.read().await.remove(&0).unwrap();
    assert!(read.len() == 3 && read.iter().all(|r| text(&r.value) == value));
    if let Some(embedded) = s.broker.embedded() {
        let codecs: Vec<u8> = embedded.log_batches(&s.topic, 0).unwrap().iter().map(|b| b[22] & 7).collect();
        assert_eq!(codecs, [4, 3, 4]);
    }
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_record_error_has_the_size() {
    let s = Setup::with(1, |c| {
        c.max_request_size = 10_000;
        c.batch_size = 10_000;
    })
    .await;
    let value = vec![b'x'; 10_000];
    let error = s.producer.send(ProducerRecord::to(&s.topic).value(&value)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    assert!(error.to_string().contains("10000 that are allowed"), "{error}");

    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let strict = s.broker.topic("strict");
    embedded.create_topic_with(&strict, 1, &[("max.message.bytes", "1000")]).unwrap();
    let first = s.producer.send(ProducerRecord::to(&strict).value(&value[..2000])).await.unwrap().await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::RecordTooLarge);
    assert!(first.to_string().contains("more than the broker allows"), "{first}");
    let next = s.producer.send(ProducerRecord::to(&strict).value(&value[..500])).await.unwrap().await.unwrap();
    assert_eq!(next.offset, Some(0), "the next one is not affected");
    s.close().await;
}

/// On a topic that takes no record without a key.
async fn compacted() -> Setup {
    let mut s = Setup::with(1, |c| c.linger = Duration::from_secs(60)).await;
    s.topic.push_str("-compacted");
    let new = NewTopic::new(&s.topic).partitions(1).config("cleanup.policy", "compact");
    Admin::new(&s.client).create_topic_with(&new).await.unwrap();
    s
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_record_fails_alone() {
    let s = compacted().await;
    let mut handles = Vec::new();
    for n in 0..40 {
        let (key, value) = (format!("key-{n}"), n.to_string());
        let record = ProducerRecord::to(&s.topic).value(&value);
        let record = if [0, 7, 8, 39].contains(&n) { record } else { record.key(&key) };
        handles.push(s.producer.send(record).await.unwrap());
    }
    s.producer.flush(PATIENCE).await.unwrap();
    for (n, handle) in handles.into_iter().enumerate() {
        match handle.await {
            Ok(_) => assert!(![0, 7, 8, 39].contains(&n), "{n}"),
            Err(e) => {
                assert!([0, 7, 8, 39].contains(&n), "{n}: {e}");
                assert_eq!(e.kind(), ErrorKind::InvalidRecord);
                // Brokers before Produce 8 name the batch alone: it was cut until the record stood alone.
                let named = e.to_string().contains(&format!("record {n} of a batch of 40"));
                assert!(named || e.to_string().contains("a batch of 1 records"), "{n}: {e}");
            }
        }
    }
    let want: Vec<u32> = (0..40).filter(|n| ![0, 7, 8, 39].contains(n)).collect();
    assert_eq!(numbers(&s.read().await[&0]), want, "each once, in order");
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_invalid_record_is_isolated() {
    let s = compacted().await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    let first = std::sync::atomic::AtomicBool::new(true);
    embedded.set_hook(move |r| {
        let spoilt = r.api_key == PRODUCE && first.swap(false, std::sync::atomic::Ordering::SeqCst);
        spoilt.then_some(Fault::Error(INVALID_RECORD))
    });
    let mut handles = Vec::new();
    for n in 0..9 {
        let (key, value) = (format!("key-{n}"), n.to_string());
        let record = ProducerRecord::to(&s.topic).value(&value);
        handles.push(s.producer.send(if n == 4 { record } else { record.key(&key) }).await.unwrap());
    }
    s.producer.flush(PATIENCE).await.unwrap();
    let mut failed = Vec::new();
    for (n, handle) in handles.into_iter().enumerate() {
        failed.extend(handle.await.is_err().then_some(n));
    }
    assert_eq!(failed, [4]);
    assert_eq!(numbers(&s.read().await[&0]), [0, 1, 2, 3, 5, 6, 7, 8]);
    s.close().await;
}
