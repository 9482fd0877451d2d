//! gzip, made for batches of similar records: quick at about the size of zlib's level 5 (RFC 1951, RFC 1952).
//!
//! All of the data is at hand, so nothing is copied to a window. Two tables remember where eight and where four bytes were
//! last: matches of JSON are long, so the first is asked first, for four places at most. Where nothing is found some bytes are
//! passed over, for what is found behind them is extended backwards: that costs less than to put a match off for a longer one.

use std::cell::RefCell;

use super::huffman::{Bits, Block};

const LONG_BITS: u32 = 14;
const SHORT_BITS: u32 = 14;
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
const WINDOW: usize = 1 << 15;
/// Nothing better than this is looked for.
const ENOUGH: usize = 24;
/// After so many places without a match one more byte is passed over at each.
const PATIENCE: usize = 8;
/// And so many at most.
const STRIDE: usize = 32;
/// Digits that are passed over at once.
const DIGITS: usize = 16;

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
    /// Positions, counted from before the first data on, so that those of earlier data are too far away. Four for each hash,
    /// the latest first.
    long: Box<[[u32; 4]]>,
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
            long: vec![[0; 4]; 1 << LONG_BITS].into(),
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
        // The block begins at the first of these; what is behind the second is in no step of it yet.
        let (mut begun, mut from) = (0, 0);
        let (mut at, mut missed) = (0, 0);
        while at + 9 <= data.len() {
            let Some(Match { mut len, distance }) = self.find(data, at) else {
                at = pass_over(data, at, missed);
                missed += 1;
                continue;
            };
            missed = 0;
            while at > from && at > distance && len < MAX_MATCH && data[at - 1] == data[at - 1 - distance] {
                at -= 1;
                len += 1;
            }
            self.block.step(&data[from..at], len, distance);
            from = at + len;
            // Some of the places in it, for the bytes to come.
            for i in [at + 1, from - 3] {
                self.remember(data, i);
            }
            at = from;
            if self.block.is_full() {
                self.block.finish(&mut bits, &data[begun..from], false);
                begun = from;
            }
        }
        self.block.finish(&mut bits, &data[begun..], true);
        bits.finish();
        self.base += (data.len() + WINDOW) as u32;
    }

    fn remember(&mut self, data: &[u8], at: usize) {
        let Some(word) = word(data, at) else { return };
        let position = self.base + at as u32;
        let slot = &mut self.long[long_hash(word)];
        *slot = [position, slot[0], slot[1], slot[2]];
        self.short[short_hash(word)] = position;
    }

    /// The best match here; remembers the place.
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
            if distance > WINDOW {
                break; // and so are those before it
            }
            if self::word(data, at - distance) == Some(word) {
                let len = 8 + common(data, at - distance + 8, at + 8, MAX_MATCH - 8);
                if len > best.len {
                    best = Match { len, distance };
                }
                if len >= ENOUGH {
                    break;
                }
            }
        }
        if best.len > 0 {
            return Some(best);
        }
        let distance = (position - short) as usize;
        if distance > WINDOW {
            return None;
        }
        let len = common(data, at - distance, at, MAX_MATCH);
        // Four bytes from far away cost as much as they save.
        (len > MIN_MATCH || (len == MIN_MATCH && distance < WINDOW / 4)).then_some(Match { len, distance })
    }
}

/// Where to look next: what has nothing in common for a while, such as a random id, is gone through faster, and numbers at
/// once.
#[inline]
fn pass_over(data: &[u8], at: usize, missed: usize) -> usize {
    let at = at + (1 + missed / PATIENCE).min(STRIDE);
    let digits = data.iter().skip(at).take(DIGITS).take_while(|byte| byte.is_ascii_hexdigit());
    at + digits.count()
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
        // Bytes that come once among many others have the longest codes: a run of them is the most that is put at a time.
        let rare = [noise[..30_000].iter().map(|b| b % 16).collect(), (0..=255).collect::<Vec<u8>>()].concat();
        for data in [
            Vec::new(),
            vec![7],
            vec![7; 1_000_000],
            repeated(WINDOW - 1),
            repeated(WINDOW),
            repeated(WINDOW + 1),
            noise.clone(),
            [&rare[..], &rare[30_000..], &noise].concat(),
            rare,
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
