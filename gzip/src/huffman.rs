//! Blocks of deflate with dynamic Huffman codes (RFC 1951, 3.2).

/// Number of symbols for literals, the end of a block, and lengths of copies.
const SYMBOLS: usize = 286;
const DISTANCES: usize = 30;
const END_OF_BLOCK: usize = 256;
/// Number of literals and copies of a block: enough to pay for its codes, few enough that the codes
/// fit all of it.
const BLOCK_ITEMS: usize = 1 << 15;
/// Order of the code lengths of code lengths in a block's header.
const CODE_LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Symbol and number of extra bits of each length, by the length less 3.
static LENGTHS: [(u16, u8); 256] = lengths();
/// Symbol of a distance, by the distance less 1: of each below 256, then of each 128th.
static DISTANCE_SYMBOLS: [u8; 512] = distances();

const fn lengths() -> [(u16, u8); 256] {
    let mut table = [(0, 0); 256];
    let (mut length, mut symbol) = (0, 257);
    while symbol < 285 {
        let extra = if symbol < 265 { 0 } else { (symbol - 261) / 4 };
        let mut n = 0;
        while n < 1 << extra && length < 256 {
            table[length] = (symbol as u16, extra as u8);
            length += 1;
            n += 1;
        }
        symbol += 1;
    }
    table[255] = (285, 0);
    table
}

const fn distances() -> [u8; 512] {
    let mut table = [0; 512];
    let mut i = 0;
    while i < 512 {
        let distance: u32 = if i < 256 { i } else { (i - 256) << 7 };
        table[i as usize] = if distance < 4 {
            distance as u8
        } else {
            let bits = 31 - distance.leading_zeros();
            (2 * bits + ((distance >> (bits - 1)) & 1)) as u8
        };
        i += 1;
    }
    table
}

#[inline]
fn distance_symbol(minus_one: usize) -> usize {
    DISTANCE_SYMBOLS[if minus_one < 256 { minus_one } else { 256 + (minus_one >> 7) }] as usize
}

#[inline]
fn distance_extra(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

/// Minimum number of staged bytes that are moved to the output at a time.
const STAGE_BYTES: usize = 128;
/// Maximum number of literals between two checks of the stage: at 15 bits each they and 8 bytes
/// more fit into it.
const LITERALS_PER_CHECK: usize = 60;

/// A writer of bits, the lowest first.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    stage: [u8; 2 * STAGE_BYTES],
    staged: usize,
    /// Bits that are not staged yet, at most 7.
    rest: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, stage: [0; 2 * STAGE_BYTES], staged: 0, rest: 0, count: 0 }
    }

    /// Writes at most 48 bits. Call [`flush_if_full`](Self::flush_if_full) before writing more than
    /// a few.
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.rest |= bits << self.count;
        self.count += count;
        self.stage[self.staged..self.staged + 8].copy_from_slice(&self.rest.to_le_bytes());
        self.staged += self.count as usize / 8;
        self.rest >>= self.count & !7;
        self.count &= 7;
    }

    /// Makes room for at least [`STAGE_BYTES`] bytes.
    #[inline]
    fn flush_if_full(&mut self) {
        if self.staged >= STAGE_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(&self.stage[..self.staged]);
        self.staged = 0;
    }

    pub(crate) fn finish(mut self) {
        self.put(0, 7);
        self.flush();
    }
}

/// The code of a symbol: its bits, and their number.
type Code = (u16, u8);

/// Literals, and a copy after them.
#[derive(Debug, Clone, Copy)]
struct LiteralsAndCopy {
    literals: u32,
    /// Length less 3 in the upper 16 bits, distance in the lower.
    copy: u32,
}

#[derive(Debug)]
pub(crate) struct Block {
    steps: Vec<LiteralsAndCopy>,
    /// Number of literals and copies in the steps.
    items: usize,
    symbols: [u32; SYMBOLS],
    distances: [u32; DISTANCES],
}

impl Default for Block {
    fn default() -> Self {
        // Enough for most blocks of JSON: growing would fragment the heap of each thread that
        // compresses.
        let steps = Vec::with_capacity(BLOCK_ITEMS / 4);
        Self { steps, items: 0, symbols: [0; SYMBOLS], distances: [0; DISTANCES] }
    }
}

