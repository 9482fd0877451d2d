//! What waits for the program: news of the assignment first, then records.
//!
//! News is the difference between what the program was told and what is so, taken when it asks. So it has a bound whatever the
//! group does meanwhile: what was assigned and taken away before the program saw it was never there, and a revocation that is
//! over before it was seen is a loss.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::MutexGuard;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::event::{ConsumerEvent, Records, Revocation, Watermarks};
use super::lease::{Lease, Leases};
use super::metrics::Meter;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::record::TopicPartition;

/// Between the tasks of a consumer and its front.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    state: Lock<QueueState>,
    ready: Notify,
    /// Wakes who waits for an expelled program.
    polled: Notify,
    meter: Meter,
}

#[derive(Debug, Default)]
struct QueueState {
    /// What records may be of.
    assigned: Leases,
    /// What the program has been told is its own, until it has given it up.
    reported: Leases,
    revocation: Option<PendingRevocation>,
    /// Whether the group has shared out since the program was last told of it.
    rebalanced: bool,
    /// Whether there may be news.
    assignment_changed: bool,
    /// Trouble; the latest of each partition, and of none in particular.
    errors: VecDeque<(Option<TopicPartition>, Error)>,
    records: VecDeque<Records>,
    /// Why nothing comes any more.
    closed: Option<Error>,
    /// The program is not in `recv`, since when, and what it took last: a partition and the first offset.
    last_poll: Option<Instant>,
    last_record: Option<(TopicPartition, i64)>,
    /// Whether the member has left the group until the program comes back.
    awaits_poll: bool,
    /// The offset behind what the program has been given, or where its first fetch starts.
    positions: HashMap<TopicPartition, i64>,
    /// Of the records that the program was given last: the position before and after them, and their leader's epoch.
    delivered: HashMap<TopicPartition, (i64, i64, i32)>,
    /// As of the last fetch.
    watermarks: HashMap<TopicPartition, Watermarks>,
    /// Their records wait.
    paused: HashSet<TopicPartition>,
    /// The offset behind what the program has handled, as far as that is taken from its asking for more.
    handled: BTreeMap<Lease, OffsetAndMetadata>,
}

/// Partitions that the program knows and is to give up.
#[derive(Debug)]
struct PendingRevocation {
    partitions: Vec<TopicPartition>,
    deadline: Instant,
    /// Until the program has seen it.
    unreported: Option<CancellationToken>,
}

impl EventQueue {
    pub(crate) fn new(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }

    /// For the tasks that have this queue.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// The group has shared out, and these have become ours, perhaps none: their records are taken from now on.
    pub(crate) fn on_assigned(&self, added: impl IntoIterator<Item = Lease>) {
        let mut s = self.lock();
        added.into_iter().for_each(|lease| s.assigned.insert(lease));
        s.rebalanced = true;
        self.notify_assignment(&mut s);
    }

    /// These are about to go; `drained` is cancelled when the program has finished with them. Records of them not yet
    /// delivered are discarded: whoever gets the partition reads them.
    pub(crate) fn on_revoke(&self, partitions: &[TopicPartition], deadline: Instant, drained: CancellationToken) {
        let mut s = self.lock();
        s.discard(partitions);
        let partitions: Vec<_> = partitions.iter().filter(|p| s.reported.contains(p)).cloned().collect();
        if partitions.is_empty() {
            drained.cancel();
        } else {
            s.revocation = Some(PendingRevocation { partitions, deadline, unreported: Some(drained) });
            self.notify_assignment(&mut s);
        }
    }

    /// These are not ours any more, and the program knows or need not know; if it has not seen their revocation, they are lost.
    pub(crate) fn on_revoked(&self, partitions: &[TopicPartition]) {
        let mut s = self.lock();
        s.discard(partitions);
        if s.revocation.take().is_none_or(|r| r.unreported.is_none()) {
            s.reported.remove(partitions);
        }
        let gone: HashSet<_> = partitions.iter().collect();
        s.handled.retain(|lease, _| !gone.contains(&lease.partition));
        self.notify_assignment(&mut s);
    }

    /// These have gone without a drain, or in the midst of one.
    pub(crate) fn on_lost(&self, partitions: &[TopicPartition]) {
        let mut s = self.lock();
        s.discard(partitions);
        let gone: HashSet<_> = partitions.iter().collect();
        s.revocation = s.revocation.take().filter(|r| !r.partitions.iter().any(|p| gone.contains(p)));
        self.notify_assignment(&mut s);
    }

    /// The program has handled a partition up to this offset.
    pub(crate) fn mark_handled(&self, lease: Lease, offset: OffsetAndMetadata) {
        let mut s = self.lock();
        if s.reported.holds(&lease) {
            s.handled.insert(lease, offset);
        }
    }

    /// All that it has handled of what it has not given up.
    pub(crate) fn handled_offsets(&self) -> Vec<(Lease, OffsetAndMetadata)> {
        self.lock().handled.iter().map(|(lease, offset)| (lease.clone(), offset.clone())).collect()
    }

