//! Handlers of several records at a time.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::handler::{BoxError, FromMessage, IntoOutcome, Outcome};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};

/// How large a batch is and how long it waits to become so.
///
/// ```
/// use std::time::Duration;
/// use ailurus::processor::Batching;
///
/// let batching = Batching::new(500, Duration::from_millis(100));
/// assert_eq!(batching.max_records, 500);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// The most records of a batch. 1 to 100,000.
    pub max_records: usize,
    /// How long records wait for others. Up to 1 hour.
    pub max_wait: Duration,
}

impl Batching {
    /// Batches of up to `max_records`, which wait for each other no longer than `max_wait`.
    pub fn new(max_records: usize, max_wait: Duration) -> Self {
        Self { max_records, max_wait }
    }

    pub(super) fn validate(self) -> Result<()> {
        if (1..=100_000).contains(&self.max_records) && self.max_wait <= Duration::from_secs(3600) {
            return Ok(());
        }
        let what = format!(
            "invalid batches of {} records within {:?}: allowed are 1 to 100000 records, up to 1 hour",
            self.max_records, self.max_wait
        );
        Err(Error::new(ErrorKind::Config, what))
    }
}

/// What a batch handler may return: one [`IntoOutcome`] for all records, or a `Vec` with one for each, in their order.
///
/// ```
/// use ailurus::processor::{IntoOutcomes, Outcome};
///
/// assert_eq!(Err::<(), _>("no").into_outcomes(3).len(), 3);
/// let each = vec![Outcome::Done, Outcome::retry("no")].into_outcomes(2);
/// assert!(matches!(each[0], Outcome::Done));
/// ```
pub trait IntoOutcomes {
    /// One for each of `count` records.
    fn into_outcomes(self, count: usize) -> Vec<Outcome>;
}

impl<T: IntoOutcome> IntoOutcomes for T {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        let of_all = |error: BoxError| {
            let error = Arc::new(error);
            std::iter::repeat_n(error, count).map(|e| Box::new(Shared(e)) as BoxError)
        };
        match self.into_outcome() {
            Outcome::Done => std::iter::repeat_with(|| Outcome::Done).take(count).collect(),
            Outcome::Retry { after, error } => of_all(error).map(|error| Outcome::Retry { after, error }).collect(),
            Outcome::DeadLetter { error } => of_all(error).map(|error| Outcome::DeadLetter { error }).collect(),
            Outcome::Stop { error } => of_all(error).map(|error| Outcome::Stop { error }).collect(),
        }
    }
}

impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        if self.len() == count {
            return self.into_iter().map(IntoOutcome::into_outcome).collect();
        }
        let what = format!("the handler of a batch of {count} records returned {} results", self.len());
        Outcome::retry(what).into_outcomes(count)
    }
}

/// One error of several records.
#[derive(Debug)]
struct Shared(Arc<BoxError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Handles several records of a partition at a time: any async function of a `Vec` of what a [`Handler`](super::Handler) may
/// take, that returns [one result for all, or one for each](IntoOutcomes).
///
/// A batch holds records of one partition, by offset. Records that must be handled one after the other may be in one batch,
/// and are never in two at a time: a handler that fails one of them is to fail those behind it of the same key too, or they
/// count as handled. Records that fail are handed in again one by one, so that one bad record does not take the others with it
/// to the dead letters. What can't be decoded is not in the batch and becomes a dead letter.
///
/// ```no_run
/// use std::time::Duration;
/// use ailurus::{Client, Message, Processor, processor::Batching};
///
/// async fn insert(messages: Vec<Message>) -> Result<(), std::io::Error> {
///     println!("{} rows in one transaction", messages.len());
///     Ok(())
/// }
///
/// # async fn example(client: &Client) -> ailurus::Result<()> {
/// let batching = Batching::new(500, Duration::from_millis(100));
/// let subscription = Processor::new(client).subscribe_batches(&["orders"], "warehouse", batching, insert).await?;
/// # Ok(())
/// # }
/// ```
pub trait BatchHandler<A>: Send + Sync + 'static {
    /// Begins an attempt; its result has as many elements as there are messages.
    fn call(&self, messages: Vec<Message>) -> BoxFuture<'static, Vec<Outcome>>;
}

impl<H, A, F> BatchHandler<(A,)> for H
where
    H: Fn(Vec<A>) -> F + Send + Sync + 'static,
    A: FromMessage,
    F: Future + Send + 'static,
    F::Output: IntoOutcomes,
{
    fn call(&self, messages: Vec<Message>) -> BoxFuture<'static, Vec<Outcome>> {
        let mut taken = Vec::with_capacity(messages.len());
        let mut refused = Vec::with_capacity(messages.len());
        for message in messages {
            match A::read(message) {
                Ok(value) => {
                    taken.push(value);
                    refused.push(None);
                }
                Err(e) => refused.push(Some(Outcome::dead_letter(e))),
            }
        }
        let count = taken.len();
        if count == 0 {
            return std::future::ready(refused.into_iter().flatten().collect()).boxed();
        }
        let merge = move |outcomes: F::Output| {
            let mut outcomes = outcomes.into_outcomes(count).into_iter();
            refused.into_iter().filter_map(|r| r.or_else(|| outcomes.next())).collect()
        };
        self(taken).map(merge).boxed()
    }
}

/// A batch handler, whatever it is made of.
pub(super) type BatchCall = dyn Fn(Vec<Message>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_error_of_all_is_the_error_of_each_with_its_causes() {
        let disk = || Error::with_source(ErrorKind::Io, "the store", "the disk is full");
        let outcomes = Err::<(), _>(disk()).into_outcomes(2);
        for outcome in &outcomes {
            let Outcome::Retry { after: None, error } = outcome else { unreachable!("{outcome}") };
            assert_eq!(super::super::letter::describe(&**error), "the store: the disk is full");
        }
    }

    #[test]
    fn too_few_results_are_a_failure_of_all() {
        let outcomes = vec![Outcome::Done].into_outcomes(3);
        assert_eq!(outcomes.len(), 3);
        assert!(outcomes.iter().all(|o| o.to_string().contains("a batch of 3 records returned 1 results")));
    }

    #[test]
    fn batches_have_limits() {
        assert!(Batching::new(100, Duration::from_secs(1)).validate().is_ok());
        assert!(Batching::new(0, Duration::from_secs(1)).validate().is_err());
        assert!(Batching::new(1, Duration::from_secs(7200)).validate().is_err());
    }
}
