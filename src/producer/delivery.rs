//! Delivery handles. All records of a batch share one completion.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::lock::Lock;
use crate::timestamp::Timestamp;

/// The partition and offset of an acknowledged record.
///
/// ```
/// fn log(ack: &ailurus::Acknowledgement) {
///     println!("{}/{} at offset {:?}", ack.topic, ack.partition, ack.offset);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset. `None` if the record is in the log at an offset that the broker does not know
    /// any more: it was written by an attempt whose response was lost, and brokers remember the
    /// offsets of a producer's last few batches only.
    pub offset: Option<i64>,
    /// The record's timestamp: the producer's, or the broker's if the topic's
    /// `message.timestamp.type` is `LogAppendTime`.
    pub timestamp: Timestamp,
}

/// The place of a batch in the log, as the broker reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendInfo {
    pub(crate) base_offset: Option<i64>,
    /// The broker's timestamp, if the topic's timestamps are those of the append.
    pub(crate) append_time: Option<i64>,
}

/// The result of a batch, or of each of its parts if it had to be split.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Place of a batch that was written as a whole. Most deliveries need only this, without the
    /// lock.
    whole: OnceLock<AppendInfo>,
    state: Lock<CompletionState>,
}

#[derive(Debug)]
struct CompletionState {
    /// Number of parts without a result.
    unfinished: usize,
    finished: Vec<SubBatch>,
    wakers: Vec<Waker>,
    callbacks: Vec<Callback>,
}

/// Records of a completion that have one result.
#[derive(Debug)]
struct SubBatch {
    /// Indexes in the completion.
    records: Range<u32>,
    result: Result<AppendInfo>,
}

struct Callback {
    delivery: Delivery,
    call: Box<dyn FnOnce(Result<Acknowledgement>) + Send>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl AppendInfo {
    /// Returns the place of the record that is `index` records behind the first.
    fn at_record(self, index: u32) -> Self {
        Self { base_offset: self.base_offset.map(|base| base + i64::from(index)), ..self }
    }
}

impl CompletionState {
    /// Returns the result of a record's part.
    fn sub_batch_result(&self, index: u32) -> Option<Result<AppendInfo>> {
        let part = self.finished.iter().find(|part| part.records.contains(&index))?;
        Some(part.result.clone().map(|w| w.at_record(index - part.records.start)))
    }

    /// Registers a future's waker. `waker_index` is the future's own, so that polling it again
    /// replaces its waker.
    fn register_waker(&mut self, waker_index: &mut u32, cx: &Context<'_>) {
        match self.wakers.get_mut(*waker_index as usize) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                *waker_index = self.wakers.len() as u32;
                self.wakers.push(cx.waker().clone());
            }
        }
    }
}

impl Completion {
    pub(crate) fn new(topic: Arc<str>, partition: i32) -> Arc<Self> {
        let state = CompletionState { unfinished: 1, finished: Vec::new(), wakers: Vec::new(), callbacks: Vec::new() };
        Arc::new(Self { topic, partition, whole: OnceLock::new(), state: Lock::new(state) })
    }

    /// Adds a part, which has a result of its own.
    pub(crate) fn add_sub_batch(&self) {
        self.state.lock().unfinished += 1;
    }

    /// Sets the result of a part and notifies those who wait for it. Later results of the part are
    /// ignored.
    pub(crate) fn resolve(&self, first: u32, records: u32, result: Result<AppendInfo>) {
        let mut state = self.state.lock();
        if state.unfinished == 0 || state.finished.iter().any(|part| part.records.start == first) {
            return;
        }
        state.unfinished -= 1;
        let is_last = state.unfinished == 0;
        match result {
            Ok(written) if is_last && state.finished.is_empty() => _ = self.whole.set(written),
            result => state.finished.push(SubBatch { records: first..first + records, result }),
        }
        // Before the last result the wakers keep their indexes.
        let wakers = if is_last { std::mem::take(&mut state.wakers) } else { state.wakers.clone() };
        let (ready, pending) = std::mem::take(&mut state.callbacks)
            .into_iter()
            .partition(|c| is_last || state.sub_batch_result(c.delivery.index).is_some());
        state.callbacks = pending;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        let ready: Vec<Callback> = ready;
        for Callback { delivery, call } in ready {
            delivery.on_complete(call);
        }
    }

    /// Returns the place of a record, if the batch was written as a whole.
    fn written(&self, index: u32) -> Option<AppendInfo> {
        self.whole.get().map(|written| written.at_record(index))
    }

    fn result(&self, state: &CompletionState, index: u32) -> Option<Result<AppendInfo>> {
        self.written(index).map(Ok).or_else(|| state.sub_batch_result(index))
    }

    /// Waits until each record has a result, success or failure.
    pub(crate) async fn finished(&self) {
        let mut waker_index = NO_WAKER;
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.unfinished == 0 {
                return Poll::Ready(());
            }
            state.register_waker(&mut waker_index, cx);
            Poll::Pending
        })
        .await;
    }
}

/// Resolves when the record is acknowledged by all in-sync replicas, or has failed. Dropping it
/// does not take the record back.
///
/// It may be awaited at once or later, in any order.
///
/// # Errors
/// [`ErrorKind::Indeterminate`](crate::ErrorKind::Indeterminate) if it is not known whether the
/// broker has written the record: it may be in the log or not. Every other error means that the
/// record is not in the log, such as [`ErrorKind::Closed`](crate::ErrorKind::Closed) for one that
/// was not sent before the producer was closed.
///
/// # Cancellation
/// Dropping it, or a future that awaits it, only discards the result.
///
/// ```no_run
/// # async fn example(producer: &ailurus::Producer) -> ailurus::Result<()> {
/// use ailurus::ProducerRecord;
///
/// let mut deliveries = Vec::new();
/// for n in 0..100 {
///     let value = format!("event {n}");
///     deliveries.push(producer.send(ProducerRecord::to("events").value(&value)).await?);
/// }
/// for delivery in deliveries {
///     println!("offset {:?}", delivery.await?.offset);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a record that fails is only reported here"]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
    timestamp: i64,
    /// Index of its waker, or [`NO_WAKER`].
    waker_index: u32,
}

