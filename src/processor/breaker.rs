//! Decides which dependencies a subscription waits for, what is held meanwhile, and when a single record
//! probes, without I/O.
//!
//! A breaker is closed until a record fails because of its dependency. Then it *holds*: until its backoff
//! has passed, nothing that it covers is handled. The next partition with a held record may take the one
//! as a *probe*. A probe that fails because of the dependency makes it hold for longer; any other
//! outcome closes it. A breaker that no held record waits for, because their partitions were revoked, is
//! closed as well: nothing could probe.
//!
//! [`OutageDetector`] finds outages that handlers don't name: very many records in a row that fail.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::failure_policy::{Hold, HoldScope};
use crate::cluster::Backoff;
use crate::record::TopicPartition;

/// Name of the dependency that is assumed down when everything fails and handlers name none.
pub(super) const UNKNOWN: &str = "unknown";
/// Name of the dependencies beyond [`MAX_NAMES`].
const OTHER: &str = "other";
/// Maximum number of names of a subscription: they are labels of metrics.
const MAX_NAMES: usize = 100;
/// Time for which the partition that probed last leaves the next probe to others, so that one record
/// that always fails does not decide for all.
const TURN: Duration = Duration::from_millis(200);

/// Identifies a time for which a dependency is waited for.
pub(super) type HoldId = u64;

/// Identifies a probe.
pub(super) type ProbeId = u64;

/// Scope of a hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Covered {
    /// The held records alone.
    Lanes,
    Partition(TopicPartition),
    Subscription,
}

type Key = (String, Covered);

#[derive(Debug)]
enum Phase {
    /// Nothing is handled until this time; then there is a probe.
    Holding { until: Instant },
    /// A record of this partition is handled as a probe. If it takes too long, there is another one.
    Probing { id: ProbeId, by: TopicPartition, until: Instant },
}

#[derive(Debug)]
struct OpenHold {
    key: Key,
    hold: Hold,
    /// Time of the first failure; of an earlier hold, if its dependency is down since then.
    since: Instant,
    opened_at: Instant,
    error: String,
    phase: Phase,
    backoff: Backoff,
    /// Number of failures that the backoff is after.
    failures: u32,
    failed_probes: u32,
    /// Partitions with held records.
    waiting: BTreeSet<TopicPartition>,
    last_prober: Option<TopicPartition>,
}

/// A hold that has ended, for the next one of its key.
#[derive(Debug)]
struct ClosedHold {
    at: Instant,
    failures: u32,
    /// Since when the dependency was down, if it is not known to be back.
    down_since: Option<Instant>,
}

/// A change that the log and metrics report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HoldEvent {
    Opened {
        dependency: String,
        scope: HoldScope,
        error: String,
    },
    Closed {
        dependency: String,
        held_for: Duration,
        failed_probes: u32,
        /// False if no record waits for it any more, here.
        is_back: bool,
    },
}

/// An open hold, as health shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HoldStatus {
    pub(super) dependency: String,
    pub(super) scope: HoldScope,
    pub(super) since: Instant,
    pub(super) error: String,
    pub(super) failed_probes: u32,
    pub(super) partitions: usize,
}

/// The breakers of one subscription.
#[derive(Debug)]
pub(super) struct Breakers {
    backoff: Backoff,
    /// Maximum time of a probe before there is another one, and of the memory of closed holds.
    patience: Duration,
    open: BTreeMap<HoldId, OpenHold>,
    closed: BTreeMap<Key, ClosedHold>,
    names: BTreeSet<String>,
    last_id: u64,
    /// Changes with what [`probe_at`](Self::probe_at) and [`is_open`](Self::is_open) return.
    version: u64,
    events: Vec<HoldEvent>,
}

