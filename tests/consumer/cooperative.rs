//! Cooperative rebalances: members keep partitions that do not move.

use ailurus::consumer::{Assignments, Assignor, GroupMember, Topics};

use super::groups::{Member, Shared, until_handled};
use super::*;

/// A client that offers this assignor but knows of no rebalance in which it could keep anything.
#[derive(Debug)]
struct Eager;

impl Assignor for Eager {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        AssignorKind::CooperativeSticky.assign(topics, members)
    }
}

async fn owns(consumer: &Consumer, count: usize) {
    soon(async {
        while consumer.assignment().len() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Puts records into some partitions and has all of them read and committed. Nothing is taken meanwhile.
async fn read_on(consumer: &mut Consumer, client: &Client, topic: &str, partitions: &BTreeSet<i32>) {
    let producer = client.producer().start().unwrap();
    let mut open = BTreeMap::new();
    for p in partitions {
        let sent = producer.send(ProducerRecord::to(topic).value("-1").partition(*p)).await.unwrap();
        open.insert(*p, sent.await.unwrap().offset.unwrap());
    }
    producer.close(LONG).await.unwrap();
    while !open.is_empty() {
        match next(consumer).await {
            ConsumerEvent::Records(records) => {
                assert!(partitions.contains(&records.partition));
                consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
                if open.get(&records.partition).is_some_and(|last| records.next_offset > *last) {
                    open.remove(&records.partition);
                }
            }
            ConsumerEvent::Assigned(added) => assert_eq!(added, []),
            other => panic!("{other:?}"),
        }
    }
}

fn numbers_of(partitions: &[TopicPartition]) -> BTreeSet<i32> {
    partitions.iter().map(|p| p.partition).collect()
}

#[tokio::test]
async fn retained_partitions_are_read_throughout_a_rebalance() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 6).await;
    let (group, mut config) = (broker.group("g"), client.config().consumer.clone());
    config.assignors = vec![AssignorKind::CooperativeSticky];
    let mut first = client.consumer(&group).config(config.clone()).subscribe([&topic]).await.unwrap();
    assert_eq!(assigned(&mut first).await.len(), 6);

    // The third rebalance waits for the second member to release its revoked partitions.
    let mut eager = config.clone();
    eager.assignors = vec![AssignorKind::custom(Eager)];
    let mut second = client.consumer(&group).config(eager).subscribe([&topic]).await.unwrap();
    let (has, had) = oneshot::channel();
    let (held, holds) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let second = tokio::spawn(async move {
        let mut hold = Some((held, released));
        while assigned(&mut second).await.len() != 3 {}
        has.send(()).unwrap();
        loop {
            match second.recv().await {
                Ok(ConsumerEvent::Revoked(revocation)) => {
                    if let Some((held, released)) = hold.take() {
                        held.send(revocation.partitions.len()).unwrap();
                        released.await.unwrap();
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    let revocation = loop {
        if let ConsumerEvent::Revoked(revocation) = next(&mut first).await {
            break revocation;
        }
    };
    assert_eq!(revocation.partitions.len(), 3, "only what moves");
    let revoked_numbers = numbers_of(&revocation.partitions);
    let kept: BTreeSet<i32> = (0..6).filter(|p| !revoked_numbers.contains(p)).collect();
    read_on(&mut first, &client, &topic, &kept).await;
    drop(revocation);
    soon(had).await.unwrap();

    let third = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    assert_eq!(soon(holds).await.unwrap(), 3);
    while first.state() != ConsumerState::Joining {
        read_on(&mut first, &client, &topic, &kept).await;
    }
    let generation = first.generation();
    for _ in 0..10 {
        read_on(&mut first, &client, &topic, &kept).await;
    }
    assert_eq!((first.state(), first.generation()), (ConsumerState::Joining, generation), "all within the rebalance");

    release.send(()).unwrap();
    let moves = loop {
        match next(&mut first).await {
            ConsumerEvent::Revoked(revocation) => break revocation,
            ConsumerEvent::Lost(lost) => panic!("{lost:?}"),
            _ => {}
        }
    };
    assert_eq!(moves.partitions.len(), 1);
    drop(moves);
    owns(&third, 2).await;
    owns(&first, 2).await;
    assert!(numbers_of(&first.assignment()).is_subset(&kept));
    third.close().await.unwrap();
    first.close().await.unwrap();
    second.abort();
}

#[tokio::test]
async fn a_group_migrates_from_range_one_by_one() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 6).await;
    let group = broker.group("g");
    let shared: Shared = Arc::new((Mutex::default(), watch::channel(0).0));
    let put = |range| produce(&client, &topic, 6, range, Compression::None);
    let start = |name: &'static str, assignors: &[AssignorKind]| {
        let mut config = client.config().consumer.clone();
        config.assignors = assignors.to_vec();
        let (client, group, topic, shared) = (&client, &group, &topic, &shared);
        async move { Member::with(config, client, group, topic, name, shared).await }
    };
    const OLD: &[AssignorKind] = &[AssignorKind::Range];
    const BOTH: &[AssignorKind] = &[AssignorKind::CooperativeSticky, AssignorKind::Range];
    const NEW: &[AssignorKind] = &[AssignorKind::CooperativeSticky];

    put(0..300).await;
    let mut a = start("a", OLD).await;
    let mut b = start("b", OLD).await;
    a.owns(3).await;
    b.owns(3).await;
    a.stop(true).await;
    let mut a = start("a with both", BOTH).await;
    put(300..600).await;
    a.owns(3).await;
    b.owns(3).await;
    b.stop(true).await;
    let mut b = start("b with both", BOTH).await;
    put(600..900).await;
    a.owns(3).await;
    b.owns(3).await;
    until_handled(&shared, 0..900).await;
    // Only now is it cooperative: of three partitions one is revoked.
    shared.0.lock().unwrap().revoked.clear();
    let mut c = start("c", NEW).await;
    put(900..1200).await;
    for member in [&mut a, &mut b, &mut c] {
        member.owns(2).await;
    }
    until_handled(&shared, 0..1200).await;
    assert_eq!(shared.0.lock().unwrap().revoked, [1, 1]);
    for member in [a, b, c] {
        member.stop(true).await;
    }
    for (at, owners) in &shared.0.lock().unwrap().owners {
        assert_eq!(owners.len(), 1, "generation and partition {at:?} had {owners:?}");
    }
}

#[tokio::test]
async fn a_range_only_member_reverts_the_group() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    produce(&client, &topic, 4, 0..40, Compression::None).await;
    let mut first = client.consumer(&group).subscribe([&topic]).await.unwrap();
    assert_eq!(assigned(&mut first).await.len(), 4);
    let committer = first.committer();
    let mut config = client.config().consumer.clone();
    config.assignors = vec![AssignorKind::Range];
    let second = client.consumer(&group).config(config).subscribe([&topic]).await.unwrap();
    loop {
        match next(&mut first).await {
            ConsumerEvent::Lost(partitions) => break assert_eq!(partitions.len(), 4),
            ConsumerEvent::Records(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(assigned(&mut first).await.len(), 2);
    owns(&second, 2).await;
    for p in first.assignment() {
        let e = committer.commit(&[(p, 1)]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::GroupMembership, "what was lost and came back is another lease: {e}");
    }
    first.close().await.unwrap();
    second.close().await.unwrap();
}
