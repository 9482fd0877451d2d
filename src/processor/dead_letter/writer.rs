//! Writes failed records.

use std::time::Duration;

use super::destination::DeadLetters;
use super::pending::{FailedRecord, HandlerFailure};
use crate::cluster::Client;
use crate::consumer::Message;
use crate::error::{ErrorKind, Result};
use crate::producer::{Acknowledgement, Producer};

/// Writes the dead letters and delayed retries of a subscription with a producer of its own.
#[derive(Debug)]
pub(in crate::processor) struct DeadLetterWriter {
    letters: DeadLetters,
    producer: Producer,
}

impl DeadLetterWriter {
    /// `max_record_bytes` is the size of the largest record that can be fetched.
    pub(in crate::processor) fn new(client: &Client, letters: DeadLetters, max_record_bytes: usize) -> Result<Self> {
        let producer = Producer::to_existing(client, letters.producer_config(max_record_bytes))?;
        Ok(Self { letters, producer })
    }

    pub(in crate::processor) fn letters(&self) -> &DeadLetters {
        &self.letters
    }

    /// Returns what to [write](Self::write) of a record whose last attempt failed.
    pub(in crate::processor) fn failed_record(&self, message: Message, failure: HandlerFailure) -> FailedRecord {
        self.letters.failed_record(message, failure)
    }

    /// Writes a failed record and waits for its acknowledgement. Creates its topic if that was
    /// deleted, or is new.
    pub(in crate::processor) async fn write(&self, record: &mut FailedRecord) -> Result<Acknowledgement> {
        match self.write_to_existing(record).await {
            Err(e) if e.is_unknown_topic() => {
                self.letters.reopen(record).await?;
                self.write_to_existing(record).await
            }
            outcome => outcome,
        }
    }

    async fn write_to_existing(&self, record: &mut FailedRecord) -> Result<Acknowledgement> {
        loop {
            match self.send(record).await {
                Err(e) if e.kind() == ErrorKind::RecordTooLarge && record.shrink(&e) => {}
                outcome => return outcome,
            }
        }
    }

    async fn send(&self, record: &FailedRecord) -> Result<Acknowledgement> {
        self.producer.send(record.record()).await?.await
    }

    pub(in crate::processor) async fn close(&self, timeout: Duration) -> Result<()> {
        self.producer.close(timeout).await
    }
}
