#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::assignor::GroupMember;
use crate::consumer::group::requests::AssignorOffer;

mod codes;

const SESSION: Duration = Duration::from_secs(30);
const REBALANCE: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(3);

/// A member and a clock; what it does is kept in short words.
struct Test {
    m: ClassicMember,
    now: Instant,
    did: Vec<String>,
    random: fastrand::Rng,
}

fn word(a: &Action) -> String {
    let all = |p: &[TopicPartition]| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match a {
        Action::FindCoordinator => "find".into(),
        Action::JoinGroup { member_id, had, .. } if had.owned.is_empty() => format!("join {member_id:?}"),
        Action::JoinGroup { member_id, had, .. } => {
            format!("join {member_id:?} with {} of {}", all(&had.owned), had.since)
        }
        Action::ComputeAssignment { members, assignor } => format!("assign {} {assignor}", members.len()),
        Action::SyncGroup { generation, shares, .. } => format!("sync {generation} {}", shares.len()),
        Action::Heartbeat { generation, .. } => format!("heartbeat {generation}"),
        Action::LeaveGroup { member_id, .. } => format!("leave {member_id:?}"),
        Action::Assigned { generation, added } => format!("assigned {generation} {}", all(added)),
        Action::Revoke { partitions, .. } => format!("revoke {}", all(partitions)),
        Action::Revoked(partitions) => format!("gave up {}", all(partitions)),
        Action::Lost(partitions) => format!("lost {}", all(partitions)),
        Action::ConsumerGroupHeartbeat { .. } | Action::RefreshTopicNames | Action::FallBackToClassic => {
            panic!("not an action of this protocol: {a:?}")
        }
        Action::Stop(Ok(())) => "end".into(),
        Action::Stop(Err(e)) => format!("failed {:?}: {}", e.kind(), e.full()),
    }
}

impl Test {
    fn new() -> Self {
        Self::with(REBALANCE)
    }

    fn with(rebalance_timeout: Duration) -> Self {
        let settings = MemberConfig {
            group: "g".into(),
            instance_id: None,
            may_be_classic: false,
            assignors: [("range", false), ("roundrobin", false), ("coop", true)]
                .map(|(name, cooperative)| AssignorOffer { name: name.into(), cooperative })
                .into(),
            session_timeout: SESSION,
            rebalance_timeout,
            heartbeat_interval: HEARTBEAT,
            request_timeout: Duration::from_secs(30),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
        };
        let now = Instant::now();
        Self { m: ClassicMember::new(settings, now), now, did: Vec::new(), random: fastrand::Rng::with_seed(1) }
    }

    /// A static one, stable.
    fn fixed() -> Self {
        let mut t = Self::stable();
        t.m.settings.instance_id = Some("i".into());
        t
    }

    /// What it has done since this was asked last.
    fn did(&mut self) -> Vec<String> {
        while let Some(a) = self.m.next_action() {
            self.did.push(word(&a));
        }
        std::mem::take(&mut self.did)
    }

    #[track_caller]
    fn expect(&mut self, what: &[&str]) {
        assert_eq!(self.did(), what);
    }

    /// Goes to the next deadline.
    fn wait(&mut self) {
        self.now = self.m.deadline().unwrap().max(self.now);
        self.m.tick(self.now);
    }

    fn found(&mut self) {
        self.m.found(self.now, Ok(()));
    }

    fn refuse_join(&mut self, code: i16) {
        self.m.joined(self.now, Err((RequestFailure::Code(code), "m1".into())));
    }

    fn joined(&mut self, generation: i32) {
        self.joined_by(generation, "range");
    }

    fn joined_by(&mut self, generation: i32, assignor: &str) {
        let joined =
            JoinedGroup { member_id: "m1".into(), generation, protocol: assignor.into(), leads: false, members: None };
        self.m.joined(self.now, Ok(joined));
    }

    fn synced(&mut self, partitions: &[i32]) {
        let p = partitions.iter().map(|p| TopicPartition::new("t", *p)).collect();
        self.m.synced(self.now, Ok(p));
    }

    fn beat(&mut self, code: i16) {
        let outcome = if code == 0 { Ok(()) } else { Err(RequestFailure::Code(code)) };
        self.m.beat(self.now, outcome);
    }

    /// A member of generation 1 that owns t/0 and t/1.
    fn stable() -> Self {
        let mut t = Self::new();
        t.found();
        t.joined(1);
        t.synced(&[0, 1]);
        t.did();
        t
    }

    /// The same, by a cooperative assignor.
    fn cooperative() -> Self {
        let mut t = Self::new();
        t.found();
        t.joined_by(1, "coop");
        t.synced(&[0, 1]);
        t.did();
        t
    }

