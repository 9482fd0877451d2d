//! The records that a handler of a pipeline returns.

use crate::error::Result;
use crate::event::{Envelope, Event};
use crate::producer::ProducerRecord;

/// Records that a handler returns, written in the transaction that commits the offset of the
/// handled record: see [`ExactlyOnce`](super::ExactlyOnce). Without any, the record is only
/// handled, as with `()`.
///
/// ```
/// use ailurus::{Message, ProducerRecord, processor::Outputs};
///
/// async fn split(message: Message) -> ailurus::Result<Outputs> {
///     let words = message.text()?.unwrap_or_default().split_whitespace();
///     Ok(words.map(|word| ProducerRecord::to("words").key(word.to_owned())).collect())
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "outputs are sent if the handler returns them"]
pub struct Outputs {
    records: Vec<ProducerRecord<'static>>,
    /// True if they are those of a whole batch of records.
    pub(in crate::processor) is_of_batch: bool,
}

impl Outputs {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    pub fn send(mut self, record: ProducerRecord<'static>) -> Self {
        self.records.push(record);
        self
    }

    /// Adds an event: a record with its key, its JSON and the headers of CloudEvents.
    ///
    /// # Errors
    /// [`ErrorKind::Event`](crate::ErrorKind::Event) if the event can't be written as JSON.
    ///
    /// ```
    /// use ailurus::{Envelope, processor::Outputs};
    /// # use ailurus::Event;
    /// # #[derive(serde::Serialize)]
    /// # struct OrderPriced { id: String, total: u64 }
    /// # impl Event for OrderPriced {
    /// #     const TYPE: &'static str = "order.priced";
    /// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { Some(self.id.as_str().into()) }
    /// # }
    ///
    /// fn priced(id: String) -> ailurus::Result<Outputs> {
    ///     Outputs::new().event("orders.priced", &Envelope::new("pricing", OrderPriced { id, total: 17 }))
    /// }
    /// ```
    pub fn event<E: Event + serde::Serialize>(self, topic: impl Into<String>, event: &Envelope<E>) -> Result<Self> {
        let mut record =
            ProducerRecord::to(topic.into()).value(event.value()?).headers(event.headers()).timestamp(event.time);
        record.key = event.data.key().map(|key| key.into_owned().into());
        Ok(self.send(record))
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(in crate::processor) fn into_records(self) -> Vec<ProducerRecord<'static>> {
        self.records
    }
}

impl Extend<ProducerRecord<'static>> for Outputs {
    fn extend<I: IntoIterator<Item = ProducerRecord<'static>>>(&mut self, records: I) {
        self.records.extend(records);
    }
}

impl FromIterator<ProducerRecord<'static>> for Outputs {
    fn from_iter<I: IntoIterator<Item = ProducerRecord<'static>>>(records: I) -> Self {
        Self { records: records.into_iter().collect(), is_of_batch: false }
    }
}

impl From<ProducerRecord<'static>> for Outputs {
    fn from(record: ProducerRecord<'static>) -> Self {
        Self::new().send(record)
    }
}
