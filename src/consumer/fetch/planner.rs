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

use super::budget::{Budget, Charge, Held};
use super::partition::{Begin, Part, Position, Why};
use super::source::{FetchPlan, Limits, Source};
use crate::cluster::{Backoff, Snapshot};
use crate::code;
use crate::config::ConsumerConfig;
use crate::consumer::event::{StartOffset, start};
use crate::consumer::lease::Lease;
use crate::error::{Error, ErrorKind, code_name, kind_of};
use crate::failure::is_final_code;
use crate::record::TopicPartition;

/// A partition to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask<T> {
    pub(crate) lease: Lease,
    /// Counts the seeks before it.
    pub(crate) version: u64,
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
pub(crate) struct Validate {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
}

/// What to do for a broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Seek(Vec<Ask<StartOffset>>),
    Validate(Vec<Ask<Validate>>),
    Fetch(FetchPlan),
    /// Nothing before this time or the next change.
    Wait(Option<Instant>),
    /// It leads nothing of ours any more.
    Gone,
}

/// What a refusal asks for.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    /// The metadata may be stale.
    pub(crate) refresh: bool,
    /// To be told to the program.
    pub(crate) report: Option<Error>,
}

/// What came of an offset that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Sought {
    /// Where reading goes on.
    pub(crate) at: Option<i64>,
    /// Whether nothing else remembers that offset: it is the end of the log, by policy.
    pub(crate) pin: bool,
    /// To be told to the program.
    pub(crate) report: Option<Error>,
}

/// What new metadata ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Brokers that lead something of ours and that no one fetches from yet.
    pub(crate) start: Vec<i32>,
    /// Whether something has no leader: ask again.
    pub(crate) leaderless: bool,
    /// Partitions that do not exist, for the first time.
    pub(crate) missing: Vec<Lease>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(super) parts: BTreeMap<TopicPartition, Part>,
    pub(super) budget: Budget,
    /// Maximum size of a partition's part of a response, and of a response.
    pub(super) fetch_bytes: usize,
    pub(super) max_bytes: usize,
    /// Maximum time that a broker may wait for records.
    pub(super) max_wait: Duration,
    reset: Option<StartOffset>,
    backoff: Backoff,
    /// The brokers that a task fetches from.
    pub(super) sources: BTreeMap<i32, Source>,
    turn: u64,
    /// Bytes per offset of the last response that brought records.
    pub(super) weight: usize,
}

impl Tracker {
    pub(crate) fn new(config: &ConsumerConfig, backoff: Backoff, returned: Arc<Notify>) -> Self {
        Self {
            parts: BTreeMap::new(),
            budget: Budget::new(config.prefetch_bytes, returned),
            fetch_bytes: config.partition_fetch_bytes,
            max_bytes: config.fetch_max_bytes,
            max_wait: config.fetch_max_wait,
            reset: start(config.offset_reset),
            backoff,
            sources: BTreeMap::new(),
            turn: 0,
            weight: 0,
        }
    }

    /// From now on these are read too; they have no leader before [`lead`](Self::lead).
    pub(crate) fn add(&mut self, partitions: impl IntoIterator<Item = (Lease, impl Into<Begin>)>) {
        for (lease, begin) in partitions {
            let part = Part::new(&lease, begin.into(), self.reset, self.backoff.clone());
            self.parts.insert(lease.partition, part);
        }
    }

    /// From now on these are not read any more.
    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            let told = self.parts.remove(p).and_then(|part| part.told);
            if let Some(source) = told.and_then(|told| self.sources.get_mut(&told.broker)) {
                source.forget(p.clone());
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let share = (self.budget.limit() / self.parts.len().max(1)).max(1);
        Limits { share, free: self.budget.free(), exhausted: self.budget.is_exhausted() }
    }

    /// The partition, if the lease is the one under which it is read.
    fn part(&mut self, lease: &Lease) -> Option<&mut Part> {
        self.parts.get_mut(&lease.partition).filter(|part| part.epoch == lease.epoch)
    }