    /// Learns of a rebalance with its next heartbeat.
    fn rebalances(&mut self) {
        self.wait();
        self.did();
        self.beat(code::REBALANCE_IN_PROGRESS);
    }

    /// A stable one with a heartbeat under way.
    fn beating() -> Self {
        let mut t = Self::stable();
        t.wait();
        t.expect(&["heartbeat 1"]);
        t
    }
}

fn broken() -> RequestFailure {
    RequestFailure::Connection(Error::new(ErrorKind::Disconnected, "gone"))
}

#[test]
fn joins_with_the_id_it_is_given() {
    let mut t = Test::new();
    t.expect(&["find"]);
    t.found();
    t.expect(&["join \"\""]);
    t.refuse_join(code::MEMBER_ID_REQUIRED);
    t.expect(&["join \"m1\""]);
    t.joined(1);
    t.expect(&["sync 1 0"]);
    assert!(!t.m.is_member());
    t.synced(&[0, 1]);
    t.expect(&["assigned 1 t/0,t/1"]);
    assert!(t.m.is_member());
    assert_eq!((t.m.member_id(), t.m.generation(), t.m.leads()), ("m1", 1, false));
}

#[test]
fn the_leader_shares_out() {
    let mut t = Test::new();
    t.found();
    t.did();
    let member = GroupMember::new("m1");
    let joined = JoinedGroup {
        member_id: "m1".into(),
        generation: 4,
        protocol: "roundrobin".into(),
        leads: true,
        members: Some(vec![member]),
    };
    t.m.joined(t.now, Ok(joined));
    t.expect(&["assign 1 roundrobin"]);
    t.m.shared(t.now, vec![("m1".into(), Bytes::new())], false);
    t.expect(&["sync 4 1"]);
    t.synced(&[0]);
    t.expect(&["assigned 4 t/0"]);

    t.m.topics_changed(t.now);
    t.expect(&["revoke t/0"]);
    t.m.drained(t.now);
    t.expect(&["gave up t/0", "join \"m1\""]);
    t.m.topics_changed(t.now);
    t.expect(&[]);
}

#[test]
fn who_does_not_lead_leaves_changed_topics_to_the_leader() {
    let mut t = Test::stable();
    t.m.topics_changed(t.now);
    t.expect(&[]);
}

#[test]
fn a_protocol_no_one_offered_is_the_end() {
    let mut t = Test::new();
    t.found();
    t.did();
    let joined =
        JoinedGroup { member_id: "m".into(), generation: 1, protocol: "sticky".into(), leads: false, members: None };
    t.m.joined(t.now, Ok(joined));
    assert!(t.did()[0].starts_with("failed Unsupported"));
}

#[test]
fn heartbeats_come_soon_after_a_join_and_then_at_their_interval() {
    let mut t = Test::stable();
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let before = t.now;
        t.wait();
        gaps.push(t.now - before);
        t.expect(&["heartbeat 1"]);
        t.beat(0);
    }
    assert_eq!(gaps, [1, 2, 4, 8, 8, 8].map(|n| HEARTBEAT / 8 * n));
}

#[test]
fn a_rebalance_drains_with_heartbeats_before_it_joins_again() {
    let mut t = Test::beating();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.expect(&["revoke t/0,t/1"]);
    for _ in 0..3 {
        t.wait();
        t.expect(&["heartbeat 1"]);
        t.beat(code::REBALANCE_IN_PROGRESS);
        assert!(t.m.is_member(), "still ours");
    }
    t.m.drained(t.now);
    t.expect(&["gave up t/0,t/1", "join \"m1\""]);
    t.joined(2);
    t.synced(&[0]);
    t.expect(&["sync 2 0", "assigned 2 t/0"]);
}

#[test]
fn a_drain_ends_at_its_deadline_which_counts_from_the_last_calm_heartbeat() {
    let mut t = Test::stable();
    let calm = t.now;
    t.wait();
    t.beat(code::REBALANCE_IN_PROGRESS);
    let deadline = std::iter::from_fn(|| t.m.next_action()).find_map(|a| match a {
        Action::Revoke { deadline, .. } => Some(deadline),
        _ => None,
    });
    assert_eq!(deadline, Some(calm + REBALANCE - Duration::from_secs(5)));
    loop {
        t.wait();
        match t.did().as_slice() {
            [one] if one == "heartbeat 1" => t.beat(code::REBALANCE_IN_PROGRESS),
            other => {
                assert_eq!(other, ["gave up t/0,t/1", "join \"m1\""]);
                break;
            }
        }
    }
    assert_eq!(Some(t.now), deadline);
    assert_eq!(drain_margin(Duration::from_secs(10)), Duration::from_secs(1));
}

