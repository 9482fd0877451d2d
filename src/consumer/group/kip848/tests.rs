#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const SESSION: Duration = Duration::from_secs(30);
const REBALANCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(5);

fn t(partitions: &[i32]) -> BTreeSet<IdPartition> {
    of(1, partitions)
}

fn of(topic: u128, partitions: &[i32]) -> BTreeSet<IdPartition> {
    partitions.iter().map(|p| (Uuid::from_u128(topic), *p)).collect()
}

/// A member and a clock; what it does is kept in short words.
struct Test {
    m: Kip848Member,
    now: Instant,
    did: Vec<String>,
}

fn word(a: &Action) -> String {
    let all = |p: &[TopicPartition]| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match a {
        Action::FindCoordinator => "find".into(),
        Action::ConsumerGroupHeartbeat { heartbeat: beat, .. } => {
            let owned = beat.owned.as_ref().map(|o| {
                let numbers = o.iter().map(|(_, p)| p.to_string()).collect::<Vec<_>>().join(",");
                format!(" owning [{numbers}]")
            });
            let full = if beat.full { " full" } else { "" };
            format!("beat {} {}{full}{}", beat.member_id, beat.epoch, owned.unwrap_or_default())
        }
        Action::RefreshTopicNames => "resolve".into(),
        Action::FallBackToClassic => "go classic".into(),
        Action::Assigned { generation, added } => format!("assigned {generation} {}", all(added)),
        Action::Revoke { partitions, .. } => format!("revoke {}", all(partitions)),
        Action::Revoked(partitions) => format!("gave up {}", all(partitions)),
        Action::Lost(partitions) => format!("lost {}", all(partitions)),
        Action::Stop(Ok(())) => "end".into(),
        Action::Stop(Err(e)) => format!("failed {:?}: {}", e.kind(), e.full()),
        other => panic!("not an action of this protocol: {other:?}"),
    }
}

fn settings() -> MemberConfig {
    MemberConfig {
        group: "g".into(),
        assignors: Vec::new(),
        instance_id: None,
        may_be_classic: false,
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        heartbeat_interval: Duration::from_secs(3),
        request_timeout: Duration::from_secs(30),
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
    }
}

impl Test {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: MemberConfig) -> Self {
        let now = Instant::now();
        Self { m: Kip848Member::new(settings, "own".into(), now), now, did: Vec::new() }
    }

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
        self.m.found(self.now, Ok(Some(1)));
    }

    fn learn(&mut self) {
        self.m.learn(self.now, [(Uuid::from_u128(1), "t".into())]);
    }

    fn beaten(&mut self, epoch: i32, assignment: Option<BTreeSet<IdPartition>>) {
        let member_id = Some("given".to_owned()).filter(|_| self.m.member_id().is_empty());
        self.m.beaten(self.now, Ok(HeartbeatResponse { member_id, epoch, interval: INTERVAL, assignment }));
    }

    fn refused(&mut self, code: i16) {
        self.m.beaten(self.now, Err((RequestFailure::Code(code), String::new())));
    }

    /// A member in epoch 2 that owns t/0 and t/1 and has said so.
    fn stable() -> Self {
        Self::stable_with(settings())
    }

    fn stable_with(settings: MemberConfig) -> Self {
        let mut test = Self::with(settings);
        test.found();
        test.learn();
        test.beaten(2, Some(t(&[0, 1])));
        test.beaten(2, None);
        test.expect(&["find", "beat own 0 full owning []", "assigned 2 t/0,t/1", "beat own 2 owning [0,1]"]);
        test
    }

    /// The same, with a heartbeat under way.
    fn beating() -> Self {
        let mut test = Self::stable();
        test.wait();
        test.expect(&["beat own 2"]);
        test
    }

    /// The same, draining t/1, with a heartbeat under way.
    fn draining() -> Self {
        let mut test = Self::beating();
        test.beaten(2, Some(t(&[0])));
        test.wait();
        test.expect(&["revoke t/1", "beat own 2"]);
        test
    }
}

fn broken() -> (RequestFailure, String) {
    (RequestFailure::Connection(Error::new(ErrorKind::Disconnected, "gone")), String::new())
}

