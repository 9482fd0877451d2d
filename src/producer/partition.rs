//! The batches of one partition, in order, and the sequence numbers that let its broker see what is missing or repeated.
//!
//! A batch gets its sequence number when it is first sent and keeps it for every further try. Up to [`WINDOW`] batches are
//! under way at a time, over one connection, in the order of their numbers. When one has to be sent again, nothing is sent
//! until all that is under way has come back; then the first goes alone, with the number it had, and the others follow once
//! it is acknowledged. Alone goes the first batch of all, too, and the first after a time in which nothing was to be sent: a
//! broker that does not know a producer yet, or has forgotten it, believes any number, so that a batch that overtook a failed
//! one would not be noticed.
//!
//! Numbers that no batch will bring any more (of a batch that failed, or whose time was over before its fate was known) are a
//! gap that the broker would not step over. Then, with nothing under way, the producer's epoch is raised and numbers begin at
//! 0 (KIP-360). The new epoch shuts out what an old connection may still hold, and for the same reason the broker could not
//! recognise under it a batch that is in the log already: a batch that may be there is failed and not sent again. Brokers
//! keep epoch and numbers of a producer by partition, so that each partition can have an epoch of its own.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, Ended, Outcome, Payload, Piece, State};
use crate::record::ProducerSequence;

/// Batches of a partition under way: as many as a broker remembers of a producer, to know repeated ones.
const WINDOW: usize = 5;

/// What a broker knows an idempotent producer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What is the same for all partitions of a producer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) linger: Duration,
    /// Without it one batch is under way at a time, so that a retry keeps the order.
    pub(super) idempotent: bool,
    /// The producer's latest identity; none until a broker has given one.
    pub(super) identity: Option<Identity>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) leader: i32,
    /// Whether it is in its leader's list: it is if and only if it has a batch to send.
    pub(super) listed: bool,
    /// First those that have a sequence number, in its order, then the others. Unless `held`, those under way come first.
    pub(super) queue: VecDeque<Batch>,
    /// The size of the batch before: room for the next one.
    pub(super) last_size: usize,
    under_way: usize,
    batches: u64,
    /// Nothing is sent until all that is under way is back.
    held: bool,
    /// The last batch that came back was written, and there have been others since: the next ones may go without waiting for
    /// each other.
    steady: bool,
    /// Some numbers will not be brought any more.
    gap: bool,
    /// Its broker has refused the identity.
    fenced: bool,
    /// How many epochs in a row it has refused. A higher one shuts out what old connections may hold, so that is tried first;
    /// then the id is of no more use.
    refusals: u32,
    /// The next batch's identity and number; none takes the producer's.
    next: Option<ProducerSequence>,
}

