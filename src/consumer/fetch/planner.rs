//! What to fetch next from which broker: positions, leaders, budgets and waits of the assigned partitions, without I/O.
//!
//! Partitions come and go one by one while the others are read on. An answer to what was asked under another lease than the
//! present one counts for nothing.
//!
//! What a fetch names, and how much it may bring, is decided in [`source`](super::source).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::partition::{PartitionState, Position, ResetReason, StartPosition};
use super::source::{FetchPlan, MemoryLimits, Source};
use crate::cluster::{Backoff, Snapshot};
use crate::code;
use crate::config::ConsumerConfig;
use crate::consumer::event::{StartOffset, start};
use crate::consumer::lease::Lease;
use crate::consumer::memory::{Budget, Charge, RecordMemory};
use crate::error::{Error, ErrorKind, code_name, kind_of};
use crate::failure::is_final_code;
use crate::record::TopicPartition;

/// A partition to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRequest<T> {
    pub(crate) lease: Lease,
    /// Counts the seeks before it.
    pub(crate) position_version: u64,
    pub(crate) leader_epoch: i32,
    pub(crate) what: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchFrom {
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
}

/// Whether a log still holds what was read before `offset`, whose last record was of leader epoch `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PositionCheck {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
}

/// What to do for a broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    ListOffsets(Vec<PartitionRequest<StartOffset>>),
    Validate(Vec<PartitionRequest<PositionCheck>>),
    Fetch(FetchPlan),
    /// Nothing before this time or the next change.
    Wait(Option<Instant>),
    /// It leads nothing of ours any more.
    Stop,
}

/// What a refusal asks for.
#[derive(Debug, Default)]
pub(crate) struct FetchError {
    /// The metadata may be stale.
    pub(crate) refresh: bool,
    /// To be told to the program.
    pub(crate) report: Option<Error>,
}

/// What came of an offset that was asked for.
#[derive(Debug, Default)]
pub(crate) struct ResolvedOffset {
    /// Where reading goes on.
    pub(crate) at: Option<i64>,
    /// Whether nothing else remembers that offset: it is the end of the log, by policy.
    pub(crate) must_commit: bool,
    /// To be told to the program.
    pub(crate) report: Option<Error>,
}

/// What new metadata ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderChanges {
    /// Brokers that lead something of ours and that no one fetches from yet.
    pub(crate) new_brokers: Vec<i32>,
    /// Whether something has no leader: ask again.
    pub(crate) leaderless: bool,
    /// Partitions that do not exist, for the first time.
    pub(crate) missing: Vec<Lease>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct FetchPlanner {
    pub(super) partitions: BTreeMap<TopicPartition, PartitionState>,
    pub(super) budget: Budget,
    /// Maximum size of a partition's part of a response, and of a response.
    pub(super) fetch_bytes: usize,
    pub(super) max_bytes: usize,
    /// Maximum time that a broker may wait for records.
    pub(super) max_wait: Duration,
    reset_policy: Option<StartOffset>,
    backoff: Backoff,
    /// The brokers that a task fetches from.
    pub(super) sources: BTreeMap<i32, Source>,
    fetch_count: u64,
    /// Bytes per offset of the last response that brought records.
    pub(super) bytes_per_offset: usize,
}

impl FetchPlanner {
    pub(crate) fn new(config: &ConsumerConfig, backoff: Backoff, returned: Arc<Notify>) -> Self {
        Self {
            partitions: BTreeMap::new(),
            budget: Budget::new(config.prefetch_bytes, returned),
            fetch_bytes: config.partition_fetch_bytes,
            max_bytes: config.fetch_max_bytes,
            max_wait: config.fetch_max_wait,
            reset_policy: start(config.offset_reset),
            backoff,
            sources: BTreeMap::new(),
            fetch_count: 0,
            bytes_per_offset: 0,
        }
    }

    /// From now on these are read too; they have no leader before [`apply_metadata`](Self::apply_metadata).
    pub(crate) fn add(&mut self, partitions: impl IntoIterator<Item = (Lease, impl Into<StartPosition>)>) {
        for (lease, begin) in partitions {
            let state = PartitionState::new(&lease, begin.into(), self.reset_policy, self.backoff.clone());
            self.partitions.insert(lease.partition, state);
        }
    }

