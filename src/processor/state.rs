//! What the loop, its workers and whoever asks for health share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::activity::{Activity, Pulse};
use super::{PartitionHealth, Stats, SubscriptionHealth};
use crate::config::IsolationLevel;
use crate::consumer::Outlook;
use crate::failure::OngoingOutage;
use crate::lock::Lock;
use crate::record::TopicPartition;

const NONE: i64 = -1;

/// How far a partition is: the offset to commit, and what has ended above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: String,
}

/// How many records of a partition are where, as last told by its worker.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// In a handler.
    pub(super) in_flight: AtomicUsize,
    /// Have failed and wait for another attempt or to be written as dead letters.
    pub(super) parked: AtomicUsize,
    /// Are here and not begun.
    pub(super) waiting: AtomicUsize,
    /// Keys (or whatever is handled in order) that stand still because a record has failed.
    pub(super) parked_keys: AtomicUsize,
}

/// A record in a handler.
#[derive(Debug)]
struct Begun {
    since: Instant,
    key: Option<Bytes>,
    /// When it was last said that it takes long.
    told: Option<Instant>,
}

/// A record that has been in a handler for too long.
#[derive(Debug)]
pub(super) struct Hanging {
    pub(super) offset: i64,
    pub(super) key: Option<Bytes>,
    pub(super) long: Duration,
    /// Whether it was not told for as long as it may take.
    pub(super) is_news: bool,
}

/// One partition while it is owned.
#[derive(Debug)]
pub(super) struct PartitionState {
    position: Lock<Option<Position>>,
    /// Whether it is among [those that have moved](SubscriptionState::has_moved).
    is_listed: AtomicBool,
    committed: Lock<Option<Position>>,
    pulse: Lock<Pulse>,
    pub(super) counts: Counts,
    /// The record whose handler runs in the worker itself.
    at_once: AtomicI64,
    /// Which that was when it was last looked for what hangs.
    seen_at_once: Lock<Option<(i64, Begun)>>,
    begun: Lock<BTreeMap<i64, Begun>>,
    /// Why records wait that do not go on by themselves, by offset.
    notes: Lock<BTreeMap<i64, String>>,
}

impl PartitionState {
    pub(super) fn new() -> Self {
        Self {
            position: Lock::default(),
            is_listed: AtomicBool::new(false),
            committed: Lock::default(),
            pulse: Lock::default(),
            counts: Counts::default(),
            at_once: AtomicI64::new(NONE),
            seen_at_once: Lock::default(),
            begun: Lock::default(),
            notes: Lock::default(),
        }
    }

    pub(super) fn is_at(&self, position: Position) {
        *self.position.lock() = Some(position);
    }

    /// Where the partition ended when what comes next was fetched.
    pub(super) fn fetched(&self, end: i64) {
        self.pulse.lock().fetched(end, Instant::now());
    }

    /// Its worker is here, has so many records, and whether one has ended since it told the last time.
    pub(super) fn progressed(&self, position: Option<i64>, here: usize, ended: bool) {
        self.pulse.lock().told(position, here, ended, Instant::now());
    }

    pub(super) fn note(&self, offset: i64, why: Option<String>) {
        let mut notes = self.notes.lock();
        match why {
            Some(why) => drop(notes.insert(offset, why)),
            None => drop(notes.remove(&offset)),
        }
    }

