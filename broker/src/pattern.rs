//! Regular expressions of a client, matched against whole strings.

/// A pattern of literal characters, `.`, the repetitions `*`, `+` and `?`, escapes of punctuation,
/// and the anchors `^` and `$` at its ends. Kafka's are RE2: what this subset lacks is invalid here.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Debug)]
struct Part {
    /// `None` for any character.
    literal: Option<char>,
    min: usize,
    is_repeated: bool,
}

impl Part {
    fn accepts(&self, c: char) -> bool {
        self.literal.is_none_or(|literal| literal == c)
    }
}

impl Pattern {
    /// Returns `None` for an invalid pattern.
    pub fn parse(pattern: &str) -> Option<Self> {
        let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
        let pattern = pattern.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(pattern);
        let mut parts: Vec<Part> = Vec::new();
        let mut can_repeat = false;
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if let '*' | '+' | '?' = c {
                let last = parts.last_mut().filter(|_| can_repeat)?;
                (last.min, last.is_repeated) = (usize::from(c == '+'), c != '?');
                can_repeat = false;
                continue;
            }
            let literal = match c {
                '.' => None,
                '\\' => Some(chars.next().filter(char::is_ascii_punctuation)?),
                '[' | ']' | '(' | ')' | '{' | '}' | '|' | '^' | '$' => return None,
                c => Some(c),
            };
            parts.push(Part { literal, min: 1, is_repeated: false });
            can_repeat = true;
        }
        Some(Self(parts))
    }

    /// Returns whether the pattern matches the whole text, in time of their lengths multiplied.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Positions that the parts so far can end at.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for part in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                let is_follower = at > 0 && part.accepts(text[at - 1]);
                let once = is_follower && (ends[at - 1] || (part.is_repeated && next[at - 1]));
                next[at] = once || (part.min == 0 && ends[at]);
            }
            ends = next;
        }
        ends[text.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_the_whole_text() {
        let matches = |pattern: &str, text: &str| Pattern::parse(pattern).map(|p| p.matches(text));
        for (pattern, text, expected) in [
            ("pay", "pay", true),
            ("pay", "pays", false),
            ("pay.*", "payments-1", true),
            ("^pay.+$", "pay", false),
            ("pays?", "pay", true),
            ("pays?", "payss", false),
            ("a*b+", "aabb", true),
            ("a*b+", "aa", false),
            (".*-1", "a-1-1", true),
            (r"a\.b", "a.b", true),
            (r"a\.b", "axb", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), Some(expected), "{pattern} on {text}");
        }
        for invalid in ["*", "a**", "a[b", "(a)", "a|b", "\\", r"\d"] {
            assert_eq!(matches(invalid, ""), None, "{invalid}");
        }
    }
}