/// The waker index of a future that was not polled yet.
const NO_WAKER: u32 = u32::MAX;

impl Delivery {
    pub(crate) fn new(completion: Arc<Completion>, index: u32, timestamp: i64) -> Self {
        Self { completion, index, timestamp, waker_index: NO_WAKER }
    }

    /// Returns another handle of the same record.
    pub(super) fn clone_handle(&self) -> Self {
        Self::new(Arc::clone(&self.completion), self.index, self.timestamp)
    }

    /// Returns the partition that was chosen for the record.
    pub fn partition(&self) -> i32 {
        self.completion.partition
    }

    /// Calls a function with the result instead of waiting for it; at once if there is one already.
    ///
    /// The function runs on the producer's task, which sends nothing meanwhile: it should not
    /// block. Calls for the records of a partition are in their order.
    ///
    /// ```no_run
    /// # async fn example(producer: &ailurus::Producer) -> ailurus::Result<()> {
    /// use ailurus::ProducerRecord;
    ///
    /// let delivery = producer.send(ProducerRecord::to("events").value("x")).await?;
    /// delivery.on_complete(|result| match result {
    ///     Ok(ack) => println!("in partition {}", ack.partition),
    ///     Err(error) => eprintln!("{error:#}"),
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_complete(self, call: impl FnOnce(Result<Acknowledgement>) + Send + 'static) {
        let mut state = self.completion.state.lock();
        match self.completion.result(&state, self.index) {
            Some(result) => {
                drop(state);
                call(self.acknowledge(result));
            }
            None => {
                let completion = Arc::clone(&self.completion);
                let delivery = Self { completion, ..self };
                state.callbacks.push(Callback { delivery, call: Box::new(call) });
            }
        }
    }

    fn acknowledge(&self, result: Result<AppendInfo>) -> Result<Acknowledgement> {
        result.map(|written| Acknowledgement {
            topic: Arc::clone(&self.completion.topic),
            partition: self.completion.partition,
            offset: written.base_offset,
            timestamp: Timestamp::from_millis(written.append_time.unwrap_or(self.timestamp)),
        })
    }
}

impl Future for Delivery {
    type Output = Result<Acknowledgement>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(written) = this.completion.written(this.index) {
            return Poll::Ready(this.acknowledge(Ok(written)));
        }
        let mut state = this.completion.state.lock();
        match this.completion.result(&state, this.index) {
            Some(result) => {
                drop(state);
                Poll::Ready(this.acknowledge(result))
            }
            None => {
                state.register_waker(&mut this.waker_index, cx);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn handles(n: u32) -> (Arc<Completion>, Vec<Delivery>) {
        let completion = Completion::new("t".into(), 3);
        let handles = (0..n).map(|i| Delivery::new(Arc::clone(&completion), i, 100 + i64::from(i))).collect();
        (completion, handles)
    }

    #[tokio::test]
    async fn each_delivery_of_a_batch_has_its_own_offset() {
        let (completion, mut handles) = handles(3);
        assert!((&mut handles[1]).now_or_never().is_none());
        let waiting = tokio::spawn(join_all(handles));
        completion.resolve(0, 3, Ok(AppendInfo { base_offset: Some(40), append_time: None }));
        let acks = waiting.await.unwrap();
        let got: Vec<_> = acks
            .into_iter()
            .map(|a| a.map(|a| (a.partition, a.offset.unwrap(), a.timestamp.as_millis())).unwrap())
            .collect();
        assert_eq!(got, [(3, 40, 100), (3, 41, 101), (3, 42, 102)]);
    }

    #[tokio::test]
    async fn broker_timestamp_wins_and_later_results_are_ignored() {
        let (completion, mut handles) = handles(1);
        completion.resolve(0, 1, Ok(AppendInfo { base_offset: Some(7), append_time: Some(999) }));
        completion.resolve(0, 1, Err(Error::new(ErrorKind::Closed, "late")));
        assert_eq!(handles.remove(0).await.unwrap().timestamp.as_millis(), 999);
    }

    #[tokio::test]
    async fn polling_again_registers_one_waker() {
        let (completion, mut handles) = handles(1);
        for _ in 0..5 {
            assert!((&mut handles[0]).now_or_never().is_none());
        }
        assert!(completion.state.lock().wakers.len() == 1);
    }

    #[tokio::test]
    async fn parts_of_a_split_batch_have_results_of_their_own() {
        let (completion, mut handles) = handles(4);
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        let results = tx.clone();
        handles.pop().unwrap().on_complete(move |end| results.send(end.unwrap().offset).unwrap());
        assert!(handles.iter_mut().all(|h| h.now_or_never().is_none()));
        completion.add_sub_batch();
        completion.resolve(0, 2, Err(Error::new(ErrorKind::RecordTooLarge, "large")));
        assert!((&mut handles[1]).await.is_err());
        assert!((&mut handles[2]).now_or_never().is_none() && rx.try_recv().is_err());
        assert!(completion.finished().now_or_never().is_none());
        completion.resolve(2, 2, Ok(AppendInfo { base_offset: Some(7), append_time: None }));
        assert_eq!((&mut handles[2]).await.unwrap().offset, Some(7));
        assert_eq!(rx.try_recv().unwrap(), Some(8));
        completion.finished().now_or_never().unwrap();
    }
}
