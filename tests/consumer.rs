//! Consumers: groups that share and hand over partitions, start offsets, the end of a log, trouble on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{
    Admin, Client, Compression, ConfigBuilder, Consumer, ConsumerConfig, ConsumerEvent, Error, ErrorKind, OffsetReset,
    Producer, ProducerRecord, Records, StartOffset, TopicPartition,
};
use ailurus_broker::Fault;
use support::TestBroker;
use tokio::sync::{oneshot, watch};

/// No test takes this long; one that does has failed.
const LONG: Duration = Duration::from_secs(60);
const FETCH: i16 = 1;
const OFFSET_COMMIT: i16 = 8;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const SYNC_GROUP: i16 = 14;

async fn connect(config: ConfigBuilder) -> Client {
    Client::connect(config.build().unwrap()).await.unwrap()
}

/// A client whose members are missed as early as the broker allows.
async fn client(broker: &TestBroker) -> Client {
    let session = broker.shortest_session();
    let config = broker.config().session_timeout(session).heartbeat_interval(session / 10);
    connect(config.rebalance_timeout(Duration::from_secs(20)).metadata_max_age(Duration::from_millis(500))).await
}

async fn topic(broker: &TestBroker, client: &Client, name: &str, partitions: i32) -> String {
    let topic = broker.topic(name);
    Admin::new(client).create_topic(&topic, partitions, None).await.unwrap();
    topic
}

