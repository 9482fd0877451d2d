//! Where one partition stands, without I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use uuid::Uuid;

use super::planner::{Ask, FetchFrom, Sought};
use super::source::Limits;
use crate::cluster::Backoff;
use crate::consumer::event::StartOffset;
use crate::consumer::lease::Lease;
use crate::error::{Error, ErrorKind};
use crate::record::TopicPartition;

/// How often in a row a leader may refuse an offset that is inside its log, before that is told.
const DOUBTS: u32 = 3;

/// Where reading a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Where the program wants it to.
    At(StartOffset),
    /// At a committed offset; with the leader epoch of the record before it, if that was committed too.
    Committed(i64, Option<i32>),
    /// Nothing is committed: the policy decides.
    ByPolicy,
    /// Nothing is committed, and the partition is younger than this consumer: it was not there when the policy was applied to its topic, so
    /// `latest` begins at its start.
    New,
}

impl From<StartOffset> for Begin {
    fn from(at: StartOffset) -> Self {
        Self::At(at)
    }
}

impl Begin {
    /// The offset, where it is known.
    pub(crate) fn offset(self) -> Option<i64> {
        match self {
            Self::At(StartOffset::Offset(offset)) | Self::Committed(offset, _) => Some(offset),
            _ => None,
        }
    }
}

/// Why the policy has to decide where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    OutOfRange(i64),
    NothingCommitted,
    /// The log was cut below the position: what is there now is not what was read. `end` is where both part, if the leader
    /// can tell.
    Truncated {
        position: i64,
        end: Option<i64>,
    },
}

impl Why {
    pub(super) fn position(self) -> Option<i64> {
        match self {
            Self::OutOfRange(position) | Self::Truncated { position, .. } => Some(position),
            Self::NothingCommitted => None,
        }
    }

    /// For a program that has chosen to decide itself.
    pub(super) fn error(self, partition: &Lease, start: i64, end: i64) -> Error {
        let what = match self {
            Self::OutOfRange(offset) => format!("offset {offset} of {partition} is not in its log"),
            Self::NothingCommitted => format!("the group has committed no offset of {partition}"),
            Self::Truncated { position, end: Some(end) } => format!(
                "the log of {partition} was cut and written anew from offset {end} on, after it was read up to offset {position}"
            ),
            Self::Truncated { position, end: None } => {
                format!("the log of {partition} was cut and written anew after it was read up to offset {position}")
            }
        };
        let what = format!(
            "{what}, which begins at {start} and ends at {end}: it is read no further, for offset_reset is none; seek to an offset \
             of it, or set REDPANDA_AUTO_OFFSET_RESET to earliest or latest"
        );
        Error::new(ErrorKind::OffsetOutOfRange, what)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// To be asked for.
    Seek {
        to: StartOffset,
        /// The offset where it was, if that can't be read.
        from: Option<i64>,
        /// Not by the program: nothing else remembers where it will be.
        by_policy: bool,
    },
    At(i64),
    /// The leader has refused the offset as outside its log. That is so for a moment after an election, too: both ends of the log are asked
    /// for, the beginning first, before anything is skipped.
    Doubted {
        offset: i64,
        start: Option<i64>,
    },
    /// No policy says where to go on. The program will be told with the beginning, then the end of the log, to be asked for.
    Lost {
        why: Why,
        start: Option<i64>,
    },
    /// The program has been told: it has to seek.
    Unset,
}

impl Position {
    /// By the policy, if there is one.
    pub(super) fn reset(policy: Option<StartOffset>, why: Why) -> Self {
        match policy {
            Some(to) => Self::Seek { to, from: why.position(), by_policy: true },
            None => Self::Lost { why, start: None },
        }
    }

    pub(super) fn sought(to: StartOffset) -> Self {
        match to {
            StartOffset::Offset(offset) => Self::At(offset),
            to => Self::Seek { to, from: None, by_policy: false },
        }
    }

    /// What is to be asked of the leader before reading can go on.
    pub(super) fn question(self) -> Option<StartOffset> {
        match self {
            Self::Seek { to, .. } => Some(to),
            Self::Doubted { start: None, .. } | Self::Lost { start: None, .. } => Some(StartOffset::Earliest),
            Self::Doubted { start: Some(_), .. } | Self::Lost { start: Some(_), .. } => Some(StartOffset::Latest),
            Self::At(_) | Self::Unset => None,
        }
    }
}

/// What a fetch asked for a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) broker: i32,
    /// Of the partition when it was asked.
    pub(super) version: u64,
    pub(super) what: FetchFrom,
}

/// What a broker's fetch session remembers of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) broker: i32,
    pub(super) leader_epoch: i32,
    pub(super) what: FetchFrom,
}

#[derive(Debug)]
pub(super) struct Part {
    /// Of its lease.
    pub(super) epoch: u64,
    /// Counts seeks: answers to what was asked before count for nothing.
    pub(super) version: u64,
    pub(super) position: Position,
    /// The leader epoch of the last record before the position, if known.
    pub(super) read_epoch: Option<i32>,
    /// Whether the leader is to be asked if what was read is still in its log (KIP-320).
    pub(super) validate: bool,
    /// Not to be fetched for now.
    pub(super) paused: bool,
    pub(super) leader: Option<i32>,
    pub(super) leader_epoch: i32,
    /// The replica to fetch from instead of the leader, and until when (KIP-392).
    pub(super) preferred: Option<(i32, Instant)>,
    pub(super) topic_id: Option<Uuid>,
    pub(super) in_flight: bool,
    /// What the last fetch asked for.
    pub(super) asked: Option<Asked>,
    /// What a broker's fetch session remembers of it.
    pub(super) told: Option<Told>,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// Whether its present trouble has been told.
    pub(super) reported: bool,
    /// How often its position was refused as outside the log and found inside, in a row.
    pub(super) doubts: u32,
    /// Whether a fetch has been answered: an empty partition tells its end once.
    pub(super) answered: bool,
    /// The end of what can be read, as of the last response.
    pub(super) end: i64,
    pub(super) held: Arc<AtomicUsize>,
    /// What a fetched byte takes in memory, in sixteenths.
    pub(super) growth: usize,
    /// Bytes of a response per offset; 0 if none has come yet.
    pub(super) weight: usize,
    /// When it last brought something; who waits longest is asked for first.
    pub(super) served: u64,
}

