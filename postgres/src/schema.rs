//! The tables.

use ailurus::Result;
use tokio_postgres::Client;

use crate::error::failed;

/// Statements that create the tables, each of which may run again: for a migration tool of one's
/// own. [`migrate`] runs them.
///
/// The names have no schema: they are found by the connection's `search_path`.
///
/// ```
/// assert!(ailurus_postgres::SCHEMA.contains("CREATE TABLE IF NOT EXISTS ailurus_outbox"));
/// ```
pub const SCHEMA: &str = include_str!("../schema.sql");

/// Creates the tables that do not exist, in the first schema of the connection's `search_path`.
/// Several processes may call it at the same time.
///
/// # Errors
/// [`ErrorKind::Io`](ailurus::ErrorKind::Io) with the database's error.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, connection) = tokio_postgres::connect("host=localhost user=shop", tokio_postgres::NoTls).await?;
/// tokio::spawn(connection);
/// ailurus_postgres::migrate(&client).await?;
/// # Ok(())
/// # }
/// ```
pub async fn migrate(client: &Client) -> Result<()> {
    // One implicit transaction. Without the lock, two that create the same table fail.
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('ailurus-postgres migrate', 0));";
    let statements = format!("BEGIN; {lock}\n{SCHEMA}\nCOMMIT;");
    let result = client.batch_execute(&statements).await;
    if result.is_err() {
        // The connection may be one of a pool: it must not stay in the failed transaction.
        _ = client.batch_execute("ROLLBACK").await;
    }
    result.map_err(|e| failed("creating the tables of the inbox and the outbox", e))
}
