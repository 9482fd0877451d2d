//! The outbox, as the application writes it.

use std::time::Duration;

use ailurus::{Envelope, Error, ErrorKind, Event, ProducerRecord, Result, Timestamp};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::error::failed;

/// The channel that relays listen to.
pub(crate) const CHANNEL: &str = "ailurus_outbox";
/// The header of an event's id.
const EVENT_ID: &str = "ce_id";
/// Number of rows up to which a backlog is counted.
const MAX_COUNTED: i64 = 100_000;

/// Records to send, in the table `ailurus_outbox`: written in the application's transaction, sent by
/// a [`Relay`](ailurus::store::Relay) on an [`OutboxTable`](crate::OutboxTable).
///
/// A row is sent if and only if its transaction commits. Rows of a key keep the order of their ids,
/// which is that of the `add` calls wherever one transaction waits for the other, as for the lock
/// on the row of an order. Two transactions that run at the same time have no order.
///
/// Any language may insert rows: only `topic` has no default. `event_id` is sent as the header
/// `ce_id` unless `header_names` has one.
///
/// ```no_run
/// use ailurus::ProducerRecord;
/// use ailurus_postgres::Outbox;
///
/// # async fn example(mut database: tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let transaction = database.transaction().await?;
/// transaction.execute("UPDATE orders SET state = 'paid' WHERE id = $1", &[&"o-1"]).await?;
/// Outbox::new().add(&transaction, &ProducerRecord::to("orders").key("o-1").value("paid")).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Outbox {
    notify: bool,
}

/// Rows of the outbox that have yet to be sent.
///
/// ```no_run
/// # async fn example(database: tokio_postgres::Client) -> ailurus::Result<()> {
/// let backlog = ailurus_postgres::Outbox::new().backlog(&database).await?;
/// println!("{} records to send, the oldest since {:?}; {} can't be sent", backlog.rows, backlog.oldest, backlog.failing);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Number of rows, counted up to 100,000.
    pub rows: u64,
    /// Age of the row with the lowest id; none if there are no rows.
    pub oldest: Option<Duration>,
    /// Number of rows that could not be sent at their last attempt: their column `error` has the
    /// reason.
    pub failing: u64,
}

