#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const ALL: [AssignorKind; 4] =
    [AssignorKind::Range, AssignorKind::RoundRobin, AssignorKind::Sticky, AssignorKind::CooperativeSticky];

fn member(id: &str, topics: &[&str]) -> GroupMember {
    GroupMember { topics: topics.iter().map(|t| (*t).into()).collect(), ..GroupMember::new(id) }
}

fn topics(list: &[(&str, i32)]) -> Topics {
    list.iter().map(|(t, n)| ((*t).into(), TopicLayout::new(*n))).collect()
}

fn show(a: &Assignments, id: &str) -> String {
    a[id].iter().map(|p| format!("{}{}", p.topic, p.partition)).collect::<Vec<_>>().join(" ")
}

fn assign(kind: &AssignorKind, members: &[GroupMember], topics: &Topics) -> Assignments {
    kind.assign(topics, members)
}

/// Lets members report their assignment, as they do when they rejoin.
fn rejoin(kind: &AssignorKind, members: &mut [GroupMember], had: &Assignments, generation: i32) {
    for m in members {
        let last = had.get(&m.id).cloned().unwrap_or_default();
        m.user_data = kind.user_data(&m.topics, &last, generation);
        if kind.protocol() == RebalanceProtocol::Cooperative {
            m.owned = last;
            m.generation = Some(generation);
        }
    }
}

/// The examples in the documentation of Java's `RangeAssignor` and `RoundRobinAssignor`.
#[test]
fn java_examples() {
    let both = [member("C1", &["t1", "t0"]), member("C0", &["t0", "t1"])];
    let two = topics(&[("t0", 3), ("t1", 3)]);
    let a = assign(&AssignorKind::Range, &both, &two);
    assert_eq!((show(&a, "C0"), show(&a, "C1")), ("t00 t01 t10 t11".into(), "t02 t12".into()));
    let a = assign(&AssignorKind::RoundRobin, &both, &two);
    assert_eq!((show(&a, "C0"), show(&a, "C1")), ("t00 t02 t11".into(), "t01 t10 t12".into()));
}

/// The examples of `StickyAssignor`: three members of which one leaves, and three with different
/// subscriptions.
#[test]
fn java_examples_of_sticky() {
    for kind in [AssignorKind::Sticky, AssignorKind::CooperativeSticky] {
        let names = ["t0", "t1", "t2", "t3"];
        let four = topics(&names.map(|t| (t, 2)));
        let mut members = ["C0", "C1", "C2"].map(|id| member(id, &names)).to_vec();
        let first = assign(&kind, &members, &four);
        let mut sizes: Vec<_> = first.values().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 3, 3]);
        members.remove(1);
        rejoin(&kind, &mut members, &first, 1);
        let second = assign(&kind, &members, &four);
        for id in ["C0", "C2"] {
            assert!(first[id].iter().all(|p| second[id].contains(p)), "previous partitions stay");
            assert_eq!(second[id].len(), 4);
        }

        let uneven = [member("C0", &["t0"]), member("C1", &["t0", "t1"]), member("C2", &["t0", "t1", "t2"])];
        let a = assign(&kind, &uneven, &topics(&[("t0", 1), ("t1", 2), ("t2", 3)]));
        assert_eq!(
            (show(&a, "C0"), show(&a, "C1"), show(&a, "C2")),
            ("t00".into(), "t10 t11".into(), "t20 t21 t22".into())
        );
    }
}