#[test]
fn the_answer_to_a_heartbeat_that_a_join_has_overtaken_does_not_count() {
    let mut t = Test::beating();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.wait();
    t.m.drained(t.now);
    t.expect(&["revoke t/0,t/1", "heartbeat 1", "gave up t/0,t/1", "join \"m1\""]);
    t.beat(code::UNKNOWN_MEMBER_ID);
    t.expect(&[]);
    assert_eq!(t.m.member_id(), "m1");
}

#[test]
fn without_partitions_there_is_nothing_to_drain() {
    let mut t = Test::new();
    t.found();
    t.joined(1);
    t.synced(&[]);
    t.wait();
    t.did();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.expect(&["join \"m1\""]);
}

#[test]
fn an_unknown_member_loses_all_and_joins_under_a_new_id() {
    let mut t = Test::beating();
    t.beat(code::UNKNOWN_MEMBER_ID);
    t.expect(&["lost t/0,t/1", "join \"\""]);
}

#[test]
fn an_old_generation_loses_all_and_joins_under_its_id() {
    let mut t = Test::beating();
    t.beat(code::ILLEGAL_GENERATION);
    t.expect(&["lost t/0,t/1", "join \"m1\""]);
}

#[test]
fn a_moved_coordinator_costs_no_partition() {
    for code in [code::NOT_COORDINATOR, code::COORDINATOR_NOT_AVAILABLE] {
        let mut t = Test::beating();
        t.beat(code);
        t.wait();
        t.expect(&["find"]);
        t.found();
        t.wait();
        t.expect(&["heartbeat 1"]);
        t.beat(0);
        assert!(t.m.is_member());
    }
}

#[test]
fn a_loading_coordinator_is_asked_again() {
    let mut t = Test::beating();
    t.beat(code::COORDINATOR_LOAD_IN_PROGRESS);
    t.wait();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::new();
    t.found();
    t.did();
    t.refuse_join(code::COORDINATOR_LOAD_IN_PROGRESS);
    t.expect(&[]);
    t.wait();
    t.expect(&["join \"\""]);
}

#[test]
fn a_lost_connection_is_made_anew() {
    let mut t = Test::beating();
    t.m.beat(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
    t.m.found(t.now, Err(Error::new(ErrorKind::Connect, "no broker")));
    t.expect(&[]);
    t.wait();
    t.expect(&["find"]);
    t.found();
    t.wait();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::stable();
    t.m.disconnected(t.now);
    t.expect(&["find"]);
}

#[test]
fn the_session_expires_here_too() {
    let mut t = Test::beating();
    let sent = t.now;
    t.beat(0);
    t.wait();
    t.expect(&["heartbeat 1"]);
    // Unanswered: the time counts from the last one that was.
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    assert_eq!(t.now, sent + SESSION);
    t.beat(0);
    t.expect(&[]);
    t.found();
    t.expect(&["join \"m1\""]);
}

#[test]
fn the_session_may_expire_in_a_drain() {
    let mut t = Test::beating();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.wait();
    t.expect(&["revoke t/0,t/1", "heartbeat 1"]);
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    t.m.drained(t.now);
    t.expect(&[]);
}

#[test]
fn joining_that_fails_again_and_again_waits_longer_and_longer() {
    let mut t = Test::new();
    t.found();
    t.did();
    t.refuse_join(code::UNKNOWN_MEMBER_ID);
    t.expect(&["join \"\""]);
    let mut waits = Vec::new();
    for _ in 0..6 {
        t.refuse_join(code::UNKNOWN_MEMBER_ID);
        t.expect(&[]);
        let before = t.now;
        t.wait();
        waits.push(t.now - before);
        t.expect(&["join \"\""]);
    }
    assert!(waits[5] > waits[0] * 4, "{waits:?}");
}

#[test]
fn a_rebalance_that_overtakes_a_sync_is_joined_at_once() {
    for code in [code::REBALANCE_IN_PROGRESS, code::ILLEGAL_GENERATION] {
        let mut t = Test::new();
        t.found();
        t.joined(1);
        t.did();
        t.m.synced(t.now, Err(RequestFailure::Code(code)));
        t.expect(&["join \"m1\""]);
    }
    let mut t = Test::new();
    t.found();
    t.joined(1);
    t.did();
    t.m.synced(t.now, Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID)));
    t.expect(&["join \"\""]);
    t.joined(2);
    t.did();
    t.m.synced(t.now, Err(RequestFailure::Code(code::NOT_COORDINATOR)));
    t.wait();
    t.expect(&["find"]);
    t.found();
    t.expect(&["sync 2 0"]);
    t.m.synced(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
}

