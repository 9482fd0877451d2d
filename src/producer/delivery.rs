//! Delivery handles: all records of a batch share one completion.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::Result;

/// Where an acknowledged record is.
///
/// ```
/// fn log(ack: &ailurus::Acknowledgement) {
///     println!("{}/{} at offset {}", ack.topic, ack.partition, ack.offset);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970: the producer's, or the broker's if the topic's
    /// `message.timestamp.type` is `LogAppendTime`.
    pub timestamp: i64,
}

/// What became of a batch that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) base_offset: i64,
    /// The broker's timestamp, if the topic wants it.
    pub(crate) append_time: Option<i64>,
}

/// The end of a batch, once it has come.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Vec<Waker>),
    Done(Result<Written>),
}

impl Completion {
    pub(crate) fn new(topic: Arc<str>, partition: i32) -> Arc<Self> {
        Arc::new(Self { topic, partition, state: Mutex::new(State::Waiting(Vec::new())) })
    }

    /// Tells all who wait. Only the first end counts.
    pub(crate) fn resolve(&self, result: Result<Written>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(wakers) = &mut *state {
            let wakers = std::mem::take(wakers);
            *state = State::Done(result);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// `place` is where the waiting future's waker is kept, so that polling it again does not add another.
    fn poll(&self, place: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<Result<Written>> {
        match &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Waiting(wakers) => {
                match place.and_then(|i| wakers.get_mut(i)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        *place = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }

    /// Waits for the end, good or bad.
    pub(crate) async fn ended(&self) {
        let mut place = None;
        std::future::poll_fn(|cx| self.poll(&mut place, cx).map(drop)).await;
    }
}

/// Resolves when the record is acknowledged by all in-sync replicas, or has failed. Dropping it does not take the record
/// back.
///
/// It may be awaited at once or kept and awaited later, in any order; the answer is kept with it.
///
/// # Errors
/// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the delivery timeout passed while it was not known whether the
/// broker had written the record: it may be in the log or not. Every other error that does not say otherwise means that it
/// is not in the log.
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
///     println!("offset {}", delivery.await?.offset);
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
    place: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(completion: Arc<Completion>, index: u32, timestamp: i64) -> Self {
        Self { completion, index, timestamp, place: None }
    }

    /// The partition that was chosen for the record.
    pub fn partition(&self) -> i32 {
        self.completion.partition
    }
}

impl Future for Delivery {
    type Output = Result<Acknowledgement>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.completion.poll(&mut this.place, cx).map_ok(|written| Acknowledgement {
            topic: Arc::clone(&this.completion.topic),
            partition: this.completion.partition,
            offset: written.base_offset + i64::from(this.index),
            timestamp: written.append_time.unwrap_or(this.timestamp),
        })
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
    async fn each_handle_of_a_batch_has_its_own_offset() {
        let (completion, mut handles) = handles(3);
        assert!((&mut handles[1]).now_or_never().is_none());
        let waiting = tokio::spawn(join_all(handles));
        completion.resolve(Ok(Written { base_offset: 40, append_time: None }));
        let acks = waiting.await.unwrap();
        let got: Vec<_> = acks.into_iter().map(|a| a.map(|a| (a.partition, a.offset, a.timestamp)).unwrap()).collect();
        assert_eq!(got, [(3, 40, 100), (3, 41, 101), (3, 42, 102)]);
    }

    #[tokio::test]
    async fn the_broker_s_timestamp_wins_and_the_first_end_counts() {
        let (completion, mut handles) = handles(1);
        completion.resolve(Ok(Written { base_offset: 7, append_time: Some(999) }));
        completion.resolve(Err(Error::new(ErrorKind::Closed, "late")));
        assert_eq!(handles.remove(0).await.unwrap().timestamp, 999);
    }

    #[tokio::test]
    async fn polling_again_keeps_one_waker() {
        let (completion, mut handles) = handles(1);
        for _ in 0..5 {
            assert!((&mut handles[0]).now_or_never().is_none());
        }
        assert!(matches!(&*completion.state.lock().unwrap(), State::Waiting(wakers) if wakers.len() == 1));
    }
}
