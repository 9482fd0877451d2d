//! Tests of the checker of transactions, on histories with planted problems.

use ailurus::TopicPartition;
use ailurus_test_support::transaction_history::{
    OutputId, ReaderHistory, Report, SetId, SetStatus, TransactionHistory, TransactionProblem as Problem,
};

/// Transactions of each stream.
const TRANSACTIONS: u64 = 10;

fn set(stream: u32, sequence: u64) -> SetId {
    SetId { stream, sequence }
}

fn partition(partition: i32) -> TopicPartition {
    TopicPartition::new("outputs", partition)
}

fn group() -> TopicPartition {
    TopicPartition::new("inputs", 0)
}

/// The offset that a set of stream 0 commits.
fn offset_of(sequence: u64) -> i64 {
    100 + sequence as i64
}

/// The records of two partitions, in order.
type Log = [Vec<OutputId>; 2];

/// Parts of a history: the sets' statuses, and the log.
struct Parts {
    sets: Vec<(SetId, SetStatus)>,
    log: Log,
}

impl Parts {
    /// Two streams whose sets have two records in each partition; the third of each stream is
    /// aborted. Their sets alternate.
    fn new() -> Self {
        let (mut sets, mut log) = (Vec::new(), Log::default());
        for n in 0..2 * TRANSACTIONS {
            let id = set((n % 2) as u32, n / 2);
            let status = if id.sequence == 2 { SetStatus::Aborted } else { SetStatus::Committed };
            sets.push((id, status));
            if status == SetStatus::Committed {
                log[0].extend([record(id, 0), record(id, 1)]);
                log[1].extend([record(id, 2), record(id, 3)]);
            }
        }
        Self { sets, log }
    }

    fn status(&mut self, id: SetId, status: SetStatus) {
        self.sets.iter_mut().find(|(other, _)| *other == id).unwrap().1 = status;
    }

    /// Removes a set's records with these indexes.
    fn remove(&mut self, id: SetId, indexes: &[u32]) {
        for log in &mut self.log {
            log.retain(|record| record.set != id || !indexes.contains(&record.index));
        }
    }

    fn position(&self, partition: usize, id: SetId) -> usize {
        self.log[partition].iter().position(|record| record.set == id).unwrap()
    }

    fn history(self) -> TransactionHistory {
        let mut history = TransactionHistory::default();
        for (n, (id, status)) in (0..).zip(&self.sets) {
            let added = history.set(*id, *status, 4).commit_called(n);
            if id.stream == 0 {
                added.offset(&group(), offset_of(id.sequence));
            }
        }
        history.committed_offset(&group(), Some(offset_of(TRANSACTIONS - 1)));
        history.log = reader(&self.log, [usize::MAX; 2]);
        history.readers.push(reader(&self.log, [usize::MAX; 2]));
        history.readers.push(reader(&self.log, [7, 20]));
        for p in 0..2 {
            history.end_of(&partition(p), 50, 50);
        }
        history
    }
}

fn record(id: SetId, index: u32) -> OutputId {
    OutputId { set: id, lane: 0, attempt: 0, index, count: 4 }
}

/// A reader that has read so many records of each partition. Each record has two offsets, because markers have some, too.
fn reader(log: &Log, up_to: [usize; 2]) -> ReaderHistory {
    let mut reader = ReaderHistory::default();
    for ((number, records), up_to) in (0..).zip(log).zip(up_to) {
        let up_to = up_to.min(records.len());
        for (n, id) in records.iter().enumerate().take(up_to) {
            reader.read(&partition(number), 2 * n as i64, Some(&id.value(40)));
        }
        reader.set_position(&partition(number), 2 * up_to as i64);
    }
    reader
}

/// Checks a history with a planted problem.
fn check(plant: impl FnOnce(&mut Parts)) -> Report {
    let mut parts = Parts::new();
    plant(&mut parts);
    parts.history().check()
}

/// Asserts that there is this problem, `count` times, and no other.
fn assert_only(report: &Report, problem: Problem, count: usize) {
    assert_eq!(report.count(problem), count, "{report}\n{}", report.details());
    let others = Problem::ALL.iter().filter(|(other, _)| *other != problem);
    assert_eq!(others.map(|(other, _)| report.count(*other)).sum::<usize>(), 0, "{report}\n{}", report.details());
}

