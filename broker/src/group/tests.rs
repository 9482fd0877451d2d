#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use proptest::prelude::*;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A group with a clock of its own.
struct Bench {
    group: Group,
    now: Instant,
    tickets: Ticket,
}

impl Bench {
    fn new() -> Self {
        Self::delayed(Duration::ZERO)
    }

    fn delayed(delay: Duration) -> Self {
        Self { group: Group::new(delay, SESSION), now: Instant::now(), tickets: 0 }
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
            fresh_id: id.into(),
            must_know_id: false,
            may_skip_assignment: true,
        }
    }

    fn join(&mut self, request: JoinRequest) -> Ticket {
        self.tickets += 1;
        self.group.join(request, self.tickets, self.now);
        self.tickets
    }

    /// A new member.
    fn enter(&mut self, id: &str) -> Ticket {
        self.join(Self::request(id))
    }

    /// A member that is known.
    fn rejoin(&mut self, id: &str) -> Ticket {
        self.join(JoinRequest { member_id: id.into(), ..Self::request(id) })
    }

    fn enter_static(&mut self, id: &str, instance: &str) -> Ticket {
        self.join(JoinRequest { instance_id: Some(instance.into()), ..Self::request(id) })
    }

    fn sync(&mut self, id: &str, assignments: &[(&str, &'static str)]) -> Ticket {
        self.tickets += 1;
        let assignments = assignments.iter().map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes())));
        let generation = self.group.generation();
        self.group.sync(key(id), generation, (None, None), assignments.collect(), self.tickets, self.now);
        self.tickets
    }

    fn beat(&mut self, id: &str) -> Result<(), ResponseError> {
        let generation = self.group.generation();
        self.group.heartbeat(key(id), generation, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.now);
    }

    fn answers(&mut self) -> Vec<(Ticket, Answer)> {
        self.group.take_answers()
    }

    /// Members a and b, a leading, with their assignment.
    fn stable_pair() -> Self {
        let mut bench = Self::new();
        bench.enter("a");
        bench.enter("b");
        bench.rejoin("a");
        bench.sync("b", &[]);
        bench.sync("a", &[("a", "0"), ("b", "1")]);
        bench.answers();
        assert_eq!(bench.group.phase(), Phase::Stable);
        bench
    }
}

fn key(id: &str) -> MemberKey<'_> {
    MemberKey { id, instance: None }
}

fn joined(answers: &[(Ticket, Answer)], ticket: Ticket) -> Joined {
    match answers.iter().find(|(t, _)| *t == ticket) {
        Some((_, Answer::Joined(joined))) => joined.clone(),
        other => panic!("not joined: {other:?}"),
    }
}

fn refused(answers: &[(Ticket, Answer)], ticket: Ticket) -> ResponseError {
    match answers.iter().find(|(t, _)| *t == ticket) {
        Some((_, Answer::Refused(error, _))) => *error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_first_member_leads_a_generation_of_its_own() {
    let mut bench = Bench::new();
    let ticket = bench.enter("a");
    let answers = bench.answers();
    let a = joined(&answers, ticket);
    assert_eq!((a.generation, a.leader.as_str(), a.members.len()), (1, "a", 1));
    let ticket = bench.sync("a", &[("a", "0")]);
    let synced = Answer::Synced {
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        assignment: Bytes::from_static(b"0"),
    };
    assert_eq!(bench.answers(), vec![(ticket, synced)]);
    assert_eq!(bench.beat("a"), Ok(()));
}

#[test]
fn a_newcomer_waits_until_the_others_have_joined_again() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.sync("a", &[]);
    bench.answers();
    let b = bench.enter("b");
    assert_eq!(bench.answers(), vec![]);
    assert_eq!(bench.beat("a"), Err(ResponseError::RebalanceInProgress));
    let a = bench.rejoin("a");
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).members.len(), 2);
    assert_eq!(joined(&answers, b).members.len(), 0);
    assert_eq!(joined(&answers, b).generation, 2);
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.enter("b");
    bench.rejoin("a");
    bench.answers();
    let b = bench.sync("b", &[]);
    assert_eq!(bench.answers(), vec![]);
    let a = bench.sync("a", &[("b", "all")]);
    let assigned: Vec<_> = bench
        .answers()
        .into_iter()
        .map(|(ticket, answer)| match answer {
            Answer::Synced { assignment, .. } => (ticket, assignment),
            other => panic!("not synced: {other:?}"),
        })
        .collect();
    assert_eq!(assigned, vec![(a, Bytes::new()), (b, Bytes::from_static(b"all"))]);
}

