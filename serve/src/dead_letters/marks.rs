//! Marks of dead letters that were replayed or discarded, in the dead-letter topic itself, where they are kept as long.
//!
//! A mark is a record without key and value, in the partition of its dead letters and behind them. Committed offsets would
//! expire: brokers delete those of an empty group, after a week by default.

use std::collections::BTreeMap;

use ailurus::Headers;

/// Header with the new state of the dead letters.
const DONE: &str = "dlq-done";
/// Header with their offsets, and ranges of offsets, both ends included, such as `3-5,9`.
const OFFSETS: &str = "dlq-done-offsets";

/// State of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Neither replayed nor discarded.
    Open,
    /// The record was sent again.
    Replayed,
    /// The record is not to be sent again.
    Discarded,
}

impl State {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// A set of offsets, as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offsets {
    /// First and last offset of ranges, which neither touch nor overlap.
    ranges: BTreeMap<i64, i64>,
}

impl Offsets {
    /// Adds an offset.
    pub fn insert(&mut self, offset: i64) {
        self.add(offset, offset);
    }

    /// Adds all from `first` to `last`.
    fn add(&mut self, mut first: i64, mut last: i64) {
        while let Some((&f, &l)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if l.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&f);
            (first, last) = (first.min(f), last.max(l));
        }
        self.ranges.insert(first, last);
    }

    /// Returns whether the offset is in the set.
    pub fn contains(&self, offset: i64) -> bool {
        self.ranges.range(..=offset).next_back().is_some_and(|(_, last)| *last >= offset)
    }

    /// Returns whether the set has no offset.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Splits the set into sets of at most `ranges` ranges, which fit into a record.
    pub fn chunks(&self, ranges: usize) -> Vec<Self> {
        let all: Vec<_> = self.ranges.iter().map(|(f, l)| (*f, *l)).collect();
        all.chunks(ranges).map(|some| Self { ranges: some.iter().copied().collect() }).collect()
    }
}

impl std::fmt::Display for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for Offsets {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().map_err(drop)?, last.parse().map_err(drop)?);
            if first > last || first < 0 {
                return Err(());
            }
            all.add(first, last);
        }
        Ok(all)
    }
}

/// Returns the headers of a mark.
pub fn mark(how: State, offsets: &Offsets) -> Headers {
    Headers::new().with(DONE, how.name()).with(OFFSETS, offsets.to_string())
}

/// Reads a mark; `None` if the record is not a mark.
pub fn parse(headers: &Headers) -> Option<(State, Offsets)> {
    let how = headers.get_str(DONE)?;
    let how = [State::Replayed, State::Discarded].into_iter().find(|s| s.name() == how)?;
    Some((how, headers.get_str(OFFSETS)?.parse().ok()?))
}

/// The marks of a topic.
#[derive(Debug, Default)]
pub struct Marks {
    of: BTreeMap<(i32, State), Offsets>,
}

impl Marks {
    /// Adds a mark of a partition.
    pub fn add(&mut self, partition: i32, (how, offsets): (State, Offsets)) {
        let all = self.of.entry((partition, how)).or_default();
        offsets.ranges.into_iter().for_each(|(first, last)| all.add(first, last));
    }

    /// Returns the state of a dead letter.
    pub fn state(&self, partition: i32, offset: i64) -> State {
        let is = |how: &State| self.of.get(&(partition, *how)).is_some_and(|o| o.contains(offset));
        [State::Replayed, State::Discarded].into_iter().find(is).unwrap_or(State::Open)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn of(offsets: impl IntoIterator<Item = i64>) -> Offsets {
        let mut all = Offsets::default();
        offsets.into_iter().for_each(|o| all.insert(o));
        all
    }

    #[test]
    fn offsets_are_the_set_of_what_was_put_in_and_are_read_back() {
        // All orders of all subsets of a few offsets would be many: those of a generator with a fixed seed are enough.
        let mut state = 7_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i64::try_from((state >> 33) % n).unwrap()
        };
        for _ in 0..500 {
            let put: Vec<_> = (0..=next(20)).map(|_| next(25)).collect();
            let (offsets, set) = (of(put.clone()), put.iter().copied().collect::<BTreeSet<_>>());
            for o in 0..26 {
                assert_eq!(offsets.contains(o), set.contains(&o), "{o} of {put:?}");
            }
            assert_eq!(offsets.to_string().parse(), Ok(offsets.clone()));
            let apart = set.iter().filter(|o| !set.contains(&(*o - 1))).count();
            assert_eq!(offsets.ranges.len(), apart, "{offsets} is as short as it can be");
            let mut again = Marks::default();
            offsets.chunks(2).into_iter().for_each(|some| again.add(0, (State::Replayed, some)));
            assert_eq!(again.of.get(&(0, State::Replayed)), Some(&offsets));
        }
    }

    #[test]
    fn offsets_are_written_as_ranges() {
        assert_eq!(of([4, 9, 3, 5]).to_string(), "3-5,9");
        assert_eq!(of([i64::MAX, i64::MAX - 1]).to_string(), format!("{}-{}", i64::MAX - 1, i64::MAX));
        for bad in ["", "a", "1-", "-1", "5-3", "1,,2", "1-2-3"] {
            assert_eq!(bad.parse::<Offsets>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn a_mark_says_what_the_letters_before_it_are() {
        let mut marks = Marks::default();
        marks.add(0, parse(&mark(State::Replayed, &of([3, 4]))).unwrap());
        marks.add(0, parse(&mark(State::Discarded, &of([7]))).unwrap());
        let states = [2, 3, 4, 5, 7].map(|o| marks.state(0, o).name());
        assert_eq!(states, ["open", "replayed", "replayed", "open", "discarded"]);
        assert_eq!(marks.state(1, 3), State::Open);
        assert_eq!(parse(&Headers::new().with(DONE, "open").with(OFFSETS, "1")), None);
        assert_eq!(parse(&Headers::new().with(DONE, "replayed").with(OFFSETS, "x")), None);
    }
}
