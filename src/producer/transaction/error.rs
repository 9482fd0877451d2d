//! The end of a transaction, and what follows from one that failed.

use std::fmt;

use crate::error::Error;

/// The application's next step after a [`TransactionError`].
///
/// ```no_run
/// # async fn example(mut producer: ailurus::TransactionalProducer) -> ailurus::Result<()> {
/// use ailurus::{ProducerRecord, producer::TransactionAction};
///
/// let mut attempts = 0;
/// loop {
///     let transaction = producer.begin().await?;
///     transaction.send(ProducerRecord::to("payments").value("17")).await?;
///     match transaction.commit().await {
///         Ok(_) => return Ok(()),
///         Err(e) if e.action() == TransactionAction::Abort && attempts < 5 => attempts += 1,
///         Err(e) => return Err(e.into()),
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionAction {
    /// Nothing of the transaction is visible, nor will be: it was aborted, or never begun. Begin
    /// another with the same records.
    Abort,
    /// The coordinator has not confirmed the commit in time. All of it is visible, or nothing: don't
    /// repeat it before that is known. The producer goes on sending the commit, and
    /// [`outcome`](crate::TransactionalProducer::outcome) and
    /// [`begin`](crate::TransactionalProducer::begin) wait for the response.
    Unknown,
    /// Another producer has the transactional id, or the transaction took longer than its timeout.
    /// Nothing of it is visible. Drop this producer; start another only if it is this one's turn.
    Fenced,
    /// It can't work until somebody changes a setting, a permission or the application. Nothing of the
    /// transaction is visible.
    Stop,
}

/// The error of a transaction: what failed, and what to do.
///
/// ```
/// use ailurus::producer::TransactionError;
///
/// fn report(error: &TransactionError) {
///     eprintln!("{error}: {:?}", error.action());
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TransactionError {
    action: TransactionAction,
    error: Error,
}

/// The end of a transaction.
///
/// ```
/// use ailurus::producer::TransactionOutcome;
///
/// assert_ne!(TransactionOutcome::Committed, TransactionOutcome::Aborted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionOutcome {
    /// Readers of committed records see all of it.
    Committed,
    /// Readers of committed records see nothing of it.
    Aborted,
}

impl TransactionAction {
    /// Returns the action in lower case: `abort`, `unknown`, `fenced` or `stop`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
            Self::Stop => "stop",
        }
    }

    /// Returns how a transaction with this error has ended, for metrics.
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Abort => "aborted",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
            Self::Stop => "stopped",
        }
    }
}

impl TransactionError {
    pub(super) fn new(action: TransactionAction, error: Error) -> Self {
        Self { action, error }
    }

    /// Returns what to do.
    pub fn action(&self) -> TransactionAction {
        self.action
    }

    /// Returns what failed.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.action {
            TransactionAction::Abort => "the transaction was aborted, and may be begun again",
            TransactionAction::Unknown => {
                "it is not known whether the transaction is committed: await its outcome before repeating it"
            }
            TransactionAction::Fenced => {
                "the transaction is aborted and this producer is fenced: another one has its transactional id, or a \
                 transaction took longer than its transaction_timeout; drop this producer"
            }
            TransactionAction::Stop => {
                "the transaction is aborted and this producer can't go on before the cause is mended; drop it"
            }
        };
        write!(f, "{what}: {:#}", self.error)
    }
}

impl std::error::Error for TransactionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<TransactionError> for Error {
    fn from(e: TransactionError) -> Self {
        match e.action {
            TransactionAction::Abort => e.error.context("a transaction was aborted, and may be begun again"),
            TransactionAction::Unknown => {
                let what = "it is not known whether a transaction is committed";
                Self::with_source(crate::error::ErrorKind::Indeterminate, what, e.error)
            }
            TransactionAction::Fenced => e.error.context("a transactional producer is fenced"),
            TransactionAction::Stop => e.error.context("a transactional producer can't go on"),
        }
    }
}
