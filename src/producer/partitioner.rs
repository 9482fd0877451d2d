//! The partitioners: how a record's partition is chosen.

use std::sync::Arc;

use crate::config::PartitionerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::partitioner::{PartitionInput, Partitioner};
use crate::record::BATCH_HEADER_BYTES;

/// Bytes of records that stick to a partition, however large batches may be: as with the Java
/// client's settings. Otherwise a producer that sends little would send it all to one partition.
const STICKY_BYTES: usize = 16 << 10;

/// The way in which a record's partition is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionChoice {
    /// The caller, or the application's own partitioner, has chosen it.
    Partition(i32),
    /// It follows from this hash of the key.
    KeyHash(u32),
    /// It is the one after that of the last record.
    RoundRobin,
    /// It is the topic's sticky partition.
    Sticky,
}

impl PartitionChoice {
    /// Returns the choice by the settings. An application's own partitioner comes later: see
    /// [`custom_partition`].
    #[inline]
    pub(crate) fn of(partitioner: &PartitionerKind, partition: Option<i32>, key: Option<&[u8]>) -> Self {
        match (partition, partitioner, key) {
            (Some(partition), ..) => Self::Partition(partition),
            (None, PartitionerKind::Murmur2, Some(key)) => Self::KeyHash((murmur2(key) & i32::MAX) as u32),
            (None, PartitionerKind::ConsistentRandom, Some(key)) if !key.is_empty() => Self::KeyHash(crc32(key)),
            (None, PartitionerKind::RoundRobin, _) => Self::RoundRobin,
            (None, ..) => Self::Sticky,
        }
    }
}

/// Returns the choice of the application's own partitioner.
pub(super) fn custom_partition(partitioner: &dyn Partitioner, record: &PartitionInput<'_>) -> Result<PartitionChoice> {
    let Some(partition) = partitioner.partition(record) else { return Ok(PartitionChoice::Sticky) };
    if (0..record.partitions).contains(&partition) {
        return Ok(PartitionChoice::Partition(partition));
    }
    let what = format!(
        "the application's partitioner chose partition {partition} for a record of topic {:?}, which has {}, from 0 to {}; the \
         record was not sent",
        record.topic,
        record.partitions,
        record.partitions - 1
    );
    Err(Error::new(ErrorKind::InvalidRecord, what))
}

/// Returns the partition of a hashed key in a topic with so many partitions.
#[inline]
pub(crate) fn partition_of_hash(hash: u32, partitions: usize) -> usize {
    hash as usize % partitions.max(1)
}

/// The load of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionLoad {
    /// Number of unfinished batches.
    pub(super) queued_batches: usize,
    /// True if none of them has waited for too long.
    pub(super) responds: bool,
}

/// Chooses the partitions of a topic's records without key or partition, as Kafka's class of this
/// name: sticky, or round robin.
#[derive(Debug)]
pub(super) struct BuiltInPartitioner {
    /// The partitions that have a leader, in ascending order; all partitions while none has one.
    available: Arc<[i32]>,
    /// Index of the last round-robin choice.
    round_robin_index: usize,
    /// The sticky partition.
    sticky: usize,
    /// Number of the batch that took the last sticky record; 0 if none did.
    sticky_batch: u64,
    /// Bytes of records that stuck to the partition so far.
    sticky_bytes: usize,
}

