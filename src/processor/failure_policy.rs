//! Policies for records whose attempt failed, and how an error or a function of the application chooses
//! one.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::original;
use super::handler::{BoxError, Outcome};
use crate::consumer::Message;

/// Policy for a record whose attempt failed with an error, a panic or a timeout: the result of the
/// function of [`Processor::on_failure`](crate::Processor::on_failure).
///
/// ```
/// use ailurus::processor::{FailurePolicy, find_cause};
///
/// fn classify(error: &(dyn std::error::Error + 'static)) -> FailurePolicy {
///     match find_cause::<std::io::Error>(error) {
///         Some(_) => FailurePolicy::hold("postgres"),
///         None => FailurePolicy::Retry,
///     }
/// }
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(classify(&refused), FailurePolicy::hold("postgres"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The record is retried, up to [`max_attempts`](crate::ProcessorConfig::max_attempts) times; then it
    /// goes to a retry topic or the dead-letter topic. Unless nothing succeeds any more: see
    /// [`outage_records`](crate::ProcessorConfig::outage_records).
    #[default]
    Retry,
    /// The record is retried until it succeeds. Records in order behind it are blocked.
    RetryForever,
    /// The record becomes a dead letter at once.
    DeadLetter,
    /// The record is left out: it counts as [skipped](crate::processor::Stats::skipped) and is committed.
    Skip,
    /// A dependency is down: the record waits until it is back. See [`Hold`].
    Hold(Hold),
    /// The subscription ends, and the record is not committed.
    Stop,
}

impl FailurePolicy {
    /// Returns the policy that waits for a dependency, or with a [`Hold`] of another scope.
    pub fn hold(hold: impl Into<Hold>) -> Self {
        Self::Hold(hold.into())
    }

    fn outcome(self, after: Option<Duration>, error: BoxError) -> Outcome {
        match self {
            Self::Retry => Outcome::Retry { after, error },
            Self::RetryForever => Outcome::RetryForever { after, error },
            Self::DeadLetter => Outcome::DeadLetter { error },
            Self::Skip => Outcome::Skip { error },
            Self::Hold(hold) => Outcome::Hold { hold, error },
            Self::Stop => Outcome::Stop { error },
        }
    }
}

/// A dependency of a handler that is down, such as a database, and what waits for it.
///
/// The first record that fails with it opens a breaker. While that is open, all that [`HoldScope`]
/// covers waits: nothing is fetched or handled of it, in-flight records finish, and the member stays in
/// its group. Attempts do not count against [`max_attempts`](crate::ProcessorConfig::max_attempts), and
/// no dead letter is written. After [`hold_backoff`](crate::ProcessorConfig::hold_backoff) a single
/// record, one of those that failed, is handled as a probe; each that fails doubles the backoff up to
/// [`hold_backoff_max`](crate::ProcessorConfig::hold_backoff_max), and the first that does not fail
/// because of this dependency, or time out, closes the breaker: everything goes on in its order. Records
/// that had failed have all their attempts again.
///
/// Each dependency has a breaker of its own in each subscription, by its name: up to 100 names, beyond
/// which all others are `other`. [`SubscriptionHealth::waiting_for`](crate::health::SubscriptionHealth::waiting_for)
/// names those that are open, and since when; a warning in the log reports their start and end.
///
/// ```
/// use ailurus::processor::{Hold, HoldScope, Outcome};
///
/// let outcome = Outcome::hold("postgres", "connection refused");
/// assert_eq!(outcome.to_string(), "hold for postgres: connection refused");
/// let only_these = Outcome::hold(Hold::on("geocoder").scope(HoldScope::Lane), "HTTP 503");
/// # drop(only_these);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    dependency: Cow<'static, str>,
    scope: HoldScope,
}

impl Hold {
    /// Returns a hold of the whole subscription until this dependency is back.
    pub fn on(dependency: impl Into<Cow<'static, str>>) -> Self {
        Self { dependency: dependency.into(), scope: HoldScope::default() }
    }

    /// Sets what waits.
    #[must_use]
    pub fn scope(mut self, scope: HoldScope) -> Self {
        self.scope = scope;
        self
    }

    pub(super) fn dependency(&self) -> &str {
        &self.dependency
    }

    pub(super) fn covers(&self) -> HoldScope {
        self.scope
    }
}

impl From<&'static str> for Hold {
    fn from(dependency: &'static str) -> Self {
        Self::on(dependency)
    }
}

impl From<String> for Hold {
    fn from(dependency: String) -> Self {
        Self::on(dependency)
    }
}

