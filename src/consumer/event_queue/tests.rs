#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::time::Duration;

fn t(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn lease(partition: i32, epoch: u64) -> Lease {
    Lease { partition: t(partition), epoch }
}

fn some_of(inbox: &Inbox, lease: &Lease, next_offset: i64) {
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
        _held: None,
    };
    inbox.records(lease, records);
}

fn some(inbox: &Inbox, epoch: u64, next_offset: i64) {
    some_of(inbox, &lease(0, epoch), next_offset);
}

fn word(event: &Result<ConsumerEvent>) -> String {
    let all = |p: &[TopicPartition]| p.iter().map(|p| p.partition.to_string()).collect::<Vec<_>>().join(",");
    match event {
        Ok(ConsumerEvent::Assigned(p)) => format!("assigned {}", all(p)),
        Ok(ConsumerEvent::Revoked(r)) => format!("revoked {}", all(&r.partitions)),
        Ok(ConsumerEvent::Lost(p)) => format!("lost {}", all(p)),
        Ok(ConsumerEvent::Records(r)) => format!("{} to {}", r.partition, r.next_offset),
        Err(e) => e.to_string(),
    }
}

/// What the program sees, in short words; it drops what it gets.
fn all(inbox: &Inbox) -> Vec<String> {
    std::iter::from_fn(|| inbox.pop()).take(10).map(|e| word(&e)).collect()
}

fn revoke(inbox: &Inbox, partitions: &[i32]) -> CancellationToken {
    let drained = CancellationToken::new();
    let partitions: Vec<_> = partitions.iter().map(|p| t(*p)).collect();
    inbox.revoke(&partitions, Instant::now() + Duration::from_secs(1), drained.clone());
    drained
}

#[test]
fn records_come_behind_their_assignment_and_never_of_an_old_one() {
    let inbox = Inbox::default();
    inbox.assigned([lease(0, 1)]);
    some(&inbox, 1, 5);
    some(&inbox, 0, 99);
    assert_eq!(all(&inbox), ["assigned 0", "0 to 5"]);
    assert_eq!(inbox.position(&t(0)), Some(5));
    assert!(inbox.told().holds(&lease(0, 1)));
    some(&inbox, 1, 6);
    let drained = revoke(&inbox, &[0]);
    some(&inbox, 1, 7);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = inbox.pop() else { panic!("not revoked") };
    assert!(inbox.pop().is_none(), "what was not delivered is discarded");
    assert!(!drained.is_cancelled());
    assert!(inbox.told().holds(&lease(0, 1)), "what ended may be committed");
    drop(revocation);
    assert!(drained.is_cancelled());
    inbox.gave_up(&[t(0)]);
    assert!(inbox.pop().is_none());
    assert!(inbox.told().is_empty());
    assert_eq!(inbox.position(&t(0)), None);
}

#[test]
fn partitions_come_and_go_while_others_are_read_on() {
    let inbox = Inbox::default();
    inbox.assigned([lease(0, 1), lease(1, 1), lease(2, 1)]);
    for p in 0..3 {
        some_of(&inbox, &lease(p, 1), 5);
    }
    assert_eq!(all(&inbox), ["assigned 0,1,2", "0 to 5", "1 to 5", "2 to 5"]);
    for p in 0..3 {
        some_of(&inbox, &lease(p, 1), 6);
    }
    let drained = revoke(&inbox, &[1]);
    inbox.assigned([lease(3, 2)]);
    some_of(&inbox, &lease(1, 1), 7);
    some_of(&inbox, &lease(3, 2), 9);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = inbox.pop() else { panic!("not revoked") };
    assert_eq!(revocation.partitions, [t(1)]);
    assert_eq!(all(&inbox), ["assigned 3", "0 to 6", "2 to 6", "3 to 9"]);
    some_of(&inbox, &lease(2, 1), 8);
    assert_eq!((inbox.position(&t(0)), inbox.position(&t(1))), (Some(6), None));
    drop(revocation);
    assert!(drained.is_cancelled());
    inbox.gave_up(&[t(1)]);
    inbox.assigned([]);
    assert_eq!(all(&inbox), ["assigned ", "2 to 8"]);
    // It comes back: only what is of the new lease counts.
    inbox.assigned([lease(1, 4)]);
    some_of(&inbox, &lease(1, 1), 7);
    some_of(&inbox, &lease(1, 4), 11);
    assert_eq!(all(&inbox), ["assigned 1", "1 to 11"]);
    assert!(inbox.told().holds(&lease(1, 4)) && inbox.told().holds(&lease(0, 1)));
}

