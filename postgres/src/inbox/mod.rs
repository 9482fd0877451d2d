//! The inbox: events that were handled.

mod partition;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use ailurus::processor::BoxError;
use ailurus::store::{self, Claim};
use ailurus::{Error, ErrorKind, Message, Result, TopicPartition, event};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use crate::error::failed;
use partition::OwnedPartition;

/// Maximum size of an event's source and id together, in bytes: they are in an index.
const MAX_IDENTITY_BYTES: usize = 2000;
/// Maximum time that the handler of a fenced member waits for the revocation.
const MAX_FENCED_WAIT: Duration = Duration::from_secs(60);

/// Events that a consumer has handled: each has its effect in the database once.
///
/// [`claim`](Self::claim) writes the event into `ailurus_inbox`, in the transaction that writes the
/// effect. Both commit or neither does; a second delivery finds the event and is a
/// [`Duplicate`](Claim::Duplicate). That holds in every isolation level, and for whatever happens in
/// between: a crash of the process or the database, a rebalance, a lost response to the commit, two
/// members that handle the same record at the same time.
///
/// | | names an event by | a row for each | requires |
/// |---|---|---|---|
/// | [`by_event_id`](Self::by_event_id) | its source and id (`ce_source`, `ce_id`) | event, until it [expires](Self::delete_expired) | nothing |
/// | [`by_position`](Self::by_position) | topic, partition and offset | record, until it expires | a topic that is not deleted and created again |
/// | [`in_order`](Self::in_order) | the last offset of its partition | partition | the same, and [`HandlerOrdering::Partition`](ailurus::HandlerOrdering::Partition) |
///
/// Only the first drops an event that its producer sent in two records, as an outbox may.
///
/// # Not covered
///
/// - An effect outside of the transaction: a mail, a request, a write to another database.
/// - An event that is delivered again after its row has expired.
/// - A record of a topic that was deleted and created again, if events are named by position: the
///   new record with an old offset counts as handled. Delete the topic's rows then.
///
/// ```no_run
/// use ailurus::Message;
/// use ailurus::processor::BoxError;
/// use ailurus_postgres::Inbox;
/// use tokio_postgres::{Config, NoTls};
///
/// # async fn example(client: &ailurus::Client, config: Config) -> ailurus::Result<()> {
/// let handle = move |message: Message| {
///     let (config, inbox) = (config.clone(), Inbox::by_event_id("billing"));
///     async move {
///         let (mut database, connection) = config.connect(NoTls).await?; // or one of a pool
///         tokio::spawn(connection);
///         let order = message.json::<String>()?;
///         let bill = async |transaction: &tokio_postgres::Transaction<'_>| {
///             transaction.execute("INSERT INTO bills (order_id) VALUES ($1)", &[&order]).await
///         };
///         inbox.apply(&mut database, &message, bill).await?;
///         Ok::<_, BoxError>(())
///     }
/// };
/// let subscription = client.processor("billing").subscribe(["orders"], handle).await?;
/// # drop(subscription);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Inbox {
    consumer: String,
    naming: Naming,
    is_fenced: bool,
    retention: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    EventId,
    Position,
    InOrder,
}

impl Inbox {
    fn new(consumer: impl Into<String>, naming: Naming) -> Self {
        let retention = Duration::from_secs(14 * 24 * 3600);
        Self { consumer: consumer.into(), naming, is_fenced: naming == Naming::InOrder, retention }
    }

    /// Creates an inbox with a row for each event, named by its source and id. A record without an
    /// id in its headers has its position as the id.
    ///
    /// Each `consumer`, such as the group, handles each event once.
    pub fn by_event_id(consumer: impl Into<String>) -> Self {
        Self::new(consumer, Naming::EventId)
    }

    /// Creates an inbox with a row for each record, named by topic, partition and offset: for records
    /// whose headers have no id that can be trusted.
    pub fn by_position(consumer: impl Into<String>) -> Self {
        Self::new(consumer, Naming::Position)
    }

