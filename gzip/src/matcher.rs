//! Finds earlier places of the same bytes.
//!
//! All of the data is in memory, so nothing is copied to a window. Two hash tables hold the last
//! places of eight and of four bytes. Matches in JSON are long, so the first is searched first, at
//! four places at most. Where neither has a match some bytes are skipped, because a match found
//! behind them is extended backwards: that costs less than lazy matching.

use crate::huffman::{BitWriter, Block};

const LONG_HASH_BITS: u32 = 14;
const SHORT_HASH_BITS: u32 = 14;
const MIN_MATCH_BYTES: usize = 4;
const MAX_MATCH_BYTES: usize = 258;
pub(crate) const WINDOW_BYTES: usize = 1 << 15;
/// Length of a match that ends the search for a longer one.
const GOOD_MATCH_BYTES: usize = 24;
/// Number of misses after which the stride grows by a byte.
const MISSES_PER_STRIDE: usize = 8;
const MAX_STRIDE_BYTES: usize = 32;
/// Maximum number of hexadecimal digits that are skipped at once.
const MAX_DIGITS_SKIPPED: usize = 16;
/// Maximum size of what is searched for matches at once, so that its positions fit into 32 bits.
const MAX_PART_BYTES: usize = 1 << 30;

#[derive(Debug)]
pub(crate) struct Matcher {
    /// Positions of each hash, the latest first. They keep counting from one part to the next, so
    /// that positions in earlier parts are too far away to match.
    long: Box<[[u32; 4]]>,
    short: Box<[u32]>,
    /// Position of the next part.
    pub(crate) base: u32,
    block: Block,
}

/// An earlier place of the same bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    len: usize,
    distance: usize,
}

impl Matcher {
    pub(crate) fn new() -> Self {
        Self {
            long: vec![[0; 4]; 1 << LONG_HASH_BITS].into(),
            short: vec![0; 1 << SHORT_HASH_BITS].into(),
            base: WINDOW_BYTES as u32 + 1,
            block: Block::default(),
        }
    }

    /// Compresses `data` and appends it to `out`.
    pub(crate) fn deflate(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let mut bits = BitWriter::new(out);
        let mut rest = data;
        while rest.len() > MAX_PART_BYTES {
            let (part, behind) = rest.split_at(MAX_PART_BYTES);
            self.write_part(part, false, &mut bits);
            rest = behind;
        }
        self.write_part(rest, true, &mut bits);
        bits.finish();
    }

    /// Writes the blocks of a part, whose matches are all within it.
    pub(crate) fn write_part(&mut self, data: &[u8], is_last: bool, bits: &mut BitWriter<'_>) {
        if u64::from(self.base) + (data.len() + 2 * WINDOW_BYTES) as u64 > u64::from(u32::MAX) {
            *self = Self::new();
        }
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
                self.block.finish(bits, &data[block_start..from], false);
                block_start = from;
            }
        }
        self.block.finish(bits, &data[block_start..], is_last);
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