impl BuiltInPartitioner {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        // Not all producers start at the same partition.
        Self {
            available: Arc::new([]),
            round_robin_index: random.usize(..1 << 16),
            sticky: usize::MAX,
            sticky_batch: 0,
            sticky_bytes: 0,
        }
    }

    /// Applies the topic's metadata, which has at least one partition.
    pub(super) fn update(&mut self, leaders: &[Option<i32>], random: &mut fastrand::Rng) {
        let all = || 0..leaders.len() as i32;
        self.available = all().zip(leaders).filter(|(_, leader)| leader.is_some()).map(|(p, _)| p).collect();
        if self.available.is_empty() {
            self.available = all().collect();
        }
        if self.sticky_index().is_none() {
            self.switch_random(random);
        }
    }

    pub(super) fn available(&self) -> &Arc<[i32]> {
        &self.available
    }

    pub(super) fn sticky(&self) -> usize {
        self.sticky
    }

    /// Returns the next round-robin choice.
    pub(super) fn next_round_robin(&mut self) -> usize {
        self.round_robin_index = (self.round_robin_index + 1) % self.available.len().max(1);
        self.available.get(self.round_robin_index).map_or(0, |p| *p as usize)
    }

    /// Returns whether to switch the sticky partition before a record of this size. `open` is the
    /// number of the batch that would take the record, if there is one.
    #[inline]
    pub(super) fn should_switch(&self, open: Option<u64>, size: usize, batch_size: usize, adaptive: bool) -> bool {
        let is_first = open != Some(self.sticky_batch);
        if !adaptive {
            return is_first && self.sticky_bytes > 0;
        }
        let enough = batch_size.min(STICKY_BYTES);
        // An open batch is filled for a while, so that batches are large; but records with keys may
        // always open another.
        let most = if is_first { enough } else { 2 * enough };
        self.sticky_bytes > 0 && self.sticky_bytes + size + BATCH_HEADER_BYTES > most
    }

    /// Notes that a sticky record was appended to this batch.
    #[inline]
    pub(super) fn record_appended(&mut self, batch: u64, size: usize) {
        self.sticky_batch = batch;
        self.sticky_bytes += size;
    }

    /// Switches to any other partition, each as likely.
    pub(super) fn switch_random(&mut self, random: &mut fastrand::Rng) {
        let before = self.sticky_index();
        let others = self.available.len() - usize::from(before.is_some());
        if others > 0 {
            let pick = random.usize(..others);
            self.switch_to(self.available[pick + usize::from(before.is_some_and(|before| pick >= before))]);
        }
    }

    /// Switches to any partition that responds, if one does: the more batches it has, the less
    /// likely (KIP-794). With 0, 3 and 1 batches, the first is chosen 4 times of 8, the second 1,
    /// the third 3.
    pub(super) fn switch_by_load(&mut self, random: &mut fastrand::Rng, load: impl Fn(usize) -> PartitionLoad) {
        let all = || self.available.iter().map(|p| (*p, load(*p as usize)));
        let none_responds = !all().any(|(_, l)| l.responds);
        let fit = || all().filter(|(_, l)| none_responds || l.responds).map(|(p, l)| (p, l.queued_batches));
        let most = fit().map(|(_, batches)| batches).max().unwrap_or(0) + 1;
        let total: usize = fit().map(|(_, batches)| most - batches).sum();
        let mut at = random.usize(..total.max(1));
        let chosen = fit().find(|(_, batches)| {
            let share = most - batches;
            let here = at < share;
            at = at.saturating_sub(share);
            here
        });
        if let Some((partition, _)) = chosen {
            self.switch_to(partition);
        }
    }

    fn switch_to(&mut self, partition: i32) {
        (self.sticky, self.sticky_batch, self.sticky_bytes) = (partition as usize, 0, 0);
    }

    fn sticky_index(&self) -> Option<usize> {
        self.available.binary_search_by_key(&self.sticky, |p| *p as usize).ok()
    }
}

/// Computes the CRC-32 of zlib, by which librdkafka hashes keys.
#[inline]
fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

/// Hashes a key as Kafka's Java client does (`org.apache.kafka.common.utils.Utils.murmur2`): Austin
/// Appleby's MurmurHash2 with Kafka's seed. A key's partition is the hash without its sign, modulo
/// the number of partitions.
///
/// ```
/// use ailurus::producer::murmur2;
///
/// assert_eq!((murmur2(b"order-17") & i32::MAX) % 12, 9);
/// ```
#[inline]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h as i32
}

#[cfg(test)]
mod tests;