#[test]
fn a_new_member_must_come_back_with_its_id() {
    let mut bench = Bench::new();
    let ticket = bench.join(JoinRequest { must_know_id: true, ..Bench::request("a") });
    assert_eq!(bench.answers(), vec![(ticket, Answer::Refused(ResponseError::MemberIdRequired, "a".into()))]);
    let ticket = bench.rejoin("a");
    let answers = bench.answers();
    assert_eq!(joined(&answers, ticket).member_id, "a");
}

#[test]
fn an_id_nobody_comes_back_with_holds_a_rebalance_up_for_one_session() {
    let mut bench = Bench::new();
    bench.join(JoinRequest { must_know_id: true, ..Bench::request("ghost") });
    let a = bench.enter("a");
    assert_eq!(bench.answers().len(), 1, "only the ghost was answered");
    bench.pass(SESSION);
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).generation, 1);
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let mut bench = Bench::stable_pair();
    bench.pass(SESSION / 2);
    assert_eq!(bench.beat("a"), Ok(()));
    assert_eq!(bench.group.deadline(), Some(bench.now + SESSION / 2));
    bench.pass(SESSION / 2);
    assert_eq!(bench.beat("b"), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.beat("a"), Err(ResponseError::RebalanceInProgress));
    let a = bench.rejoin("a");
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).members.len(), 1);
}

#[test]
fn whoever_does_not_join_again_in_time_is_left_behind() {
    let mut bench = Bench::stable_pair();
    let c = bench.enter("c");
    let a = bench.rejoin("a");
    for _ in 0..11 {
        bench.pass(REBALANCE / 12);
        assert_eq!(bench.beat("b"), Err(ResponseError::RebalanceInProgress));
        assert_eq!(bench.answers(), vec![]);
    }
    bench.pass(REBALANCE / 12);
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).members.len(), 2);
    assert_eq!(joined(&answers, c).generation, joined(&answers, a).generation);
    assert_eq!(bench.beat("b"), Err(ResponseError::UnknownMemberId));
}

#[test]
fn whoever_does_not_sync_in_time_is_left_behind() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.enter("b");
    bench.rejoin("a");
    bench.answers();
    let b = bench.sync("b", &[]);
    for _ in 0..12 {
        bench.pass(REBALANCE / 12);
        let _ = bench.beat("a");
    }
    let answers = bench.answers();
    assert_eq!(refused(&answers, b), ResponseError::RebalanceInProgress);
    assert_eq!(bench.beat("a"), Err(ResponseError::UnknownMemberId));
    let b = bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, b).leader, "b");
}

#[test]
fn a_rebalance_ends_waiting_syncs() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.enter("b");
    bench.rejoin("a");
    bench.answers();
    let b = bench.sync("b", &[]);
    bench.enter("c");
    let answers = bench.answers();
    assert_eq!(refused(&answers, b), ResponseError::RebalanceInProgress);
}

#[test]
fn a_member_whose_connection_broke_while_it_waited_does_not_wedge_the_group() {
    let mut bench = Bench::stable_pair();
    // The request of c stays parked, and nobody will read its answer.
    bench.enter("c");
    bench.rejoin("a");
    bench.rejoin("b");
    bench.answers();
    bench.sync("b", &[]);
    bench.sync("a", &[]);
    bench.answers();
    bench.pass(SESSION / 2);
    assert_eq!((bench.beat("a"), bench.beat("b")), (Ok(()), Ok(())));
    bench.pass(SESSION / 2);
    assert_eq!(bench.beat("c"), Err(ResponseError::UnknownMemberId));
    let a = bench.rejoin("a");
    bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).members.len(), 2);
}

#[test]
fn a_second_join_of_a_member_takes_the_place_of_the_first() {
    let mut bench = Bench::stable_pair();
    let first = bench.rejoin("a");
    let second = bench.rejoin("a");
    let answers = bench.answers();
    assert_eq!(refused(&answers, first), ResponseError::RebalanceInProgress);
    bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, second).members.len(), 2);
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_what_holds() {
    let mut bench = Bench::stable_pair();
    let b = bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, b).generation, bench.group.generation());
    assert_eq!(bench.group.phase(), Phase::Stable);
    let changed = vec![("range".into(), Bytes::from_static(b"other topics"))];
    bench.join(JoinRequest { member_id: "b".into(), protocols: changed, ..Bench::request("b") });
    assert_eq!(bench.group.phase(), Phase::PreparingRebalance);
}

