//! Effects in a database of the application: an inbox, so that each event has its effect once, and
//! an outbox, so that what a transaction has stored is sent.
//!
//! A broker's transactions do not cover a database, and a database's do not cover a broker. What
//! holds across both is built from two halves:
//!
//! - An **inbox** ([`Inbox`]) writes that an event was handled in the transaction of its effect. A
//!   second delivery finds it, and changes nothing.
//! - An **outbox** ([`OutboxStore`]) is a table of records to send, written in the transaction that
//!   causes them. A [`Relay`] sends its rows and removes each when it is acknowledged. Where the
//!   relay ends in between, a row is sent again under the same event id, and the reader's inbox
//!   drops the duplicate.
//!
//! The crate [ailurus-postgres](https://docs.rs/ailurus-postgres) implements both on PostgreSQL.
//!
//! # Guarantees
//!
//! | | holds | does not hold |
//! |---|---|---|
//! | inbox | the effect in the database is there once, whatever ends when | for other effects of the handler: a mail, a request to a service |
//! | outbox | each committed row is sent at least once, and none of a transaction that was rolled back | once in the topic: after a crash a record may be there twice, with the same event id |
//! | both | each row of the outbox has its effect once at a reader with an inbox | for readers without one |

mod outbox;
mod relay;

use std::future::Future;

pub use outbox::{DeferredRow, FetchRows, OutboxRow, OutboxStore};
pub(crate) use relay::RelayShared;
pub use relay::{Relay, RelayHandle, RelayHealth, RelayState};

use crate::consumer::Message;
use crate::error::Result;

/// The result of [`Inbox::claim`].
///
/// ```
/// use ailurus::store::Claim;
///
/// assert!(Claim::First.is_first());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The event was not handled before: its effect belongs into this transaction.
    First,
    /// The event was handled: its effect is in the database already.
    Duplicate,
}

impl Claim {
    /// Returns whether the event was not handled before.
    pub fn is_first(self) -> bool {
        self == Self::First
    }
}

/// Events that were handled, in the database that has their effects.
///
/// ```
/// use ailurus::Message;
/// use ailurus::store::{Claim, Inbox};
///
/// /// Applies an event in a transaction, with the inbox of any database.
/// async fn apply<I: Inbox>(inbox: &I, transaction: &I::Transaction<'_>, message: &Message) -> ailurus::Result<()> {
///     if inbox.claim(transaction, message).await? == Claim::First {
///         // the effect, in the same transaction
///     }
///     Ok(())
/// }
/// ```
pub trait Inbox: Send + Sync {
    /// A transaction of the database.
    type Transaction<'t>: Send + Sync;

    /// Writes in the transaction that the event is handled, unless it was handled before.
    ///
    /// The claim holds if and only if the transaction commits. Another transaction that claims the
    /// same event meanwhile waits for the end of this one, and is a duplicate if this one commits.
    ///
    /// # Errors
    /// Those of the database; [`GroupMembership`](crate::ErrorKind::GroupMembership) if another
    /// member has claimed events of the partition in a later generation of the group. The
    /// transaction must be rolled back.
    fn claim(
        &self,
        transaction: &Self::Transaction<'_>,
        message: &Message,
    ) -> impl Future<Output = Result<Claim>> + Send;
}