impl Breakers {
    pub(super) fn new(backoff: Duration, backoff_max: Duration) -> Self {
        Self {
            backoff: Backoff::new(backoff, backoff_max),
            patience: backoff_max,
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            names: BTreeSet::new(),
            last_id: 0,
            version: 1,
            events: Vec::new(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn key(&mut self, hold: &Hold, tp: &TopicPartition) -> Key {
        let name = hold.dependency();
        if self.names.len() < MAX_NAMES && !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
        let name = if self.names.contains(name) { name } else { OTHER };
        let covered = match hold.covers() {
            HoldScope::Lane => Covered::Lanes,
            HoldScope::Partition => Covered::Partition(tp.clone()),
            HoldScope::Subscription | HoldScope::Unknown => Covered::Subscription,
        };
        (name.to_owned(), covered)
    }

    /// Handles a record that failed because of a dependency. It waits for the returned hold.
    pub(super) fn on_held(&mut self, hold: &Hold, tp: &TopicPartition, error: &str, now: Instant) -> HoldId {
        let key = self.key(hold, tp);
        if let Some((id, open)) = self.open.iter_mut().find(|(_, open)| open.key == key) {
            self.version += u64::from(open.waiting.insert(tp.clone()));
            return *id;
        }
        self.closed.retain(|_, closed| now.saturating_duration_since(closed.at) <= self.patience);
        let before = self.closed.remove(&key);
        // A dependency that comes and goes, or whose partitions moved, is not probed more often for it.
        let failures = before.as_ref().map_or(0, |closed| closed.failures);
        self.events.push(HoldEvent::Opened {
            dependency: key.0.clone(),
            scope: hold.covers(),
            error: error.to_owned(),
        });
        let open = OpenHold {
            key,
            hold: hold.clone(),
            since: before.and_then(|closed| closed.down_since).unwrap_or(now),
            opened_at: now,
            error: error.to_owned(),
            phase: Phase::Holding { until: now + self.backoff.after(failures) },
            backoff: self.backoff.clone(),
            failures: failures.saturating_add(1),
            failed_probes: 0,
            waiting: BTreeSet::from([tp.clone()]),
            last_prober: None,
        };
        let id = self.next_id();
        self.open.insert(id, open);
        self.version += 1;
        id
    }

    /// Handles a record that failed for another reason while its whole partition is held: its attempt
    /// may have failed because of the same outage. It waits for the returned hold.
    pub(super) fn on_failed_while_held(&mut self, tp: &TopicPartition) -> Option<HoldId> {
        let (id, open) = self.open.iter_mut().find(|(_, open)| open.covers(tp))?;
        self.version += u64::from(open.waiting.insert(tp.clone()));
        Some(*id)
    }

    /// Returns whether no record of a partition may be handled, but probes.
    pub(super) fn is_held(&self, tp: &TopicPartition) -> bool {
        self.open.values().any(|open| open.covers(tp))
    }

    pub(super) fn is_open(&self, id: HoldId) -> bool {
        self.open.contains_key(&id)
    }

    /// Returns the partitions with records that wait for a hold.
    pub(super) fn waiting(&self, id: HoldId) -> impl Iterator<Item = &TopicPartition> {
        self.open.get(&id).into_iter().flat_map(|open| &open.waiting)
    }

    /// Returns the time at which [`try_probe`](Self::try_probe) succeeds for a partition, unless there
    /// is a probe before.
    pub(super) fn probe_at(&self, id: HoldId, tp: &TopicPartition) -> Option<Instant> {
        let open = self.open.get(&id)?;
        let (Phase::Holding { until } | Phase::Probing { until, .. }) = open.phase;
        let is_others_turn = open.waiting.len() > 1 && open.last_prober.as_ref() == Some(tp);
        Some(if is_others_turn { until + TURN } else { until })
    }

    /// Starts a probe by a held record of a partition; `None` if it is not due, or another one has
    /// started.
    pub(super) fn try_probe(&mut self, id: HoldId, tp: &TopicPartition, now: Instant) -> Option<(ProbeId, Hold)> {
        if self.probe_at(id, tp)? > now {
            return None;
        }
        let (probe, until) = (self.next_id(), now + self.patience);
        let open = self.open.get_mut(&id)?;
        open.phase = Phase::Probing { id: probe, by: tp.clone(), until };
        open.last_prober = Some(tp.clone());
        self.version += 1;
        Some((probe, open.hold.clone()))
    }

    /// Handles a probe that failed because of the dependency: its record must be
    /// [held](Self::on_held) again. One that was replaced by another changes nothing.
    pub(super) fn on_probe_failed(&mut self, id: HoldId, probe: ProbeId, error: &str, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else { return };
        if !matches!(open.phase, Phase::Probing { id, .. } if id == probe) {
            return;
        }
        open.phase = Phase::Holding { until: now + open.backoff.after(open.failures) };
        open.failures = open.failures.saturating_add(1);
        open.failed_probes = open.failed_probes.saturating_add(1);
        error.clone_into(&mut open.error);
        self.version += 1;
    }

    /// Handles a probe that did not fail because of the dependency: the hold ends.
    pub(super) fn on_probe_succeeded(&mut self, id: HoldId, now: Instant) {
        self.close(id, true, now);
    }

    /// Handles a partition that has no record any more that waits for a hold.
    pub(super) fn on_none_held(&mut self, id: HoldId, tp: &TopicPartition, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.waiting.remove(tp);
        self.version += 1;
        // Its probe was cancelled, or its outcome will not be known.
        if matches!(&open.phase, Phase::Probing { by, .. } if by == tp) {
            open.phase = Phase::Holding { until: now };
        }
        if open.waiting.is_empty() {
            self.close(id, false, now);
        }
    }

    /// Handles the end of a partition's assignment, or a seek: none of its records waits any more.
    /// Returns the holds that it waited for.
    pub(super) fn on_partition_ended(&mut self, tp: &TopicPartition, now: Instant) -> Vec<HoldId> {
        let of_it: Vec<_> = self.open.iter().filter(|(_, open)| open.waiting.contains(tp)).map(|(id, _)| *id).collect();
        of_it.iter().for_each(|id| self.on_none_held(*id, tp, now));
        of_it
    }

    fn close(&mut self, id: HoldId, is_back: bool, now: Instant) {
        let Some(open) = self.open.remove(&id) else { return };
        self.version += 1;
        self.events.push(HoldEvent::Closed {
            dependency: open.key.0.clone(),
            held_for: now.saturating_duration_since(open.opened_at),
            failed_probes: open.failed_probes,
            is_back,
        });
        let down_since = (!is_back).then_some(open.since);
        self.closed.insert(open.key, ClosedHold { at: now, failures: open.failures, down_since });
    }

    pub(super) fn poll_event(&mut self) -> Option<HoldEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// Returns the open holds, those of several partitions as one.
    pub(super) fn status(&self) -> Vec<HoldStatus> {
        let mut all = BTreeMap::<(&str, HoldScope), HoldStatus>::new();
        for open in self.open.values() {
            let (dependency, scope) = (&*open.key.0, open.hold.covers());
            let status = all.entry((dependency, scope)).or_insert_with(|| HoldStatus {
                dependency: dependency.to_owned(),
                scope,
                since: open.since,
                error: open.error.clone(),
                failed_probes: 0,
                partitions: 0,
            });
            status.since = status.since.min(open.since);
            status.failed_probes = status.failed_probes.saturating_add(open.failed_probes);
            status.partitions += open.waiting.len();
        }
        all.into_values().collect()
    }
}

impl OpenHold {
    fn covers(&self, tp: &TopicPartition) -> bool {
        match &self.key.1 {
            Covered::Lanes => false,
            Covered::Partition(covered) => covered == tp,
            Covered::Subscription => true,
        }
    }
}

/// Counts the records that fail with no success between.
#[derive(Debug)]
pub(super) struct OutageDetector {
    /// Number of records that are an outage; 0: none is.
    limit: usize,
    /// Hashes of the records, at most `limit`.
    records: HashSet<u64>,
    /// The hash of a key of theirs, and whether there is another one.
    keys: Option<(u64, bool)>,
}

impl OutageDetector {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, records: HashSet::new(), keys: None }
    }

    /// Handles a failed attempt at a record; both arguments are hashes. Returns whether so many have
    /// failed that it is an outage.
    pub(super) fn on_failed(&mut self, record: u64, key: u64) -> bool {
        if self.limit == 0 {
            return false;
        }
        if self.records.len() < self.limit {
            self.records.insert(record);
        }
        let (first, has_others) = *self.keys.get_or_insert((key, false));
        self.keys = Some((first, has_others || key != first));
        self.is_outage()
    }

    /// Returns whether the failures so far are an outage.
    pub(super) fn is_outage(&self) -> bool {
        self.limit > 0 && self.records.len() >= self.limit && self.keys.is_some_and(|(_, has_others)| has_others)
    }

    /// Handles a record that was handled.
    pub(super) fn on_success(&mut self) {
        self.records.clear();
        self.keys = None;
    }
}

#[cfg(test)]
mod tests;
