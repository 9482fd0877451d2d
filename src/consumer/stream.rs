//! Other ways than events to take records from a consumer: as a [`Stream`] of single ones, and in batches, as `poll` of
//! other clients gives them. Both answer the group's news themselves.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FusedStream, Stream};
use tokio::time::Instant;

use super::Consumer;
use super::event::{ConsumerEvent, Message, Records};
use super::offsets::committer::Committer;
use super::status::ConsumerState;
use crate::error::Result;
use crate::record::{Record, TopicPartition};

impl Consumer {
    /// Waits for records, for at most `timeout`, and gives all that are there: several partitions' at once, and none when the
    /// time is over. What is there at once is bounded by [`prefetch_bytes`](crate::ConsumerConfig::prefetch_bytes).
    ///
    /// Asking again says that what was given before is handled: then partitions that the group asks back are given up at once, and
    /// [`auto_commit_interval`](crate::ConsumerConfig::auto_commit_interval), if it is set, commits them. Without it, commit before the next
    /// call. A program that has to finish or cancel something before it gives a partition up takes [`recv`](Self::recv) instead.
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
                Some(Ok(_)) => {} // a revocation ends with its drop
                Some(Err(e)) => return Err(e),
                None => {
                    if tokio::time::timeout_at(deadline, self.events.ready()).await.is_err() {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    /// Gives records one by one.
    pub fn into_stream(self) -> MessageStream {
        MessageStream { consumer: self, current: None, waiting: None, done: false }
    }
}

/// Records one by one, from [`Consumer::into_stream`]. It ends behind the error that ends the consumer.
///
/// ```no_run
/// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
/// use futures_util::StreamExt;
///
/// let mut messages = consumer.into_stream();
/// while let Some(message) = messages.next().await {
///     let message = message?;
///     println!("{}/{} at {}", message.topic, message.partition, message.offset);
///     messages.committer().commit_message(&message); // goes on behind us; await it to be sure
/// }
/// messages.close().await
/// # }
/// ```
///
/// # Rebalances
/// Asking for the next record says that those given before are handled. So partitions that the group asks back are given up
/// when the program asks for the next record: what was asked to be committed until then is committed, what is left of the
/// partition in this stream is discarded, and reading the others goes on. A program that asks for more before it has handled
/// what it has (`buffer_unordered`, for example) may see such a record handled by the next owner as well, and its own commit of it
/// refused with [`ErrorKind::GroupMembership`](crate::ErrorKind::GroupMembership). Where that matters, use a [`Processor`](crate::Processor), or
/// [`recv`](Consumer::recv), which leaves the time of giving up to the program.
///
/// A program that does not come back for more within [`max_poll_interval`](crate::ConsumerConfig::max_poll_interval) of a record
/// loses its partitions to other members until it does. One that was told to wait counts as waiting.
///
/// # Errors
/// Those of [`recv`](Consumer::recv), as items. Trouble with one partition does not end the stream.
///
/// # Cancellation
/// Dropping a future that waits for the next item loses none.
#[must_use = "dropping a stream drops its consumer, which leaves its partitions without an owner: `close` it"]
pub struct MessageStream {
    consumer: Consumer,
    current: Option<Current>,
    /// For something to come; here for its waker.
    waiting: Option<BoxFuture<'static, ()>>,
    /// Behind the last error.
    done: bool,
}

/// What is left of a batch.
struct Current {
    /// Without its records.
    batch: Records,
    left: vec::IntoIter<Record>,
}

impl MessageStream {
    /// Commits what this stream has given, see [`Committer::commit_message`]; cheap, for any task.
    pub fn committer(&self) -> Committer {
        self.consumer.committer()
    }

    /// The consumer behind it, to ask for its assignment and state, and to move or pause partitions. Its
    /// [`position`](Consumer::position) is behind the batch of which the stream gives single records; a pause counts from there
    /// on, a seek at once.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// See [`Consumer::close`].
    ///
    /// # Errors
    /// Those of [`Consumer::close`].
    pub async fn close(self) -> Result<()> {
        self.consumer.close().await
    }

    /// The next record of the batch in hand.
    fn take(&mut self) -> Option<Message> {
        let Current { batch, left } = self.current.as_mut()?;
        let record = left.next();
        if let Some(given) = &mut self.consumer.delivered {
            let next = record.as_ref().filter(|_| !left.as_slice().is_empty()).map(|r| r.offset + 1);
            given.push(batch.handled(next.unwrap_or(batch.next_offset)));
        }
        let Some(record) = record else {
            self.current = None; // its bytes are given back
            return None;
        };
        Some(batch.message(record))
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) {
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
                Some(Ok(ConsumerEvent::Revoked(revocation))) => this.give_up(&revocation.partitions),
                Some(Ok(ConsumerEvent::Lost(partitions))) => this.give_up(&partitions),
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