#[test]
fn an_assignment_that_no_one_saw_was_never_there() {
    let inbox = Inbox::default();
    inbox.assigned([lease(0, 1)]);
    assert!(revoke(&inbox, &[0]).is_cancelled(), "there is nothing to drain");
    inbox.gave_up(&[t(0)]);
    inbox.assigned([lease(0, 2)]);
    inbox.lost(&[t(0)]);
    assert_eq!(all(&inbox), Vec::<String>::new());
}

#[test]
fn a_revocation_that_no_one_saw_in_time_is_a_loss() {
    let inbox = Inbox::default();
    inbox.assigned([lease(0, 1)]);
    all(&inbox);
    revoke(&inbox, &[0]);
    inbox.gave_up(&[t(0)]);
    for epoch in 2..50 {
        inbox.assigned([lease(0, epoch)]);
        revoke(&inbox, &[0]);
        inbox.gave_up(&[t(0)]);
    }
    inbox.assigned([lease(0, 50), lease(1, 50)]);
    assert_eq!(all(&inbox), ["lost 0", "assigned 0,1"]);

    revoke(&inbox, &[0]);
    inbox.lost(&[t(0)]);
    assert_eq!(all(&inbox), ["lost 0"]);
    let drained = revoke(&inbox, &[1]);
    let Some(Ok(ConsumerEvent::Revoked(revocation))) = inbox.pop() else { panic!("not revoked") };
    inbox.lost(&[t(1)]);
    assert_eq!(all(&inbox), ["lost 1"], "in the midst of the drain");
    drop(revocation);
    assert!(drained.is_cancelled());
}

#[test]
fn the_end_comes_behind_the_news_and_stays() {
    let inbox = Inbox::default();
    inbox.assigned([lease(0, 1)]);
    some(&inbox, 1, 5);
    for what in ["first", "damaged"] {
        inbox.trouble(Some(&lease(0, 1)), Error::new(crate::ErrorKind::Corrupt, what));
        inbox.trouble(Some(&lease(0, 0)), Error::new(crate::ErrorKind::Corrupt, "of old"));
    }
    inbox.trouble(None, Error::new(crate::ErrorKind::Corrupt, "unreadable"));
    assert_eq!(all(&inbox), ["assigned 0", "damaged", "unreadable", "0 to 5"]);
    inbox.lost(&[t(0)]);
    inbox.end(Error::new(crate::ErrorKind::Closed, "closed"));
    assert_eq!(all(&inbox)[..3], ["lost 0", "closed", "closed"]);
}

#[test]
fn what_is_handled_counts_until_it_is_given_up() {
    let inbox = Inbox::default();
    let at = OffsetAndMetadata::new;
    inbox.assigned([lease(0, 1), lease(1, 1)]);
    inbox.handled(lease(0, 1), at(3));
    assert_eq!(inbox.all_handled(), [], "the program does not know it");
    all(&inbox);
    inbox.handled(lease(0, 1), at(5));
    inbox.handled(lease(1, 1), at(7));
    inbox.handled(lease(0, 0), at(99));
    assert_eq!(inbox.all_handled(), [(lease(0, 1), at(5)), (lease(1, 1), at(7))]);

    inbox.revoke(&[t(0)], Instant::now() + Duration::from_secs(1), CancellationToken::new());
    all(&inbox);
    inbox.handled(lease(0, 1), at(6));
    assert_eq!(inbox.all_handled()[0], (lease(0, 1), at(6)), "it is drained, not gone");
    inbox.gave_up(&[t(0)]);
    inbox.lost(&[t(1)]);
    all(&inbox);
    inbox.handled(lease(0, 1), at(8));
    assert_eq!(inbox.all_handled(), []);
}
