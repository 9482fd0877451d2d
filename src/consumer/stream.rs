//! Other ways to read than events: a [`Stream`] of single records, and batches as `poll` of other
//! clients returns them. Both handle assignment events themselves.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FusedStream, Stream};
use tokio::time::Instant;

use super::consumer::Consumer;
use super::event::{ConsumerEvent, Message, Records};
use super::offsets::committer::Committer;
use super::status::ConsumerState;
use crate::error::Result;
use crate::record::{Record, TopicPartition};

impl Consumer {
    /// Waits for records, for at most `timeout`, and returns all that are queued: of several
    /// partitions, or none after the timeout.
    /// [`prefetch_bytes`](crate::ConsumerConfig::prefetch_bytes) bounds them.
    ///
    /// The next call counts the records returned before as handled: revoked partitions are released
    /// at once, and [`auto_commit_interval`](crate::ConsumerConfig::auto_commit_interval), if it is
    /// set, commits them. Without it, commit before the next call. An application that has to
    /// finish or cancel work before a partition is revoked uses [`recv`](Self::recv) instead.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ailurus::Consumer) -> ailurus::Result<()> {
    /// use std::time::Duration;
    ///
    /// loop {
    ///     let batch = consumer.poll(Duration::from_secs(1)).await?;
    ///     for records in &batch {
    ///         println!("{} records of {}", records.records.len(), records.topic_partition());
    ///     }
    ///     let handled: Vec<_> = batch.iter().map(|r| (r.topic_partition(), r.next_offset)).collect();
    ///     consumer.commit(&handled).await?;
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// Safe: records that were not returned are returned by the next call.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<Records>> {
        let deadline = Instant::now() + timeout;
        self.mark_delivered_handled();
        let events = Arc::clone(&self.events);
        let _polling = events.start_poll();
        loop {
            match self.events.pop() {
                Some(Ok(ConsumerEvent::Records(first))) => {
                    let all: Vec<_> = [first].into_iter().chain(self.events.pop_records()).collect();
                    all.iter().for_each(|records| self.on_delivered(records));
                    return Ok(all);
                }
                Some(Ok(_)) => {} // dropping a revocation ends it
                Some(Err(e)) => return Err(e),
                None => {
                    if tokio::time::timeout_at(deadline, self.events.ready()).await.is_err() {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    /// Returns a stream of single records.
    pub fn into_stream(self) -> MessageStream {
        MessageStream { consumer: self, current: None, waiting: None, done: false }
    }
}

/// Records one by one, from [`Consumer::into_stream`]. Ends after the error that ends the consumer.
///
/// ```no_run
/// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
/// use futures_util::StreamExt;
///
/// let mut messages = consumer.into_stream();
/// while let Some(message) = messages.next().await {
///     let message = message?;
///     println!("{}/{} at {}", message.topic, message.partition, message.offset);
///     messages.committer().commit_message(&message); // runs in the background; await it to be sure
/// }
/// messages.close().await
/// # }
/// ```
///
/// # Rebalances
/// Polling the next record counts those before it as handled. So that poll releases revoked partitions:
/// commits started until then are made, the rest of the partition in this stream is dropped, and the
/// others are read on. An application that polls before it has handled a record (`buffer_unordered`,
/// for example) may see the next owner handle that record as well, and its own commit refused with
/// [`ErrorKind::GroupMembership`](crate::ErrorKind::GroupMembership). Where that matters, use a
/// [`Processor`](crate::Processor), or [`recv`](Consumer::recv), with which the application decides
/// when a partition is released.
///
/// An application that does not poll within [`max_poll_interval`](crate::ConsumerConfig::max_poll_interval)
/// of a record loses its partitions to other members until it does. While a poll is pending, the
/// interval does not run.
///
/// # Errors
/// Those of [`recv`](Consumer::recv), as items. An error of one partition does not end the stream.
///
/// # Cancellation
/// Dropping a future that waits for the next item loses none.
#[must_use = "dropping a stream drops its consumer, which leaves its partitions without an owner: `close` it"]
pub struct MessageStream {
    consumer: Consumer,
    current: Option<Current>,
    /// Future of the next event, which keeps the waker.
    waiting: Option<BoxFuture<'static, ()>>,
    /// True after the last error.
    done: bool,
}

/// Rest of a batch.
struct Current {
    /// The batch without its records.
    batch: Records,
    left: vec::IntoIter<Record>,
}

impl MessageStream {
    /// Returns a handle to commit records of this stream, see [`Committer::commit_message`]. Cheap,
    /// for any task.
    pub fn committer(&self) -> Committer {
        self.consumer.committer()
    }

    /// Returns the consumer, for its assignment and state, and to seek or pause partitions. Its
    /// [`position`](Consumer::position) is after the batch whose records the stream returns one by
    /// one: a pause counts from there, a seek at once.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Closes the consumer, see [`Consumer::close`].
    ///
    /// # Errors
    /// Those of [`Consumer::close`].
    pub async fn close(self) -> Result<()> {
        self.consumer.close().await
    }

    /// Returns the next record of the current batch.
    fn take(&mut self) -> Option<Message> {
        let Current { batch, left } = self.current.as_mut()?;
        let record = left.next();
        if let Some(delivered) = &mut self.consumer.delivered {
            let next = record.as_ref().filter(|_| !left.as_slice().is_empty()).map(|r| r.offset + 1);
            delivered.push(batch.handled(next.unwrap_or(batch.next_offset)));
        }
        let Some(record) = record else {
            self.current = None; // returns its memory
            return None;
        };
        Some(batch.message(record))
    }

    fn drop_batch_of(&mut self, partitions: &[TopicPartition]) {
        self.current = self.current.take().filter(|c| !partitions.contains(&c.batch.topic_partition()));
    }
}

impl Stream for MessageStream {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.done {
            this.consumer.mark_delivered_handled();
            let event = match &this.current {
                Some(Current { batch, .. }) => {
                    let (event, stays) = this.consumer.events.pop_before(batch);
                    if !stays {
                        this.current = None;
                        if event.is_none() {
                            continue;
                        }
                    }
                    event
                }
                None => {
                    let _polling = this.consumer.events.start_poll();
                    this.consumer.events.pop()
                }
            };
            match event {
                Some(Ok(ConsumerEvent::Records(mut batch))) => {
                    let left = std::mem::take(&mut batch.records).into_iter();
                    this.current = Some(Current { batch, left });
                }
                Some(Ok(ConsumerEvent::Revoked(revocation))) => this.drop_batch_of(&revocation.partitions),
                Some(Ok(ConsumerEvent::Lost(partitions))) => this.drop_batch_of(&partitions),
                Some(Ok(ConsumerEvent::Assigned(_))) => {}
                Some(Err(e)) => {
                    this.done = this.consumer.state() == ConsumerState::Closed;
                    return Poll::Ready(Some(Err(e)));
                }
                None if this.current.is_some() => {
                    if let Some(message) = this.take() {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                None => {
                    let events = Arc::clone(&this.consumer.events);
                    let waiting = this.waiting.get_or_insert_with(|| async move { events.ready().await }.boxed());
                    this.consumer.events.start_poll().keep();
                    ready!(waiting.poll_unpin(cx));
                    this.waiting = None;
                }
            }
        }
        Poll::Ready(None)
    }
}

impl FusedStream for MessageStream {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
