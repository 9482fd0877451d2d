//! Committed records alone, and where reading ends.

use super::*;
use ailurus::IsolationLevel;

/// One batch with these numbers into a partition, as part of a transaction.
async fn write(broker: &ailurus_broker::Broker, client: &Client, topic: &str, producer: i64, numbers: Range<i32>) {
    let codecs = [Compression::None, Compression::gzip(1).unwrap(), Compression::Lz4, Compression::Zstd];
    let scratch = format!("{topic}-{}", numbers.start);
    Admin::new(client).create_topic(&scratch, 1, None).await.unwrap();
    produce(client, &scratch, 1, numbers.clone(), codecs[numbers.start as usize / 10 % 4]).await;
    for batch in broker.log_batches(&scratch, 0).unwrap() {
        broker.append_transactional_batch(topic, 0, producer, &batch).unwrap();
    }
}

#[tokio::test]
async fn records_of_aborted_transactions_are_skipped() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 1).await;
    let end = |producer, commit| broker.append_control_batch(&topic, 0, producer, commit).unwrap();
    // Two producers, interleaved with each other and with one that knows no transactions; the last is left open.
    write(broker, &client, &topic, 1, 0..10).await;
    write(broker, &client, &topic, 2, 10..20).await;
    produce(&client, &topic, 1, 20..30, Compression::None).await;
    write(broker, &client, &topic, 1, 30..40).await;
    end(1, false);
    write(broker, &client, &topic, 1, 40..50).await;
    end(2, true);
    end(1, true);
    write(broker, &client, &topic, 2, 50..60).await;
    end(2, false);
    write(broker, &client, &topic, 1, 60..70).await;
    produce(&client, &topic, 1, 70..80, Compression::None).await;
    let mut config = client.config().consumer.clone();
    let everything = read_to_end(&client, all(&topic, 1, StartOffset::Earliest), config.clone()).await;
    assert_eq!(everything, (0..80).collect::<Vec<_>>());

    config.isolation_level = IsolationLevel::ReadCommitted;
    let committed: Vec<_> = (10..30).chain(40..50).collect();
    for bytes in [1 << 10, 1 << 20] {
        config.partition_fetch_bytes = bytes;
        let seen = read_to_end(&client, all(&topic, 1, StartOffset::Earliest), config.clone()).await;
        assert_eq!(seen, committed, "up to the transaction that is open");
    }
    // From inside an aborted transaction, whose first record lies before.
    let seen = read_to_end(&client, all(&topic, 1, StartOffset::Offset(35)), config.clone()).await;
    assert_eq!(seen, (40..50).collect::<Vec<_>>());
    let mut consumer =
        client.reader().config(config.clone()).assign(all(&topic, 1, StartOffset::Earliest)).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        assert!(records.last_stable_offset.unwrap() < records.high_watermark);
        if records.lag() == 0 {
            break;
        }
    }
    assert_eq!(seen, committed);
    let p = TopicPartition::new(&*topic, 0);
    let stable = consumer.end_offsets(std::slice::from_ref(&p)).await.unwrap()[&p];
    assert_eq!(consumer.position(&p), Some(stable), "markers and aborted records are passed");
    // The last record before that is of an aborted transaction.
    assert_eq!(
        consumer.offsets_for_times(&[(p.clone(), Timestamp::from_millis(71))]).await.unwrap()[&p],
        None,
        "not committed yet"
    );
    end(1, true);
    while seen.len() < committed.len() + 20 {
        seen.extend(numbers(&next_records(&mut consumer).await));
    }
    assert_eq!(seen[committed.len()..], (60..80).collect::<Vec<_>>());
    consumer.close().await.unwrap();
    let group = test.group("g");
    assert_eq!(drain(&client, &group, &topic, config).await, seen, "in a group too");
    assert_eq!(broker.committed_offset(&group, &topic, 0), Some(broker.log_range(&topic, 0).unwrap().1));
}