/// Puts a record with each number as its value into partition number modulo `partitions`.
async fn produce(client: &Client, topic: &str, partitions: i32, numbers: Range<i32>, compression: Compression) {
    let producer = Producer::new(client, client.config().producer.clone()).unwrap();
    let mut sent = Vec::new();
    for n in numbers {
        let value = n.to_string();
        let record = ProducerRecord::to(topic).value(&value).partition(n % partitions).timestamp(i64::from(n) + 1);
        sent.push(producer.send(record.compression(compression)).await.unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

fn numbers(records: &Records) -> impl Iterator<Item = i32> + '_ {
    records.records.iter().map(|r| std::str::from_utf8(r.value.as_ref().unwrap()).unwrap().parse().unwrap())
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it takes too long")
}

async fn next(consumer: &mut Consumer) -> ConsumerEvent {
    soon(consumer.recv()).await.unwrap()
}

async fn next_records(consumer: &mut Consumer) -> Records {
    loop {
        if let ConsumerEvent::Records(records) = next(consumer).await {
            return records;
        }
    }
}

async fn assigned(consumer: &mut Consumer) -> Vec<TopicPartition> {
    loop {
        if let ConsumerEvent::Assigned(partitions) = next(consumer).await {
            return partitions;
        }
    }
}

/// Reads given partitions to their ends: what `exit at end` does.
async fn read_to_end(client: &Client, from: Vec<(TopicPartition, StartOffset)>, config: ConsumerConfig) -> Vec<i32> {
    let mut open: BTreeSet<_> = from.iter().map(|(p, _)| p.clone()).collect();
    let mut consumer = Consumer::assign(client, from, config).await.unwrap();
    let mut seen = Vec::new();
    while !open.is_empty() {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        if records.next_offset >= records.high_watermark {
            open.remove(&records.topic_partition());
        }
    }
    consumer.close().await.unwrap();
    seen
}

/// Reads with a group until nothing is left, commits all, and leaves.
async fn drain(client: &Client, group: &str, topic: &str, config: ConsumerConfig) -> Vec<i32> {
    let mut consumer = Consumer::subscribe(client, group, &[topic], config).await.unwrap();
    let mut open: BTreeSet<_> = assigned(&mut consumer).await.into_iter().collect();
    let mut seen = Vec::new();
    while !open.is_empty() {
        let records = next_records(&mut consumer).await;
        seen.extend(numbers(&records));
        consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
        if records.lag() == 0 {
            open.remove(&records.topic_partition());
        }
    }
    consumer.close().await.unwrap();
    seen
}

fn all(topic: &str, partitions: i32, from: StartOffset) -> Vec<(TopicPartition, StartOffset)> {
    (0..partitions).map(|p| (TopicPartition::new(topic, p), from)).collect()
}

fn sorted(mut numbers: Vec<i32>) -> Vec<i32> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_member_reads_all_and_the_next_one_goes_on_from_there() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    let (group, config) = (broker.group("g"), client.config().consumer.clone());
    for (range, compression) in
        [(0..1000, Compression::None), (1000..1500, Compression::gzip(6).unwrap()), (1500..1501, Compression::None)]
    {
        produce(&client, &topic, 3, range.clone(), compression).await;
        let seen = drain(&client, &group, &topic, config.clone()).await;
        assert_eq!(sorted(seen), range.collect::<Vec<_>>());
    }
    assert!(drain(&client, &group, &topic, config).await.is_empty(), "all is committed, and the end is told");
}

/// What members did, in the order in which they did it.
#[derive(Debug, Default)]
struct History {
    /// Generation and partition to the members that had it.
    owners: BTreeMap<(i32, i32), BTreeSet<String>>,
    handled: Vec<(String, i32)>,
}

/// A member that handles and commits until it is told to go.
struct Member {
    name: String,
    stop: oneshot::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    /// Numbers of its partitions.
    owns: watch::Receiver<Option<usize>>,
}

type Shared = Arc<(Mutex<History>, watch::Sender<usize>)>;

impl Member {
    async fn start(client: &Client, group: &str, topic: &str, name: &str, shared: &Shared) -> Self {
        let config = client.config().consumer.clone();
        let mut consumer = Consumer::subscribe(client, group, &[topic], config).await.unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let (tell, owns) = watch::channel(None);
        let (shared, me) = (Arc::clone(shared), name.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    leave = &mut stopped => {
                        if leave.unwrap() { consumer.close().await.unwrap() } else { consumer.abort().await }
                        return;
                    }
                    event = consumer.recv() => event.unwrap(),
                };
                match event {
                    ConsumerEvent::Assigned(partitions) => {
                        // None if that generation is over by now: then there is nothing to claim.
                        if let Some(generation) = consumer.generation() {
                            let mut history = shared.0.lock().unwrap();
                            for p in &partitions {
                                history.owners.entry((generation, p.partition)).or_default().insert(me.clone());
                            }
                        }
                        tell.send_replace(Some(partitions.len()));
                    }
                    ConsumerEvent::Revoked(revocation) => {
                        tell.send_replace(None);
                        drop(revocation);
                    }
                    ConsumerEvent::Lost(_) => _ = tell.send_replace(None),
                    ConsumerEvent::Records(records) => {
                        {
                            let mut history = shared.0.lock().unwrap();
                            history.handled.extend(numbers(&records).map(|n| (me.clone(), n)));
                            shared.1.send_replace(history.handled.len());
                        }
                        match consumer.commit(&[(records.topic_partition(), records.next_offset)]).await {
                            Ok(()) => {}
                            Err(e) => assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e:?}"),
                        }
                    }
                    _ => {}
                }
            }
        });
        Self { name: name.into(), stop, task, owns }
    }

    async fn owns(&mut self, count: usize) {
        let name = self.name.clone();
        let has = tokio::time::timeout(LONG, self.owns.wait_for(|n| *n == Some(count))).await;
        has.unwrap_or_else(|_| panic!("{name} never had {count} partitions")).unwrap();
    }

    async fn stop(self, leave: bool) {
        self.stop.send(leave).unwrap();
        self.task.await.unwrap();
    }
}

async fn until_handled(shared: &Shared, wanted: Range<i32>) {
    let done = || {
        let seen: BTreeSet<i32> = shared.0.lock().unwrap().handled.iter().map(|(_, n)| *n).collect();
        wanted.clone().filter(|n| !seen.contains(n)).collect::<Vec<_>>()
    };
    let mut changed = shared.1.subscribe();
    let in_time = tokio::time::timeout(LONG, changed.wait_for(|_| done().is_empty())).await.is_ok();
    assert!(in_time, "never handled: {:?}", done());
}