impl Part {
    pub(super) fn new(lease: &Lease, begin: Begin, policy: Option<StartOffset>, backoff: Backoff) -> Self {
        let (position, read_epoch) = match begin {
            Begin::At(at) => (Position::sought(at), None),
            Begin::Committed(offset, leader_epoch) => (Position::At(offset), leader_epoch),
            Begin::ByPolicy => (Position::reset(policy, Why::NothingCommitted), None),
            Begin::New => {
                let policy = policy.map(|_| StartOffset::Earliest);
                (Position::reset(policy, Why::NothingCommitted), None)
            }
        };
        Self {
            epoch: lease.epoch,
            version: 0,
            position,
            read_epoch,
            validate: read_epoch.is_some(),
            paused: false,
            leader: None,
            leader_epoch: -1,
            preferred: None,
            topic_id: None,
            in_flight: false,
            asked: None,
            told: None,
            retry_at: None,
            backoff,
            reported: false,
            doubts: 0,
            answered: false,
            end: 0,
            held: Arc::default(),
            growth: 16,
            weight: 0,
            served: 0,
        }
    }

    /// Number of bytes of memory that the next fetch may bring.
    pub(super) fn room(&self, limits: Limits) -> usize {
        let held = self.held.load(Ordering::Acquire);
        match limits.share.saturating_sub(held) {
            0 => 0,
            left if limits.free > 0 => left.max(limits.free),
            left if held == 0 && !limits.exhausted => left,
            _ => 0,
        }
    }

    /// Whether a broker is the one to fetch it from, and it is to be fetched at all.
    pub(super) fn reads_from(&self, broker: i32) -> bool {
        self.source() == Some(broker) && !self.paused && self.position != Position::Unset
    }

    pub(super) fn is_asked_of(&self, broker: i32) -> bool {
        self.asked.is_some_and(|asked| asked.broker == broker)
    }

    /// Whether a broker's fetch session remembers it.
    pub(super) fn is_told(&self, broker: i32) -> bool {
        self.told.is_some_and(|told| told.broker == broker)
    }

    pub(super) fn on_asked(&mut self, asked: Asked) {
        self.in_flight = true;
        self.asked = Some(asked);
    }

    /// Number of bytes that wait in the log behind an offset, as far as the last response tells; `weight` stands in for a
    /// partition of which no record has come yet.
    pub(super) fn backlog(&self, offset: i64, weight: usize) -> usize {
        let records = if self.answered { self.end.saturating_sub(offset) } else { 0 };
        let weight = if self.weight > 0 { self.weight } else { weight };
        usize::try_from(records).unwrap_or(0).saturating_mul(weight)
    }

    /// The broker to send its next request to.
    pub(super) fn source(&self) -> Option<i32> {
        match (self.position, self.preferred) {
            (Position::At(_), Some((replica, _))) if !self.validate => Some(replica),
            _ => self.leader,
        }
    }

    pub(super) fn ask<T>(&self, partition: &TopicPartition, what: T) -> Ask<T> {
        let lease = Lease { partition: partition.clone(), epoch: self.epoch };
        Ask { lease, version: self.version, leader_epoch: self.leader_epoch, what }
    }

    /// Goes on somewhere else: what is under way counts for nothing.
    pub(super) fn go(&mut self, position: Position, read_epoch: Option<i32>) {
        self.version += 1;
        self.position = position;
        self.read_epoch = read_epoch;
        self.validate = false;
        self.in_flight = false;
        self.answered = false;
        self.settle();
    }

    /// All is well with it.
    pub(super) fn settle(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.reported = false;
        self.doubts = 0;
    }

    /// Both ends of the log are known of which the position was refused. It stays where it is if it is inside.
    pub(super) fn settled_doubt(
        &mut self,
        lease: &Lease,
        position: i64,
        (start, end): (i64, i64),
        policy: Option<StartOffset>,
    ) -> Sought {
        if (start..=end).contains(&position) {
            self.position = Position::At(position);
            self.doubts += 1;
            if self.doubts == DOUBTS {
                tracing::warn!(
                    partition = %lease, position, start, end,
                    "the leader refuses an offset that is inside its log: it is tried again, and nothing is skipped"
                );
            }
            return Sought::default();
        }
        self.settle();
        self.read_epoch = None;
        let new = match policy {
            None => {
                self.position = Position::Unset;
                return Sought {
                    report: Some(Why::OutOfRange(position).error(lease, start, end)),
                    ..Sought::default()
                };
            }
            Some(StartOffset::Latest) => end,
            Some(_) => start,
        };
        tracing::warn!(partition = %lease, position, new, start, end, "the position is outside the log: reading goes on at the new one");
        self.position = Position::At(new);
        Sought { at: Some(new), pin: policy == Some(StartOffset::Latest), report: None }
    }

    /// No answer before this time.
    pub(super) fn waits(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    pub(super) fn ready(&self, now: Instant) -> bool {
        !self.in_flight && self.waits(now).is_none()
    }
}
