//! The memory cost of producing: no allocation per record, its bytes once before compression and once after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use ailurus::record::raw;
use ailurus::{Client, Compression, ProducerRecord};
use ailurus_test_support as support;
use allocation_counter::measure;

const LONG: Duration = Duration::from_secs(300);
const RECORDS: usize = 20_000;
const VALUE: [u8; 300] = [b'v'; 300];

/// The broker has threads of its own; the client has this one, and only its allocations count.
#[test]
fn records_are_buffered_once_without_allocation() {
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = theirs.block_on(support::broker());
    let client_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = broker.topic("allocations");
    let config = broker.config().allow_auto_topic_creation(true).linger(Duration::from_secs(1)).build().unwrap();
    let (client, producer) = client_runtime.block_on(async {
        let client = Client::connect(config).await.unwrap();
        let producer = client.producer().start().unwrap();
        // The first batch of a partition grows as it is filled; the next ones have its size from the start.
        for _ in 0..RECORDS / 5 {
            drop(producer.send(ProducerRecord::to(&topic).partition(0).value(&VALUE)).await.unwrap());
        }
        producer.flush(LONG).await.unwrap();
        (client, producer)
    });
    let mut deliveries = Vec::with_capacity(RECORDS);
    let sent = measure(|| {
        client_runtime.block_on(async {
            for _ in 0..RECORDS {
                deliveries.push(producer.send(ProducerRecord::to(&topic).partition(0).value(&VALUE)).await.unwrap());
            }
            producer.flush(LONG).await.unwrap();
        });
    });
    let owned: Vec<_> =
        (0..RECORDS).map(|_| ProducerRecord::to(topic.clone()).partition(0).value(VALUE.to_vec())).collect();
    let mut owned_deliveries = Vec::with_capacity(RECORDS);
    let sent_owned = measure(|| {
        client_runtime.block_on(async {
            for record in owned {
                owned_deliveries.push(producer.send(record).await.unwrap());
            }
            producer.flush(LONG).await.unwrap();
        });
    });
    // Six batches or so, and what their requests take.
    for count in [sent.count_total, sent_owned.count_total] {
        assert!(count < RECORDS as u64 / 20, "{sent:?}, owned: {sent_owned:?}");
    }
    let bytes = (RECORDS * VALUE.len()) as u64;
    assert!(sent.bytes_total < bytes * 5 / 4, "{bytes} bytes were sent: {sent:?}");
    client_runtime.block_on(async {
        for delivery in deliveries.into_iter().chain(owned_deliveries) {
            delivery.await.unwrap();
        }
        producer.close(LONG).await.unwrap();
        client.close().await;
    });
}

#[test]
fn a_compressed_batch_is_in_memory_twice_at_most() {
    let values: Vec<_> = (0..3_000).map(|i| format!(r#"{{"id":{i},"name":"order-{}"}}"#, i % 97)).collect();
    let pairs = || values.iter().map(|v| (&b"key"[..], v.as_bytes()));
    let room = 1 << 20;
    let plain = measure(|| drop(raw::encode(pairs(), room, Compression::None)));
    assert!(plain.count_total < 10, "{plain:?}");
    assert!(plain.bytes_total < room as u64 * 5 / 4, "{plain:?}");
    let gzip = Compression::gzip(Compression::DEFAULT_GZIP_LEVEL).unwrap();
    // The first one on a thread also makes what the codec keeps.
    drop(raw::encode(pairs(), room, gzip));
    let packed = measure(|| drop(raw::encode(pairs(), room, gzip)));
    assert!(packed.bytes_total < plain.bytes_total * 2, "{packed:?}");
}
