#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::time::Duration;

fn t(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn lease(partition: i32, epoch: u64) -> Lease {
    Lease { partition: t(partition), epoch }
}

fn push_of(events: &EventQueue, lease: &Lease, next_offset: i64) {
    let records = Records {
        topic: "t".into(),
        partition: lease.partition.partition,
        records: vec![],
        next_offset,
        leader_epoch: None,
        high_watermark: next_offset,
        last_stable_offset: None,
        read_committed: false,
        epoch: lease.epoch,
        _memory: None,
    };
    events.push_records(lease, records);
}

fn push(events: &EventQueue, epoch: u64, next_offset: i64) {
    push_of(events, &lease(0, epoch), next_offset);
}

fn describe(event: &Result<ConsumerEvent>) -> String {
    let all = |p: &[TopicPartition]| p.iter().map(|p| p.partition.to_string()).collect::<Vec<_>>().join(",");
    match event {
        Ok(ConsumerEvent::Assigned(p)) => format!("assigned {}", all(p)),
        Ok(ConsumerEvent::Revoked(r)) => format!("revoked {}", all(&r.partitions)),
        Ok(ConsumerEvent::Lost(p)) => format!("lost {}", all(p)),
        Ok(ConsumerEvent::Records(r)) => format!("{} to {}", r.partition, r.next_offset),
        Err(e) => e.to_string(),
    }
}

/// Pops all events and describes them.
fn pop_all(events: &EventQueue) -> Vec<String> {
    std::iter::from_fn(|| events.pop()).take(10).map(|e| describe(&e)).collect()
}

fn revoke(events: &EventQueue, partitions: &[i32]) -> CancellationToken {
    let drained = CancellationToken::new();
    let partitions: Vec<_> = partitions.iter().map(|p| t(*p)).collect();
    events.on_revoke(&partitions, Instant::now() + Duration::from_secs(1), drained.clone());
    drained
}

#[test]
fn records_follow_their_assignment_and_not_an_old_one() {
    let events = EventQueue::default();
    events.on_assigned([lease(0, 1)]);
    push(&events, 1, 5);
    push(&events, 0, 99);
    assert_eq!(pop_all(&events), ["assigned 0", "0 to 5"]);
    assert_eq!(events.position(&t(0)), Some(5));
    assert!(events.reported().holds(&lease(0, 1)));
    push(&events, 1, 6);
    let drained = revoke(&events, &[0]);
    push(&events, 1, 7);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = events.pop() else { panic!("not revoked") };
    assert!(events.pop().is_none(), "undelivered records are dropped");
    assert!(!drained.is_cancelled());
    assert!(events.reported().holds(&lease(0, 1)), "what was handled may be committed");
    drop(revocation);
    assert!(drained.is_cancelled());
    events.on_revoked(&[t(0)]);
    assert!(events.pop().is_none());
    assert!(events.reported().is_empty());
    assert_eq!(events.position(&t(0)), None);
}

#[test]
fn revocations_leave_other_partitions_alone() {
    let events = EventQueue::default();
    events.on_assigned([lease(0, 1), lease(1, 1), lease(2, 1)]);
    for p in 0..3 {
        push_of(&events, &lease(p, 1), 5);
    }
    assert_eq!(pop_all(&events), ["assigned 0,1,2", "0 to 5", "1 to 5", "2 to 5"]);
    for p in 0..3 {
        push_of(&events, &lease(p, 1), 6);
    }
    let drained = revoke(&events, &[1]);
    events.on_assigned([lease(3, 2)]);
    push_of(&events, &lease(1, 1), 7);
    push_of(&events, &lease(3, 2), 9);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = events.pop() else { panic!("not revoked") };
    assert_eq!(revocation.partitions, [t(1)]);
    assert_eq!(pop_all(&events), ["assigned 3", "0 to 6", "2 to 6", "3 to 9"]);
    push_of(&events, &lease(2, 1), 8);
    assert_eq!((events.position(&t(0)), events.position(&t(1))), (Some(6), None));
    drop(revocation);
    assert!(drained.is_cancelled());
    events.on_revoked(&[t(1)]);
    events.on_assigned([]);
    assert_eq!(pop_all(&events), ["assigned ", "2 to 8"]);
    // Assigned again: only records of the new lease count.
    events.on_assigned([lease(1, 4)]);
    push_of(&events, &lease(1, 1), 7);
    push_of(&events, &lease(1, 4), 11);
    assert_eq!(pop_all(&events), ["assigned 1", "1 to 11"]);
    assert!(events.reported().holds(&lease(1, 4)) && events.reported().holds(&lease(0, 1)));
}

#[test]
fn an_unreported_assignment_is_never_reported() {
    let events = EventQueue::default();
    events.on_assigned([lease(0, 1)]);
    assert!(revoke(&events, &[0]).is_cancelled(), "there is nothing to drain");
    events.on_revoked(&[t(0)]);
    events.on_assigned([lease(0, 2)]);
    events.on_lost(&[t(0)]);
    assert_eq!(pop_all(&events), Vec::<String>::new());
}

#[test]
fn an_unreported_revocation_is_a_loss() {
    let events = EventQueue::default();
    events.on_assigned([lease(0, 1)]);
    pop_all(&events);
    revoke(&events, &[0]);
    events.on_revoked(&[t(0)]);
    for epoch in 2..50 {
        events.on_assigned([lease(0, epoch)]);
        revoke(&events, &[0]);
        events.on_revoked(&[t(0)]);
    }
    events.on_assigned([lease(0, 50), lease(1, 50)]);
    assert_eq!(pop_all(&events), ["lost 0", "assigned 0,1"]);

    revoke(&events, &[0]);
    events.on_lost(&[t(0)]);
    assert_eq!(pop_all(&events), ["lost 0"]);
    let drained = revoke(&events, &[1]);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = events.pop() else { panic!("not revoked") };
    events.on_lost(&[t(1)]);
    assert_eq!(pop_all(&events), ["lost 1"], "during the drain");
    drop(revocation);
    assert!(drained.is_cancelled());
}

#[test]
fn the_closing_error_follows_assignment_events() {
    let events = EventQueue::default();
    events.on_assigned([lease(0, 1)]);
    push(&events, 1, 5);
    for what in ["first", "damaged"] {
        events.push_error(Some(&lease(0, 1)), Error::new(crate::ErrorKind::Corrupt, what));
        events.push_error(Some(&lease(0, 0)), Error::new(crate::ErrorKind::Corrupt, "of old"));
    }
    events.push_error(None, Error::new(crate::ErrorKind::Corrupt, "unreadable"));
    assert_eq!(pop_all(&events), ["assigned 0", "damaged", "unreadable", "0 to 5"]);
    events.on_lost(&[t(0)]);
    events.close(Error::new(crate::ErrorKind::Closed, "closed"));
    assert_eq!(pop_all(&events)[..3], ["lost 0", "closed", "closed"]);
}

#[test]
fn handled_offsets_count_until_revocation() {
    let events = EventQueue::default();
    let at = OffsetAndMetadata::new;
    events.on_assigned([lease(0, 1), lease(1, 1)]);
    events.mark_handled(lease(0, 1), at(3));
    assert_eq!(events.handled_offsets(), [], "not reported to the application");
    pop_all(&events);
    events.mark_handled(lease(0, 1), at(5));
    events.mark_handled(lease(1, 1), at(7));
    events.mark_handled(lease(0, 0), at(99));
    assert_eq!(events.handled_offsets(), [(lease(0, 1), at(5)), (lease(1, 1), at(7))]);

    events.on_revoke(&[t(0)], Instant::now() + Duration::from_secs(1), CancellationToken::new());
    pop_all(&events);
    events.mark_handled(lease(0, 1), at(6));
    assert_eq!(events.handled_offsets()[0], (lease(0, 1), at(6)), "it is drained, not revoked");
    events.on_revoked(&[t(0)]);
    events.on_lost(&[t(1)]);
    pop_all(&events);
    events.mark_handled(lease(0, 1), at(8));
    assert_eq!(events.handled_offsets(), []);
}