    /// A handler runs in the worker: nothing is known of it until it is over.
    pub(super) fn runs_at_once(&self, offset: Option<i64>) {
        self.at_once.store(offset.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(super) fn begun(&self, offset: i64, key: Option<Bytes>) {
        self.begun.lock().insert(offset, Begun { since: Instant::now(), key, told: None });
    }

    pub(super) fn over(&self, offset: i64) {
        self.begun.lock().remove(&offset);
    }

    /// Records that have been in a handler for longer than `limit`.
    pub(super) fn hanging(&self, limit: Duration, now: Instant) -> Vec<Hanging> {
        let mut begun = self.begun.lock();
        let mut seen = self.seen_at_once.lock();
        let at_once = Some(self.at_once.load(Ordering::Relaxed)).filter(|o| *o != NONE);
        if seen.as_ref().map(|(offset, _)| *offset) != at_once {
            *seen = at_once.map(|offset| (offset, Begun { since: now, key: None, told: None }));
        }
        let mut hanging = Vec::new();
        for (offset, b) in begun.iter_mut().chain(seen.as_mut().map(|(offset, b)| (&*offset, b))) {
            let long = now.saturating_duration_since(b.since);
            if long >= limit {
                let is_news = b.told.is_none_or(|told| now.saturating_duration_since(told) >= limit);
                if is_news {
                    b.told = Some(now);
                }
                hanging.push(Hanging { offset: *offset, key: b.key.clone(), long, is_news });
            }
        }
        hanging
    }

    /// It is among those that have moved no longer; whether it was.
    pub(super) fn clear(&self) -> bool {
        self.is_listed.swap(false, Ordering::AcqRel)
    }

    /// What can be committed and is not.
    pub(super) fn uncommitted(&self) -> Option<Position> {
        let position = self.position.lock().clone()?;
        (self.committed.lock().as_ref() != Some(&position)).then_some(position)
    }

    pub(super) fn committed(&self, position: Position) {
        *self.committed.lock() = Some(position);
    }

    /// The group has committed this before the partition became ours.
    pub(super) fn begins_at(&self, position: Position) {
        self.pulse.lock().begins_at(position.offset);
        self.committed(position);
    }

    fn health(
        &self,
        tp: &TopicPartition,
        trouble: Option<&OngoingOutage>,
        stalled_after: Duration,
        now: Instant,
    ) -> PartitionHealth {
        let pulse = self.pulse.lock();
        let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        let notes = self.notes.lock();
        let paused = notes.values().next().map(|first| match notes.len() {
            1 => first.clone(),
            more => format!("{first} (and {} more)", more - 1),
        });
        // Whether records wait can't be known.
        let out_of_reach = match trouble.map(|trouble| now.saturating_duration_since(trouble.since)) {
            None => Activity::Idle,
            Some(long) if long < stalled_after => Activity::Busy,
            Some(_) => Activity::Stalled,
        };
        PartitionHealth {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            activity: pulse.activity(stalled_after, now).max(out_of_reach),
            quiet_ms: pulse.quiet(now).map(millis),
            position: pulse.position().unwrap_or(NONE),
            committed: self.committed.lock().as_ref().map(|p| p.offset),
            lag: pulse.lag().filter(|_| trouble.is_none()),
            in_flight: count(&self.counts.in_flight),
            parked_keys: count(&self.counts.parked_keys),
            paused,
            problem: trouble.map(|trouble| trouble.describe(now)),
        }
    }
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    group: String,
    topics: Vec<String>,
    /// How long records may wait before that is a stall.
    stalled_after: Duration,
    isolation_level: IsolationLevel,
    /// What its consumer waits for.
    outlook: Outlook,
    /// Its place in the group, and since when.
    state: Lock<(&'static str, Instant)>,
    /// Who it is in the group, and the generation.
    member: Lock<(Option<String>, Option<i32>)>,
    owned: Lock<BTreeMap<TopicPartition, Arc<PartitionState>>>,
    /// How many those are.
    count: AtomicUsize,
    /// Partitions whose position may have to be committed, each once: others need not be looked at for the next commit.
    moved: Lock<Vec<TopicPartition>>,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) rebalances: AtomicU64,
}

impl SubscriptionState {
    /// Returns the group and the topics.
    pub(super) fn names(&self) -> (&str, &[String]) {
        (&self.group, &self.topics)
    }

    pub(super) fn new(
        group: &str,
        topics: &[&str],
        stalled_after: Duration,
        isolation_level: IsolationLevel,
        outlook: Outlook,
    ) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            stalled_after,
            isolation_level,
            outlook,
            state: Lock::new(("joining", Instant::now())),
            member: Lock::default(),
            owned: Lock::default(),
            count: AtomicUsize::new(0),
            moved: Lock::default(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
        }
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    pub(super) fn enter(&self, state: &'static str) {
        let mut now = self.state.lock();
        if now.0 != state {
            *now = (state, Instant::now());
        }
    }

    pub(super) fn is_member(&self, id: Option<String>, generation: Option<i32>) {
        *self.member.lock() = (id, generation);
    }

    pub(super) fn own(&self, tp: TopicPartition, partition: Arc<PartitionState>) {
        let mut owned = self.owned.lock();
        owned.insert(tp, partition);
        self.count.store(owned.len(), Ordering::Relaxed);
    }

    pub(super) fn disown(&self, tp: &TopicPartition) {
        let mut owned = self.owned.lock();
        owned.remove(tp);
        self.count.store(owned.len(), Ordering::Relaxed);
    }

    pub(super) fn partitions(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The position of a partition has changed, or could not be committed: the next commit is to look at it.
    pub(super) fn has_moved(&self, tp: &TopicPartition, partition: &PartitionState) {
        // The position is set before this, and read behind `take_moved` has cleared the mark. A position set after it was read finds
        // no mark and is listed; one set before it was read is in the commit, listed again or not.
        if !partition.is_listed.swap(true, Ordering::AcqRel) {
            self.moved.lock().push(tp.clone());
        }
    }

    /// The partitions that have moved since this was last asked. Each is to be [cleared](PartitionState::clear) before its position is
    /// read.
    pub(super) fn take_moved(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *self.moved.lock())
    }

    pub(crate) fn health(&self) -> SubscriptionHealth {
        let now = Instant::now();
        let (state, since) = *self.state.lock();
        let in_state = now.saturating_duration_since(since);
        let troubles: BTreeMap<_, _> = self.outlook.of_partitions().into_iter().collect();
        let owned = self.owned.lock();
        let of =
            |(tp, p): (&TopicPartition, &Arc<PartitionState>)| p.health(tp, troubles.get(tp), self.stalled_after, now);
        let partitions: Vec<_> = owned.iter().map(of).collect();
        drop(owned);
        let (member_id, generation) = if state == "member" { self.member.lock().clone() } else { (None, None) };
        let of_state = match state {
            "joining" if in_state >= self.stalled_after => Activity::Stalled,
            "joining" => Activity::Busy,
            _ => Activity::Idle,
        };
        SubscriptionHealth {
            group: self.group.clone(),
            topics: self.topics.clone(),
            state: state.to_owned(),
            state_ms: millis(in_state),
            member_id,
            generation,
            problem: self.outlook.of_group().map(|trouble| trouble.describe(now)),
            activity: partitions.iter().map(|p| p.activity).max().unwrap_or_default().max(of_state),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            partitions,
        }
    }

    /// The partitions that are ours, and which end of theirs counts for us.
    pub(crate) fn reads(&self) -> (IsolationLevel, Vec<TopicPartition>) {
        (self.isolation_level, self.owned.lock().keys().cloned().collect())
    }

    /// The leader of a partition has told where it ends now.
    pub(crate) fn ends_at(&self, tp: &TopicPartition, end: i64) {
        if let Some(partition) = self.owned.lock().get(tp) {
            partition.pulse.lock().asked(end, Instant::now());
        }
    }

    /// Grows with each attempt that ends.
    pub(super) fn ended(&self) -> u64 {
        self.handled.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let sum = |count: fn(&Counts) -> &AtomicUsize| {
            self.owned.lock().values().map(|p| count(&p.counts).load(Ordering::Relaxed)).sum()
        };
        Stats {
            handled: get(&self.handled),
            failed_attempts: get(&self.failed),
            retries: get(&self.retries),
            dead_letters: get(&self.dead),
            rebalances: get(&self.rebalances),
            in_flight: sum(|c| &c.in_flight),
            parked_keys: sum(|c| &c.parked_keys),
        }
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_moves_is_looked_at_once_and_again_when_it_moves_behind_the_look() {
        let shared =
            SubscriptionState::new("g", &["t"], Duration::from_secs(60), IsolationLevel::default(), Outlook::clear());
        let (tp, state) = (TopicPartition::new("t", 0), PartitionState::new());
        let to = |offset| {
            state.is_at(Position { offset, leader_epoch: None, metadata: String::new() });
            shared.has_moved(&tp, &state);
        };
        (1..=3).for_each(to);
        assert_eq!(shared.take_moved().len(), 1, "once, however often it moved");
        to(4); // between the list and the mark: it is read all the same
        assert!(state.clear());
        assert_eq!(state.uncommitted().map(|p| p.offset), Some(4));
        assert_eq!(shared.take_moved(), []);
        to(5);
        assert_eq!(shared.take_moved(), [tp]);
    }

    #[test]
    fn what_hangs_is_named_once_per_limit_wherever_its_handler_runs() {
        let (state, limit) = (PartitionState::new(), Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let named = |seconds| {
            let news = state.hanging(limit, at(seconds)).into_iter().filter(|h| h.is_news);
            news.map(|h| h.offset).collect::<Vec<_>>()
        };
        state.begun(7, Some(Bytes::from_static(b"k")));
        state.runs_at_once(Some(9));
        assert_eq!(named(15), [0; 0]);
        assert_eq!(named(61), [7], "the other was first seen after 15 s");
        assert_eq!(named(76), [9]);
        assert_eq!(named(100), [0; 0]);
        state.runs_at_once(Some(10));
        state.over(7);
        assert_eq!(named(200), [0; 0]);
        assert_eq!(named(260), [10]);
        state.runs_at_once(None);
        assert_eq!(named(999), [0; 0]);
    }
}