#[test]
fn a_leader_that_joins_again_starts_a_rebalance() {
    let mut bench = Bench::stable_pair();
    bench.rejoin("a");
    assert_eq!(bench.group.phase(), Phase::PreparingRebalance);
}

#[test]
fn the_last_to_leave_leaves_an_empty_group() {
    let mut bench = Bench::stable_pair();
    bench.group.leave(key("a"), bench.now).unwrap();
    let b = bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, b).leader, "b");
    bench.group.leave(key("b"), bench.now).unwrap();
    assert_eq!((bench.group.phase(), bench.group.has_members()), (Phase::Empty, false));
    assert_eq!(bench.group.leave(key("b"), bench.now), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.group.deadline(), None);
}

#[test]
fn assignors_nobody_shares_are_refused_and_the_favourite_wins() {
    let mut bench = Bench::new();
    let both = |first: &str, second: &str| vec![(first.to_owned(), Bytes::new()), (second.to_owned(), Bytes::new())];
    bench.join(JoinRequest { protocols: both("sticky", "range"), ..Bench::request("a") });
    let ticket = bench.join(JoinRequest { protocols: vec![("other".into(), Bytes::new())], ..Bench::request("b") });
    let answers = bench.answers();
    assert_eq!(refused(&answers, ticket), ResponseError::InconsistentGroupProtocol);
    bench.join(JoinRequest { protocols: both("range", "sticky"), ..Bench::request("b") });
    bench.join(JoinRequest { protocols: both("range", "sticky"), ..Bench::request("c") });
    let a =
        bench.join(JoinRequest { member_id: "a".into(), protocols: both("sticky", "range"), ..Bench::request("a") });
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).protocol, "range");
}

#[test]
fn the_first_member_of_an_empty_group_waits_for_more() {
    let delay = Duration::from_secs(3);
    let mut bench = Bench::delayed(delay);
    let a = bench.enter("a");
    bench.pass(delay / 2);
    let b = bench.enter("b");
    bench.pass(delay / 2);
    assert_eq!(bench.answers(), vec![], "b came late and moved the end");
    bench.pass(delay / 2);
    let answers = bench.answers();
    assert_eq!((joined(&answers, a).generation, joined(&answers, b).generation), (1, 1));
}

#[test]
fn a_static_member_takes_over_from_its_old_self() {
    let mut bench = Bench::new();
    bench.enter_static("old", "i");
    bench.sync("old", &[("old", "all")]);
    bench.answers();
    let ticket = bench.enter_static("new", "i");
    let answers = bench.answers();
    let new = joined(&answers, ticket);
    assert_eq!((new.generation, new.skip_assignment, bench.group.phase()), (1, true, Phase::Stable));
    let fenced = MemberKey { id: "old", instance: Some("i") };
    assert_eq!(bench.group.heartbeat(fenced, 1, bench.now), Err(ResponseError::FencedInstanceId));
    assert_eq!(bench.beat("old"), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.beat("new"), Ok(()));
    let ticket = bench.sync("new", &[]);
    let synced = bench.answers();
    assert!(matches!(&synced[..], [(t, Answer::Synced { assignment, .. })] if *t == ticket && assignment == "all"));
}

#[test]
fn a_static_members_parked_request_is_fenced_by_its_new_self() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.answers();
    let old = bench.enter_static("old", "i");
    bench.enter_static("new", "i");
    let answers = bench.answers();
    assert_eq!(refused(&answers, old), ResponseError::FencedInstanceId);
}

#[test]
fn a_static_member_leaves_by_its_instance() {
    let mut bench = Bench::new();
    bench.enter_static("a", "i");
    bench.answers();
    let by_instance = |instance| MemberKey { id: "", instance: Some(instance) };
    assert_eq!(bench.group.leave(by_instance("j"), bench.now), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.group.leave(by_instance("i"), bench.now), Ok(()));
    assert!(!bench.group.has_members());
}

#[test]
fn a_static_member_keeps_its_place_through_a_rebalance_it_misses() {
    let mut bench = Bench::new();
    bench.enter("a");
    bench.sync("a", &[]);
    bench.enter_static("s", "i");
    bench.rejoin("a");
    bench.sync("s", &[]);
    bench.sync("a", &[]);
    bench.answers();
    bench.enter("b");
    let a = bench.rejoin("a");
    for _ in 0..12 {
        bench.pass(REBALANCE / 12);
        let _ = bench.beat("s");
    }
    let answers = bench.answers();
    assert_eq!(joined(&answers, a).members.len(), 3);
}

