//! Handlers of batches.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::handler::{BoxError, FromMessage, IntoOutcome, Outcome};
use super::sealed;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};

/// Size of batches, and maximum wait for a full one.
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
    /// Maximum number of records of a batch, 1 to 100,000.
    pub max_records: usize,
    /// Maximum time that a record waits for a full batch, up to 1 hour.
    pub max_wait: Duration,
}

impl Batching {
    /// Returns batches of up to `max_records`, which wait for a full batch no longer than
    /// `max_wait`.
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

/// The return types of a batch handler: one [`IntoOutcome`] for all records, or a `Vec` with one
/// for each, in their order. [`Outputs`](super::Outputs) for all records are written in the
/// transaction that commits the offsets of all of them. Sealed.
///
/// ```
/// use ailurus::processor::{IntoOutcomes, Outcome};
///
/// assert_eq!(Err::<(), _>("no").into_outcomes(3).len(), 3);
/// let each = vec![Outcome::Done, Outcome::retry("no")].into_outcomes(2);
/// assert!(matches!(each[0], Outcome::Done));
/// ```
#[diagnostic::on_unimplemented(
    message = "a batch handler can't return `{Self}`",
    note = "it returns `()`, `Result<(), E>` or `Outcome` for all records, or a `Vec` with one of them per record"
)]
pub trait IntoOutcomes: sealed::IntoOutcomes {
    /// Returns the outcomes of `count` records.
    fn into_outcomes(self, count: usize) -> Vec<Outcome>;
}

impl<T: IntoOutcome> IntoOutcomes for T {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        let repeat = |error: BoxError| {
            let error = Arc::new(error);
            std::iter::repeat_n(error, count).map(|e| Box::new(SharedError(e)) as BoxError)
        };
        match self.into_outcome() {
            Outcome::Done => std::iter::repeat_with(|| Outcome::Done).take(count).collect(),
            Outcome::Send(mut outputs) => {
                outputs.is_of_batch = true;
                let others = std::iter::repeat_with(|| Outcome::Done).take(count.saturating_sub(1));
                others.chain([Outcome::Send(outputs)]).collect()
            }
            Outcome::Retry { after, error } => repeat(error).map(|error| Outcome::Retry { after, error }).collect(),
            Outcome::DeadLetter { error } => repeat(error).map(|error| Outcome::DeadLetter { error }).collect(),
            Outcome::RetryForever { after, error } => {
                repeat(error).map(|error| Outcome::RetryForever { after, error }).collect()
            }
            Outcome::Skip { error } => repeat(error).map(|error| Outcome::Skip { error }).collect(),
            Outcome::Hold { hold, error } => {
                repeat(error).map(|error| Outcome::Hold { hold: hold.clone(), error }).collect()
            }
            Outcome::Stop { error } => repeat(error).map(|error| Outcome::Stop { error }).collect(),
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

/// Returns the error that a handler returned, also if it was that of several records.
pub(super) fn original(error: &BoxError) -> &(dyn StdError + 'static) {
    error.downcast_ref::<SharedError>().map_or(&**error, |shared| &**shared.0)
}

/// The same error for several records.
#[derive(Debug)]
struct SharedError(Arc<BoxError>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// A handler of batches: an async function or closure of a `Vec` of [arguments](FromMessage) that
/// returns [one result for all records, or one for each](IntoOutcomes). Sealed: a handler type of
/// your own is captured by a closure.
///
/// A batch has records of one partition, by offset. Records of one key may be in the same batch,
/// and never in two batches at a time: a handler that fails one of them must fail later ones of its
/// key too, or they count as handled. Failed records are retried one by one, so that one bad record
/// does not make the others dead letters. Records that can't be decoded become dead letters and are
/// not part of the batch.
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
/// let subscription = client.processor("warehouse").subscribe_batches(["orders"], batching, insert).await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of batches",
    note = "a batch handler is an async function or closure of a `Vec<Message>`, or of a `Vec` of another argument of handlers; it returns what a handler returns, for all records, or a `Vec` with one per record"
)]
pub trait BatchHandler<A>: sealed::BatchHandler<A> + Send + Sync + 'static {
    /// Starts an attempt; its result has an outcome for each message.
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
        let mut arguments = Vec::with_capacity(messages.len());
        let mut undecodable = Vec::with_capacity(messages.len());
        for message in messages {
            match A::read(message) {
                Ok(value) => {
                    arguments.push(value);
                    undecodable.push(None);
                }
                Err(e) => undecodable.push(Some(Outcome::dead_letter(e))),
            }
        }
        let count = arguments.len();
        if count == 0 {
            return std::future::ready(undecodable.into_iter().flatten().collect()).boxed();
        }
        let merge = move |outcomes: F::Output| {
            let mut outcomes = outcomes.into_outcomes(count).into_iter();
            undecodable.into_iter().filter_map(|o| o.or_else(|| outcomes.next())).collect()
        };
        self(arguments).map(merge).boxed()
    }
}

/// A [`BatchHandler`] of any form.
pub(super) type BatchHandlerFn = dyn Fn(Vec<Message>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_error_is_the_error_of_each_record_with_its_causes() {
        let disk = || Error::with_source(ErrorKind::Io, "the store", "the disk is full");
        let outcomes = Err::<(), _>(disk()).into_outcomes(2);
        for outcome in &outcomes {
            let Outcome::Retry { after: None, error } = outcome else { unreachable!("{outcome}") };
            assert_eq!(super::super::dead_letter::describe(&**error), "the store: the disk is full");
        }
    }

    #[test]
    fn too_few_results_fail_all_records() {
        let outcomes = vec![Outcome::Done].into_outcomes(3);
        assert_eq!(outcomes.len(), 3);
        assert!(outcomes.iter().all(|o| o.to_string().contains("a batch of 3 records returned 1 results")));
    }

    #[test]
    fn batching_has_bounds() {
        assert!(Batching::new(100, Duration::from_secs(1)).validate().is_ok());
        assert!(Batching::new(0, Duration::from_secs(1)).validate().is_err());
        assert!(Batching::new(1, Duration::from_secs(7200)).validate().is_err());
    }
}
