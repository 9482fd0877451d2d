//! Tests of the history checker, on histories with planted problems.

use ailurus_test_support::history::{Guarantee, History, Problem, RecordId, RecordStatus, Report};

const BOTH: [Guarantee; 2] = [Guarantee::AtLeastOnce, Guarantee::ExactlyOncePerPartition];

fn id(stream: u32, sequence: u32) -> RecordId {
    RecordId { stream, sequence }
}

fn at(partition: i32, offset: i64) -> RecordStatus {
    RecordStatus::Acknowledged { partition, offset: Some(offset) }
}

/// Creates a history: two partitions, two streams in each, 20 records per stream, all acknowledged
/// and in the log. `tamper` may change the statuses and the log.
fn history(tamper: impl FnOnce(&mut Vec<(RecordId, RecordStatus)>, &mut [Vec<RecordId>; 2])) -> History {
    let mut sent = Vec::new();
    let mut log = [Vec::new(), Vec::new()];
    for n in 0..80 {
        let (stream, partition) = (n % 4, n as usize % 2);
        let record = id(stream, n / 4);
        sent.push((record, at(partition as i32, log[partition].len() as i64)));
        log[partition].push(record);
    }
    tamper(&mut sent, &mut log);
    let mut history = History::default();
    for (record, status) in sent {
        history.sent(record, status);
    }
    for (partition, records) in (0..).zip(&log) {
        for (offset, record) in (0..).zip(records) {
            history.read(partition, offset, Some(&record.value(40)));
        }
    }
    history
}

/// Asserts that there is this problem, `count` times, and no other.
fn assert_only(report: &Report, problem: Problem, count: usize) {
    assert_eq!(report.count(problem), count, "{report}\n{}", report.details());
    let others = Problem::ALL.iter().filter(|(other, _)| *other != problem);
    assert_eq!(others.map(|(other, _)| report.count(*other)).sum::<usize>(), 0, "{report}\n{}", report.details());
}

#[test]
fn complete_ordered_history_is_clean() {
    for guarantee in BOTH {
        let report = history(|_, _| ()).check(guarantee);
        report.assert_clean();
        assert_eq!((report.sent, report.acknowledged, report.in_log), (80, 80, 80));
    }
}

#[test]
fn loss_is_found() {
    for guarantee in BOTH {
        // The last record, so that no other record moves.
        let report = history(|_, log| assert_eq!(log[0].pop(), Some(id(2, 19)))).check(guarantee);
        assert_only(&report, Problem::Lost, 1);
        assert!(report.details().contains("stream: 2, sequence: 19"), "{}", report.details());
    }
}

#[test]
fn duplicate_is_found_unless_allowed() {
    let tampered = || history(|_, log| log[1].push(id(1, 3)));
    let report = tampered().check(Guarantee::ExactlyOncePerPartition);
    assert_only(&report, Problem::Duplicate, 1);
    let report = tampered().check(Guarantee::AtLeastOnce);
    report.assert_clean();
    assert_eq!(report.duplicates, 1);
}

#[test]
fn duplicate_in_another_partition_is_found() {
    let report = history(|_, log| log[0].push(id(1, 19))).check(Guarantee::ExactlyOncePerPartition);
    assert_only(&report, Problem::Duplicate, 1);
}

#[test]
fn reordering_is_found() {
    for guarantee in BOTH {
        // Records 10 and 12 of partition 0 are consecutive records of stream 2: swapped, and
        // acknowledged so.
        let report = history(|sent, log| {
            log[0].swap(10, 12);
            let (first, second) = (log[0][10], log[0][12]);
            for (record, status) in sent {
                match *record {
                    r if r == first => *status = at(0, 10),
                    r if r == second => *status = at(0, 12),
                    _ => {}
                }
            }
        })
        .check(guarantee);
        assert_only(&report, Problem::Reordered, 1);
    }
}

#[test]
fn streams_have_no_order_among_each_other() {
    for guarantee in BOTH {
        let report = history(|sent, log| {
            log[0].sort(); // all of stream 0, then all of stream 2
            for (record, status) in sent.iter_mut() {
                if let Some(position) = log[0].iter().position(|r| r == record) {
                    *status = at(0, position as i64);
                }
            }
        })
        .check(guarantee);
        report.assert_clean();
    }
}

#[test]
fn late_indeterminate_record_is_reordered_if_idempotent() {
    let tampered = || {
        history(|sent, log| {
            let record = id(1, 19);
            sent.retain(|(r, _)| *r != record);
            sent.push((record, RecordStatus::Indeterminate));
            sent.push((id(1, 20), at(1, 39)));
            *log[1].last_mut().unwrap() = id(3, 19);
            log[1][38] = id(3, 19);
            log[1][39] = id(1, 20);
            log[1].push(record);
            sent.iter_mut().find(|(r, _)| *r == id(3, 19)).unwrap().1 = at(1, 38);
        })
    };
    assert_only(&tampered().check(Guarantee::ExactlyOncePerPartition), Problem::Reordered, 1);
    let report = tampered().check(Guarantee::AtLeastOnce);
    report.assert_clean();
    assert_eq!((report.indeterminate, report.indeterminate_but_written), (1, 1));
}

#[test]
fn record_reported_as_not_written_is_found() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent[17].1 = RecordStatus::NotWritten).check(guarantee);
        assert_only(&report, Problem::NotWrittenButInLog, 1);
        history(|sent, _| sent[17].1 = RecordStatus::Indeterminate).check(guarantee).assert_clean();
    }
}

#[test]
fn failed_record_not_in_the_log_is_clean() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent.push((id(0, 20), RecordStatus::NotWritten))).check(guarantee);
        report.assert_clean();
        assert_eq!(report.not_written, 1);
    }
}

#[test]
fn wrong_offset_is_found() {
    for guarantee in BOTH {
        let wrong = history(|sent, _| sent[8].1 = at(0, 5)).check(guarantee);
        assert_only(&wrong, Problem::WrongOffset, 1);
        let wrong = history(|sent, _| sent[8].1 = at(1, 4)).check(guarantee);
        assert_only(&wrong, Problem::WrongOffset, 1);
        history(|sent, _| sent[8].1 = RecordStatus::Acknowledged { partition: 0, offset: None })
            .check(guarantee)
            .assert_clean();
    }
}

#[test]
fn unresolved_delivery_is_found() {
    for guarantee in BOTH {
        let report = history(|sent, _| sent[3].1 = RecordStatus::Unresolved).check(guarantee);
        assert_only(&report, Problem::Unresolved, 1);
    }
}

#[test]
fn foreign_and_corrupt_records_are_found() {
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
fn value_identifies_its_record() {
    for record in [id(0, 0), id(7, 123_456), id(u32::MAX, u32::MAX)] {
        for size in [0, 30, 1000] {
            assert_eq!(RecordId::of(&record.value(size)), Some(record));
        }
    }
    assert_eq!(RecordId::of(b"1:2"), None);
    assert_eq!(RecordId::of(b"1:2:\xff"), None);
    assert_eq!(RecordId::of(b""), None);
}