#[test]
fn what_cannot_be_mended_ends_it_and_says_what_to_do() {
    for (code, kind, text) in [
        (24, ErrorKind::Broker(24), "InvalidGroupId"),
        (26, ErrorKind::Broker(26), "the broker bounds session timeouts"),
        (82, ErrorKind::GroupMembership, "instance id"),
    ] {
        let mut t = Test::new();
        t.found();
        t.did();
        t.refuse_join(code);
        let did = t.did();
        assert!(did[0].starts_with(&format!("failed {kind:?}")), "{did:?}");
        assert!(did[0].contains(text) && did[0].contains("\"g\""), "{did:?}");
        assert_eq!(t.m.deadline(), None);
    }
    let mut t = Test::beating();
    t.beat(code::FENCED_INSTANCE_ID);
    let did = t.did();
    assert_eq!(did[0], "lost t/0,t/1");
    assert!(did[1].starts_with("failed GroupMembership"));
    for e in [Error::new(ErrorKind::Authentication, "refused"), Error::new(ErrorKind::Closed, "closed")] {
        let mut t = Test::new();
        let kind = e.kind();
        t.m.found(t.now, Err(e));
        assert!(t.did()[1].starts_with(&format!("failed {kind:?}")));
    }
}

#[test]
fn what_somebody_may_mend_is_tried_again_and_known_meanwhile() {
    for (code, kind, text) in [
        (23, ErrorKind::Broker(23), "all members of a group must share an assignor"),
        (30, ErrorKind::Authorization, "check the ACLs"),
        (81, ErrorKind::Broker(81), "group.max.size"),
        (-1, ErrorKind::Broker(-1), "UnknownServerError"),
    ] {
        let mut t = Test::new();
        t.found();
        t.did();
        t.refuse_join(code);
        let error = t.m.trouble().unwrap().error;
        assert!(error.kind() == kind && error.full().contains(text) && error.full().contains("\"g\""), "{error:?}");
        t.wait();
        t.expect(&["join \"\""]);
        t.joined(1);
        t.m.synced(t.now, Ok(vec![]));
        assert!(t.m.trouble().is_none(), "it is over");
    }
}

#[test]
fn a_login_that_was_good_before_and_is_refused_ends_no_member() {
    let mut t = Test::beating();
    t.m.beat(t.now, Err(broken()));
    t.wait();
    t.expect(&["find"]);
    for _ in 0..20 {
        t.m.found(t.now, Err(Error::new(ErrorKind::Authentication, "refused").into_transient()));
        t.wait();
        t.expect(&["find"]);
    }
    assert_eq!(t.m.trouble().unwrap().error.kind(), ErrorKind::Authentication);
    t.found();
    t.expect(&["heartbeat 1"]);
    t.m.beat(t.now, Ok(()));
    assert!(t.m.trouble().is_none());
}

#[test]
fn a_hung_program_stays_out_of_a_group_that_refuses_to_hear_of_it() {
    let mut t = Test::beating();
    t.m.expel(t.now);
    t.did();
    t.m.left(t.now, Err(RequestFailure::Code(-1)));
    t.m.come_back(t.now);
    t.wait();
    t.expect(&["leave \"m1\""]);
    t.m.left(t.now, Ok(()));
    t.expect(&["find"]);
}

#[test]
fn a_retriable_code_of_another_kind_is_tried_again() {
    let mut t = Test::beating();
    t.beat(7);
    t.wait();
    t.expect(&["heartbeat 1"]);
}

#[test]
fn leaving_gives_up_and_tells_the_group() {
    let mut t = Test::stable();
    t.m.leave(t.now);
    t.expect(&["gave up t/0,t/1", "leave \"m1\""]);
    t.m.left(t.now, Ok(()));
    t.expect(&["end"]);
    t.m.leave(t.now);
    t.expect(&[]);
    let mut t = Test::beating();
    t.m.leave(t.now);
    t.expect(&["gave up t/0,t/1", "leave \"m1\""]);
    t.m.left(t.now, Err(RequestFailure::Code(code::UNKNOWN_MEMBER_ID)));
    t.expect(&["end"]);
}

#[test]
fn leaving_while_a_join_is_parked_takes_another_connection() {
    let mut t = Test::beating();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.m.drained(t.now);
    t.did();
    t.m.leave(t.now);
    t.expect(&["find"]);
    t.found();
    t.expect(&["leave \"m1\""]);
}

