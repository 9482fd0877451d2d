//! The batches of one partition, in order, and the sequences by which its leader sees what is
//! missing or repeated.
//!
//! A batch gets its sequence when it is first sent and keeps it for every retry. Up to
//! [`MAX_IN_FLIGHT_BATCHES`] are in flight at a time, over one connection, in the order of their
//! sequences. When one has to be retried, the partition drains: nothing is sent until all that is
//! in flight has returned. Then the first batch is sent alone, with the sequence it had, and the
//! others follow once it is acknowledged. The very first batch is sent alone, too, and the first
//! after a pause: a leader that does not know a producer yet, or has forgotten it, accepts any
//! sequence, so that a batch that overtook a failed one would not be noticed.
//!
//! Sequences that no batch will carry any more (of a batch that failed, or that expired before its
//! outcome was known) are a gap that the leader rejects everything behind. Once the partition is
//! drained, the gap is closed by a new producer epoch, in which sequences start at 0 (KIP-360): see
//! [`resolve_gap`](PartitionQueue::resolve_gap). Leaders keep epoch and sequence of a producer by
//! partition, so each partition can have an epoch of its own. In a transaction the epoch is the
//! coordinator's, one for all partitions: there a gap ends the transaction instead
//! ([`accumulator/transaction`](super::accumulator)).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, BatchState, FinishedBatch, Payload, Piece, SendOutcome};
use crate::error::Error;
use crate::record::ProducerSequence;

/// Maximum number of a partition's batches in flight: as many as a leader remembers of a producer,
/// to recognise repeated ones.
const MAX_IN_FLIGHT_BATCHES: usize = 5;

/// The id and epoch by which brokers know an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerIdAndEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// State that all partitions of a producer have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendContext {
    pub(super) linger: Duration,
    /// True if batches belong to transactions: a partition sends none before it is part of one.
    pub(super) transactional: bool,
    /// Without idempotence one batch is in flight at a time, so that a retry keeps the order.
    pub(super) idempotent: bool,
    /// The producer's latest id; none until a broker has assigned one.
    pub(super) producer_id: Option<ProducerIdAndEpoch>,
}

/// A partition's part in the open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionPart {
    /// It has none; also of a producer without transactions.
    None,
    /// The coordinator is to add it: nothing may be sent yet.
    Adding,
    Added,
}

/// The batches of one partition. See the module.
#[derive(Debug)]
pub(super) struct PartitionQueue {
    pub(super) leader: i32,
    /// True if the producer is transactional.
    transactional: bool,
    pub(super) transaction: TransactionPart,
    /// True if it is queued with its leader: if and only if it has a batch to send.
    pub(super) is_queued: bool,
    /// First the batches with a sequence, in its order, then the others. Unless `draining`, those
    /// in flight come first.
    pub(super) queue: VecDeque<Batch>,
    /// Size of the last batch: the capacity of the next one.
    pub(super) last_batch_bytes: usize,
    in_flight: usize,
    last_batch_number: u64,
    /// True if nothing may be sent until all that is in flight has returned.
    draining: bool,
    /// True if the last batch that returned was written and others were queued since: batches may
    /// be sent without waiting for each other.
    pipelining: bool,
    /// True if some sequences will not be carried by any batch.
    sequence_gap: bool,
    /// True if the leader has rejected the epoch since the last one began.
    fenced: bool,
    /// Number of epochs that were rejected one after the other. After the first the epoch is
    /// raised, which also fences what old connections may still deliver; after the second the id is
    /// dropped.
    fenced_epochs: u32,
    /// Producer id, epoch and sequence of the next batch; none to start with the producer's latest
    /// id.
    next_sequence: Option<ProducerSequence>,
}

