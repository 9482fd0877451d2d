//! Events that wait for the application: assignment events first, then errors, then records.
//!
//! Assignment events are computed when the application polls: current assignment minus the one last
//! reported. So they are bounded whatever the group does meanwhile: an assignment that was revoked
//! before it was reported is never reported, and a revocation that ended before it was reported is
//! a loss.

use std::collections::{BTreeMap, HashSet, VecDeque};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{ConsumerEvent, Records, Revocation, Watermarks};
use super::lease::{Lease, Leases};
use super::metrics::Meter;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::record::TopicPartition;

/// Queue between the tasks of a consumer and the application.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    state: Lock<QueueState>,
    ready: Notify,
    /// Notified when the application polls while [`awaits_poll`](QueueState::awaits_poll).
    polled: Notify,
    meter: Meter,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Partitions of which records are queued.
    assigned: BTreeMap<TopicPartition, AssignedPartition>,
    /// Leases reported to the application as assigned, until it has finished their revocation.
    reported: Leases,
    revocation: Option<PendingRevocation>,
    /// True if a rebalance was completed since the last `Assigned` event.
    rebalanced: bool,
    /// True if there may be an assignment event.
    assignment_changed: bool,
    /// The latest error of each partition, and of none.
    errors: VecDeque<(Option<TopicPartition>, Error)>,
    records: VecDeque<Records>,
    /// Error that ended the consumer.
    closed: Option<Error>,
    /// End of the last poll; none during one.
    last_poll: Option<Instant>,
    /// Partition and first offset of the records delivered last.
    last_record: Option<(TopicPartition, i64)>,
    /// True if the member has left the group until the next poll.
    awaits_poll: bool,
    /// Offsets to commit, where a poll counts the records delivered before it as handled.
    handled: BTreeMap<Lease, OffsetAndMetadata>,
}

#[derive(Debug, Default)]
struct AssignedPartition {
    /// Epoch of its lease.
    epoch: u64,
    /// Offset after the delivered records, or the start of the first fetch.
    position: Option<i64>,
    /// Range of the records delivered last, and their leader epoch.
    delivered: Option<(i64, i64, i32)>,
    /// Watermarks as of the last fetch.
    watermarks: Option<Watermarks>,
    /// True if its records stay queued.
    paused: bool,
}

/// A revocation of partitions that were reported as assigned.
#[derive(Debug)]
struct PendingRevocation {
    partitions: Vec<TopicPartition>,
    deadline: Instant,
    /// Set until the revocation is reported.
    unreported: Option<CancellationToken>,
}

