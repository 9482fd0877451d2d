//! Compares what a producer reported about its records with the log.
//!
//! A test gives each record a [`RecordId`] and sends [`RecordId::value`] with it. It adds the
//! status of each record and the records in the log to the [`History`], then checks it.
//!
//! ```text
//! let id = RecordId { stream: 0, sequence: 0 };
//! let result = producer.send(ProducerRecord::to("t").value(id.value(100))).await?.await;
//! history.sent(id, RecordStatus::of(&result));
//! history.read(partition, offset, value);
//! history.check(Guarantee::ExactlyOncePerPartition).assert_clean();
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use ailurus::{Acknowledgement, Error};

use crate::problems::Problems;

/// Identifies a record. Streams are independent; the records of a stream are sent by sequence, from
/// any number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    pub stream: u32,
    pub sequence: u32,
}

impl RecordId {
    /// Returns a value that only this record has: about `size` bytes, all checked by
    /// [`RecordId::of`].
    pub fn value(self, size: usize) -> Vec<u8> {
        let mut value = format!("{}:{}:", self.stream, self.sequence).into_bytes();
        let mut random = fastrand::Rng::with_seed(u64::from(self.stream) << 32 | u64::from(self.sequence));
        while value.len() < size {
            value.push(random.alphanumeric() as u8);
        }
        value
    }

    /// Returns the record of a value; `None` if the value is not exactly the one that was sent.
    pub fn of(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(3, ':');
        let id = Self { stream: parts.next()?.parse().ok()?, sequence: parts.next()?.parse().ok()? };
        (id.value(value.len()) == value).then_some(id)
    }
}

/// Status of a record as the producer reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordStatus {
    /// In the log, at this offset if the broker knew it.
    Acknowledged { partition: i32, offset: Option<i64> },
    /// Failed, and not in the log.
    NotWritten,
    /// Failed, and may be in the log.
    Indeterminate,
    /// The delivery did not resolve in time.
    Unresolved,
}

impl RecordStatus {
    pub fn of(result: &Result<Acknowledgement, Error>) -> Self {
        match result {
            Ok(ack) => Self::Acknowledged { partition: ack.partition, offset: ack.offset },
            Err(error) => Self::of_error(error),
        }
    }

    /// Any other error claims that the record was not written.
    pub fn of_error(error: &Error) -> Self {
        if error.is_indeterminate() { Self::Indeterminate } else { Self::NotWritten }
    }
}

/// Guarantee that the log is checked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// Every acknowledged record is in the log. It may be there again after its first offset, and
    /// an indeterminate one may appear late.
    AtLeastOnce,
    /// Every record is in the log at most once, and in order.
    #[default]
    ExactlyOncePerPartition,
}

/// A violation of the guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Acknowledged, but not in the log.
    Lost,
    /// In the log more than once.
    Duplicate,
    /// After a later record of its stream in the same partition.
    Reordered,
    /// In the log, though reported as not written.
    NotWrittenButInLog,
    /// In the log, but not at the acknowledged offset.
    WrongOffset,
    /// Its delivery never resolved.
    Unresolved,
    /// In the log, but never sent, or not with this value.
    Foreign,
}

impl Problem {
    /// All problems with their names in a report.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Lost, "lost"),
        (Self::Duplicate, "duplicates"),
        (Self::Reordered, "reordered"),
        (Self::NotWrittenButInLog, "not written but in the log"),
        (Self::WrongOffset, "at a wrong offset"),
        (Self::Unresolved, "unresolved"),
        (Self::Foreign, "foreign"),
    ];
}

/// Records sent and records in the log.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeMap<RecordId, RecordStatus>,
    /// Errors of the records that failed.
    errors: BTreeMap<RecordId, String>,
    /// Records by partition and offset.
    log: BTreeMap<(i32, i64), Option<RecordId>>,
}

impl History {
    /// Adds a sent record with its status, once per record.
    pub fn sent(&mut self, id: RecordId, status: RecordStatus) {
        let previous = self.sent.insert(id, status);
        assert!(previous.is_none(), "{id:?} was added twice: the test is wrong");
    }

    /// Adds the error of a failed record, for the report.
    pub fn failed(&mut self, id: RecordId, error: &Error) {
        self.errors.insert(id, format!("{error:#}"));
    }

    /// Adds a record in the log.
    pub fn read(&mut self, partition: i32, offset: i64, value: Option<&[u8]>) {
        self.log.insert((partition, offset), value.and_then(RecordId::of));
    }