#[test]
fn leaving_before_it_has_an_id_waits_for_it() {
    let mut t = Test::new();
    t.found();
    t.did();
    t.m.leave(t.now);
    t.expect(&[]);
    t.refuse_join(code::MEMBER_ID_REQUIRED);
    t.expect(&["leave \"m1\""]);
    let mut t = Test::new();
    t.expect(&["find"]);
    t.m.leave(t.now);
    t.found();
    t.expect(&["end"]);
}

#[test]
fn leaving_ends_in_time_whatever_the_broker_does() {
    let mut t = Test::stable();
    t.m.leave(t.now);
    t.did();
    t.m.left(t.now, Err(RequestFailure::Code(code::NOT_COORDINATOR)));
    t.wait();
    t.expect(&["find"]);
    t.wait();
    assert!(t.did()[0].starts_with("failed Timeout"), "the search is not waited for");
}

#[test]
fn a_refused_commit_tells_as_much_as_a_heartbeat() {
    for code in [code::UNKNOWN_MEMBER_ID, code::GROUP_ID_NOT_FOUND] {
        let mut t = Test::stable();
        t.m.commit_refused(t.now, code);
        t.expect(&["lost t/0,t/1", "join \"\""]);
    }
    let mut t = Test::beating();
    t.m.commit_refused(t.now, code::NOT_COORDINATOR);
    t.wait();
    t.expect(&["find"]);
    t.m.commit_refused(t.now, code::NOT_COORDINATOR);
    t.found();
    t.expect(&["heartbeat 1"]);
    let mut t = Test::stable();
    t.m.commit_refused(t.now, code::REBALANCE_IN_PROGRESS);
    t.expect(&["revoke t/0,t/1"]);
    let mut t = Test::stable();
    t.m.commit_refused(t.now, 12);
    t.expect(&[]);
}

#[test]
fn what_a_cooperative_member_keeps_stays_ours_all_the_while() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    assert!(t.m.may_commit(), "in the old generation");
    t.joined_by(2, "coop");
    t.expect(&["sync 2 0"]);
    assert!(!t.m.may_commit());
    t.synced(&[0, 1]);
    t.expect(&["assigned 2 "]);
    assert!(t.m.may_commit() && t.m.is_member());
}

#[test]
fn what_moves_is_given_up_after_a_drain_and_then_it_joins_once_more() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.joined_by(2, "coop");
    t.did();
    t.synced(&[1, 2]);
    t.expect(&["revoke t/0", "assigned 2 t/2"]);
    t.wait();
    t.expect(&["heartbeat 2"]);
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.expect(&[]);
    t.m.drained(t.now);
    t.expect(&["gave up t/0", "join \"m1\" with t/1,t/2 of 2"]);
    t.joined_by(3, "coop");
    t.synced(&[1, 2, 0]);
    t.expect(&["sync 3 0", "assigned 3 t/0"]);
}

#[test]
fn a_drain_of_what_moves_has_a_deadline_too() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.joined_by(2, "coop");
    t.synced(&[1]);
    t.did();
    loop {
        t.wait();
        match t.did().as_slice() {
            [one] if one == "heartbeat 2" => t.beat(0),
            other => {
                assert_eq!(other, ["gave up t/0", "join \"m1\" with t/1 of 2"]);
                break;
            }
        }
    }
}

/// The broker gives a static member its place back without a rebalance, so nobody would ever get what it has given up.
#[test]
fn a_static_member_that_is_lost_before_it_joins_once_more_does_so_afterwards() {
    let mut t = Test::cooperative();
    t.m.settings.instance_id = Some("i".into());
    t.rebalances();
    t.joined_by(2, "coop");
    t.synced(&[1]);
    t.m.drained(t.now);
    t.did();
    t.refuse_join(code::UNKNOWN_MEMBER_ID);
    t.expect(&["lost t/1", "join \"\""]);
    t.joined_by(2, "coop");
    t.synced(&[1]);
    t.expect(&["sync 2 0", "assigned 2 t/1"]);
    t.wait();
    t.expect(&["join \"m1\" with t/1 of 2"]);
    t.joined_by(3, "coop");
    t.synced(&[1]);
    t.expect(&["sync 3 0", "assigned 3 "]);
    assert!(t.m.is_member());
    t.wait();
    t.expect(&["heartbeat 3"]);
}

