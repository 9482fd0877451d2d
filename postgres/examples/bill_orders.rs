//! Bills each order once, sends the bills by an outbox, and enters each bill into a ledger once; killed
//! again and again by the test `kill`.
//!
//! ```text
//! DATABASE="host=localhost user=shop" BROKERS=localhost:9092 cargo run -p ailurus-postgres --example bill_orders
//! ```
//!
//! With `KILL_AT=STEP:N` the process kills itself (SIGKILL) when it reaches a step for the Nth time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ailurus::processor::BoxError;
use ailurus::store::{DeferredRow, FetchRows, OutboxRow, OutboxStore, Relay};
use ailurus::{Client, Config, Headers, Message, ProducerRecord};
use ailurus_postgres::{Inbox, Outbox, OutboxTable, migrate};
use tokio::sync::Mutex;
use tokio_postgres::{NoTls, Transaction};

/// Kills the process at a step.
#[derive(Clone, Default)]
struct Killer(Option<Arc<(String, AtomicU32)>>);

impl Killer {
    fn from_env() -> Result<Self, BoxError> {
        let Ok(text) = env::var("KILL_AT") else { return Ok(Self::default()) };
        let (step, times) = text.split_once(':').ok_or("KILL_AT is STEP:N")?;
        Ok(Self(Some(Arc::new((step.to_owned(), AtomicU32::new(times.parse()?))))))
    }

    fn reach(&self, step: &str) {
        let Some(kill) = self.0.as_deref().filter(|(at, _)| at == step) else { return };
        if kill.1.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_this_process();
        }
    }
}

fn kill_this_process() {
    #[cfg(unix)]
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    #[cfg(not(unix))]
    std::process::abort();
}

/// Outbox with steps.
struct Steps<S>(S, Killer);

impl<S: OutboxStore> OutboxStore for Steps<S> {
    async fn fetch(&mut self, rows: &FetchRows) -> ailurus::Result<Option<Vec<OutboxRow>>> {
        let fetched = self.0.fetch(rows).await?;
        if fetched.as_ref().is_some_and(|rows| !rows.is_empty()) {
            self.1.reach("rows fetched");
        }
        Ok(fetched)
    }

    async fn remove(&mut self, ids: &[i64]) -> ailurus::Result<()> {
        self.1.reach("records acknowledged");
        self.0.remove(ids).await?;
        self.1.reach("rows removed");
        Ok(())
    }

    async fn defer(&mut self, rows: &[DeferredRow]) -> ailurus::Result<()> {
        self.0.defer(rows).await
    }

    async fn added(&mut self) {
        self.0.added().await;
    }
}

/// A connection that is opened on first use and after an error; an application has a pool.
struct Database {
    config: tokio_postgres::Config,
    client: Mutex<Option<tokio_postgres::Client>>,
}

impl Database {
    fn new(config: &tokio_postgres::Config) -> Arc<Self> {
        Arc::new(Self { config: config.clone(), client: Mutex::new(None) })
    }

    async fn apply(
        &self,
        inbox: &Inbox,
        message: &Message,
        effect: impl AsyncFnOnce(&Transaction<'_>) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let mut guard = self.client.lock().await;
        let mut client = match guard.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(connection);
                client
            }
        };
        let result = inbox.apply(&mut client, message, effect).await;
        *guard = Some(client);
        result.map(drop)
    }
}

/// Returns the column of a table's row: key, and number of the record of that key.
fn key_and_number(message: &Message) -> Result<(String, i64), BoxError> {
    let key = message.key.as_deref().ok_or("a record without a key")?;
    Ok((std::str::from_utf8(key)?.to_owned(), message.text()?.ok_or("a record without a value")?.parse()?))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let database: tokio_postgres::Config = env::var("DATABASE")?.parse()?;
    let prefix = env::var("PREFIX").unwrap_or_default();
    let killer = Killer::from_env()?;
    let (orders, bills) = (format!("{prefix}orders"), format!("{prefix}bills"));
    // A static member: after a crash its partitions are assigned to it again at once.
    let config = Config::builder()
        .brokers(env::var("BROKERS")?)
        .group_instance_id("bill-orders")
        .max_attempts(1000)
        .retry_backoff_max(Duration::from_millis(200));
    let client = Client::connect(config.build()?).await?;

    let (connected, connection) = database.connect(NoTls).await?;
    tokio::spawn(connection);
    migrate(&connected).await?;
    // Neither has a unique key: nothing but the inbox keeps an event from being there twice.
    let tables = "CREATE TABLE IF NOT EXISTS bills (id bigserial, customer text, number bigint);
                  CREATE TABLE IF NOT EXISTS ledger (id bigserial, customer text, number bigint)";
    connected.batch_execute(tables).await?;

    let connect = {
        let database = database.clone();
        move || {
            let database = database.clone();
            async move { database.connect(NoTls).await }
        }
    };
    let table = Steps(OutboxTable::new(connect), killer.clone());
    let relay = Relay::new(&client, table).poll_interval(Duration::from_millis(20)).start()?;

    let bill = {
        let (database, inbox) = (Database::new(&database), Inbox::by_event_id("billing").fenced());
        let (killer, topic) = (killer.clone(), bills.clone());
        move |message: Message| {
            let (database, inbox) = (Arc::clone(&database), inbox.clone());
            let (killer, topic) = (killer.clone(), topic.clone());
            async move {
                let (customer, number) = key_and_number(&message)?;
                let effect = async |transaction: &Transaction<'_>| {
                    killer.reach("order claimed");
                    let insert = "INSERT INTO bills (customer, number) VALUES ($1, $2)";
                    transaction.execute(insert, &[&customer, &number]).await?;
                    killer.reach("bill written");
                    let (value, headers) = (number.to_string(), Headers::new().with("ce_source", "billing"));
                    let record = ProducerRecord::to(&topic).key(&customer).value(&value).headers(&headers);
                    Outbox::new().notify(true).add(transaction, &record).await?;
                    killer.reach("outbox written");
                    Ok::<_, BoxError>(())
                };
                database.apply(&inbox, &message, effect).await?;
                killer.reach("order committed");
                Ok::<_, BoxError>(())
            }
        }
    };
    let enter = {
        let (database, inbox) = (Database::new(&database), Inbox::by_event_id("ledger"));
        let killer = killer.clone();
        move |message: Message| {
            let (database, inbox, killer) = (Arc::clone(&database), inbox.clone(), killer.clone());
            async move {
                let (customer, number) = key_and_number(&message)?;
                let effect = async |transaction: &Transaction<'_>| {
                    killer.reach("bill claimed");
                    let insert = "INSERT INTO ledger (customer, number) VALUES ($1, $2)";
                    transaction.execute(insert, &[&customer, &number]).await?;
                    Ok::<_, BoxError>(())
                };
                database.apply(&inbox, &message, effect).await?;
                killer.reach("bill committed");
                Ok::<_, BoxError>(())
            }
        }
    };
    let billing = client.processor(format!("{prefix}billing")).subscribe([orders], bill).await?;
    let ledger = client.processor(format!("{prefix}ledger")).subscribe([bills], enter).await?;
    println!("running");

    billing.run_until_signal().await?;
    ledger.shutdown().await?;
    relay.shutdown(Duration::from_secs(10)).await?;
    client.close().await;
    println!("shut down");
    Ok(())
}
