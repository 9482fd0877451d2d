//! Takes the key out of a JSON line without building the rest of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A key: a slice of the line where it has no escapes.
pub type Key<'a> = Cow<'a, str>;

/// The field `name` of the JSON object `line`: a string's text, or a number as it is written.
pub fn field<'a>(line: &'a [u8], name: &str) -> Result<Key<'a>, String> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let found = Field(name).deserialize(&mut reader).and_then(|found| reader.end().map(|()| found));
    let value = match found {
        Ok(Some(value)) => value.get(),
        Ok(None) => return Err(format!("there is no field {name:?} in this JSON object")),
        Err(e) if e.is_data() => {
            return Err(format!("not a JSON object but another JSON value; --key-field needs the field {name:?}"));
        }
        Err(e) => return Err(format!("not valid JSON: {e}")),
    };
    match value.as_bytes().first() {
        Some(b'"') => text(value).map_err(|e| format!("the field {name:?} is not valid text: {e}")),
        Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(value)),
        first => {
            let what = match first {
                Some(b'n') => "null",
                Some(b't' | b'f') => "a boolean",
                Some(b'{') => "an object",
                _ => "an array",
            };
            Err(format!("the field {name:?} is {what}: a key must be a string or a number"))
        }
    }
}

fn text(json: &str) -> serde_json::Result<Cow<'_, str>> {
    // Without an escape the text is what stands between the quotes.
    match json.get(1..json.len() - 1) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str::<String>(json).map(Cow::Owned),
    }
}

/// Finds a field of an object; the last one wins if there are several.
struct Field<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(matches) = map.next_key_seed(Is(self.0))? {
            if matches {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Returns whether a field has this name.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn strings_and_numbers_are_keys() {
        let key = |line: &'static str| field(line.as_bytes(), "id").unwrap();
        assert_eq!(key(r#"{"id":"order-1","x":[{"id":"no"}]}"#), "order-1");
        assert_eq!(key(r#" {"x":null, "id" : 17 } "#), "17");
        assert_eq!(key(r#"{"id":-0.50}"#), "-0.50");
        assert_eq!(key(r#"{"id":123456789012345678901234567890}"#), "123456789012345678901234567890");
        assert_eq!(key(r#"{"id":"a\"bé"}"#), "a\"bé");
        assert_eq!(key(r#"{"id":""}"#), "");
        assert_eq!(key(r#"{"id":"熊"}"#), "熊");
        assert!(matches!(key(r#"{"id":"plain"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn errors_name_the_field() {
        let error = |line: &'static [u8]| field(line, "id").unwrap_err();
        assert!(error(br#"{"id":"#).starts_with("not valid JSON: EOF while parsing a value at line 1 column 6"));
        assert!(error(b"plain text").starts_with("not valid JSON"));
        assert!(error(br#"{"id":"a"} tail"#).starts_with("not valid JSON: trailing characters"));
        assert!(error(b"{\"id\":\"\xff\"}").starts_with("not valid JSON"));
        assert!(error(b"[1]").starts_with("not a JSON object"));
        assert_eq!(error(br#"{"Id":1}"#), r#"there is no field "id" in this JSON object"#);
        for (line, what) in
            [(&br#"{"id":null}"#[..], "null"), (br#"{"id":true}"#, "a boolean"), (br#"{"id":[]}"#, "an array")]
        {
            assert_eq!(error(line), format!("the field \"id\" is {what}: a key must be a string or a number"));
        }
    }
}