    pub fn check(&self, guarantee: Guarantee) -> Report {
        let mut report = Report { guarantee, sent: self.sent.len(), in_log: self.log.len(), ..Report::default() };
        let positions = self.positions(&mut report);
        for (id, status) in &self.sent {
            let errors = self.errors.get(id).map_or("", String::as_str);
            report.check_record(*id, *status, positions.get(id).map_or(&[], Vec::as_slice), errors);
        }
        self.check_order(&mut report);
        report
    }

    /// Returns the positions of each record in the log, in order.
    fn positions(&self, report: &mut Report) -> HashMap<RecordId, Vec<(i32, i64)>> {
        let mut positions: HashMap<RecordId, Vec<(i32, i64)>> = HashMap::new();
        for (&position, id) in &self.log {
            match id.filter(|id| self.sent.contains_key(id)) {
                Some(id) => positions.entry(id).or_default().push(position),
                None => report.add(Problem::Foreign, format!("{id:?} at {position:?}")),
            }
        }
        positions
    }

    fn check_order(&self, report: &mut Report) {
        let counts = |id: &RecordId| match report.guarantee {
            Guarantee::AtLeastOnce => matches!(self.sent.get(id), Some(RecordStatus::Acknowledged { .. })),
            Guarantee::ExactlyOncePerPartition => true,
        };
        let mut latest: HashMap<(i32, u32), (u32, i64)> = HashMap::new();
        let (mut seen, mut reordered) = (BTreeSet::new(), Vec::new());
        for (&(partition, offset), id) in &self.log {
            let Some(id) = id.filter(counts) else { continue };
            if !seen.insert(id) {
                continue; // duplicates are checked elsewhere
            }
            let (last, offset_before) = *latest.entry((partition, id.stream)).or_insert((id.sequence, offset));
            if id.sequence < last {
                let status = self.sent.get(&id);
                reordered.push(format!(
                    "{id:?} at {:?} ({status:?}) is behind {last} at {offset_before}",
                    (partition, offset)
                ));
            } else {
                latest.insert((partition, id.stream), (id.sequence, offset));
            }
        }
        reordered.into_iter().for_each(|text| report.add(Problem::Reordered, text));
    }
}

/// Result of a check; its text is one line.
#[derive(Debug, Default)]
pub struct Report {
    pub guarantee: Guarantee,
    pub sent: usize,
    pub acknowledged: usize,
    pub not_written: usize,
    pub indeterminate: usize,
    /// Number of indeterminate records in the log.
    pub indeterminate_but_written: usize,
    pub in_log: usize,
    /// Number of records that are in the log more than once, whether that is allowed or not.
    pub duplicates: usize,
    problems: Problems<Problem>,
}

impl Report {
    fn add(&mut self, problem: Problem, text: String) {
        self.problems.add(problem, text);
    }

    fn check_record(&mut self, id: RecordId, status: RecordStatus, positions: &[(i32, i64)], errors: &str) {
        match status {
            RecordStatus::Acknowledged { partition, offset } => {
                self.acknowledged += 1;
                let matches = |position: &(i32, i64)| position.0 == partition && offset.is_none_or(|o| o == position.1);
                if positions.is_empty() {
                    self.add(Problem::Lost, format!("{id:?}, acknowledged at {:?}", (partition, offset)));
                } else if !positions.iter().any(matches) {
                    let text = format!("{id:?}, acknowledged at {:?}, is at {positions:?}", (partition, offset));
                    self.add(Problem::WrongOffset, text);
                }
            }
            RecordStatus::NotWritten => {
                self.not_written += 1;
                if !positions.is_empty() {
                    self.add(Problem::NotWrittenButInLog, format!("{id:?} at {positions:?}: {errors}"));
                }
            }
            RecordStatus::Indeterminate => {
                self.indeterminate += 1;
                self.indeterminate_but_written += usize::from(!positions.is_empty());
            }
            RecordStatus::Unresolved => self.add(Problem::Unresolved, format!("{id:?}")),
        }
        if positions.len() > 1 {
            self.duplicates += 1;
            if self.guarantee == Guarantee::ExactlyOncePerPartition {
                self.add(Problem::Duplicate, format!("{id:?} at {positions:?}"));
            }
        }
    }

    /// Returns the number of problems of this kind.
    pub fn count(&self, problem: Problem) -> usize {
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
        write!(
            f,
            "{} sent: {} acknowledged, {} not written, {} indeterminate ({} of them in the log); {} in the log: {}",
            self.sent,
            self.acknowledged,
            self.not_written,
            self.indeterminate,
            self.indeterminate_but_written,
            self.in_log,
            self.problems.counts(&Problem::ALL)
        )?;
        if self.guarantee == Guarantee::AtLeastOnce {
            write!(f, " (at least once: {} records more than once)", self.duplicates)?;
        }
        Ok(())
    }
}
