#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A group with its own clock.
struct TestGroup {
    group: Group,
    now: Instant,
    completed: RequestId,
}

impl TestGroup {
    fn new() -> Self {
        Self::delayed(Duration::ZERO)
    }

    fn delayed(delay: Duration) -> Self {
        Self { group: Group::new(delay, SESSION), now: Instant::now(), completed: 0 }
    }

    fn request(id: &str) -> JoinRequest {
        JoinRequest {
            member_id: String::new(),
            instance_id: None,
            client_id: "test".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from(id.to_owned()))],
            generated_member_id: id.into(),
            requires_known_member_id: false,
            supports_skipping_assignment: true,
        }
    }

    fn join(&mut self, request: JoinRequest) -> RequestId {
        self.completed += 1;
        self.group.join(request, self.completed, self.now);
        self.completed
    }

    /// Joins as a new member.
    fn join_new(&mut self, id: &str) -> RequestId {
        self.join(Self::request(id))
    }

    /// Rejoins as a known member.
    fn rejoin(&mut self, id: &str) -> RequestId {
        self.join(JoinRequest { member_id: id.into(), ..Self::request(id) })
    }

    fn join_static(&mut self, id: &str, instance: &str) -> RequestId {
        self.join(JoinRequest { instance_id: Some(instance.into()), ..Self::request(id) })
    }

    fn sync(&mut self, id: &str, assignments: &[(&str, &'static str)]) -> RequestId {
        self.completed += 1;
        let assignments = assignments.iter().map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes())));
        let generation = self.group.generation();
        self.group.sync(key(id), generation, (None, None), assignments.collect(), self.completed, self.now);
        self.completed
    }

    fn heartbeat(&mut self, id: &str) -> Result<(), ResponseError> {
        let generation = self.group.generation();
        self.group.heartbeat(key(id), generation, self.now)
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now);
    }

    fn responses(&mut self) -> Vec<(RequestId, GroupResponse)> {
        self.group.take_responses()
    }

    /// Creates a group of members a and b, with a as leader and their assignment.
    fn stable_pair() -> Self {
        let mut test = Self::new();
        test.join_new("a");
        test.join_new("b");
        test.rejoin("a");
        test.sync("b", &[]);
        test.sync("a", &[("a", "0"), ("b", "1")]);
        test.responses();
        assert_eq!(test.group.phase(), Phase::Stable);
        test
    }
}

fn key(id: &str) -> MemberKey<'_> {
    MemberKey { id, instance: None }
}

fn joined(responses: &[(RequestId, GroupResponse)], request_id: RequestId) -> JoinGroupResult {
    match responses.iter().find(|(t, _)| *t == request_id) {
        Some((_, GroupResponse::Joined(joined))) => joined.clone(),
        other => panic!("not joined: {other:?}"),
    }
}

fn error_of(responses: &[(RequestId, GroupResponse)], request_id: RequestId) -> ResponseError {
    match responses.iter().find(|(t, _)| *t == request_id) {
        Some((_, GroupResponse::Failed(error, _))) => *error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn first_member_leads_generation_1() {
    let mut test = TestGroup::new();
    let request_id = test.join_new("a");
    let responses = test.responses();
    let a = joined(&responses, request_id);
    assert_eq!((a.generation, a.leader.as_str(), a.members.len()), (1, "a", 1));
    let request_id = test.sync("a", &[("a", "0")]);
    let synced = GroupResponse::Synced {
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        assignment: Bytes::from_static(b"0"),
    };
    assert_eq!(test.responses(), vec![(request_id, synced)]);
    assert_eq!(test.heartbeat("a"), Ok(()));
}

#[test]
fn join_waits_for_all_members_to_rejoin() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.sync("a", &[]);
    test.responses();
    let b = test.join_new("b");
    assert_eq!(test.responses(), vec![]);
    assert_eq!(test.heartbeat("a"), Err(ResponseError::RebalanceInProgress));
    let a = test.rejoin("a");
    let responses = test.responses();
    assert_eq!(joined(&responses, a).members.len(), 2);
    assert_eq!(joined(&responses, b).members.len(), 0);
    assert_eq!(joined(&responses, b).generation, 2);
}

#[test]
fn sync_waits_for_the_leaders_assignment() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.join_new("b");
    test.rejoin("a");
    test.responses();
    let b = test.sync("b", &[]);
    assert_eq!(test.responses(), vec![]);
    let a = test.sync("a", &[("b", "all")]);
    let assigned: Vec<_> = test
        .responses()
        .into_iter()
        .map(|(request_id, response)| match response {
            GroupResponse::Synced { assignment, .. } => (request_id, assignment),
            other => panic!("not synced: {other:?}"),
        })
        .collect();
    assert_eq!(assigned, vec![(a, Bytes::new()), (b, Bytes::from_static(b"all"))]);
}

