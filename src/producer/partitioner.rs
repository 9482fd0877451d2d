//! Which partition a record goes to.

/// How a record's partition is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// By the caller.
    Partition(i32),
    /// By this hash of its key: [`murmur2`].
    Hash(i32),
    /// Any: the one that records without a key stick to for now.
    Any,
}

impl Target {
    pub(crate) fn of(partition: Option<i32>, key: Option<&[u8]>) -> Self {
        match (partition, key) {
            (Some(partition), _) => Self::Partition(partition),
            (None, Some(key)) => Self::Hash(murmur2(key)),
            (None, None) => Self::Any,
        }
    }
}

/// The partition of a hashed key in a topic with `partitions` of them, as the Java client and KafkaJS choose it.
#[inline]
pub(crate) fn partition_of(hash: i32, partitions: usize) -> usize {
    (hash & i32::MAX) as usize % partitions.max(1)
}

/// Austin Appleby's MurmurHash2 with the seed that Kafka's Java client uses
/// (`org.apache.kafka.common.utils.Utils.murmur2`).
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made by Kafka's own Java code: see `tests/vectors/README.md`.
    #[test]
    fn hashes_and_partitions_are_those_of_kafka_s_java_client() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/murmur2.txt");
        let text = std::fs::read_to_string(path).unwrap();
        let mut seen = 0;
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            let hex = if fields[0] == "-" { "" } else { fields[0] };
            let key: Vec<u8> =
                (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
            let hash = murmur2(&key);
            assert_eq!(hash, fields[1].parse::<i32>().unwrap(), "{line}");
            for (n, want) in [1, 2, 3, 7, 12, 100].into_iter().zip(&fields[2..]) {
                assert_eq!(partition_of(hash, n), want.parse::<usize>().unwrap(), "{line}");
            }
            seen += 1;
        }
        assert!(seen > 100, "only {seen} vectors");
    }
}
