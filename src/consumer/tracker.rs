//! What to fetch next from which broker: positions, leaders, budgets and waits of the assigned partitions, without I/O.
//!
//! Each partition has an equal share of `prefetch_bytes`. One whose records in the hands of the program have used it up is
//! left out of the next fetch, so that a partition that is handled slowly never holds up the others; that the shares together
//! are the whole budget bounds the whole. A fetch may bring more than is left of a share (a batch comes whole, compressed ones
//! grow), but the next one is not made before the program has given that back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use uuid::Uuid;

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
    returned: Arc<Notify>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::AcqRel);
        self.returned.notify_waiters();
    }
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// To be asked for; `from` is the offset that was out of range.
    Seek {
        to: StartOffset,
        from: Option<i64>,
    },
    At(i64),
}

#[derive(Debug)]
struct Part {
    position: Position,
    leader: Option<i32>,
    leader_epoch: i32,
    topic_id: Option<Uuid>,
    in_flight: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// Whether its present trouble has been told.
    reported: bool,
    /// Whether a fetch has been answered: an empty partition tells its end once.
    answered: bool,
    held: Arc<AtomicUsize>,
    /// What a fetched byte takes in memory, in sixteenths.
    growth: usize,
    /// When it last brought something; who waits longest is asked for first.
    served: u64,
}

/// A partition to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask<T> {
    pub(crate) partition: TopicPartition,
    pub(crate) leader_epoch: i32,
    pub(crate) what: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchFrom {
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
}

/// What to do for a broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Seek(Vec<Ask<StartOffset>>),
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

/// What new metadata ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Brokers that lead something of ours and that no one fetches from yet.
    pub(crate) start: Vec<i32>,
    /// Whether something has no leader: ask again.
    pub(crate) leaderless: bool,
    /// Partitions that do not exist, for the first time.
    pub(crate) missing: Vec<TopicPartition>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Tracker {
    parts: BTreeMap<TopicPartition, Part>,
    share: usize,
    fetch_bytes: usize,
    reset: StartOffset,
    backoff: Backoff,
    returned: Arc<Notify>,
    running: HashSet<i32>,
    turn: u64,
}