    /// Creates an inbox with one row for each partition, which has the offset after the last record
    /// handled. A record below it is a duplicate.
    ///
    /// Records of a partition must be handled one after the other, in their order: with
    /// [`HandlerOrdering::Partition`](ailurus::HandlerOrdering::Partition), the default, or in a
    /// loop over a [`Consumer`](ailurus::Consumer). A record that becomes a dead letter is not
    /// claimed, and is a duplicate afterwards. It is [fenced](Self::fenced).
    pub fn in_order(consumer: impl Into<String>) -> Self {
        Self::new(consumer, Naming::InOrder)
    }

    /// Rejects claims of a member whose partition another one owns by now, with an error of the kind
    /// [`GroupMembership`](ErrorKind::GroupMembership).
    ///
    /// A member that was suspended, or cut off from its brokers, does not know yet that the group has
    /// assigned its partition to another one. Without the fence it still can't have the effect of an
    /// event a second time, but that of a record which the new owner has yet to reach: out of order.
    /// With it, the first claim of the new owner waits for the old one's open transactions, and
    /// those behind them are rejected. It costs one statement more, and `ailurus_inbox_partitions`
    /// has a row for each partition.
    ///
    /// Two static members with the same instance id in one generation look the same to it.
    #[must_use]
    pub fn fenced(mut self) -> Self {
        self.is_fenced = true;
        self
    }

    /// Sets the time for which a row is kept, of [`by_event_id`](Self::by_event_id) and
    /// [`by_position`](Self::by_position). Default 14 days, for as long as a topic keeps a record
    /// with the default `retention.ms` and `segment.ms`, 7 days each.
    ///
    /// An event that is delivered again later has its effect again: after the offsets of the group
    /// were reset, if the topic keeps its records for longer, or with the replay of a dead letter.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Claims an event in the application's transaction. The effect belongs into the same
    /// transaction if it is the [`First`](Claim::First) claim.
    ///
    /// If another transaction has claimed the same event, this waits for its end, for as long as the
    /// connection's `lock_timeout`, `statement_timeout` or the caller allow. A suspended process may
    /// keep a transaction open: set `idle_in_transaction_session_timeout` on the connections.
    ///
    /// # Errors
    /// - [`ErrorKind::Io`] with the database's error; also if the transaction is serializable or
    ///   repeatable read and another one has claimed the event since its start;
    /// - [`ErrorKind::Event`] if the `ce_` headers are invalid or can't be stored;
    /// - [`ErrorKind::GroupMembership`] if the inbox is [fenced](Self::fenced) and another member
    ///   owns the partition.
    ///
    /// The transaction must be rolled back then, and the record be handled again.
    pub async fn claim(&self, transaction: &Transaction<'_>, message: &Message) -> Result<Claim> {
        let claims = self.claim_all(transaction, std::slice::from_ref(message)).await?;
        Ok(claims.first().copied().unwrap_or(Claim::Duplicate))
    }

