//! The outbox, as a relay reads it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ailurus::store::{DeferredRow, FetchRows, OutboxRow, OutboxStore};
use ailurus::{Error, ErrorKind, Headers, Result, Timestamp};
use futures_util::stream::{StreamExt, poll_fn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row};

use crate::error::failed;
use crate::outbox::CHANNEL;

/// Maximum time to connect, and of a statement.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A lost connection ends on the server too, so that another relay becomes active. The server's
/// limit of a statement is that of the client.
const PREPARE_SESSION: &str = "SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
                               SET statement_timeout = '30s'; SET application_name = 'ailurus outbox relay';";
/// Held by the active relay for as long as its connection lasts.
const LOCK: &str =
    "SELECT pg_try_advisory_lock(hashtextextended('ailurus_outbox', 'ailurus_outbox'::regclass::oid::bigint))";

/// The table `ailurus_outbox`, for a [`Relay`](ailurus::store::Relay).
///
/// It has a connection of its own, which it opens by `connect`, again after each error. One relay is
/// active: the one whose connection holds an advisory lock. Others are in standby, and one of them
/// becomes active when that connection ends. The lock belongs to a session, so the connection must
/// not go through a pool that changes sessions between transactions (pgbouncer: `pool_mode =
/// session`).
///
/// Rows are found by what is in the table, not by the last id that was read: a transaction that
/// commits late, with a lower id than one that was sent, is sent when it commits.
///
/// ```no_run
/// use ailurus::store::Relay;
/// use ailurus_postgres::OutboxTable;
/// use tokio_postgres::{Config, NoTls};
///
/// # async fn example(client: &ailurus::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let config: Config = "host=localhost user=shop".parse()?;
/// let table = OutboxTable::new(move || {
///     let config = config.clone();
///     async move { config.connect(NoTls).await }
/// });
/// let relay = Relay::new(client, table).start()?;
/// # drop(relay);
/// # Ok(())
/// # }
/// ```
pub struct OutboxTable<C> {
    connect: C,
    session: Option<Session>,
    added: Arc<Notify>,
}

struct Session {
    client: Client,
    /// True while it holds the lock.
    is_active: bool,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The connection may not notice that its client is gone while the server does not respond.
        self.connection.abort();
    }
}

impl<C, F, S, T> OutboxTable<C>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = Result<(Client, Connection<S, T>), tokio_postgres::Error>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Creates a table that is reached by `connect`, which returns a connection that nobody polls
    /// yet.
    pub fn new(connect: C) -> Self {
        Self { connect, session: None, added: Arc::default() }
    }

    /// Connects, unless it is connected.
    async fn session(&mut self) -> Result<&mut Session> {
        if self.session.as_ref().is_some_and(|s| s.client.is_closed()) {
            self.session = None;
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let connecting = within("connecting", (self.connect)());
                let (client, mut connection) = connecting.await?;
                let added = Arc::clone(&self.added);
                let connection = tokio::spawn(async move {
                    let mut messages = poll_fn(move |cx| connection.poll_message(cx));
                    while let Some(message) = messages.next().await {
                        match message {
                            Ok(AsyncMessage::Notification(_)) => added.notify_one(),
                            Ok(_) => {}
                            // The next statement has the error too.
                            Err(error) => return tracing::debug!(%error, "the connection of the outbox's relay ended"),
                        }
                    }
                });
                let session = Session { client, is_active: false, connection };
                let prepare = format!("{PREPARE_SESSION} LISTEN {CHANNEL};");
                within("preparing the session", session.client.batch_execute(&prepare)).await?;
                session
            }
        };
        Ok(self.session.insert(session))
    }

    async fn try_fetch(&mut self, rows: &FetchRows) -> Result<Option<Vec<OutboxRow>>> {
        let session = self.session().await?;
        if !session.is_active {
            let lock = within("locking", session.client.query_typed_one(LOCK, &[])).await?;
            session.is_active = lock.try_get(0).map_err(|e| failed("locking", e))?;
            if !session.is_active {
                return Ok(None);
            }
        }
        // Each row has the size of those before it, so that reading ends at `max_bytes`.
        let select = "SELECT id, event_id, topic, partition, key, value, header_names, header_values, timestamp_ms, attempts \
                      FROM (SELECT *, sum(size) OVER (ORDER BY id) - size AS size_before FROM ( \
                      SELECT *, coalesce(octet_length(key), 0)::bigint + coalesce(octet_length(value), 0) \
                      + pg_column_size(header_names) + pg_column_size(header_values) AS size \
                      FROM ailurus_outbox AS behind WHERE id <> ALL ($1) AND (retry_at IS NULL OR retry_at <= now()) \
                      AND NOT EXISTS (SELECT FROM ailurus_outbox AS deferred WHERE deferred.retry_at > now() \
                      AND deferred.topic = behind.topic AND deferred.key = behind.key AND deferred.id < behind.id) \
                      ORDER BY id LIMIT $2) AS oldest) AS sized WHERE size_before < $3 ORDER BY id";
        let max = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (max_rows, max_bytes) = (max(rows.max_rows), max(rows.max_bytes));
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&rows.except, Type::INT8_ARRAY), (&max_rows, Type::INT8), (&max_bytes, Type::INT8)];
        let found = within("reading rows", session.client.query_typed(select, &values)).await?;
        let rows = found.iter().map(read_row).collect::<Result<_, _>>();
        Ok(Some(rows.map_err(|e| failed("reading a row of the outbox", e))?))
    }

    async fn execute(&mut self, what: &str, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<()> {
        let session = self.session().await?;
        within(what, session.client.execute_typed(sql, values)).await.map(drop)
    }

    async fn try_remove(&mut self, ids: &[i64]) -> Result<()> {
        let delete = "DELETE FROM ailurus_outbox WHERE id = ANY ($1)";
        self.execute("deleting sent rows", delete, &[(&ids, Type::INT8_ARRAY)]).await
    }

    async fn try_defer(&mut self, rows: &[DeferredRow]) -> Result<()> {
        let update = "UPDATE ailurus_outbox AS row SET attempts = attempts + 1, error = failed.error, \
                      retry_at = now() + failed.delay * interval '1 second' \
                      FROM unnest($1::int8[], $2::float8[], $3::text[]) AS failed (id, delay, error) WHERE row.id = failed.id";
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let delays: Vec<f64> = rows.iter().map(|row| row.retry_after.as_secs_f64()).collect();
        let errors: Vec<String> = rows.iter().map(|row| row.error.replace('\0', "")).collect();
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&ids, Type::INT8_ARRAY), (&delays, Type::FLOAT8_ARRAY), (&errors, Type::TEXT_ARRAY)];
        self.execute("deferring rows", update, &values).await
    }

    /// Ends the session after an error: it may have no connection any more, or a statement in flight.
    fn checked<R>(&mut self, result: Result<R>) -> Result<R> {
        if result.is_err() {
            self.session = None;
        }
        result
    }
}

