//! The comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use ailurus::TopicPartition;

use super::{OutputId, OutputSet, ReaderHistory, SetId, SetStatus, TransactionHistory};
use crate::problems::Problems;

/// A violation of what transactions guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionProblem {
    /// A part of a set is visible.
    Torn,
    /// Visible, though reported as aborted; or read before, and not visible at the end.
    AbortedRead,
    /// Committed, but not visible.
    Lost,
    /// A record is visible more than once.
    Duplicate,
    /// A set has records of several attempts.
    MixedAttempts,
    /// After a later record of its lane in the same partition.
    Reordered,
    /// The committed offsets are not those of the visible sets.
    WrongOffset,
    /// A last stable offset behind the end, or an open transaction, after everything has ended.
    Unstable,
    /// Committed by a producer after another had its transactional id.
    FencedWrite,
    /// A reader has passed a visible record that it has not seen.
    IntermediateRead,
    /// Sets have read each other's records before they were committed.
    Cycle,
    /// Visible, but never sent, or not with this value.
    Foreign,
}

impl TransactionProblem {
    /// All problems with their names in a report.
    pub const ALL: [(Self, &str); 12] = [
        (Self::Torn, "torn"),
        (Self::AbortedRead, "aborted reads"),
        (Self::Lost, "lost"),
        (Self::Duplicate, "duplicates"),
        (Self::MixedAttempts, "of several attempts"),
        (Self::Reordered, "reordered"),
        (Self::WrongOffset, "wrong offsets"),
        (Self::Unstable, "not stable"),
        (Self::FencedWrite, "fenced writes"),
        (Self::IntermediateRead, "intermediate reads"),
        (Self::Cycle, "cycles"),
        (Self::Foreign, "foreign"),
    ];
}

/// Result of a check; its text is one line.
#[derive(Debug, Default)]
pub struct Report {
    pub sets: usize,
    pub committed: usize,
    pub aborted: usize,
    pub unknown: usize,
    /// Number of unknown sets that are visible.
    pub unknown_but_visible: usize,
    /// Number of visible records.
    pub visible: usize,
    problems: Problems<TransactionProblem>,
}

impl Report {
    fn add(&mut self, problem: TransactionProblem, text: String) {
        self.problems.add(problem, text);
    }

    /// Returns the number of problems of this kind.
    pub fn count(&self, problem: TransactionProblem) -> usize {
        self.problems.count(problem)
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the first few problems of each kind.
    pub fn details(&self) -> String {
        self.problems.details()
    }

    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}\n{}", self.details());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, committed, aborted, unknown, unknown_but_visible, visible, problems } = self;
        write!(
            f,
            "{sets} transactions: {committed} committed, {aborted} aborted, {unknown} unknown ({unknown_but_visible} of \
             them visible); {visible} records visible: {}",
            problems.counts(&TransactionProblem::ALL)
        )
    }
}

/// Places of a set's visible records, by index.
type Visible<'a> = BTreeMap<u32, Vec<(u32, &'a (TopicPartition, i64))>>;

pub(super) fn check(history: &TransactionHistory) -> Report {
    let log = &history.log;
    let mut report = Report { sets: history.sets.len(), visible: log.records.len(), ..Report::default() };
    let visible = visible_sets(history, &mut report);
    for (id, set) in &history.sets {
        let records = visible.get(id);
        check_set(history, *id, set, records.unwrap_or(&Visible::new()), &mut report);
    }
    check_order(history, &mut report);
    check_committed_offsets(history, &visible, &mut report);
    for (number, reader) in history.readers.iter().enumerate() {
        check_reader(log, number, reader, &mut report);
    }
    for text in &history.unstable {
        report.add(TransactionProblem::Unstable, text.clone());
    }
    check_cycles(history, &visible, &mut report);
    report
}

fn visible_sets<'a>(history: &'a TransactionHistory, report: &mut Report) -> HashMap<SetId, Visible<'a>> {
    let mut visible: HashMap<SetId, Visible<'a>> = HashMap::new();
    for (place, id) in &history.log.records {
        let known =
            |id: &OutputId| history.sets.get(&id.set).is_some_and(|set| set.count == id.count && id.index < set.count);
        match id.filter(known) {
            Some(id) => {
                visible.entry(id.set).or_default().entry(id.index).or_default().push((id.attempt, place));
            }
            None => report.add(TransactionProblem::Foreign, format!("{id:?} at {place:?}")),
        }
    }
    visible
}

