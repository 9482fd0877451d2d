//! The row of a partition: the generation of its last owner, and the offset after its last record.

use ailurus::{Error, ErrorKind, Message, Result};
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

use crate::error::failed;

/// A partition of a consumer, and the generation in which this process owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnedPartition<'a> {
    consumer: &'a str,
    topic: &'a str,
    partition: i32,
    generation: i64,
}

impl<'a> OwnedPartition<'a> {
    /// Returns the partition of a message. Outside a group the generation is 0.
    pub(super) fn of(consumer: &'a str, message: &'a Message) -> Self {
        let generation = message.generation().map_or(0, i64::from);
        Self { consumer, topic: &message.topic, partition: message.partition, generation }
    }

    /// Locks the row, in which the generation must not be greater, and returns the offset after the
    /// last record; 0 for a new row.
    pub(super) async fn lock(&self, transaction: &Transaction<'_>) -> Result<i64> {
        let Self { consumer, topic, partition, generation } = self;
        let select = "SELECT generation, next_offset FROM ailurus_inbox_partitions \
                      WHERE consumer = $1 AND topic = $2 AND partition = $3 FOR UPDATE";
        let key: [(&(dyn ToSql + Sync), Type); 3] =
            [(consumer, Type::TEXT), (topic, Type::TEXT), (partition, Type::INT4)];
        let mut row = transaction.query_typed_opt(select, &key).await.map_err(|e| self.failed(e))?;
        if row.is_none() {
            let insert = "INSERT INTO ailurus_inbox_partitions (consumer, topic, partition, generation, next_offset) \
                          VALUES ($1, $2, $3, 0, 0) ON CONFLICT DO NOTHING";
            transaction.execute_typed(insert, &key).await.map_err(|e| self.failed(e))?;
            row = transaction.query_typed_opt(select, &key).await.map_err(|e| self.failed(e))?;
        }
        let read = || row.map(|row| Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?))).transpose();
        let (last_generation, next_offset) = read().map_err(|e| self.failed(e))?.unwrap_or_default();
        if last_generation > *generation { Err(self.fenced(last_generation)) } else { Ok(next_offset) }
    }

    /// Writes the generation, and the offset after the last record if it is greater. The row must be
    /// locked.
    pub(super) async fn update(&self, transaction: &Transaction<'_>, next_offset: i64) -> Result<()> {
        let Self { consumer, topic, partition, generation } = self;
        let update = "UPDATE ailurus_inbox_partitions \
                      SET generation = $4, next_offset = greatest(next_offset, $5), updated_at = now() \
                      WHERE consumer = $1 AND topic = $2 AND partition = $3";
        let values: [(&(dyn ToSql + Sync), Type); 5] = [
            (consumer, Type::TEXT),
            (topic, Type::TEXT),
            (partition, Type::INT4),
            (generation, Type::INT8),
            (&next_offset, Type::INT8),
        ];
        transaction.execute_typed(update, &values).await.map(drop).map_err(|e| self.failed(e))
    }

    /// Checks that no later owner has written to the partition, and that none does before the end of
    /// the transaction. Transactions of one owner do not wait for each other.
    ///
    /// Without the lock, a later owner could come between the check and the commit:
    /// 1. A, of generation 4, checks: the row has 4.
    /// 2. The group assigns the partition to B, of generation 5. B writes 5, handles the record, and
    ///    those behind it, and commits.
    /// 3. A commits a record that comes before those.
    ///
    /// With it, B waits in 2 for the end of A's transaction.
    pub(super) async fn check(&self, transaction: &Transaction<'_>) -> Result<()> {
        let Self { consumer, topic, partition, generation } = self;
        // Not a lock on any row: two that then want to write to it would wait for each other.
        let select = "SELECT 1 FROM ailurus_inbox_partitions \
                      WHERE consumer = $1 AND topic = $2 AND partition = $3 AND generation = $4 FOR SHARE";
        let values: [(&(dyn ToSql + Sync), Type); 4] =
            [(consumer, Type::TEXT), (topic, Type::TEXT), (partition, Type::INT4), (generation, Type::INT8)];
        if transaction.query_typed_opt(select, &values).await.map_err(|e| self.failed(e))?.is_some() {
            return Ok(());
        }
        self.lock(transaction).await?;
        self.update(transaction, 0).await
    }

    fn fenced(&self, by: i64) -> Error {
        let Self { consumer, topic, partition, generation } = self;
        let what = format!(
            "{topic}/{partition}: {consumer:?} has handled records in generation {by} of its group, and this member owned \
             the partition in generation {generation}: another member owns it now. If the group was deleted, its generations \
             began again: delete the partition's row from ailurus_inbox_partitions"
        );
        Error::new(ErrorKind::GroupMembership, what)
    }

    fn failed(&self, error: tokio_postgres::Error) -> Error {
        let Self { consumer, topic, partition, .. } = self;
        failed(format_args!("claiming records of {topic}/{partition} for {consumer:?}"), error)
    }
}
