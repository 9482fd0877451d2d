#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const SESSION: Duration = Duration::from_secs(45);
const REVOKE: Duration = Duration::from_secs(20);

/// A group with its own clock and the topics `t` and `u`.
struct TestGroup {
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

impl TestGroup {
    fn new(partitions: i32) -> Self {
        let topics = ["t", "u"].into_iter().map(|t| (t.to_owned(), (id(t), partitions))).collect();
        Self { group: ConsumerGroup::new(SESSION), topics, now: Instant::now() }
    }

    fn joining(member: &str, topics: &[&str]) -> HeartbeatRequest {
        HeartbeatRequest {
            member_id: member.into(),
            rebalance_timeout: Some(REVOKE),
            topics: Some(topics.iter().map(|t| (*t).to_owned()).collect()),
            owned: Some(Partitions::new()),
            ..HeartbeatRequest::default()
        }
    }

    fn send(&mut self, heartbeat: HeartbeatRequest) -> Result<HeartbeatResponse, ResponseError> {
        self.group.heartbeat(heartbeat, &self.topics, self.now)
    }

    fn join(&mut self, member: &str) -> HeartbeatResponse {
        self.send(Self::joining(member, &["t"])).unwrap()
    }

    fn join_static(&mut self, member: &str, instance: &str) -> Result<HeartbeatResponse, ResponseError> {
        self.send(HeartbeatRequest { instance_id: Some(instance.into()), ..Self::joining(member, &["t"]) })
    }

    /// Sends a heartbeat in the member's epoch.
    fn heartbeat(&mut self, member: &str, owned: Option<Partitions>) -> HeartbeatResponse {
        let epoch = self.group.members[member].epoch;
        self.send(HeartbeatRequest { member_id: member.into(), epoch, owned, ..HeartbeatRequest::default() }).unwrap()
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now);
    }
}

#[test]
fn partitions_are_revoked_before_they_are_reassigned() {
    let mut test = TestGroup::new(4);
    let a = test.join("a");
    assert_eq!((a.epoch, a.assignment), (2, Some(all("t", 0..4))));
    assert_eq!(test.heartbeat("a", Some(all("t", 0..4))).assignment, None);
    assert_eq!(test.group.state(), "Stable");
    let b = test.join("b");
    assert_eq!((b.epoch, b.assignment), (3, Some(Partitions::new())));
    assert_eq!(test.group.state(), "Reconciling");
    let revoking = test.heartbeat("a", None);
    let kept = revoking.assignment.unwrap();
    assert_eq!((revoking.epoch, kept.len()), (2, 2), "the epoch stays until the revocation");
    assert_eq!(test.heartbeat("b", None).assignment, None, "not yet free");
    assert_eq!(test.heartbeat("a", Some(all("t", 0..4))).assignment, None, "still owns all");
    assert_eq!(test.heartbeat("a", None).epoch, 2);
    let acknowledged = test.heartbeat("a", Some(kept.clone()));
    assert_eq!((acknowledged.epoch, acknowledged.assignment), (3, None));
    let reassigned = test.heartbeat("b", None).assignment.unwrap();
    assert_eq!(reassigned, all("t", 0..4).difference(&kept).copied().collect());
    assert_eq!(test.group.state(), "Stable");
}

