//! A gzip encoder for batches of similar records: fast, at about the size of zlib's level 5 (RFC
//! 1951, RFC 1952).
//!
//! All of the data is in memory, so nothing is copied to a window. Two hash tables hold the last
//! places of eight and of four bytes. Matches in JSON are long, so the first is searched first, at
//! four places at most. Where neither has a match some bytes are skipped, because a match found
//! behind them is extended backwards: that costs less than lazy matching.

use std::cell::RefCell;

use super::huffman::{BitWriter, Block};

const LONG_HASH_BITS: u32 = 14;
const SHORT_HASH_BITS: u32 = 14;
const MIN_MATCH_BYTES: usize = 4;
const MAX_MATCH_BYTES: usize = 258;
const WINDOW_BYTES: usize = 1 << 15;
/// Length of a match that ends the search for a longer one.
const GOOD_MATCH_BYTES: usize = 24;
/// Number of misses after which the stride grows by a byte.
const MISSES_PER_STRIDE: usize = 8;
const MAX_STRIDE_BYTES: usize = 32;
/// Maximum number of hexadecimal digits that are skipped at once.
const MAX_DIGITS_SKIPPED: usize = 16;

/// Compresses `data` and appends it to `out` as one gzip member.
pub(super) fn gzip(data: &[u8], out: &mut Vec<u8>) {
    thread_local! {
        static MATCHER: RefCell<Matcher> = RefCell::new(Matcher::new());
    }
    // No time, no name, an unknown system.
    out.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    MATCHER.with_borrow_mut(|matcher| matcher.deflate(data, out));
    let mut crc = flate2::Crc::new();
    crc.update(data);
    out.extend(crc.sum().to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
}

#[derive(Debug)]
struct Matcher {
    /// Positions of each hash, the latest first. They keep counting from one call to the next, so
    /// that positions in earlier data are too far away to match.
    long: Box<[[u32; 4]]>,
    short: Box<[u32]>,
    base: u32,
    block: Block,
}

/// An earlier place of the same bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    len: usize,
    distance: usize,
}

impl Matcher {
    fn new() -> Self {
        Self {
            long: vec![[0; 4]; 1 << LONG_HASH_BITS].into(),
            short: vec![0; 1 << SHORT_HASH_BITS].into(),
            base: WINDOW_BYTES as u32 + 1,
            block: Block::default(),
        }
    }

    fn deflate(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if u64::from(self.base) + (data.len() + 2 * WINDOW_BYTES) as u64 > u64::from(u32::MAX) {
            *self = Self::new();
        }
        let mut bits = BitWriter::new(out);
        // The block begins at `block_start`; its steps end at `from`.
        let (mut block_start, mut from) = (0, 0);
        let (mut at, mut misses) = (0, 0);
        while at + 9 <= data.len() {
            let Some(Match { mut len, distance }) = self.find(data, at) else {
                at = next_place(data, at, misses);
                misses += 1;
                continue;
            };
            misses = 0;
            while at > from && at > distance && len < MAX_MATCH_BYTES && data[at - 1] == data[at - 1 - distance] {
                at -= 1;
                len += 1;
            }
            self.block.step(&data[from..at], len, distance);
            from = at + len;
            // Two places of the match are enough for later matches.
            for i in [at + 1, from - 3] {
                self.insert(data, i);
            }
            at = from;
            if self.block.is_full() {
                self.block.finish(&mut bits, &data[block_start..from], false);
                block_start = from;
            }
        }
        self.block.finish(&mut bits, &data[block_start..], true);
        bits.finish();
        self.base += (data.len() + WINDOW_BYTES) as u32;
    }

    fn insert(&mut self, data: &[u8], at: usize) {
        let Some(word) = word(data, at) else { return };
        let position = self.base + at as u32;
        let slot = &mut self.long[long_hash(word)];
        *slot = [position, slot[0], slot[1], slot[2]];
        self.short[short_hash(word)] = position;
    }

