//! Which partition a record goes to.

use std::sync::Arc;

use crate::config::PartitionerKind;
use crate::error::{Error, ErrorKind, Result};
use crate::partitioner::{PartitionInput, Partitioner};
use crate::record::BATCH_HEADER_BYTES;

/// Records that may go anywhere stick to a partition for so many bytes, however large batches may be: as with the Java client's
/// settings. Else a producer that sends little would send it all to one partition.
const STICKY_BYTES: usize = 16 << 10;

/// How a record's partition is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionChoice {
    /// By the caller, or by the program's own partitioner.
    Partition(i32),
    /// By this hash of its key.
    KeyHash(u32),
    /// The one after that of the record before.
    RoundRobin,
    /// Any: the one that such records stick to for now.
    Sticky,
}

impl PartitionChoice {
    /// Without the answer of a partitioner of the program's own: see [`ask`].
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

/// Where the program's own partitioner wants a record.
pub(super) fn custom_partition(partitioner: &dyn Partitioner, record: &PartitionInput<'_>) -> Result<PartitionChoice> {
    let Some(partition) = partitioner.partition(record) else { return Ok(PartitionChoice::Sticky) };
    if (0..record.partitions).contains(&partition) {
        return Ok(PartitionChoice::Partition(partition));
    }
    let what = format!(
        "the program's partitioner chose partition {partition} for a record of topic {:?}, which has {}, from 0 to {}; the \
         record was not sent",
        record.topic,
        record.partitions,
        record.partitions - 1
    );
    Err(Error::new(ErrorKind::InvalidRecord, what))
}

/// The partition of a hashed key in a topic with `partitions` of them.
#[inline]
pub(crate) fn partition_of_hash(hash: u32, partitions: usize) -> usize {
    hash as usize % partitions.max(1)
}

/// How much a partition has to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionLoad {
    /// Batches that have not ended.
    pub(super) queued_batches: usize,
    /// None of them has waited for too long.
    pub(super) responds: bool,
}

/// How a topic's records are spread that do not say by themselves where they go.
#[derive(Debug)]
pub(super) struct BuiltInPartitioner {
    /// Those that have a leader, in ascending order; all of them while none has one.
    available: Arc<[i32]>,
    /// Which of them was the last in turn.
    round_robin_index: usize,
    /// The one that records stick to.
    sticky: usize,
    /// The number of the batch there that took the last of them; 0 if none did.
    sticky_batch: u64,
    /// How many bytes of them it got.
    sticky_bytes: usize,
}

impl BuiltInPartitioner {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        // Not all producers begin with the same partition.
        Self {
            available: Arc::new([]),
            round_robin_index: random.usize(..1 << 16),
            sticky: usize::MAX,
            sticky_batch: 0,
            sticky_bytes: 0,
        }
    }

    /// Takes up what metadata says of the topic, which has partitions.
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

    /// The next one in turn.
    pub(super) fn next_round_robin(&mut self) -> usize {
        self.round_robin_index = (self.round_robin_index + 1) % self.available.len().max(1);
        self.available.get(self.round_robin_index).map_or(0, |p| *p as usize)
    }

    /// Whether a record of this size goes elsewhere. `open` is the number of the batch that would take it, if there is one.
    #[inline]
    pub(super) fn should_switch(&self, open: Option<u64>, size: usize, batch_size: usize, adaptive: bool) -> bool {
        let begins = open != Some(self.sticky_batch);
        if !adaptive {
            return begins && self.sticky_bytes > 0;
        }
        let enough = batch_size.min(STICKY_BYTES);
        // A batch is not cut short for a while, so that its broker gets large ones; but others may begin new ones without end.
        let most = if begins { enough } else { 2 * enough };
        self.sticky_bytes > 0 && self.sticky_bytes + size + BATCH_HEADER_BYTES > most
    }

    /// A record stuck to the partition, and is in this batch.
    #[inline]
    pub(super) fn record_appended(&mut self, batch: u64, size: usize) {
        self.sticky_batch = batch;
        self.sticky_bytes += size;
    }

    /// To any other partition, each as likely.
    pub(super) fn switch_random(&mut self, random: &mut fastrand::Rng) {
        let before = self.sticky_index();
        let others = self.available.len() - usize::from(before.is_some());
        if others > 0 {
            let pick = random.usize(..others);
            self.switch_to(self.available[pick + usize::from(before.is_some_and(|before| pick >= before))]);
        }
    }

    /// To any partition that responds, if one does: the less likely the more batches it has. With 0, 3 and 1 of them, the
    /// first gets 4 of 8, the second 1, the third 3.
    pub(super) fn switch_by_load(&mut self, random: &mut fastrand::Rng, load: impl Fn(usize) -> PartitionLoad) {
        let all = || self.available.iter().map(|p| (*p, load(*p as usize)));
        let any = !all().any(|(_, l)| l.responds);
        let fit = || all().filter(|(_, l)| any || l.responds).map(|(p, l)| (p, l.queued_batches));
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

/// The checksum of zlib and librdkafka.
#[inline]
fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

/// The hash that Kafka's Java client gives keys (`org.apache.kafka.common.utils.Utils.murmur2`): Austin Appleby's MurmurHash2
/// with a seed of Kafka's own. A key's partition is what is left of it, without its sign, when it is divided by their number.
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
