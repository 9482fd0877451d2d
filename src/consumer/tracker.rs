//! What to fetch next from which broker: positions, leaders, budgets and waits of the assigned partitions, without I/O.
//!
//! Partitions come and go one by one while the others are read on. An answer to what was asked under another lease than the
//! present one counts for nothing.
//!
//! Each partition has an equal share of `prefetch_bytes`. One whose records in the hands of the program have used it up is
//! left out of the next fetch, so that a partition that is handled slowly never holds up the others. What an answer brings is
//! opened batch by batch until the share is used up: a partition goes beyond it by one batch at most. Many that do can go
//! beyond the whole; then only those are fetched of which the program holds nothing, and none at twice the whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use super::lease::Lease;
use super::part::{Begin, Part, Position, Why};
use super::{StartOffset, start};
use crate::cluster::{Backoff, Snapshot, UNKNOWN_TOPIC};
use crate::config::ConsumerConfig;
use crate::error::{Error, code_name, is_retriable_code};
use crate::record::TopicPartition;

const OFFSET_OUT_OF_RANGE: i16 = 1;
/// A fetch asks for no less, however little is left of a share: requests have a price too.
const LEAST: usize = 4 << 10;

/// Bytes in the hands of the program; given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: usize,
    of: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
    returned: Arc<Notify>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::AcqRel);
        self.total.fetch_sub(self.bytes, Ordering::AcqRel);
        self.returned.notify_waiters();
    }
}

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
    /// `short`: others wait for their turn, so the broker must not hold the answer for long.
    Fetch {
        asks: Vec<Ask<FetchFrom>>,
        short: bool,
    },
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
    parts: BTreeMap<TopicPartition, Part>,
    /// Bytes that all may hold together.
    budget: usize,
    /// Bytes that all hold.
    total: Arc<AtomicUsize>,
    fetch_bytes: usize,
    reset: Option<StartOffset>,
    backoff: Backoff,
    returned: Arc<Notify>,
    running: HashSet<i32>,
    turn: u64,
}