#[test]
fn a_member_names_itself_where_it_may() {
    let mut test = Test::new();
    test.m.found(test.now, Ok(Some(1)));
    test.expect(&["find", "beat own 0 full owning []"]);
    let mut test = Test::new();
    test.m.found(test.now, Ok(Some(0)));
    test.expect(&["find", "beat  0 full owning []"]);
    test.beaten(1, Some(t(&[])));
    test.expect(&["assigned 1 "]);
    assert_eq!((test.m.member_id(), test.m.generation()), ("given", 1));
    test.wait();
    test.expect(&["beat given 1"]);
}

#[test]
fn what_is_assigned_waits_for_its_topics_name() {
    let mut test = Test::new();
    test.found();
    test.did();
    test.beaten(2, Some(t(&[0]).union(&of(2, &[5])).copied().collect()));
    test.expect(&["assigned 2 ", "resolve"]);
    test.learn();
    test.expect(&["assigned 2 t/0", "beat own 2 owning [0]"]);
    test.wait();
    test.expect(&["resolve"]);
    test.beaten(2, None);
    test.m.learn(test.now, [(Uuid::from_u128(2), "u".into())]);
    test.expect(&["assigned 2 u/5", "beat own 2 owning [0,5]"]);
    test.beaten(2, None);
    assert!(!test.m.wants_names());
}

#[test]
fn what_goes_is_drained_and_told_before_what_comes_is_taken() {
    let mut test = Test::beating();
    test.beaten(3, Some(t(&[0, 2])));
    test.expect(&["revoke t/1", "assigned 3 "]);
    for _ in 0..2 {
        test.wait();
        test.expect(&["beat own 3"]);
        test.beaten(3, None);
        assert!(test.m.is_member(), "still ours");
    }
    test.m.drained(test.now);
    test.expect(&["gave up t/1", "beat own 3 owning [0]"]);
    test.beaten(4, None);
    test.expect(&["assigned 4 t/2", "beat own 4 owning [0,2]"]);
    test.beaten(4, None);
    test.expect(&[]);
}

#[test]
fn a_drain_that_ends_while_a_heartbeat_is_under_way_is_told_with_the_next() {
    let mut test = Test::draining();
    test.m.drained(test.now);
    test.expect(&["gave up t/1"]);
    test.beaten(2, None);
    test.expect(&["beat own 2 owning [0]"]);
}

#[test]
fn a_drain_ends_at_its_deadline_which_counts_from_the_heartbeat_that_asked_for_it() {
    let mut test = Test::beating();
    let sent = test.now;
    test.now += Duration::from_millis(100);
    test.beaten(2, Some(t(&[0])));
    let deadline = std::iter::from_fn(|| test.m.next_action()).find_map(|a| match a {
        Action::Revoke { deadline, .. } => Some(deadline),
        _ => None,
    });
    assert_eq!(deadline, Some(sent + REBALANCE - Duration::from_secs(5)));
    loop {
        test.wait();
        match test.did().as_slice() {
            [one] if one == "beat own 2" => test.beaten(2, None),
            other => {
                assert_eq!(other, ["gave up t/1", "beat own 2 owning [0]"]);
                break;
            }
        }
    }
    assert_eq!(Some(test.now), deadline);
}

#[test]
fn what_the_coordinator_wants_meanwhile_comes_after_the_drain() {
    let mut test = Test::draining();
    test.beaten(2, Some(t(&[1, 2])));
    test.expect(&[]);
    test.m.drained(test.now);
    test.expect(&["gave up t/1", "revoke t/0"]);
    test.m.drained(test.now);
    test.expect(&["gave up t/0", "beat own 2 owning []"]);
    test.beaten(3, None);
    test.expect(&["assigned 3 t/1,t/2", "beat own 3 owning [1,2]"]);
}

#[test]
fn a_topic_that_was_created_again_takes_the_place_of_the_old_one() {
    let mut test = Test::beating();
    test.m.learn(test.now, [(Uuid::from_u128(2), "t".into())]);
    let both: BTreeSet<_> = t(&[0, 1]).union(&of(2, &[0])).copied().collect();
    test.beaten(3, Some(both));
    test.expect(&["assigned 3 "]);
    test.wait();
    test.beaten(4, Some(of(2, &[0])));
    test.m.drained(test.now);
    test.expect(&["beat own 3", "revoke t/0,t/1", "assigned 4 ", "gave up t/0,t/1", "beat own 4 owning []"]);
    test.beaten(4, None);
    test.expect(&["assigned 4 t/0", "beat own 4 owning [0]"]);
}

