//! The log of one partition.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use crate::batch::{self, EndMarker, Header, Records};
use crate::error::BrokerError;

mod epochs;
mod producers;
mod transactions;

use epochs::LeaderEpochs;
pub(crate) use producers::ProducerState;
use producers::Producers;
pub(crate) use transactions::AbortedTxn;
use transactions::Transactions;

#[derive(Debug)]
pub(crate) struct Batch {
    pub header: Header,
    pub data: Bytes,
}

impl Batch {
    pub fn last_offset(&self) -> i64 {
        self.header.base_offset + i64::from(self.header.last_offset_delta)
    }

    /// Returns the records; `None` if the codec is neither none nor gzip.
    pub fn records(&self) -> Result<Option<Records>, BrokerError> {
        Ok(batch::decompress(&self.header, &self.data)?.map(Records::new))
    }
}

/// A validated batch of a Produce request, without its offsets yet.
#[derive(Debug)]
pub(crate) struct ValidBatch {
    header: Header,
    data: BytesMut,
}

impl ValidBatch {
    /// Returns the bytes of the batch in the log.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    pub fn is_transactional(&self) -> bool {
        self.header.is_transactional()
    }

    /// Returns producer id and epoch.
    pub fn producer(&self) -> (i64, i16) {
        (self.header.producer_id, self.header.producer_epoch)
    }

    /// Returns the indexes of its records in the batch.
    pub fn record_indexes(&self) -> std::ops::Range<i32> {
        0..self.header.count
    }

    /// Returns the indexes of records without a key, which a compacted topic rejects.
    pub fn indexes_without_key(&self) -> Vec<i32> {
        let decompressed = batch::decompress(&self.header, &Bytes::copy_from_slice(&self.data)).ok().flatten();
        let records = decompressed.into_iter().flat_map(Records::new).filter_map(Result::ok);
        records.filter(|record| record.key.is_none()).map(|record| record.offset_delta).collect()
    }
}

/// Validates the records of one partition of a Produce request as Kafka does: one batch of format
/// v2, its checksum and, if `check_each_record`, each record.
pub(crate) fn validate(records: &Bytes, check_each_record: bool) -> Result<ValidBatch, ResponseError> {
    let header = match Header::read(records) {
        Some(header) => header,
        None if records.is_empty() => return Err(ResponseError::InvalidRecord),
        None => return Err(ResponseError::CorruptMessage),
    };
    if header.magic != 2 || header.size != records.len() {
        return Err(ResponseError::InvalidRecord);
    }
    if !header.is_intact(records) {
        return Err(ResponseError::CorruptMessage);
    }
    let sequenced = header.producer_id < 0 || (header.producer_epoch >= 0 && header.base_sequence >= 0);
    let counted = header.count > 0 && header.last_offset_delta == header.count - 1;
    if header.is_control() || !sequenced || !counted {
        return Err(ResponseError::InvalidRecord);
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(ResponseError::InvalidRecord);
    }
    if check_each_record {
        check_records(&header, records)?;
    }
    Ok(ValidBatch { header, data: BytesMut::from(&records[..]) })
}

fn check_records(header: &Header, data: &Bytes) -> Result<(), ResponseError> {
    let Some(decompressed) = batch::decompress(header, data).map_err(|_| ResponseError::CorruptMessage)? else {
        return Ok(());
    };
    let mut count = 0;
    for record in Records::new(decompressed) {
        let record = record.map_err(|_| ResponseError::InvalidRecord)?;
        if record.offset_delta != count {
            return Err(ResponseError::InvalidRecord);
        }
        count += 1;
    }
    if count == header.count { Ok(()) } else { Err(ResponseError::InvalidRecord) }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    batches: VecDeque<Batch>,
    bytes: u64,
    start: i64,
    end: i64,
    producers: Producers,
    transactions: Transactions,
    epochs: LeaderEpochs,
    /// Connections with a Fetch that waits for this partition, each once.
    waiters: Vec<Weak<Notify>>,
}

impl Log {
    /// Returns the log start offset.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Returns the log end offset, which is the high watermark too.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Returns the start of the first open transaction, or the log end offset.
    pub fn last_stable_offset(&self) -> i64 {
        self.transactions.first_open().unwrap_or(self.end)
    }