    /// Takes the leaders from new metadata. Positions stay, but for a topic that was deleted and created again: that is
    /// another log, to be read from its beginning.
    pub(crate) fn lead(&mut self, snapshot: &Snapshot) -> Moved {
        let mut moved = Moved::default();
        for (p, part) in &mut self.parts {
            let topic = snapshot.topics.get(&p.topic);
            let meta = topic.and_then(|t| t.partition(p.partition));
            let Some((topic, meta)) = topic.zip(meta) else {
                let known_missing =
                    topic.is_some() || snapshot.failed.get(&p.topic) == Some(&code::UNKNOWN_TOPIC_OR_PARTITION);
                if known_missing && !part.reported {
                    part.reported = true;
                    moved.missing.push(Lease { partition: p.clone(), epoch: part.epoch });
                }
                part.leader = None;
                moved.leaderless = true;
                continue;
            };
            if part.topic_id.is_some() && topic.id.is_some() && part.topic_id != topic.id {
                tracing::warn!(partition = %p, "the topic was created anew: it is read from its beginning");
                part.go(Position::sought(StartOffset::Earliest), None);
            }
            part.topic_id = topic.id.or(part.topic_id);
            part.preferred = part.preferred.filter(|(replica, _)| snapshot.brokers.contains_key(replica));
            if part.leader != meta.leader || part.leader_epoch != meta.leader_epoch {
                part.retry_at = None;
                part.preferred = None;
                // The new leader's log may not hold what was read.
                part.validate |= part.leader_epoch >= 0 && part.read_epoch.is_some();
                // The old leader may never answer. If it does, whichever answer comes first moves the position, and the
                // other one is to an old question.
                part.in_flight = false;
            }
            part.leader = meta.leader;
            part.leader_epoch = meta.leader_epoch;
            moved.leaderless |= meta.leader.is_none();
        }
        moved.start = self.starts();
        moved
    }

    /// Brokers that something is to be asked of and that no one asks yet.
    pub(crate) fn starts(&mut self) -> Vec<i32> {
        let wanted: BTreeSet<_> = self.parts.values().filter_map(Part::source).collect();
        let new: Vec<_> = wanted.into_iter().filter(|broker| !self.sources.contains_key(broker)).collect();
        self.sources.extend(new.iter().map(|broker| (*broker, Source::default())));
        new
    }

    /// What to do next for a broker. What is asked for counts as under way until it is answered or given back.
    pub(crate) fn plan(&mut self, broker: i32, now: Instant) -> Plan {
        let (mut leads, mut seeks, mut validations) = (false, Vec::new(), Vec::new());
        for (name, part) in self.parts.iter_mut().filter(|(_, part)| part.source() == Some(broker)) {
            leads = true;
            if !part.ready(now) {
                continue;
            }
            if let Some(to) = part.position.question() {
                (part.in_flight, part.asked) = (true, None);
                seeks.push(part.ask(name, to));
            } else if let (Position::At(offset), Some(epoch), true) = (part.position, part.read_epoch, part.validate) {
                validations.push(part.ask(name, Validate { offset, epoch }));
            }
        }
        if !leads {
            if let Some(mut source) = self.sources.remove(&broker) {
                source.end(&mut self.budget);
            }
            return Plan::Gone;
        }
        if !seeks.is_empty() {
            return Plan::Seek(seeks);
        }
        if !validations.is_empty() {
            for ask in &validations {
                if let Some(part) = self.part(&ask.lease) {
                    (part.in_flight, part.asked) = (true, None);
                }
            }
            return Plan::Validate(validations);
        }
        self.plan_fetch(broker, now)
    }

    /// Reads on somewhere else. What is under way counts for nothing, see [`is_current`](Self::is_current).
    pub(crate) fn seek(&mut self, lease: &Lease, to: StartOffset) {
        if let Some(part) = self.part(lease) {
            part.go(Position::sought(to), None);
        }
    }

