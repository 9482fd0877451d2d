//! Commits: which offsets, when, and with what metadata.

use super::*;

#[tokio::test]
async fn commit_metadata_reaches_the_next_owner() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let (group, config) = (broker.group("g"), client.config().consumer.clone());
    let (p, other) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
    let offset = OffsetAndMetadata::new(4).with_leader_epoch(0).with_metadata("{\"checked\":true} \u{1f43c}");

    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    assigned(&mut first).await;
    assert_eq!(first.committed_metadata(&p), None);
    let plain = OffsetAndMetadata::new(7);
    first.commit_with(&[(p.clone(), offset.clone()), (other.clone(), plain.clone())]).await.unwrap();
    assert_eq!(first.committed_metadata(&p), Some(offset.clone()));
    for (len, kind) in [(5_000, ErrorKind::Broker(12)), (40_000, ErrorKind::Config)] {
        let long = OffsetAndMetadata::new(5).with_metadata("x".repeat(len));
        let e = first.commit_with(&[(p.clone(), long)]).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
    first.close().await.unwrap();

    let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    assigned(&mut second).await;
    assert_eq!((second.committed(&p), second.committed_metadata(&p)), (Some(4), Some(offset)));
    assert_eq!(second.committed_metadata(&other), Some(plain));
    second.close().await.unwrap();
}

/// Waits until a member knows that an offset is committed.
async fn committed(consumer: &Consumer, p: &TopicPartition, offset: i64) {
    soon(async {
        while consumer.committed(p) != Some(offset) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Returns the offset that the next member of the group finds committed.
async fn left(client: &Client, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
    let mut consumer = client.consumer(group).subscribe([topic]).await.unwrap();
    while assigned(&mut consumer).await.len() as i32 != partitions {}
    let found = (0..partitions).map(|p| consumer.committed(&TopicPartition::new(topic, p))).collect();
    consumer.close().await.unwrap();
    found
}

/// Settings of consumers that commit by themselves.
fn auto(client: &Client, interval: Duration) -> ConsumerConfig {
    let mut config = client.config().consumer.clone();
    config.auto_commit_interval = Some(interval);
    config
}

#[tokio::test]
async fn auto_commit_covers_records_before_the_last_poll() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let group = broker.group("g");
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let config = auto(&client, Duration::from_millis(5));
    let mut consumer = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    let first = next_records(&mut consumer).await;
    let second = next_records(&mut consumer).await;
    assert_ne!(first.partition, second.partition);
    committed(&consumer, &first.topic_partition(), first.next_offset).await;
    assert_eq!(consumer.committed(&second.topic_partition()), None, "it may be in flight");
    consumer.abort().await;

    let found = left(&client, &group, &topic, 2).await;
    assert_eq!((found[first.partition as usize], found[second.partition as usize]), (Some(first.next_offset), None));
}

#[tokio::test]
async fn auto_commit_happens_at_revoke_and_close() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let group = broker.group("g");
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let config = auto(&client, Duration::from_secs(3600));
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(next_records(&mut first).await.next_offset, 10);
    }
    let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    // The next poll marks the delivered records as handled.
    let theirs = tokio::select! {
        theirs = some(&mut second) => theirs,
        never = async { loop { drop(next(&mut first).await) } } => never,
    };
    assert_eq!(second.committed(&theirs[0]), Some(10), "committed before the revocation");
    produce(&client, &topic, 2, 20..40, Compression::None).await;
    assert_eq!(next_records(&mut second).await.next_offset, 20);
    second.close().await.unwrap();
    first.close().await.unwrap();
    let found = left(&client, &group, &topic, 2).await;
    assert_eq!(found[theirs[0].partition as usize], Some(20), "{found:?}");
}

#[tokio::test]
async fn no_auto_commit_without_an_interval() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let group = broker.group("g");
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    let config = client.config().consumer.clone();
    let mut consumer = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    next_records(&mut consumer).await;
    consumer.close().await.unwrap();
    assert_eq!(left(&client, &group, &topic, 1).await, [None]);
}

#[tokio::test]
async fn close_waits_for_asynchronous_commits() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let group = broker.group("g");
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    let p = TopicPartition::new(&*topic, 0);
    if let Some(broker) = broker.embedded() {
        // The coordinator takes none of the first ones.
        let refused = Mutex::new(0);
        broker.set_hook(move |request| {
            let mut refused = refused.lock().unwrap();
            *refused += i32::from(request.api_key == OFFSET_COMMIT);
            (request.api_key == OFFSET_COMMIT && *refused <= 3).then_some(Fault::Error(14))
        });
    }
    let config = client.config().consumer.clone();
    let mut consumer = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    assigned(&mut consumer).await;
    let first = consumer.commit_async(&[(p.clone(), 1)]);
    for offset in 2..500 {
        drop(consumer.commit_async(&[(p.clone(), offset)]));
    }
    let last = consumer.commit_async(&[(p.clone(), 9)]);
    soon(first).await.unwrap();
    soon(last).await.unwrap();
    assert_eq!(consumer.committed(&p), Some(9), "the newest commit, not the retried one");
    let e = soon(consumer.commit_async(&[(TopicPartition::new(&*topic, 1), 9)])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership);
    soon(consumer.commit_async(&[])).await.unwrap();

    let unseen = consumer.commit_async(&[(p.clone(), 7)]);
    let committer = consumer.committer();
    consumer.close().await.unwrap();
    unseen.await.unwrap();
    assert_eq!(soon(committer.commit(&[(p, 8)])).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(left(&client, &group, &topic, 1).await, [Some(7)]);
}

// The following faults need the embedded broker.

#[tokio::test]
async fn commits_time_out() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let config = test.config().request_timeout(Duration::from_millis(300));
    let client = connect(config).await;
    let topic = topic(&test, &client, "t", 1).await;
    let p = TopicPartition::new(&*topic, 0);
    let group = test.group("g");
    for fault in [Fault::DelayResponse(LONG), Fault::Error(14), Fault::Close] {
        let config = client.config().consumer.clone();
        let mut consumer = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
        assigned(&mut consumer).await;
        broker.set_hook(move |request| (request.api_key == OFFSET_COMMIT).then_some(fault));
        let behind = consumer.commit_async(&[(p.clone(), 1)]);
        let e = soon(consumer.commit(&[(p.clone(), 2)])).await.unwrap_err();
        assert!(e.is_timeout() && e.to_string().contains(&group), "{fault:?}: {e}");
        assert!(soon(behind).await.unwrap_err().is_timeout());
        drop(consumer.commit_async(&[(p.clone(), 3)]));
        _ = soon(consumer.close()).await; // leaving may have met with the same connection's end
        broker.clear_hook();
    }
}