#[test]
fn whole_ordered_history_is_clean() {
    let report = check(|_| ());
    report.assert_clean();
    assert_eq!((report.sets, report.committed, report.aborted, report.visible), (20, 18, 2, 72));
}

#[test]
fn torn_transaction_is_found() {
    for status in [SetStatus::Committed, SetStatus::Aborted, SetStatus::Unknown] {
        for missing in [&[0][..], &[2, 3], &[0, 1, 2]] {
            let report = check(|parts| {
                parts.status(set(1, 4), status);
                parts.remove(set(1, 4), missing);
            });
            assert_only(&report, Problem::Torn, 1);
        }
    }
}

#[test]
fn aborted_read_is_found() {
    let report = check(|parts| parts.status(set(1, 4), SetStatus::Aborted));
    assert_only(&report, Problem::AbortedRead, 1);
}

#[test]
fn record_that_only_an_earlier_reader_saw_is_an_aborted_read() {
    let mut history = Parts::new().history();
    history.readers[1].read(&partition(0), 3, Some(&record(set(1, 2), 0).value(40)));
    assert_only(&history.check(), Problem::AbortedRead, 1);
}

#[test]
fn lost_transaction_is_found() {
    let report = check(|parts| parts.remove(set(1, 4), &[0, 1, 2, 3]));
    assert_only(&report, Problem::Lost, 1);
}

#[test]
fn unknown_transaction_may_be_visible_or_not() {
    let report = check(|parts| parts.status(set(1, 4), SetStatus::Unknown));
    report.assert_clean();
    assert_eq!((report.unknown, report.unknown_but_visible), (1, 1));
    let report = check(|parts| {
        parts.status(set(1, 4), SetStatus::Unknown);
        parts.remove(set(1, 4), &[0, 1, 2, 3]);
    });
    report.assert_clean();
    assert_eq!((report.unknown, report.unknown_but_visible), (1, 0));
}

#[test]
fn duplicate_is_found() {
    for attempt in [0, 1] {
        let report = check(|parts| parts.log[1].push(OutputId { attempt, ..record(set(1, 9), 2) }));
        assert_only(&report, Problem::Duplicate, 1);
    }
}

#[test]
fn records_of_two_attempts_are_found() {
    let report = check(|parts| {
        let at = parts.position(1, set(0, 5));
        parts.log[1][at].attempt = 1;
    });
    assert_only(&report, Problem::MixedAttempts, 1);
}

#[test]
fn reordering_is_found() {
    let report = check(|parts| {
        let at = parts.position(0, set(0, 5));
        parts.log[0].swap(at, at + 1);
    });
    assert_only(&report, Problem::Reordered, 1);
    let report = check(|parts| {
        let (first, second) = (parts.position(1, set(0, 5)), parts.position(1, set(0, 6)));
        parts.log[1].swap(first, second);
        parts.log[1].swap(first + 1, second + 1);
    });
    assert_only(&report, Problem::Reordered, 2);
}

#[test]
fn lanes_have_no_order_among_each_other() {
    let report = check(|parts| {
        for record in parts.log.iter_mut().flatten() {
            record.lane = record.set.sequence as u32;
        }
        parts.log[0] = parts.log[0].chunks(2).rev().flatten().copied().collect();
    });
    report.assert_clean();
}

#[test]
fn offset_without_its_records_is_found() {
    for committed in [Some(offset_of(TRANSACTIONS - 2)), Some(offset_of(TRANSACTIONS)), None] {
        let mut history = Parts::new().history();
        history.committed_offset(&group(), committed);
        assert_only(&history.check(), Problem::WrongOffset, 1);
    }
}