/// Scope of what waits while a dependency is down.
///
/// ```
/// use ailurus::processor::HoldScope;
///
/// assert_eq!(HoldScope::default(), HoldScope::Subscription);
/// assert_eq!(HoldScope::Lane.to_string(), "lane");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HoldScope {
    /// The records that failed, and those in order behind them. Others are handled: for dependencies
    /// that only some records need.
    Lane,
    /// The partitions with a record that failed.
    Partition,
    /// All partitions of the subscription that this member has.
    #[default]
    Subscription,
    /// Read from the JSON of a newer version, which has a scope that this one does not know. As a scope
    /// of a hold it is [`Subscription`](Self::Subscription).
    #[serde(other)]
    Unknown,
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lane => "lane",
            Self::Partition => "partition",
            Self::Subscription => "subscription",
            Self::Unknown => "unknown",
        })
    }
}

/// An error by which a handler says that a dependency is down, without [`Outcome`]: its record
/// [waits](Hold) until that is back. Found anywhere in the chain of [sources](std::error::Error::source)
/// of a handler's error.
///
/// `anyhow::Error` hides the type of an error that has no context: add one
/// (`.context("inserting an order")`), or return [`Outcome::hold`].
///
/// ```
/// use ailurus::Message;
/// use ailurus::processor::{IntoOutcome, Outcome, Unavailable};
///
/// async fn insert(message: &Message) -> Result<(), std::io::Error> {
/// #   drop(message.clone()); Ok(())
/// }
///
/// async fn handle(message: Message) -> Result<(), Unavailable> {
///     insert(&message).await.map_err(|e| Unavailable::new("postgres", e))
/// }
///
/// let failed = Err::<(), _>(Unavailable::new("postgres", "connection refused"));
/// assert!(matches!(failed.into_outcome(), Outcome::Hold { .. }));
/// # fn check(p: ailurus::Processor) { drop(p.subscribe(["orders"], handle)); }
/// ```
#[derive(Debug)]
pub struct Unavailable {
    hold: Hold,
    source: BoxError,
}

impl Unavailable {
    /// Creates the error of a dependency that is down, with its cause.
    pub fn new(hold: impl Into<Hold>, source: impl Into<BoxError>) -> Self {
        Self { hold: hold.into(), source: source.into() }
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is unavailable", self.hold.dependency)
    }
}

impl StdError for Unavailable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// The error of an attempt that exceeded
/// [`attempt_timeout`](crate::ProcessorConfig::attempt_timeout), as
/// [`Processor::on_failure`](crate::Processor::on_failure) gets it.
///
/// ```
/// use ailurus::processor::{AttemptTimeout, FailurePolicy, find_cause};
///
/// fn classify(error: &(dyn std::error::Error + 'static)) -> FailurePolicy {
///     match find_cause::<AttemptTimeout>(error) {
///         Some(_) => FailurePolicy::hold("the price service"),
///         None => FailurePolicy::Retry,
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptTimeout {
    pub(super) limit: Duration,
}

impl fmt::Display for AttemptTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timed out after {:?}", self.limit)
    }
}

impl StdError for AttemptTimeout {}

/// Returns the first error of a type in an error and its chain of
/// [sources](std::error::Error::source).
///
/// ```
/// use ailurus::processor::find_cause;
/// use ailurus::{Error, ErrorKind};
///
/// let disk = std::io::Error::from(std::io::ErrorKind::StorageFull);
/// let error = Error::with_source(ErrorKind::Io, "the order can't be stored", disk);
/// assert!(find_cause::<std::io::Error>(&error).is_some());
/// assert!(find_cause::<std::fmt::Error>(&error).is_none());
/// ```
pub fn find_cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

type ClassifyFn = dyn Fn(&Message, &(dyn StdError + 'static)) -> FailurePolicy + Send + Sync;

/// The function that chooses the policy of a failure.
#[derive(Clone)]
pub(super) struct Classifier(pub(super) Arc<ClassifyFn>);

impl Classifier {
    /// Returns the outcome of an attempt that failed with an error, which may have been the error of a
    /// whole batch.
    pub(super) fn classify(&self, message: &Message, after: Option<Duration>, error: BoxError) -> Outcome {
        let policy = catch_unwind(AssertUnwindSafe(|| (self.0)(message, original(&error))));
        let policy = policy.unwrap_or_else(|_| {
            let Message { topic, partition, offset, .. } = message;
            tracing::error!(
                record = format_args!("{topic}/{partition}@{offset}"),
                "the function of Processor::on_failure panicked: the record is retried as without it"
            );
            FailurePolicy::default()
        });
        policy.outcome(after, error)
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}