impl PartitionQueue {
    pub(super) fn new(leader: i32, transactional: bool) -> Self {
        Self {
            leader,
            transactional,
            transaction: TransactionPart::None,
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

    /// Returns whether it has a producer id of its own.
    pub(super) fn has_producer_id(&self) -> bool {
        self.next_sequence.is_some()
    }

    pub(super) fn next_batch_number(&mut self) -> u64 {
        self.last_batch_number += 1;
        self.last_batch_number
    }

    /// Returns the index of the batch to send next, as soon as it is ready; `None` if another must
    /// return first.
    pub(super) fn next_to_send(&self, context: SendContext) -> Option<usize> {
        let window = if context.idempotent && self.pipelining { MAX_IN_FLIGHT_BATCHES } else { 1 };
        if self.in_flight >= window || (self.draining && self.in_flight > 0) {
            return None;
        }
        if context.idempotent && self.next_sequence.is_none() && context.producer_id.is_none() {
            return None;
        }
        if context.transactional && self.transaction != TransactionPart::Added {
            return None;
        }
        let batch = self.queue.get(self.in_flight)?;
        // Without linger, the records that arrive while a batch is in flight make the next one.
        let collects = self.in_flight > 0 && context.linger.is_zero() && matches!(batch.state, BatchState::Open(_));
        (!collects).then_some(self.in_flight)
    }

    /// Takes the bytes of the [next batch](Self::next_to_send), and assigns its sequence.
    pub(super) fn send(&mut self, context: SendContext) -> Option<(&Batch, Payload)> {
        let batch = self.queue.get_mut(self.in_flight)?;
        let payload = batch.send()?;
        self.in_flight += 1;
        if context.idempotent && batch.producer.is_none() {
            let first = |i: ProducerIdAndEpoch| ProducerSequence {
                id: i.id,
                epoch: i.epoch,
                sequence: 0,
                is_transactional: context.transactional,
            };
            let producer = self.next_sequence.or(context.producer_id.map(first))?;
            batch.producer = Some(producer);
            self.next_sequence = Some(producer.skip(batch.records));
        }
        Some((batch, payload))
    }

    /// Notes a new leader: it gets nothing before all has returned from the old one.
    pub(super) fn on_leader_change(&mut self) {
        self.draining |= self.in_flight > 0;
        self.pipelining = false;
    }

    /// Notes that the topic was recreated: its leader knows none of the sequences.
    pub(super) fn on_topic_recreated(&mut self) {
        self.on_leader_change();
        if self.transactional && self.queue.is_empty() {
            self.next_sequence = None; // nothing is lost: the next transaction starts over
        } else {
            self.sequence_gap = self.next_sequence.is_some();
        }
    }

    /// Returns whether a sequence will not be carried by any batch, since the last call. For
    /// transactional producers, which raise no epoch by themselves.
    pub(super) fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.sequence_gap)
    }

    /// Starts the sequences over, with the producer's latest id and epoch.
    pub(super) fn restart_sequences(&mut self) {
        self.next_sequence = None;
        self.sequence_gap = false;
        self.pipelining = false;
    }