/// The same member, started anew before it has joined once more: it knows of no debt, but the leader does.
#[test]
fn a_leader_does_not_wait_for_ever_for_what_it_has_withheld() {
    let mut t = Test::cooperative();
    for withheld in [true, false] {
        t.rebalances();
        let members = Some(vec![GroupMember::new("m1"), GroupMember::new("m2")]);
        let (generation, protocol) = (t.m.generation() + 1, "coop".to_owned());
        t.m.joined(t.now, Ok(JoinedGroup { member_id: "m1".into(), generation, protocol, leads: true, members }));
        t.m.shared(t.now, Vec::new(), withheld);
        t.synced(&[0, 1]);
        t.did();
        let since = t.now;
        loop {
            t.wait();
            match t.did().as_slice() {
                [one] if one.starts_with("heartbeat") && t.now < since + 2 * REBALANCE => t.beat(0),
                [one] if one.starts_with("heartbeat") => break assert!(!withheld),
                other => {
                    assert_eq!(other, [format!("join \"m1\" with t/0,t/1 of {generation}")]);
                    assert!(withheld && t.now == since + REBALANCE);
                    t.joined_by(generation + 1, "coop");
                    t.synced(&[0, 1]);
                    break;
                }
            }
        }
        t.did();
    }
}

#[test]
fn a_rebalance_that_overtakes_another_one_costs_a_cooperative_member_nothing() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.joined_by(2, "coop");
    t.did();
    t.m.synced(t.now, Err(RequestFailure::Code(code::REBALANCE_IN_PROGRESS)));
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    t.joined_by(3, "coop");
    t.did();
    t.m.synced(t.now, Err(RequestFailure::Code(code::ILLEGAL_GENERATION)));
    t.expect(&["lost t/0,t/1"]);
    t.wait();
    t.expect(&["join \"m1\""]);
}

#[test]
fn what_was_kept_is_lost_when_the_group_goes_over_to_an_eager_assignor() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.did();
    t.joined_by(2, "range");
    t.expect(&["lost t/0,t/1", "sync 2 0"]);
    t.synced(&[1]);
    t.expect(&["assigned 2 t/1"]);
    t.rebalances();
    t.expect(&["revoke t/1"]);
    t.m.drained(t.now);
    t.expect(&["gave up t/1", "join \"m1\""]);
}

#[test]
fn what_is_kept_is_ours_while_the_join_is_parked_but_not_without_a_coordinator() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.expect(&["join \"m1\" with t/0,t/1 of 1"]);
    assert_eq!(t.m.deadline(), None, "the group waits for others");
    t.m.joined(t.now, Err((broken(), String::new())));
    t.wait();
    t.expect(&["find"]);
    let joined = t.now;
    t.wait();
    t.expect(&["lost t/0,t/1", "find"]);
    assert!(t.now > joined);
    t.found();
    t.expect(&["join \"m1\""]);
}

#[test]
fn a_cooperative_member_that_leaves_gives_up_what_it_keeps() {
    let mut t = Test::cooperative();
    t.rebalances();
    t.did();
    t.m.leave(t.now);
    t.expect(&["gave up t/0,t/1", "find"]);
    t.found();
    t.expect(&["leave \"m1\""]);
    let mut t = Test::cooperative();
    t.m.topics_changed(t.now);
    t.expect(&[]);
}

#[test]
fn a_static_member_keeps_its_place_when_it_goes() {
    let mut t = Test::fixed();
    t.m.leave(t.now);
    t.expect(&["gave up t/0,t/1", "end"]);
    let mut t = Test::fixed();
    t.wait();
    t.did();
    t.beat(code::FENCED_INSTANCE_ID);
    let did = t.did();
    assert!(did[1].contains("REDPANDA_GROUP_INSTANCE_ID"), "{did:?}");
}

#[test]
fn a_static_leader_that_comes_back_does_not_share_out_anew() {
    let mut t = Test::new();
    t.found();
    t.did();
    let joined =
        JoinedGroup { member_id: "m2".into(), generation: 4, protocol: "range".into(), leads: true, members: None };
    t.m.joined(t.now, Ok(joined));
    t.expect(&["sync 4 0"]);
    t.synced(&[0]);
    t.expect(&["assigned 4 t/0"]);
    t.m.topics_changed(t.now);
    t.expect(&["revoke t/0"]);
}