    /// Claims the events of a batch, in as many statements as a single one, and returns a claim for
    /// each. Of two records with the same event the second is a duplicate.
    ///
    /// ```no_run
    /// # use ailurus::Message;
    /// # use ailurus_postgres::Inbox;
    /// # type BoxError = Box<dyn std::error::Error + Send + Sync>;
    /// async fn store(inbox: &Inbox, database: &mut tokio_postgres::Client, messages: &[Message]) -> Result<(), BoxError> {
    ///     let transaction = database.transaction().await?;
    ///     let claims = inbox.claim_all(&transaction, messages).await?;
    ///     for (message, _) in messages.iter().zip(claims).filter(|(_, claim)| claim.is_first()) {
    ///         transaction.execute("INSERT INTO bills (order_id) VALUES ($1)", &[&message.text()?]).await?;
    ///     }
    ///     Ok(transaction.commit().await?)
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`claim`](Self::claim), for the whole batch.
    pub async fn claim_all(&self, transaction: &Transaction<'_>, messages: &[Message]) -> Result<Vec<Claim>> {
        // In the order of partitions and ids, so that two transactions do not wait for each other.
        if self.naming == Naming::InOrder {
            return self.claim_in_order(transaction, messages).await;
        }
        let identities: Vec<_> = messages.iter().map(|m| self.identity(m)).collect::<Result<_>>()?;
        if self.is_fenced {
            let partitions: BTreeSet<_> = messages.iter().map(|m| OwnedPartition::of(&self.consumer, m)).collect();
            for partition in partitions {
                partition.check(transaction).await?;
            }
        }
        let mut claimed = self.insert(transaction, identities.iter().cloned().collect()).await?;
        let first = |identity| if claimed.remove(identity) { Claim::First } else { Claim::Duplicate };
        Ok(identities.iter().map(first).collect())
    }

    /// Inserts events, and returns those that were not there.
    async fn insert(&self, transaction: &Transaction<'_>, identities: BTreeSet<Identity>) -> Result<HashSet<Identity>> {
        let (sources, ids): (Vec<_>, Vec<_>) = identities.into_iter().unzip();
        let insert = "INSERT INTO ailurus_inbox (consumer, source, event_id) \
                      SELECT $1, source, event_id FROM unnest($2::text[], $3::text[]) WITH ORDINALITY \
                      AS claimed (source, event_id, number) ORDER BY number \
                      ON CONFLICT DO NOTHING RETURNING source, event_id";
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.consumer, Type::TEXT), (&sources, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
        let rows = transaction.query_typed(insert, &values).await;
        let read = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|r| Ok((r.try_get(0)?, r.try_get(1)?))).collect();
        rows.and_then(read).map_err(|e| failed(format_args!("claiming events for {:?}", self.consumer), e))
    }

    async fn claim_in_order(&self, transaction: &Transaction<'_>, messages: &[Message]) -> Result<Vec<Claim>> {
        let mut partitions = BTreeMap::<_, Vec<_>>::new();
        for (i, message) in messages.iter().enumerate() {
            partitions.entry(OwnedPartition::of(&self.consumer, message)).or_default().push((i, message.offset));
        }
        let mut claims = vec![Claim::Duplicate; messages.len()];
        for (partition, records) in partitions {
            let mut next_offset = partition.lock(transaction).await?;
            for (i, offset) in records {
                if offset >= next_offset {
                    claims[i] = Claim::First;
                    next_offset = offset + 1;
                }
            }
            partition.update(transaction, next_offset).await?;
        }
        Ok(claims)
    }

    /// Returns the source and the id that name an event.
    fn identity(&self, message: &Message) -> Result<Identity> {
        let Message { topic, partition, offset, .. } = message;
        let identity = match self.naming {
            Naming::EventId => {
                let (source, id) = event::identity(message)?;
                (source.unwrap_or_default().to_owned(), id)
            }
            Naming::Position | Naming::InOrder => (String::new(), format!("{topic}-{partition}-{offset}")),
        };
        let (source, id) = &identity;
        let problem = if source.len() + id.len() > MAX_IDENTITY_BYTES {
            format!("longer than {MAX_IDENTITY_BYTES} bytes")
        } else if source.contains('\0') || id.contains('\0') {
            "with a NUL, which PostgreSQL can't store".to_owned()
        } else {
            return Ok(identity);
        };
        let what = format!(
            "can't claim the event in {topic}/{partition} at offset {offset}: it has a source and id {problem}"
        );
        Err(Error::new(ErrorKind::Event, what))
    }

    /// Begins a transaction, claims the event, calls `effect` if it is the first claim, and commits.
    /// Returns the effect's result; `None` for a duplicate.
    ///
    /// For handlers of a [`Processor`](ailurus::Processor), with a client of one's own or of a pool.
    /// If the commit fails, the effect is in the database or not: the next attempt finds out. If
    /// `effect` fails or the future is dropped, the transaction is rolled back.
    ///
    /// A member that is [fenced](Self::fenced) waits here until its partition is revoked, for a minute
    /// at most, so that the record does not become a dead letter before.
    ///
    /// An outage of the database fails each attempt, and after
    /// [`max_attempts`](ailurus::ProcessorConfig::max_attempts) the record is a dead letter: set them
    /// so that the attempts last for longer than an outage does.
    ///
    /// # Errors
    /// That of `effect`, of [`claim`](Self::claim), or the database's.
    pub async fn apply<T, E: Into<BoxError>>(
        &self,
        client: &mut Client,
        message: &Message,
        effect: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, BoxError> {
        let transaction = client.transaction().await.map_err(|e| failed("beginning a transaction", e))?;
        let result = match self.claim(&transaction, message).await {
            Ok(Claim::First) => Some(effect(&transaction).await.map_err(Into::into)?),
            // Committed too: its generation counts.
            Ok(Claim::Duplicate) => None,
            Err(error) if error.kind() == ErrorKind::GroupMembership => {
                transaction.rollback().await.map_err(|e| failed("rolling back", e))?;
                _ = tokio::time::timeout(MAX_FENCED_WAIT, message.stopping()).await;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        transaction.commit().await.map_err(|e| failed("committing an event's effect", e))?;
        Ok(result)
    }

    /// Returns the offset after the last record handled of each partition that has a row: where an
    /// inbox [in order](Self::in_order) continues.
    ///
    /// The offset in the database is exact, and that of the group may be behind it. A
    /// [`Consumer`](ailurus::Consumer) that [seeks](ailurus::Consumer::seek) to it when partitions are
    /// assigned does not read what was handled, and needs no commits in the group. A processor starts
    /// at the group's offset, and the inbox skips what is below its own.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the database's error.
    ///
    /// ```no_run
    /// use ailurus::{Consumer, ConsumerEvent, StartOffset};
    /// use ailurus_postgres::Inbox;
    ///
    /// # async fn example(mut consumer: Consumer, inbox: Inbox, database: tokio_postgres::Client) -> ailurus::Result<()> {
    /// if let ConsumerEvent::Assigned(partitions) = consumer.recv().await? {
    ///     for (partition, offset) in inbox.next_offsets(&database, &partitions).await? {
    ///         consumer.seek(&partition, StartOffset::Offset(offset))?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_offsets(
        &self,
        client: &Client,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, i64)>> {
        let topics: Vec<&str> = partitions.iter().map(|p| &*p.topic).collect();
        let numbers: Vec<i32> = partitions.iter().map(|p| p.partition).collect();
        let select = "SELECT topic, partition, next_offset FROM ailurus_inbox_partitions \
                      WHERE consumer = $1 AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int4[]))";
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.consumer, Type::TEXT), (&topics, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)];
        let rows = client.query_typed(select, &values).await;
        let read = |rows: Vec<tokio_postgres::Row>| {
            let partition = |r: &tokio_postgres::Row| {
                Ok((TopicPartition::new(r.try_get::<_, String>(0)?, r.try_get(1)?), r.try_get(2)?))
            };
            rows.iter().map(partition).collect()
        };
        rows.and_then(read).map_err(|e| failed(format_args!("reading the offsets of {:?}", self.consumer), e))
    }

    /// Deletes up to `max_rows` events whose [retention](Self::retention) has ended, and returns their
    /// number: fewer than `max_rows` if no others are left. Call it at an interval, in any process or
    /// several.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the database's error.
    ///
    /// ```no_run
    /// # async fn example(inbox: ailurus_postgres::Inbox, database: tokio_postgres::Client) -> ailurus::Result<()> {
    /// const MAX_ROWS: u32 = 1000;
    /// while inbox.delete_expired(&database, MAX_ROWS).await? == u64::from(MAX_ROWS) {}
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_expired(&self, client: &Client, max_rows: u32) -> Result<u64> {
        let delete = "DELETE FROM ailurus_inbox WHERE ctid = ANY (ARRAY( \
                      SELECT ctid FROM ailurus_inbox WHERE consumer = $1 AND claimed_at < now() - $2 * interval '1 second' \
                      ORDER BY claimed_at LIMIT $3 FOR UPDATE SKIP LOCKED))";
        let (seconds, max_rows) = (self.retention.as_secs_f64(), i64::from(max_rows));
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.consumer, Type::TEXT), (&seconds, Type::FLOAT8), (&max_rows, Type::INT8)];
        let deleted = client.execute_typed(delete, &values).await;
        deleted.map_err(|e| failed(format_args!("deleting expired events of {:?}", self.consumer), e))
    }
}

/// Source and id of an event.
type Identity = (String, String);

impl store::Inbox for Inbox {
    type Transaction<'t> = Transaction<'t>;

    async fn claim(&self, transaction: &Self::Transaction<'_>, message: &Message) -> Result<Claim> {
        Self::claim(self, transaction, message).await
    }
}