/// Assignments of Java's own code: see tests/vectors/README.md.
#[test]
fn range_and_round_robin_assign_as_java_does() {
    let mut rows = 0;
    for line in include_str!("../../../../tests/vectors/consumer-protocol.txt").lines() {
        let cells: Vec<_> = line.split(' ').collect();
        if let ["cooperative-sticky", generation, bytes] = cells.as_slice() {
            let data = AssignorKind::CooperativeSticky.user_data(&BTreeSet::new(), &[], generation.parse().unwrap());
            let hex: String = data.unwrap().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, *bytes);
        }
        let ["assign", name, members, topics, result] = cells.as_slice() else { continue };
        rows += 1;
        let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        let members: Vec<_> = members
            .split(';')
            .map(|m| {
                let parts: Vec<_> = m.split(':').collect();
                GroupMember {
                    instance_id: some(parts[1]),
                    rack: some(parts[2]),
                    topics: parts[3].split('+').filter_map(some).collect(),
                    ..GroupMember::new(parts[0])
                }
            })
            .collect();
        let topics: Topics = topics
            .split(';')
            .map(|t| {
                let (name, racks) = t.split_once('=').unwrap();
                let racks: Vec<BTreeSet<_>> = racks
                    .strip_suffix('/')
                    .unwrap()
                    .split('/')
                    .map(|r| r.split('+').filter_map(some).collect())
                    .collect();
                (name.to_owned(), TopicLayout { partitions: racks.len() as i32, racks })
            })
            .collect();
        let kind = ALL.iter().find(|k| k.name() == *name).unwrap();
        let all = assign(kind, &members, &topics);
        let shown: Vec<_> = all
            .iter()
            .map(|(id, p)| {
                let mut p: Vec<_> = p.iter().map(|p| format!("{}-{}", p.topic, p.partition)).collect();
                p.sort();
                format!("{id}={}", p.join(","))
            })
            .collect();
        assert_eq!(shown.join(";"), *result, "{line}");
    }
    assert_eq!(rows, 120);
}

#[test]
fn static_members_come_first_by_instance_id() {
    let fixed = |id: &str, instance: &str| GroupMember { instance_id: Some(instance.into()), ..member(id, &["t"]) };
    let members = [member("a", &["t"]), fixed("z", "i1"), fixed("b", "i2")];
    let a = assign(&AssignorKind::RoundRobin, &members, &topics(&[("t", 4)]));
    assert_eq!((show(&a, "z"), show(&a, "b"), show(&a, "a")), ("t0 t3".into(), "t1".into(), "t2".into()));
}

#[test]
fn missing_topic_is_assigned_to_nobody() {
    for kind in ALL {
        let members = [member("m", &["gone", "t"]), member("n", &["gone"])];
        let a = assign(&kind, &members, &topics(&[("gone", 0), ("t", 1), ("other", 5)]));
        assert_eq!((show(&a, "m"), show(&a, "n")), ("t0".into(), String::new()));
    }
}