#[test]
fn a_hung_program_loses_all_and_is_out_until_it_comes_back() {
    let mut t = Test::beating();
    t.m.expel(t.now);
    t.expect(&["lost t/0,t/1", "leave \"m1\""]);
    t.m.left(t.now, Ok(()));
    t.expect(&[]);
    assert_eq!(t.m.deadline(), None);
    t.m.expel(t.now);
    t.m.topics_changed(t.now);
    t.expect(&[]);
    t.m.come_back(t.now);
    t.expect(&["find"]);
    t.found();
    t.expect(&["join \"\""]);

    // It comes back while the group is being told, and what is told in vain is waited for no longer than leaving may take.
    let mut t = Test::stable();
    t.m.expel(t.now);
    t.did();
    t.m.come_back(t.now);
    t.expect(&[]);
    t.wait();
    t.expect(&["find"]);

    // In a drain, while what is kept waits for the group, and before it was a member.
    let mut t = Test::beating();
    t.beat(code::REBALANCE_IN_PROGRESS);
    t.m.expel(t.now);
    t.m.drained(t.now);
    t.expect(&["revoke t/0,t/1", "lost t/0,t/1", "leave \"m1\""]);
    let mut t = Test::cooperative();
    t.rebalances();
    t.did();
    t.m.expel(t.now);
    t.expect(&["lost t/0,t/1", "find"]);
    t.found();
    t.expect(&["leave \"m1\""]);

    // A static member's place is kept by the broker until its session expires.
    let mut t = Test::fixed();
    t.m.expel(t.now);
    t.expect(&["lost t/0,t/1"]);
    assert_eq!(t.m.deadline(), None);
    t.m.come_back(t.now);
    t.expect(&["find"]);
    t.found();
    t.expect(&["join \"m1\""]);

    // Who is out of the group is closed at once.
    let mut t = Test::fixed();
    t.m.expel(t.now);
    t.m.leave(t.now);
    t.expect(&["lost t/0,t/1", "end"]);
}

/// What may happen to a member, in any order.
#[derive(Debug, Clone)]
enum Event {
    /// The request under way is answered, well or with a code.
    RequestOutcome(i16),
    Break,
    Deadline,
    Drained,
    TopicsChanged,
    Disconnected,
    CommitRefused(i16),
    Expel,
    ComeBack,
    Leave,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let code = prop_oneof![Just(0_i16), Just(0), proptest::sample::select(vec![7, 14, 15, 16, 22, 25, 27, 79])];
    let event = prop_oneof![
        8 => code.clone().prop_map(Event::RequestOutcome),
        1 => Just(Event::Break),
        6 => Just(Event::Deadline),
        2 => Just(Event::Drained),
        1 => Just(Event::TopicsChanged),
        1 => Just(Event::Disconnected),
        1 => code.prop_map(Event::CommitRefused),
        1 => Just(Event::Expel),
        2 => Just(Event::ComeBack),
    ];
    let leave = proptest::option::of(Just(Event::Leave));
    (proptest::collection::vec(event, 0..120), leave)
        .prop_map(|(events, leave)| events.into_iter().chain(leave).collect())
}

/// Holds what a member does against what it may do.
struct Watch {
    t: Test,
    under_way: Option<&'static str>,
    owns: BTreeSet<TopicPartition>,
    draining: BTreeSet<TopicPartition>,
    /// What the group has agreed on.
    assignor: &'static str,
    leads: bool,
    /// The program hangs, or wants to go.
    away: bool,
    closing: bool,
    ended: bool,
    generation: i32,
}

impl Watch {
    fn look(&mut self) {
        while let Some(action) = self.t.m.next_action() {
            assert!(!self.ended, "nothing comes behind the end: {action:?}");
            match action {
                Action::FindCoordinator => self.under_way = Some("find"),
                Action::JoinGroup { .. } => {
                    let all_given_up = self.owns.is_empty() && self.draining.is_empty();
                    assert!(all_given_up || (self.assignor == "coop" && self.draining.is_empty()), "{:?}", self.owns);
                    self.under_way = Some("join");
                }
                Action::ComputeAssignment { .. } => {
                    assert!(self.owns.is_empty() || self.assignor == "coop");
                    self.under_way = Some("assign");
                }
                Action::SyncGroup { .. } => {
                    assert!(self.owns.is_empty() || self.assignor == "coop");
                    self.under_way = Some("sync");
                }
                Action::Heartbeat { generation, .. } => {
                    assert_eq!(generation, self.generation);
                    self.under_way = Some("heartbeat");
                }
                Action::LeaveGroup { .. } => {
                    assert!(self.owns.is_empty());
                    self.under_way = Some("leave");
                }
                Action::ConsumerGroupHeartbeat { .. } | Action::RefreshTopicNames | Action::FallBackToClassic => {
                    panic!("not of this protocol: {action:?}")
                }
                Action::Assigned { generation, added } => {
                    for p in added {
                        assert!(self.owns.insert(p), "assigned twice");
                    }
                    self.generation = generation;
                }
                Action::Revoke { deadline, partitions } => {
                    assert!(self.draining.is_empty() && !partitions.is_empty(), "revoked twice");
                    assert!(partitions.iter().all(|p| self.owns.contains(p)), "not ours");
                    self.draining = partitions.into_iter().collect();
                    assert!(deadline >= self.t.now && deadline <= self.t.now + REBALANCE);
                }
                Action::Revoked(partitions) | Action::Lost(partitions) => {
                    assert!(!partitions.is_empty(), "there was nothing to give up");
                    for p in partitions {
                        assert!(self.owns.remove(&p), "not ours");
                        self.draining.remove(&p);
                    }
                    assert!(self.draining.is_empty());
                }
                Action::Stop(_) => {
                    assert!(self.owns.is_empty(), "the program has been told");
                    self.ended = true;
                }
            }
        }
        assert!(self.owns.is_empty() || self.t.m.is_member() || self.assignor == "coop");
        let has_to_do = self.under_way.is_some() || self.t.m.deadline().is_some();
        assert!(self.ended || self.away || has_to_do, "it stands still");
    }

