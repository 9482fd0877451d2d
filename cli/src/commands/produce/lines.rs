//! Splits stdin into numbered lines of bounded length.

/// The bytes that Windows' tools write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its line ending.
    Text(&'a [u8]),
    /// An empty line.
    Empty,
    /// A line of more bytes than allowed; they were dropped as they came.
    TooLong(u64),
}

/// Lines that were read together.
#[derive(Debug)]
pub struct Chunk {
    first: u64,
    bytes: Vec<u8>,
    lines: Vec<Span>,
}

#[derive(Debug)]
enum Span {
    Text(std::ops::Range<usize>),
    TooLong(u64),
}

impl Chunk {
    /// Returns each line with its number, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (u64, Line<'_>)> {
        let line = |span: &Span| match span {
            Span::TooLong(bytes) => Line::TooLong(*bytes),
            Span::Text(range) => match &self.bytes[range.clone()] {
                b"" => Line::Empty,
                text => Line::Text(text),
            },
        };
        (self.first..).zip(self.lines.iter().map(line))
    }
}

/// Splits bytes as they come into complete lines; buffers at most one line.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// True if carriage returns and a byte order mark belong to the line.
    raw: bool,
    next: u64,
    /// Beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Number of bytes of that line that were dropped because it is too long.
    dropped: u64,
}

impl Splitter {
    /// Splits into lines of at most `limit` bytes; `raw` keeps carriage returns before newlines and a byte order mark.
    pub fn new(limit: usize, raw: bool) -> Self {
        Self { limit, raw, next: 1, partial: Vec::new(), dropped: 0 }
    }

    /// Returns the lines that these bytes complete.
    pub fn push(&mut self, bytes: &[u8]) -> Chunk {
        let mut chunk =
            Chunk { first: self.next, bytes: Vec::with_capacity(self.partial.len() + bytes.len()), lines: Vec::new() };
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => self.end_line(end, &mut chunk),
                None => self.buffer(part),
            }
        }
        chunk
    }

    /// Returns the last line, if it has no newline.
    pub fn finish(&mut self) -> Chunk {
        let mut chunk = Chunk { first: self.next, bytes: Vec::new(), lines: Vec::new() };
        if !self.partial.is_empty() || self.dropped > 0 {
            self.end_line(b"", &mut chunk);
        }
        chunk
    }

    fn buffer(&mut self, part: &[u8]) {
        if self.dropped > 0 || self.partial.len() + part.len() > self.limit {
            self.dropped += (self.partial.len() + part.len()) as u64;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, end: &[u8], chunk: &mut Chunk) {
        let length = self.dropped + (self.partial.len() + end.len()) as u64;
        if length > self.limit as u64 {
            chunk.lines.push(Span::TooLong(length));
        } else {
            let start = chunk.bytes.len();
            chunk.bytes.extend_from_slice(&self.partial);
            chunk.bytes.extend_from_slice(end);
            let line = &chunk.bytes[start..];
            let (mark, end) = match self.raw {
                true => (0, 0),
                false => (
                    if self.next == 1 && line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 },
                    usize::from(line.ends_with(b"\r")),
                ),
            };
            chunk.lines.push(Span::Text(start + mark..chunk.bytes.len() - end));
        }
        self.partial.clear();
        self.dropped = 0;
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of `input` when it comes in pieces of `size` bytes.
    fn split(input: &[u8], size: usize, limit: usize) -> Vec<(u64, String)> {
        split_by(Splitter::new(limit, false), input, size)
    }

    fn split_by(mut splitter: Splitter, input: &[u8], size: usize) -> Vec<(u64, String)> {
        let mut seen = Vec::new();
        let mut take = |chunk: Chunk| {
            for (number, line) in chunk.lines() {
                seen.push((
                    number,
                    match line {
                        Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        Line::Empty => "(empty)".to_owned(),
                        Line::TooLong(n) => format!("(too long: {n})"),
                    },
                ));
            }
        };
        for piece in input.chunks(size) {
            take(splitter.push(piece));
        }
        take(splitter.finish());
        seen
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input = b"one\n\ntwo\r\n\r\n0123456789\nthree\n01234567\nlast";
        let expected =
            ["one", "(empty)", "two", "(empty)", "(too long: 10)", "three", "01234567", "last"].map(str::to_owned);
        let expected: Vec<_> = (1..).zip(expected).collect();
        for size in 1..=input.len() {
            assert_eq!(split(input, size, 8), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_long_line_without_an_end_is_reported_and_not_buffered() {
        for size in 1..=10 {
            assert_eq!(split(b"0123456789", size, 4), [(1, "(too long: 10)".to_owned())]);
        }
        let mut splitter = Splitter::new(4, false);
        for _ in 0..1000 {
            splitter.push(b"0123456789");
            assert!(splitter.partial.capacity() <= 10);
        }
    }

    #[test]
    fn line_endings_and_a_byte_order_mark_are_left_out_unless_raw() {
        let input = "\u{feff}one\r\n\r\n\u{feff}two\rx\r\r\n";
        let lines = |raw: bool| (1..=input.len()).map(move |n| split_by(Splitter::new(20, raw), input.as_bytes(), n));
        let numbered = |all: [&str; 3]| (1..).zip(all.map(str::to_owned)).collect::<Vec<_>>();
        for cooked in lines(false) {
            assert_eq!(cooked, numbered(["one", "(empty)", "\u{feff}two\rx\r"]));
        }
        for raw in lines(true) {
            assert_eq!(raw, numbered(["\u{feff}one\r", "\r", "\u{feff}two\rx\r\r"]));
        }
        assert_eq!(split("\u{feff}".as_bytes(), 1, 8), [(1, "(empty)".to_owned())]);
    }

    #[test]
    fn a_newline_at_the_end_begins_no_line() {
        assert_eq!(split(b"a\n", 2, 8), [(1, "a".to_owned())]);
        assert_eq!(split(b"", 1, 8), []);
    }
}