impl Outbox {
    /// Creates an outbox, whose rows relays find at their poll interval.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notifies the relay at each commit (`NOTIFY`), so that it does not wait for its poll interval.
    /// PostgreSQL commits transactions with notifications one after the other, so this is for
    /// databases with up to some hundred of them per second.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Adds a record in the application's transaction, and returns the id of its event: the header
    /// `ce_id`, or a new one. The codec is not stored, as it is the relay's choice.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRecord`] if a part can't be stored (an empty topic, a header name with a
    /// NUL, an empty id or one that is not UTF-8); [`ErrorKind::Io`] with the database's error, and
    /// the transaction must be rolled back.
    pub async fn add(&self, transaction: &Transaction<'_>, record: &ProducerRecord<'_>) -> Result<String> {
        let event_id = match record.headers.as_deref().and_then(|headers| headers.get(EVENT_ID)) {
            Some(id) => std::str::from_utf8(id).map_err(|_| invalid(record, "a ce_id that is not UTF-8"))?.to_owned(),
            None => Uuid::now_v7().to_string(),
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for header in record.headers.as_deref().into_iter().flat_map(|headers| headers.iter()) {
            names.push(header.key());
            values.push(header.value());
        }
        let has_nul = |text: &str| text.contains('\0');
        let problem = if record.topic.is_empty() || has_nul(&record.topic) {
            "an invalid topic"
        } else if event_id.is_empty() || has_nul(&event_id) {
            "a ce_id that is empty or has a NUL"
        } else if names.iter().any(|name| has_nul(name)) {
            "a header name with a NUL"
        } else if record.timestamp.is_some_and(Timestamp::is_none) || record.partition.is_some_and(|p| p < 0) {
            "a negative timestamp or partition"
        } else {
            self.insert(transaction, record, &event_id, &names, &values).await?;
            return Ok(event_id);
        };
        Err(invalid(record, problem))
    }

    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        record: &ProducerRecord<'_>,
        event_id: &str,
        names: &[std::borrow::Cow<'_, str>],
        values: &[Option<&[u8]>],
    ) -> Result<()> {
        let insert = "INSERT INTO ailurus_outbox \
                      (event_id, topic, partition, key, value, header_names, header_values, timestamp_ms) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let (topic, key, value) = (&*record.topic, record.key.as_deref(), record.value.as_deref());
        let timestamp = record.timestamp.map(Timestamp::as_millis);
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&event_id, Type::TEXT),
            (&topic, Type::TEXT),
            (&record.partition, Type::INT4),
            (&key, Type::BYTEA),
            (&value, Type::BYTEA),
            (&names, Type::TEXT_ARRAY),
            (&values, Type::BYTEA_ARRAY),
            (&timestamp, Type::INT8),
        ];
        let result = if self.notify {
            let notify = format!("WITH added AS ({insert}) SELECT pg_notify('{CHANNEL}', '')");
            transaction.query_typed(&notify, &parameters).await.map(drop)
        } else {
            transaction.execute_typed(insert, &parameters).await.map(drop)
        };
        result.map_err(|e| failed(format_args!("adding a record for topic {} to the outbox", record.topic), e))
    }

    /// Adds an event as a CloudEvents record, with its key, in the application's transaction.
    ///
    /// # Errors
    /// Those of [`add`](Self::add); [`ErrorKind::Event`] if it can't be written as JSON.
    ///
    /// ```no_run
    /// # use ailurus::{Envelope, Event};
    /// # use ailurus_postgres::Outbox;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct OrderPaid { order_id: String }
    /// # impl Event for OrderPaid {
    /// #     const TYPE: &'static str = "order.paid";
    /// #     fn key(&self) -> Option<std::borrow::Cow<'_, str>> { Some(self.order_id.as_str().into()) }
    /// # }
    /// # async fn example(transaction: tokio_postgres::Transaction<'_>) -> ailurus::Result<()> {
    /// let event = Envelope::new("order-service", OrderPaid { order_id: "o-1".into() });
    /// Outbox::new().add_event(&transaction, "orders", &event).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add_event<E: Event + serde::Serialize>(
        &self,
        transaction: &Transaction<'_>,
        topic: &str,
        event: &Envelope<E>,
    ) -> Result<()> {
        let (headers, value, key) = (event.headers(), event.value()?, event.data.key());
        let mut record = ProducerRecord::to(topic).value(&value).headers(&headers);
        record = record.timestamp(event.time);
        if let Some(key) = &key {
            record = record.key(key.as_bytes());
        }
        self.add(transaction, &record).await.map(drop)
    }

    /// Returns the number of rows that have yet to be sent, and their age: to be watched by an alert.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the database's error.
    pub async fn backlog(&self, client: &Client) -> Result<Backlog> {
        let select = "SELECT (SELECT count(*) FROM (SELECT FROM ailurus_outbox LIMIT $1) AS counted), \
                      (SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM ailurus_outbox ORDER BY id LIMIT 1), \
                      (SELECT count(*) FROM (SELECT FROM ailurus_outbox WHERE retry_at IS NOT NULL LIMIT $1) AS failing)";
        let row = client.query_typed_one(select, &[(&MAX_COUNTED, Type::INT8)]).await;
        let read = |row: tokio_postgres::Row| {
            let (rows, seconds, failing): (i64, Option<f64>, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let oldest = seconds.map(|s| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default());
            Ok(Backlog { rows: rows.unsigned_abs(), oldest, failing: failing.unsigned_abs() })
        };
        row.and_then(read).map_err(|e| failed("counting the rows of the outbox", e))
    }
}

fn invalid(record: &ProducerRecord<'_>, problem: &str) -> Error {
    let what = format!("a record for topic {:?} can't be added to the outbox: it has {problem}", record.topic);
    Error::new(ErrorKind::InvalidRecord, what)
}
