//! Members come, leave and die: who owns what, and what is committed.

use super::*;

#[tokio::test]
async fn the_next_member_continues_at_the_commit() {
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
    assert!(drain(&client, &group, &topic, config).await.is_empty(), "all is committed, and the end is reported");
}

/// Actions of the members, in their order.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Generation and partition to the members that had it.
    pub(super) owners: BTreeMap<(i32, i32), BTreeSet<String>>,
    handled: Vec<(String, i32)>,
    /// Number of partitions owned at a time.
    pub(super) revoked: Vec<usize>,
}

/// A member that handles and commits until it is stopped.
pub(super) struct Member {
    name: String,
    stop: oneshot::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    /// Numbers of its partitions.
    owns: watch::Receiver<Option<usize>>,
}

pub(super) type Shared = Arc<(Mutex<History>, watch::Sender<usize>)>;

impl Member {
    pub(super) async fn start(client: &Client, group: &str, topic: &str, name: &str, shared: &Shared) -> Self {
        Self::with(client.config().consumer.clone(), client, group, topic, name, shared).await
    }

    pub(super) async fn with(
        config: ConsumerConfig,
        client: &Client,
        group: &str,
        topic: &str,
        name: &str,
        shared: &Shared,
    ) -> Self {
        let mut consumer = client.consumer(group).config(config).subscribe([topic]).await.unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let (publish, owns) = watch::channel(None);
        let (shared, me) = (Arc::clone(shared), name.to_owned());
        let task = tokio::spawn(async move {
            let mut owned = BTreeSet::new();
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
                        owned.extend(partitions);
                        // None if that generation is over by now: then there is nothing to claim.
                        if let Some(generation) = consumer.generation() {
                            let mut history = shared.0.lock().unwrap();
                            for p in &owned {
                                history.owners.entry((generation, p.partition)).or_default().insert(me.clone());
                            }
                        }
                        publish.send_replace(Some(owned.len()));
                    }
                    ConsumerEvent::Revoked(revocation) => {
                        for p in &revocation.partitions {
                            assert!(owned.remove(p), "{me} never had {p}");
                        }
                        shared.0.lock().unwrap().revoked.push(revocation.partitions.len());
                        publish.send_replace(Some(owned.len()));
                    }
                    ConsumerEvent::Lost(partitions) => {
                        for p in &partitions {
                            owned.remove(p);
                        }
                        publish.send_replace(Some(owned.len()));
                    }
                    ConsumerEvent::Records(records) => {
                        assert!(owned.contains(&records.topic_partition()), "{me} reads what it does not have");
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

    pub(super) async fn owns(&mut self, count: usize) {
        let name = self.name.clone();
        let has = tokio::time::timeout(LONG, self.owns.wait_for(|n| *n == Some(count))).await;
        has.unwrap_or_else(|_| panic!("{name} never had {count} partitions")).unwrap();
    }

    pub(super) async fn stop(self, leave: bool) {
        self.stop.send(leave).unwrap();
        self.task.await.unwrap();
    }
}

pub(super) async fn until_handled(shared: &Shared, wanted: Range<i32>) {
    let done = || {
        let seen: BTreeSet<i32> = shared.0.lock().unwrap().handled.iter().map(|(_, n)| *n).collect();
        wanted.clone().filter(|n| !seen.contains(n)).collect::<Vec<_>>()
    };
    let mut changed = shared.1.subscribe();
    let in_time = tokio::time::timeout(LONG, changed.wait_for(|_| done().is_empty())).await.is_ok();
    assert!(in_time, "never handled: {:?}", done());
}

#[tokio::test]
async fn membership_changes_skip_no_record() {
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
async fn two_members_join_a_group_just_left() {
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
async fn a_revoked_partition_is_owned_until_released() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let (group, mut config) = (broker.group("g"), client.config().consumer.clone());
    config.assignors = vec![AssignorKind::Range];
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    assert_eq!(first.state(), ConsumerState::Joining);
    assert_eq!(assigned(&mut first).await.len(), 2);
    assert_eq!((first.state(), first.assignment().len()), (ConsumerState::Member, 2));
    let records = next_records(&mut first).await;
    let (p, handled) = (records.topic_partition(), records.next_offset - 3);
    let committer = first.committer();

    let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    let revocation = loop {
        if let ConsumerEvent::Revoked(revocation) = next(&mut first).await {
            break revocation;
        }
    };
    assert_eq!(revocation.partitions.len(), 2, "all, with an eager assignor");
    // Heartbeats go on, and so do commits.
    tokio::time::timeout(broker.shortest_session() * 2, second.recv()).await.unwrap_err();
    first.commit(&[(p.clone(), handled)]).await.unwrap();
    drop(revocation);
    let moved = assigned(&mut second).await;
    let retained = assigned(&mut first).await;
    assert_eq!((moved.len(), retained.len()), (1, 1));
    assert_ne!(moved, retained);

    let other = moved[0].clone();
    let e = first.commit(&[(other, 1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e}");
    let e = committer.commit(&[(p.clone(), handled + 1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GroupMembership, "an old assignment commits nothing: {e}");
    let owner = if retained[0] == p { &mut first } else { &mut second };
    let again = next_records(owner).await;
    assert_eq!(again.records[0].offset, handled, "it goes on where the last commit was");
    assert_eq!(owner.committed(&p), Some(handled));
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_revocation_ends_at_its_deadline() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    for (assignor, lost) in [(AssignorKind::Range, 2), (AssignorKind::CooperativeSticky, 1)] {
        let topic = topic(&broker, &client, assignor.name(), 2).await;
        let group = broker.group(assignor.name());
        let mut config = client.config().consumer.clone();
        config.rebalance_timeout = Duration::from_secs(2);
        config.assignors = vec![assignor];
        let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
        assigned(&mut first).await;
        let mut second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
        // The group does not wait for a program that does not listen.
        while assigned(&mut second).await.is_empty() {}
        // What was fetched for it meanwhile is discarded.
        let event = next(&mut first).await;
        assert!(matches!(&event, ConsumerEvent::Lost(partitions) if partitions.len() == lost), "{event:?}");
        assert_eq!((first.assignment().len(), second.assignment().len()), (1, 1));
        first.close().await.unwrap();
        second.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_group_that_starts_at_the_end_misses_nothing_after() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let group = broker.group("g");
    let mut config = client.config().consumer.clone();
    config.offset_reset = OffsetReset::Latest;
    produce(&client, &topic, 2, 0..10, Compression::None).await;
    // This one finds the ends and dies before it has handled anything.
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
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
async fn a_group_reads_added_partitions() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 1).await;
    let config = client.config().consumer.clone();
    let mut consumer = client.consumer(broker.group("g")).config(config).subscribe([&topic]).await.unwrap();
    assert_eq!(assigned(&mut consumer).await.len(), 1);
    Admin::new(&client).create_partitions(&topic, 3).await.unwrap();
    assert_eq!(assigned(&mut consumer).await.len(), 2);
    assert_eq!(consumer.assignment().len(), 3);
    produce(&client, &topic, 3, 0..30, Compression::None).await;
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.extend(numbers(&next_records(&mut consumer).await));
    }
    assert_eq!(sorted(seen), (0..30).collect::<Vec<_>>());
    consumer.close().await.unwrap();
}