    fn happen(&mut self, event: Event) {
        let now = self.t.now;
        let failure = |code| RequestFailure::Code(code);
        match event {
            Event::Deadline => {
                if self.t.m.deadline().is_some() {
                    self.t.wait();
                }
            }
            Event::Drained => self.t.m.drained(now),
            Event::TopicsChanged => self.t.m.topics_changed(now),
            Event::Disconnected => self.t.m.disconnected(now),
            Event::CommitRefused(code) => self.t.m.commit_refused(now, code),
            Event::Expel => {
                self.away = true;
                self.t.m.expel(now);
            }
            Event::ComeBack => {
                self.away = false;
                self.t.m.come_back(now);
            }
            Event::Leave => {
                self.closing = true;
                self.t.m.leave(now);
            }
            Event::Break => match self.under_way.take() {
                Some("find") => self.t.m.found(now, Err(Error::new(ErrorKind::Connect, "down"))),
                Some("join") => self.t.m.joined(now, Err((broken(), String::new()))),
                Some("sync") => self.t.m.synced(now, Err(broken())),
                Some("heartbeat") => self.t.m.beat(now, Err(broken())),
                Some("leave") => self.t.m.left(now, Err(broken())),
                other => self.under_way = other,
            },
            Event::RequestOutcome(code) => {
                let outcome = if code == 0 { Ok(()) } else { Err(failure(code)) };
                match self.under_way.take() {
                    Some("find") => self.t.found(),
                    Some("join") if code == 0 => {
                        self.leads = !self.leads;
                        let members = self.leads.then(Vec::new);
                        let generation = self.generation + 1;
                        self.assignor = if self.t.random.u8(..4) == 0 { "range" } else { "coop" };
                        let protocol = self.assignor.into();
                        let joined =
                            JoinedGroup { member_id: "m1".into(), generation, protocol, leads: self.leads, members };
                        self.t.m.joined(now, Ok(joined));
                    }
                    Some("join") => self.t.refuse_join(code),
                    Some("assign") => self.t.m.shared(now, Vec::new(), true),
                    Some("sync") if code == 0 => {
                        let share: Vec<_> = (0..4).filter(|_| self.t.random.bool()).collect();
                        self.t.synced(&share);
                    }
                    Some("sync") => self.t.m.synced(now, outcome.map(|()| Vec::new())),
                    Some("heartbeat") => self.t.m.beat(now, outcome),
                    Some("leave") => self.t.m.left(now, outcome),
                    _ => {}
                }
            }
        }
        self.look();
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_owns_and_gives_up_in_turn_and_never_stands_still(
        events in events(),
        seed in any::<u64>(),
        rebalance in proptest::sample::select(vec![4, 60]),
    ) {
        let mut t = Test::with(Duration::from_secs(rebalance));
        t.random.seed(seed);
        let mut w = Watch {
            t,
            under_way: None,
            owns: BTreeSet::new(),
            draining: BTreeSet::new(),
            assignor: "",
            leads: false,
            away: false,
            closing: false,
            ended: false,
            generation: 0,
        };
        w.look();
        for event in events {
            w.happen(event);
        }
        // With a broker that works again it comes to rest: as a member, or out of the group if it wanted to leave.
        w.happen(Event::ComeBack);
        let leaving = w.closing;
        for _ in 0..60 {
            if w.ended || w.t.m.phase == Phase::Stable {
                break;
            }
            w.happen(if w.under_way.is_some() { Event::RequestOutcome(0) } else { Event::Deadline });
            w.happen(Event::Drained);
        }
        prop_assert!(w.ended || (w.t.m.phase == Phase::Stable && !leaving), "{:?}", w.t.m);
    }
}
