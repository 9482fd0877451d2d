//! `bench transactions`: records in transactions of a number of records, or of a time.

use std::time::Duration;

use ailurus::{Client, Error, ProducerRecord, Transaction, TransactionalProducer};
use anyhow::Context;
use tokio::time::Instant;

use super::{Bench, Data, Done, IDLE_TIMEOUT, Meter};

/// Number of records between two looks at the clock.
const RECORDS_PER_CLOCK_READING: u64 = 256;

/// Sends all records, in transactions, and commits each. The clocks start again after a first transaction of one record:
/// the coordinator may have to be created for it.
pub(super) async fn transactions(
    client: &Client,
    args: &Bench,
    data: &Data,
    meter: &mut Meter,
) -> anyhow::Result<Done> {
    let mut producer = client.transactional_producer("ailurus-bench").exclusive().start().await?;
    let sent = send_all(&mut producer, args, data, meter).await;
    let closed = producer.close(if sent.is_ok() { IDLE_TIMEOUT } else { Duration::ZERO }).await;
    let done = sent?;
    closed?;
    Ok(done)
}

async fn send_all(
    producer: &mut TransactionalProducer,
    args: &Bench,
    data: &Data,
    meter: &mut Meter,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    let first = producer.begin().await?;
    send(&first, args, data, 0).await?;
    first.commit().await.map_err(|e| args.failed(0, e.into()))?;
    *meter = Meter::start()?;
    while done.records < args.records {
        let begun = Instant::now();
        let transaction = producer.begin().await?;
        let mut size = 0;
        while done.records < args.records && !args.ends_transaction(size, begun) {
            done.bytes += send(&transaction, args, data, done.records).await?;
            done.records += 1;
            size += 1;
        }
        let ended = Instant::now();
        let committed = transaction.commit().await;
        committed.map_err(Error::from).with_context(|| format!("the {size} records before record {}", done.records))?;
        done.latencies.push(ended.elapsed());
        done.transactions += 1;
    }
    Ok(done)
}

/// Sends a record, and returns its bytes. The commit fails if it is not written.
async fn send(transaction: &Transaction<'_>, args: &Bench, data: &Data, i: u64) -> anyhow::Result<u64> {
    let (key, value) = data.record(i);
    let record = ProducerRecord::to(&args.topic).key(key).value(value);
    _ = transaction.send(record).await.map_err(|e| args.failed(i, e))?;
    Ok((key.len() + value.len()) as u64)
}

impl Bench {
    fn ends_transaction(&self, size: u64, begun: Instant) -> bool {
        match self.per {
            0 if size > 0 && size.is_multiple_of(RECORDS_PER_CLOCK_READING) => {
                begun.elapsed() >= Duration::from_millis(self.interval_ms)
            }
            0 => false,
            per => size >= per,
        }
    }
}