#[test]
fn inputs_that_do_not_match_their_outputs_are_found() {
    let inputs = |next, above: &[u64]| {
        let mut history = TransactionHistory::default();
        for sequence in 0..6 {
            let id = set(3, sequence);
            history.set(id, SetStatus::Unknown, u32::from(sequence != 1)); // input 1 has no outputs
            if [0, 2, 4].contains(&sequence) {
                let value = OutputId { count: 1, ..record(id, 0) }.value(20);
                history.log.read(&partition(0), sequence as i64, Some(&value));
            }
        }
        history.committed_inputs(3, next, above.iter().copied());
        history.check()
    };
    inputs(3, &[4]).assert_clean();
    assert_only(&inputs(3, &[]), Problem::WrongOffset, 1); // output 4 without its input
    assert_only(&inputs(4, &[4]), Problem::WrongOffset, 1); // input 3 without its output
    assert_only(&inputs(3, &[4, 5]), Problem::WrongOffset, 1);
    assert_only(&inputs(2, &[5]), Problem::WrongOffset, 3);
}

#[test]
fn last_stable_offset_that_does_not_move_is_found() {
    let mut history = Parts::new().history();
    history.end_of(&partition(1), 49, 50);
    assert_only(&history.check(), Problem::Unstable, 1);
    history.open_transaction("p-0 is Ongoing");
    assert_only(&history.check(), Problem::Unstable, 2);
}

#[test]
fn commit_of_a_fenced_owner_is_found() {
    // The commit of (0, 6) is called at 12, that of (0, 5) at 10.
    for (taken_over, found) in [(12, 4), (11, 4), (20, 0)] {
        let mut history = Parts::new().history();
        history.owner(0, "p", 0);
        history.owner(7, "p", taken_over);
        history.owner(1, "other", taken_over + 1);
        assert_only(&history.check(), Problem::FencedWrite, found);
    }
}

#[test]
fn record_of_a_fenced_owner_behind_the_next_owners_is_found() {
    let late = |started: [u64; 2]| {
        let mut history = TransactionHistory::default();
        for (stream, offset) in [(0, 1), (1, 0)] {
            let id = OutputId { count: 1, ..record(set(stream, 0), 0) };
            history.set(id.set, SetStatus::Unknown, 1);
            history.owner(stream, "p", started[stream as usize]);
            history.log.read(&partition(0), offset, Some(&id.value(20)));
        }
        history.check()
    };
    assert_only(&late([0, 1]), Problem::FencedWrite, 1);
    late([1, 0]).assert_clean();
}

#[test]
fn reader_that_has_passed_a_record_without_it_is_found() {
    let mut history = Parts::new().history();
    history.readers[1].set_position(&partition(0), 15); // it saw the records before 14
    assert_only(&history.check(), Problem::IntermediateRead, 1);
}

#[test]
fn sets_that_have_read_each_other_are_found() {
    let mut history = Parts::new().history();
    history.read_before(set(0, 4), set(1, 3));
    history.read_before(set(1, 3), set(0, 3));
    history.read_before(set(0, 3), set(1, 1));
    history.check().assert_clean();
    history.read_before(set(1, 1), set(0, 4));
    assert_only(&history.check(), Problem::Cycle, 1);
    let mut history = Parts::new().history();
    history.read_before(set(0, 4), set(0, 4));
    assert_only(&history.check(), Problem::Cycle, 1);
}

#[test]
fn foreign_and_corrupt_records_are_found() {
    let report = check(|parts| parts.log[0].push(record(set(9, 0), 0)));
    assert_only(&report, Problem::Foreign, 1);
    for index in [4, 5] {
        let report = check(|parts| parts.log[0].push(record(set(0, 9), index)));
        assert_only(&report, Problem::Foreign, 1);
    }
    let mut history = Parts::new().history();
    let mut value = record(set(0, 0), 0).value(40);
    value[39] ^= 1;
    history.log.read(&partition(0), 1000, Some(&value));
    history.log.read(&partition(0), 1001, None);
    assert_only(&history.check(), Problem::Foreign, 2);
}

#[test]
fn value_identifies_its_record() {
    for set in [set(0, 0), set(u32::MAX, u64::MAX)] {
        for size in [0, 60, 1000] {
            let id = OutputId { set, lane: 3, attempt: 2, index: 1, count: 8 };
            assert_eq!(OutputId::of(&id.value(size)), Some(id));
        }
    }
    for text in ["", "1:2", "1:2:3:4:5:x:", "1:2:3:4:5:6"] {
        assert_eq!(OutputId::of(text.as_bytes()), None, "{text}");
    }
}
