//! Values of records on a page: as people read them, and as a form can edit them without changing them.

use std::fmt::Write;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// Maximum number of bytes that a page shows.
pub(super) const MAX_SHOWN: usize = 64 << 10;
/// Maximum size of a value that a form has: a form is at most 2 MB.
pub(super) const MAX_EDITED: usize = 256 << 10;
/// Maximum depth of JSON that is indented.
const MAX_DEPTH: usize = 64;

/// Encoding of a value in a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Text,
    /// Text whose lines end in CR LF.
    TextCrLf,
    Hex,
    Null,
}

impl Encoding {
    pub(super) const ALL: [(Self, &str, &str); 4] = [
        (Self::Text, "text", "Text"),
        (Self::TextCrLf, "text-crlf", "Text, lines end in CR LF"),
        (Self::Hex, "hex", "Bytes as hexadecimal digits"),
        (Self::Null, "null", "No value (null, a tombstone)"),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n, _)| *n == name).map(|(encoding, ..)| *encoding)
    }

    /// Returns the encoding in which a form gives a value back as it is: browsers make every end of a line CR LF, and don't keep
    /// control characters.
    pub(super) fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Null };
        let Ok(text) = std::str::from_utf8(value) else { return Self::Hex };
        if text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            return Self::Hex;
        }
        match (text.matches('\r').count(), text.matches('\n').count(), text.matches("\r\n").count()) {
            (0, ..) => Self::Text,
            (cr, lf, both) if cr == both && lf == both => Self::TextCrLf,
            _ => Self::Hex,
        }
    }

    /// Returns a value as the text of a form.
    pub(super) fn encode(self, value: &[u8]) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text | Self::TextCrLf => String::from_utf8_lossy(value).into_owned(),
            Self::Hex => hex_lines(value),
        }
    }

    /// Returns the value that a form has.
    pub(super) fn decode(self, text: &str) -> Result<Option<Bytes>, String> {
        let lines = || text.replace("\r\n", "\n");
        Ok(match self {
            Self::Null => None,
            Self::Text => Some(lines().into()),
            Self::TextCrLf => Some(lines().replace('\n', "\r\n").into()),
            Self::Hex => Some(hex_bytes(text)?.into()),
        })
    }
}

fn hex_lines(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len() * 3);
    for (i, line) in value.chunks(16).enumerate() {
        if i > 0 {
            text.push('\n');
        }
        for (j, byte) in line.iter().enumerate() {
            _ = write!(text, "{}{byte:02x}", if j > 0 { " " } else { "" }); // a String can't fail
        }
    }
    text
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut digits = Vec::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        digits.push(c.to_digit(16).ok_or_else(|| format!("{c:?} is no hexadecimal digit"))?);
    }
    if digits.len() % 2 == 1 {
        return Err(format!("{} hexadecimal digits are no whole bytes", digits.len()));
    }
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect())
}

/// A value as a page shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// Number of bytes that are not shown.
    pub(super) left_out: usize,
}

/// Returns a value as JSON with indentation, as text or as hexadecimal digits.
pub(super) fn shown(value: Option<&[u8]>) -> Shown {
    let Some(value) = value else { return Shown { kind: "null", text: String::new(), left_out: 0 } };
    let some = value.get(..MAX_SHOWN).unwrap_or(value);
    let left_out = value.len() - some.len();
    let json = std::str::from_utf8(value).ok().filter(|_| left_out == 0).and_then(indented);
    if let Some(text) = json {
        return Shown { kind: "JSON", text, left_out };
    }
    let is_text = |text: &str| !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    // The cut may be within a character.
    let valid = some.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
    if (valid.len() == some.len() || (left_out > 0 && some.len() - valid.len() < 4)) && is_text(valid) {
        return Shown { kind: "text", text: valid.to_owned(), left_out: value.len() - valid.len() };
    }
    Shown { kind: "bytes", text: hex_lines(some), left_out }
}

/// Returns JSON objects and arrays with a member a line. Their numbers and strings stay as they were written.
fn indented(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let (mut out, mut depth, mut in_string, mut is_escaped) =
        (String::with_capacity(text.len() * 2), 0_usize, false, false);
    let mut chars = text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable(); // no string of JSON has them
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            (in_string, is_escaped) = (is_escaped || c != '"', !is_escaped && c == '\\');
            continue;
        }
        let new_line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        };
        match c {
            ' ' => {}
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| *next == ' ').is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
                if depth > MAX_DEPTH {
                    return None; // the indentation would be longer than the text
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Returns the text that a browser sends of one that a form had.
    fn through_a_browser(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
    }

    #[test]
    fn a_form_gives_every_value_back_as_it_is() {
        let all: [&[u8]; 12] = [
            b"",
            b"a",
            b"a\nb\n",
            b"\na",
            b"a\r\nb\r\n",
            b"a\rb",
            b"a\r\nb\n",
            b"\r",
            b"a\0b",
            b"\xff\xfe",
            "ä€😀\t".as_bytes(),
            b"\x1b[31m",
        ];
        for value in all {
            let encoding = Encoding::of(Some(value));
            let sent = through_a_browser(&encoding.encode(value));
            assert_eq!(encoding.decode(&sent).unwrap().as_deref(), Some(value), "{value:?} as {encoding:?}");
        }
        assert_eq!(Encoding::of(None).decode("x"), Ok(None));
        assert_eq!(Encoding::of(Some(b"a\r\nb")), Encoding::TextCrLf);
        assert!(Encoding::ALL.iter().all(|(encoding, name, _)| Encoding::named(name) == Some(*encoding)));
    }

    #[test]
    fn hexadecimal_digits_are_whole_bytes() {
        assert_eq!(Encoding::Hex.decode(" 00\r\nFf 7a"), Ok(Some(Bytes::from_static(b"\0\xffz"))));
        assert!(Encoding::Hex.decode("0").is_err() && Encoding::Hex.decode("0x").is_err());
    }

    #[test]
    fn json_is_indented_and_stays_what_it_was() {
        let text = r#" {"a":[1.0e400,{"b":"x\"{,:} \\"},[ ],{}],"c":12345678901234567890} "#;
        let expected = "{\n  \"a\": [\n    1.0e400,\n    {\n      \"b\": \"x\\\"{,:} \\\\\"\n    },\n    [],\n    {}\n  ],\n  \"c\": 12345678901234567890\n}";
        assert_eq!(indented(text).as_deref(), Some(expected));
        assert_eq!(indented(expected).as_deref(), Some(expected));
        for other in ["7", "\"a\"", "{", "{'a':1}", ""] {
            assert_eq!(indented(other), None, "{other}");
        }
        assert_eq!(indented(&format!("{}{}", "[".repeat(100), "]".repeat(100))), None);
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "€".repeat(MAX_SHOWN);
        let shown = shown(Some(long.as_bytes()));
        assert_eq!((shown.kind, shown.text.len() + shown.left_out), ("text", long.len()));
        assert!(shown.text.len() <= MAX_SHOWN && shown.text.len() + 4 > MAX_SHOWN);
        assert_eq!(super::shown(Some(b"\xff\x00")).text, "ff 00");
        assert_eq!(super::shown(None).kind, "null");
    }
}
