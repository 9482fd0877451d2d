//! What a producer was given and told, held against what is in the log.
//!
//! A test gives each record an [`Id`] and sends [`Id::value`] with it. It tells the [`History`] how each record ended and
//! what it found in the log, then asks for the [`Report`].
//!
//! ```text
//! let id = Id { stream: 0, sequence: 0 };
//! let ended = producer.send(ProducerRecord::to("t").value(&id.value(100))).await?.await;
//! history.sent(id, Fate::of(&ended));
//! history.read(partition, offset, value);
//! history.check(Guarantee::ExactlyOncePerPartition).assert_clean();
//! ```

#![allow(dead_code, reason = "each program uses a part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use ailurus::{Acknowledgement, Error};

use super::problems::Problems;

/// Which record: the streams are independent, the records of one are handed in by their sequence, from whatever number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub stream: u32,
    pub sequence: u32,
}

impl Id {
    /// A value that only this record has: about `size` bytes, all of which [`Id::of`] looks at.
    pub fn value(self, size: usize) -> Vec<u8> {
        let mut value = format!("{}:{}:", self.stream, self.sequence).into_bytes();
        let mut random = fastrand::Rng::with_seed(u64::from(self.stream) << 32 | u64::from(self.sequence));
        while value.len() < size {
            value.push(random.alphanumeric() as u8);
        }
        value
    }

    /// The record that this is the value of; none if it is not exactly as it was made.
    pub fn of(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(3, ':');
        let id = Self { stream: parts.next()?.parse().ok()?, sequence: parts.next()?.parse().ok()? };
        (id.value(value.len()) == value).then_some(id)
    }
}

/// What the producer said about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the log, at this offset unless the broker did not know that any more.
    Acknowledged { partition: i32, offset: Option<i64> },
    /// It failed and is not in the log.
    NotWritten,
    /// It failed and may be in the log.
    Unknown,
    /// Nothing, however long one waited.
    Unresolved,
}

impl Fate {
    pub fn of(ended: &Result<Acknowledgement, Error>) -> Self {
        match ended {
            Ok(ack) => Self::Acknowledged { partition: ack.partition, offset: ack.offset },
            Err(error) => Self::of_error(error),
        }
    }

    /// An error that does not say that the fate is unknown says that the record was not written.
    pub fn of_error(error: &Error) -> Self {
        let said = format!("{error:#}");
        let unknown = ["may be in the log", "not known", "fate"].iter().any(|words| said.contains(words));
        if unknown { Self::Unknown } else { Self::NotWritten }
    }
}

/// What the log is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// Every acknowledged record is there. One may be there again behind its first place, and one whose fate is unknown may
    /// turn up late.
    AtLeastOnce,
    /// Every record is there at most once, and all that are there are in order.
    #[default]
    ExactlyOncePerPartition,
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Acknowledged, and nowhere in the log.
    Lost,
    /// In the log more than once.
    Duplicate,
    /// Behind a later record of its stream in the same partition.
    Reordered,
    /// In the log, though it was reported as not written.
    FailedButPresent,
    /// In the log, but not where the acknowledgement says.
    WrongOffset,
    /// Its handle never resolved.
    Unresolved,
    /// In the log, and nobody handed it in, or not like this.
    Foreign,
}

impl Problem {
    /// All there are, with what they are called in a report.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Lost, "lost"),
        (Self::Duplicate, "duplicates"),
        (Self::Reordered, "reordered"),
        (Self::FailedButPresent, "failed but present"),
        (Self::WrongOffset, "at a wrong offset"),
        (Self::Unresolved, "unresolved"),
        (Self::Foreign, "foreign"),
    ];
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeMap<Id, Fate>,
    /// What the producer said of those that failed.
    said: BTreeMap<Id, String>,
    /// By partition and offset.
    log: BTreeMap<(i32, i64), Option<Id>>,
}

impl History {
    /// A record was handed in, and this became of it. Once for each.
    pub fn sent(&mut self, id: Id, fate: Fate) {
        let before = self.sent.insert(id, fate);
        assert!(before.is_none(), "{id:?} was handed in twice: the test is wrong");
    }

    /// What the producer said of a record that failed: for the report, if that turns out to be wrong.
    pub fn said(&mut self, id: Id, error: &Error) {
        self.said.insert(id, format!("{error:#}"));
    }

    /// A record is in the log.
    pub fn read(&mut self, partition: i32, offset: i64, value: Option<&[u8]>) {
        self.log.insert((partition, offset), value.and_then(Id::of));
    }