#[test]
fn new_member_must_rejoin_with_its_id() {
    let mut test = TestGroup::new();
    let request_id = test.join(JoinRequest { requires_known_member_id: true, ..TestGroup::request("a") });
    assert_eq!(
        test.responses(),
        vec![(request_id, GroupResponse::Failed(ResponseError::MemberIdRequired, "a".into()))]
    );
    let request_id = test.rejoin("a");
    let responses = test.responses();
    assert_eq!(joined(&responses, request_id).member_id, "a");
}

#[test]
fn unused_member_id_blocks_a_rebalance_for_one_session() {
    let mut test = TestGroup::new();
    test.join(JoinRequest { requires_known_member_id: true, ..TestGroup::request("unused") });
    let a = test.join_new("a");
    assert_eq!(test.responses().len(), 1, "only the unused id got a response");
    test.advance(SESSION);
    let responses = test.responses();
    assert_eq!(joined(&responses, a).generation, 1);
}

#[test]
fn silent_member_is_removed_when_its_session_expires() {
    let mut test = TestGroup::stable_pair();
    test.advance(SESSION / 2);
    assert_eq!(test.heartbeat("a"), Ok(()));
    assert_eq!(test.group.deadline(), Some(test.now + SESSION / 2));
    test.advance(SESSION / 2);
    assert_eq!(test.heartbeat("b"), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.heartbeat("a"), Err(ResponseError::RebalanceInProgress));
    let a = test.rejoin("a");
    let responses = test.responses();
    assert_eq!(joined(&responses, a).members.len(), 1);
}

#[test]
fn member_that_does_not_rejoin_in_time_is_removed() {
    let mut test = TestGroup::stable_pair();
    let c = test.join_new("c");
    let a = test.rejoin("a");
    for _ in 0..11 {
        test.advance(REBALANCE / 12);
        assert_eq!(test.heartbeat("b"), Err(ResponseError::RebalanceInProgress));
        assert_eq!(test.responses(), vec![]);
    }
    test.advance(REBALANCE / 12);
    let responses = test.responses();
    assert_eq!(joined(&responses, a).members.len(), 2);
    assert_eq!(joined(&responses, c).generation, joined(&responses, a).generation);
    assert_eq!(test.heartbeat("b"), Err(ResponseError::UnknownMemberId));
}

#[test]
fn member_that_does_not_sync_in_time_is_removed() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.join_new("b");
    test.rejoin("a");
    test.responses();
    let b = test.sync("b", &[]);
    for _ in 0..12 {
        test.advance(REBALANCE / 12);
        let _ = test.heartbeat("a");
    }
    let responses = test.responses();
    assert_eq!(error_of(&responses, b), ResponseError::RebalanceInProgress);
    assert_eq!(test.heartbeat("a"), Err(ResponseError::UnknownMemberId));
    let b = test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, b).leader, "b");
}

#[test]
fn rebalance_fails_pending_syncs() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.join_new("b");
    test.rejoin("a");
    test.responses();
    let b = test.sync("b", &[]);
    test.join_new("c");
    let responses = test.responses();
    assert_eq!(error_of(&responses, b), ResponseError::RebalanceInProgress);
}

#[test]
fn member_lost_while_joining_expires() {
    let mut test = TestGroup::stable_pair();
    // The request of c stays pending, and nobody receives its response.
    test.join_new("c");
    test.rejoin("a");
    test.rejoin("b");
    test.responses();
    test.sync("b", &[]);
    test.sync("a", &[]);
    test.responses();
    test.advance(SESSION / 2);
    assert_eq!((test.heartbeat("a"), test.heartbeat("b")), (Ok(()), Ok(())));
    test.advance(SESSION / 2);
    assert_eq!(test.heartbeat("c"), Err(ResponseError::UnknownMemberId));
    let a = test.rejoin("a");
    test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, a).members.len(), 2);
}

#[test]
fn second_join_replaces_the_first() {
    let mut test = TestGroup::stable_pair();
    let first = test.rejoin("a");
    let second = test.rejoin("a");
    let responses = test.responses();
    assert_eq!(error_of(&responses, first), ResponseError::RebalanceInProgress);
    test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, second).members.len(), 2);
}

#[test]
fn unchanged_follower_rejoin_returns_current_generation() {
    let mut test = TestGroup::stable_pair();
    let b = test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, b).generation, test.group.generation());
    assert_eq!(test.group.phase(), Phase::Stable);
    let changed = vec![("range".into(), Bytes::from_static(b"other topics"))];
    test.join(JoinRequest { member_id: "b".into(), protocols: changed, ..TestGroup::request("b") });
    assert_eq!(test.group.phase(), Phase::PreparingRebalance);
}