#[test]
fn heartbeats_come_soon_after_news_and_then_at_the_interval_of_the_coordinator() {
    let mut test = Test::beating();
    let mut gaps = Vec::new();
    test.beaten(3, None);
    for _ in 0..6 {
        let before = test.now;
        test.wait();
        gaps.push(test.now - before);
        test.beaten(3, None);
    }
    assert_eq!(gaps, [1, 2, 4, 8, 8, 8].map(|n| INTERVAL / 8 * n));
    let own = HeartbeatResponse { member_id: None, epoch: 3, interval: Duration::from_secs(3600), assignment: None };
    test.wait();
    test.m.beaten(test.now, Ok(own));
    assert!(test.m.deadline().unwrap() <= test.now + SESSION / 3, "not so seldom that the session ends here");
}

#[test]
fn after_a_lost_answer_everything_is_told_and_what_was_missed_is_learned() {
    let mut test = Test::beating();
    test.m.beaten(test.now, Err(broken()));
    test.wait();
    test.expect(&["find"]);
    test.m.found(test.now, Err(Error::new(ErrorKind::Connect, "no broker")));
    test.expect(&[]);
    test.wait();
    test.expect(&["find"]);
    test.found();
    test.expect(&["beat own 2 full owning [0,1]"]);
    test.beaten(3, Some(t(&[0])));
    test.expect(&["revoke t/1", "assigned 3 "]);

    let mut test = Test::stable();
    test.m.disconnected(test.now);
    test.expect(&["find"]);
    test.found();
    test.wait();
    test.expect(&["beat own 2 full owning [0,1]"]);
}

#[test]
fn a_moved_coordinator_costs_no_partition() {
    for code in [code::NOT_COORDINATOR, code::COORDINATOR_NOT_AVAILABLE] {
        let mut test = Test::draining();
        test.refused(code);
        test.wait();
        test.expect(&["find"]);
        test.found();
        test.expect(&["beat own 2 full owning [0,1]"]);
        test.m.drained(test.now);
        test.expect(&["gave up t/1"]);
        test.beaten(2, Some(t(&[0])));
        test.expect(&["beat own 2 owning [0]"]);
        assert!(test.m.is_member());
    }
}

