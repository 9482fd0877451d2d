//! The records of a partition as they come, one by one.

use std::vec;

use tokio::sync::mpsc;

use super::lanes::Lanes;
use super::state::PartitionState;
use crate::consumer::{Message, Records};
use crate::record::Record;

pub(super) struct Source {
    /// Bounded by the consumer: what it holds counts as fetched and not taken.
    queue: mpsc::UnboundedReceiver<Records>,
    /// Those that `rest` is of. They are held until the last one is taken.
    current: Option<Records>,
    rest: vec::IntoIter<Record>,
    put_back: Option<Message>,
    /// Waits its turn outside of the queue.
    waiting: Option<Records>,
    /// Records that were in the queue at the end.
    unseen: usize,
}

impl Source {
    pub(super) fn new(queue: mpsc::UnboundedReceiver<Records>) -> Self {
        Self { queue, current: None, rest: Vec::new().into_iter(), put_back: None, waiting: None, unseen: 0 }
    }

    /// The next record that is to be handled.
    pub(super) fn next<R>(&mut self, lanes: &mut Lanes<R>, state: &PartitionState) -> Option<Message> {
        if self.put_back.is_some() {
            return self.put_back.take();
        }
        loop {
            if let Some(current) = &self.current {
                for record in self.rest.by_ref() {
                    if lanes.fetched(record.offset) {
                        return Some(current.message(record));
                    }
                }
                lanes.through(current.next_offset);
                self.current = None;
            }
            let records = self.waiting.take().or_else(|| self.queue.try_recv().ok())?;
            self.begin(records, lanes, state);
        }
    }

    fn begin<R>(&mut self, mut records: Records, lanes: &mut Lanes<R>, state: &PartitionState) {
        state.fetched(records.end_offset());
        lanes.reads_from(records.records.first().map_or(records.next_offset, |r| r.offset));
        if let Some(epoch) = records.leader_epoch {
            lanes.led(epoch);
        }
        self.rest = std::mem::take(&mut records.records).into_iter();
        self.current = Some(records);
    }

    /// The next record after all.
    pub(super) fn put_back(&mut self, message: Message) {
        self.put_back = Some(message);
    }

    /// Whether the next record has yet to be taken from the queue. The queue itself is not asked: what comes into it between
    /// the last [`next`](Self::next) and waiting is what [`ready`](Self::ready) is there to notice.
    pub(super) fn is_empty(&self) -> bool {
        self.put_back.is_none() && self.current.is_none() && self.waiting.is_none()
    }

    /// Waits until it is not [empty](Self::is_empty), which it must be. Cancel safe.
    pub(super) async fn ready(&mut self) {
        match self.queue.recv().await {
            Some(records) => self.waiting = Some(records),
            None => std::future::pending().await,
        }
    }

    /// Records that are here and were not taken.
    pub(super) fn left(&self) -> usize {
        self.rest.len() + usize::from(self.put_back.is_some()) + self.unseen
    }

    /// Nothing is taken any more.
    pub(super) fn close(&mut self) {
        self.queue.close();
        while let Some(records) = self.waiting.take().or_else(|| self.queue.try_recv().ok()) {
            self.unseen += records.records.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;
    use crate::config::HandlerOrdering;

    fn nothing_up_to(next_offset: i64) -> Records {
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
            _held: None,
        }
    }

    #[test]
    fn what_comes_between_looking_and_waiting_wakes() {
        let (sender, queue) = mpsc::unbounded_channel();
        let (mut source, state) = (Source::new(queue), PartitionState::new());
        let mut lanes = Lanes::<()>::new(HandlerOrdering::Partition, None);
        assert!(source.next(&mut lanes, &state).is_none());
        sender.send(nothing_up_to(5)).unwrap();
        assert!(source.is_empty(), "it is to be waited for");
        source.ready().now_or_never().unwrap();
        assert!(!source.is_empty(), "and is here then");
        assert!(source.next(&mut lanes, &state).is_none());
        assert!(source.is_empty() && source.ready().now_or_never().is_none());
    }
}
