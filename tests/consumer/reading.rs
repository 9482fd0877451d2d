//! Reading without a group: start, records, end.

use super::*;

#[tokio::test]
async fn reading_starts_at_the_given_offset() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    produce(&client, &topic, 1, 0..100, Compression::None).await;
    let config = client.config().consumer.clone();
    for (from, first) in [
        (StartOffset::Earliest, 0),
        (StartOffset::Offset(40), 40),
        (StartOffset::Timestamp(Timestamp::from_millis(71)), 70),
        (StartOffset::Latest, 100),
        (StartOffset::Timestamp(Timestamp::from_millis(1_000_000)), 100),
        (StartOffset::Offset(1_000_000), 0), // outside the log: by offset_reset
    ] {
        let seen = read_to_end(&client, all(&topic, 1, from), config.clone()).await;
        assert_eq!(seen, (first..100).collect::<Vec<_>>(), "{from:?}");
    }
    let mut latest = config.clone();
    latest.offset_reset = OffsetReset::Latest;
    assert!(read_to_end(&client, all(&topic, 1, StartOffset::Offset(1_000_000)), latest).await.is_empty());
}

#[tokio::test]
async fn an_empty_partition_has_an_end_offset() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    let config = client.config().consumer.clone();
    assert!(read_to_end(&client, all(&topic, 3, StartOffset::Earliest), config).await.is_empty());
}

