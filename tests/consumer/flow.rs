//! Prefetch limits with a slow application.

use super::*;

/// Puts `n` records of zeros into each partition, `size` bytes each, in gzipped batches of about `batch` bytes.
async fn zeros(broker: &TestBroker, topic: &str, partitions: i32, n: usize, size: usize, batch: usize) {
    let client = connect(broker.config().batch_size(batch).linger(Duration::from_millis(5))).await;
    let producer = client.producer().start().unwrap();
    let (value, mut sent) = (vec![0; size], Vec::new());
    for i in 0..n * partitions as usize {
        let record = ProducerRecord::to(topic).value(&value).partition((i % partitions as usize) as i32);
        sent.push(producer.send(record.compression(Compression::gzip(1).unwrap())).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

#[tokio::test]
async fn fetch_memory_of_slow_partitions_is_bounded() {
    const PREFETCH: usize = 512 << 10;
    const BATCH: usize = 16 << 10;
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 8).await;
    zeros(&broker, &topic, 8, 400, 1000, BATCH).await;
    let mut config = client.config().consumer.clone();
    config.prefetch_bytes = PREFETCH;
    let mut consumer = client.reader().config(config).assign(all(&topic, 8, StartOffset::Earliest)).await.unwrap();
    let (mut kept, mut fast) = (Vec::new(), 0);
    while fast < 400 {
        let records = next_records(&mut consumer).await;
        if records.partition == 7 {
            fast += records.records.len();
        } else {
            kept.push(records);
        }
    }
    let bytes = |r: &Records| r.records.iter().map(|r| r.value.as_ref().unwrap().len()).sum::<usize>();
    let held: usize = kept.iter().map(bytes).sum();
    assert!(held <= 2 * PREFETCH + 2 * BATCH, "{held} bytes are held");
    // None of it is lost: the rest comes when there is room again.
    let mut seen: usize = kept.iter().map(|r| r.records.len()).sum();
    drop(kept);
    while seen < 7 * 400 {
        seen += next_records(&mut consumer).await.records.len();
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_larger_than_the_prefetch_budget_is_read() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    zeros(&broker, &topic, 2, 90, 10_000, 900_000).await;
    let mut config = client.config().consumer.clone();
    config.prefetch_bytes = 16 << 10;
    let mut consumer = client.reader().config(config).assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
    let mut seen = 0;
    while seen < 180 {
        seen += next_records(&mut consumer).await.records.len();
    }
    consumer.close().await.unwrap();
}