    fn notify_assignment(&self, s: &mut QueueState) {
        s.assignment_changed = true;
        self.ready.notify_one();
    }

    /// Records of a partition; dropped if it is not ours any more.
    pub(crate) fn push_records(&self, lease: &Lease, records: Records) {
        let mut s = self.lock();
        if s.assigned.holds(lease) {
            s.records.push_back(records);
            self.ready.notify_one();
        }
    }

    /// Trouble with a partition, or with none in particular. What is read goes on.
    pub(crate) fn push_error(&self, lease: Option<&Lease>, error: Error) {
        let mut s = self.lock();
        if lease.is_none_or(|lease| s.assigned.holds(lease)) {
            let partition = lease.map(|lease| lease.partition.clone());
            s.errors.retain(|(p, _)| *p != partition);
            s.errors.push_back((partition, error));
            self.ready.notify_one();
        }
    }

    /// Where reading a partition starts.
    pub(crate) fn set_position(&self, lease: &Lease, offset: i64) {
        let mut s = self.lock();
        if s.assigned.holds(lease) {
            s.positions.insert(lease.partition.clone(), offset);
        }
    }

    /// Reading goes on elsewhere: at `offset`, where that is known. What waits of the partition is of before, and dropped.
    pub(crate) fn on_seek(&self, lease: &Lease, offset: Option<i64>) {
        let mut s = self.lock();
        if s.assigned.holds(lease) {
            s.drop_queued(&lease.partition);
            match offset {
                Some(offset) => _ = s.positions.insert(lease.partition.clone(), offset),
                None => _ = s.positions.remove(&lease.partition),
            }
        }
    }

    /// The log was cut at `end`: what waits is dropped. Gives where reading is to go on: there, or where the program is if it
    /// has not come that far.
    pub(crate) fn truncate(&self, lease: &Lease, end: i64) -> i64 {
        let mut s = self.lock();
        let at = s.positions.get(&lease.partition).map_or(end, |position| end.min(*position));
        if s.assigned.holds(lease) {
            s.drop_queued(&lease.partition);
            s.positions.insert(lease.partition.clone(), at);
        }
        at
    }

    /// Holds back what waits and what comes of these, or no longer.
    pub(crate) fn set_paused(&self, leases: &[Lease], paused: bool) {
        let mut s = self.lock();
        for lease in leases.iter().cloned() {
            if paused && s.assigned.holds(&lease) {
                s.paused.insert(lease.partition);
            } else if !paused {
                s.paused.remove(&lease.partition);
            }
        }
        self.ready.notify_one();
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        self.lock().paused.iter().cloned().collect()
    }

    /// Where the log begins and ends, as of a fetch.
    pub(crate) fn set_watermarks(&self, lease: &Lease, marks: Watermarks) {
        let mut s = self.lock();
        if s.assigned.holds(lease) {
            s.watermarks.insert(lease.partition.clone(), marks);
        }
    }

    pub(crate) fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        self.lock().watermarks.get(partition).copied()
    }

    /// Nothing comes any more but the news that is here already.
    pub(crate) fn close(&self, why: Error) {
        let mut s = self.lock();
        s.records.clear();
        s.errors.clear();
        s.closed.get_or_insert(why);
        self.ready.notify_one();
    }

    /// The next event, if there is one.
    pub(crate) fn pop(&self) -> Option<Result<ConsumerEvent>> {
        let mut s = self.lock();
        s.last_record = None;
        s.next_before_records().or_else(|| Some(Ok(ConsumerEvent::Records(self.deliver(&mut s)?))))
    }

    /// The next event that goes before what is left of a batch; and whether that still counts, for reading may go on elsewhere.
    pub(crate) fn pop_before(&self, batch: &Records) -> (Option<Result<ConsumerEvent>>, bool) {
        let mut s = self.lock();
        self.on_poll(&mut s);
        s.last_poll = Some(Instant::now()); // it goes away with the next record
        let stays = s.positions.get(&batch.topic_partition()) == Some(&batch.next_offset);
        (s.next_before_records(), stays)
    }

    /// All records that are here and that nothing comes before.
    pub(crate) fn pop_records(&self) -> Vec<Records> {
        let mut s = self.lock();
        match s.assignment_changed || s.closed.is_some() || !s.errors.is_empty() {
            true => Vec::new(),
            false => std::iter::from_fn(|| self.deliver(&mut s)).collect(),
        }
    }

    /// The next records, which the program is handed.
    fn deliver(&self, s: &mut QueueState) -> Option<Records> {
        let records = s.next_records();
        records.iter().for_each(|records| self.meter.consumed(records));
        records
    }

    /// The program asks for the next event, until what this gives is dropped.
    pub(crate) fn start_poll(&self) -> PollGuard<'_> {
        self.on_poll(&mut self.lock());
        PollGuard(self)
    }

    fn on_poll(&self, s: &mut QueueState) {
        s.last_poll = None;
        if std::mem::take(&mut s.awaits_poll) {
            self.polled.notify_one();
        }
    }

    /// Since when the program has not asked for an event, and what it took last.
    pub(crate) fn last_poll(&self) -> Option<(Instant, Option<(TopicPartition, i64)>)> {
        let s = self.lock();
        s.last_poll.map(|since| (since, s.last_record.clone()))
    }

    /// The member leaves until the program comes [`polled`](Self::polled); whether it is here already.
    pub(crate) fn wait_for_poll(&self) -> bool {
        let mut s = self.lock();
        s.awaits_poll = s.last_poll.is_some();
        !s.awaits_poll
    }

    /// Resolves when an expelled program asks for the next event. For one waiter.
    pub(crate) async fn polled(&self) {
        self.polled.notified().await;
    }

    /// Resolves when there may be something. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// The leases in whose name the program acts: those it has been told of and has not given up.
    pub(crate) fn reported(&self) -> Leases {
        self.lock().reported.clone()
    }

    /// Its lease, if the program has been told of it and it is not about to go.
    pub(crate) fn active_lease(&self, partition: &TopicPartition) -> Option<Lease> {
        let s = self.lock();
        s.reported.of(partition).filter(|lease| s.assigned.holds(lease))
    }

    /// The leader epoch of the record before an offset, if the program was given it last.
    pub(crate) fn leader_epoch(&self, partition: &TopicPartition, offset: i64) -> Option<i32> {
        let (before, next, epoch) = self.lock().delivered.get(partition).copied()?;
        (before < offset && offset <= next).then_some(epoch)
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.lock().positions.get(partition).copied()
    }
}