impl EventQueue {
    pub(crate) fn new(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Completes a rebalance, with new leases or none: records under them are queued from now on.
    pub(crate) fn on_assigned(&self, added: impl IntoIterator<Item = Lease>) {
        let mut s = self.state.lock();
        for Lease { partition, epoch } in added {
            s.assigned.insert(partition, AssignedPartition { epoch, ..AssignedPartition::default() });
        }
        s.rebalanced = true;
        self.notify_assignment(&mut s);
    }

    /// Starts the revocation of partitions; `drained` is cancelled when the application has
    /// finished with them. Their queued records are dropped: the next owner reads them.
    pub(crate) fn on_revoke(&self, partitions: &[TopicPartition], deadline: Instant, drained: CancellationToken) {
        let mut s = self.state.lock();
        s.discard(partitions);
        let partitions: Vec<_> = partitions.iter().filter(|p| s.reported.contains(p)).cloned().collect();
        if partitions.is_empty() {
            drained.cancel();
        } else {
            s.revocation = Some(PendingRevocation { partitions, deadline, unreported: Some(drained) });
            self.notify_assignment(&mut s);
        }
    }

    /// Ends a revocation. If it was not reported, the partitions are lost.
    pub(crate) fn on_revoked(&self, partitions: &[TopicPartition]) {
        let mut s = self.state.lock();
        s.discard(partitions);
        if s.revocation.take().is_none_or(|r| r.unreported.is_none()) {
            partitions.iter().for_each(|p| _ = s.reported.remove(p));
        }
        let revoked: HashSet<_> = partitions.iter().collect();
        s.handled.retain(|lease, _| !revoked.contains(&lease.partition));
        self.notify_assignment(&mut s);
    }

    /// Removes partitions without a drain, or during one.
    pub(crate) fn on_lost(&self, partitions: &[TopicPartition]) {
        let mut s = self.state.lock();
        s.discard(partitions);
        let lost: HashSet<_> = partitions.iter().collect();
        s.revocation = s.revocation.take().filter(|r| !r.partitions.iter().any(|p| lost.contains(p)));
        self.notify_assignment(&mut s);
    }

    /// Records the offset up to which a partition is handled.
    pub(crate) fn mark_handled(&self, lease: Lease, offset: OffsetAndMetadata) {
        let mut s = self.state.lock();
        if s.reported.holds(&lease) {
            s.handled.insert(lease, offset);
        }
    }

    /// Returns the handled offsets of all reported leases.
    pub(crate) fn handled_offsets(&self) -> Vec<(Lease, OffsetAndMetadata)> {
        self.state.lock().handled.iter().map(|(lease, offset)| (lease.clone(), offset.clone())).collect()
    }

    fn notify_assignment(&self, s: &mut QueueState) {
        s.assignment_changed = true;
        self.ready.notify_one();
    }

    /// Queues records, unless their lease has ended.
    pub(crate) fn push_records(&self, lease: &Lease, records: Records) {
        let mut s = self.state.lock();
        // 1. A fetch under epoch 1 is in flight.
        // 2. The partition is revoked, and assigned again under epoch 2 from the offset committed meanwhile.
        // 3. The records of 1 arrive. Their partition is assigned, but not under their lease: delivered, they would be handled twice
        //    and move the position back.
        if s.is_assigned(lease) {
            s.records.push_back(records);
            self.ready.notify_one();
        }
    }

    /// Queues an error of a partition, or of none.
    pub(crate) fn push_error(&self, lease: Option<&Lease>, error: Error) {
        let mut s = self.state.lock();
        if lease.is_none_or(|lease| s.is_assigned(lease)) {
            let partition = lease.map(|lease| lease.partition.clone());
            s.errors.retain(|(p, _)| *p != partition);
            s.errors.push_back((partition, error));
            self.ready.notify_one();
        }
    }

    /// Sets the offset of the first fetch.
    pub(crate) fn set_position(&self, lease: &Lease, offset: i64) {
        let mut s = self.state.lock();
        if let Some(assigned) = s.assigned(lease) {
            assigned.position = Some(offset);
        }
    }

    /// Drops what is queued of a partition and sets its position, if the offset is known.
    pub(crate) fn on_seek(&self, lease: &Lease, offset: Option<i64>) {
        let mut s = self.state.lock();
        if let Some(assigned) = s.assigned(lease) {
            assigned.position = offset;
            s.drop_queued(&lease.partition);
        }
    }

    /// Drops what is queued of a partition whose log was truncated to `end`. Returns the new
    /// position: `end`, or the present position if that is lower.
    pub(crate) fn truncate(&self, lease: &Lease, end: i64) -> i64 {
        let mut s = self.state.lock();
        let Some(assigned) = s.assigned(lease) else { return end };
        let at = assigned.position.map_or(end, |position| end.min(position));
        assigned.position = Some(at);
        s.drop_queued(&lease.partition);
        at
    }

    /// Pauses or resumes delivery.
    pub(crate) fn set_paused(&self, leases: &[Lease], paused: bool) {
        let mut s = self.state.lock();
        for lease in leases {
            if let Some(assigned) = s.assigned(lease) {
                assigned.paused = paused;
            }
        }
        self.ready.notify_one();
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        let s = self.state.lock();
        s.assigned.iter().filter(|(_, assigned)| assigned.paused).map(|(p, _)| p.clone()).collect()
    }

    pub(crate) fn set_watermarks(&self, lease: &Lease, marks: Watermarks) {
        let mut s = self.state.lock();
        if let Some(assigned) = s.assigned(lease) {
            assigned.watermarks = Some(marks);
        }
    }

    pub(crate) fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        self.state.lock().assigned.get(partition)?.watermarks
    }

    /// Ends the queue with an error. Assignment events that are due still come before it.
    pub(crate) fn close(&self, why: Error) {
        let mut s = self.state.lock();
        s.records.clear();
        s.errors.clear();
        s.closed.get_or_insert(why);
        self.ready.notify_one();
    }

    /// Returns the next event.
    pub(crate) fn pop(&self) -> Option<Result<ConsumerEvent>> {
        let mut s = self.state.lock();
        s.last_record = None;
        s.next_before_records().or_else(|| Some(Ok(ConsumerEvent::Records(self.deliver(&mut s)?))))
    }

    /// Returns the next event that comes before the rest of a batch, and whether the rest still
    /// counts: it does not after a seek or a revocation.
    pub(crate) fn pop_before(&self, batch: &Records) -> (Option<Result<ConsumerEvent>>, bool) {
        let mut s = self.state.lock();
        self.on_poll(&mut s);
        s.last_poll = Some(Instant::now()); // this poll ends with the record that it returns
        let position = s.assigned.get(&batch.topic_partition()).and_then(|assigned| assigned.position);
        let stays = position == Some(batch.next_offset);
        (s.next_before_records(), stays)
    }

    /// Returns all queued records, unless another event comes before them.
    pub(crate) fn pop_records(&self) -> Vec<Records> {
        let mut s = self.state.lock();
        match s.assignment_changed || s.closed.is_some() || !s.errors.is_empty() {
            true => Vec::new(),
            false => std::iter::from_fn(|| self.deliver(&mut s)).collect(),
        }
    }

    /// Takes the next records out and reports them as consumed.
    fn deliver(&self, s: &mut QueueState) -> Option<Records> {
        let records = s.next_records();
        records.iter().for_each(|records| self.meter.consumed(records));
        records
    }

