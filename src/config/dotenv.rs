//! The format of `.env` files.
//!
//! One `NAME=value` a line, optionally after `export`. Only names that begin with `REDPANDA_` are parsed: every other line
//! belongs to another tool, whatever it looks like, and no value spans lines, so that none of them can swallow a setting.
//!
//! | value | is read as |
//! |---|---|
//! | `bare` | the text, trimmed; a blank and `#` begin a comment |
//! | `'single'` | the text |
//! | `"double"` | the text with the escapes `\\`, `\"`, `\$`, `\n`, `\r`, `\t`; every other backslash is literal |
//!
//! `$` is never substituted: a value with one is usually a password.

use std::collections::BTreeMap;

const PREFIX: &str = "REDPANDA_";

/// Parses the settings in a file; the last one of a name wins.
///
/// # Errors
/// The line and what is wrong with it. A line may hold a secret: no value is quoted.
pub(super) fn parse(file: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err("it is UTF-16: save it as UTF-8".to_owned());
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut settings = BTreeMap::new();
    for (number, line) in (1..).zip(file.split(|b| *b == b'\n')) {
        if let Some(parsed) = setting(line) {
            let (name, value) = parsed.map_err(|why| format!("line {number}: {why}"))?;
            settings.insert(name, value);
        }
    }
    Ok(settings)
}

/// Parses the name and value of a line; `None` if it is no setting.
fn setting(line: &[u8]) -> Option<Result<(String, String), String>> {
    let line = line.trim_ascii();
    let exported = line.strip_prefix(b"export").filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace));
    let line = exported.map_or(line, <[u8]>::trim_ascii_start);
    if !line.starts_with(PREFIX.as_bytes()) {
        return None;
    }
    let end = line.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let name = String::from_utf8_lossy(name).into_owned();
    let Some(raw) = rest.trim_ascii_start().strip_prefix(b"=") else {
        return Some(Err(format!("no '=' follows {name}")));
    };
    let value = std::str::from_utf8(raw).map_err(|_| "is not UTF-8".to_owned()).and_then(value);
    Some(match value {
        Ok(value) => Ok((name, value)),
        Err(why) => Err(format!("the value of {name} {why}")),
    })
}

fn value(raw: &str) -> Result<String, String> {
    let trimmed = raw.trim_start();
    let (value, rest) = match trimmed.chars().next() {
        Some('\'') => trimmed[1..].split_once('\'').map(|(value, rest)| (value.to_owned(), rest)),
        Some('"') => double_quoted(&trimmed[1..]),
        _ => return Ok(bare(raw)),
    }
    .ok_or("has no closing quote on its line")?;
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err("goes on behind its closing quote: put all of it into quotes".to_owned())
    }
}

/// Returns the value up to a comment.
fn bare(raw: &str) -> String {
    let blank = |i: usize| raw[..i].ends_with(char::is_whitespace);
    let comment = raw.match_indices('#').map(|(i, _)| i).find(|i| blank(*i));
    raw[..comment.unwrap_or(raw.len())].trim().to_owned()
}

