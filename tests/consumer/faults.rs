//! Corrupt logs and failing brokers, on the embedded broker.

use super::groups::{Member, Shared, until_handled};
use super::*;

#[tokio::test]
async fn offsets_without_a_record_are_skipped() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 4).await;
    let config = client.config().consumer.clone();
    for n in 0..3 {
        produce(&client, &topic, 1, 10 * n..10 * n + 10, Compression::None).await;
    }
    // 0: a gap in the middle and at the end of a batch, and a marker behind it.
    broker.compact(&topic, 0, |offset| !(5..25).contains(&offset) && offset != 29).unwrap();
    broker.append_control_batch(&topic, 0, 7, true).unwrap();
    // 1: only a marker; 2: only an empty batch; 3: nothing.
    broker.append_control_batch(&topic, 1, 7, false).unwrap();
    broker.append_empty_batch(&topic, 2, 9).unwrap();
    let seen = read_to_end(&client, all(&topic, 4, StartOffset::Earliest), config.clone()).await;
    assert_eq!(seen, [0, 1, 2, 3, 4, 25, 26, 27, 28]);
    // From inside a batch, and from inside the gap.
    let seen = read_to_end(&client, all(&topic, 1, StartOffset::Offset(3)), config.clone()).await;
    assert_eq!(seen, [3, 4, 25, 26, 27, 28]);
    assert_eq!(read_to_end(&client, all(&topic, 1, StartOffset::Offset(12)), config.clone()).await, [25, 26, 27, 28]);
    assert_eq!(drain(&client, &test.group("g"), &topic, config).await, [0, 1, 2, 3, 4, 25, 26, 27, 28]);
    assert_eq!(broker.committed_offset(&test.group("g"), &topic, 0), Some(31));
}

#[tokio::test]
async fn a_corrupt_batch_is_reported_once_and_not_skipped() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let mut batch = broker.log_batches(&topic, 0).unwrap()[0].to_vec();
    let last = batch.len() - 1;
    batch[last] ^= 1;
    let at = broker.append_raw_batch(&topic, 0, &batch).unwrap();
    let mut consumer = client.reader().assign(all(&topic, 2, StartOffset::Earliest)).await.unwrap();
    let mut seen = Vec::new();
    let e = loop {
        match soon(consumer.recv()).await {
            Ok(ConsumerEvent::Records(records)) => seen.extend(numbers(&records)),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(
        format!("{e:#}").contains(&format!("{topic}/0")) && format!("{e:#}").contains(&format!("offset {at}")),
        "{e:#}"
    );
    assert_ne!(consumer.state(), ConsumerState::Closed);
    // The other partition goes on; this one stands still.
    produce(&client, &topic, 2, 20..40, Compression::None).await;
    while seen.iter().filter(|n| *n % 2 == 1).count() < 20 {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        assert!(records.partition == 1 || records.next_offset <= at);
    }
    assert_eq!(consumer.position(&TopicPartition::new(&*topic, 0)), Some(at));
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn reading_survives_leader_moves_and_broker_stops() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 3).await;
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 1 << 10;
    let mut consumer = client.reader().config(config).assign(all(&topic, 3, StartOffset::Earliest)).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..6 {
        produce(&client, &topic, 3, round * 600..(round + 1) * 600, Compression::None).await;
        while seen.len() < (round as usize * 600) + 300 {
            seen.extend(numbers(&next_records(&mut consumer).await));
        }
        for p in 0..3 {
            broker.move_leader(&topic, p, (p + round) % 3).unwrap();
        }
        broker.stop_node((round + 1) % 3).await.unwrap();
        broker.start_node((round + 1) % 3).await.unwrap();
        while seen.len() < (round as usize + 1) * 600 {
            seen.extend(numbers(&next_records(&mut consumer).await));
        }
    }
    for p in 0..3 {
        let of: Vec<_> = seen.iter().copied().filter(|n| n % 3 == p).collect();
        assert_eq!(of, (0..3600).filter(|n| n % 3 == p).collect::<Vec<_>>(), "each once and in order");
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_move_loses_nothing() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let group = test.group("g");
    let mut consumer = client.consumer(&group).subscribe([&topic]).await.unwrap();
    assert_eq!(assigned(&mut consumer).await.len(), 2);
    let generation = consumer.generation();
    for round in 0..4 {
        let at = broker.coordinator(&group).unwrap();
        broker.move_coordinator(&group, (at + 1) % 3).unwrap();
        produce(&client, &topic, 1, round..round + 1, Compression::None).await;
        let records = loop {
            let records = next_records(&mut consumer).await;
            if !records.records.is_empty() {
                break records;
            }
        };
        consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
        assert_eq!(broker.committed_offset(&group, &topic, 0), Some(i64::from(round) + 1));
    }
    assert_eq!(consumer.generation(), generation, "no rebalance");
    consumer.close().await.unwrap();
    assert!(broker.group_members(&group).is_empty());
}

/// Has each `every`th request of some kinds go wrong, `times` in all.
fn spoil(broker: &ailurus_broker::Broker, keys: &'static [i16], every: usize, faults: &'static [Fault]) {
    let count = Mutex::new(0_usize);
    broker.set_hook(move |request| {
        if !keys.contains(&request.api_key) {
            return None;
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        (*count % every == 0).then(|| faults[*count / every % faults.len()])
    });
}

#[tokio::test]
async fn lost_responses_and_errors_lose_no_record() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 4).await;
    let group = test.group("g");
    spoil(
        broker,
        &[FETCH, OFFSET_COMMIT, JOIN_GROUP, HEARTBEAT, SYNC_GROUP],
        4,
        &[Fault::DropResponse, Fault::Error(16), Fault::Close, Fault::Error(15), Fault::Error(14), Fault::Error(6)],
    );
    let shared: Shared = Arc::new((Mutex::default(), watch::channel(0).0));
    let a = Member::start(&client, &group, &topic, "a", &shared).await;
    let b = Member::start(&client, &group, &topic, "b", &shared).await;
    for round in 0..10 {
        produce(&client, &topic, 4, round * 100..(round + 1) * 100, Compression::None).await;
        until_handled(&shared, 0..(round + 1) * 100).await;
    }
    broker.clear_hook();
    a.stop(true).await;
    b.stop(true).await;
    for (at, owners) in &shared.0.lock().unwrap().owners {
        assert_eq!(owners.len(), 1, "generation and partition {at:?} had {owners:?}");
    }
}

