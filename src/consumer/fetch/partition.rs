//! Fetch state of one partition, without I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use uuid::Uuid;

use super::planner::{FetchFrom, PartitionRequest, ResolvedOffset};
use super::source::MemoryLimits;
use crate::cluster::Backoff;
use crate::consumer::event::StartOffset;
use crate::consumer::lease::Lease;
use crate::consumer::memory::Charge;
use crate::error::{Error, ErrorKind};
use crate::record::TopicPartition;

/// Number of times in a row that a leader may return OFFSET_OUT_OF_RANGE for an offset inside its
/// log before a warning is logged.
const OUT_OF_RANGE_WARNING: u32 = 3;

/// Position from which a partition is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartPosition {
    /// The one that the application chose.
    At(StartOffset),
    /// A committed offset, with the leader epoch of the record before it if that was committed too.
    Committed(i64, Option<i32>),
    /// No committed offset: the reset policy decides.
    ByResetPolicy,
    /// No committed offset, and the partition was created after this consumer had applied the
    /// policy to its topic: `latest` means its start.
    NewPartition,
}

impl From<StartOffset> for StartPosition {
    fn from(at: StartOffset) -> Self {
        Self::At(at)
    }
}

impl StartPosition {
    /// Returns the offset, if it is known.
    pub(crate) fn offset(self) -> Option<i64> {
        match self {
            Self::At(StartOffset::Offset(offset)) | Self::Committed(offset, _) => Some(offset),
            _ => None,
        }
    }
}

/// Reason to apply the reset policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetReason {
    OutOfRange(i64),
    NothingCommitted,
    /// The log was truncated below the position: its records are no longer those that were read.
    /// `end` is where the two logs diverge, if the leader reports it.
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

    /// Returns the error for an application without a reset policy.
    pub(super) fn error(self, partition: &Lease, start: i64, end: i64) -> Error {
        let what = match self {
            Self::OutOfRange(offset) => format!("offset {offset} of {partition} is not in its log"),
            Self::NothingCommitted => format!("the group has committed no offset of {partition}"),
            Self::Truncated { position, end: Some(end) } => format!(
                "the log of {partition} was truncated to offset {end} and written again, after it was read up to offset {position}"
            ),
            Self::Truncated { position, end: None } => {
                format!(
                    "the log of {partition} was truncated and written again, after it was read up to offset {position}"
                )
            }
        };
        let what = format!(
            "{what}, which begins at {start} and ends at {end}: it is not read further, since ConsumerConfig::offset_reset is none; seek to an \
             offset of it, or set it to earliest or latest"
        );
        Error::new(ErrorKind::OffsetOutOfRange, what)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// To be resolved by ListOffsets.
    Resolving {
        to: StartOffset,
        /// Previous offset, if it was out of range.
        from: Option<i64>,
        /// True if the reset policy chose it: nothing else remembers the resolved offset.
        by_policy: bool,
    },
    At(i64),
    /// The leader returned OFFSET_OUT_OF_RANGE, which is transient after an election: both ends of
    /// the log are listed, the beginning first, before anything is skipped.
    CheckingRange {
        offset: i64,
        start: Option<i64>,
    },
    /// No policy applies. Both ends of the log are listed, the beginning first, for the error that
    /// the application gets.
    NoResetPolicy {
        why: ResetReason,
        start: Option<i64>,
    },
    /// The application has got the error and has to seek.
    AwaitingSeek,
}

impl Position {
    /// Returns the position by the policy, if there is one.
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

    /// Returns the offset to list before fetching can go on.
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

/// A partition of the last fetch request that named it, or polled it through a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentFetch {
    pub(super) broker: i32,
    /// Version of the position in that request.
    pub(super) position_version: u64,
    pub(super) what: FetchFrom,
}

/// A partition of a broker's fetch session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionEntry {
    pub(super) broker: i32,
    pub(super) leader_epoch: i32,
    pub(super) what: FetchFrom,
}

/// Records fetched from a partition.
#[derive(Debug, Default)]
pub(crate) struct FetchedPartition {
    /// The next position.
    pub(crate) next: i64,
    /// End of the readable log.
    pub(crate) end: i64,
    /// Leader epoch of the last record.
    pub(crate) leader_epoch: Option<i32>,
    /// Bytes on the wire.
    pub(crate) wire: usize,
    /// Bytes of memory that the records take.
    pub(crate) memory: usize,
    /// Charge for the response that the records are slices of, and how much of `memory` it covers.
    pub(crate) response: Option<(Arc<Charge>, usize)>,
    /// True if the bytes after them are corrupt.
    pub(crate) corrupt: bool,
}