impl Block {
    /// Appends literals and a copy of 3 to 258 bytes from 1 to 32768 bytes before.
    #[inline]
    pub(crate) fn step(&mut self, literals: &[u8], len: usize, distance: usize) {
        self.count(literals);
        self.symbols[LENGTHS[len - 3].0 as usize] += 1;
        self.distances[distance_symbol(distance - 1)] += 1;
        self.steps.push(LiteralsAndCopy { literals: literals.len() as u32, copy: ((len - 3) << 16 | distance) as u32 });
        self.items += literals.len() + 1;
    }

    #[inline]
    fn count(&mut self, literals: &[u8]) {
        literals.iter().for_each(|byte| self.symbols[*byte as usize] += 1);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items >= BLOCK_ITEMS
    }

    /// Writes the block and starts another. `data` is what the steps cover, then literals.
    pub(crate) fn finish(&mut self, bits: &mut BitWriter<'_>, mut data: &[u8], last: bool) {
        let covered: usize = self.steps.iter().map(|s| s.literals as usize + (s.copy >> 16) as usize + 3).sum();
        self.count(&data[covered..]);
        self.symbols[END_OF_BLOCK] = 1;
        let symbols = code_lengths::<SYMBOLS>(&self.symbols, 15);
        let distances = code_lengths::<DISTANCES>(&self.distances, 15);
        bits.flush_if_full();
        bits.put(u64::from(last), 1);
        bits.put(2, 2); // dynamic codes
        write_codes(bits, &symbols, &distances);
        let (symbols, distances) = (codes(&symbols), codes(&distances));
        for step in &self.steps {
            let (literals, rest) = data.split_at(step.literals as usize);
            write_literals(bits, &symbols, literals);
            let (upper, distance) = ((step.copy >> 16) as usize, (step.copy & 0xffff) as usize);
            write_copy(bits, (&symbols, &distances), upper, distance - 1);
            data = &rest[upper + 3..];
        }
        write_literals(bits, &symbols, data);
        let (code, n) = symbols[END_OF_BLOCK];
        bits.put(u64::from(code), u32::from(n));
        self.steps.clear();
        self.items = 0;
        self.symbols.fill(0);
        self.distances.fill(0);
    }
}

#[inline]
fn write_literals(bits: &mut BitWriter<'_>, symbols: &[Code; SYMBOLS], literals: &[u8]) {
    for run in literals.chunks(LITERALS_PER_CHECK) {
        bits.flush_if_full();
        let threes = run.chunks_exact(3);
        let rest = threes.remainder();
        for three in threes {
            let [a, b, c] = [three[0], three[1], three[2]].map(|byte| symbols[byte as usize]);
            let two = u64::from(a.0) | u64::from(b.0) << a.1;
            let count = u32::from(a.1) + u32::from(b.1);
            bits.put(two | u64::from(c.0) << count, count + u32::from(c.1));
        }
        for byte in rest {
            let (code, n) = symbols[*byte as usize];
            bits.put(u64::from(code), u32::from(n));
        }
    }
}

/// Writes a copy, given by its length less 3 and its distance less 1.
#[inline]
fn write_copy(
    bits: &mut BitWriter<'_>,
    (symbols, distances): (&[Code; SYMBOLS], &[Code; DISTANCES]),
    len: usize,
    distance: usize,
) {
    let (symbol, extra) = LENGTHS[len];
    let (code, n) = symbols[symbol as usize];
    let rest = len as u64 & ((1 << extra) - 1);
    let (copy, count) = (u64::from(code) | rest << n, u32::from(n) + u32::from(extra));
    let symbol = distance_symbol(distance);
    let extra = distance_extra(symbol);
    let (code, n) = distances[symbol];
    let rest = distance as u64 & ((1 << extra) - 1);
    bits.flush_if_full();
    bits.put(copy | (u64::from(code) | rest << n) << count, count + u32::from(n) + extra);
}

