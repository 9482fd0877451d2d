//! Idempotent and transactional producers of a log.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;

use crate::batch::{EndMarker, Header};

/// Batches remembered per producer, to detect duplicates: as many as a producer may have in flight.
const MAX_CACHED_BATCHES: usize = 5;

/// State of a producer in a partition.
#[derive(Debug)]
pub(crate) struct ProducerState {
    pub epoch: i16,
    /// Epoch of the coordinator that wrote the last marker; -1 if there is none.
    pub coordinator_epoch: i32,
    /// Timestamp of the last batch; -1 if there is none.
    pub last_timestamp: i64,
    /// First sequence, last sequence and base offset of the last batches.
    recent: VecDeque<(i32, i32, i64)>,
}

impl ProducerState {
    fn new(epoch: i16) -> Self {
        Self { epoch, coordinator_epoch: -1, last_timestamp: -1, recent: VecDeque::new() }
    }

    /// Returns the last sequence; -1 if the epoch has no batch.
    pub fn last_sequence(&self) -> i32 {
        self.recent.back().map_or(-1, |&(_, last, _)| last)
    }
}

#[derive(Debug, Default)]
pub(super) struct Producers(BTreeMap<i64, ProducerState>);

impl Producers {
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerState)> {
        self.0.iter().map(|(&id, state)| (id, state))
    }

    pub fn epoch(&self, producer_id: i64) -> Option<i16> {
        self.0.get(&producer_id).map(|state| state.epoch)
    }

    /// Checks epoch and sequences of a batch and adds it, to be appended at `end`. Returns the base
    /// offset of a duplicate.
    pub fn check_batch(&mut self, header: &Header, end: i64) -> Result<Option<i64>, ResponseError> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let (first, last) = (header.base_sequence, add_to_sequence(header.base_sequence, header.last_offset_delta));
        // An unknown producer may start anywhere: its state may have expired.
        let is_unknown = !self.0.contains_key(&header.producer_id);
        let producer = self.0.entry(header.producer_id).or_insert_with(|| ProducerState::new(header.producer_epoch));
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch == producer.epoch {
            if let Some(&(.., offset)) = producer.recent.iter().find(|r| (r.0, r.1) == (first, last)) {
                return Ok(Some(offset));
            }
            let next = producer.recent.back().map_or(0, |&(_, last, _)| add_to_sequence(last, 1));
            if first != next && !is_unknown {
                return Err(ResponseError::OutOfOrderSequenceNumber);
            }
        } else if first != 0 {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        } else {
            producer.epoch = header.producer_epoch;
            producer.recent.clear();
        }
        if producer.recent.len() == MAX_CACHED_BATCHES {
            producer.recent.pop_front();
        }
        producer.recent.push_back((first, last, end));
        producer.last_timestamp = header.max_timestamp;
        Ok(None)
    }

    /// Checks the epochs of a marker. Its producer epoch becomes the one of the producer, whose
    /// sequences restart if it is new.
    pub fn check_marker(&mut self, marker: &EndMarker) -> Result<(), ResponseError> {
        let epoch = marker.producer_epoch;
        let producer = self.0.entry(marker.producer_id).or_insert_with(|| ProducerState::new(-1));
        if epoch < producer.epoch || (marker.has_new_epoch && epoch == producer.epoch) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if marker.coordinator_epoch < producer.coordinator_epoch {
            return Err(ResponseError::TransactionCoordinatorFenced);
        }
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        producer.coordinator_epoch = marker.coordinator_epoch;
        Ok(())
    }
}

/// Adds to a sequence, which wraps around after `i32::MAX`.
fn add_to_sequence(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}