    /// Takes the outcome of a batch in flight: finishes it, or puts it back to its place in the
    /// queue to be retried. [`resolve_gap`](Self::resolve_gap) must be called next.
    pub(super) fn complete(
        &mut self,
        now: Instant,
        number: u64,
        outcome: SendOutcome,
        finished: &mut Vec<FinishedBatch>,
    ) {
        let Some(at) = self.queue.iter().position(|b| b.number == number && b.is_sent()) else {
            return; // aborted meanwhile
        };
        let Some(mut batch) = self.queue.remove(at) else { return };
        self.in_flight -= 1;
        // A batch that has expired while its request was in flight is not retried:
        // 1. Batch A (sequence 5, of 3 records) is in flight when its delivery timeout passes.
        //    `fail_where` fails its deliveries and sets `expired_in_flight`. A stays in the queue:
        //    it may be in the log, and who knows whether sequence 5 or 8 is the next one.
        // 2a. The response says that A was written, or was there before: 8 is the next one, as it
        //     would be without the timeout. The completion ignores this second result.
        // 2b. The response is an error, or the request itself timed out: A, which nobody waits for,
        //     is dropped, and its sequences are a gap (`lose_sequence`).
        // `fail_where`'s result may reach the completion after this one. So an error is the same
        // one: the caller gets it in either order.
        let expired = batch.expired_in_flight;
        let result = match outcome {
            SendOutcome::Written(info) => Ok(info),
            SendOutcome::Duplicate { info, .. } if batch.maybe_written || expired => Ok(info),
            SendOutcome::Duplicate { error, .. } => {
                let why = "the broker has its sequence numbers from a batch that is not this one";
                Err(batch.indeterminate(why, Some(error)))
            }
            SendOutcome::Failed(error) => Err(batch.permanent_failure(error)),
            SendOutcome::InvalidResponse(error) => {
                Err(batch.indeterminate("the broker's response is invalid", Some(error)))
            }
            SendOutcome::TooLarge { error, halves } => match halves {
                Some(halves) if !expired => {
                    let halves = halves.into_iter().map(|(bytes, records)| Piece { records, outcome: Ok(bytes) });
                    return self.replace_with_pieces(now, at, batch, halves.collect(), finished);
                }
                _ => Err(batch.permanent_failure(error)),
            },
            // If an earlier attempt may have been written, no broker would recognise its records in
            // other batches.
            SendOutcome::BadRecords { error, .. } if expired || batch.maybe_written => {
                Err(batch.permanent_failure(error))
            }
            SendOutcome::BadRecords { pieces, .. } => {
                return self.replace_with_pieces(now, at, batch, pieces, finished);
            }
            SendOutcome::Retry { retry, .. } | SendOutcome::OutOfSequence(retry) | SendOutcome::Fenced(retry)
                if expired =>
            {
                Err(batch.last_error().unwrap_or(retry.error))
            }
            SendOutcome::OutOfSequence(retry) | SendOutcome::Fenced(retry) if batch.producer.is_none() => {
                Err(batch.permanent_failure(retry.error)) // sent without producer id and sequence
            }
            // The coordinator alone can raise the epoch of a transaction, for all partitions.
            SendOutcome::Fenced(retry) if self.transactional => Err(batch.permanent_failure(retry.error)),
            SendOutcome::OutOfSequence(retry) if self.transactional && at == 0 => {
                Err(batch.permanent_failure(retry.error))
            }
            SendOutcome::Retry { retry, maybe_written } => {
                batch.retry(retry, maybe_written, now);
                return self.requeue(at, batch);
            }
            SendOutcome::OutOfSequence(mut retry) => {
                // Only the first batch of the queue shows that the leader lacks a sequence for
                // good:
                // 1. A (sequence 5), B (6) and C (7) are in flight. A returns with
                //    NOT_ENOUGH_REPLICAS, to be retried.
                // 2. B and C return with OUT_OF_ORDER_SEQUENCE_NUMBER, for the leader expects 5.
                //    They are retried behind A, without a backoff of their own, and are accepted if
                //    A is.
                // 3. If A itself is out of order, nothing in front of it can change that: the
                //    leader has lost the producer's state, with the log that it was in. Only a new
                //    epoch is accepted.
                if at == 0 {
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
        finished.push(batch.finish(result));
    }

    /// Replaces a batch by its pieces; those that fail leave a gap.
    fn replace_with_pieces(
        &mut self,
        now: Instant,
        mut at: usize,
        batch: Batch,
        pieces: Vec<Piece>,
        finished: &mut Vec<FinishedBatch>,
    ) {
        self.pause_until_drained();
        let last_number = &mut self.last_batch_number;
        let number = || {
            *last_number += 1;
            *last_number
        };
        let parts = batch.split_into(pieces.iter().map(|piece| piece.records), number, now);
        for (mut part, piece) in parts.into_iter().zip(pieces) {
            match piece.outcome {
                Ok(bytes) => {
                    part.set_payload(bytes);
                    self.queue.insert(at, part);
                    at += 1;
                }
                Err(error) => {
                    self.lose_sequence(&part);
                    finished.push(part.finish(Err(error)));
                }
            }
        }
    }

    fn pause_until_drained(&mut self) {
        self.draining = true;
        self.pipelining = false;
    }

    fn requeue(&mut self, at: usize, batch: Batch) {
        self.queue.insert(at, batch);
        self.pause_until_drained();
    }

    /// Notes that a batch will not be sent again: its sequences, if it has any, are a gap.
    fn lose_sequence(&mut self, batch: &Batch) {
        if batch.producer.is_some() {
            self.sequence_gap = true;
            self.pause_until_drained();
        }
    }

    /// Fails the batches for which `error_for` has an error. One that is in flight keeps its place,
    /// and its share of the buffer, until its outcome is known.
    pub(super) fn fail_where(
        &mut self,
        finished: &mut Vec<FinishedBatch>,
        mut error_for: impl FnMut(&Batch) -> Option<Error>,
    ) {
        for mut batch in std::mem::take(&mut self.queue) {
            match error_for(&batch) {
                Some(error) if batch.is_sent() => {
                    finished.extend((!batch.expired_in_flight).then(|| batch.expire_in_flight(error)));
                    self.queue.push_back(batch);
                }
                Some(error) => {
                    self.lose_sequence(&batch);
                    finished.push(batch.finish(Err(error)));
                }
                None => self.queue.push_back(batch),
            }
        }
    }

    /// Fails all batches, in flight or not.
    pub(super) fn abort(&mut self, why: &str) -> impl Iterator<Item = FinishedBatch> {
        self.in_flight = 0;
        self.is_queued = false;
        // The deliveries of those that expired in flight have failed already.
        self.queue.drain(..).filter(|batch| !batch.expired_in_flight).map(|batch| {
            let error = batch.closed_error(why);
            batch.finish(Err(error))
        })
    }

    /// Closes a sequence gap with a new epoch, once nothing is in flight. Returns the producer id
    /// if it is of no use any more.
    pub(super) fn resolve_gap(&mut self, finished: &mut Vec<FinishedBatch>) -> Option<i64> {
        // What a new epoch does, and why not before all has returned:
        // 1. A (epoch 4, sequence 5), B (6) and C (7) are in flight. A fails with INVALID_RECORD:
        //    nothing will carry 5.
        // 2. B returns with OUT_OF_ORDER_SEQUENCE_NUMBER, as would all that is sent in epoch 4 from
        //    now on. The connection breaks before C's response: for all that is known here, C may
        //    be in the log, or in a socket buffer of its broker.
        // 3. Now nothing is in flight. B is sent as epoch 5, sequence 0, which the leader accepts
        //    whatever came before (KIP-360). Had it been sent while C was in flight, C might have
        //    returned as fenced though it was in time.
        // 4. What is left of C in socket buffers is rejected from now on, with
        //    INVALID_PRODUCER_EPOCH: it can't be written behind B.
        // 5. So C can't be retried: if it is in the log, as (4, 7), the leader would not recognise
        //    it as (5, 1) and would write it twice. It fails as indeterminate.
        if self.in_flight > 0 {
            return None;
        }
        self.draining = false;
        if self.transactional || !std::mem::take(&mut self.sequence_gap) {
            return None; // of a transaction: `take_gap` has it
        }
        self.pipelining = false;
        for mut batch in std::mem::take(&mut self.queue) {
            if batch.producer.take().is_some() && batch.maybe_written {
                let why = "and could not be recognised if they were sent again: the producer's sequence was broken";
                let error = batch.indeterminate(why, batch.last_error());
                finished.push(batch.finish(Err(error)));
            } else {
                self.queue.push_back(batch);
            }
        }
        let last = self.next_sequence?;
        // A new producer id fences nothing of the old one, so it comes after a second rejected epoch
        // only: then another producer has the id in a higher epoch, which fences what may be left of
        // the old one. A broker that rejects two epochs without knowing a higher one would break
        // this; brokers do not.
        self.fenced_epochs += u32::from(std::mem::take(&mut self.fenced));
        self.next_sequence = last.epoch.checked_add(1).filter(|_| self.fenced_epochs < 2).map(|epoch| {
            tracing::debug!(id = last.id, epoch, "a producer's epoch was raised");
            ProducerSequence { epoch, sequence: 0, ..last }
        });
        if self.next_sequence.is_some() {
            return None;
        }
        self.fenced_epochs = 0;
        Some(last.id)
    }
}
