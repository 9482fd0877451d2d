//! Sends records.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::cluster::Client;
use crate::config::{Compression, ProducerConfig};
use crate::error::Result;
use crate::record::Headers;

/// A record to send; it borrows what it is made of.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ProducerRecord<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The partition, if not chosen by key.
    pub partition: Option<i32>,
    /// Hashed to choose the partition.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: Option<&'a Headers>,
    /// Milliseconds since 1970; now if `None`.
    pub timestamp: Option<i64>,
    /// Another codec than the producer's.
    pub compression: Option<Compression>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with neither key nor value.
    pub fn to(topic: &'a str) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: None, timestamp: None, compression: None }
    }
    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }
    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.value = Some(value.as_ref());
        self
    }
    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a Headers) -> Self {
        self.headers = Some(headers);
        self
    }
    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
    /// Sets the timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
    /// Sets the codec.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970: the producer's, or the broker's if the topic says so.
    pub timestamp: i64,
}

/// Resolves when the record is acknowledged or has failed. Dropping it does not take the record back.
#[derive(Debug)]
pub struct Delivery(());

impl Future for Delivery {
    type Output = Result<Acknowledgement>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// Sends records: cheap to clone, one buffer and one set of connections shared by all clones.
#[derive(Debug, Clone)]
pub struct Producer(());

impl Producer {
    /// A producer on a client.
    pub fn new(_client: &Client, _config: ProducerConfig) -> Result<Self> {
        todo!()
    }
    /// Puts a record into its partition's batch, waiting for buffer space and for the topic's partitions to be known.
    pub async fn send(&self, _record: ProducerRecord<'_>) -> Result<Delivery> {
        todo!()
    }
    /// Sends what is waiting and waits until all that was sent before this call has ended.
    pub async fn flush(&self, _timeout: Duration) -> Result<()> {
        todo!()
    }
    /// [`flush`](Self::flush), then ends the producer's tasks; what is not acknowledged by then fails.
    pub async fn close(&self, _timeout: Duration) -> Result<()> {
        todo!()
    }
}
