//! Problems that a checker has found, by kind.

use std::collections::BTreeMap;
use std::fmt::Debug;

#[derive(Debug)]
pub struct Problems<P>(BTreeMap<P, Vec<String>>);

impl<P> Default for Problems<P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Copy + Ord + Debug> Problems<P> {
    pub fn add(&mut self, problem: P, text: impl Into<String>) {
        self.0.entry(problem).or_default().push(text.into());
    }

    /// Removes a kind of problem; returns how many there were.
    pub fn remove(&mut self, problem: P) -> usize {
        self.0.remove(&problem).map_or(0, |found| found.len())
    }

    pub fn add_all(&mut self, other: Self) {
        other.0.into_iter().for_each(|(problem, found)| self.0.entry(problem).or_default().extend(found));
    }

    /// Returns the number of problems of a kind.
    pub fn count(&self, problem: P) -> usize {
        self.0.get(&problem).map_or(0, Vec::len)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Formats the first few problems of each kind.
    pub fn details(&self) -> String {
        let mut text = String::new();
        for (problem, found) in &self.0 {
            text += &format!("{problem:?}, {} in all:\n", found.len());
            found.iter().take(5).for_each(|one| text += &format!("    {one}\n"));
        }
        text
    }

    /// Formats the number of problems of each kind.
    pub fn counts(&self, names: &[(P, &str)]) -> String {
        let counts: Vec<_> = names.iter().map(|(p, name)| format!("{} {name}", self.count(*p))).collect();
        counts.join(", ")
    }
}
