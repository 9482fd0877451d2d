//! Differences of two texts by line.

use std::fmt::Write;

/// Pairs of lines that are compared at most; of longer texts everything counts as different.
const MAX_PAIRS: usize = 16 << 20;

/// Returns all lines, each after a space, or after `-` or `+` if only the one or the other text has it.
pub fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (before, tail) = (&old[..start], &old[old.len() - end..]);
    let (old, new) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut out = String::new();
    before.iter().for_each(|line| _ = writeln!(out, " {line}"));
    changed(old, new, &mut out);
    tail.iter().for_each(|line| _ = writeln!(out, " {line}"));
    out
}

/// Writes the differences with as many common lines as there are.
fn changed(old: &[&str], new: &[&str], out: &mut String) {
    let is_short = old.len().saturating_mul(new.len()) <= MAX_PAIRS;
    let (rows, columns) = if is_short { (old.len(), new.len()) } else { (0, 0) };
    // Length of the longest common part of what is left from each pair of lines on.
    let mut common = vec![0u32; (rows + 1) * (columns + 1)];
    let at = |i: usize, j: usize| i * (columns + 1) + j;
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            common[at(i, j)] = if old[i] == new[j] {
                common[at(i + 1, j + 1)] + 1
            } else {
                common[at(i + 1, j)].max(common[at(i, j + 1)])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < rows && j < columns {
        if old[i] == new[j] {
            _ = writeln!(out, " {}", old[i]);
            (i, j) = (i + 1, j + 1);
        } else if common[at(i + 1, j)] >= common[at(i, j + 1)] {
            _ = writeln!(out, "-{}", old[i]);
            i += 1;
        } else {
            _ = writeln!(out, "+{}", new[j]);
            j += 1;
        }
    }
    old[i..].iter().for_each(|line| _ = writeln!(out, "-{line}"));
    new[j..].iter().for_each(|line| _ = writeln!(out, "+{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_lines_stay() {
        assert_eq!(lines("a\nb\nc\n", "a\nx\nc\n"), " a\n-b\n+x\n c\n");
        assert_eq!(lines("a\nb\nc\nd\n", "b\nd\ne\n"), "-a\n b\n-c\n d\n+e\n");
        assert_eq!(lines("", "a\n"), "+a\n");
        assert_eq!(lines("a\na\n", "a\n"), " a\n-a\n");
        assert_eq!(lines("a\n", "a\n"), " a\n");
    }

    #[test]
    fn texts_beyond_the_limit_are_different_as_a_whole() {
        let text = |of: &str| (0..5_000).map(|n| format!("{of}{n}\n")).collect::<String>();
        let all = lines(&text("a"), &text("b"));
        assert!(all.starts_with("-a0\n-a1\n") && all.ends_with("+b4999\n"));
        assert_eq!(all.lines().count(), 10_000);
    }
}
