//! The relay of an outbox in memory: what it does while brokers are away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::health::Status;
use ailurus::store::{DeferredRow, FetchRows, OutboxRow, OutboxStore, Relay};
use ailurus::{Client, Result};
use ailurus_test_support as support;
use tokio::time::Instant;

const ROWS: i64 = 100;
/// Far longer than anything takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// The rows of an outbox, each with the time before which it is not returned.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<BTreeMap<i64, (OutboxRow, Instant)>>>);

impl Table {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl OutboxStore for Table {
    async fn fetch(&mut self, request: &FetchRows) -> Result<Option<Vec<OutboxRow>>> {
        let rows = self.0.lock().unwrap();
        let due = rows.values().filter(|(row, at)| *at <= Instant::now() && !request.except.contains(&row.id));
        Ok(Some(due.take(request.max_rows).map(|(row, _)| row.clone()).collect()))
    }

    async fn remove(&mut self, ids: &[i64]) -> Result<()> {
        self.0.lock().unwrap().retain(|id, _| !ids.contains(id));
        Ok(())
    }

    async fn defer(&mut self, deferred: &[DeferredRow]) -> Result<()> {
        for one in deferred {
            if let Some((row, at)) = self.0.lock().unwrap().get_mut(&one.id) {
                row.attempts += 1;
                *at = Instant::now() + one.retry_after;
            }
        }
        Ok(())
    }

    async fn added(&mut self) {
        std::future::pending().await
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN);
        tracing::subscriber::set_global_default(lines.with_writer(move || writer.clone()).finish()).unwrap();
        log
    }

    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

/// Waits for the condition; it must hold at last.
async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, holds).await.expect("the condition holds at last");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_brokers_is_one_warning_for_all_rows() {
    let log = Log::begin();
    let Some(broker) = support::embedded(|config| config.nodes(1)).await else { return };
    let config = broker.config().retry_backoff(Duration::from_millis(5)).request_timeout(Duration::from_millis(500));
    let config = config.build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let topic = broker.topic("rows");
    support::create_topic(&client, &topic, 1).await.unwrap();
    let embedded = broker.embedded().unwrap();
    embedded.stop_node(0).await.unwrap();
    let table = Table::default();
    let row = |id: i64| OutboxRow::new(id, format!("event-{id}"), &topic).key(format!("key-{id}")).value("v");
    table.0.lock().unwrap().extend((0..ROWS).map(|id| (id, (row(id), Instant::now()))));

    let mut config = client.config().producer.clone();
    config.delivery_timeout = Duration::from_secs(1);
    let relay = Relay::new(&client, table.clone()).producer(config).start().unwrap();
    until(|| relay.health().failed >= 3 * ROWS as u64).await;
    let health = client.health().await;
    assert_eq!(health.relays.len(), 1);
    let problem = health.relays[0].problem.as_ref().expect("the relay has a problem");
    assert!(problem.contains(&topic), "{problem}");
    assert!(health.problems.iter().any(|p| p.contains(problem)), "{:?}", health.problems);
    assert_eq!(table.len(), ROWS as usize);

    embedded.start_node(0).await.unwrap();
    until(|| table.len() == 0).await;
    until(|| relay.health().problem.is_none()).await;
    relay.shutdown(LONG).await.unwrap();
    // Each row failed three times at least; a long outage is repeated now and then.
    let warnings = log.count("records can't be sent");
    assert!((1..=10).contains(&warnings), "{warnings} warnings");
    assert_eq!(log.count("the rows of the outbox can be sent again"), 1);
    let health = client.health().await;
    assert!(health.relays.is_empty() && health.status != Status::Unhealthy, "{health:?}");
    client.close().await;
}
