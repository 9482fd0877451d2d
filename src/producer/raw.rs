//! An accumulator without brokers, for benchmarks. Not part of the API: it may change with any
//! release.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::accumulator::{Accumulator, AccumulatorConfig, NewRecord};
use super::batch::SendOutcome;
use super::delivery::AppendInfo;
use super::partitioner::PartitionChoice;
use crate::config::{Compression, PartitionerKind, ProducerConfig};
use crate::record::record_size_bound;

const BROKER: i32 = 1;

/// The batches of a topic whose partitions one broker leads.
#[derive(Debug)]
pub struct RawAccumulator {
    core: Accumulator,
    topic: Arc<str>,
}

impl RawAccumulator {
    /// Creates an empty one.
    pub fn new(topic: &str, partitions: usize) -> Self {
        let config = ProducerConfig { idempotence: false, ..ProducerConfig::default() };
        let mut core = Accumulator::new(AccumulatorConfig::new(&config, Duration::from_secs(30)), 1);
        let topic = Arc::from(topic);
        core.update_topic(Instant::now(), &topic, None, Some(&vec![Some(BROKER); partitions]));
        Self { core, topic }
    }

    /// Appends a record to its partition's batch.
    pub fn append(&mut self, key: &[u8], value: &[u8]) {
        let (key, value) = (Some(key), Some(value));
        let record = NewRecord {
            topic: &self.topic,
            target: PartitionChoice::of(&PartitionerKind::Murmur2, None, key),
            timestamp: 1_700_000_000_000,
            key,
            value,
            headers: None,
            compression: Compression::None,
            size: record_size_bound(key, value, None),
        };
        _ = self.core.append(Instant::now, &record);
    }

    /// Encodes all batches as for the broker, and drops them. Returns their size.
    pub fn send(&mut self) -> usize {
        let now = Instant::now();
        self.core.flush(now);
        let mut sent = 0;
        loop {
            let (batches, _) = self.core.drain(|| now, BROKER);
            if batches.is_empty() {
                return sent;
            }
            for batch in batches {
                let (bytes, _) = batch.payload.encode(batch.compression, batch.producer);
                sent += bytes.len();
                if let Ok(mut buffer) = bytes.try_into_mut() {
                    buffer.clear();
                    self.core.recycle_buffer(buffer.into());
                }
                let info = AppendInfo { base_offset: Some(0), append_time: None };
                self.core.complete(now, batch.id, SendOutcome::Written(info), &mut Vec::new());
            }
        }
    }
}
