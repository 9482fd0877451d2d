#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const SESSION: Duration = Duration::from_secs(45);
const REVOKE: Duration = Duration::from_secs(20);

/// A group with a clock of its own and the topics `t` and `u`.
struct Bench {
    group: ConsumerGroup,
    topics: Topics,
    now: Instant,
}

fn id(topic: &str) -> Uuid {
    Uuid::from_u128(u128::from(topic.as_bytes()[0]))
}

fn all(topic: &str, partitions: impl IntoIterator<Item = i32>) -> Partitions {
    partitions.into_iter().map(|p| (id(topic), p)).collect()
}

impl Bench {
    fn new(partitions: i32) -> Self {
        let topics = ["t", "u"].into_iter().map(|t| (t.to_owned(), (id(t), partitions))).collect();
        Self { group: ConsumerGroup::new(SESSION), topics, now: Instant::now() }
    }

    fn joining(member: &str, topics: &[&str]) -> Beat {
        Beat {
            member_id: member.into(),
            rebalance_timeout: Some(REVOKE),
            topics: Some(topics.iter().map(|t| (*t).to_owned()).collect()),
            owned: Some(Partitions::new()),
            ..Beat::default()
        }
    }

    fn send(&mut self, beat: Beat) -> Result<Beaten, ResponseError> {
        self.group.heartbeat(beat, &self.topics, self.now)
    }

    fn join(&mut self, member: &str) -> Beaten {
        self.send(Self::joining(member, &["t"])).unwrap()
    }

    fn join_static(&mut self, member: &str, instance: &str) -> Result<Beaten, ResponseError> {
        self.send(Beat { instance_id: Some(instance.into()), ..Self::joining(member, &["t"]) })
    }

    /// A heartbeat in the epoch that the member has.
    fn beat(&mut self, member: &str, owned: Option<Partitions>) -> Beaten {
        let epoch = self.group.members[member].epoch;
        self.send(Beat { member_id: member.into(), epoch, owned, ..Beat::default() }).unwrap()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now);
    }
}

#[test]
fn what_goes_to_another_is_given_up_first() {
    let mut bench = Bench::new(4);
    let a = bench.join("a");
    assert_eq!((a.epoch, a.assignment), (2, Some(all("t", 0..4))));
    assert_eq!(bench.beat("a", Some(all("t", 0..4))).assignment, None);
    assert_eq!(bench.group.state(), "Stable");
    let b = bench.join("b");
    assert_eq!((b.epoch, b.assignment), (3, Some(Partitions::new())));
    assert_eq!(bench.group.state(), "Reconciling");
    let asked = bench.beat("a", None);
    let keeps = asked.assignment.unwrap();
    assert_eq!((asked.epoch, keeps.len()), (2, 2), "the epoch stays until it has given up");
    assert_eq!(bench.beat("b", None).assignment, None, "not yet free");
    assert_eq!(bench.beat("a", Some(all("t", 0..4))).assignment, None, "still owns all");
    assert_eq!(bench.beat("a", None).epoch, 2);
    let acked = bench.beat("a", Some(keeps.clone()));
    assert_eq!((acked.epoch, acked.assignment), (3, None));
    let got = bench.beat("b", None).assignment.unwrap();
    assert_eq!(got, all("t", 0..4).difference(&keeps).copied().collect());
    assert_eq!(bench.group.state(), "Stable");
}