impl<C, F, S, T> OutboxStore for OutboxTable<C>
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<(Client, Connection<S, T>), tokio_postgres::Error>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn fetch(&mut self, rows: &FetchRows) -> Result<Option<Vec<OutboxRow>>> {
        let result = self.try_fetch(rows).await;
        self.checked(result)
    }

    async fn remove(&mut self, ids: &[i64]) -> Result<()> {
        let result = self.try_remove(ids).await;
        self.checked(result)
    }

    async fn defer(&mut self, rows: &[DeferredRow]) -> Result<()> {
        let result = self.try_defer(rows).await;
        self.checked(result)
    }

    async fn added(&mut self) {
        self.added.notified().await;
    }
}

impl<C> fmt::Debug for OutboxTable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_active = self.session.as_ref().map(|session| session.is_active);
        f.debug_struct("OutboxTable").field("is_active", &is_active).finish_non_exhaustive()
    }
}

async fn within<R>(doing: &str, call: impl Future<Output = Result<R, tokio_postgres::Error>>) -> Result<R> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(|e| failed(format_args!("the outbox: {doing}"), e)),
        Err(_) => {
            let what = format!("PostgreSQL: the outbox: {doing} was not complete within {TIMEOUT:?}");
            Err(Error::new(ErrorKind::Timeout, what))
        }
    }
}

fn read_row(row: &Row) -> Result<OutboxRow, tokio_postgres::Error> {
    let mut read = OutboxRow::new(row.try_get(0)?, row.try_get::<_, String>(1)?, row.try_get::<_, String>(2)?);
    read.partition = row.try_get(3)?;
    read.key = row.try_get::<_, Option<Vec<u8>>>(4)?.map(Into::into);
    read.value = row.try_get::<_, Option<Vec<u8>>>(5)?.map(Into::into);
    let names: Vec<String> = row.try_get(6)?;
    let values: Vec<Option<&[u8]>> = row.try_get(7)?;
    let mut headers = Headers::new();
    names.iter().zip(values).for_each(|(name, value)| headers.push(name, value));
    read.headers = headers;
    read.timestamp = row.try_get::<_, Option<i64>>(8)?.map(Timestamp::from_millis);
    read.attempts = row.try_get::<_, i32>(9)?.unsigned_abs();
    Ok(read)
}
