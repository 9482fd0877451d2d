//! Where one partition stands, without I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use uuid::Uuid;

use super::planner::{FetchFrom, PartitionRequest, ResolvedOffset};
use super::source::MemoryLimits;
use crate::cluster::Backoff;
use crate::consumer::event::StartOffset;
use crate::consumer::lease::Lease;
use crate::error::{Error, ErrorKind};
use crate::record::TopicPartition;

/// How often in a row a leader may refuse an offset that is inside its log, before that is told.
const OUT_OF_RANGE_WARNING: u32 = 3;

/// Where reading a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartPosition {
    /// Where the program wants it to.
    At(StartOffset),
    /// At a committed offset; with the leader epoch of the record before it, if that was committed too.
    Committed(i64, Option<i32>),
    /// Nothing is committed: the policy decides.
    ByResetPolicy,
    /// Nothing is committed, and the partition is younger than this consumer: it was not there when the policy was applied to its topic, so
    /// `latest` begins at its start.
    NewPartition,
}

impl From<StartOffset> for StartPosition {
    fn from(at: StartOffset) -> Self {
        Self::At(at)
    }
}

impl StartPosition {
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
pub(super) enum ResetReason {
    OutOfRange(i64),
    NothingCommitted,
    /// The log was cut below the position: what is there now is not what was read. `end` is where both part, if the leader
    /// can tell.
    Truncated {
        position: i64,
        end: Option<i64>,
    },
}

impl ResetReason {
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
    Resolving {
        to: StartOffset,
        /// The offset where it was, if that can't be read.
        from: Option<i64>,
        /// Not by the program: nothing else remembers where it will be.
        by_policy: bool,
    },
    At(i64),
    /// The leader has refused the offset as outside its log. That is so for a moment after an election, too: both ends of the log are asked
    /// for, the beginning first, before anything is skipped.
    CheckingRange {
        offset: i64,
        start: Option<i64>,
    },
    /// No policy says where to go on. The program will be told with the beginning, then the end of the log, to be asked for.
    NoResetPolicy {
        why: ResetReason,
        start: Option<i64>,
    },
    /// The program has been told: it has to seek.
    AwaitingSeek,
}

impl Position {
    /// By the policy, if there is one.
    pub(super) fn reset(policy: Option<StartOffset>, why: ResetReason) -> Self {
        match policy {
            Some(to) => Self::Resolving { to, from: why.position(), by_policy: true },
            None => Self::NoResetPolicy { why, start: None },
        }
    }

    pub(super) fn start_at(to: StartOffset) -> Self {
        match to {
            StartOffset::Offset(offset) => Self::At(offset),
            to => Self::Resolving { to, from: None, by_policy: false },
        }
    }

    /// What is to be asked of the leader before reading can go on.
    pub(super) fn offset_to_list(self) -> Option<StartOffset> {
        match self {
            Self::Resolving { to, .. } => Some(to),
            Self::CheckingRange { start: None, .. } | Self::NoResetPolicy { start: None, .. } => {
                Some(StartOffset::Earliest)
            }
            Self::CheckingRange { start: Some(_), .. } | Self::NoResetPolicy { start: Some(_), .. } => {
                Some(StartOffset::Latest)
            }
            Self::At(_) | Self::AwaitingSeek => None,
        }
    }
}

/// What a fetch asked for a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentFetch {
    pub(super) broker: i32,
    /// Of the partition when it was asked.
    pub(super) position_version: u64,
    pub(super) what: FetchFrom,
}

/// What a broker's fetch session remembers of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionEntry {
    pub(super) broker: i32,
    pub(super) leader_epoch: i32,
    pub(super) what: FetchFrom,
}

#[derive(Debug)]
pub(super) struct PartitionState {
    /// Of its lease.
    pub(super) epoch: u64,
    /// Counts seeks: answers to what was asked before count for nothing.
    pub(super) position_version: u64,
    pub(super) position: Position,
    /// The leader epoch of the last record before the position, if known.
    pub(super) read_epoch: Option<i32>,
    /// Whether the leader is to be asked if what was read is still in its log (KIP-320).
    pub(super) needs_validation: bool,
    /// Not to be fetched for now.
    pub(super) paused: bool,
    pub(super) leader: Option<i32>,
    pub(super) leader_epoch: i32,
    /// The replica to fetch from instead of the leader, and until when (KIP-392).
    pub(super) preferred: Option<(i32, Instant)>,
    pub(super) topic_id: Option<Uuid>,
    pub(super) in_flight: bool,
    /// What the last fetch asked for.
    pub(super) last_fetch: Option<SentFetch>,
    /// What a broker's fetch session remembers of it.
    pub(super) session_entry: Option<SessionEntry>,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// Whether its present trouble has been told.
    pub(super) error_reported: bool,
    /// How often its position was refused as outside the log and found inside, in a row.
    pub(super) out_of_range_count: u32,
    /// Whether a fetch has been answered: an empty partition tells its end once.
    pub(super) has_response: bool,
    /// The end of what can be read, as of the last response.
    pub(super) end: i64,
    pub(super) buffered: Arc<AtomicUsize>,
    /// What a fetched byte takes in memory, in sixteenths.
    pub(super) decode_ratio_16ths: usize,
    /// Bytes of a response per offset; 0 if none has come yet.
    pub(super) bytes_per_offset: usize,
    /// When it last brought something; who waits longest is asked for first.
    pub(super) last_served: u64,
}