#[test]
fn epochs_fence() {
    let mut bench = Bench::new(2);
    bench.join("a");
    let beat = |member: &str, epoch, owned| Beat { member_id: member.into(), epoch, owned, ..Beat::default() };
    assert_eq!(bench.send(beat("nobody", 1, None)), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.send(beat("a", 3, None)), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(bench.send(beat("a", 1, Some(all("t", 0..2)))), Err(ResponseError::FencedMemberEpoch));
    bench.join("b");
    let keeps = bench.beat("a", None).assignment.unwrap();
    assert_eq!(bench.beat("a", Some(keeps.clone())).epoch, 3);
    // The answer with epoch 3 was lost.
    assert_eq!(bench.send(beat("a", 2, None)), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(bench.send(beat("a", 2, Some(all("t", 0..2)))), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(bench.send(beat("a", 2, Some(keeps))).unwrap().epoch, 3);
    assert_eq!(bench.group.check_epoch("a", 3), Ok(()));
    assert_eq!(bench.group.check_epoch("a", 2), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(bench.group.check_epoch("a", -1), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(bench.group.check_epoch("", -1), Err(ResponseError::UnknownMemberId));
    bench.group.leave("a", None, false).unwrap();
    bench.group.leave("b", None, false).unwrap();
    assert_eq!(bench.group.leave("b", None, false), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.group.check_epoch("", -1), Ok(()));
    assert_eq!(bench.group.state(), "Empty");
}

#[test]
fn the_silent_and_the_slow_are_put_out() {
    let mut bench = Bench::new(2);
    bench.join("a");
    bench.join("b");
    bench.beat("a", None);
    bench.pass(REVOKE);
    assert_eq!(bench.group.members().map(|(id, _)| id).collect::<Vec<_>>(), ["b"], "a did not give up in time");
    assert_eq!(bench.group.state(), "Assigning");
    assert_eq!(bench.beat("b", None).assignment, Some(all("t", 0..2)));
    bench.pass(SESSION);
    assert!(bench.group.is_empty());
    assert_eq!(bench.group.deadline(), None);
}

#[test]
fn a_static_member_that_left_for_now_finds_its_partitions_again() {
    let mut bench = Bench::new(4);
    bench.join_static("a", "i").unwrap();
    assert_eq!(bench.join_static("b", "i"), Err(ResponseError::UnreleasedInstanceId));
    let epoch = bench.group.epoch();
    assert_eq!(bench.group.leave("b", Some("i"), true), Err(ResponseError::FencedInstanceId));
    assert_eq!(bench.group.leave("b", Some("j"), true), Err(ResponseError::UnknownMemberId));
    bench.group.leave("a", Some("i"), true).unwrap();
    let back = bench.join_static("b", "i").unwrap();
    assert_eq!((back.epoch, back.assignment), (epoch, Some(all("t", 0..4))), "no rebalance");
    let old = Beat { member_id: "a".into(), epoch, instance_id: Some("i".into()), ..Beat::default() };
    assert_eq!(bench.send(old), Err(ResponseError::FencedInstanceId));
    bench.group.leave("b", Some("i"), true).unwrap();
    bench.pass(SESSION);
    assert!(bench.group.is_empty(), "it did not come back");
}

#[test]
fn a_topic_that_grows_is_shared_out_anew() {
    let mut bench = Bench::new(1);
    bench.join("a");
    bench.topics.insert("t".into(), (id("t"), 3));
    let grown = bench.beat("a", None);
    assert_eq!((grown.epoch, grown.assignment), (3, Some(all("t", 0..3))));
    bench.topics.remove("t");
    assert_eq!(bench.beat("a", None).assignment, Some(Partitions::new()));
}

#[test]
fn range_gives_the_same_numbers_of_each_topic_to_one_member() {
    let mut bench = Bench::new(3);
    let range = |member: &str| Beat { assignor: Some(Assignor::Range), ..Bench::joining(member, &["t", "u"]) };
    bench.send(range("b")).unwrap();
    bench.send(range("a")).unwrap();
    bench.send(Bench::joining("c", &["u"])).unwrap();
    assert_eq!(bench.group.assignor(), Assignor::Range, "two of the three voted");
    let target = |member: &str| bench.group.target(member).into_iter().collect::<Vec<_>>();
    assert_eq!(target("a"), [(id("t"), 0), (id("t"), 1), (id("u"), 0)]);
    assert_eq!(target("b"), [(id("t"), 2), (id("u"), 1)]);
    assert_eq!(target("c"), [(id("u"), 2)]);
}

/// What happens to a group.
#[derive(Clone, Debug)]
enum Event {
    Join(usize, usize, bool),
    /// A heartbeat, telling what is owned or not.
    Beat(usize, bool),
    Leave(usize),
    Pass(u64),
    Grow(i32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..4usize, 1..4usize, any::<bool>()).prop_map(|(m, t, r)| Event::Join(m, t, r)),
        (0..4usize, any::<bool>()).prop_map(|(m, o)| Event::Beat(m, o)),
        (0..4usize, any::<bool>()).prop_map(|(m, o)| Event::Beat(m, o)),
        (0..4usize).prop_map(Event::Leave),
        (0..30u64).prop_map(Event::Pass),
        (1..6i32).prop_map(Event::Grow),
    ]
}

proptest! {
    /// Members do what they are told: no partition is ever assigned to two, and in the end each has its target, which is
    /// complete and, with `uniform`, balanced.
    #[test]
    fn partitions_have_one_owner_and_everyone_gets_there(events in prop::collection::vec(event(), 1..60)) {
        let mut bench = Bench::new(4);
        let mut owned: BTreeMap<String, Partitions> = BTreeMap::new();
        for event in events {
            match event {
                Event::Join(m, topics, range) => {
                    let member = format!("m{m}");
                    if bench.group.members.contains_key(&member) {
                        continue;
                    }
                    let topics: &[&str] = match topics { 1 => &["t"], 2 => &["u"], _ => &["t", "u"] };
                    let assignor = range.then_some(Assignor::Range);
                    let beaten = bench.send(Beat { assignor, ..Bench::joining(&member, topics) }).unwrap();
                    owned.insert(member, beaten.assignment.unwrap());
                }
                Event::Beat(m, tells) => {
                    let member = format!("m{m}");
                    if bench.group.members.contains_key(&member) {
                        let mine = owned.get(&member).cloned().unwrap_or_default();
                        if let Some(now) = bench.beat(&member, tells.then_some(mine)).assignment {
                            owned.insert(member, now);
                        }
                    }
                }
                Event::Leave(m) => _ = bench.group.leave(&format!("m{m}"), None, false),
                Event::Pass(seconds) => bench.pass(Duration::from_secs(seconds)),
                Event::Grow(n) => {
                    let count = bench.topics["t"].1.max(n);
                    bench.topics.insert("t".into(), (id("t"), count));
                }
            }
            owned.retain(|m, _| bench.group.members.contains_key(m));
            let total: usize = owned.values().map(BTreeSet::len).sum();
            let distinct: BTreeSet<_> = owned.values().flatten().collect();
            prop_assert_eq!(total, distinct.len());
        }
        for _ in 0..12 {
            for member in owned.keys().cloned().collect::<Vec<_>>() {
                let mine = owned[&member].clone();
                if let Some(now) = bench.beat(&member, Some(mine)).assignment {
                    owned.insert(member, now);
                }
            }
        }
        if owned.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(bench.group.state(), "Stable");
        let wanted = bench.group.subscribed(&bench.topics);
        let total: usize = owned.values().map(BTreeSet::len).sum();
        prop_assert_eq!(total, wanted.values().map(|t| usize::try_from(t.1).unwrap()).sum::<usize>());
        let same = bench.group.members.values().all(|m| m.topics.len() == wanted.len());
        if same && bench.group.assignor() == Assignor::Uniform {
            let sizes = owned.values().map(BTreeSet::len);
            prop_assert!(sizes.clone().max().unwrap() <= sizes.min().unwrap() + 1);
        }
    }
}