/// Returns the text up to the closing quote, and the rest.
fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match chars.next()?.1 {
                c @ ('\\' | '"' | '$') => value.push(c),
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn one(value: &str) -> Result<String, String> {
        let line = format!("REDPANDA_A={value}\n");
        parse(line.as_bytes()).map(|s| s["REDPANDA_A"].clone())
    }

    #[test]
    fn a_dollar_sign_is_a_dollar_sign() {
        for text in ["ab$cd", "$HOME", "${HOME}", "$", "a$", "$$"] {
            assert_eq!(one(text).unwrap(), text);
            assert_eq!(one(&format!("'{text}'")).unwrap(), text);
            assert_eq!(one(&format!("\"{text}\"")).unwrap(), text);
        }
        assert_eq!(one(r#""ab\$cd""#).unwrap(), "ab$cd");
    }

    #[test]
    fn values_are_bare_or_quoted() {
        for (text, value) in [
            ("", ""),
            ("  a b  ", "a b"),
            ("a#b", "a#b"),
            ("#a", "#a"),
            ("a # b", "a"),
            (" # b", ""),
            (r"a\nb\", r"a\nb\"),
            ("it's", "it's"),
            ("'a # b' # c", "a # b"),
            (r"'a\'", r"a\"),
            (r#""a\n\t\"\\b" # c"#, "a\n\t\"\\b"),
            (r#""C:\certs""#, r"C:\certs"),
            ("\"a\"\r", "a"),
            ("a\r", "a"),
            ("''", ""),
        ] {
            assert_eq!(one(text).as_deref(), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn names_may_be_exported_and_the_last_one_wins() {
        let file =
            "\u{feff}export REDPANDA_A=1\r\n\t REDPANDA_B = 2\n# REDPANDA_A=3\nexport\tREDPANDA_A=4\nREDPANDA_C=5";
        let found: Vec<_> = parse(file.as_bytes()).unwrap().into_iter().collect();
        let pairs = [("REDPANDA_A", "4"), ("REDPANDA_B", "2"), ("REDPANDA_C", "5")];
        assert_eq!(found, pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn lines_of_other_tools_are_ignored() {
        let file = b"APP_NAME=My Shop\nnot a setting\nX='open\nKEY=\"-----BEGIN\nabc==\nREDPANDA_A=1\n-----END\"\n\xff\xfe=1\n[section]\nexportREDPANDA_A=2\nredpanda_a=3";
        assert_eq!(parse(file).unwrap(), BTreeMap::from([("REDPANDA_A".to_owned(), "1".to_owned())]));
    }

    #[test]
    fn a_parse_error_names_the_line_and_not_the_value() {
        for (text, why) in [
            (&b"REDPANDA_A=1\n\nREDPANDA_B hunter2"[..], "line 3: no '=' follows REDPANDA_B"),
            (b"REDPANDA_B: hunter2", "line 1: no '=' follows REDPANDA_B"),
            (b"REDPANDA_B='hunter2", "line 1: the value of REDPANDA_B has no closing quote on its line"),
            (b"REDPANDA_B=\"hunter2\\\"", "line 1: the value of REDPANDA_B has no closing quote on its line"),
            (b"REDPANDA_B=\"hunter2\"3", "line 1: the value of REDPANDA_B goes on behind its closing quote"),
            (b"REDPANDA_B=hunter2\xff", "line 1: the value of REDPANDA_B is not UTF-8"),
            (b"\xff\xfeR\0E\0", "it is UTF-16: save it as UTF-8"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.starts_with(why) && !e.contains("hunter2"), "{e}");
        }
    }

    proptest! {
        #[test]
        fn every_text_can_be_written_in_double_quotes(text in "[^\\r\\n]*") {
            let quoted = text.replace('\\', r"\\").replace('"', r#"\""#);
            prop_assert_eq!(one(&format!("\"{quoted}\"")), Ok(text));
        }

        #[test]
        fn every_text_without_its_quote_can_be_written_in_single_quotes(text in "[^'\\r\\n]*") {
            prop_assert_eq!(one(&format!("'{text}'")), Ok(text));
        }

        #[test]
        fn a_value_without_blanks_and_quotes_needs_no_quotes(text in "[^'\"\\s][^\\s]*") {
            prop_assert_eq!(one(&text), Ok(text));
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[b"REDPANDA_A=", &bytes[..]].concat());
            let _ = parse(&bytes);
        }

        #[test]
        fn other_lines_change_no_setting(before in "[^\\n]*", after in "[^\\n]*") {
            prop_assume!(![&before, &after].iter().any(|line| line.contains(PREFIX)));
            let file = format!("{before}\nREDPANDA_A=1\n{after}");
            prop_assert_eq!(parse(file.as_bytes()).unwrap(), BTreeMap::from([("REDPANDA_A".to_owned(), "1".to_owned())]));
        }
    }
}
