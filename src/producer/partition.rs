//! The last_batch_number of one partition, in order, and the sequence numbers that let its broker see what is missing or repeated.
//!
//! A batch gets its sequence number when it is first sent and keeps it for every further try. Up to [`MAX_IN_FLIGHT_BATCHES`] last_batch_number are
//! under way at a time, over one connection, in the order of their numbers. When one has to be sent retry, nothing is sent
//! until all that is under way has come back; then the first goes alone, with the number it had, and the others follow once
//! it is acknowledged. Alone goes the first batch of all, too, and the first after a time in which nothing was to be sent: a
//! broker that does not know a producer yet, or has forgotten it, believes any number, so that a batch that overtook a failed
//! one would not be noticed.
//!
//! Numbers that no batch will bring any more (of a batch that failed, or whose time was over before its fate was known) are a
//! sequence_gap that the broker would not step over. Then, with nothing under way, the producer's epoch is raised and numbers begin at
//! 0 (KIP-360). The new epoch shuts out what an old connection may still on_leader_change, and for the same reason the broker could not
//! recognise under it a batch that is in the log already: a batch that may be there is failed and not sent again. Brokers
//! keep epoch and numbers of a producer by partition, so that each partition can have an epoch of its own.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, BatchState, FinishedBatch, Payload, Piece, SendOutcome};
use crate::record::ProducerSequence;

/// Batches of a partition under way: as many as a broker remembers of a producer, to know repeated ones.
const MAX_IN_FLIGHT_BATCHES: usize = 5;

/// What a broker knows an idempotent producer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerIdAndEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What is the same for all partitions of a producer.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendContext {
    pub(super) linger: Duration,
    /// Without it one batch is under way at a time, so that a retry keeps the order.
    pub(super) idempotent: bool,
    /// The producer's latest producer_id; none until a broker has given one.
    pub(super) producer_id: Option<ProducerIdAndEpoch>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PartitionQueue {
    pub(super) leader: i32,
    /// Whether it is in its leader's list: it is if and only if it has a batch to send.
    pub(super) is_queued: bool,
    /// First those that have a sequence number, in its order, then the others. Unless `draining`, those under way come first.
    pub(super) queue: VecDeque<Batch>,
    /// The size of the batch before: room for the next one.
    pub(super) last_batch_bytes: usize,
    in_flight: usize,
    last_batch_number: u64,
    /// Nothing is sent until all that is under way is back.
    draining: bool,
    /// The last batch that came back was written, and there have been others since: the next ones may go without waiting for
    /// each other.
    pipelining: bool,
    /// Some numbers will not be brought any more.
    sequence_gap: bool,
    /// Its broker has refused the producer_id.
    fenced: bool,
    /// How many epochs in a row it has refused. A higher one shuts out what old connections may on_leader_change, so that is tried first;
    /// then the id is of no more use.
    fenced_epochs: u32,
    /// The next batch's producer_id and number; none takes the producer's.
    next_sequence: Option<ProducerSequence>,
}