    /// From now on these are not read any more.
    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            let told = self.partitions.remove(p).and_then(|state| state.session_entry);
            if let Some(source) = told.and_then(|told| self.sources.get_mut(&told.broker)) {
                source.forget(p.clone());
            }
        }
    }

    pub(super) fn limits(&self) -> MemoryLimits {
        let share = (self.budget.limit() / self.partitions.len().max(1)).max(1);
        MemoryLimits { share, free: self.budget.free(), exhausted: self.budget.is_exhausted() }
    }

    /// The partition, if the lease is the one under which it is read.
    fn state(&mut self, lease: &Lease) -> Option<&mut PartitionState> {
        self.partitions.get_mut(&lease.partition).filter(|state| state.epoch == lease.epoch)
    }

    /// Takes the leaders from new metadata. Positions stay, but for a topic that was deleted and created again: that is
    /// another log, to be read from its beginning.
    pub(crate) fn apply_metadata(&mut self, snapshot: &Snapshot) -> LeaderChanges {
        let mut changes = LeaderChanges::default();
        for (p, state) in &mut self.partitions {
            let topic = snapshot.topics.get(&p.topic);
            let meta = topic.and_then(|t| t.partition(p.partition));
            let Some((topic, meta)) = topic.zip(meta) else {
                let known_missing =
                    topic.is_some() || snapshot.failed.get(&p.topic) == Some(&code::UNKNOWN_TOPIC_OR_PARTITION);
                if known_missing && !state.error_reported {
                    state.error_reported = true;
                    changes.missing.push(Lease { partition: p.clone(), epoch: state.epoch });
                }
                state.leader = None;
                changes.leaderless = true;
                continue;
            };
            if state.topic_id.is_some() && topic.id.is_some() && state.topic_id != topic.id {
                tracing::warn!(partition = %p, "the topic was created anew: it is read from its beginning");
                state.move_to(Position::start_at(StartOffset::Earliest), None);
            }
            state.topic_id = topic.id.or(state.topic_id);
            state.preferred = state.preferred.filter(|(replica, _)| snapshot.brokers.contains_key(replica));
            if state.leader != meta.leader || state.leader_epoch != meta.leader_epoch {
                state.retry_at = None;
                state.preferred = None;
                // The new leader's log may not hold what was read.
                state.needs_validation |= state.leader_epoch >= 0 && state.read_epoch.is_some();
                // The old leader may never answer. If it does, whichever answer comes first moves the position, and the
                // other one is to an old question.
                state.in_flight = false;
            }
            state.leader = meta.leader;
            state.leader_epoch = meta.leader_epoch;
            changes.leaderless |= meta.leader.is_none();
        }
        changes.new_brokers = self.take_new_brokers();
        changes
    }

    /// Brokers that something is to be asked of and that no one asks yet.
    pub(crate) fn take_new_brokers(&mut self) -> Vec<i32> {
        let wanted: BTreeSet<_> = self.partitions.values().filter_map(PartitionState::source).collect();
        let new: Vec<_> = wanted.into_iter().filter(|broker| !self.sources.contains_key(broker)).collect();
        self.sources.extend(new.iter().map(|broker| (*broker, Source::default())));
        new
    }

    /// What to do next for a broker. What is asked for counts as under way until it is answered or given back.
    pub(crate) fn plan(&mut self, broker: i32, now: Instant) -> Plan {
        let (mut leads, mut seeks, mut validations) = (false, Vec::new(), Vec::new());
        for (name, state) in self.partitions.iter_mut().filter(|(_, state)| state.source() == Some(broker)) {
            leads = true;
            if !state.is_ready(now) {
                continue;
            }
            if let Some(to) = state.position.offset_to_list() {
                (state.in_flight, state.last_fetch) = (true, None);
                seeks.push(state.request(name, to));
            } else if let (Position::At(offset), Some(epoch), true) =
                (state.position, state.read_epoch, state.needs_validation)
            {
                validations.push(state.request(name, PositionCheck { offset, epoch }));
            }
        }
        if !leads {
            if let Some(mut source) = self.sources.remove(&broker) {
                source.on_fetch_done(&mut self.budget);
            }
            return Plan::Stop;
        }
        if !seeks.is_empty() {
            return Plan::ListOffsets(seeks);
        }
        if !validations.is_empty() {
            for request in &validations {
                if let Some(state) = self.state(&request.lease) {
                    (state.in_flight, state.last_fetch) = (true, None);
                }
            }
            return Plan::Validate(validations);
        }
        self.plan_fetch(broker, now)
    }

    /// Reads on somewhere else. What is under way counts for nothing, see [`is_current`](Self::is_current).
    pub(crate) fn seek(&mut self, lease: &Lease, to: StartOffset) {
        if let Some(state) = self.state(lease) {
            state.move_to(Position::start_at(to), None);
        }
    }

    /// Number of bytes of memory that records of a partition which are here already may take.
    pub(crate) fn available_bytes(&mut self, lease: &Lease) -> usize {
        let MemoryLimits { share, free, exhausted } = self.limits();
        match self.state(lease) {
            Some(_) if free > 0 => free,
            Some(state) if !exhausted && state.buffered.load(Ordering::Acquire) == 0 => share,
            _ => 0,
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether nothing was sought since this was asked.
    pub(crate) fn is_current<T>(&mut self, request: &PartitionRequest<T>) -> bool {
        self.state(&request.lease).is_some_and(|state| state.position_version == request.position_version)
    }

    /// Fetches these no more, or again. What is under way still comes.
    pub(crate) fn pause(&mut self, leases: &[Lease], paused: bool) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                state.paused = paused;
            }
        }
    }

    /// The leader wants this partition to be fetched from another replica for a while.
    pub(crate) fn set_preferred_replica(&mut self, lease: &Lease, replica: i32, until: Instant) {
        if let Some(state) = self.state(lease) {
            state.in_flight = false;
            state.preferred = Some((replica, until)).filter(|_| state.leader != Some(replica));
        }
    }

    /// A replica that is not the leader could not serve this: back to the leader, after a wait, for it may name that replica
    /// again. Whether it was one.
    pub(crate) fn drop_preferred_replica(&mut self, lease: &Lease, replica: i32, now: Instant) -> bool {
        let Some(state) = self.state(lease) else { return false };
        let left = state.preferred.is_some_and(|(preferred, _)| preferred == replica);
        if left {
            state.preferred = None;
            state.in_flight = false;
            state.retry_at = Some(now + state.backoff.next());
        }
        left
    }

    /// Preferred replicas whose time has passed: back to the leader, which may know a better one by now. Whether there were any.
    pub(crate) fn expire_preferred_replicas(&mut self, now: Instant) -> bool {
        let mut any = false;
        for state in self.partitions.values_mut().filter(|p| p.preferred.is_some_and(|(_, until)| until <= now)) {
            state.preferred = None;
            any = true;
        }
        any
    }

    /// No leader can tell whether what was read is still there: it is believed to be.
    pub(crate) fn skip_validation<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                (state.needs_validation, state.in_flight) = (false, false);
            }
        }
    }

    /// The leader's log of the leader epoch that was asked for ends at `end`, or was never heard of. Gives the offset from
    /// which on what was read is not in the log any more, if the policy is to go on from there.
    pub(crate) fn on_validated(&mut self, lease: &Lease, asked: PositionCheck, end: Option<i64>) -> Option<i64> {
        let reset = self.reset_policy;
        let state = self.state(lease)?;
        state.in_flight = false;
        if state.position != Position::At(asked.offset) || state.read_epoch != Some(asked.epoch) {
            return None;
        }
        state.needs_validation = false;
        match end {
            Some(end) if end >= asked.offset => None,
            Some(end) if reset.is_some() => Some(end),
            end => {
                let why = ResetReason::Truncated { position: asked.offset, end };
                tracing::warn!(partition = %lease, position = asked.offset, "the log was cut below the position");
                state.move_to(Position::reset(reset, why), None);
                None
            }
        }
    }

    /// No answer came: all of it may be asked for again.
    pub(crate) fn clear_in_flight<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                state.in_flight = false;
            }
        }
    }

    /// The offset that was asked for, with the leader epoch of its record, if the leader tells.
    pub(crate) fn on_offset_resolved(
        &mut self,
        lease: &Lease,
        asked: StartOffset,
        offset: i64,
        epoch: Option<i32>,
    ) -> ResolvedOffset {
        let reset = self.reset_policy;
        let Some(state) = self.state(lease) else { return ResolvedOffset::default() };
        state.in_flight = false;
        if state.position.offset_to_list() != Some(asked) {
            return ResolvedOffset::default();
        }
        match state.position {
            Position::Resolving { from, by_policy, .. } if offset < 0 => {
                // No record has that timestamp or a later one: what comes next will.
                state.position = Position::Resolving { to: StartOffset::Latest, from, by_policy };
                ResolvedOffset::default()
            }
            Position::Resolving { to, from, by_policy } => {
                state.clear_errors();
                state.position = Position::At(offset);
                state.read_epoch = epoch;
                if let Some(from) = from {
                    tracing::warn!(partition = %lease, position = from, new = offset, "the position is outside the log: reading goes on at the new one");
                }
                // By `latest` whoever reads the partition next would begin elsewhere.
                let must_commit = by_policy && (to == StartOffset::Latest || reset == Some(StartOffset::Latest));
                ResolvedOffset { at: Some(offset), must_commit, report: None }
            }
            Position::CheckingRange { offset: position, start: None } => {
                state.position = Position::CheckingRange { offset: position, start: Some(offset) };
                ResolvedOffset::default()
            }
            Position::CheckingRange { offset: position, start: Some(start) } => {
                state.on_log_range(lease, position, (start, offset), reset)
            }
            Position::NoResetPolicy { why, start: None } => {
                state.position = Position::NoResetPolicy { why, start: Some(offset) };
                ResolvedOffset::default()
            }
            Position::NoResetPolicy { why, start: Some(start) } => {
                state.clear_errors();
                state.position = Position::AwaitingSeek;
                ResolvedOffset { report: Some(why.error(lease, start, offset)), ..ResolvedOffset::default() }
            }
            Position::At(_) | Position::AwaitingSeek => ResolvedOffset::default(),
        }
    }

    /// Records have come for what was asked from `offset`; reading goes on at `next`. Gives what keeps the program's share in
    /// the books, and whether there is something to tell; nothing if the answer is to an old question.
    pub(crate) fn on_fetched(
        &mut self,
        lease: &Lease,
        now: Instant,
        offset: i64,
        fetched: FetchedPartition,
    ) -> Option<(RecordMemory, bool)> {
        let (turn, mut bytes_per_offset) = (self.fetch_count + 1, self.bytes_per_offset);
        let state = self.state(lease)?;
        state.in_flight = false;
        if state.position != Position::At(offset) {
            return None;
        }
        state.position = Position::At(fetched.next);
        state.read_epoch = fetched.leader_epoch.or(state.read_epoch);
        let tell = fetched.next > offset || !state.has_response;
        state.has_response = true;
        state.end = fetched.end;
        if fetched.wire > 0 && fetched.next == offset {
            state.retry_at = Some(now + state.backoff.next()); // damaged, or nothing that was asked for: not at once again
        } else if !fetched.corrupt {
            state.clear_errors();
        }
        if let Some(ratio) = (fetched.memory * 16).checked_div(fetched.wire) {
            state.last_served = turn;
            state.decode_ratio_16ths = ratio.clamp(16, 16 << 10);
            let offsets = usize::try_from(fetched.next - offset).unwrap_or(0);
            bytes_per_offset = fetched.wire.checked_div(offsets).unwrap_or(bytes_per_offset);
            state.bytes_per_offset = bytes_per_offset;
        }
        let held = Arc::clone(&state.buffered);
        (self.fetch_count, self.bytes_per_offset) = (turn, bytes_per_offset);
        Some((RecordMemory::new(&self.budget, &held, fetched.memory, fetched.response), tell))
    }

    /// The partition was refused with an error code.
    pub(crate) fn on_error(&mut self, lease: &Lease, now: Instant, code: i16, doing: &str) -> FetchError {
        let Some(state) = self.state(lease) else { return FetchError::default() };
        state.in_flight = false;
        if let (code::OFFSET_OUT_OF_RANGE, Position::At(offset)) = (code, state.position) {
            state.position = Position::CheckingRange { offset, start: None };
            if state.out_of_range_count > 0 {
                state.retry_at = Some(now + state.backoff.next());
            }
            return FetchError { refresh: true, report: None };
        }
        state.retry_at = Some(now + state.backoff.next());
        // Damage is told, for nothing is skipped; and what somebody has to mend.
        let told = code == code::CORRUPT_MESSAGE || is_final_code(code) || kind_of(code) == ErrorKind::Authorization;
        let passing = !told;
        tracing::debug!(partition = %lease, error = code_name(code), "{doing} was refused; it is tried again");
        FetchError {
            refresh: passing,
            report: (!passing && !std::mem::replace(&mut state.error_reported, true))
                .then(|| Error::broker(code, format_args!("{doing} {lease}; it is tried again"))),
        }
    }

    /// What follows the position is corrupt: asked for again, later. Whether that is news.
    pub(crate) fn on_corrupt(&mut self, lease: &Lease) -> bool {
        let Some(state) = self.state(lease) else { return false };
        !std::mem::replace(&mut state.error_reported, true)
    }

    /// Each partition with the broker that it waits for; none if it has no leader.
    pub(crate) fn partition_sources(&self) -> Vec<(TopicPartition, Option<i32>)> {
        self.partitions.iter().map(|(p, state)| (p.clone(), state.source())).collect()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }
}

/// What a fetch has brought of a partition.
#[derive(Debug, Default)]
pub(crate) struct FetchedPartition {
    pub(crate) next: i64,
    /// The end of what can be read.
    pub(crate) end: i64,
    /// Of the last record that was passed.
    pub(crate) leader_epoch: Option<i32>,
    /// Bytes on the wire.
    pub(crate) wire: usize,
    /// Bytes that stay in memory as long as the records are there.
    pub(crate) memory: usize,
    /// The response that the records are slices of, and how much of `memory` it covers.
    pub(crate) response: Option<(Arc<Charge>, usize)>,
    /// What follows can't be read.
    pub(crate) corrupt: bool,
}

#[cfg(test)]
pub(super) mod tests;
