//! gzip, made for batches of similar records: quick at about the size of zlib's level 5 (RFC 1951, RFC 1952).
//!
//! All of the data is at hand, so nothing is copied to a window. Two tables remember where eight and where four bytes were
//! last: matches of JSON are long, so the first is asked first, and no chains are walked. A match is put off by a byte if a
//! longer one begins there.

use std::cell::RefCell;

use super::huffman::{Bits, Block};

const LONG_BITS: u32 = 15;
const SHORT_BITS: u32 = 14;
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
const WINDOW: usize = 1 << 15;
/// Matches that are put off for a longer one are shorter than this.
const LAZY: usize = 24;
/// Nothing better than this is looked for.
const ENOUGH: usize = 32;
/// After so many places without a match one more byte is passed over at each.
const PATIENCE: usize = 8;
/// And so many at most.
const STRIDE: usize = 32;

/// Appends `data` as one gzip member.
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
    /// Positions, counted from before the first data on, so that those of earlier data are too far away. Two for each hash,
    /// the later first.
    long: Box<[[u32; 2]]>,
    short: Box<[u32]>,
    base: u32,
    block: Block,
}

/// A place where the same bytes were before.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    len: usize,
    distance: usize,
}

impl Matcher {
    fn new() -> Self {
        Self {
            long: vec![[0; 2]; 1 << LONG_BITS].into(),
            short: vec![0; 1 << SHORT_BITS].into(),
            base: WINDOW as u32 + 1,
            block: Block::default(),
        }
    }

    fn deflate(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if u64::from(self.base) + (data.len() + 2 * WINDOW) as u64 > u64::from(u32::MAX) {
            *self = Self::new();
        }
        let mut bits = Bits::new(out);
        let (mut at, mut missed) = (0, 0);
        while at + 9 <= data.len() {
            let mut found = self.find(data, at, Match::default());
            if found.len < MIN_MATCH {
                // What has nothing in common for a while, such as a random id, is gone through faster.
                let step = (1 + missed / PATIENCE).min(STRIDE).min(data.len() - at);
                data[at..at + step].iter().for_each(|byte| self.block.literal(*byte));
                at += step;
                missed += 1;
            } else {
                missed = 0;
                while found.len < LAZY && at + 10 <= data.len() {
                    let next = self.find(data, at + 1, found);
                    if next.len <= found.len {
                        break;
                    }
                    self.block.literal(data[at]);
                    at += 1;
                    found = next;
                }
                self.block.copy(found.len, found.distance);
                let end = at + found.len;
                // Some of the places in it, for the bytes to come.
                for i in [at + 2, end - 2] {
                    self.remember(data, i);
                }
                at = end;
            }
            if self.block.is_full() {
                self.block.finish(&mut bits, false);
            }
        }
        data[at..].iter().for_each(|byte| self.block.literal(*byte));
        self.block.finish(&mut bits, true);
        bits.finish();
        self.base += (data.len() + WINDOW) as u32;
    }

    fn remember(&mut self, data: &[u8], at: usize) {
        let Some(word) = word(data, at) else { return };
        let position = self.base + at as u32;
        let slot = &mut self.long[long_hash(word)];
        *slot = [position, slot[0]];
        self.short[short_hash(word)] = position;
    }

    /// The best match here that is longer than `least`; remembers the place.
    #[inline]
    fn find(&mut self, data: &[u8], at: usize, least: Match) -> Match {
        let Some(word) = word(data, at) else { return Match::default() };
        let position = self.base + at as u32;
        let slot = &mut self.long[long_hash(word)];
        let [near, far] = *slot;
        *slot = [position, near];
        let short = std::mem::replace(&mut self.short[short_hash(word)], position);
        let mut best = Match::default();
        for earlier in [near, far] {
            let distance = (position - earlier) as usize;
            if distance <= WINDOW && self::word(data, at - distance) == Some(word) {
                let len = 8 + common(data, at - distance + 8, at + 8, MAX_MATCH - 8);
                if len > best.len {
                    best = Match { len, distance };
                }
                if len >= ENOUGH {
                    break;
                }
            }
        }
        if best.len == 0 && least.len < 8 {
            let distance = (position - short) as usize;
            // Four bytes from far away cost as much as they save.
            if distance <= WINDOW {
                let len = common(data, at - distance, at, MAX_MATCH);
                if len > MIN_MATCH || (len == MIN_MATCH && distance < WINDOW / 4) {
                    best = Match { len, distance };
                }
            }
        }
        if best.len > least.len { best } else { Match::default() }
    }
}

#[inline]
fn word(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[inline]
fn long_hash(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - LONG_BITS)) as usize
}

#[inline]
fn short_hash(word: u64) -> usize {
    ((word as u32).wrapping_mul(0x9e37_79b1) >> (32 - SHORT_BITS)) as usize
}

/// How many bytes are the same from both places on.
#[inline]
fn common(data: &[u8], earlier: usize, at: usize, most: usize) -> usize {
    let most = (data.len() - at).min(most);
    let (a, b) = (&data[earlier..earlier + most], &data[at..at + most]);
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

    fn opened(packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::bufread::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        plain
    }

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        gzip(data, &mut out);
        out
    }

    #[test]
    fn the_ends_of_what_can_be_copied_and_coded() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        // From as far away as can be, and from one byte further.
        let repeated = |distance: usize| [&noise[..300], &vec![0; distance - 300], &noise[..300]].concat();
        for data in [
            Vec::new(),
            vec![7],
            vec![7; 1_000_000],
            repeated(WINDOW - 1),
            repeated(WINDOW),
            repeated(WINDOW + 1),
            noise.clone(),
            // Frequencies of which a tree would have more levels than codes may have bits.
            (0..24_u32).flat_map(|i| vec![i as u8 * 9; 1 << (i / 2)]).rev().collect(),
        ] {
            let out = packed(&data);
            assert!(opened(&out) == data, "{} bytes", data.len());
            assert!(out.len() < data.len() + data.len() / 50 + 100, "{} bytes to {}", data.len(), out.len());
        }
        assert!(packed(&repeated(WINDOW)).len() + 200 < packed(&repeated(WINDOW + 1)).len(), "copied from the far end");
    }

    #[test]
    fn what_was_packed_before_is_not_copied_from() {
        let mut matcher = Matcher::new();
        let data: Vec<u8> = (0..5_000_u32).flat_map(|i| (i % 700).to_be_bytes()).collect();
        // The last one is where positions begin anew.
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
        fn anything_comes_back(words in vec(vec(any::<u8>(), 1..12), 1..20), order in vec(any::<prop::sample::Index>(), 0..3000)) {
            let data: Vec<u8> = order.iter().flat_map(|i| words[i.index(words.len())].iter().copied()).collect();
            prop_assert!(opened(&packed(&data)) == data);
        }
    }
}
