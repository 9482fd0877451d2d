//! The fetched records of a partition, one by one.

use std::vec;

use tokio::sync::mpsc;

use super::lanes::Lanes;
use super::state::PartitionState;
use crate::consumer::{Message, Records};
use crate::record::Record;

pub(super) struct RecordSource {
    /// Unbounded, because the consumer bounds it: records count against `prefetch_bytes` until they
    /// are dropped.
    queue: mpsc::UnboundedReceiver<Records>,
    /// The batch of `rest`; it counts against `prefetch_bytes` until its last record is taken.
    open_batch: Option<Records>,
    rest: vec::IntoIter<Record>,
    put_back: Option<Message>,
    /// The next batch, received while waiting.
    received: Option<Records>,
    /// Number of records that were in the queue when it was closed.
    undelivered: usize,
}

impl RecordSource {
    pub(super) fn new(queue: mpsc::UnboundedReceiver<Records>) -> Self {
        Self { queue, open_batch: None, rest: Vec::new().into_iter(), put_back: None, received: None, undelivered: 0 }
    }

    /// Returns the next record that must be handled.
    pub(super) fn next<R>(&mut self, lanes: &mut Lanes<R>, state: &PartitionState) -> Option<Message> {
        if self.put_back.is_some() {
            return self.put_back.take();
        }
        loop {
            if let Some(batch) = &self.open_batch {
                for record in self.rest.by_ref() {
                    if lanes.admit(record.offset) {
                        return Some(batch.message(record));
                    }
                }
                lanes.advance_to(batch.next_offset);
                self.open_batch = None;
            }
            let records = self.received.take().or_else(|| self.queue.try_recv().ok())?;
            self.open(records, lanes, state);
        }
    }

    fn open<R>(&mut self, mut records: Records, lanes: &mut Lanes<R>, state: &PartitionState) {
        state.on_fetched_end(records.end_offset());
        lanes.start_from(records.records.first().map_or(records.next_offset, |r| r.offset));
        if let Some(epoch) = records.leader_epoch {
            lanes.set_leader_epoch(epoch);
        }
        self.rest = std::mem::take(&mut records.records).into_iter();
        self.open_batch = Some(records);
    }

    /// Makes a record that can't be handled yet the next one again.
    pub(super) fn put_back(&mut self, message: Message) {
        self.put_back = Some(message);
    }

    /// Returns whether the next record must be received from the queue. Does not look into the
    /// queue: a batch that arrives between the last [`next`](Self::next) and waiting resolves
    /// [`wait_ready`](Self::wait_ready) at once.
    pub(super) fn is_empty(&self) -> bool {
        self.put_back.is_none() && self.open_batch.is_none() && self.received.is_none()
    }

    /// Waits until the source, which must be [empty](Self::is_empty), is not. Cancel safe.
    pub(super) async fn wait_ready(&mut self) {
        match self.queue.recv().await {
            Some(records) => self.received = Some(records),
            None => std::future::pending().await,
        }
    }

    /// Returns the number of records that were not taken.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len() + usize::from(self.put_back.is_some()) + self.undelivered
    }

    /// Closes the queue and counts the records in it.
    pub(super) fn close(&mut self) {
        self.queue.close();
        while let Some(records) = self.received.take().or_else(|| self.queue.try_recv().ok()) {
            self.undelivered += records.records.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;
    use crate::config::HandlerOrdering;

    fn empty_batch_to(next_offset: i64) -> Records {
        Records {
            topic: "t".into(),
            partition: 0,
            records: Vec::new(),
            next_offset,
            leader_epoch: None,
            high_watermark: next_offset,
            last_stable_offset: None,
            read_committed: false,
            epoch: 1,
            _memory: None,
        }
    }

    #[test]
    fn a_batch_received_before_waiting_wakes() {
        let (sender, queue) = mpsc::unbounded_channel();
        let (mut source, state) = (RecordSource::new(queue), PartitionState::new());
        let mut lanes = Lanes::<()>::new(HandlerOrdering::Partition, None);
        assert!(source.next(&mut lanes, &state).is_none());
        sender.send(empty_batch_to(5)).unwrap();
        assert!(source.is_empty(), "the queue is not looked into");
        source.wait_ready().now_or_never().unwrap();
        assert!(!source.is_empty());
        assert!(source.next(&mut lanes, &state).is_none());
        assert!(source.is_empty() && source.wait_ready().now_or_never().is_none());
    }
}