/// What comes of each error code in each state, in words; then, after one wait, what comes next.
#[test]
fn every_error_in_every_state() {
    type Row = (i16, [&'static str; 4]);
    const AGAIN: &str = "again";
    const FIND: &str = "find";
    const REJOIN: &str = "rejoin";
    const END: &str = "end";
    const LEFT: &str = "left";
    // joining, stable, draining, leaving
    let table: &[Row] = &[
        (code::COORDINATOR_LOAD_IN_PROGRESS, [AGAIN, AGAIN, AGAIN, AGAIN]),
        (code::COORDINATOR_NOT_AVAILABLE, [FIND, FIND, FIND, FIND]),
        (code::NOT_COORDINATOR, [FIND, FIND, FIND, FIND]),
        (code::UNKNOWN_MEMBER_ID, [REJOIN, REJOIN, REJOIN, LEFT]),
        (code::FENCED_MEMBER_EPOCH, [REJOIN, REJOIN, REJOIN, LEFT]),
        (code::GROUP_ID_NOT_FOUND, [END, REJOIN, REJOIN, LEFT]),
        (code::FENCED_INSTANCE_ID, [END, END, END, LEFT]),
        (code::UNRELEASED_INSTANCE_ID, [AGAIN, AGAIN, AGAIN, AGAIN]),
        (code::UNSUPPORTED_ASSIGNOR, [END, END, END, END]),
        (code::UNSUPPORTED_VERSION, [END, END, END, END]),
        (code::GROUP_MAX_SIZE_REACHED, [AGAIN, AGAIN, AGAIN, END]),
        (24, [END, END, END, END]),        // INVALID_GROUP_ID
        (30, [AGAIN, AGAIN, AGAIN, END]),  // GROUP_AUTHORIZATION_FAILED
        (42, [END, END, END, END]),        // INVALID_REQUEST
        (128, [END, END, END, END]),       // INVALID_REGULAR_EXPRESSION
        (7, [AGAIN, AGAIN, AGAIN, AGAIN]), // REQUEST_TIMED_OUT
        (-1, [AGAIN, AGAIN, AGAIN, END]),  // UNKNOWN_SERVER_ERROR
        (9999, [AGAIN, AGAIN, AGAIN, END]),
    ];
    let joining = || {
        let mut test = Test::new();
        test.found();
        test.did();
        test
    };
    let leaving = || {
        let mut test = Test::stable();
        test.m.leave(test.now);
        test.expect(&["gave up t/0,t/1", "beat own -1"]);
        test
    };
    let states: [(&str, &dyn Fn() -> Test); 4] =
        [("joining", &joining), ("stable", &Test::beating), ("draining", &Test::draining), ("leaving", &leaving)];
    for (code, outcomes) in table {
        for ((state, make), expected) in states.iter().zip(outcomes) {
            let mut test = make();
            let owned = matches!(*state, "stable" | "draining");
            test.refused(*code);
            let mut did = test.did();
            if owned && matches!(*expected, REJOIN | END) {
                assert_eq!(did.remove(0), "lost t/0,t/1", "{state} {code}");
                assert!(!test.m.is_member());
            } else {
                assert_eq!(test.m.is_member(), owned, "{state} {code}");
            }
            let beat = match *state {
                "joining" => "beat own 0 full owning []",
                "leaving" => "beat own -1",
                _ => "beat own 2 full owning [0,1]",
            };
            match *expected {
                END => assert!(did.len() == 1 && did[0].starts_with("failed"), "{state} {code}: {did:?}"),
                LEFT => assert_eq!(did, ["end"], "{state} {code}"),
                REJOIN => assert_eq!(did, ["beat own 0 full owning []"], "{state} {code}"),
                _ => {
                    assert!(did.is_empty(), "{state} {code}: {did:?}");
                    test.wait();
                    if *expected == FIND {
                        test.expect(&["find"]);
                        test.found();
                    }
                    if test.m.deadline().is_some_and(|d| d > test.now) && test.did.is_empty() {
                        let did = test.did();
                        if did.is_empty() {
                            test.wait();
                        } else {
                            test.did = did;
                        }
                    }
                    assert_eq!(test.did(), [beat], "{state} {code}");
                }
            }
        }
    }
}

#[test]
fn who_is_put_out_again_and_again_waits_longer_each_time() {
    let mut test = Test::beating();
    test.refused(code::FENCED_MEMBER_EPOCH);
    test.expect(&["lost t/0,t/1", "beat own 0 full owning []"]);
    test.refused(code::FENCED_MEMBER_EPOCH);
    test.expect(&[]);
    test.wait();
    test.expect(&["beat own 0 full owning []"]);
    test.beaten(5, Some(t(&[0, 1])));
    test.expect(&["assigned 5 t/0,t/1", "beat own 5 owning [0,1]"]);
}

#[test]
fn an_answer_without_an_epoch_is_none() {
    for epoch in [0, -1, i32::MIN] {
        let mut test = Test::beating();
        test.beaten(epoch, Some(t(&[0, 1, 2])));
        test.expect(&[]);
        test.wait();
        test.expect(&["find"]);
        assert!(test.m.is_member());
    }
}

#[test]
fn the_session_expires_here_too() {
    let mut test = Test::beating();
    let sent = test.now;
    test.beaten(2, None);
    test.wait();
    test.expect(&["beat own 2"]);
    test.wait();
    test.expect(&["lost t/0,t/1", "find"]);
    assert_eq!(test.now, sent + SESSION);
    test.beaten(2, Some(t(&[0, 1])));
    test.expect(&[]);
    test.found();
    test.expect(&["beat own 0 full owning []"]);
}

#[test]
fn a_stale_commit_asks_for_the_epoch() {
    let mut test = Test::stable();
    test.m.commit_refused(test.now, code::STALE_MEMBER_EPOCH);
    test.expect(&["beat own 2"]);
    test.m.commit_refused(test.now, code::STALE_MEMBER_EPOCH);
    test.expect(&[]);
    test.beaten(3, None);
    test.expect(&["assigned 3 "]);
    assert_eq!(test.m.generation(), 3);
}

#[test]
fn what_a_refused_commit_tells() {
    for (code, expected) in [
        (code::NOT_COORDINATOR, &["find"][..]),
        (code::UNKNOWN_MEMBER_ID, &["lost t/0,t/1", "beat own 0 full owning []"]),
        (code::GROUP_ID_NOT_FOUND, &["lost t/0,t/1", "beat own 0 full owning []"]),
        (12, &[]), // OFFSET_METADATA_TOO_LARGE
    ] {
        let mut test = Test::stable();
        test.m.commit_refused(test.now, code);
        if expected == ["find"] {
            test.wait();
        }
        test.expect(expected);
    }
    let mut test = Test::stable();
    test.m.commit_refused(test.now, code::FENCED_INSTANCE_ID);
    assert!(test.did()[1].starts_with("failed"));
    test.m.commit_refused(test.now, code::UNKNOWN_MEMBER_ID);
    test.expect(&[]);
}

#[test]
fn a_refused_commit_costs_no_answer_to_a_heartbeat() {
    let mut test = Test::stable();
    test.wait();
    test.expect(&["beat own 2"]);
    test.m.commit_refused(test.now, code::NOT_COORDINATOR);
    test.expect(&[]);
    test.beaten(3, None);
    test.expect(&["assigned 3 "]);
}

#[test]
fn a_static_member_leaves_for_now_and_waits_for_its_instance() {
    let settings = MemberConfig { instance_id: Some("i".into()), ..settings() };
    let mut test = Test::stable_with(settings.clone());
    test.m.leave(test.now);
    test.expect(&["gave up t/0,t/1", "beat own -2"]);
    test.beaten(-2, None);
    test.expect(&["end"]);

    let mut test = Test::with(settings);
    test.found();
    test.did();
    let began = test.now;
    loop {
        test.refused(code::UNRELEASED_INSTANCE_ID);
        if let Some(end) = test.did().first() {
            assert!(end.starts_with("failed") && end.contains("another member has this one's instance id"), "{end}");
            break;
        }
        test.wait();
        test.expect(&["beat own 0 full owning []"]);
    }
    assert!(test.now >= began + SESSION, "a dead one's session is over by then");
}

#[test]
fn without_the_protocol_it_ends_or_goes_classic() {
    let refuse = |may_be_classic, by: &dyn Fn(&mut Test)| {
        let mut test = Test::with(MemberConfig { may_be_classic, ..settings() });
        by(&mut test);
        test.did().pop().unwrap()
    };
    let not_served = |test: &mut Test| test.m.found(test.now, Ok(None));
    let disabled = |test: &mut Test| {
        test.found();
        test.refused(code::UNSUPPORTED_VERSION);
    };
    let classic_group = |test: &mut Test| {
        test.found();
        test.refused(code::GROUP_ID_NOT_FOUND);
    };
    for by in [&not_served as &dyn Fn(&mut Test), &disabled, &classic_group] {
        assert_eq!(refuse(true, by), "go classic");
        let why = refuse(false, by);
        assert!(why.starts_with("failed Unsupported") && why.contains("REDPANDA_GROUP_PROTOCOL"), "{why}");
    }
    let mut test = Test::stable_with(MemberConfig { may_be_classic: true, ..settings() });
    test.m.disconnected(test.now);
    test.m.found(test.now, Ok(None));
    test.expect(&["find", "lost t/0,t/1", "go classic"]);
}

#[test]
fn it_leaves_from_wherever_it_is() {
    let mut test = Test::new();
    test.m.leave(test.now);
    test.expect(&["find"]);
    test.m.found(test.now, Ok(Some(1)));
    test.expect(&["end"]);

    let mut test = Test::new();
    test.found();
    test.m.leave(test.now);
    test.expect(&["find", "beat own 0 full owning []", "beat own -1"]);
    test.beaten(-1, None);
    test.expect(&["end"]);

    let mut test = Test::new();
    test.m.found(test.now, Ok(Some(0)));
    test.m.leave(test.now);
    test.expect(&["find", "beat  0 full owning []"]);
    test.beaten(1, Some(t(&[0])));
    test.expect(&["beat given -1"]);

    let mut test = Test::draining();
    test.m.leave(test.now);
    test.expect(&["gave up t/0,t/1", "beat own -1"]);
    test.m.drained(test.now);
    test.m.leave(test.now);
    test.expect(&[]);
    test.wait();
    let did = test.did();
    assert!(did.len() == 1 && did[0].starts_with("failed Timeout"), "{did:?}");
    assert_eq!(test.m.deadline(), None);
}

#[test]
fn what_is_final_ends_it() {
    let mut test = Test::beating();
    test.refused(code::FENCED_INSTANCE_ID);
    let did = test.did();
    assert_eq!(did[0], "lost t/0,t/1");
    assert!(did[1].starts_with("failed GroupMembership"), "{did:?}");
    let mut test = Test::stable();
    test.m.fail(Error::new(ErrorKind::Config, "no"));
    assert_eq!(test.did().len(), 2);
}

#[test]
fn what_somebody_may_mend_is_tried_again_and_known_meanwhile() {
    for code in [30, 81, -1] {
        let mut test = Test::beating();
        test.refused(code);
        assert!(test.m.trouble().is_some(), "code {code}");
        test.wait();
        test.expect(&["beat own 2 full owning [0,1]"]);
        test.beaten(2, None);
        assert!(test.m.trouble().is_none(), "code {code}");
    }
    let mut test = Test::beating();
    let refused = Error::new(ErrorKind::Authentication, "refused").into_transient();
    test.m.beaten(test.now, Err((RequestFailure::Connection(refused), String::new())));
    test.wait();
    test.expect(&["find"]);
}

#[test]
fn a_hung_program_loses_all_and_is_out_until_it_comes_back() {
    let mut test = Test::stable();
    test.m.expel(test.now);
    test.expect(&["lost t/0,t/1", "beat own -1"]);
    test.beaten(-1, None);
    test.expect(&[]);
    assert_eq!(test.m.deadline(), None);
    test.m.expel(test.now);
    test.learn();
    test.expect(&[]);
    test.m.come_back(test.now);
    test.expect(&["beat own 0 full owning []"]);
    test.beaten(4, Some(t(&[0])));
    test.expect(&["assigned 4 t/0", "beat own 4 owning [0]"]);

    // It comes back while the group is being told, and what is told in vain is waited for no longer than leaving may take.
    let mut test = Test::beating();
    test.m.expel(test.now);
    test.did();
    test.m.come_back(test.now);
    test.expect(&[]);
    test.wait();
    test.expect(&["find"]);
    test.found();
    test.expect(&["beat own 0 full owning []"]);

    // In a drain; a static member too.
    let mut test = Test::draining();
    test.m.expel(test.now);
    test.m.drained(test.now);
    test.expect(&["lost t/0,t/1", "beat own -1"]);
    let mut test = Test::stable_with(MemberConfig { instance_id: Some("i".into()), ..settings() });
    test.m.expel(test.now);
    test.expect(&["lost t/0,t/1", "beat own -1"]);

    // Who is out of the group is closed at once.
    test.beaten(-1, None);
    test.m.leave(test.now);
    test.expect(&["end"]);
}

#[test]
fn a_refusal_says_what_the_coordinator_says() {
    let mut test = Test::new();
    test.found();
    test.did();
    let why = "ServerAssignor x is not supported.".to_owned();
    test.m.beaten(test.now, Err((RequestFailure::Code(code::UNSUPPORTED_ASSIGNOR), why)));
    assert!(test.did()[0].contains("ServerAssignor x is not supported."));
}

/// What happens to a member.
#[derive(Debug, Clone)]
enum Event {
    Found(bool),
    Response(i32, Option<BTreeSet<IdPartition>>),
    Refused(i16),
    Broken,
    Disconnected,
    Drained,
    CommitRefused(i16),
    Learn(u128),
    Expel,
    ComeBack,
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let partitions = prop::collection::btree_set((1..4u128, 0..4i32), 0..6)
        .prop_map(|all| all.into_iter().map(|(topic, p)| (Uuid::from_u128(topic), p)).collect());
    let codes = || prop::sample::select(vec![14, 15, 16, 22, 25, 27, 69, 81, 82, 110, 111, 113, 7]);
    prop_oneof![
        2 => any::<bool>().prop_map(Event::Found),
        8 => (-1..9i32, prop::option::of(partitions)).prop_map(|(e, a)| Event::Response(e, a)),
        1 => codes().prop_map(Event::Refused),
        1 => Just(Event::Broken),
        1 => Just(Event::Disconnected),
        3 => Just(Event::Drained),
        1 => codes().prop_map(Event::CommitRefused),
        2 => (1..4u128).prop_map(Event::Learn),
        1 => Just(Event::Expel),
        2 => Just(Event::ComeBack),
        5 => Just(Event::Wait),
    ]
}

proptest! {
    /// Whatever a coordinator answers: nothing is taken that the last answers of this membership do not assign, nothing twice,
    /// nothing while something else is still to go; what goes was ours; heartbeats tell what is ours and commits are made only
    /// while it is.
    #[test]
    fn no_partition_is_ours_without_being_assigned(events in prop::collection::vec(event(), 1..120)) {
        let mut test = Test::new();
        let name = |topic: u128| if topic == 3 { "t".to_owned() } else { format!("t{topic}") };
        let tp = |p: &IdPartition| TopicPartition::new(name(p.0.as_u128()), p.1);
        let (mut owned, mut draining) = (BTreeSet::<TopicPartition>::new(), false);
        let mut assigned = BTreeSet::<IdPartition>::new();
        let mut over = false;
        for event in events {
            let now = test.now;
            match event {
                Event::Found(good) => {
                    let outcome = if good { Ok(Some(1)) } else { Err(Error::new(ErrorKind::Connect, "no broker")) };
                    test.m.found(now, outcome);
                }
                Event::Response(epoch, assignment) => {
                    if matches!(test.m.in_flight, InFlight::Heartbeat(_)) && epoch > 0 {
                        assigned = assignment.clone().unwrap_or(assigned);
                    }
                    test.beaten(epoch, assignment);
                }
                Event::Refused(code) => test.refused(code),
                Event::Broken => test.m.beaten(now, Err(broken())),
                Event::Disconnected => test.m.disconnected(now),
                Event::Drained => test.m.drained(now),
                Event::CommitRefused(code) => test.m.commit_refused(now, code),
                Event::Learn(topic) => test.m.learn(now, [(Uuid::from_u128(topic), name(topic).into())]),
                Event::Expel => if test.m.is_member() { test.m.expel(now) },
                Event::ComeBack => test.m.come_back(now),
                Event::Wait => if test.m.deadline().is_some() { test.wait() },
            }
            while let Some(action) = test.m.next_action() {
                prop_assert!(!over, "{action:?} after the end");
                match action {
                    Action::Assigned { added, .. } => {
                        prop_assert!(added.is_empty() || !draining);
                        for p in added {
                            prop_assert!(assigned.iter().any(|a| tp(a) == p), "{} was not assigned", p);
                            prop_assert!(owned.insert(p), "taken twice");
                        }
                        let wanted: BTreeSet<_> = assigned.iter().map(tp).collect();
                        prop_assert!(draining || owned.is_subset(&wanted));
                    }
                    Action::Revoke { partitions, .. } => {
                        prop_assert!(!draining && !partitions.is_empty());
                        prop_assert!(partitions.iter().all(|p| owned.contains(p)));
                        draining = true;
                    }
                    Action::Revoked(partitions) => {
                        draining = false;
                        prop_assert!(partitions.iter().all(|p| owned.remove(p)));
                    }
                    Action::Lost(partitions) => {
                        draining = false;
                        prop_assert_eq!(partitions.into_iter().collect::<BTreeSet<_>>(), std::mem::take(&mut owned));
                        assigned.clear();
                    }
                    Action::ConsumerGroupHeartbeat { heartbeat: beat, .. } => {
                        if beat.epoch == JOIN_EPOCH {
                            assigned.clear();
                            prop_assert!(owned.is_empty() && beat.full);
                        }
                        if let Some(told) = beat.owned {
                            prop_assert_eq!(told.iter().map(tp).collect::<BTreeSet<_>>(), owned.clone());
                        }
                    }
                    Action::Stop(_) | Action::FallBackToClassic => over = true,
                    Action::FindCoordinator | Action::RefreshTopicNames => {}
                    other => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(owned.is_empty() || test.m.is_member() || !test.m.actions.is_empty());
            }
            prop_assert!(over || test.m.phase == Phase::Away || test.m.deadline().is_some() || test.m.in_flight != InFlight::Nothing, "stuck");
        }
    }
}