impl Partition {
    pub(super) fn new(leader: i32) -> Self {
        Self {
            leader,
            listed: false,
            queue: VecDeque::new(),
            last_size: 0,
            under_way: 0,
            batches: 0,
            held: false,
            steady: false,
            gap: false,
            fenced: false,
            refusals: 0,
            next: None,
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether it has an identity of its own.
    pub(super) fn has_identity(&self) -> bool {
        self.next.is_some()
    }

    /// A number for a new batch.
    pub(super) fn number(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// The place of the batch that is to be sent next, as soon as it is ready; none if something has to come back first.
    pub(super) fn candidate(&self, rules: Rules) -> Option<usize> {
        let window = if rules.idempotent && self.steady { WINDOW } else { 1 };
        if self.under_way >= window || (self.held && self.under_way > 0) {
            return None;
        }
        if rules.idempotent && self.next.is_none() && rules.identity.is_none() {
            return None;
        }
        let batch = self.queue.get(self.under_way)?;
        // Without linger, what comes while something is under way makes a batch.
        let waits = self.under_way > 0 && rules.linger.is_zero() && matches!(batch.state, State::Open(_));
        (!waits).then_some(self.under_way)
    }

    /// Sends the [`candidate`](Self::candidate).
    pub(super) fn send(&mut self, rules: Rules) -> Option<(&Batch, Payload)> {
        let batch = self.queue.get_mut(self.under_way)?;
        let payload = batch.send()?;
        self.under_way += 1;
        if rules.idempotent && batch.producer.is_none() {
            let first = |i: Identity| ProducerSequence { id: i.id, epoch: i.epoch, sequence: 0 };
            let producer = self.next.or(rules.identity.map(first))?;
            batch.producer = Some(producer);
            self.next = Some(producer.skip(batch.records));
        }
        Some((batch, payload))
    }

    /// From now on it is led by another broker, or its topic is another: nothing goes there before all is back from here.
    pub(super) fn hold(&mut self) {
        self.held |= self.under_way > 0;
        self.steady = false;
    }

    /// Its topic was made anew: the broker knows none of the numbers.
    pub(super) fn restart(&mut self) {
        self.hold();
        self.gap = self.next.is_some();
    }

    /// A batch is back. [`settle`](Self::settle) must be called next.
    pub(super) fn complete(&mut self, now: Instant, number: u64, outcome: Outcome, ended: &mut Vec<Ended>) {
        let Some(at) = self.queue.iter().position(|b| b.number == number && b.is_sent()) else {
            return; // all was failed in the meantime
        };
        let Some(mut batch) = self.queue.remove(at) else { return };
        self.under_way -= 1;
        // Whatever is in front of it has yet to be acknowledged, or to be sent again.
        let first = at == 0;
        let result = match outcome {
            Outcome::Written(written) => Ok(written),
            Outcome::Duplicate { written, .. } if batch.maybe_written || batch.given_up => Ok(written),
            Outcome::Duplicate { error, .. } => {
                let why = "the broker has its sequence numbers from a batch that is not this one";
                Err(batch.fate_unknown(why, Some(error)))
            }
            Outcome::Failed(error) => Err(batch.failed(error)),
            Outcome::Unknown(error) => Err(batch.fate_unknown("the broker's answer makes no sense", Some(error))),
            Outcome::TooLarge { error, halves } => match halves {
                Some(halves) if !batch.given_up => {
                    let halves = halves.into_iter().map(|(bytes, records)| Piece { records, outcome: Ok(bytes) });
                    return self.go_on_in_pieces(now, at, batch, halves.collect(), ended);
                }
                _ => Err(batch.failed(error)),
            },
            // A try that may have been written is not to be written again in other pieces, which no broker would recognise.
            Outcome::BadRecords { error, .. } if batch.given_up || batch.maybe_written => Err(batch.failed(error)),
            Outcome::BadRecords { pieces, .. } => return self.go_on_in_pieces(now, at, batch, pieces, ended),
            Outcome::Retry { again, .. } | Outcome::OutOfSequence(again) | Outcome::Fenced(again) if batch.given_up => {
                // Its records may not have been told yet: they are told the same, whoever comes first.
                Err(batch.last_error().unwrap_or(again.error))
            }
            Outcome::OutOfSequence(again) | Outcome::Fenced(again) if batch.producer.is_none() => {
                Err(batch.failed(again.error)) // it has no sequence, nor who sent it
            }
            Outcome::Retry { again, maybe_written } => {
                batch.retry(again, maybe_written, now);
                return self.back(at, batch);
            }
            Outcome::OutOfSequence(mut again) => {
                // One in front of it is missing: that one's try decides what comes next.
                if first {
                    self.gap = true;
                } else {
                    again.after = Duration::ZERO;
                }
                batch.retry(again, false, now);
                return self.back(at, batch);
            }
            Outcome::Fenced(again) => {
                self.fenced = true;
                self.gap = true;
                batch.retry(again, false, now);
                return self.back(at, batch);
            }
        };
        match result {
            Ok(_) => {
                self.steady = !self.held && !self.queue.is_empty();
                self.refusals = 0;
            }
            Err(_) => self.forget(&batch),
        }
        ended.push(batch.end(result));
    }

    /// Puts pieces of a batch in its place; those that fail leave a gap.
    fn go_on_in_pieces(&mut self, now: Instant, at: usize, batch: Batch, pieces: Vec<Piece>, ended: &mut Vec<Ended>) {
        self.hold_back();
        let batches = &mut self.batches;
        let number = || {
            *batches += 1;
            *batches
        };
        let parts = batch.cut(pieces.iter().map(|piece| piece.records), number, now);
        let mut at = at;
        for (mut part, piece) in parts.into_iter().zip(pieces) {
            match piece.outcome {
                Ok(bytes) => {
                    part.set_payload(bytes);
                    self.queue.insert(at, part);
                    at += 1;
                }
                Err(error) => {
                    self.forget(&part);
                    ended.push(part.end(Err(error)));
                }
            }
        }
    }

    /// Something has to be sent again.
    fn hold_back(&mut self) {
        self.held = true;
        self.steady = false;
    }

    fn back(&mut self, at: usize, batch: Batch) {
        self.queue.insert(at, batch);
        self.hold_back();
    }

    /// A batch will not be sent again: its numbers, if it has any, are missing from now on.
    fn forget(&mut self, batch: &Batch) {
        if batch.producer.is_some() {
            self.gap = true;
            self.hold_back();
        }
    }

    /// Ends what waits and is chosen by `judge`, and tells the handles of what is chosen but under way.
    pub(super) fn fail(
        &mut self,
        ended: &mut Vec<Ended>,
        mut judge: impl FnMut(&Batch) -> Option<crate::error::Error>,
    ) {
        for mut batch in std::mem::take(&mut self.queue) {
            match judge(&batch) {
                // It keeps its place, and its buffer, until its broker has answered.
                Some(error) if batch.is_sent() => {
                    ended.extend((!batch.given_up).then(|| batch.give_up(error)));
                    self.queue.push_back(batch);
                }
                Some(error) => {
                    self.forget(&batch);
                    ended.push(batch.end(Err(error)));
                }
                None => self.queue.push_back(batch),
            }
        }
    }

    /// Ends everything, whatever is under way.
    pub(super) fn abort(&mut self, why: &str) -> impl Iterator<Item = Ended> {
        self.under_way = 0;
        self.listed = false;
        // What was given up has ended already.
        self.queue.drain(..).filter(|batch| !batch.given_up).map(|batch| {
            let error = batch.abandoned(why);
            batch.end(Err(error))
        })
    }

    /// When all is back: closes a gap. Gives the producer id that is of no more use, if there is one.
    pub(super) fn settle(&mut self, ended: &mut Vec<Ended>) -> Option<i64> {
        if self.under_way > 0 {
            return None;
        }
        self.held = false;
        if !std::mem::take(&mut self.gap) {
            return None;
        }
        self.steady = false;
        for mut batch in std::mem::take(&mut self.queue) {
            if batch.producer.take().is_some() && batch.maybe_written {
                let why = "and could not be recognised if they were sent again: the producer's sequence was broken";
                let error = batch.fate_unknown(why, batch.last_error());
                ended.push(batch.end(Err(error)));
            } else {
                self.queue.push_back(batch);
            }
        }
        let before = self.next?;
        self.refusals += u32::from(std::mem::take(&mut self.fenced));
        self.next = before.epoch.checked_add(1).filter(|_| self.refusals < 2).map(|epoch| {
            tracing::debug!(id = before.id, epoch, "a producer's epoch was raised");
            ProducerSequence { epoch, sequence: 0, ..before }
        });
        if self.next.is_some() {
            return None;
        }
        self.refusals = 0;
        Some(before.id)
    }
}