#[tokio::test]
async fn members_come_leave_and_die_and_nothing_is_skipped() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 6).await;
    let group = broker.group("g");
    let shared: Shared = Arc::new((Mutex::default(), watch::channel(0).0));
    let put = |range| produce(&client, &topic, 6, range, Compression::None);

    put(0..600).await;
    let mut a = Member::start(&client, &group, &topic, "a", &shared).await;
    a.owns(6).await;
    let mut b = Member::start(&client, &group, &topic, "b", &shared).await;
    put(600..1200).await;
    a.owns(3).await;
    b.owns(3).await;
    let mut c = Member::start(&client, &group, &topic, "c", &shared).await;
    for member in [&mut a, &mut b, &mut c] {
        member.owns(2).await;
    }
    put(1200..1800).await;
    until_handled(&shared, 0..1800).await;
    b.stop(true).await;
    put(1800..2400).await;
    a.owns(3).await;
    c.owns(3).await;
    c.stop(false).await; // as a crash would: the group finds out when its session expires
    put(2400..3000).await;
    a.owns(6).await;
    until_handled(&shared, 0..3000).await;
    a.stop(true).await;

    let history = shared.0.lock().unwrap();
    for (at, owners) in &history.owners {
        assert_eq!(owners.len(), 1, "generation and partition {at:?} had {owners:?}");
    }
    for name in ["a", "b", "c"] {
        assert!(history.handled.iter().any(|(who, _)| who == name), "{name} handled nothing");
    }
}

#[tokio::test]
async fn a_group_that_was_just_left_is_joined_again_by_two() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    let shared: Shared = Arc::new((Mutex::default(), watch::channel(0).0));
    for _ in 0..2 {
        let mut a = Member::start(&client, &group, &topic, "a", &shared).await;
        let mut b = Member::start(&client, &group, &topic, "b", &shared).await;
        a.owns(2).await;
        b.owns(2).await;
        a.stop(true).await;
        b.stop(true).await;
    }
    let group = Admin::new(&client).describe_group(&group).await.unwrap();
    assert!(group.members.is_empty(), "who closes leaves: {group:?}");
}

