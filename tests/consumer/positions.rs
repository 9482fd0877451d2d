//! Positions: where logs begin and end, by time, and moved by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn offsets_for_times_and_ends() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    produce(&client, &topic, 1, 0..100, Compression::None).await;
    let config = client.config().consumer.clone();
    let consumer = client.reader().config(config).assign(all(&topic, 1, StartOffset::Latest)).await.unwrap();
    let at = Timestamp::from_millis;
    let [p, empty] = [0, 1].map(|i| TopicPartition::new(&*topic, i));
    let both = [p.clone(), empty.clone()];
    assert_eq!(consumer.beginning_offsets(&both).await.unwrap(), [(p.clone(), 0), (empty.clone(), 0)].into());
    assert_eq!(consumer.end_offsets(&both).await.unwrap(), [(p.clone(), 100), (empty.clone(), 0)].into());
    let found = consumer.offsets_for_times(&[(p.clone(), at(71)), (empty.clone(), at(0))]).await.unwrap();
    let first = found[&p].unwrap();
    assert_eq!((first.offset, first.timestamp), (70, Some(at(71))));
    assert_eq!(found[&empty], None);
    let found = consumer.offsets_for_times(&[(p.clone(), at(1_000_000))]).await.unwrap();
    assert_eq!(found[&p], None, "behind the last record");
    let e = consumer.offsets_for_times(&[(p, at(-1))]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    let e = consumer.end_offsets(&[TopicPartition::new(&*topic, 2)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnknownTopic, "{e}");
    consumer.close().await.unwrap();
}

/// Whatever comes up to number `last`.
async fn until(consumer: &mut Consumer, last: i32) -> Vec<i32> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        seen.extend(numbers(&next_records(consumer).await));
    }
    seen
}

/// A consumer of partition 0, alone or in a group, that has its partition.
async fn reader(test: &TestBroker, client: &Client, topic: &str, group: bool, config: ConsumerConfig) -> Consumer {
    let mut consumer = if group {
        client.consumer(test.group("g")).config(config).subscribe([topic]).await.unwrap()
    } else {
        client.reader().config(config).assign(all(topic, 1, StartOffset::Earliest)).await.unwrap()
    };
    assert_eq!(assigned(&mut consumer).await.len(), 1);
    consumer
}