#[test]
fn leader_rejoin_starts_a_rebalance() {
    let mut test = TestGroup::stable_pair();
    test.rejoin("a");
    assert_eq!(test.group.phase(), Phase::PreparingRebalance);
}

#[test]
fn group_is_empty_after_the_last_leave() {
    let mut test = TestGroup::stable_pair();
    test.group.leave(key("a"), test.now).unwrap();
    let b = test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, b).leader, "b");
    test.group.leave(key("b"), test.now).unwrap();
    assert_eq!((test.group.phase(), test.group.has_members()), (Phase::Empty, false));
    assert_eq!(test.group.leave(key("b"), test.now), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.group.deadline(), None);
}

#[test]
fn protocol_is_selected_by_votes() {
    let mut test = TestGroup::new();
    let both = |first: &str, second: &str| vec![(first.to_owned(), Bytes::new()), (second.to_owned(), Bytes::new())];
    test.join(JoinRequest { protocols: both("sticky", "range"), ..TestGroup::request("a") });
    let request_id =
        test.join(JoinRequest { protocols: vec![("other".into(), Bytes::new())], ..TestGroup::request("b") });
    let responses = test.responses();
    assert_eq!(error_of(&responses, request_id), ResponseError::InconsistentGroupProtocol);
    test.join(JoinRequest { protocols: both("range", "sticky"), ..TestGroup::request("b") });
    test.join(JoinRequest { protocols: both("range", "sticky"), ..TestGroup::request("c") });
    let a =
        test.join(JoinRequest { member_id: "a".into(), protocols: both("sticky", "range"), ..TestGroup::request("a") });
    let responses = test.responses();
    assert_eq!(joined(&responses, a).protocol, "range");
}

#[test]
fn initial_rebalance_delay_waits_for_more_members() {
    let delay = Duration::from_secs(3);
    let mut test = TestGroup::delayed(delay);
    let a = test.join_new("a");
    test.advance(delay / 2);
    let b = test.join_new("b");
    test.advance(delay / 2);
    assert_eq!(test.responses(), vec![], "the join of b extends the delay");
    test.advance(delay / 2);
    let responses = test.responses();
    assert_eq!((joined(&responses, a).generation, joined(&responses, b).generation), (1, 1));
}

#[test]
fn static_member_replaces_its_old_id_without_rebalance() {
    let mut test = TestGroup::new();
    test.join_static("old", "i");
    test.sync("old", &[("old", "all")]);
    test.responses();
    let request_id = test.join_static("new", "i");
    let responses = test.responses();
    let new = joined(&responses, request_id);
    assert_eq!((new.generation, new.skip_assignment, test.group.phase()), (1, true, Phase::Stable));
    let fenced = MemberKey { id: "old", instance: Some("i") };
    assert_eq!(test.group.heartbeat(fenced, 1, test.now), Err(ResponseError::FencedInstanceId));
    assert_eq!(test.heartbeat("old"), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.heartbeat("new"), Ok(()));
    let request_id = test.sync("new", &[]);
    let synced = test.responses();
    assert!(
        matches!(&synced[..], [(t, GroupResponse::Synced { assignment, .. })] if *t == request_id && assignment == "all")
    );
}

#[test]
fn pending_join_of_a_replaced_static_member_is_fenced() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.responses();
    let old = test.join_static("old", "i");
    test.join_static("new", "i");
    let responses = test.responses();
    assert_eq!(error_of(&responses, old), ResponseError::FencedInstanceId);
}

#[test]
fn static_member_leaves_by_instance_id() {
    let mut test = TestGroup::new();
    test.join_static("a", "i");
    test.responses();
    let by_instance = |instance| MemberKey { id: "", instance: Some(instance) };
    assert_eq!(test.group.leave(by_instance("j"), test.now), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.group.leave(by_instance("i"), test.now), Ok(()));
    assert!(!test.group.has_members());
}

#[test]
fn static_member_survives_a_missed_rebalance() {
    let mut test = TestGroup::new();
    test.join_new("a");
    test.sync("a", &[]);
    test.join_static("s", "i");
    test.rejoin("a");
    test.sync("s", &[]);
    test.sync("a", &[]);
    test.responses();
    test.join_new("b");
    let a = test.rejoin("a");
    for _ in 0..12 {
        test.advance(REBALANCE / 12);
        let _ = test.heartbeat("s");
    }
    let responses = test.responses();
    assert_eq!(joined(&responses, a).members.len(), 3);
}