/// Returns the length of each symbol's code, by the frequencies: at most `max` bits. At least two
/// symbols get a code, because not every reader accepts one alone.
fn code_lengths<const N: usize>(frequencies: &[u32; N], max: usize) -> [u8; N] {
    let mut used: Vec<(u32, usize)> = (0..N).map(|s| (frequencies[s], s)).filter(|(n, _)| *n > 0).collect();
    used.extend((0..N).filter(|s| frequencies[*s] == 0).map(|s| (0, s)).take(2_usize.saturating_sub(used.len())));
    used.sort_unstable();
    let n = used.len();
    // Huffman's tree: the leaves in order of weight, then the inner nodes, which are created in
    // order of weight.
    let mut weights: Vec<u32> = used.iter().map(|(weight, _)| *weight).collect();
    let mut parents = vec![0; 2 * n - 1];
    let (mut leaf, mut node) = (0, n);
    for new in n..2 * n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let is_leaf = leaf < n && (node == new || weights[leaf] <= weights[node]);
            let lightest = if is_leaf { &mut leaf } else { &mut node };
            parents[*lightest] = new;
            weight += weights[*lightest];
            *lightest += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0; 2 * n - 1];
    let mut counts = [0_u32; 16];
    for i in (0..2 * n - 2).rev() {
        depths[i] = depths[parents[i]] + 1;
        if i < n {
            counts[depths[i].min(max)] += 1;
        }
    }
    // Codes cut to `max` bits take more than the code space: make room by lengthening shorter ones.
    let mut taken: u32 = (1..=max).map(|len| counts[len] << (max - len)).sum();
    while taken > 1 << max {
        counts[max] -= 1;
        if let Some(len) = (1..max).rev().find(|len| counts[*len] > 0) {
            counts[len] -= 1;
            counts[len + 1] += 2;
        }
        taken -= 1;
    }
    let mut lengths = [0; N];
    let by_length = (1..=max).rev().flat_map(|len| std::iter::repeat_n(len as u8, counts[len] as usize));
    for ((_, symbol), len) in used.iter().zip(by_length) {
        lengths[*symbol] = len;
    }
    lengths
}

/// Returns the codes of these lengths, first bit lowest.
fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut next = [0_u32; 17];
    for len in 1..16 {
        let shorter = lengths.iter().filter(|n| usize::from(**n) == len).count() as u32;
        next[len + 1] = (next[len] + shorter) << 1;
    }
    lengths.map(|len| {
        if len == 0 {
            return (0, 0);
        }
        let code = next[usize::from(len)];
        next[usize::from(len)] += 1;
        ((code as u16).reverse_bits() >> (16 - len), len)
    })
}

/// Writes the lengths of all codes, which are coded themselves.
fn write_codes(bits: &mut BitWriter<'_>, symbols: &[u8; SYMBOLS], distances: &[u8; DISTANCES]) {
    let used = |lengths: &[u8], min: usize| lengths.iter().rposition(|n| *n > 0).map_or(min, |last| min.max(last + 1));
    let (symbols, distances) = (&symbols[..used(symbols, 257)], &distances[..used(distances, 1)]);
    let runs = runs(&[symbols, distances].concat());
    let mut frequencies = [0; 19];
    runs.iter().for_each(|run| frequencies[usize::from(run.symbol)] += 1);
    let lengths = code_lengths::<19>(&frequencies, 7);
    let ordered = CODE_LENGTH_ORDER.map(|symbol| lengths[symbol]);
    let ordered = &ordered[..used(&ordered, 4)];
    bits.put(symbols.len() as u64 - 257, 5);
    bits.put(distances.len() as u64 - 1, 5);
    bits.put(ordered.len() as u64 - 4, 4);
    ordered.iter().for_each(|len| bits.put(u64::from(*len), 3));
    let codes = codes(&lengths);
    for run in runs {
        bits.flush_if_full();
        let (code, n) = codes[usize::from(run.symbol)];
        bits.put(u64::from(code) | u64::from(run.extra) << n, u32::from(n) + run.bits);
    }
}

/// A code length, or the number of repetitions of the one before or of 0.
struct Run {
    symbol: u8,
    extra: u8,
    bits: u32,
}

fn runs(lengths: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    for same in lengths.chunk_by(|a, b| a == b) {
        let (len, mut left) = (same[0], same.len());
        if len > 0 {
            runs.push(Run { symbol: len, extra: 0, bits: 0 });
            left -= 1;
        }
        while left > 0 {
            let (symbol, min, max, bits) = match (len, left) {
                (_, 1..3) => (len, 1, 1, 0),
                (0, 3..11) => (17, 3, 10, 3),
                (0, _) => (18, 11, 138, 7),
                _ => (16, 3, 6, 2),
            };
            let n = left.min(max);
            runs.push(Run { symbol, extra: (n - min) as u8, bits });
            left -= n;
        }
    }
    runs
}