impl PartitionState {
    pub(super) fn new(lease: &Lease, begin: StartPosition, policy: Option<StartOffset>, backoff: Backoff) -> Self {
        let (position, read_epoch) = match begin {
            StartPosition::At(at) => (Position::start_at(at), None),
            StartPosition::Committed(offset, leader_epoch) => (Position::At(offset), leader_epoch),
            StartPosition::ByResetPolicy => (Position::reset(policy, ResetReason::NothingCommitted), None),
            StartPosition::NewPartition => {
                let policy = policy.map(|_| StartOffset::Earliest);
                (Position::reset(policy, ResetReason::NothingCommitted), None)
            }
        };
        Self {
            epoch: lease.epoch,
            position_version: 0,
            position,
            read_epoch,
            needs_validation: read_epoch.is_some(),
            paused: false,
            leader: None,
            leader_epoch: -1,
            preferred: None,
            topic_id: None,
            in_flight: false,
            last_fetch: None,
            session_entry: None,
            retry_at: None,
            backoff,
            error_reported: false,
            out_of_range_count: 0,
            has_response: false,
            end: 0,
            buffered: Arc::default(),
            decode_ratio_16ths: 16,
            bytes_per_offset: 0,
            last_served: 0,
        }
    }

    /// Number of bytes of memory that the next fetch may bring.
    pub(super) fn available_bytes(&self, limits: MemoryLimits) -> usize {
        let held = self.buffered.load(Ordering::Acquire);
        match limits.share.saturating_sub(held) {
            0 => 0,
            left if limits.free > 0 => left.max(limits.free),
            left if held == 0 && !limits.exhausted => left,
            _ => 0,
        }
    }

    /// Whether a broker is the one to fetch it from, and it is to be fetched at all.
    pub(super) fn is_fetched_from(&self, broker: i32) -> bool {
        self.source() == Some(broker) && !self.paused && self.position != Position::AwaitingSeek
    }

    pub(super) fn was_last_fetched_from(&self, broker: i32) -> bool {
        self.last_fetch.is_some_and(|asked| asked.broker == broker)
    }

    /// Whether a broker's fetch session remembers it.
    pub(super) fn is_in_session(&self, broker: i32) -> bool {
        self.session_entry.is_some_and(|told| told.broker == broker)
    }

    pub(super) fn on_fetch_sent(&mut self, asked: SentFetch) {
        self.in_flight = true;
        self.last_fetch = Some(asked);
    }

    /// Number of bytes that wait in the log behind an offset, as far as the last response tells; `bytes_per_offset` stands in for a
    /// partition of which no record has come yet.
    pub(super) fn backlog_bytes(&self, offset: i64, bytes_per_offset: usize) -> usize {
        let records = if self.has_response { self.end.saturating_sub(offset) } else { 0 };
        let bytes_per_offset = if self.bytes_per_offset > 0 { self.bytes_per_offset } else { bytes_per_offset };
        usize::try_from(records).unwrap_or(0).saturating_mul(bytes_per_offset)
    }

    /// The broker to send its next request to.
    pub(super) fn source(&self) -> Option<i32> {
        match (self.position, self.preferred) {
            (Position::At(_), Some((replica, _))) if !self.needs_validation => Some(replica),
            _ => self.leader,
        }
    }

    pub(super) fn request<T>(&self, partition: &TopicPartition, what: T) -> PartitionRequest<T> {
        let lease = Lease { partition: partition.clone(), epoch: self.epoch };
        PartitionRequest { lease, position_version: self.position_version, leader_epoch: self.leader_epoch, what }
    }

    /// Goes on somewhere else: what is under way counts for nothing.
    pub(super) fn move_to(&mut self, position: Position, read_epoch: Option<i32>) {
        self.position_version += 1;
        self.position = position;
        self.read_epoch = read_epoch;
        self.needs_validation = false;
        self.in_flight = false;
        self.has_response = false;
        self.clear_errors();
    }

    /// All is well with it.
    pub(super) fn clear_errors(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.error_reported = false;
        self.out_of_range_count = 0;
    }

    /// Both ends of the log are known of which the position was refused. It stays where it is if it is inside.
    pub(super) fn on_log_range(
        &mut self,
        lease: &Lease,
        position: i64,
        (start, end): (i64, i64),
        policy: Option<StartOffset>,
    ) -> ResolvedOffset {
        if (start..=end).contains(&position) {
            self.position = Position::At(position);
            self.out_of_range_count += 1;
            if self.out_of_range_count == OUT_OF_RANGE_WARNING {
                tracing::warn!(
                    partition = %lease, position, start, end,
                    "the leader refuses an offset that is inside its log: it is tried again, and nothing is skipped"
                );
            }
            return ResolvedOffset::default();
        }
        self.clear_errors();
        self.read_epoch = None;
        let new = match policy {
            None => {
                self.position = Position::AwaitingSeek;
                return ResolvedOffset {
                    report: Some(ResetReason::OutOfRange(position).error(lease, start, end)),
                    ..ResolvedOffset::default()
                };
            }
            Some(StartOffset::Latest) => end,
            Some(_) => start,
        };
        tracing::warn!(partition = %lease, position, new, start, end, "the position is outside the log: reading goes on at the new one");
        self.position = Position::At(new);
        ResolvedOffset { at: Some(new), must_commit: policy == Some(StartOffset::Latest), report: None }
    }

    /// No answer before this time.
    pub(super) fn backoff_until(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        !self.in_flight && self.backoff_until(now).is_none()
    }
}