#[test]
fn commit_needs_the_current_generation_or_an_empty_group() {
    let mut test = TestGroup::new();
    let now = test.now;
    assert_eq!(test.group.check_commit(key(""), -1, true, now), Ok(()));
    test.join_new("a");
    assert_eq!(test.group.check_commit(key("a"), 1, true, now), Err(ResponseError::RebalanceInProgress));
    test.sync("a", &[]);
    assert_eq!(test.group.check_commit(key("a"), 1, true, now), Ok(()));
    assert_eq!(test.group.check_commit(key("a"), 2, true, now), Err(ResponseError::IllegalGeneration));
    assert_eq!(test.group.check_commit(key("b"), 1, true, now), Err(ResponseError::UnknownMemberId));
    assert_eq!(test.group.check_commit(key(""), -1, true, now), Err(ResponseError::UnknownMemberId));
    test.join_new("b");
    assert_eq!(test.group.check_commit(key("a"), 1, true, now), Ok(()), "while a rebalance is prepared");
}

#[test]
fn moved_group_keeps_members_and_fails_pending_requests() {
    let mut test = TestGroup::stable_pair();
    let c = test.join_new("c");
    test.group.on_coordinator_moved(test.now);
    let responses = test.responses();
    assert_eq!(error_of(&responses, c), ResponseError::NotCoordinator);
    let c = test.rejoin("c");
    test.rejoin("a");
    test.rejoin("b");
    let responses = test.responses();
    assert_eq!(joined(&responses, c).generation, 3);
}

/// An action of a client.
#[derive(Clone, Debug)]
enum Step {
    Enter(u8, bool),
    EnterStatic(u8),
    Rejoin(u8),
    Sync(u8),
    Beat(u8),
    Leave(u8),
    Resign,
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..6u8;
    prop_oneof![
        (member.clone(), any::<bool>()).prop_map(|(m, id)| Step::Enter(m, id)),
        member.clone().prop_map(Step::EnterStatic),
        member.clone().prop_map(Step::Rejoin),
        member.clone().prop_map(Step::Sync),
        member.clone().prop_map(Step::Beat),
        member.prop_map(Step::Leave),
        Just(Step::Resign),
        (0..20_000u32).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever clients do, and whichever of them fall silent, every request gets exactly one
    /// response, the generation never decreases, and the deadlines end.
    #[test]
    fn every_request_gets_one_response_and_deadlines_end(
        steps in prop::collection::vec(step(), 1..60),
        delayed in any::<bool>(),
    ) {
        let mut test = TestGroup::delayed(if delayed { Duration::from_secs(3) } else { Duration::ZERO });
        let mut open = BTreeSet::new();
        let mut generation = 0;
        let mut count = 0;
        for step in steps {
            count += 1;
            match step {
                Step::Enter(m, requires_known_member_id) => {
                    let generated_member_id = format!("m{m}-{count}");
                    open.insert(test.join(JoinRequest { requires_known_member_id, ..TestGroup::request(&generated_member_id) }));
                }
                Step::EnterStatic(m) => {
                    open.insert(test.join_static(&format!("s{m}-{count}"), &format!("i{m}")));
                }
                Step::Rejoin(m) => {
                    let id = nth(&test, m);
                    open.insert(test.rejoin(&id));
                }
                Step::Sync(m) => {
                    let id = nth(&test, m);
                    open.insert(test.sync(&id, &[]));
                }
                Step::Beat(m) => {
                    let id = nth(&test, m);
                    let _ = test.heartbeat(&id);
                }
                Step::Leave(m) => {
                    let id = nth(&test, m);
                    let _ = test.group.leave(key(&id), test.now);
                }
                Step::Resign => test.group.on_coordinator_moved(test.now),
                Step::Pass(ms) => test.advance(Duration::from_millis(ms.into())),
            }
            prop_assert!(test.group.generation() >= generation);
            generation = test.group.generation();
            for (request_id, _) in test.responses() {
                prop_assert!(open.remove(&request_id), "two responses for request {}", request_id);
            }
        }
        // All members fall silent.
        for _ in 0..100 {
            let Some(deadline) = test.group.deadline() else { break };
            test.now = test.now.max(deadline);
            test.group.tick(test.now);
            for (request_id, _) in test.responses() {
                prop_assert!(open.remove(&request_id), "two responses for request {}", request_id);
            }
        }
        prop_assert_eq!(test.group.deadline(), None);
        prop_assert_eq!(test.group.phase(), Phase::Empty);
        prop_assert!(open.is_empty(), "no response: {:?}", open);
    }
}

/// Returns a member id, joined or generated.
fn nth(test: &TestGroup, n: u8) -> String {
    let ids: Vec<&String> = test.group.members.keys().chain(test.group.pending_members.keys()).collect();
    ids.get(usize::from(n) % ids.len().max(1)).map_or_else(|| "nobody".to_owned(), |id| (*id).clone())
}
