//! Decides what to fetch next from which broker: positions, leaders, memory and backoff of the
//! assigned partitions, without I/O.
//!
//! Partitions are added and removed while the others are fetched. A response to a request under
//! another lease than the present one is ignored.
//!
//! [`source`](super::source) decides what a fetch names, and how much it may bring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::partition::{FetchedPartition, PartitionState, Position, ResetReason, StartPosition};
use super::source::{FetchPlan, MemoryLimits, Source};
use crate::cluster::{Backoff, Snapshot};
use crate::code;
use crate::config::ConsumerConfig;
use crate::consumer::event::{StartOffset, start};
use crate::consumer::lease::Lease;
use crate::consumer::memory::{Budget, RecordMemory};
use crate::error::{Error, ErrorKind, code_name, kind_of};
use crate::failure::is_fatal_code;
use crate::record::TopicPartition;

/// A partition in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRequest<T> {
    pub(crate) lease: Lease,
    /// Version of the position, to recognise a response that a seek has overtaken.
    pub(crate) position_version: u64,
    pub(crate) leader_epoch: i32,
    pub(crate) what: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchFrom {
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
}

/// Question whether a log still holds what was read before `offset`, whose last record has leader
/// epoch `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PositionCheck {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
}

/// Next step for a broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    ListOffsets(Vec<PartitionRequest<StartOffset>>),
    Validate(Vec<PartitionRequest<PositionCheck>>),
    Fetch(FetchPlan),
    /// Nothing before this time or the next change.
    Wait(Option<Instant>),
    /// No partition is fetched from it.
    Stop,
}

/// Consequence of an error code.
#[derive(Debug, Default)]
pub(crate) struct FetchError {
    /// True if the metadata may be stale.
    pub(crate) refresh: bool,
    /// Error for the application.
    pub(crate) report: Option<Error>,
}

/// Consequence of an offset from ListOffsets.
#[derive(Debug, Default)]
pub(crate) struct ResolvedOffset {
    /// The new position.
    pub(crate) at: Option<i64>,
    /// True if nothing else remembers that offset: it is the end of the log, by policy.
    pub(crate) must_commit: bool,
    /// Error for the application.
    pub(crate) report: Option<Error>,
}