#[tokio::test]
async fn a_recreated_topic_is_read_from_its_start() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    // Metadata of its own, at its default age: only the missing topic makes it look again.
    let reader = connect(broker.config()).await;
    let config = client.config().consumer.clone();
    let mut consumer = reader.consumer(broker.group("g")).config(config).subscribe([&topic]).await.unwrap();
    for round in 0..2 {
        while assigned(&mut consumer).await.len() != 2 {}
        produce(&client, &topic, 2, 0..10 + round, Compression::None).await;
        let mut seen = Vec::new();
        while seen.len() < 10 + round as usize {
            let records = next_records(&mut consumer).await;
            seen.extend(numbers(&records));
            consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
        }
        assert_eq!(sorted(seen), (0..10 + round).collect::<Vec<_>>());
        if round == 0 {
            Admin::new(&client).delete_topic(&topic).await.unwrap();
            assert_eq!(assigned(&mut consumer).await, [], "a topic that is gone has no partitions");
            soon(async { while support::create_topic(&client, &topic, 2).await.is_err() {} }).await;
        }
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn large_compressed_batches_are_read_in_order() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let producer = client.producer().start().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let values: Vec<Vec<u8>> = (0..400).map(|_| (0..4000).map(|_| random.u8(..)).collect()).collect();
    let mut sent = Vec::new();
    for (value, i) in values.iter().zip(0..) {
        let record = ProducerRecord::to(&topic).value(value).partition(i % 2);
        sent.push(producer.send(record.compression(Compression::gzip(1).unwrap())).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 1 << 10; // less than a batch
    let mut consumer = client.reader().config(config).assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
    let mut next = [0_i64; 2];
    while next != [200, 200] {
        let records = next_records(&mut consumer).await;
        let partition = records.partition as usize;
        for record in &records.records {
            assert_eq!(record.offset, next[partition]);
            assert_eq!(record.value.as_deref(), Some(&values[next[partition] as usize * 2 + partition][..]));
            next[partition] += 1;
        }
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_slow_partition_does_not_block_others() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    // In many small batches: one comes whole, however large it is.
    let small = connect(broker.config().batch_size(1_usize << 10)).await;
    produce(&small, &topic, 2, 0..4000, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.prefetch_bytes = 64 << 10;
    config.partition_fetch_bytes = 2 << 10;
    let mut consumer = client.reader().config(config).assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
    let mut kept = Vec::new();
    let (mut slow, mut fast) = (0, 0);
    while fast < 2000 {
        let records = next_records(&mut consumer).await;
        if records.partition == 0 {
            slow += records.records.len();
            kept.push(records);
        } else {
            fast += records.records.len();
        }
    }
    assert!(slow < 2000, "what is kept is bounded");
    drop(kept);
    while slow < 2000 {
        slow += next_records(&mut consumer).await.records.len();
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn records_larger_than_fetch_limits_are_read() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    let producer = client.producer().start().unwrap();
    let value = vec![7; 100_000];
    for i in 0..12 {
        producer.send(ProducerRecord::to(&topic).value(&value).partition(i % 3)).await.unwrap().await.unwrap();
    }
    producer.close(LONG).await.unwrap();
    let mut config = client.config().consumer.clone();
    (config.fetch_max_bytes, config.partition_fetch_bytes, config.prefetch_bytes) = (1 << 10, 1 << 10, 1 << 10);
    let mut consumer = client.reader().config(config).assign(all(&topic, 3, StartOffset::Earliest)).await.unwrap();
    let mut next = [0_i64; 3];
    while next != [4; 3] {
        for record in next_records(&mut consumer).await.records {
            assert_eq!(record.value.as_deref(), Some(&value[..]));
        }
        next = [0, 1, 2].map(|p| consumer.position(&TopicPartition::new(&*topic, p)).unwrap_or(0));
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_fetch_may_end_in_a_partial_batch() {
    let Some(broker) = support::embedded(|c| c.partial_batches(true)).await else { return };
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let small = connect(broker.config().batch_size(1_usize << 10)).await;
    produce(&small, &topic, 1, 0..1000, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 3000;
    let seen = read_to_end(&client, all(&topic, 1, StartOffset::Offset(501)), config.clone()).await;
    assert_eq!(seen, (501..1000).collect::<Vec<_>>());

    // Small when compressed and so large when decompressed that each is delivered by itself.
    let large = format!("{topic}-large");
    support::create_topic(&client, &large, 1).await.unwrap();
    let producer = client.producer().start().unwrap();
    for n in 0..60 {
        let value = format!("{}{n:03}", "0".repeat(200_000));
        let record = ProducerRecord::to(&large).value(&value).compression(Compression::gzip(6).unwrap());
        drop(producer.send(record).await.unwrap());
    }
    producer.close(LONG).await.unwrap();
    let seen = read_to_end(&client, all(&large, 1, StartOffset::Earliest), config).await;
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn invalid_reads_are_rejected() {
    let broker = support::broker().await;
    let client = connect(broker.config().allow_auto_topic_creation(false)).await;
    let config = client.config().consumer.clone();
    let (missing, group) = (broker.topic("missing"), broker.group("g"));
    let kind = |e: Error| (e.kind(), format!("{e:#}"));
    let (k, text) = kind(client.consumer(&group).config(config.clone()).subscribe([&missing]).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic);
    assert!(text.contains(&missing) && text.contains(&group), "{text}");
    let from = all(&missing, 1, StartOffset::Earliest);
    let (k, text) = kind(client.reader().config(config.clone()).assign(from).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic, "{text}");
    let topic = topic(&broker, &client, "t", 1).await;
    let from = vec![(TopicPartition::new(&*topic, 1), StartOffset::Earliest)];
    let (k, text) = kind(client.reader().config(config.clone()).assign(from).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic);
    assert!(text.contains("1 partitions"), "{text}");
    for topics in [&[][..], &[&*topic]] {
        let name = if topics.is_empty() { &*group } else { "" };
        let e = client.consumer(name).config(config.clone()).subscribe(topics.iter().copied()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    }
    let alone = client.reader().config(config.clone()).assign(all(&topic, 1, StartOffset::Earliest)).await.unwrap();
    let e = alone.commit(&[(TopicPartition::new(&*topic, 0), 0)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
    alone.close().await.unwrap();

    let mut config = config;
    config.session_timeout = Duration::from_millis(3); // less than brokers allow
    config.heartbeat_interval = Duration::from_millis(1);
    let mut refused = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    let e = soon(refused.recv()).await.unwrap_err();
    assert!(format!("{e:#}").contains("ConsumerConfig::session_timeout") && format!("{e:#}").contains(&group), "{e:#}");
    assert_eq!(refused.state(), ConsumerState::Closed);
    assert_eq!(format!("{:#}", soon(refused.recv()).await.unwrap_err()), format!("{e:#}"), "the error is repeated");
    refused.close().await.unwrap();
}

// The following faults need the embedded broker.