#[test]
fn stale_member_epochs_are_fenced() {
    let mut test = TestGroup::new(2);
    test.join("a");
    let heartbeat = |member: &str, epoch, owned| HeartbeatRequest {
        member_id: member.into(),
        epoch,
        owned,
        ..HeartbeatRequest::default()
    };
    assert_eq!(test.send(heartbeat("nobody", 1, None)), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.send(heartbeat("a", 3, None)), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(test.send(heartbeat("a", 1, Some(all("t", 0..2)))), Err(ResponseError::FencedMemberEpoch));
    test.join("b");
    let kept = test.heartbeat("a", None).assignment.unwrap();
    assert_eq!(test.heartbeat("a", Some(kept.clone())).epoch, 3);
    // The response with epoch 3 was lost.
    assert_eq!(test.send(heartbeat("a", 2, None)), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(test.send(heartbeat("a", 2, Some(all("t", 0..2)))), Err(ResponseError::FencedMemberEpoch));
    assert_eq!(test.send(heartbeat("a", 2, Some(kept))).unwrap().epoch, 3);
    assert_eq!(test.group.check_epoch("a", 3), Ok(()));
    assert_eq!(test.group.check_epoch("a", 2), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(test.group.check_epoch("a", -1), Err(ResponseError::StaleMemberEpoch));
    assert_eq!(test.group.check_epoch("", -1), Err(ResponseError::UnknownMemberId));
    test.group.leave("a", None, false).unwrap();
    test.group.leave("b", None, false).unwrap();
    assert_eq!(test.group.leave("b", None, false), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.group.check_epoch("", -1), Ok(()));
    assert_eq!(test.group.state(), "Empty");
}

#[test]
fn members_expire_when_silent_or_slow_to_revoke() {
    let mut test = TestGroup::new(2);
    test.join("a");
    test.join("b");
    test.heartbeat("a", None);
    test.advance(REVOKE);
    assert_eq!(test.group.members().map(|(id, _)| id).collect::<Vec<_>>(), ["b"], "a did not revoke in time");
    assert_eq!(test.group.state(), "Assigning");
    assert_eq!(test.heartbeat("b", None).assignment, Some(all("t", 0..2)));
    test.advance(SESSION);
    assert!(test.group.is_empty());
    assert_eq!(test.group.deadline(), None);
}

#[test]
fn returning_static_member_keeps_its_partitions() {
    let mut test = TestGroup::new(4);
    test.join_static("a", "i").unwrap();
    assert_eq!(test.join_static("b", "i"), Err(ResponseError::UnreleasedInstanceId));
    let epoch = test.group.epoch();
    assert_eq!(test.group.leave("b", Some("i"), true), Err(ResponseError::FencedInstanceId));
    assert_eq!(test.group.leave("b", Some("j"), true), Err(ResponseError::UnknownMemberId));
    test.group.leave("a", Some("i"), true).unwrap();
    let back = test.join_static("b", "i").unwrap();
    assert_eq!((back.epoch, back.assignment), (epoch, Some(all("t", 0..4))), "no rebalance");
    let old =
        HeartbeatRequest { member_id: "a".into(), epoch, instance_id: Some("i".into()), ..HeartbeatRequest::default() };
    assert_eq!(test.send(old), Err(ResponseError::FencedInstanceId));
    test.group.leave("b", Some("i"), true).unwrap();
    test.advance(SESSION);
    assert!(test.group.is_empty(), "it did not return");
}

#[test]
fn new_partitions_are_assigned() {
    let mut test = TestGroup::new(1);
    test.join("a");
    test.topics.insert("t".into(), (id("t"), 3));
    let grown = test.heartbeat("a", None);
    assert_eq!((grown.epoch, grown.assignment), (3, Some(all("t", 0..3))));
    test.topics.remove("t");
    assert_eq!(test.heartbeat("a", None).assignment, Some(Partitions::new()));
}

#[test]
fn range_assigns_the_same_partitions_of_each_topic() {
    let mut test = TestGroup::new(3);
    let range =
        |member: &str| HeartbeatRequest { assignor: Some(Assignor::Range), ..TestGroup::joining(member, &["t", "u"]) };
    test.send(range("b")).unwrap();
    test.send(range("a")).unwrap();
    test.send(TestGroup::joining("c", &["u"])).unwrap();
    assert_eq!(test.group.assignor(), Assignor::Range, "two of the three voted");
    let target = |member: &str| test.group.target(member).into_iter().collect::<Vec<_>>();
    assert_eq!(target("a"), [(id("t"), 0), (id("t"), 1), (id("u"), 0)]);
    assert_eq!(target("b"), [(id("t"), 2), (id("u"), 1)]);
    assert_eq!(target("c"), [(id("u"), 2)]);
}

/// An event in a group.
#[derive(Clone, Debug)]
enum Event {
    Join(usize, usize, bool),
    /// A heartbeat of a member, with or without its owned partitions.
    Heartbeat(usize, bool),
    Leave(usize),
    Pass(u64),
    Grow(i32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..4usize, 1..4usize, any::<bool>()).prop_map(|(m, t, r)| Event::Join(m, t, r)),
        (0..4usize, any::<bool>()).prop_map(|(m, o)| Event::Heartbeat(m, o)),
        (0..4usize, any::<bool>()).prop_map(|(m, o)| Event::Heartbeat(m, o)),
        (0..4usize).prop_map(Event::Leave),
        (0..30u64).prop_map(Event::Pass),
        (1..6i32).prop_map(Event::Grow),
    ]
}

proptest! {
    /// With members that follow their assignments, no partition is ever assigned twice, and in the
    /// end each member has its target, which is complete and, with `uniform`, balanced.
    #[test]
    fn partitions_have_one_owner_and_targets_are_reached(events in prop::collection::vec(event(), 1..60)) {
        let mut test = TestGroup::new(4);
        let mut owned: BTreeMap<String, Partitions> = BTreeMap::new();
        for event in events {
            match event {
                Event::Join(m, topics, range) => {
                    let member = format!("m{m}");
                    if test.group.members.contains_key(&member) {
                        continue;
                    }
                    let topics: &[&str] = match topics { 1 => &["t"], 2 => &["u"], _ => &["t", "u"] };
                    let assignor = range.then_some(Assignor::Range);
                    let response = test.send(HeartbeatRequest { assignor, ..TestGroup::joining(&member, topics) }).unwrap();
                    owned.insert(member, response.assignment.unwrap());
                }
                Event::Heartbeat(m, with_owned) => {
                    let member = format!("m{m}");
                    if test.group.members.contains_key(&member) {
                        let own = owned.get(&member).cloned().unwrap_or_default();
                        if let Some(now) = test.heartbeat(&member, with_owned.then_some(own)).assignment {
                            owned.insert(member, now);
                        }
                    }
                }
                Event::Leave(m) => _ = test.group.leave(&format!("m{m}"), None, false),
                Event::Pass(seconds) => test.advance(Duration::from_secs(seconds)),
                Event::Grow(n) => {
                    let count = test.topics["t"].1.max(n);
                    test.topics.insert("t".into(), (id("t"), count));
                }
            }
            owned.retain(|m, _| test.group.members.contains_key(m));
            let total: usize = owned.values().map(BTreeSet::len).sum();
            let distinct: BTreeSet<_> = owned.values().flatten().collect();
            prop_assert_eq!(total, distinct.len());
        }
        for _ in 0..12 {
            for member in owned.keys().cloned().collect::<Vec<_>>() {
                let own = owned[&member].clone();
                if let Some(now) = test.heartbeat(&member, Some(own)).assignment {
                    owned.insert(member, now);
                }
            }
        }
        if owned.is_empty() {
            return Ok(());
        }
        prop_assert_eq!(test.group.state(), "Stable");
        let wanted = test.group.subscribed_topics(&test.topics);
        let total: usize = owned.values().map(BTreeSet::len).sum();
        prop_assert_eq!(total, wanted.values().map(|t| usize::try_from(t.1).unwrap()).sum::<usize>());
        let same = test.group.members.values().all(|m| m.topics.len() == wanted.len());
        if same && test.group.assignor() == Assignor::Uniform {
            let sizes = owned.values().map(BTreeSet::len);
            prop_assert!(sizes.clone().max().unwrap() <= sizes.min().unwrap() + 1);
        }
    }
}
