//! Records one by one and in batches, and what becomes of them when the group rebalances.

use ailurus::{Message, MessageStream};
use futures_util::{FutureExt, Stream, StreamExt};

use super::*;

fn number(message: &Message) -> i32 {
    std::str::from_utf8(message.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

async fn take(messages: &mut (impl Stream<Item = ailurus::Result<Message>> + Unpin), n: usize) -> Vec<Message> {
    let mut taken = Vec::new();
    while taken.len() < n {
        taken.push(soon(messages.next()).await.expect("it goes on").unwrap());
    }
    taken
}

#[tokio::test]
async fn a_stream_returns_each_record_once_in_order() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    produce(&client, &topic, 3, 0..300, Compression::None).await;
    let config = client.config().consumer.clone();
    let consumer = client.reader().config(config).assign(all(&topic, 3, StartOffset::Earliest)).await.unwrap();
    let mut messages = consumer.into_stream();
    let seen = take(&mut messages, 300).await;
    for p in 0..3 {
        let of: Vec<_> = seen.iter().filter(|m| m.partition == p).map(|m| (m.offset, number(m))).collect();
        assert_eq!(of, (0..100).map(|i| (i, i as i32 * 3 + p)).collect::<Vec<_>>());
    }
    // A future that is dropped while it waits takes nothing with it.
    assert!(messages.next().now_or_never().is_none());
    produce(&client, &topic, 3, 300..301, Compression::None).await;
    assert_eq!(number(&take(&mut messages, 1).await[0]), 300);
    let p = TopicPartition::new(&*topic, 1);
    messages.consumer().seek(&p, StartOffset::Offset(20)).unwrap();
    assert_eq!(take(&mut messages, 1).await[0].offset, 20);
    messages.consumer().seek(&p, StartOffset::Offset(90)).unwrap();
    let offsets: Vec<_> = take(&mut messages, 10).await.iter().map(|m| m.offset).collect();
    assert_eq!(offsets, (90..100).collect::<Vec<_>>(), "what was left of the batch is of before");
    let e = messages.committer().commit_message(&seen[0]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "without a group there is nothing to commit");
    assert_eq!(messages.consumer().assignment().len(), 3);
    messages.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_commits_under_its_assignment() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let (group, config) = (broker.group("g"), client.config().consumer.clone());
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let consumer = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    let mut first = consumer.into_stream();
    let seen = take(&mut first, 20).await;
    for message in &seen {
        first.committer().commit_message(message); // one behind the other, and no one waits for them
    }

    // Polling the stream releases revoked partitions, and earlier records are committed.
    let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    let theirs = tokio::select! {
        theirs = some(&mut second) => theirs[0].clone(),
        more = first.next() => panic!("{more:?}"),
    };
    assert_eq!(second.committed(&theirs), Some(10));
    let old = seen.iter().find(|m| m.partition == theirs.partition).unwrap();
    second.close().await.unwrap();

    // It comes back under another assignment, in whose name nothing is committed that came before.
    soon(async {
        while first.consumer().assignment().len() < 2 {
            tokio::select! {
                () = tokio::task::yield_now() => {}
                more = first.next() => panic!("{more:?}"),
            }
        }
    })
    .await;
    let e = soon(first.committer().commit_message(old)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
    produce(&client, &topic, 2, 20..22, Compression::None).await;
    for message in take(&mut first, 2).await {
        first.committer().commit_message(&message).await.unwrap();
    }
    assert_eq!(first.consumer().committed(&theirs), Some(11));
    first.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_auto_commits_by_record() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let group = broker.group("g");
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.auto_commit_interval = Some(Duration::from_millis(5));
    let p = TopicPartition::new(&*topic, 0);
    let mut messages = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap().into_stream();
    take(&mut messages, 4).await;
    soon(async {
        while messages.consumer().committed(&p) != Some(3) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(number(&take(&mut messages, 1).await[0]), 4);
    messages.close().await.unwrap();
    let mut messages = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap().into_stream();
    assert_eq!(number(&take(&mut messages, 1).await[0]), 5, "closing says that the last one was handled");
    messages.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_after_a_fatal_error() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let mut config = client.config().consumer.clone();
    config.session_timeout = Duration::from_millis(3); // less than brokers allow
    config.heartbeat_interval = Duration::from_millis(1);
    let consumer = client.consumer(broker.group("g")).config(config).subscribe([&topic]).await.unwrap();
    let seen: Vec<_> = soon(consumer.into_stream().collect::<Vec<_>>()).await;
    assert_eq!(seen.len(), 1);
    assert!(format!("{:#}", seen[0].as_ref().unwrap_err()).contains("ConsumerConfig::session_timeout"));
}

#[tokio::test]
async fn poll_returns_all_available_records_or_times_out() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    let config = client.config().consumer.clone();
    let mut consumer = client.reader().config(config).assign(all(&topic, 3, StartOffset::Earliest)).await.unwrap();
    let mut open: BTreeSet<_> = (0..3).collect();
    while !open.is_empty() {
        for records in soon(consumer.poll(LONG)).await.unwrap() {
            assert!(records.records.is_empty());
            open.remove(&records.partition); // each reports once that it is empty
        }
    }
    assert!(consumer.poll(Duration::from_millis(1)).await.unwrap().is_empty());
    produce(&client, &topic, 3, 0..300, Compression::None).await;
    let mut seen = Vec::new();
    while seen.len() < 300 {
        // One that is dropped while it waits takes nothing with it.
        let now = consumer.poll(LONG).now_or_never();
        let batch = match now {
            Some(batch) => batch.unwrap(),
            None => soon(consumer.poll(LONG)).await.unwrap(),
        };
        seen.extend(batch.iter().flat_map(numbers));
    }
    assert_eq!(sorted(seen), (0..300).collect::<Vec<_>>());
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn poll_releases_revoked_partitions_at_once() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let (group, mut config) = (broker.group("g"), client.config().consumer.clone());
    config.auto_commit_interval = Some(Duration::from_secs(3600));
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    let mut seen = 0;
    while seen < 20 {
        seen += soon(first.poll(LONG)).await.unwrap().iter().map(|r| r.records.len()).sum::<usize>();
    }
    let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    let theirs = tokio::select! {
        theirs = some(&mut second) => theirs,
        never = async { loop { first.poll(LONG).await.unwrap(); } } => never,
    };
    assert_eq!(second.committed(&theirs[0]), Some(10), "what was polled before counts as handled");
    second.close().await.unwrap();
    first.close().await.unwrap();
}

#[tokio::test]
async fn an_unpolled_stream_leaves_the_group() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let (group, mut config) = (broker.group("g"), client.config().consumer.clone());
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    config.max_poll_interval = Duration::from_millis(500);
    let mut hung = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap().into_stream();
    let first = take(&mut hung, 1).await.remove(0);
    // It handles that one, and does not come back for more.
    let mut other = client.consumer(&group).subscribe([&topic]).await.unwrap();
    soon(async {
        while other.assignment().len() != 2 {
            tokio::select! {
                event = other.recv() => drop(event.unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    let late = soon(hung.committer().commit_message(&first)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::GroupMembership, "{late}");
    other.close().await.unwrap();
    // What was left of its batch is not its own any more: it comes again, from the committed offset on.
    let again: Vec<_> = take(&mut hung, 20).await.iter().map(number).collect();
    assert_eq!(sorted(again), (0..20).collect::<Vec<_>>());
    hung.close().await.unwrap();
}

/// A stream is to be used from any task.
#[test]
fn a_stream_is_send() {
    fn send<T: Send + Unpin>() {}
    send::<MessageStream>();
}