impl Tracker {
    pub(crate) fn new(config: &ConsumerConfig, backoff: Backoff, returned: Arc<Notify>) -> Self {
        Self {
            parts: BTreeMap::new(),
            budget: config.prefetch_bytes,
            total: Arc::default(),
            fetch_bytes: config.partition_fetch_bytes,
            reset: start(config.offset_reset),
            backoff,
            returned,
            running: HashSet::new(),
            turn: 0,
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
        partitions.iter().for_each(|p| _ = self.parts.remove(p));
    }

    fn share(&self) -> usize {
        (self.budget / self.parts.len().max(1)).max(1)
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
                let known_missing = topic.is_some() || snapshot.failed.get(&p.topic) == Some(&UNKNOWN_TOPIC);
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
        let sources: BTreeSet<_> = self.parts.values().filter_map(Part::source).collect();
        sources.into_iter().filter(|broker| self.running.insert(*broker)).collect()
    }

    /// What to do next for a broker. What is asked for counts as under way until it is answered or given back.
    pub(crate) fn plan(&mut self, broker: i32, now: Instant) -> Plan {
        let (share, total, budget) = (self.share(), self.total.load(Ordering::Acquire), self.budget);
        let mut led: Vec<_> = self.parts.iter_mut().filter(|(_, p)| p.source() == Some(broker)).collect();
        if led.is_empty() {
            self.running.remove(&broker);
            return Plan::Gone;
        }
        let mut seeks = Vec::new();
        let mut validations = Vec::new();
        for (name, part) in led.iter_mut().filter(|(_, part)| part.ready(now)) {
            if let Some(to) = part.position.question() {
                part.in_flight = true;
                seeks.push(part.ask(name, to));
            } else if let (Position::At(offset), Some(epoch), true) = (part.position, part.read_epoch, part.validate) {
                validations.push(part.ask(name, Validate { offset, epoch }));
            }
        }
        if !seeks.is_empty() {
            return Plan::Seek(seeks);
        }
        if !validations.is_empty() {
            led.iter_mut().filter(|(_, part)| part.validate && part.ready(now)).for_each(|(_, p)| p.in_flight = true);
            return Plan::Validate(validations);
        }
        led.sort_by_key(|(_, part)| part.served);
        let mut asks = Vec::new();
        let mut short = false;
        let mut until: Option<Instant> = None;
        for (name, part) in led.into_iter().filter(|(_, part)| !part.paused && part.position != Position::Unset) {
            let left = part.room(share, total, budget);
            match part.position {
                Position::At(offset) if part.ready(now) && left > 0 => {
                    part.in_flight = true;
                    let max_bytes = (left * 16 / part.growth).max(LEAST).min(self.fetch_bytes);
                    asks.push(part.ask(name, FetchFrom { offset, max_bytes }));
                }
                _ => {
                    short = true;
                    until = until.into_iter().chain(part.waits(now)).min();
                }
            }
        }
        if asks.is_empty() { Plan::Wait(until) } else { Plan::Fetch { asks, short } }
    }

    /// Reads on somewhere else. What is under way counts for nothing, see [`is_current`](Self::is_current).
    pub(crate) fn seek(&mut self, lease: &Lease, to: StartOffset) {
        if let Some(part) = self.part(lease) {
            part.go(Position::sought(to), None);
        }
    }

    /// How much of a partition may be taken now, in bytes of memory.
    pub(crate) fn room(&mut self, lease: &Lease) -> usize {
        let (share, total, budget) = (self.share(), self.total.load(Ordering::Acquire), self.budget);
        self.part(lease).map_or(0, |part| part.room(share, total, budget))
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
                Sought { at: Some(offset), pin: by_policy && to == StartOffset::Latest, report: None }
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
        let (turn, total, returned) = (self.turn + 1, Arc::clone(&self.total), Arc::clone(&self.returned));
        let part = self.part(lease)?;
        part.in_flight = false;
        if part.position != Position::At(offset) {
            return None;
        }
        part.position = Position::At(came.next);
        part.read_epoch = came.leader_epoch.or(part.read_epoch);
        let tell = came.next > offset || !part.answered;
        part.answered = true;
        if came.wire > 0 && came.next == offset {
            part.retry_at = Some(now + part.backoff.next()); // damaged, or nothing that was asked for: not at once again
        } else if !came.damaged {
            part.settle();
        }
        if let Some(growth) = (came.memory * 16).checked_div(came.wire) {
            part.served = turn;
            part.growth = growth.clamp(16, 16 << 10);
        }
        part.held.fetch_add(came.memory, Ordering::AcqRel);
        total.fetch_add(came.memory, Ordering::AcqRel);
        let held = Held { bytes: came.memory, of: Arc::clone(&part.held), total, returned };
        self.turn = turn;
        Some((held, tell))
    }

    /// The partition was refused with an error code.
    pub(crate) fn refused(&mut self, lease: &Lease, now: Instant, code: i16, doing: &str) -> Refused {
        let reset = self.reset;
        let Some(part) = self.part(lease) else { return Refused::default() };
        part.in_flight = false;
        if let (OFFSET_OUT_OF_RANGE, Position::At(offset)) = (code, part.position) {
            part.position = Position::reset(reset, Why::OutOfRange(offset));
            return Refused::default();
        }
        part.retry_at = Some(now + part.backoff.next());
        let passing = is_retriable_code(code) && !matches!(code, 2 | 29);
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

    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }
}

/// What a fetch has brought of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Came {
    pub(crate) next: i64,
    /// Of the last record that was passed.
    pub(crate) leader_epoch: Option<i32>,
    /// Bytes on the wire.
    pub(crate) wire: usize,
    /// Bytes that stay in memory as long as the records are there.
    pub(crate) memory: usize,
    /// What follows can't be read.
    pub(crate) damaged: bool,
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