#[test]
fn commits_need_the_current_generation_or_an_empty_group() {
    let mut bench = Bench::new();
    let now = bench.now;
    assert_eq!(bench.group.may_commit(key(""), -1, true, now), Ok(()));
    bench.enter("a");
    assert_eq!(bench.group.may_commit(key("a"), 1, true, now), Err(ResponseError::RebalanceInProgress));
    bench.sync("a", &[]);
    assert_eq!(bench.group.may_commit(key("a"), 1, true, now), Ok(()));
    assert_eq!(bench.group.may_commit(key("a"), 2, true, now), Err(ResponseError::IllegalGeneration));
    assert_eq!(bench.group.may_commit(key("b"), 1, true, now), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.group.may_commit(key(""), -1, true, now), Err(ResponseError::UnknownMemberId));
    bench.enter("b");
    assert_eq!(bench.group.may_commit(key("a"), 1, true, now), Ok(()), "while a rebalance is prepared");
}

#[test]
fn a_group_that_moves_sends_its_members_away_and_keeps_them() {
    let mut bench = Bench::stable_pair();
    let c = bench.enter("c");
    bench.group.resign(bench.now);
    let answers = bench.answers();
    assert_eq!(refused(&answers, c), ResponseError::NotCoordinator);
    let c = bench.rejoin("c");
    bench.rejoin("a");
    bench.rejoin("b");
    let answers = bench.answers();
    assert_eq!(joined(&answers, c).generation, 3);
}

/// What a client may do next.
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
    /// Whatever clients do, and whichever of them fall silent: every request is answered exactly once in the end, the
    /// generation never goes back, and the deadlines lead to rest and not to a loop.
    #[test]
    fn every_request_is_answered_once_and_time_leads_to_rest(
        steps in prop::collection::vec(step(), 1..60),
        delayed in any::<bool>(),
    ) {
        let mut bench = Bench::delayed(if delayed { Duration::from_secs(3) } else { Duration::ZERO });
        let mut open = BTreeSet::new();
        let mut generation = 0;
        let mut fresh = 0;
        for step in steps {
            fresh += 1;
            match step {
                Step::Enter(m, must_know_id) => {
                    let fresh_id = format!("m{m}-{fresh}");
                    open.insert(bench.join(JoinRequest { must_know_id, ..Bench::request(&fresh_id) }));
                }
                Step::EnterStatic(m) => {
                    open.insert(bench.enter_static(&format!("s{m}-{fresh}"), &format!("i{m}")));
                }
                Step::Rejoin(m) => {
                    let id = nth(&bench, m);
                    open.insert(bench.rejoin(&id));
                }
                Step::Sync(m) => {
                    let id = nth(&bench, m);
                    open.insert(bench.sync(&id, &[]));
                }
                Step::Beat(m) => {
                    let id = nth(&bench, m);
                    let _ = bench.beat(&id);
                }
                Step::Leave(m) => {
                    let id = nth(&bench, m);
                    let _ = bench.group.leave(key(&id), bench.now);
                }
                Step::Resign => bench.group.resign(bench.now),
                Step::Pass(ms) => bench.pass(Duration::from_millis(ms.into())),
            }
            prop_assert!(bench.group.generation() >= generation);
            generation = bench.group.generation();
            for (ticket, _) in bench.answers() {
                prop_assert!(open.remove(&ticket), "ticket {} was answered twice", ticket);
            }
        }
        // Everyone falls silent.
        for _ in 0..100 {
            let Some(deadline) = bench.group.deadline() else { break };
            bench.now = bench.now.max(deadline);
            bench.group.tick(bench.now);
            for (ticket, _) in bench.answers() {
                prop_assert!(open.remove(&ticket), "ticket {} was answered twice", ticket);
            }
        }
        prop_assert_eq!(bench.group.deadline(), None);
        prop_assert_eq!(bench.group.phase(), Phase::Empty);
        prop_assert!(open.is_empty(), "never answered: {:?}", open);
    }
}

/// One of the members and of the ids that were handed out.
fn nth(bench: &Bench, n: u8) -> String {
    let ids: Vec<&String> = bench.group.members.keys().chain(bench.group.pending.keys()).collect();
    ids.get(usize::from(n) % ids.len().max(1)).map_or_else(|| "nobody".to_owned(), |id| (*id).clone())
}
