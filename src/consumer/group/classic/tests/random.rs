//! Any events in any order.

use proptest::prelude::*;

use super::*;

/// An event of a member, in any order.
#[derive(Debug, Clone)]
enum Event {
    /// The request in flight gets a response, with this code.
    RequestOutcome(i16),
    Break,
    Deadline,
    Drained,
    TopicsChanged,
    SubscriptionChanged,
    Disconnected,
    CommitRefused(i16),
    LeaveTemporarily,
    Resume,
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
        1 => Just(Event::SubscriptionChanged),
        1 => Just(Event::Disconnected),
        1 => code.prop_map(Event::CommitRefused),
        1 => Just(Event::LeaveTemporarily),
        2 => Just(Event::Resume),
    ];
    let leave = proptest::option::of(Just(Event::Leave));
    (proptest::collection::vec(event, 0..120), leave)
        .prop_map(|(events, leave)| events.into_iter().chain(leave).collect())
}

/// Checks that a member does only what it may do.
struct Watch {
    t: Test,
    random: fastrand::Rng,
    in_flight: Option<&'static str>,
    owns: BTreeSet<TopicPartition>,
    draining: BTreeSet<TopicPartition>,
    /// Assignor that the group has agreed on.
    assignor: &'static str,
    leads: bool,
    /// The member has stepped out, or leaves.
    away: bool,
    closing: bool,
    ended: bool,
    generation: i32,
}

impl Watch {
    fn look(&mut self) {
        while let Some(action) = self.t.m.poll_action() {
            assert!(!self.ended, "an action after the stop: {action:?}");
            match action {
                Action::FindCoordinator => self.in_flight = Some("find"),
                Action::JoinGroup { .. } => {
                    let all_revoked = self.owns.is_empty() && self.draining.is_empty();
                    assert!(
                        all_revoked || (self.assignor == "cooperative-sticky" && self.draining.is_empty()),
                        "{:?}",
                        self.owns
                    );
                    self.in_flight = Some("join");
                }
                Action::ComputeAssignment { .. } => {
                    assert!(self.owns.is_empty() || self.assignor == "cooperative-sticky");
                    self.in_flight = Some("assign");
                }
                Action::SyncGroup { .. } => {
                    assert!(self.owns.is_empty() || self.assignor == "cooperative-sticky");
                    self.in_flight = Some("sync");
                }
                Action::Heartbeat { generation, .. } => {
                    assert_eq!(generation, self.generation);
                    self.in_flight = Some("heartbeat");
                }
                Action::LeaveGroup { .. } => {
                    assert!(self.owns.is_empty());
                    self.in_flight = Some("leave");
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
                    assert!(partitions.iter().all(|p| self.owns.contains(p)), "not owned");
                    self.draining = partitions.into_iter().collect();
                    assert!(deadline >= self.t.now && deadline <= self.t.now + REBALANCE);
                }
                Action::Revoked(partitions) | Action::Lost(partitions) => {
                    assert!(!partitions.is_empty(), "nothing to revoke");
                    for p in partitions {
                        assert!(self.owns.remove(&p), "not owned");
                        self.draining.remove(&p);
                    }
                    assert!(self.draining.is_empty());
                }
                Action::Stop(_) => {
                    assert!(self.owns.is_empty(), "all partitions are released before");
                    self.ended = true;
                }
            }
        }
        assert!(self.owns.is_empty() || self.t.m.is_member() || self.assignor == "cooperative-sticky");
        let has_to_do = self.in_flight.is_some() || self.t.m.poll_timeout().is_some();
        assert!(self.ended || self.away || has_to_do, "no request in flight and no timeout");
    }

    fn happen(&mut self, event: Event) {
        let now = self.t.now;
        let failure = |code| RequestFailure::Code(code);
        match event {
            Event::Deadline => {
                if self.t.m.poll_timeout().is_some() {
                    self.t.wait();
                }
            }
            Event::Drained => self.t.m.on_drained(now),
            Event::TopicsChanged => self.t.m.on_partitions_changed(now),
            Event::SubscriptionChanged => self.t.m.on_subscription_changed(now),
            Event::Disconnected => self.t.m.on_disconnected(now),
            Event::CommitRefused(code) => self.t.m.on_commit_refused(now, code),
            Event::LeaveTemporarily => {
                self.away = true;
                self.t.m.leave_temporarily(now);
            }
            Event::Resume => {
                self.away = false;
                self.t.m.resume(now);
            }
            Event::Leave => {
                self.closing = true;
                self.t.m.leave(now);
            }
            Event::Break => match self.in_flight.take() {
                Some("find") => self.t.m.on_coordinator_found(now, Err(Error::new(ErrorKind::Connect, "down"))),
                Some("join") => self.t.m.on_join_response(now, Err((broken(), String::new()))),
                Some("sync") => self.t.m.on_sync_response(now, Err(broken())),
                Some("heartbeat") => self.t.m.on_heartbeat_response(now, Err(broken())),
                Some("leave") => self.t.m.on_leave_response(now, Err(broken())),
                other => self.in_flight = other,
            },
            Event::RequestOutcome(code) => {
                let outcome = if code == 0 { Ok(()) } else { Err(failure(code)) };
                match self.in_flight.take() {
                    Some("find") => self.t.connect(),
                    Some("join") if code == 0 => {
                        self.leads = !self.leads;
                        let members = self.leads.then(Vec::new);
                        let generation = self.generation + 1;
                        self.assignor = if self.random.u8(..4) == 0 { "range" } else { "cooperative-sticky" };
                        let assignor = self.assignor.into();
                        let joined = JoinedGroup {
                            member_id: "m1".into(),
                            generation,
                            assignor,
                            is_leader: self.leads,
                            members,
                        };
                        self.t.m.on_join_response(now, Ok(joined));
                    }
                    Some("join") => self.t.refuse_join(code),
                    Some("assign") => self.t.m.on_assignment_computed(now, Vec::new(), true),
                    Some("sync") if code == 0 => {
                        let assignment: Vec<_> = (0..4).filter(|_| self.random.bool()).collect();
                        self.t.sync(&assignment);
                    }
                    Some("sync") => self.t.m.on_sync_response(now, outcome.map(|()| Vec::new())),
                    Some("heartbeat") => self.t.m.on_heartbeat_response(now, outcome),
                    Some("leave") => self.t.m.on_leave_response(now, outcome),
                    _ => {}
                }
            }
        }
        self.look();
    }
}

proptest! {
    #[test]
    fn any_order_of_events_is_safe_and_live(
        events in events(),
        seed in any::<u64>(),
        rebalance in proptest::sample::select(vec![4, 60]),
    ) {
        let t = Test::with(Duration::from_secs(rebalance));
        let mut w = Watch {
            t,
            random: fastrand::Rng::with_seed(seed),
            in_flight: None,
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
        // With a broker that works again it becomes a member, or leaves if it was to.
        w.happen(Event::Resume);
        let leaving = w.closing;
        for _ in 0..60 {
            if w.ended || w.t.m.session.phase == Phase::Stable {
                break;
            }
            w.happen(if w.in_flight.is_some() { Event::RequestOutcome(0) } else { Event::Deadline });
            w.happen(Event::Drained);
        }
        prop_assert!(w.ended || (w.t.m.session.phase == Phase::Stable && !leaving), "{:?}", w.t.m);
    }
}
