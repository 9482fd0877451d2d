//! The identity of an event, and the position of its record.

use std::sync::Arc;

use ailurus::{Envelope, Message, Timestamp};

/// Identity of an event and position of its record: the data by which a store applies each event once.
///
/// ```
/// use ailurus::Timestamp;
/// use ailurus_shop::Received;
///
/// let first = Received {
///     id: "0190b3c8-2a5e-7c11-8000-000000000001".into(),
///     source: "stock-service".into(),
///     time: Timestamp::UNIX_EPOCH,
///     topic: "stock-updates".into(),
///     partition: 0,
///     offset: 17,
/// };
/// let again = Received { offset: 18, ..first.clone() };
/// assert_eq!(first.id, again.id, "sent twice: two records, one event");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Id of the event.
    pub id: String,
    /// Source of the event; empty if not known. An id that is not a UUID is unique only together with it.
    pub source: String,
    /// Time of the event.
    pub time: Timestamp,
    /// The record's topic.
    pub topic: Arc<str>,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
}

impl Received {
    /// Takes the identity from an envelope, and the position from its message.
    pub fn new<T>(envelope: &Envelope<T>, message: &Message) -> Self {
        Self {
            id: envelope.id.clone(),
            source: envelope.source.clone(),
            time: envelope.time,
            topic: message.topic.clone(),
            partition: message.partition,
            offset: message.offset,
        }
    }
}

/// Effect of an event on a store; [`Store`](crate::Store) has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The event was applied.
    Applied,
    /// The event was applied before; nothing was changed.
    Duplicate,
}