/// Consequences of new metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderChanges {
    /// Brokers that partitions are to be fetched from and that have no fetch task.
    pub(crate) new_brokers: Vec<i32>,
    /// True if a partition has no leader: the metadata must be refreshed.
    pub(crate) leaderless: bool,
    /// Partitions that do not exist, each reported once.
    pub(crate) missing: Vec<Lease>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct FetchPlanner {
    pub(super) partitions: BTreeMap<TopicPartition, PartitionState>,
    pub(super) budget: Budget,
    /// Maximum size of a partition's part of a response.
    pub(super) fetch_bytes: usize,
    /// Maximum size of a response.
    pub(super) max_bytes: usize,
    /// Maximum time that a broker may wait for records.
    pub(super) max_wait: Duration,
    reset_policy: Option<StartOffset>,
    /// Part of the names of topics whose policy is `earliest`.
    earliest_topics: Option<String>,
    backoff: Backoff,
    /// Brokers that have a fetch task.
    pub(super) sources: BTreeMap<i32, Source>,
    /// Number of fetched partitions that brought records.
    fetch_count: u64,
    /// Bytes per offset of the last response with records.
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
            earliest_topics: config.earliest_topics.clone(),
            backoff,
            sources: BTreeMap::new(),
            fetch_count: 0,
            bytes_per_offset: 0,
        }
    }

    /// Adds partitions; they have no leader before [`apply_metadata`](Self::apply_metadata).
    pub(crate) fn add(&mut self, partitions: impl IntoIterator<Item = (Lease, impl Into<StartPosition>)>) {
        for (lease, start) in partitions {
            let reset = self.reset_policy(&lease.partition);
            let state = PartitionState::new(&lease, start.into(), reset, self.backoff.clone());
            self.partitions.insert(lease.partition, state);
        }
    }

    fn reset_policy(&self, partition: &TopicPartition) -> Option<StartOffset> {
        let is_earliest = self.earliest_topics.as_ref().is_some_and(|part| partition.topic.contains(&**part));
        if is_earliest { Some(StartOffset::Earliest) } else { self.reset_policy }
    }

    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            let entry = self.partitions.remove(p).and_then(|state| state.session_entry);
            if let Some(source) = entry.and_then(|entry| self.sources.get_mut(&entry.broker)) {
                source.forget(p.clone());
            }
        }
    }

    pub(super) fn limits(&self) -> MemoryLimits {
        let share = (self.budget.limit() / self.partitions.len().max(1)).max(1);
        MemoryLimits { share, free: self.budget.free(), exhausted: self.budget.is_exhausted() }
    }

    /// Returns the state of a partition, if it is read under this lease.
    fn state(&mut self, lease: &Lease) -> Option<&mut PartitionState> {
        self.partitions.get_mut(&lease.partition).filter(|state| state.epoch == lease.epoch)
    }

    /// Takes over the leaders. Positions stay, unless a topic was deleted and created again: its
    /// new log is read from the beginning.
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
                tracing::warn!(partition = %p, "the topic was deleted and created again: it is read from its beginning");
                state.move_to(Position::start_at(StartOffset::Earliest), None);
            }
            state.topic_id = topic.id.or(state.topic_id);
            state.preferred = state.preferred.filter(|(replica, _)| snapshot.brokers.contains_key(replica));
            if state.leader != meta.leader || state.leader_epoch != meta.leader_epoch {
                state.retry_at = None;
                state.preferred = None;
                // The new leader's log may be shorter than what was read.
                state.needs_validation |= state.leader_epoch >= 0 && state.read_epoch.is_some();
                // 1. A fetch from offset 5 is in flight at the old leader, which may never respond.
                // 2. The new leader gets a fetch from 5, too.
                // 3. Whichever response comes first moves the position; the other one does not start at it and is ignored.
                state.in_flight = false;
            }
            state.leader = meta.leader;
            state.leader_epoch = meta.leader_epoch;
            changes.leaderless |= meta.leader.is_none();
        }
        changes.new_brokers = self.take_new_brokers();
        changes
    }

    /// Returns the brokers to fetch from that have no fetch task, and counts on the caller to start
    /// it.
    pub(crate) fn take_new_brokers(&mut self) -> Vec<i32> {
        let wanted: BTreeSet<_> = self.partitions.values().filter_map(PartitionState::source).collect();
        let new: Vec<_> = wanted.into_iter().filter(|broker| !self.sources.contains_key(broker)).collect();
        self.sources.extend(new.iter().map(|broker| (*broker, Source::default())));
        new
    }

    /// Plans the next step for a broker; which partitions a fetch names is decided by
    /// [`plan_fetch`](Self::plan_fetch). Partitions in it count as in flight until their response
    /// or [`clear_in_flight`](Self::clear_in_flight).
    pub(crate) fn plan(&mut self, broker: i32, now: Instant) -> Plan {
        let (mut is_source, mut seeks, mut validations) = (false, Vec::new(), Vec::new());
        for (name, state) in self.partitions.iter_mut().filter(|(_, state)| state.source() == Some(broker)) {
            is_source = true;
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
        if !is_source {
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

    /// Moves a position. Responses in flight are ignored: on arrival by
    /// [`current_request`](Self::current_request), and by [`is_current`](Self::is_current) if they
    /// are being decoded.
    pub(crate) fn seek(&mut self, lease: &Lease, to: StartOffset) {
        if let Some(state) = self.state(lease) {
            state.move_to(Position::start_at(to), None);
        }
    }

    /// Returns the bytes of memory that fetched records of a partition may take.
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

    /// Returns whether the position has not moved since this request.
    pub(crate) fn is_current<T>(&mut self, request: &PartitionRequest<T>) -> bool {
        self.state(&request.lease).is_some_and(|state| state.position_version == request.position_version)
    }

    /// Pauses or resumes partitions. Responses in flight still count.
    pub(crate) fn pause(&mut self, leases: &[Lease], paused: bool) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                state.paused = paused;
            }
        }
    }

    /// Fetches a partition from the replica that its leader prefers, until a time.
    pub(crate) fn set_preferred_replica(&mut self, lease: &Lease, replica: i32, until: Instant) {
        if let Some(state) = self.state(lease) {
            state.in_flight = false;
            state.preferred = Some((replica, until)).filter(|_| state.leader != Some(replica));
        }
    }

    /// Goes back to the leader from a replica that has failed, after a backoff, since the leader
    /// may prefer the same one again. Returns whether the replica was the preferred one.
    pub(crate) fn drop_preferred_replica(&mut self, lease: &Lease, replica: i32, now: Instant) -> bool {
        let Some(state) = self.state(lease) else { return false };
        let dropped = state.preferred.is_some_and(|(preferred, _)| preferred == replica);
        if dropped {
            state.preferred = None;
            state.in_flight = false;
            state.retry_at = Some(now + state.backoff.next());
        }
        dropped
    }

    /// Goes back to the leader, which may prefer another replica by now, from replicas whose time
    /// is over. Returns whether there were any.
    pub(crate) fn expire_preferred_replicas(&mut self, now: Instant) -> bool {
        let mut any = false;
        for state in self.partitions.values_mut().filter(|p| p.preferred.is_some_and(|(_, until)| until <= now)) {
            state.preferred = None;
            any = true;
        }
        any
    }

    /// Accepts positions without validation, where no leader can validate them.
    pub(crate) fn skip_validation<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                (state.needs_validation, state.in_flight) = (false, false);
            }
        }
    }

    /// Handles the end offset of a leader epoch; none if the leader does not know the epoch.
    /// Returns the offset from which on the log differs from what was read, if the position is to
    /// be moved there.
    pub(crate) fn on_validated(&mut self, lease: &Lease, requested: PositionCheck, end: Option<i64>) -> Option<i64> {
        let reset = self.reset_policy(&lease.partition);
        let state = self.state(lease)?;
        state.in_flight = false;
        if state.position != Position::At(requested.offset) || state.read_epoch != Some(requested.epoch) {
            return None;
        }
        state.needs_validation = false;
        match end {
            Some(end) if end >= requested.offset => None,
            Some(end) if reset.is_some() => Some(end),
            end => {
                let why = ResetReason::Truncated { position: requested.offset, end };
                tracing::warn!(partition = %lease, position = requested.offset, "the log was truncated below the position");
                state.move_to(Position::reset(reset, why), None);
                None
            }
        }
    }

    /// Allows partitions without a response to be requested again.
    pub(crate) fn clear_in_flight<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(state) = self.state(lease) {
                state.in_flight = false;
            }
        }
    }

    /// Handles an offset from ListOffsets, with the leader epoch of its record if the leader reports it.
    pub(crate) fn on_offset_resolved(
        &mut self,
        lease: &Lease,
        requested: StartOffset,
        offset: i64,
        epoch: Option<i32>,
    ) -> ResolvedOffset {
        let reset = self.reset_policy(&lease.partition);
        let Some(state) = self.state(lease) else { return ResolvedOffset::default() };
        state.in_flight = false;
        if state.position.offset_to_list() != Some(requested) {
            return ResolvedOffset::default();
        }
        match state.position {
            Position::Resolving { from, by_policy, .. } if offset < 0 => {
                // No record has that timestamp or a later one: the next one will.
                state.position = Position::Resolving { to: StartOffset::Latest, from, by_policy };
                ResolvedOffset::default()
            }
            Position::Resolving { to, from, by_policy } => {
                state.clear_errors();
                state.position = Position::At(offset);
                state.read_epoch = epoch;
                if let Some(from) = from {
                    tracing::warn!(partition = %lease, position = from, new = offset, "the position is outside the log: it is moved by offset_reset");
                }
                // By `latest` the next owner of the partition would start elsewhere.
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

    /// Advances the position from `offset` over fetched records. Returns their memory, and whether
    /// the application is to get an event; none if the position is no longer `offset`.
    pub(crate) fn on_fetched(
        &mut self,
        lease: &Lease,
        now: Instant,
        offset: i64,
        fetched: FetchedPartition,
    ) -> Option<(RecordMemory, bool)> {
        let (fetch_count, mut bytes_per_offset) = (self.fetch_count + 1, self.bytes_per_offset);
        let state = self.state(lease)?;
        state.in_flight = false;
        if state.position != Position::At(offset) {
            return None;
        }
        state.position = Position::At(fetched.next);
        state.read_epoch = fetched.leader_epoch.or(state.read_epoch);
        let is_news = fetched.next > offset || !state.has_response;
        state.has_response = true;
        state.end = fetched.end;
        if fetched.wire > 0 && fetched.next == offset {
            state.retry_at = Some(now + state.backoff.next()); // corrupt, or nothing of what was requested: retried after the backoff
        } else if !fetched.corrupt {
            state.clear_errors();
        }
        if let Some(ratio) = (fetched.memory * 16).checked_div(fetched.wire) {
            state.last_served = fetch_count;
            state.decode_ratio_16ths = ratio.clamp(16, 16 << 10);
            let offsets = usize::try_from(fetched.next - offset).unwrap_or(0);
            bytes_per_offset = fetched.wire.checked_div(offsets).unwrap_or(bytes_per_offset);
            state.bytes_per_offset = bytes_per_offset;
        }
        let buffered = Arc::clone(&state.buffered);
        (self.fetch_count, self.bytes_per_offset) = (fetch_count, bytes_per_offset);
        Some((RecordMemory::new(&self.budget, &buffered, fetched.memory, fetched.response), is_news))
    }

    /// Handles an error code of a partition.
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
        // Reported is what needs action, and corruption, since it is not skipped.
        let needs_report =
            code == code::CORRUPT_MESSAGE || is_fatal_code(code) || kind_of(code) == ErrorKind::Authorization;
        tracing::debug!(partition = %lease, error = code_name(code), "{doing} a partition failed; it is retried");
        FetchError {
            refresh: !needs_report,
            report: (needs_report && !std::mem::replace(&mut state.error_reported, true))
                .then(|| Error::broker(code, format_args!("{doing} {lease}; it is retried"))),
        }
    }

    /// Handles corrupt records after the position, which are fetched again. Returns whether to
    /// report them.
    pub(crate) fn on_corrupt(&mut self, lease: &Lease) -> bool {
        let Some(state) = self.state(lease) else { return false };
        !std::mem::replace(&mut state.error_reported, true)
    }

    /// Returns each partition with its source; none if it has no leader.
    pub(crate) fn partition_sources(&self) -> Vec<(TopicPartition, Option<i32>)> {
        self.partitions.iter().map(|(p, state)| (p.clone(), state.source())).collect()
    }
}

#[cfg(test)]
pub(super) mod tests;