    /// Starts a poll, which lasts until the guard is dropped.
    pub(crate) fn start_poll(&self) -> PollGuard<'_> {
        self.on_poll(&mut self.state.lock());
        PollGuard(self)
    }

    fn on_poll(&self, s: &mut QueueState) {
        s.last_poll = None;
        if std::mem::take(&mut s.awaits_poll) {
            self.polled.notify_one();
        }
    }

    /// Returns the end of the last poll and the records delivered last; none during a poll.
    pub(crate) fn last_poll(&self) -> Option<(Instant, Option<(TopicPartition, i64)>)> {
        let s = self.state.lock();
        s.last_poll.map(|since| (since, s.last_record.clone()))
    }

    /// Notes that the member leaves until [`polled`](Self::polled). Returns whether a poll is in
    /// progress.
    pub(crate) fn wait_for_poll(&self) -> bool {
        let mut s = self.state.lock();
        s.awaits_poll = s.last_poll.is_some();
        !s.awaits_poll
    }

    /// Resolves when the application polls after [`wait_for_poll`](Self::wait_for_poll). For one
    /// waiter.
    pub(crate) async fn polled(&self) {
        self.polled.notified().await;
    }

    /// Resolves when there may be an event. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Returns the leases that the application acts under.
    pub(crate) fn reported(&self) -> Leases {
        self.state.lock().reported.clone()
    }

    /// Returns the lease of a partition that was reported as assigned and is not being revoked.
    pub(crate) fn active_lease(&self, partition: &TopicPartition) -> Option<Lease> {
        let s = self.state.lock();
        s.reported.of(partition).filter(|lease| s.is_assigned(lease))
    }

    /// Returns the leader epoch of the record before an offset, if it is among those delivered
    /// last.
    pub(crate) fn leader_epoch(&self, partition: &TopicPartition, offset: i64) -> Option<i32> {
        let (before, next, epoch) = self.state.lock().assigned.get(partition)?.delivered?;
        (before < offset && offset <= next).then_some(epoch)
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.state.lock().assigned.get(partition)?.position
    }
}

/// A poll in progress.
pub(crate) struct PollGuard<'a>(&'a EventQueue);

impl PollGuard<'_> {
    /// Extends the poll until the next one starts.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().last_poll = Some(Instant::now());
    }
}

impl QueueState {
    fn assigned(&mut self, lease: &Lease) -> Option<&mut AssignedPartition> {
        self.assigned.get_mut(&lease.partition).filter(|assigned| assigned.epoch == lease.epoch)
    }

    fn is_assigned(&self, lease: &Lease) -> bool {
        self.assigned.get(&lease.partition).is_some_and(|assigned| assigned.epoch == lease.epoch)
    }

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
        let is_paused = |r: &Records| self.assigned.get(&r.topic_partition()).is_some_and(|assigned| assigned.paused);
        let next = self.records.iter().position(|r| !is_paused(r))?;
        let records = self.records.remove(next)?;
        self.last_record = records.records.first().map(|r| (records.topic_partition(), r.offset));
        let partition = records.topic_partition();
        if let Some(assigned) = self.assigned.get_mut(&partition) {
            let before = assigned.position.replace(records.next_offset).unwrap_or(-1);
            assigned.delivered = records.leader_epoch.map(|epoch| (before, records.next_offset, epoch));
        }
        Some(records)
    }

    /// Returns the next assignment event.
    fn next_assignment_event(&mut self) -> Option<ConsumerEvent> {
        let revoking: HashSet<_> = self.revocation.iter().flat_map(|r| &r.partitions).collect();
        let lost = self.reported.all().filter(|l| !self.is_assigned(l) && !revoking.contains(&l.partition));
        let lost: Vec<_> = lost.map(|l| l.partition).collect();
        if !lost.is_empty() {
            lost.iter().for_each(|p| _ = self.reported.remove(p));
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
        let lease = |(p, assigned): (&TopicPartition, &AssignedPartition)| {
            let lease = Lease { partition: p.clone(), epoch: assigned.epoch };
            (!self.reported.holds(&lease)).then_some(lease)
        };
        let added: Vec<_> = self.assigned.iter().filter_map(lease).collect();
        added.iter().for_each(|l| _ = self.reported.insert(l.clone()));
        Some(ConsumerEvent::Assigned(added.into_iter().map(|l| l.partition).collect()))
    }

    fn drop_queued(&mut self, partition: &TopicPartition) {
        self.records.retain(|r| r.topic != partition.topic || r.partition != partition.partition);
        self.errors.retain(|(p, _)| p.as_ref() != Some(partition));
    }

    /// Ends leases and drops all that is queued of them.
    fn discard(&mut self, partitions: &[TopicPartition]) {
        let gone: HashSet<_> = partitions.iter().collect();
        self.assigned.retain(|p, _| !gone.contains(p));
        self.records.retain(|r| !gone.contains(&r.topic_partition()));
        self.errors.retain(|(p, _)| p.as_ref().is_none_or(|p| !gone.contains(p)));
        if self.assigned.is_empty() {
            self.rebalanced = false; // the assignment ended before it was reported
        }
    }
}

#[cfg(test)]
mod tests;