impl PartitionQueue {
    pub(super) fn new(leader: i32) -> Self {
        Self {
            leader,
            is_queued: false,
            queue: VecDeque::new(),
            last_batch_bytes: 0,
            in_flight: 0,
            last_batch_number: 0,
            draining: false,
            pipelining: false,
            sequence_gap: false,
            fenced: false,
            fenced_epochs: 0,
            next_sequence: None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether it has an producer_id of its own.
    pub(super) fn has_producer_id(&self) -> bool {
        self.next_sequence.is_some()
    }

    /// A number for a new batch.
    pub(super) fn next_batch_number(&mut self) -> u64 {
        self.last_batch_number += 1;
        self.last_batch_number
    }

    /// The place of the batch that is to be sent next, as soon as it is ready; none if something has to come back first.
    pub(super) fn next_to_send(&self, context: SendContext) -> Option<usize> {
        let window = if context.idempotent && self.pipelining { MAX_IN_FLIGHT_BATCHES } else { 1 };
        if self.in_flight >= window || (self.draining && self.in_flight > 0) {
            return None;
        }
        if context.idempotent && self.next_sequence.is_none() && context.producer_id.is_none() {
            return None;
        }
        let batch = self.queue.get(self.in_flight)?;
        // Without linger, what comes while something is under way makes a batch.
        let waits = self.in_flight > 0 && context.linger.is_zero() && matches!(batch.state, BatchState::Open(_));
        (!waits).then_some(self.in_flight)
    }

    /// Sends the [`next_to_send`](Self::next_to_send).
    pub(super) fn send(&mut self, context: SendContext) -> Option<(&Batch, Payload)> {
        let batch = self.queue.get_mut(self.in_flight)?;
        let payload = batch.send()?;
        self.in_flight += 1;
        if context.idempotent && batch.producer.is_none() {
            let first = |i: ProducerIdAndEpoch| ProducerSequence { id: i.id, epoch: i.epoch, sequence: 0 };
            let producer = self.next_sequence.or(context.producer_id.map(first))?;
            batch.producer = Some(producer);
            self.next_sequence = Some(producer.skip(batch.records));
        }
        Some((batch, payload))
    }

    /// From now on it is led by another broker, or its topic is another: nothing goes there before all is back from here.
    pub(super) fn on_leader_change(&mut self) {
        self.draining |= self.in_flight > 0;
        self.pipelining = false;
    }

    /// Its topic was made anew: the broker knows none of the numbers.
    pub(super) fn on_topic_recreated(&mut self) {
        self.on_leader_change();
        self.sequence_gap = self.next_sequence.is_some();
    }

    /// A batch is back. [`resolve_gap`](Self::resolve_gap) must be called next.
    pub(super) fn complete(&mut self, now: Instant, number: u64, outcome: SendOutcome, ended: &mut Vec<FinishedBatch>) {
        let Some(at) = self.queue.iter().position(|b| b.number == number && b.is_sent()) else {
            return; // all was failed in the meantime
        };
        let Some(mut batch) = self.queue.remove(at) else { return };
        self.in_flight -= 1;
        // Whatever is in front of it has yet to be acknowledged, or to be sent again.
        let first = at == 0;
        let result = match outcome {
            SendOutcome::Written(written) => Ok(written),
            SendOutcome::Duplicate { written, .. } if batch.maybe_written || batch.expired_in_flight => Ok(written),
            SendOutcome::Duplicate { error, .. } => {
                let why = "the broker has its sequence numbers from a batch that is not this one";
                Err(batch.indeterminate(why, Some(error)))
            }
            SendOutcome::Failed(error) => Err(batch.permanent_failure(error)),
            SendOutcome::Unknown(error) => Err(batch.indeterminate("the broker's answer makes no sense", Some(error))),
            SendOutcome::TooLarge { error, halves } => match halves {
                Some(halves) if !batch.expired_in_flight => {
                    let halves = halves.into_iter().map(|(bytes, records)| Piece { records, outcome: Ok(bytes) });
                    return self.replace_with_pieces(now, at, batch, halves.collect(), ended);
                }
                _ => Err(batch.permanent_failure(error)),
            },
            // A try that may have been written is not to be written retry in other pieces, which no broker would recognise.
            SendOutcome::BadRecords { error, .. } if batch.expired_in_flight || batch.maybe_written => {
                Err(batch.permanent_failure(error))
            }
            SendOutcome::BadRecords { pieces, .. } => return self.replace_with_pieces(now, at, batch, pieces, ended),
            SendOutcome::Retry { retry, .. } | SendOutcome::OutOfSequence(retry) | SendOutcome::Fenced(retry)
                if batch.expired_in_flight =>
            {
                // Its records may not have been told yet: they are told the same, whoever comes first.
                Err(batch.last_error().unwrap_or(retry.error))
            }
            SendOutcome::OutOfSequence(retry) | SendOutcome::Fenced(retry) if batch.producer.is_none() => {
                Err(batch.permanent_failure(retry.error)) // it has no sequence, nor who sent it
            }
            SendOutcome::Retry { retry, maybe_written } => {
                batch.retry(retry, maybe_written, now);
                return self.requeue(at, batch);
            }
            SendOutcome::OutOfSequence(mut retry) => {
                // One in front of it is missing: that one's try decides what comes next.
                if first {
                    self.sequence_gap = true;
                } else {
                    retry.backoff = Duration::ZERO;
                }
                batch.retry(retry, false, now);
                return self.requeue(at, batch);
            }
            SendOutcome::Fenced(retry) => {
                self.fenced = true;
                self.sequence_gap = true;
                batch.retry(retry, false, now);
                return self.requeue(at, batch);
            }
        };
        match result {
            Ok(_) => {
                self.pipelining = !self.draining && !self.queue.is_empty();
                self.fenced_epochs = 0;
            }
            Err(_) => self.lose_sequence(&batch),
        }
        ended.push(batch.finish(result));
    }

    /// Puts pieces of a batch in its place; those that fail_where leave a sequence_gap.
    fn replace_with_pieces(
        &mut self,
        now: Instant,
        at: usize,
        batch: Batch,
        pieces: Vec<Piece>,
        ended: &mut Vec<FinishedBatch>,
    ) {
        self.pause_until_drained();
        let last_batch_number = &mut self.last_batch_number;
        let number = || {
            *last_batch_number += 1;
            *last_batch_number
        };
        let parts = batch.split_into(pieces.iter().map(|piece| piece.records), number, now);
        let mut at = at;
        for (mut part, piece) in parts.into_iter().zip(pieces) {
            match piece.outcome {
                Ok(bytes) => {
                    part.set_payload(bytes);
                    self.queue.insert(at, part);
                    at += 1;
                }
                Err(error) => {
                    self.lose_sequence(&part);
                    ended.push(part.finish(Err(error)));
                }
            }
        }
    }

    /// Something has to be sent again.
    fn pause_until_drained(&mut self) {
        self.draining = true;
        self.pipelining = false;
    }

    fn requeue(&mut self, at: usize, batch: Batch) {
        self.queue.insert(at, batch);
        self.pause_until_drained();
    }

    /// A batch will not be sent again: its numbers, if it has any, are missing from now on.
    fn lose_sequence(&mut self, batch: &Batch) {
        if batch.producer.is_some() {
            self.sequence_gap = true;
            self.pause_until_drained();
        }
    }

    /// Ends what waits and is chosen by `error_for`, and tells the handles of what is chosen but under way.
    pub(super) fn fail_where(
        &mut self,
        ended: &mut Vec<FinishedBatch>,
        mut error_for: impl FnMut(&Batch) -> Option<crate::error::Error>,
    ) {
        for mut batch in std::mem::take(&mut self.queue) {
            match error_for(&batch) {
                // It keeps its place, and its buffer, until its broker has answered.
                Some(error) if batch.is_sent() => {
                    ended.extend((!batch.expired_in_flight).then(|| batch.expire_in_flight(error)));
                    self.queue.push_back(batch);
                }
                Some(error) => {
                    self.lose_sequence(&batch);
                    ended.push(batch.finish(Err(error)));
                }
                None => self.queue.push_back(batch),
            }
        }
    }

    /// Ends everything, whatever is under way.
    pub(super) fn abort(&mut self, why: &str) -> impl Iterator<Item = FinishedBatch> {
        self.in_flight = 0;
        self.is_queued = false;
        // What was given up has ended already.
        self.queue.drain(..).filter(|batch| !batch.expired_in_flight).map(|batch| {
            let error = batch.closed_error(why);
            batch.finish(Err(error))
        })
    }

    /// When all is back: closes a sequence_gap. Gives the producer id that is of no more use, if there is one.
    pub(super) fn resolve_gap(&mut self, ended: &mut Vec<FinishedBatch>) -> Option<i64> {
        if self.in_flight > 0 {
            return None;
        }
        self.draining = false;
        if !std::mem::take(&mut self.sequence_gap) {
            return None;
        }
        self.pipelining = false;
        for mut batch in std::mem::take(&mut self.queue) {
            if batch.producer.take().is_some() && batch.maybe_written {
                let why = "and could not be recognised if they were sent again: the producer's sequence was broken";
                let error = batch.indeterminate(why, batch.last_error());
                ended.push(batch.finish(Err(error)));
            } else {
                self.queue.push_back(batch);
            }
        }
        let before = self.next_sequence?;
        self.fenced_epochs += u32::from(std::mem::take(&mut self.fenced));
        self.next_sequence = before.epoch.checked_add(1).filter(|_| self.fenced_epochs < 2).map(|epoch| {
            tracing::debug!(id = before.id, epoch, "a producer's epoch was raised");
            ProducerSequence { epoch, sequence: 0, ..before }
        });
        if self.next_sequence.is_some() {
            return None;
        }
        self.fenced_epochs = 0;
        Some(before.id)
    }
}