#[tokio::test]
async fn what_is_revoked_stays_ours_until_it_is_given_up() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let (group, config) = (broker.group("g"), client.config().consumer.clone());
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let mut first = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
    assert_eq!(first.state(), ConsumerState::Joining);
    assert_eq!(assigned(&mut first).await.len(), 2);
    assert_eq!((first.state(), first.assignment().len()), (ConsumerState::Member, 2));
    let records = next_records(&mut first).await;
    let (p, handled) = (records.topic_partition(), records.next_offset - 3);
    let committer = first.committer();

    let mut second = Consumer::subscribe(&client, &group, &[&topic], config).await.unwrap();
    let revocation = loop {
        if let ConsumerEvent::Revoked(revocation) = next(&mut first).await {
            break revocation;
        }
    };
    assert_eq!(revocation.partitions.len(), 2);
    // Heartbeats go on, and so do commits.
    tokio::time::timeout(broker.shortest_session() * 2, second.recv()).await.unwrap_err();
    first.commit(&[(p.clone(), handled)]).await.unwrap();
    drop(revocation);
    let theirs = assigned(&mut second).await;
    let ours = assigned(&mut first).await;
    assert_eq!((theirs.len(), ours.len()), (1, 1));
    assert_ne!(theirs, ours);

    let other = theirs[0].clone();
    let e = first.commit(&[(other, 1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
    let e = committer.commit(&[(p.clone(), handled + 1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "an old assignment commits nothing: {e}");
    let owner = if ours[0] == p { &mut first } else { &mut second };
    let again = next_records(owner).await;
    assert_eq!(again.records[0].offset, handled, "it goes on where the last commit was");
    assert_eq!(owner.committed(&p), Some(handled));
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_is_not_answered_ends_at_its_deadline() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let group = broker.group("g");
    let mut config = client.config().consumer.clone();
    config.rebalance_timeout = Duration::from_secs(2);
    let mut first = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
    assigned(&mut first).await;
    let mut second = Consumer::subscribe(&client, &group, &[&topic], config).await.unwrap();
    assert_eq!(assigned(&mut second).await.len(), 1, "the group does not wait for a program that does not listen");
    // What was fetched for it meanwhile is discarded.
    let event = next(&mut first).await;
    assert!(matches!(&event, ConsumerEvent::Lost(partitions) if partitions.len() == 2), "{event:?}");
    assert_eq!(assigned(&mut first).await.len(), 1);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn reading_starts_where_it_is_told_to() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    produce(&client, &topic, 1, 0..100, Compression::None).await;
    let config = client.config().consumer.clone();
    for (from, first) in [
        (StartOffset::Earliest, 0),
        (StartOffset::Offset(40), 40),
        (StartOffset::Timestamp(71), 70),
        (StartOffset::Latest, 100),
        (StartOffset::Timestamp(1_000_000), 100),
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
async fn a_group_that_starts_at_the_end_skips_nothing_from_there_on() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let group = broker.group("g");
    let mut config = client.config().consumer.clone();
    config.offset_reset = OffsetReset::Latest;
    produce(&client, &topic, 2, 0..10, Compression::None).await;
    // This one finds the ends and dies before it has handled anything.
    let mut first = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
    let mut ends: BTreeSet<_> = assigned(&mut first).await.into_iter().collect();
    while !ends.is_empty() {
        let p = next_records(&mut first).await.topic_partition();
        while first.committed(&p).is_none() {
            tokio::task::yield_now().await;
        }
        ends.remove(&p);
    }
    first.close().await.unwrap();
    produce(&client, &topic, 2, 10..20, Compression::None).await;
    let seen = drain(&client, &group, &topic, config).await;
    assert_eq!(sorted(seen), (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_empty_partition_tells_its_end() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 3).await;
    let config = client.config().consumer.clone();
    assert!(read_to_end(&client, all(&topic, 3, StartOffset::Earliest), config).await.is_empty());
}

#[tokio::test]
async fn a_group_notices_that_its_topic_grows() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let config = client.config().consumer.clone();
    let mut consumer = Consumer::subscribe(&client, &broker.group("g"), &[&topic], config).await.unwrap();
    assert_eq!(assigned(&mut consumer).await.len(), 1);
    Admin::new(&client).create_partitions(&topic, 3).await.unwrap();
    assert_eq!(assigned(&mut consumer).await.len(), 3);
    produce(&client, &topic, 3, 0..30, Compression::None).await;
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.extend(numbers(&next_records(&mut consumer).await));
    }
    assert_eq!(sorted(seen), (0..30).collect::<Vec<_>>());
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_topic_that_is_deleted_and_created_again_is_read_from_its_beginning() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    // Metadata of its own, at its default age: only the missing topic makes it look again.
    let reader = connect(broker.config()).await;
    let config = client.config().consumer.clone();
    let mut consumer = Consumer::subscribe(&reader, &broker.group("g"), &[&topic], config).await.unwrap();
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
            soon(async { while Admin::new(&client).create_topic(&topic, 2, None).await.is_err() {} }).await;
        }
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn large_compressed_batches_come_whole_and_in_order() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let producer = Producer::new(&client, client.config().producer.clone()).unwrap();
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
    let mut consumer = Consumer::assign(&client, all(&topic, 2, StartOffset::Earliest), config).await.unwrap();
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
async fn a_partition_that_is_handled_slowly_does_not_hold_up_the_others() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    // In many small batches: one comes whole, however large it is.
    let small = connect(broker.config().batch_size(1_usize << 10)).await;
    produce(&small, &topic, 2, 0..4000, Compression::None).await;
    let mut config = client.config().consumer.clone();
    config.prefetch_bytes = 64 << 10;
    config.partition_fetch_bytes = 2 << 10;
    let mut consumer = Consumer::assign(&client, all(&topic, 2, StartOffset::Earliest), config).await.unwrap();
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
async fn what_cannot_be_read_is_refused() {
    let broker = support::broker().await;
    let client = connect(broker.config().allow_auto_topic_creation(false)).await;
    let config = client.config().consumer.clone();
    let (missing, group) = (broker.topic("missing"), broker.group("g"));
    let kind = |e: Error| (e.kind(), e.full());
    let (k, text) = kind(Consumer::subscribe(&client, &group, &[&missing], config.clone()).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic);
    assert!(text.contains(&missing) && text.contains(&group), "{text}");
    let from = all(&missing, 1, StartOffset::Earliest);
    let (k, text) = kind(Consumer::assign(&client, from, config.clone()).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic, "{text}");
    let topic = topic(&broker, &client, "t", 1).await;
    let from = vec![(TopicPartition::new(&*topic, 1), StartOffset::Earliest)];
    let (k, text) = kind(Consumer::assign(&client, from, config.clone()).await.unwrap_err());
    assert_eq!(k, ErrorKind::UnknownTopic);
    assert!(text.contains("1 partitions"), "{text}");
    for topics in [&[][..], &[&*topic]] {
        let name = if topics.is_empty() { &*group } else { "" };
        let e = Consumer::subscribe(&client, name, topics, config.clone()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    }
    let alone = Consumer::assign(&client, all(&topic, 1, StartOffset::Earliest), config.clone()).await.unwrap();
    let e = alone.commit(&[(TopicPartition::new(&*topic, 0), 0)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
    alone.close().await.unwrap();

    let mut config = config;
    config.session_timeout = Duration::from_millis(3); // less than brokers allow
    config.heartbeat_interval = Duration::from_millis(1);
    let mut refused = Consumer::subscribe(&client, &group, &[&topic], config).await.unwrap();
    let e = soon(refused.recv()).await.unwrap_err();
    assert!(e.full().contains("REDPANDA_SESSION_TIMEOUT") && e.full().contains(&group), "{}", e.full());
    assert_eq!(refused.state(), ConsumerState::Closed);
    assert_eq!(soon(refused.recv()).await.unwrap_err().full(), e.full(), "it is told again");
    refused.close().await.unwrap();
}

// From here on with faults that only the embedded broker can be asked for.

#[tokio::test]
async fn offsets_without_a_record_count_as_read() {
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
    assert_eq!(broker.committed(&test.group("g"), &topic, 0), Some(31));
}

#[tokio::test]
async fn a_damaged_batch_is_told_once_and_never_skipped() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let mut batch = broker.log_batches(&topic, 0).unwrap()[0].to_vec();
    let last = batch.len() - 1;
    batch[last] ^= 1;
    let at = broker.append_raw_batch(&topic, 0, &batch).unwrap();
    let mut consumer =
        Consumer::assign(&client, all(&topic, 2, StartOffset::Earliest), client.config().consumer.clone())
            .await
            .unwrap();
    let mut seen = Vec::new();
    let e = loop {
        match soon(consumer.recv()).await {
            Ok(ConsumerEvent::Records(records)) => seen.extend(numbers(&records)),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.full().contains(&format!("{topic}/0")) && e.full().contains(&format!("offset {at}")), "{}", e.full());
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
async fn leaders_move_and_brokers_go_while_it_reads() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 3).await;
    let mut config = client.config().consumer.clone();
    config.partition_fetch_bytes = 1 << 10;
    let mut consumer = Consumer::assign(&client, all(&topic, 3, StartOffset::Earliest), config).await.unwrap();
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
async fn a_coordinator_that_moves_costs_nothing() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let group = test.group("g");
    let mut consumer = Consumer::subscribe(&client, &group, &[&topic], client.config().consumer.clone()).await.unwrap();
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
        assert_eq!(broker.committed(&group, &topic, 0), Some(i64::from(round) + 1));
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
async fn lost_answers_and_errors_on_the_way_lose_no_record() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 4).await;
    let group = test.group("g");
    spoil(
        broker,
        &[FETCH, OFFSET_COMMIT, JOIN_GROUP, HEARTBEAT, SYNC_GROUP],
        4,
        &[Fault::LoseAnswer, Fault::Error(16), Fault::Close, Fault::Error(15), Fault::Error(14), Fault::Error(6)],
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
async fn a_member_whose_heartbeats_are_not_answered_loses_its_partitions() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let mut consumer =
        Consumer::subscribe(&client, &test.group("g"), &[&topic], client.config().consumer.clone()).await.unwrap();
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
async fn closing_leaves_no_connection_whatever_is_under_way() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 3).await;
    let group = test.group("g");
    let config = client.config().consumer.clone();
    let mut first = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
    assigned(&mut first).await;
    // Its JoinGroup is parked: the first one does not give up its partitions.
    let second = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
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
    let alone = Consumer::assign(&client, all(&topic, 3, StartOffset::Earliest), config.clone()).await.unwrap();
    soon(alone.abort()).await;
    let dropped = Consumer::subscribe(&client, &group, &[&topic], config).await.unwrap();
    drop(dropped);
    client.close().await;
    while broker.connections() > 0 {
        tokio::task::yield_now().await;
    }
}