#[tokio::test]
async fn a_seek_moves_a_running_consumer() {
    let test = support::broker().await;
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 1).await;
    let small = connect(test.config().batch_size(1_usize << 10)).await;
    produce(&small, &topic, 1, 0..1000, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 2 << 10;
    let p = TopicPartition::new(&*topic, 0);
    for group in [false, true] {
        let mut consumer = reader(&test, &client, &topic, group, config.clone()).await;
        // More records are available when the first ones have arrived, and a fetch is in flight.
        next_records(&mut consumer).await;
        for (to, first) in [
            (StartOffset::Offset(500), 500),
            (StartOffset::Offset(3), 3),
            (StartOffset::Timestamp(Timestamp::from_millis(901)), 900),
            (StartOffset::Earliest, 0),
            (StartOffset::Offset(999), 999),
            (StartOffset::Offset(998), 998),
        ] {
            consumer.seek(&p, to).unwrap();
            if let StartOffset::Offset(offset) = to {
                assert_eq!(consumer.position(&p), Some(offset));
            }
            let records = soon(async {
                loop {
                    let records = next_records(&mut consumer).await;
                    if !records.records.is_empty() {
                        break records;
                    }
                }
            });
            let seen: Vec<_> = numbers(&records.await).collect();
            assert_eq!(seen[0], first, "{to:?}");
            assert_eq!(seen, (first..first + seen.len() as i32).collect::<Vec<_>>());
        }
        consumer.seek(&p, StartOffset::Offset(600)).unwrap();
        assert_eq!(until(&mut consumer, 999).await, (600..1000).collect::<Vec<_>>(), "it goes on from there");
        consumer.seek(&p, StartOffset::Latest).unwrap();
        let end = next_records(&mut consumer).await;
        assert_eq!((end.records.len(), end.next_offset, end.lag()), (0, 1000, 0), "the end is reported");
        let e = consumer.seek(&p, StartOffset::Offset(-1)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e}");
        let e = consumer.seek(&TopicPartition::new(&*topic, 1), StartOffset::Earliest).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
        consumer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_partition_resumes_with_its_buffered_records() {
    let test = support::broker().await;
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let small = connect(test.config().batch_size(1_usize << 10)).await;
    produce(&small, &topic, 2, 0..2000, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 2 << 10;
    let mut consumer = client.reader().config(config).assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
    let [p, other] = [0, 1].map(|i| TopicPartition::new(&*topic, i));
    let mut seen = [Vec::new(), Vec::new()];
    let read = async |consumer: &mut Consumer, seen: &mut [Vec<i32>; 2]| {
        let records = next_records(consumer).await;
        seen[records.partition as usize].extend(numbers(&records));
        records.partition
    };
    while read(&mut consumer, &mut seen).await != 0 {}
    consumer.pause(std::slice::from_ref(&p)).unwrap();
    assert_eq!(consumer.paused(), std::slice::from_ref(&p));
    while seen[1].len() < 1000 {
        assert_eq!(read(&mut consumer, &mut seen).await, 1, "the other one goes on alone");
    }
    assert!(seen[0].len() < 1000);
    assert!(consumer.lag(&p).unwrap() > 0);
    assert_eq!(consumer.lag(&other), Some(0));
    consumer.resume(std::slice::from_ref(&p)).unwrap();
    while seen[0].len() < 1000 {
        read(&mut consumer, &mut seen).await;
    }
    assert_eq!(seen[0], (0..2000).filter(|n| n % 2 == 0).collect::<Vec<_>>(), "nothing was dropped");
    let marks = consumer.watermarks(&p).unwrap();
    assert_eq!((marks.high_watermark, marks.last_stable_offset), (1000, Some(1000)));
    assert_eq!(consumer.lag(&p), Some(0));
    let e = consumer.pause(&[p, TopicPartition::new(&*topic, 2)]).unwrap_err();
    assert_eq!((e.kind(), consumer.paused()), (ErrorKind::GroupMembership, vec![]));
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn without_a_reset_policy_the_application_decides() {
    let test = support::broker().await;
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 1).await;
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.offset_reset = OffsetReset::None;
    let p = TopicPartition::new(&*topic, 0);
    let alone = client.reader().config(config.clone()).assign(all(&topic, 1, StartOffset::Offset(500))).await.unwrap();
    let member = client.consumer(test.group("g")).config(config).subscribe([&topic]).await.unwrap();
    for (mut consumer, why) in [(alone, "offset 500 of"), (member, "committed no offset of")] {
        let e = loop {
            match soon(consumer.recv()).await {
                Ok(ConsumerEvent::Records(records)) => panic!("{records:?}"),
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
        for part in [why, &p.to_string(), "begins at 0 and ends at 10", "ConsumerConfig::offset_reset"] {
            assert!(e.to_string().contains(part), "{part} is missing: {e}");
        }
        assert_ne!(consumer.state(), ConsumerState::Closed);
        consumer.seek(&p, StartOffset::Offset(7)).unwrap();
        assert_eq!(until(&mut consumer, 9).await, [7, 8, 9]);
        consumer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_truncated_log_is_read_from_the_divergence() {
    const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
    for has_epochs in [true, false] {
        let versions = support::embedded_versions();
        let versions = if has_epochs { versions } else { versions.without(OFFSET_FOR_LEADER_EPOCH) };
        let Some(test) = support::embedded(|c| c.versions(versions)).await else { return };
        let broker = test.embedded().unwrap();
        let client = client(&test).await;
        let topic = topic(&test, &client, "t", 1).await;
        produce(&client, &topic, 1, 0..50, Compression::None).await;
        produce(&client, &topic, 1, 50..100, Compression::None).await;
        let mut config = client.config().consumer.clone();
        let mut consumer = reader(&test, &client, &topic, true, config.clone()).await;
        assert_eq!(until(&mut consumer, 99).await.len(), 100);
        let p = TopicPartition::new(&*topic, 0);
        consumer.commit(&[(p.clone(), 100)]).await.unwrap();
        assert_eq!(consumer.committed_metadata(&p).unwrap().leader_epoch, Some(0));
        config.offset_reset = OffsetReset::None;
        let mut strict = reader(&test, &client, &topic, false, config).await;
        until(&mut strict, 99).await;
        // The new leader had not got all of it, and has written on.
        broker.truncate(&topic, 0, 60).unwrap();
        let cut = broker.log_range(&topic, 0).unwrap().1;
        assert!((50..=60).contains(&cut));
        produce(&client, &topic, 1, 1000..1100, Compression::None).await;
        let seen = until(&mut consumer, 1099).await;
        if has_epochs {
            assert_eq!(seen, (1000..1100).collect::<Vec<_>>(), "not one is missed, and none comes again");
            let e = soon(strict.recv()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
            let text = format!("was truncated to offset {cut} and written again, after it was read up to offset 100");
            assert!(e.to_string().contains(&text), "{e}");
        }
        consumer.close().await.unwrap();
        strict.close().await.unwrap();
    }
}

/// A new leader may know less of its log than the old one for a moment, and refuse a position that is inside it.
#[tokio::test]
async fn a_position_rejected_for_a_moment_is_kept() {
    const OFFSET_OUT_OF_RANGE: i16 = 1;
    const LIST_OFFSETS: i16 = 2;
    const LOOKS: usize = 4;
    for reset in [OffsetReset::Earliest, OffsetReset::Latest, OffsetReset::None] {
        let Some(test) = support::embedded(|c| c.nodes(2).default_replication(2)).await else { return };
        let broker = test.embedded().unwrap();
        let client = client(&test).await;
        let topic = topic(&test, &client, "t", 2).await;
        broker.move_leader(&topic, 0, 0).unwrap();
        broker.move_leader(&topic, 1, 1).unwrap();
        produce(&client, &topic, 1, 0..10, Compression::None).await;
        let mut config = client.config().consumer.clone();
        config.offset_reset = reset;
        let mut consumer = client.reader().config(config).assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
        assert_eq!(until(&mut consumer, 9).await, (0..10).collect::<Vec<_>>());
        // The other partition of the same request is served meanwhile. It is over when the position was held against the log some times.
        let looks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looks);
        broker.set_hook(move |request| {
            if request.api_key == LIST_OFFSETS && request.node == 1 {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let spoilt = request.api_key == FETCH && request.node == 1 && count.load(Ordering::SeqCst) < LOOKS;
            spoilt.then_some(Fault::PartitionError { partition: 0, code: OFFSET_OUT_OF_RANGE })
        });
        broker.move_leader(&topic, 0, 1).unwrap();
        produce(&client, &topic, 1, 10..20, Compression::None).await;
        // With earliest it would start again, with latest it would miss some, and without a policy it would fail.
        assert_eq!(until(&mut consumer, 19).await, (10..20).collect::<Vec<_>>(), "{reset:?}");
        assert!(looks.load(Ordering::SeqCst) >= LOOKS, "nothing was refused");
        consumer.close().await.unwrap();
    }
}

#[tokio::test]
async fn records_are_fetched_from_the_same_rack() {
    let change = |c: ailurus_broker::BrokerConfig| c.default_replication(3).racks(&["a", "b", "c"]);
    let Some(test) = support::embedded(change).await else { return };
    let broker = test.embedded().unwrap();
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 1).await;
    assert_eq!(broker.leader(&topic, 0).unwrap(), Some(0));
    let mut config = client.config().consumer.clone();
    config.client_rack = Some("b".into());
    // Nodes that were fetched from, and how often node 1 is to reject.
    let (fetched_from, refuses) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(0)));
    let (nodes, refused) = (Arc::clone(&fetched_from), Arc::clone(&refuses));
    broker.set_hook(move |request| {
        if request.api_key != FETCH {
            return None;
        }
        nodes.lock().unwrap().insert(request.node);
        let mut left = refused.lock().unwrap();
        let refuse = request.node == 1 && *left > 0;
        *left -= i32::from(refuse);
        refuse.then_some(Fault::Error(1))
    });
    let mut consumer = client.reader().config(config).assign(all(&topic, 1, StartOffset::Earliest)).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..5 {
        match round {
            2 => *refuses.lock().unwrap() = 3,
            3 => broker.stop_node(1).await.unwrap(),
            _ => {}
        }
        produce(&client, &topic, 1, round * 100..(round + 1) * 100, Compression::None).await;
        while seen.len() < (round as usize + 1) * 100 {
            seen.extend(numbers(&next_records(&mut consumer).await));
        }
        assert!(fetched_from.lock().unwrap().contains(&1), "the leader gives no records while node 1 is up");
    }
    assert_eq!(seen, (0..500).collect::<Vec<_>>(), "each once and in order");
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn idle_partitions_stay_in_the_fetch_session() {
    use kafka_protocol::messages::FetchRequest;
    use kafka_protocol::protocol::Decodable;

    const PARTITIONS: i32 = 90;
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", PARTITIONS).await;
    // Session epoch and how many partitions were named.
    let fetches = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&fetches);
    broker.set_hook(move |request| {
        if request.api_key == FETCH {
            let fetch = FetchRequest::decode(&mut request.body.clone(), request.version).unwrap();
            let named: usize = fetch.topics.iter().map(|t| t.partitions.len()).sum();
            noted.lock().unwrap().push((fetch.session_epoch, named));
        }
        None
    });
    let config = client.config().consumer.clone();
    let mut consumer =
        client.reader().config(config).assign(all(&topic, PARTITIONS, StartOffset::Earliest)).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < PARTITIONS as usize {
        seen.insert(next_records(&mut consumer).await.partition);
    }
    let mut seen = Vec::new();
    for round in 0..20 {
        if round == 10 {
            broker.drop_fetch_sessions();
        }
        let numbers_of_one = round * PARTITIONS..round * PARTITIONS + 1;
        produce(&client, &topic, PARTITIONS, numbers_of_one, Compression::None).await;
        while seen.len() <= round as usize {
            seen.extend(numbers(&next_records(&mut consumer).await));
        }
    }
    assert_eq!(seen, (0..20).map(|round| round * PARTITIONS).collect::<Vec<_>>());
    consumer.close().await.unwrap();
    let fetches = fetches.lock().unwrap();
    let whole = fetches.iter().filter(|(epoch, _)| *epoch <= 0).count();
    let named: usize = fetches.iter().filter(|(epoch, _)| *epoch > 0).map(|(_, named)| named).sum();
    assert!(whole < fetches.len() / 2, "{fetches:?}");
    assert!(named < 200, "{named} partitions in {} fetches: {fetches:?}", fetches.len());
}

#[tokio::test]
async fn latest_reads_new_partitions_from_their_start() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    produce(&client, &topic, 1, 0..3, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.offset_reset = OffsetReset::Latest;
    let mut consumer = client.consumer(broker.group("g")).config(config).subscribe([&topic]).await.unwrap();
    assigned(&mut consumer).await;
    // Another client makes the topic grow and writes before this one knows.
    let other = Client::connect(broker.config().build().unwrap()).await.unwrap();
    Admin::new(&other).create_partitions(&topic, 3).await.unwrap();
    let producer = other.producer().start().unwrap();
    for partition in [1, 2] {
        let value = partition.to_string();
        soon(async {
            // Until its leader has heard of it.
            while producer.send(ProducerRecord::to(&topic).value(&value).partition(partition)).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    soon(producer.flush(LONG)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        // A health check refreshes metadata, as its interval would.
        ailurus::Health::check(&client).await;
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(100), consumer.recv()).await {
            if let ConsumerEvent::Records(records) = event.unwrap() {
                seen.extend(numbers(&records));
            }
        }
    }
    assert_eq!(sorted(seen), [1, 2], "and nothing of what was there before");
    soon(consumer.close()).await.unwrap();
    producer.close(LONG).await.unwrap();
}
