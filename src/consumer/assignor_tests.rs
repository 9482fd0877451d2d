#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use kafka_protocol::protocol::Decodable;
use proptest::prelude::*;

use super::*;

fn member(id: &str, topics: &[&str]) -> GroupMember {
    GroupMember { id: id.into(), instance_id: None, topics: topics.iter().map(|t| (*t).into()).collect() }
}

fn counts(list: &[(&str, i32)]) -> BTreeMap<String, i32> {
    list.iter().map(|(t, n)| ((*t).into(), *n)).collect()
}

fn show(a: &Assignments, id: &str) -> String {
    a[id].iter().map(|p| format!("{}{}", p.topic, p.partition)).collect::<Vec<_>>().join(" ")
}

/// The examples in the documentation of Java's `RangeAssignor` and `RoundRobinAssignor`.
#[test]
fn java_examples() {
    let both = [member("C1", &["t1", "t0"]), member("C0", &["t0", "t1"])];
    let topics = counts(&[("t0", 3), ("t1", 3)]);
    let a = AssignorKind::Range.assign(&both, &topics);
    assert_eq!(show(&a, "C0"), "t00 t01 t10 t11");
    assert_eq!(show(&a, "C1"), "t02 t12");
    let a = AssignorKind::RoundRobin.assign(&both, &topics);
    assert_eq!(show(&a, "C0"), "t00 t02 t11");
    assert_eq!(show(&a, "C1"), "t01 t10 t12");

    let uneven = [member("C0", &["t0"]), member("C1", &["t0", "t1"]), member("C2", &["t0", "t1", "t2"])];
    let topics = counts(&[("t0", 1), ("t1", 2), ("t2", 3)]);
    let a = AssignorKind::RoundRobin.assign(&uneven, &topics);
    assert_eq!(show(&a, "C0"), "t00");
    assert_eq!(show(&a, "C1"), "t10");
    assert_eq!(show(&a, "C2"), "t11 t20 t21 t22");
}

/// `RoundRobinAssignorTest.testTwoStaticConsumersTwoTopicsSixPartitions` and the order of static members before others.
#[test]
fn static_members_come_first_by_instance_id() {
    let fixed = |id: &str, instance: &str| GroupMember { instance_id: Some(instance.into()), ..member(id, &["t"]) };
    let members = [member("a", &["t"]), fixed("z", "i1"), fixed("b", "i2")];
    let a = AssignorKind::RoundRobin.assign(&members, &counts(&[("t", 4)]));
    assert_eq!((show(&a, "z"), show(&a, "b"), show(&a, "a")), ("t0 t3".into(), "t1".into(), "t2".into()));
}

#[test]
fn a_topic_that_does_not_exist_goes_to_no_one() {
    for kind in [AssignorKind::Range, AssignorKind::RoundRobin] {
        let a = kind.assign(&[member("m", &["gone", "t"]), member("n", &["gone"])], &counts(&[("t", 1), ("other", 5)]));
        assert_eq!((show(&a, "m"), show(&a, "n")), ("t0".into(), String::new()));
        assert_eq!(AssignorKind::by_name(kind.name()), Some(kind));
    }
    assert_eq!(AssignorKind::by_name("cooperative-sticky"), None);
}