#[tokio::test]
async fn a_member_without_heartbeat_responses_loses_its_partitions() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let mut consumer = client.consumer(test.group("g")).subscribe([&topic]).await.unwrap();
    assigned(&mut consumer).await;
    broker.set_hook(|request| (request.api_key == HEARTBEAT).then_some(Fault::Close));
    loop {
        match next(&mut consumer).await {
            ConsumerEvent::Lost(partitions) => {
                assert_eq!(partitions.len(), 2);
                break;
            }
            ConsumerEvent::Records(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let e = consumer.commit(&[(TopicPartition::new(&*topic, 0), 0)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership);
    broker.clear_hook();
    assert_eq!(assigned(&mut consumer).await.len(), 2);
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn close_leaves_no_connection() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 3).await;
    let group = test.group("g");
    let mut config = client.config().consumer.clone();
    config.assignors = vec![AssignorKind::Range];
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    assigned(&mut first).await;
    // Its JoinGroup waits: the first member does not release its partitions.
    let second = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    let revocation = loop {
        if let ConsumerEvent::Revoked(revocation) = next(&mut first).await {
            break revocation;
        }
    };
    soon(second.close()).await.unwrap();
    drop(revocation);
    assert_eq!(assigned(&mut first).await.len(), 3);
    assert_eq!(broker.group_members(&group).len(), 1);
    soon(first.close()).await.unwrap();
    assert!(broker.group_members(&group).is_empty());
    let alone = client.reader().config(config.clone()).assign(all(&topic, 3, StartOffset::Earliest)).await.unwrap();
    soon(alone.abort()).await;
    let dropped = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    drop(dropped);
    client.close().await;
    while broker.connection_count() > 0 {
        tokio::task::yield_now().await;
    }
}