/// While the program waits for an event.
pub(crate) struct PollGuard<'a>(&'a EventQueue);

impl PollGuard<'_> {
    /// Until it attends the next time.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().last_poll = Some(Instant::now());
    }
}

impl QueueState {
    fn next_before_records(&mut self) -> Option<Result<ConsumerEvent>> {
        if self.assignment_changed {
            if let Some(event) = self.next_assignment_event() {
                return Some(Ok(event));
            }
            self.assignment_changed = false;
        }
        let error = || self.errors.pop_front().map(|(_, e)| e);
        self.closed.clone().or_else(error).map(Err)
    }

    fn next_records(&mut self) -> Option<Records> {
        let is_paused = |r: &Records| !self.paused.is_empty() && self.paused.contains(&r.topic_partition());
        let next = self.records.iter().position(|r| !is_paused(r))?;
        let records = self.records.remove(next)?;
        self.last_record = records.records.first().map(|r| (records.topic_partition(), r.offset));
        let partition = records.topic_partition();
        let before = self.positions.insert(partition.clone(), records.next_offset).unwrap_or(-1);
        match records.leader_epoch {
            Some(epoch) => _ = self.delivered.insert(partition, (before, records.next_offset, epoch)),
            None => _ = self.delivered.remove(&partition),
        }
        Some(records)
    }

    /// What the program is to be told next of the assignment.
    fn next_assignment_event(&mut self) -> Option<ConsumerEvent> {
        let revoking: HashSet<_> = self.revocation.iter().flat_map(|r| &r.partitions).collect();
        let lost = self.reported.all().filter(|l| !self.assigned.holds(l) && !revoking.contains(&l.partition));
        let lost: Vec<_> = lost.map(|l| l.partition).collect();
        if !lost.is_empty() {
            self.reported.remove(&lost);
            let gone: HashSet<_> = lost.iter().collect();
            self.handled.retain(|lease, _| !gone.contains(&lease.partition));
            return Some(ConsumerEvent::Lost(lost));
        }
        if let Some(r) = &mut self.revocation {
            if let Some(drained) = r.unreported.take() {
                let (partitions, deadline) = (r.partitions.clone(), r.deadline);
                return Some(ConsumerEvent::Revoked(Revocation {
                    partitions,
                    deadline,
                    _drained: drained.drop_guard(),
                }));
            }
        }
        if !std::mem::take(&mut self.rebalanced) {
            return None;
        }
        let added: Vec<_> = self.assigned.all().filter(|l| !self.reported.holds(l)).collect();
        added.iter().for_each(|l| self.reported.insert(l.clone()));
        Some(ConsumerEvent::Assigned(added.into_iter().map(|l| l.partition).collect()))
    }

    fn drop_queued(&mut self, partition: &TopicPartition) {
        self.records.retain(|r| r.topic != partition.topic || r.partition != partition.partition);
        self.errors.retain(|(p, _)| p.as_ref() != Some(partition));
    }

    /// Nothing of these comes any more.
    fn discard(&mut self, partitions: &[TopicPartition]) {
        let gone: HashSet<_> = partitions.iter().collect();
        self.assigned.remove(partitions);
        self.records.retain(|r| !gone.contains(&r.topic_partition()));
        self.errors.retain(|(p, _)| p.as_ref().is_none_or(|p| !gone.contains(p)));
        for p in partitions {
            self.positions.remove(p);
            self.watermarks.remove(p);
            self.delivered.remove(p);
            self.paused.remove(p);
        }
        if self.assigned.is_empty() {
            self.rebalanced = false; // what was shared out is over before the program saw it
        }
    }
}

#[cfg(test)]
mod tests;