    /// Number of bytes of memory that records of a partition which are here already may take.
    pub(crate) fn room(&mut self, lease: &Lease) -> usize {
        let Limits { share, free, exhausted } = self.limits();
        match self.part(lease) {
            Some(_) if free > 0 => free,
            Some(part) if !exhausted && part.held.load(Ordering::Acquire) == 0 => share,
            _ => 0,
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether nothing was sought since this was asked.
    pub(crate) fn is_current<T>(&mut self, ask: &Ask<T>) -> bool {
        self.part(&ask.lease).is_some_and(|part| part.version == ask.version)
    }

    /// Fetches these no more, or again. What is under way still comes.
    pub(crate) fn pause(&mut self, leases: &[Lease], paused: bool) {
        for lease in leases {
            if let Some(part) = self.part(lease) {
                part.paused = paused;
            }
        }
    }

    /// The leader wants this partition to be fetched from another replica for a while.
    pub(crate) fn prefer(&mut self, lease: &Lease, replica: i32, until: Instant) {
        if let Some(part) = self.part(lease) {
            part.in_flight = false;
            part.preferred = Some((replica, until)).filter(|_| part.leader != Some(replica));
        }
    }

    /// A replica that is not the leader could not serve this: back to the leader, after a wait, for it may name that replica
    /// again. Whether it was one.
    pub(crate) fn desert(&mut self, lease: &Lease, replica: i32, now: Instant) -> bool {
        let Some(part) = self.part(lease) else { return false };
        let left = part.preferred.is_some_and(|(preferred, _)| preferred == replica);
        if left {
            part.preferred = None;
            part.in_flight = false;
            part.retry_at = Some(now + part.backoff.next());
        }
        left
    }

    /// Preferred replicas whose time has passed: back to the leader, which may know a better one by now. Whether there were any.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for part in self.parts.values_mut().filter(|p| p.preferred.is_some_and(|(_, until)| until <= now)) {
            part.preferred = None;
            any = true;
        }
        any
    }