    pub fn check(&self, guarantee: Guarantee) -> Report {
        let mut report = Report { guarantee, sent: self.sent.len(), in_log: self.log.len(), ..Report::default() };
        let places = self.places(&mut report);
        for (id, fate) in &self.sent {
            let said = self.said.get(id).map_or("", String::as_str);
            report.judge(*id, *fate, places.get(id).map_or(&[], Vec::as_slice), said);
        }
        self.check_order(&mut report);
        report
    }

    /// Where each record is, in order.
    fn places(&self, report: &mut Report) -> HashMap<Id, Vec<(i32, i64)>> {
        let mut places: HashMap<Id, Vec<(i32, i64)>> = HashMap::new();
        for (&place, id) in &self.log {
            match id.filter(|id| self.sent.contains_key(id)) {
                Some(id) => places.entry(id).or_default().push(place),
                None => report.add(Problem::Foreign, format!("{id:?} at {place:?}")),
            }
        }
        places
    }

    fn check_order(&self, report: &mut Report) {
        let counts = |id: &Id| match report.guarantee {
            Guarantee::AtLeastOnce => matches!(self.sent.get(id), Some(Fate::Acknowledged { .. })),
            Guarantee::ExactlyOncePerPartition => true,
        };
        let mut latest: HashMap<(i32, u32), (u32, i64)> = HashMap::new();
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for (&(partition, offset), id) in &self.log {
            let Some(id) = id.filter(counts) else { continue };
            if !seen.insert(id) {
                continue; // a duplicate, which is a matter of its own
            }
            let (last, at) = *latest.entry((partition, id.stream)).or_insert((id.sequence, offset));
            if id.sequence < last {
                let fate = self.sent.get(&id);
                found.push(format!("{id:?} at {:?} ({fate:?}) is behind {last} at {at}", (partition, offset)));
            } else {
                latest.insert((partition, id.stream), (id.sequence, offset));
            }
        }
        found.into_iter().for_each(|text| report.add(Problem::Reordered, text));
    }
}

/// What came out; its text is one line.
#[derive(Debug, Default)]
pub struct Report {
    pub guarantee: Guarantee,
    pub sent: usize,
    pub acknowledged: usize,
    pub not_written: usize,
    pub unknown: usize,
    /// Of those, how many are in the log.
    pub unknown_but_present: usize,
    pub in_log: usize,
    /// Records that are in the log more than once, whether that is allowed or not.
    pub repeated: usize,
    problems: Problems<Problem>,
}

impl Report {
    fn add(&mut self, problem: Problem, text: String) {
        self.problems.add(problem, text);
    }

    fn judge(&mut self, id: Id, fate: Fate, places: &[(i32, i64)], said: &str) {
        match fate {
            Fate::Acknowledged { partition, offset } => {
                self.acknowledged += 1;
                let right = |place: &(i32, i64)| place.0 == partition && offset.is_none_or(|o| o == place.1);
                if places.is_empty() {
                    self.add(Problem::Lost, format!("{id:?}, acknowledged at {:?}", (partition, offset)));
                } else if !places.iter().any(right) {
                    let text = format!("{id:?}, acknowledged at {:?}, is at {places:?}", (partition, offset));
                    self.add(Problem::WrongOffset, text);
                }
            }
            Fate::NotWritten => {
                self.not_written += 1;
                if !places.is_empty() {
                    self.add(Problem::FailedButPresent, format!("{id:?} at {places:?}: {said}"));
                }
            }
            Fate::Unknown => {
                self.unknown += 1;
                self.unknown_but_present += usize::from(!places.is_empty());
            }
            Fate::Unresolved => self.add(Problem::Unresolved, format!("{id:?}")),
        }
        if places.len() > 1 {
            self.repeated += 1;
            if self.guarantee == Guarantee::ExactlyOncePerPartition {
                self.add(Problem::Duplicate, format!("{id:?} at {places:?}"));
            }
        }
    }

    /// How often there is this problem.
    pub fn count(&self, problem: Problem) -> usize {
        self.problems.count(problem)
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The problems, the first few of each kind.
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
            "{} sent: {} acknowledged, {} not written, {} of unknown fate ({} of them in the log); {} in the log: {}",
            self.sent,
            self.acknowledged,
            self.not_written,
            self.unknown,
            self.unknown_but_present,
            self.in_log,
            self.problems.counts(&Problem::ALL)
        )?;
        if self.guarantee == Guarantee::AtLeastOnce {
            write!(f, " (at least once: {} records are there again)", self.repeated)?;
        }
        Ok(())
    }
}
