//! Any events in any order.

use proptest::prelude::*;

use super::*;

/// An event of a member.
#[derive(Debug, Clone)]
enum Event {
    Found(bool),
    Response(i32, Option<BTreeSet<IdPartition>>),
    Refused(i16),
    Broken,
    Disconnected,
    Drained,
    SubscriptionChanged,
    CommitRefused(i16),
    Learn(u128),
    LeaveTemporarily,
    Resume,
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
        1 => Just(Event::SubscriptionChanged),
        1 => codes().prop_map(Event::CommitRefused),
        2 => (1..4u128).prop_map(Event::Learn),
        1 => Just(Event::LeaveTemporarily),
        2 => Just(Event::Resume),
        5 => Just(Event::Wait),
    ]
}

proptest! {
    /// Whatever the coordinator responds: only partitions of the last target are added, none twice,
    /// and none during a drain; only owned ones are revoked; heartbeats report the owned ones, and
    /// commits are sent only while the member owns them.
    #[test]
    fn owns_only_assigned_partitions_under_any_events(events in prop::collection::vec(event(), 1..120)) {
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
                    test.m.on_coordinator_found(now, outcome);
                }
                Event::Response(epoch, assignment) => {
                    if matches!(test.m.session.in_flight, InFlight::Heartbeat) && epoch > 0 {
                        assigned = assignment.clone().unwrap_or(assigned);
                    }
                    test.respond(epoch, assignment);
                }
                Event::Refused(code) => test.refuse(code),
                Event::Broken => test.m.on_heartbeat_response(now, Err(broken())),
                Event::Disconnected => test.m.on_disconnected(now),
                Event::Drained => test.m.on_drained(now),
                Event::SubscriptionChanged => test.m.on_subscription_changed(now),
                Event::CommitRefused(code) => test.m.on_commit_refused(now, code),
                Event::Learn(topic) => test.m.on_topic_names(now, vec![(Uuid::from_u128(topic), name(topic).into())]),
                Event::LeaveTemporarily => if test.m.is_member() { test.m.leave_temporarily(now) },
                Event::Resume => test.m.resume(now),
                Event::Wait => if test.m.poll_timeout().is_some() { test.wait() },
            }
            while let Some(action) = test.m.poll_action() {
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
                        if let Some(reported) = beat.owned {
                            prop_assert_eq!(reported.iter().map(tp).collect::<BTreeSet<_>>(), owned.clone());
                        }
                    }
                    Action::Stop(_) | Action::FallBackToClassic => over = true,
                    Action::FindCoordinator | Action::RefreshTopicNames => {}
                    other => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(owned.is_empty() || test.m.is_member() || !test.m.session.actions.is_empty());
            }
            let waits = test.m.poll_timeout().is_some() || test.m.session.in_flight != InFlight::Nothing;
            prop_assert!(over || test.m.session.phase == Phase::SteppedOut || waits, "no request in flight and no timeout");
        }
    }
}