#[derive(Debug)]
pub(super) struct PartitionState {
    /// Epoch of its lease.
    pub(super) epoch: u64,
    /// Number of moves of the position: responses to requests from before the last one are ignored.
    pub(super) position_version: u64,
    pub(super) position: Position,
    /// Leader epoch of the last record before the position, if known.
    pub(super) read_epoch: Option<i32>,
    /// True if the leader must confirm that its log still holds what was read (KIP-320).
    pub(super) needs_validation: bool,
    pub(super) paused: bool,
    pub(super) leader: Option<i32>,
    pub(super) leader_epoch: i32,
    /// Replica to fetch from instead of the leader, and until when (KIP-392).
    pub(super) preferred: Option<(i32, Instant)>,
    pub(super) topic_id: Option<Uuid>,
    pub(super) in_flight: bool,
    pub(super) last_fetch: Option<SentFetch>,
    /// Its entry in a broker's fetch session.
    pub(super) session_entry: Option<SessionEntry>,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// True if the present error was reported.
    pub(super) error_reported: bool,
    /// Number of OFFSET_OUT_OF_RANGE responses in a row for an offset inside the log.
    pub(super) out_of_range_count: u32,
    /// True after the first response: the end of an empty partition is reported once.
    pub(super) has_response: bool,
    /// End of the readable log as of the last response.
    pub(super) end: i64,
    /// Bytes of memory that its records take.
    pub(super) buffered: Arc<AtomicUsize>,
    /// Memory per fetched byte, in sixteenths.
    pub(super) decode_ratio_16ths: usize,
    /// Bytes on the wire per offset; 0 before the first records.
    pub(super) bytes_per_offset: usize,
    /// Number of the fetch that last brought records; the lowest is fetched first.
    pub(super) last_served: u64,
}

impl PartitionState {
    pub(super) fn new(lease: &Lease, start: StartPosition, policy: Option<StartOffset>, backoff: Backoff) -> Self {
        let (position, read_epoch) = match start {
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

    /// Returns the bytes of memory that the next fetch may bring.
    pub(super) fn available_bytes(&self, limits: MemoryLimits) -> usize {
        let buffered = self.buffered.load(Ordering::Acquire);
        match limits.share.saturating_sub(buffered) {
            0 => 0,
            left if limits.free > 0 => left.max(limits.free),
            left if buffered == 0 && !limits.exhausted => left,
            _ => 0,
        }
    }

    /// Returns whether it is fetched, and from this broker.
    pub(super) fn is_fetched_from(&self, broker: i32) -> bool {
        self.source() == Some(broker) && !self.paused && self.position != Position::AwaitingSeek
    }

    pub(super) fn was_last_fetched_from(&self, broker: i32) -> bool {
        self.last_fetch.is_some_and(|fetch| fetch.broker == broker)
    }

    /// Returns whether it is in a broker's fetch session.
    pub(super) fn is_in_session(&self, broker: i32) -> bool {
        self.session_entry.is_some_and(|entry| entry.broker == broker)
    }

    pub(super) fn on_fetch_sent(&mut self, fetch: SentFetch) {
        self.in_flight = true;
        self.last_fetch = Some(fetch);
    }

    /// Returns the bytes in the log after an offset as of the last response; `bytes_per_offset` is
    /// the estimate for a partition without records yet.
    pub(super) fn backlog_bytes(&self, offset: i64, bytes_per_offset: usize) -> usize {
        let records = if self.has_response { self.end.saturating_sub(offset) } else { 0 };
        let bytes_per_offset = if self.bytes_per_offset > 0 { self.bytes_per_offset } else { bytes_per_offset };
        usize::try_from(records).unwrap_or(0).saturating_mul(bytes_per_offset)
    }

    /// Returns the broker that its next request is sent to.
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

    /// Moves the position. Responses in flight are ignored.
    pub(super) fn move_to(&mut self, position: Position, read_epoch: Option<i32>) {
        self.position_version += 1;
        self.position = position;
        self.read_epoch = read_epoch;
        self.needs_validation = false;
        self.in_flight = false;
        self.has_response = false;
        self.clear_errors();
    }

    pub(super) fn clear_errors(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.error_reported = false;
        self.out_of_range_count = 0;
    }

    /// Handles both ends of the log after OFFSET_OUT_OF_RANGE: the position stays if it is inside,
    /// else the policy applies.
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
                    "the leader returns OFFSET_OUT_OF_RANGE for an offset inside its log: the fetch is retried, nothing is skipped"
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
        tracing::warn!(partition = %lease, position, new, start, end, "the position is outside the log: it is moved by offset_reset");
        self.position = Position::At(new);
        ResolvedOffset { at: Some(new), must_commit: policy == Some(StartOffset::Latest), report: None }
    }

    /// Returns the end of the backoff, if it is not over.
    pub(super) fn backoff_until(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        !self.in_flight && self.backoff_until(now).is_none()
    }
}