#[test]
fn balances_by_a_chain_of_moves() {
    // a and b share s, b and c share t: a has 3 of s, b 2 of t, c 1 of t.
    let mut members = vec![member("a", &["s"]), member("b", &["s", "t"]), member("c", &["t"])];
    let all = topics(&[("s", 3), ("t", 3)]);
    let parts = |t: &str, list: &[i32]| list.iter().map(|p| TopicPartition::new(t, *p)).collect::<Vec<_>>();
    let had = Assignments::from([
        ("a".into(), parts("s", &[0, 1, 2])),
        ("b".into(), parts("t", &[0, 1])),
        ("c".into(), parts("t", &[2])),
    ]);
    rejoin(&AssignorKind::Sticky, &mut members, &had, 1);
    let a = assign(&AssignorKind::Sticky, &members, &all);
    assert_eq!(a.values().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn cooperative_moves_take_two_rebalances() {
    let kind = AssignorKind::CooperativeSticky;
    let four = topics(&[("t", 4)]);
    let mut members = vec![member("a", &["t"])];
    let first = assign(&kind, &members, &four);
    members.push(member("b", &["t"]));
    rejoin(&kind, &mut members, &first, 1);
    let second = assign(&kind, &members, &four);
    assert_eq!((second["a"].len(), second["b"].len()), (2, 0), "a revokes two, b gets them by the next rebalance");
    rejoin(&kind, &mut members, &second, 2);
    let third = assign(&kind, &members, &four);
    assert_eq!(third["a"], second["a"]);
    assert_eq!(third["b"].len(), 2);
}

#[test]
fn newest_claim_wins_and_equal_claims_lose() {
    let kind = AssignorKind::CooperativeSticky;
    let one = topics(&[("t", 1)]);
    let claim = |id: &str, generation| GroupMember {
        owned: vec![TopicPartition::new("t", 0)],
        generation: Some(generation),
        ..member(id, &["t"])
    };
    let a = assign(&kind, &[claim("a", 4), claim("b", 5), member("c", &["t"])], &one);
    assert_eq!(show(&a, "b"), "t0");
    let a = assign(&kind, &[claim("a", 5), claim("b", 5), member("c", &["t"])], &one);
    assert!(a.values().all(Vec::is_empty), "both revoke it first");
    // Older clients put the generation into the user data instead of the subscription.
    let old = GroupMember { generation: None, user_data: Some(Bytes::from_static(&[0, 0, 0, 9])), ..claim("a", 0) };
    let a = assign(&kind, &[old, claim("b", 5)], &one);
    assert_eq!(show(&a, "a"), "t0");
}

#[test]
fn partitions_go_to_members_in_the_rack_of_a_replica() {
    let rack = |r: &str| BTreeSet::from([r.to_owned()]);
    let racks: Vec<_> = ["x", "y", "z", "x", "y", "z"].map(rack).into();
    let layout = TopicLayout { partitions: 6, racks };
    let all = Topics::from([("t".to_owned(), layout)]);
    let members = ["z", "y", "x"].map(|r| GroupMember { rack: Some(r.into()), ..member(&format!("on {r}"), &["t"]) });
    for kind in [AssignorKind::Range, AssignorKind::Sticky, AssignorKind::CooperativeSticky] {
        let a = assign(&kind, &members, &all);
        assert_eq!(
            (show(&a, "on x"), show(&a, "on y"), show(&a, "on z")),
            ("t0 t3".into(), "t1 t4".into(), "t2 t5".into())
        );
    }
}

fn groups() -> impl Strategy<Value = (Vec<GroupMember>, Topics)> {
    let names = proptest::collection::btree_set("[a-e]", 0..5);
    let rack = || proptest::option::of("[xyz]");
    let member = (proptest::option::of("[a-z]{1,3}"), names, rack());
    let members = proptest::collection::btree_map("[a-z]{1,4}", member, 1..8);
    let layout = (0..12_i32, proptest::collection::vec(proptest::collection::btree_set("[xyz]", 0..3), 12));
    let same = any::<bool>();
    (members, proptest::collection::btree_map("[a-f]", layout, 0..6), same, any::<bool>()).prop_map(
        |(members, topics, same, racks)| {
            let topics: Topics = topics
                .into_iter()
                .map(|(name, (partitions, mut on))| {
                    on.truncate(partitions as usize);
                    (name, TopicLayout { partitions, racks: if racks { on } else { vec![] } })
                })
                .collect();
            let members = members.into_iter().map(|(id, (instance, wants, rack))| GroupMember {
                // Instance ids are unique in a group.
                instance_id: instance.map(|i| format!("{i}-{id}")),
                topics: if same { topics.keys().cloned().collect() } else { wants },
                rack: rack.filter(|_| racks),
                ..GroupMember::new(id)
            });
            (members.collect(), topics)
        },
    )
}

/// Checks that each partition with subscribers has one owner, among them.
fn complete(members: &[GroupMember], topics: &Topics, all: &Assignments) -> Result<(), TestCaseError> {
    prop_assert_eq!(all.len(), members.len());
    let mut seen = BTreeSet::new();
    for m in members {
        for p in &all[&m.id] {
            prop_assert!(m.topics.contains(&*p.topic), "only subscribers get a topic");
            prop_assert!(seen.insert(p.clone()), "each partition has one owner");
            prop_assert!((0..topics[&*p.topic].partitions).contains(&p.partition));
        }
    }
    let wanted = |t: &String| members.iter().any(|m| m.topics.contains(t));
    let total: i32 = topics.iter().filter(|(t, _)| wanted(t)).map(|(_, l)| l.partitions).sum();
    prop_assert_eq!(seen.len(), total as usize, "each partition with subscribers has an owner");
    Ok(())
}

fn spread(sizes: impl Iterator<Item = usize> + Clone) -> usize {
    sizes.clone().max().unwrap_or(0) - sizes.min().unwrap_or(0)
}

fn owners(all: &Assignments) -> HashMap<&TopicPartition, &str> {
    all.iter().flat_map(|(id, p)| p.iter().map(move |p| (p, id.as_str()))).collect()
}

proptest! {
    #[test]
    fn complete_balanced_and_independent_of_order((members, topics) in groups(), swap in any::<u64>()) {
        for kind in ALL {
            let all = assign(&kind, &members, &topics);
            complete(&members, &topics, &all)?;
            let equal = members.iter().all(|m| m.topics == members[0].topics);
            if kind == AssignorKind::Range {
                for topic in topics.keys() {
                    let of = |m: &GroupMember| all[&m.id].iter().filter(|p| *p.topic == **topic).count();
                    prop_assert!(spread(members.iter().filter(|m| m.topics.contains(topic)).map(of)) <= 1);
                }
            } else if equal {
                prop_assert!(spread(all.values().map(Vec::len)) <= 1);
            }
            if matches!(kind, AssignorKind::Sticky | AssignorKind::CooperativeSticky) {
                for (a, b) in members.iter().flat_map(|a| members.iter().map(move |b| (a, b))) {
                    let may_take = all[&a.id].iter().any(|p| b.topics.contains(&*p.topic));
                    prop_assert!(!may_take || all[&a.id].len() <= all[&b.id].len() + 1, "{} has room", b.id);
                }
            }
            let mut shuffled = members.clone();
            fastrand::Rng::with_seed(swap).shuffle(&mut shuffled);
            prop_assert_eq!(assign(&kind, &shuffled, &topics), all);
        }
    }

    #[test]
    fn moves_are_minimal(
        (mut members, mut topics) in groups(),
        newcomer in any::<bool>(),
        leaver in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        // Racks and different subscriptions are covered by the test of balance.
        topics.values_mut().for_each(|t| t.racks.clear());
        members.iter_mut().for_each(|m| m.topics = topics.keys().cloned().collect());
        for kind in [AssignorKind::Sticky, AssignorKind::CooperativeSticky] {
            let mut members = members.clone();
            let first = assign(&kind, &members, &topics);
            if let Some(leaver) = leaver.filter(|_| members.len() > 1) {
                members.remove(leaver.index(members.len()));
            }
            if newcomer {
                members.push(GroupMember { topics: members[0].topics.clone(), ..GroupMember::new("0 new") });
            }
            rejoin(&kind, &mut members, &first, 3);
            let mut second = assign(&kind, &members, &topics);
            if kind == AssignorKind::CooperativeSticky {
                rejoin(&kind, &mut members, &second, 4);
                second = assign(&kind, &members, &topics);
            }
            complete(&members, &topics, &second)?;
            let now = owners(&second);
            let moved = |m: &GroupMember| first.get(&m.id).map_or(0, |had| had.iter().filter(|p| now[p] != m.id).count());
            let moves: usize = members.iter().map(moved).sum();
            // Members lose what they own beyond the quota; the fullest may own one more.
            let mut had: Vec<_> = members.iter().map(|m| first.get(&m.id).map_or(0, Vec::len)).collect();
            had.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
            let (each, extra) = (now.len() / members.len(), now.len() % members.len());
            let must: usize = had.iter().enumerate().map(|(i, n)| n.saturating_sub(each + usize::from(i < extra))).sum();
            prop_assert_eq!(moves, must, "{:?} -> {:?}", first, second);
        }
    }

    /// With any claims, also false ones, no partition is assigned while another member still owns
    /// it; in the end all are.
    #[test]
    fn no_partition_has_two_owners_in_a_generation(
        (mut members, topics) in groups(),
        claims in proptest::collection::vec((any::<proptest::sample::Index>(), "[a-f]", 0..12_i32, 0..3_i32), 0..40),
    ) {
        for (who, topic, partition, generation) in claims {
            let i = who.index(members.len());
            members[i].owned.push(TopicPartition::new(topic, partition));
            members[i].generation.get_or_insert(generation);
        }
        let kind = AssignorKind::CooperativeSticky;
        for generation in 4..8 {
            let all = assign(&kind, &members, &topics);
            for (p, owner) in owners(&all) {
                let age = |m: &GroupMember| m.generation.unwrap_or(-1);
                let own = members.iter().find(|m| m.id == owner).unwrap();
                for other in members.iter().filter(|m| m.id != owner && m.owned.contains(p)) {
                    prop_assert!(own.owned.contains(p) && age(own) > age(other), "{} still owns {p}", other.id);
                }
            }
            rejoin(&kind, &mut members, &all, generation);
        }
        complete(&members, &topics, &assign(&kind, &members, &topics))?;
    }
}