    /// No leader can tell whether what was read is still there: it is believed to be.
    pub(crate) fn cannot_validate<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(part) = self.part(lease) {
                (part.validate, part.in_flight) = (false, false);
            }
        }
    }

    /// The leader's log of the leader epoch that was asked for ends at `end`, or was never heard of. Gives the offset from
    /// which on what was read is not in the log any more, if the policy is to go on from there.
    pub(crate) fn validated(&mut self, lease: &Lease, asked: Validate, end: Option<i64>) -> Option<i64> {
        let reset = self.reset;
        let part = self.part(lease)?;
        part.in_flight = false;
        if part.position != Position::At(asked.offset) || part.read_epoch != Some(asked.epoch) {
            return None;
        }
        part.validate = false;
        match end {
            Some(end) if end >= asked.offset => None,
            Some(end) if reset.is_some() => Some(end),
            end => {
                let why = Why::Truncated { position: asked.offset, end };
                tracing::warn!(partition = %lease, position = asked.offset, "the log was cut below the position");
                part.go(Position::reset(reset, why), None);
                None
            }
        }
    }

    /// No answer came: all of it may be asked for again.
    pub(crate) fn give_back<'a>(&mut self, leases: impl IntoIterator<Item = &'a Lease>) {
        for lease in leases {
            if let Some(part) = self.part(lease) {
                part.in_flight = false;
            }
        }
    }

    /// The offset that was asked for, with the leader epoch of its record, if the leader tells.
    pub(crate) fn sought(&mut self, lease: &Lease, asked: StartOffset, offset: i64, epoch: Option<i32>) -> Sought {
        let reset = self.reset;
        let Some(part) = self.part(lease) else { return Sought::default() };
        part.in_flight = false;
        if part.position.question() != Some(asked) {
            return Sought::default();
        }
        match part.position {
            Position::Seek { from, by_policy, .. } if offset < 0 => {
                // No record has that timestamp or a later one: what comes next will.
                part.position = Position::Seek { to: StartOffset::Latest, from, by_policy };
                Sought::default()
            }
            Position::Seek { to, from, by_policy } => {
                part.settle();
                part.position = Position::At(offset);
                part.read_epoch = epoch;
                if let Some(from) = from {
                    tracing::warn!(partition = %lease, position = from, new = offset, "the position is outside the log: reading goes on at the new one");
                }
                // By `latest` whoever reads the partition next would begin elsewhere.
                let pin = by_policy && (to == StartOffset::Latest || reset == Some(StartOffset::Latest));
                Sought { at: Some(offset), pin, report: None }
            }
            Position::Doubted { offset: position, start: None } => {
                part.position = Position::Doubted { offset: position, start: Some(offset) };
                Sought::default()
            }
            Position::Doubted { offset: position, start: Some(start) } => {
                part.settled_doubt(lease, position, (start, offset), reset)
            }
            Position::Lost { why, start: None } => {
                part.position = Position::Lost { why, start: Some(offset) };
                Sought::default()
            }
            Position::Lost { why, start: Some(start) } => {
                part.settle();
                part.position = Position::Unset;
                Sought { report: Some(why.error(lease, start, offset)), ..Sought::default() }
            }
            Position::At(_) | Position::Unset => Sought::default(),
        }
    }

    /// Records have come for what was asked from `offset`; reading goes on at `next`. Gives what keeps the program's share in
    /// the books, and whether there is something to tell; nothing if the answer is to an old question.
    pub(crate) fn fetched(&mut self, lease: &Lease, now: Instant, offset: i64, came: Came) -> Option<(Held, bool)> {
        let (turn, mut weight) = (self.turn + 1, self.weight);
        let part = self.part(lease)?;
        part.in_flight = false;
        if part.position != Position::At(offset) {
            return None;
        }
        part.position = Position::At(came.next);
        part.read_epoch = came.leader_epoch.or(part.read_epoch);
        let tell = came.next > offset || !part.answered;
        part.answered = true;
        part.end = came.end;
        if came.wire > 0 && came.next == offset {
            part.retry_at = Some(now + part.backoff.next()); // damaged, or nothing that was asked for: not at once again
        } else if !came.damaged {
            part.settle();
        }
        if let Some(growth) = (came.memory * 16).checked_div(came.wire) {
            part.served = turn;
            part.growth = growth.clamp(16, 16 << 10);
            let offsets = usize::try_from(came.next - offset).unwrap_or(0);
            weight = came.wire.checked_div(offsets).unwrap_or(weight);
            part.weight = weight;
        }
        let held = Arc::clone(&part.held);
        (self.turn, self.weight) = (turn, weight);
        Some((Held::new(&self.budget, &held, came.memory, came.response), tell))
    }

    /// The partition was refused with an error code.
    pub(crate) fn refused(&mut self, lease: &Lease, now: Instant, code: i16, doing: &str) -> Refused {
        let Some(part) = self.part(lease) else { return Refused::default() };
        part.in_flight = false;
        if let (code::OFFSET_OUT_OF_RANGE, Position::At(offset)) = (code, part.position) {
            part.position = Position::Doubted { offset, start: None };
            if part.doubts > 0 {
                part.retry_at = Some(now + part.backoff.next());
            }
            return Refused { refresh: true, report: None };
        }
        part.retry_at = Some(now + part.backoff.next());
        // Damage is told, for nothing is skipped; and what somebody has to mend.
        let told = code == code::CORRUPT_MESSAGE || is_final_code(code) || kind_of(code) == ErrorKind::Authorization;
        let passing = !told;
        tracing::debug!(partition = %lease, error = code_name(code), "{doing} was refused; it is tried again");
        Refused {
            refresh: passing,
            report: (!passing && !std::mem::replace(&mut part.reported, true))
                .then(|| Error::broker(code, format_args!("{doing} {lease}; it is tried again"))),
        }
    }

    /// What follows the position is damaged: asked for again, later. Whether that is news.
    pub(crate) fn damaged(&mut self, lease: &Lease) -> bool {
        let Some(part) = self.part(lease) else { return false };
        !std::mem::replace(&mut part.reported, true)
    }

    /// Each partition with the broker that it waits for; none if it has no leader.
    pub(crate) fn sources(&self) -> Vec<(TopicPartition, Option<i32>)> {
        self.parts.iter().map(|(p, part)| (p.clone(), part.source())).collect()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }
}

/// What a fetch has brought of a partition.
#[derive(Debug, Default)]
pub(crate) struct Came {
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
    pub(crate) damaged: bool,
}

#[cfg(test)]
pub(super) mod tests;
