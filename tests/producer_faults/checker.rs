//! The history checker itself, on histories in which something was planted.

use super::history::{Fate, Guarantee, History, Id, Problem, Report};

const BOTH: [Guarantee; 2] = [Guarantee::AtLeastOnce, Guarantee::ExactlyOncePerPartition];

fn id(stream: u32, sequence: u32) -> Id {
    Id { stream, sequence }
}

fn at(partition: i32, offset: i64) -> Fate {
    Fate::Acknowledged { partition, offset: Some(offset) }
}

/// Two partitions, two streams in each, 20 records of each stream, in turn; all acknowledged, all there. `plant` gets what
/// was told of each record, and the log, to change them.
fn history(plant: impl FnOnce(&mut Vec<(Id, Fate)>, &mut [Vec<Id>; 2])) -> History {
    let mut sent = Vec::new();
    let mut log = [Vec::new(), Vec::new()];
    for n in 0..80 {
        let (stream, partition) = (n % 4, n as usize % 2);
        let record = id(stream, n / 4);
        sent.push((record, at(partition as i32, log[partition].len() as i64)));
        log[partition].push(record);
    }
    plant(&mut sent, &mut log);
    let mut history = History::default();
    for (record, fate) in sent {
        history.sent(record, fate);
    }
    for (partition, records) in (0..).zip(&log) {
        for (offset, record) in (0..).zip(records) {
            history.read(partition, offset, Some(&record.value(40)));
        }
    }
    history
}

/// There is this problem, so often, and no other.
fn assert_only(report: &Report, problem: Problem, count: usize) {
    assert_eq!(report.count(problem), count, "{report}\n{}", report.details());
    let others = Problem::ALL.iter().filter(|(other, _)| *other != problem);
    assert_eq!(others.map(|(other, _)| report.count(*other)).sum::<usize>(), 0, "{report}\n{}", report.details());
}

#[test]
fn a_history_in_order_is_clean() {
    for guarantee in BOTH {
        let report = history(|_, _| ()).check(guarantee);
        report.assert_clean();
        assert_eq!((report.sent, report.acknowledged, report.in_log), (80, 80, 80));
    }
}

#[test]
fn a_loss_is_found() {
    for guarantee in BOTH {
        // The last one, so that no other record moves.
        let report = history(|_, log| assert_eq!(log[0].pop(), Some(id(2, 19)))).check(guarantee);
        assert_only(&report, Problem::Lost, 1);
        assert!(report.details().contains("stream: 2, sequence: 19"), "{}", report.details());
    }
}

#[test]
fn a_duplicate_is_found_unless_it_is_allowed() {
    let planted = || history(|_, log| log[1].push(id(1, 3)));
    let report = planted().check(Guarantee::ExactlyOncePerPartition);
    assert_only(&report, Problem::Duplicate, 1);
    let report = planted().check(Guarantee::AtLeastOnce);
    report.assert_clean();
    assert_eq!(report.repeated, 1);
}

#[test]
fn a_duplicate_in_another_partition_is_found() {
    let report = history(|_, log| log[0].push(id(1, 19))).check(Guarantee::ExactlyOncePerPartition);
    assert_only(&report, Problem::Duplicate, 1);
}

#[test]
fn a_reorder_is_found_whoever_was_told_what() {
    for guarantee in BOTH {
        // Places 10 and 12 of partition 0 are of stream 2 and stream 2's next: swapped, and acknowledged so.
        let report = history(|sent, log| {
            log[0].swap(10, 12);
            let (first, second) = (log[0][10], log[0][12]);
            for (record, fate) in sent {
                match *record {
                    r if r == first => *fate = at(0, 10),
                    r if r == second => *fate = at(0, 12),
                    _ => {}
                }
            }
        })
        .check(guarantee);
        assert_only(&report, Problem::Reordered, 1);
    }
}

#[test]
fn streams_and_partitions_have_no_order_among_each_other() {
    for guarantee in BOTH {
        let report = history(|sent, log| {
            log[0].sort(); // all of stream 0, then all of stream 2
            for (record, fate) in sent.iter_mut() {
                if let Some(place) = log[0].iter().position(|r| r == record) {
                    *fate = at(0, place as i64);
                }
            }
        })
        .check(guarantee);
        report.assert_clean();
    }
}

#[test]
fn a_late_record_of_unknown_fate_is_a_reorder_only_for_an_idempotent_producer() {
    let planted = || {
        history(|sent, log| {
            let record = id(1, 19);
            sent.retain(|(r, _)| *r != record);
            sent.push((record, Fate::Unknown));
            sent.push((id(1, 20), at(1, 39)));
            *log[1].last_mut().unwrap() = id(3, 19);
            log[1][38] = id(3, 19);
            log[1][39] = id(1, 20);
            log[1].push(record);
            sent.iter_mut().find(|(r, _)| *r == id(3, 19)).unwrap().1 = at(1, 38);
        })
    };
    assert_only(&planted().check(Guarantee::ExactlyOncePerPartition), Problem::Reordered, 1);
    let report = planted().check(Guarantee::AtLeastOnce);
    report.assert_clean();
    assert_eq!((report.unknown, report.unknown_but_present), (1, 1));
}

#[test]
fn a_lie_about_a_failure_is_found() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent[17].1 = Fate::NotWritten).check(guarantee);
        assert_only(&report, Problem::FailedButPresent, 1);
        history(|sent, _| sent[17].1 = Fate::Unknown).check(guarantee).assert_clean();
    }
}

#[test]
fn a_failure_that_was_not_written_is_clean() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent.push((id(0, 20), Fate::NotWritten))).check(guarantee);
        report.assert_clean();
        assert_eq!(report.not_written, 1);
    }
}

#[test]
fn a_wrong_offset_is_found_and_an_unknown_one_is_none() {
    for guarantee in BOTH {
        let wrong = history(|sent, _| sent[8].1 = at(0, 5)).check(guarantee);
        assert_only(&wrong, Problem::WrongOffset, 1);
        let wrong = history(|sent, _| sent[8].1 = at(1, 4)).check(guarantee);
        assert_only(&wrong, Problem::WrongOffset, 1);
        history(|sent, _| sent[8].1 = Fate::Acknowledged { partition: 0, offset: None })
            .check(guarantee)
            .assert_clean();
    }
}

#[test]
fn a_handle_that_never_resolves_is_found() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent[3].1 = Fate::Unresolved).check(guarantee);
        assert_only(&report, Problem::Unresolved, 1);
    }
}

#[test]
fn what_nobody_sent_or_what_was_changed_on_its_way_is_found() {
    for guarantee in BOTH {
        let report = history(|_, log| log[0].push(id(9, 0))).check(guarantee);
        assert_only(&report, Problem::Foreign, 1);

        let mut changed = history(|_, _| ());
        let mut value = id(0, 0).value(40);
        value[39] ^= 1;
        changed.read(0, 40, Some(&value));
        changed.read(0, 41, None);
        assert_only(&changed.check(guarantee), Problem::Foreign, 2);
    }
}

#[test]
fn a_value_names_its_record() {
    for record in [id(0, 0), id(7, 123_456), id(u32::MAX, u32::MAX)] {
        for size in [0, 30, 1000] {
            assert_eq!(Id::of(&record.value(size)), Some(record));
        }
    }
    assert_eq!(Id::of(b"1:2"), None);
    assert_eq!(Id::of(b"1:2:\xff"), None);
    assert_eq!(Id::of(b""), None);
}
