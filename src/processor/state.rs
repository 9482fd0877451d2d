//! What the loop, its workers and whoever asks for health share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PartitionHealth, Stats, SubscriptionHealth};
use crate::record::TopicPartition;

const NONE: i64 = -1;

/// One partition while it is owned.
#[derive(Debug)]
pub(super) struct Progress {
    /// The offset before which all has ended.
    next: AtomicI64,
    committed: AtomicI64,
    high_watermark: AtomicI64,
    paused: Mutex<Option<String>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let none = || AtomicI64::new(NONE);
        Self { next: none(), committed: none(), high_watermark: none(), paused: Mutex::default() }
    }

    /// All before `next` has ended.
    pub(super) fn ended(&self, next: i64) {
        self.next.store(next, Ordering::Release);
    }

    pub(super) fn fetched(&self, high_watermark: i64) {
        self.high_watermark.store(high_watermark, Ordering::Relaxed);
    }

    pub(super) fn pause(&self, why: Option<String>) {
        *lock(&self.paused) = why;
    }

    /// What can be committed and is not.
    pub(super) fn uncommitted(&self) -> Option<i64> {
        let next = self.next.load(Ordering::Acquire);
        (next != NONE && next != self.committed.load(Ordering::Relaxed)).then_some(next)
    }

    pub(super) fn committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Relaxed);
    }

    fn health(&self, tp: &TopicPartition) -> PartitionHealth {
        let known = |a: &AtomicI64| Some(a.load(Ordering::Relaxed)).filter(|o| *o != NONE);
        let position = self.next.load(Ordering::Relaxed);
        PartitionHealth {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            position,
            committed: known(&self.committed),
            lag: known(&self.high_watermark).filter(|_| position != NONE).map(|end| (end - position).max(0)),
            paused: lock(&self.paused).clone(),
        }
    }
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    group: String,
    topics: Vec<String>,
    state: Mutex<&'static str>,
    owned: Mutex<BTreeMap<TopicPartition, Arc<Progress>>>,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) rebalances: AtomicU64,
}

impl SubscriptionState {
    pub(super) fn new(group: &str, topics: &[&str]) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            state: Mutex::new("joining"),
            owned: Mutex::default(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, state: &'static str) {
        *lock(&self.state) = state;
    }

    pub(super) fn own(&self, tp: TopicPartition, progress: Arc<Progress>) {
        lock(&self.owned).insert(tp, progress);
    }

    pub(super) fn disown(&self, tp: &TopicPartition) {
        lock(&self.owned).remove(tp);
    }

    pub(crate) fn health(&self) -> SubscriptionHealth {
        SubscriptionHealth {
            group: self.group.clone(),
            topics: self.topics.clone(),
            state: (*lock(&self.state)).to_owned(),
            partitions: lock(&self.owned).iter().map(|(tp, p)| p.health(tp)).collect(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Stats {
            handled: get(&self.handled),
            failed_attempts: get(&self.failed),
            dead_letters: get(&self.dead),
            rebalances: get(&self.rebalances),
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