#[test]
fn subscriptions_of_every_version_are_read() {
    let topics = vec![StrBytes::from_static_str("b"), StrBytes::from_static_str("a")];
    for version in 0..=3 {
        let owned =
            vec![OwnedTopic::default().with_topic(TopicName(StrBytes::from_static_str("b"))).with_partitions(vec![1])];
        let mut message = ConsumerProtocolSubscription::default()
            .with_topics(topics.clone())
            .with_user_data(Some(Bytes::from_static(b"x")));
        if version > 0 {
            message.owned_partitions = owned;
        }
        let mut buf = BytesMut::new();
        buf.put_i16(version);
        message.encode(&mut buf, version).unwrap();
        assert_eq!(decode_subscription(&buf).unwrap(), ["a".to_owned(), "b".to_owned()].into());
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    for bytes in [
        &[][..],
        &[0],
        &[255, 255, 0, 0, 0, 0],
        &[0, 0, 0x7f, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 1, 0x7f, 0xff],
        &[0, 0, 0, 0, 0, 1, 255, 255],
        &[0, 0, 0, 0, 0, 1, 0, 1, 0xff],
    ] {
        assert_eq!(decode_subscription(bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
    }
    assert_eq!(
        decode_assignment(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0x7f, 0, 0, 0]).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(decode_assignment(&[]).unwrap(), []);
}

fn groups() -> impl Strategy<Value = (Vec<GroupMember>, BTreeMap<String, i32>)> {
    let member = (proptest::option::of("[a-z]{1,3}"), proptest::collection::btree_set("[a-e]", 0..5));
    let members = proptest::collection::btree_map("[a-z]{1,4}", member, 1..8);
    let members = members.prop_map(|m| {
        m.into_iter()
            .map(|(id, (instance, topics))| GroupMember {
                // Instance ids are unique in a group.
                instance_id: instance.map(|i| format!("{i}-{id}")),
                id,
                topics,
            })
            .collect()
    });
    (members, proptest::collection::btree_map("[a-f]", 0..12_i32, 0..6))
}

proptest! {
    #[test]
    fn complete_and_balanced((members, counts) in groups(), swap in any::<u64>()) {
        for kind in [AssignorKind::Range, AssignorKind::RoundRobin] {
            let all = kind.assign(&members, &counts);
            prop_assert_eq!(all.len(), members.len());
            let mut seen = BTreeSet::new();
            for m in &members {
                for p in &all[&m.id] {
                    prop_assert!(m.topics.contains(&*p.topic), "only subscribers get a topic");
                    prop_assert!(seen.insert(p.clone()), "each partition has one owner");
                }
            }
            let wanted = |t: &String| members.iter().any(|m| m.topics.contains(t));
            let total: i32 = counts.iter().filter(|(t, _)| wanted(t)).map(|(_, n)| n).sum();
            prop_assert_eq!(seen.len(), total as usize, "each partition someone wants has an owner");

            // Range is fair per topic; round robin over all, where everyone subscribes to the same.
            for topic in counts.keys().filter(|_| kind == AssignorKind::Range) {
                let of = |m: &&GroupMember| all[&m.id].iter().filter(|p| *p.topic == **topic).count();
                let shares: Vec<_> = members.iter().filter(|m| m.topics.contains(topic)).map(|m| of(&m)).collect();
                prop_assert!(shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1);
            }
            if members.iter().all(|m| m.topics == members[0].topics) {
                let shares: Vec<_> = members.iter().map(|m| all[&m.id].len()).collect();
                if kind == AssignorKind::RoundRobin {
                    prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
                }
            }

            // The order in which the broker lists members must not matter.
            let mut shuffled = members.clone();
            fastrand::Rng::with_seed(swap).shuffle(&mut shuffled);
            prop_assert_eq!(kind.assign(&shuffled, &counts), all);
        }
    }

    #[test]
    fn what_is_written_is_what_kafkas_schema_says(
        topics in proptest::collection::btree_set("[a-z.]{1,9}", 0..6),
        partitions in proptest::collection::btree_set(("[a-c]", 0..9_i32), 0..12),
    ) {
        let partitions: Vec<_> = partitions.into_iter().map(|(t, p)| TopicPartition::new(t, p)).collect();
        let bytes = encode_subscription(&topics, &partitions, 7).unwrap();
        prop_assert_eq!(&decode_subscription(&bytes).unwrap(), &topics);
        let mut body = bytes.slice(2..);
        let theirs = ConsumerProtocolSubscription::decode(&mut body, WRITE_VERSION).unwrap();
        prop_assert!(body.is_empty());
        prop_assert_eq!(theirs.topics.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), topics);
        prop_assert_eq!(theirs.generation_id, 7);
        let owned = |t: &OwnedTopic| t.partitions.iter().map(|p| TopicPartition::new(t.topic.as_str(), *p)).collect::<Vec<_>>();
        prop_assert_eq!(theirs.owned_partitions.iter().flat_map(owned).collect::<Vec<_>>(), partitions.clone());

        let bytes = encode_assignment(&partitions).unwrap();
        prop_assert_eq!(decode_assignment(&bytes).unwrap(), partitions);
        ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), WRITE_VERSION).unwrap();
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        _ = decode_subscription(&bytes);
        _ = decode_assignment(&bytes);
    }
}