impl Tracker {
    pub(crate) fn new(
        partitions: impl IntoIterator<Item = (TopicPartition, StartOffset)>,
        config: &ConsumerConfig,
        backoff: Backoff,
        returned: Arc<Notify>,
    ) -> Self {
        let part = |from| Part {
            position: match from {
                StartOffset::Offset(offset) => Position::At(offset),
                to => Position::Seek { to, from: None },
            },
            leader: None,
            leader_epoch: -1,
            topic_id: None,
            in_flight: false,
            retry_at: None,
            backoff: backoff.clone(),
            reported: false,
            answered: false,
            held: Arc::default(),
            growth: 16,
            served: 0,
        };
        let parts: BTreeMap<_, _> = partitions.into_iter().map(|(p, from)| (p, part(from))).collect();
        Self {
            share: (config.prefetch_bytes / parts.len().max(1)).max(1),
            fetch_bytes: config.partition_fetch_bytes,
            reset: start(config.offset_reset),
            backoff,
            returned,
            running: HashSet::new(),
            turn: 0,
            parts,
        }
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
                    moved.missing.push(p.clone());
                }
                part.leader = None;
                moved.leaderless = true;
                continue;
            };
            if part.topic_id.is_some() && topic.id.is_some() && part.topic_id != topic.id {
                tracing::warn!(partition = %p, "the topic was created anew: it is read from its beginning");
                part.position = Position::Seek { to: StartOffset::Earliest, from: None };
            }
            part.topic_id = topic.id.or(part.topic_id);
            if part.leader != meta.leader || part.leader_epoch != meta.leader_epoch {
                part.retry_at = None;
                // The old leader may never answer. If it does, whichever answer comes first moves the position, and the
                // other one is to an old question.
                part.in_flight = false;
            }
            part.leader = meta.leader;
            part.leader_epoch = meta.leader_epoch;
            match meta.leader {
                None => moved.leaderless = true,
                Some(leader) => {
                    if self.running.insert(leader) {
                        moved.start.push(leader);
                    }
                }
            }
        }
        moved
    }

    /// What to do next for a broker. What is asked for counts as under way until it is answered or given back.
    pub(crate) fn plan(&mut self, broker: i32, now: Instant) -> Plan {
        let mut led: Vec<_> = self.parts.iter_mut().filter(|(_, p)| p.leader == Some(broker)).collect();
        if led.is_empty() {
            self.running.remove(&broker);
            return Plan::Gone;
        }
        let waits = |p: &Part| p.retry_at.filter(|at| *at > now);
        let ready = |p: &Part| !p.in_flight && waits(p).is_none();

        let mut seeks = Vec::new();
        for (name, part) in &mut led {
            if let (Position::Seek { to, .. }, true) = (part.position, ready(part)) {
                part.in_flight = true;
                seeks.push(Ask { partition: (*name).clone(), leader_epoch: part.leader_epoch, what: to });
            }
        }
        if !seeks.is_empty() {
            return Plan::Seek(seeks);
        }
        led.sort_by_key(|(_, part)| part.served);
        let mut asks = Vec::new();
        let mut short = false;
        let mut until: Option<Instant> = None;
        for (name, part) in led {
            let left = self.share.saturating_sub(part.held.load(Ordering::Acquire));
            match part.position {
                Position::At(offset) if ready(part) && left > 0 => {
                    part.in_flight = true;
                    let max_bytes = (left * 16 / part.growth).max(LEAST).min(self.fetch_bytes);
                    let what = FetchFrom { offset, max_bytes };
                    asks.push(Ask { partition: name.clone(), leader_epoch: part.leader_epoch, what });
                }
                _ => {
                    short = true;
                    until = until.into_iter().chain(waits(part)).min();
                }
            }
        }
        if asks.is_empty() { Plan::Wait(until) } else { Plan::Fetch { asks, short } }
    }

    /// No answer came: all of it may be asked for again.
    pub(crate) fn give_back<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for p in partitions {
            if let Some(part) = self.parts.get_mut(p) {
                part.in_flight = false;
            }
        }
    }

    /// The offset that was asked for. Whether it is one that nothing else remembers: the end of the log, by policy.
    pub(crate) fn sought(&mut self, p: &TopicPartition, asked: StartOffset, offset: i64) -> bool {
        let Some(part) = self.parts.get_mut(p) else { return false };
        part.in_flight = false;
        let Position::Seek { to, from } = part.position else { return false };
        if to != asked {
            return false;
        }
        if offset < 0 {
            // No record has that timestamp or a later one: what comes next will.
            part.position = Position::Seek { to: StartOffset::Latest, from };
            return false;
        }
        part.settle();
        part.position = Position::At(offset);
        if let Some(from) = from {
            tracing::warn!(partition = %p, position = from, new = offset, "the position is outside the log: reading goes on at the new one");
        }
        to == StartOffset::Latest
    }

    /// Records have come for what was asked from `offset`; reading goes on at `next`. Gives what keeps the program's share in
    /// the books, and whether there is something to tell; nothing if the answer is to an old question.
    pub(crate) fn fetched(
        &mut self,
        p: &TopicPartition,
        now: Instant,
        offset: i64,
        came: Came,
    ) -> Option<(Held, bool)> {
        let part = self.parts.get_mut(p)?;
        part.in_flight = false;
        if part.position != Position::At(offset) {
            return None;
        }
        part.position = Position::At(came.next);
        let tell = came.next > offset || !part.answered;
        part.answered = true;
        if came.wire > 0 && came.next == offset {
            part.retry_at = Some(now + part.backoff.next()); // damaged, or nothing that was asked for: not at once again
        } else if !came.damaged {
            part.settle();
        }
        if let Some(growth) = (came.memory * 16).checked_div(came.wire) {
            self.turn += 1;
            part.served = self.turn;
            part.growth = growth.clamp(16, 16 << 10);
        }
        part.held.fetch_add(came.memory, Ordering::AcqRel);
        Some((Held { bytes: came.memory, of: Arc::clone(&part.held), returned: Arc::clone(&self.returned) }, tell))
    }

    /// The partition was refused with an error code.
    pub(crate) fn refused(&mut self, p: &TopicPartition, now: Instant, code: i16, doing: &str) -> Refused {
        let Some(part) = self.parts.get_mut(p) else { return Refused::default() };
        part.in_flight = false;
        if let (OFFSET_OUT_OF_RANGE, Position::At(offset)) = (code, part.position) {
            part.position = Position::Seek { to: self.reset, from: Some(offset) };
            return Refused::default();
        }
        part.retry_at = Some(now + part.backoff.next());
        let passing = is_retriable_code(code) && !matches!(code, 2 | 29);
        tracing::debug!(partition = %p, error = code_name(code), "{doing} was refused; it is tried again");
        Refused {
            refresh: passing,
            report: (!passing && !std::mem::replace(&mut part.reported, true))
                .then(|| Error::broker(code, format_args!("{doing} {p}; it is tried again"))),
        }
    }

    /// What follows the position is damaged: asked for again, later. Whether that is news.
    pub(crate) fn damaged(&mut self, p: &TopicPartition) -> bool {
        let Some(part) = self.parts.get_mut(p) else { return false };
        !std::mem::replace(&mut part.reported, true)
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }
}

impl Part {
    /// All is well with it.
    fn settle(&mut self) {
        self.backoff.reset();
        self.retry_at = None;
        self.reported = false;
    }
}

/// What a fetch has brought of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Came {
    pub(crate) next: i64,
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