    /// Returns whether a transaction of this producer and epoch is open.
    pub fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        self.open_transaction(producer_id).is_some() && self.producers.epoch(producer_id) == Some(epoch)
    }

    /// Returns the start offset of a producer's open transaction.
    pub fn open_transaction(&self, producer_id: i64) -> Option<i64> {
        self.transactions.open_at(producer_id)
    }

    /// Iterates over the producers by id.
    pub fn producers(&self) -> impl Iterator<Item = (i64, &ProducerState)> {
        self.producers.iter()
    }

    /// Returns the aborted transactions that overlap the offsets `from..to`.
    pub fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        self.transactions.aborted(from, to)
    }

    /// Starts a new leader epoch at the end of the log.
    pub fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.begin(epoch, self.end);
    }

    /// Returns the end of a leader epoch; see [`LeaderEpochs::end_of`].
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        self.epochs.end_of(epoch, self.end)
    }

    /// Returns the leader epoch of the batch with `offset`; at the log end, of the last batch.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let index = self.batches.partition_point(|b| b.last_offset() < offset);
        self.batches.get(index).or(self.batches.back()).map(|b| batch::leader_epoch(&b.data))
    }

    /// Drops every batch that reaches `end`.
    pub fn truncate(&mut self, end: i64) {
        while self.batches.back().is_some_and(|b| b.last_offset() >= end) {
            if let Some(batch) = self.batches.pop_back() {
                self.bytes -= batch.data.len() as u64;
                self.end = batch.header.base_offset;
            }
        }
        self.start = self.start.min(self.end);
        self.epochs.truncate(self.end);
        self.transactions = Transactions::default();
        for batch in &self.batches {
            track_transaction(&mut self.transactions, &batch.header, &batch.data);
        }
        self.notify_waiters();
    }

    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }

    /// Appends a batch and returns its base offset; of a duplicate, the offset it was appended at.
    pub fn append(&mut self, batch: ValidBatch, leader_epoch: i32) -> Result<i64, ResponseError> {
        let header = &batch.header;
        if self.open_transaction(header.producer_id).is_some() && !header.is_transactional() {
            return Err(ResponseError::InvalidTxnState);
        }
        if let Some(offset) = self.producers.check_batch(header, self.end)? {
            return Ok(offset);
        }
        Ok(self.push(batch.data, batch.header, leader_epoch))
    }

    /// Appends the marker that ends a producer's transaction; returns its offset.
    pub fn append_marker(&mut self, marker: &EndMarker, leader_epoch: i32) -> Result<i64, ResponseError> {
        self.producers.check_marker(marker)?;
        let data = batch::control(marker);
        let Some(header) = Header::read(&data) else { return Err(ResponseError::CorruptMessage) };
        Ok(self.push(data, header, leader_epoch))
    }

    /// Appends a batch without validating it.
    pub fn append_raw(&mut self, data: BytesMut, leader_epoch: i32) -> Result<i64, BrokerError> {
        let invalid = |message: &str| BrokerError::InvalidBatch(message.into());
        let header = Header::read(&data).ok_or_else(|| invalid("it is shorter than its header says"))?;
        if header.size != data.len() || header.last_offset_delta < 0 {
            return Err(invalid("it is longer than its header says, or its last offset delta is negative"));
        }
        Ok(self.push(data, header, leader_epoch))
    }

    fn push(&mut self, mut data: BytesMut, header: Header, leader_epoch: i32) -> i64 {
        let base_offset = self.end;
        batch::set_position(&mut data, base_offset, leader_epoch);
        self.end += i64::from(header.last_offset_delta) + 1;
        self.bytes += data.len() as u64;
        let header = Header { base_offset, ..header };
        let data = data.freeze();
        track_transaction(&mut self.transactions, &header, &data);
        self.batches.push_back(Batch { header, data });
        self.notify_waiters();
        base_offset
    }

    /// Returns the batches from the one with offset `from` up to `to`: at most `max` bytes, but at
    /// least one batch if `at_least_one`; the last may be partial if `allow_partial`.
    pub fn read(
        &self,
        from: i64,
        to: i64,
        max: usize,
        at_least_one: bool,
        allow_partial: bool,
    ) -> Result<Vec<Bytes>, ResponseError> {
        if from < self.start || from > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let mut out: Vec<Bytes> = Vec::new();
        let mut remaining_bytes = max;
        let from = self.batches.partition_point(|b| b.last_offset() < from);
        for batch in self.batches.range(from..).take_while(|b| b.header.base_offset < to) {
            if batch.data.len() > remaining_bytes && !(at_least_one && out.is_empty()) {
                if allow_partial && remaining_bytes > 0 && !out.is_empty() {
                    out.push(batch.data.slice(..remaining_bytes));
                }
                break;
            }
            remaining_bytes = remaining_bytes.saturating_sub(batch.data.len());
            out.push(batch.data.clone());
        }
        Ok(out)
    }

    /// Returns offset and timestamp of the first record at or after `timestamp`. Exact for batches
    /// without compression or with gzip, to the batch for other codecs.
    pub fn offset_for(&self, timestamp: i64) -> Option<(i64, i64)> {
        let with_records = self.batches.iter().filter(|b| b.header.count > 0 && !b.header.is_control());
        with_records.filter(|b| b.header.max_timestamp >= timestamp && b.last_offset() >= self.start).find_map(|b| {
            let found = |(offset, at): &(i64, i64)| *at >= timestamp && *offset >= self.start;
            timestamps(b).into_iter().find(found)
        })
    }

    /// Returns offset and timestamp of the first record with the largest timestamp.
    pub fn offset_of_max_timestamp(&self) -> Option<(i64, i64)> {
        let with_records = self.batches.iter().filter(|b| b.header.count > 0 && !b.header.is_control());
        let max = with_records.map(|b| b.header.max_timestamp).max()?;
        self.offset_for(max)
    }

    /// Advances the log start offset and drops the batches before it.
    pub fn delete_before(&mut self, offset: i64) -> Result<(), ResponseError> {
        if offset > self.end || offset < 0 {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|b| b.last_offset() < offset) {
            self.drop_oldest();
        }
        Ok(())
    }

    /// Drops the oldest batches until at most `limit` bytes are left, but never the newest.
    pub fn retain_bytes(&mut self, limit: u64) {
        while self.bytes > limit && self.batches.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.data.len() as u64;
            self.start = self.start.max(batch.last_offset() + 1);
        }
    }

    /// Retains only the records whose offsets `keep` accepts. Offsets stay, and batches without
    /// records are dropped, except for the newest.
    pub fn compact(&mut self, keep: impl Fn(i64) -> bool) -> Result<(), BrokerError> {
        let newest = self.batches.len().saturating_sub(1);
        let mut compacted = VecDeque::new();
        for (i, old) in self.batches.iter().enumerate() {
            let records = old.records()?.ok_or_else(|| {
                BrokerError::InvalidBatch(format!("batch {} has an unsupported codec", old.header.base_offset))
            })?;
            let mut kept = Vec::new();
            for record in records {
                let record = record?;
                if keep(old.header.base_offset + i64::from(record.offset_delta)) {
                    kept.push(record.raw);
                }
            }
            if kept.is_empty() && i != newest {
                continue;
            }
            let data = batch::build(&old.header, kept).freeze();
            if let Some(header) = Header::read(&data) {
                compacted.push_back(Batch { header, data });
            }
        }
        self.bytes = compacted.iter().map(|b| b.data.len() as u64).sum();
        self.batches = compacted;
        Ok(())
    }

    /// Notifies `waiter` once, on the next append or leader change. Registering it again has no
    /// effect.
    pub fn notify_on_change(&mut self, waiter: &Arc<Notify>) {
        let is_waiting = self.waiters.iter().any(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(waiter)));
        if !is_waiting {
            self.waiters.retain(|w| w.strong_count() > 0);
            self.waiters.push(Arc::downgrade(waiter));
        }
    }

    pub fn notify_waiters(&mut self) {
        for waiter in self.waiters.drain(..).filter_map(|w| w.upgrade()) {
            waiter.notify_one();
        }
    }
}

/// Updates the transactions by a batch.
fn track_transaction(transactions: &mut Transactions, header: &Header, data: &Bytes) {
    match batch::transaction_marker(header, data) {
        Some(commit) => transactions.on_marker(header.producer_id, header.base_offset, commit),
        None if header.is_transactional() && !header.is_control() => {
            transactions.on_batch(header.producer_id, header.base_offset);
        }
        None => {}
    }
}

/// Returns offset and timestamp of each record; of the whole batch if it cannot be decompressed.
fn timestamps(batch: &Batch) -> Vec<(i64, i64)> {
    let header = &batch.header;
    let each = |r: batch::Record| {
        let offset = header.base_offset + i64::from(r.offset_delta);
        (offset, header.base_timestamp.saturating_add(r.timestamp_delta))
    };
    match batch.records() {
        Ok(Some(records)) => records.map_while(Result::ok).map(each).collect(),
        _ => vec![(header.base_offset, header.max_timestamp)],
    }
}

#[cfg(test)]
mod tests;