    /// Finds the best match at a place, and inserts the place.
    #[inline]
    fn find(&mut self, data: &[u8], at: usize) -> Option<Match> {
        let word = word(data, at)?;
        let position = self.base + at as u32;
        let slot = &mut self.long[long_hash(word)];
        let earlier = *slot;
        *slot = [position, earlier[0], earlier[1], earlier[2]];
        let short = std::mem::replace(&mut self.short[short_hash(word)], position);
        let mut best = Match::default();
        for earlier in earlier {
            let distance = (position - earlier) as usize;
            if distance > WINDOW_BYTES {
                break; // the earlier ones are too far away too
            }
            if self::word(data, at - distance) == Some(word) {
                let len = 8 + common_len(data, at - distance + 8, at + 8, MAX_MATCH_BYTES - 8);
                if len > best.len {
                    best = Match { len, distance };
                }
                if len >= GOOD_MATCH_BYTES {
                    break;
                }
            }
        }
        if best.len > 0 {
            return Some(best);
        }
        let distance = (position - short) as usize;
        if distance > WINDOW_BYTES {
            return None;
        }
        let len = common_len(data, at - distance, at, MAX_MATCH_BYTES);
        // A distant match of four bytes costs as much as it saves.
        (len > MIN_MATCH_BYTES || (len == MIN_MATCH_BYTES && distance < WINDOW_BYTES / 4))
            .then_some(Match { len, distance })
    }
}

/// Returns the next place to search: the stride grows in data without matches, such as random ids,
/// and numbers are skipped.
#[inline]
fn next_place(data: &[u8], at: usize, misses: usize) -> usize {
    let at = at + (1 + misses / MISSES_PER_STRIDE).min(MAX_STRIDE_BYTES);
    let digits = data.iter().skip(at).take(MAX_DIGITS_SKIPPED).take_while(|byte| byte.is_ascii_hexdigit());
    at + digits.count()
}

#[inline]
fn word(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[inline]
fn long_hash(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - LONG_HASH_BITS)) as usize
}

#[inline]
fn short_hash(word: u64) -> usize {
    ((word as u32).wrapping_mul(0x9e37_79b1) >> (32 - SHORT_HASH_BITS)) as usize
}

/// Returns the number of equal bytes at two places.
#[inline]
fn common_len(data: &[u8], earlier: usize, at: usize, max: usize) -> usize {
    let max = (data.len() - at).min(max);
    let (a, b) = (&data[earlier..earlier + max], &data[at..at + max]);
    let mut same = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let [x, y] = [x, y].map(|c| c.first_chunk().map_or(0, |c| u64::from_le_bytes(*c)));
        if x != y {
            return same + (x ^ y).trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decompressed(packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::bufread::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        plain
    }

    fn compressed(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        gzip(data, &mut out);
        out
    }

    #[test]
    fn limits_of_matches_and_codes() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        // A match at the maximum distance, and one byte beyond.
        let repeated = |distance: usize| [&noise[..300], &vec![0; distance - 300], &noise[..300]].concat();
        // Bytes that occur once have the longest codes: a run of them is the most that is written
        // at a time.
        let rare = [noise[..30_000].iter().map(|b| b % 16).collect(), (0..=255).collect::<Vec<u8>>()].concat();
        for data in [
            Vec::new(),
            vec![7],
            vec![7; 1_000_000],
            repeated(WINDOW_BYTES - 1),
            repeated(WINDOW_BYTES),
            repeated(WINDOW_BYTES + 1),
            noise.clone(),
            [&rare[..], &rare[30_000..], &noise].concat(),
            rare,
            // Frequencies whose tree is deeper than codes may be long.
            (0..24_u32).flat_map(|i| vec![i as u8 * 9; 1 << (i / 2)]).rev().collect(),
        ] {
            let out = compressed(&data);
            assert!(decompressed(&out) == data, "{} bytes", data.len());
            assert!(out.len() < data.len() + data.len() / 50 + 100, "{} bytes to {}", data.len(), out.len());
        }
        assert!(
            compressed(&repeated(WINDOW_BYTES)).len() + 200 < compressed(&repeated(WINDOW_BYTES + 1)).len(),
            "the match at the maximum distance is used"
        );
    }

    #[test]
    fn earlier_data_is_not_matched() {
        let mut matcher = Matcher::new();
        let data: Vec<u8> = (0..5_000_u32).flat_map(|i| (i % 700).to_be_bytes()).collect();
        // At the last one, positions start again.
        for base in [matcher.base, u32::MAX - 200_000, u32::MAX - 100_000, u32::MAX - 90_000] {
            matcher.base = matcher.base.max(base);
            let mut out = Vec::new();
            matcher.deflate(&data, &mut out);
            let mut plain = Vec::new();
            flate2::bufread::DeflateDecoder::new(&out[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == data);
        }
    }

    proptest! {
        #[test]
        fn data_round_trips(words in vec(vec(any::<u8>(), 1..12), 1..20), order in vec(any::<prop::sample::Index>(), 0..3000)) {
            let data: Vec<u8> = order.iter().flat_map(|i| words[i.index(words.len())].iter().copied()).collect();
            prop_assert!(decompressed(&compressed(&data)) == data);
        }
    }
}