fn check_set(history: &TransactionHistory, id: SetId, set: &OutputSet, visible: &Visible<'_>, report: &mut Report) {
    let parts = visible.len() as u32;
    let is_whole = parts == set.count && parts > 0;
    match set.status {
        SetStatus::Committed => report.committed += 1,
        SetStatus::Aborted => report.aborted += 1,
        SetStatus::Unknown => {
            report.unknown += 1;
            report.unknown_but_visible += usize::from(is_whole);
        }
    }
    let duplicates = visible.values().filter(|places| places.len() > 1).count();
    let attempts: BTreeSet<u32> = visible.values().flatten().map(|(attempt, _)| *attempt).collect();
    let text = || format!("{id:?}, {:?}, {parts} of {} records: {visible:?} {}", set.status, set.count, set.error);
    for (index, places) in visible.iter().filter(|(_, places)| places.len() > 1) {
        report.add(TransactionProblem::Duplicate, format!("record {index} of {id:?} at {places:?}"));
    }
    if duplicates == 0 && attempts.len() > 1 {
        report.add(TransactionProblem::MixedAttempts, text());
    }
    match set.status {
        _ if parts > 0 && !is_whole => report.add(TransactionProblem::Torn, text()),
        SetStatus::Aborted if is_whole => report.add(TransactionProblem::AbortedRead, text()),
        SetStatus::Committed if parts < set.count => report.add(TransactionProblem::Lost, text()),
        _ => {}
    }
    if let Some(inputs) = history.inputs.get(&id.stream) {
        let is_committed = id.sequence < inputs.next || inputs.above.contains(&id.sequence);
        if is_committed && parts == 0 && set.count > 0 {
            report.add(TransactionProblem::WrongOffset, format!("the input is committed without outputs: {}", text()));
        }
        if !is_committed && is_whole {
            report.add(TransactionProblem::WrongOffset, format!("outputs of an input not committed: {}", text()));
        }
    }
    if parts > 0 && is_fenced(history, id.stream, set) {
        report.add(TransactionProblem::FencedWrite, format!("committed after another producer's start: {}", text()));
    }
}

/// Returns whether another producer had taken the transactional id over when the commit was called.
fn is_fenced(history: &TransactionHistory, stream: u32, set: &OutputSet) -> bool {
    let (Some(owner), Some(called)) = (history.owners.get(&stream), set.commit_called) else { return false };
    let mut others = history.owners.values().filter(|o| o.transactional_id == owner.transactional_id);
    others.any(|other| other.started > owner.started && other.started <= called)
}

fn check_order(history: &TransactionHistory, report: &mut Report) {
    // By partition, stream and lane: the last set and index. By partition and transactional id: the
    // last owner.
    let mut latest: HashMap<(&TopicPartition, u32, u32), (u64, u32)> = HashMap::new();
    let mut owners: HashMap<(&TopicPartition, &str), u64> = HashMap::new();
    let mut seen = BTreeSet::new();
    for ((partition, offset), id) in &history.log.records {
        let Some(id) = id.filter(|id| seen.insert((id.set, id.index))) else { continue };
        let place = (id.set.sequence, id.index);
        let last = latest.entry((partition, id.set.stream, id.lane)).or_insert(place);
        if place < *last {
            let text = format!("{id:?} at {partition}@{offset} is behind {last:?}");
            report.add(TransactionProblem::Reordered, text);
        } else {
            *last = place;
        }
        let Some(owner) = history.owners.get(&id.set.stream) else { continue };
        let last = owners.entry((partition, &owner.transactional_id)).or_insert(owner.started);
        if owner.started < *last {
            let text = format!("{id:?} at {partition}@{offset} is behind a record of the next owner");
            report.add(TransactionProblem::FencedWrite, text);
        } else {
            *last = owner.started;
        }
    }
}

/// The committed offset is that of the visible set with the greatest one: offsets rise.
fn check_committed_offsets(history: &TransactionHistory, visible: &HashMap<SetId, Visible<'_>>, report: &mut Report) {
    for (partition, committed) in &history.committed_offsets {
        let of_partition = |(id, set): (&SetId, &OutputSet)| {
            let (at, offset) = set.offset.as_ref()?;
            (at == partition && visible.contains_key(id)).then_some((*offset, *id))
        };
        let last = history.sets.iter().filter_map(of_partition).max();
        if last.map(|(offset, _)| offset) != *committed {
            let text = format!("{partition}: {committed:?} is committed, the last visible set has {last:?}");
            report.add(TransactionProblem::WrongOffset, text);
        }
    }
}

fn check_reader(log: &ReaderHistory, number: usize, reader: &ReaderHistory, report: &mut Report) {
    for (place, id) in &reader.records {
        if log.records.get(place) != Some(id) {
            let text =
                format!("reader {number} saw {id:?} at {place:?}, where at the end is {:?}", log.records.get(place));
            report.add(TransactionProblem::AbortedRead, text);
        }
    }
    for (partition, position) in &reader.positions {
        let passed = (partition.clone(), i64::MIN)..(partition.clone(), *position);
        for (place, id) in log.records.range(passed).filter(|(place, _)| !reader.records.contains_key(place)) {
            let text = format!("reader {number} at {position} has not seen {id:?} at {place:?}");
            report.add(TransactionProblem::IntermediateRead, text);
        }
    }
}

/// Drops, again and again, the visible sets that have read from none that is left; what stays has
/// read itself or is behind a cycle.
fn check_cycles(history: &TransactionHistory, visible: &HashMap<SetId, Visible<'_>>, report: &mut Report) {
    let mut left: BTreeSet<(SetId, SetId)> =
        history.reads.iter().filter(|(set, _)| visible.contains_key(set)).copied().collect();
    loop {
        let readers: BTreeSet<SetId> = left.iter().map(|(set, _)| *set).collect();
        let before = left.len();
        left.retain(|(_, read)| readers.contains(read));
        if left.len() == before {
            break;
        }
    }
    if !left.is_empty() {
        let few: Vec<_> = left.iter().take(5).collect();
        report.add(TransactionProblem::Cycle, format!("(set, read before): {few:?}"));
    }
}
