//! Records as lines of text or JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use ailurus::{Headers, Record};
use ailurus_serve::text::readable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
    headers: Vec<Header<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Header<'a> {
    key: Cow<'a, str>,
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
}

/// Writes a record as a JSON object and a newline.
pub fn json(out: &mut impl Write, topic: &str, partition: i32, record: &Record) -> io::Result<()> {
    let (key, key_encoding) = encode(record.key.as_deref());
    let (value, value_encoding) = encode(record.value.as_deref());
    let line = Line {
        topic,
        partition,
        offset: record.offset,
        timestamp: (!record.timestamp.is_none()).then_some(record.timestamp.as_millis()),
        key,
        key_encoding,
        value,
        value_encoding,
        headers: headers(&record.headers),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Returns the headers in order.
pub fn headers(all: &Headers) -> Vec<Header<'_>> {
    fn one(h: ailurus::record::Header<'_>) -> Header<'_> {
        let (value, value_encoding) = encode(h.value());
        Header { key: h.key(), value, value_encoding }
    }
    all.iter().map(one).collect()
}

/// Returns bytes as text, or as base64 if they are not UTF-8, and the encoding if it is not plain text.
pub fn encode(bytes: Option<&[u8]>) -> (Option<Cow<'_, str>>, Option<&'static str>) {
    match bytes.map(|b| std::str::from_utf8(b).map_err(|_| b)) {
        None => (None, None),
        Some(Ok(text)) => (Some(Cow::Borrowed(text)), None),
        Some(Err(bytes)) => (Some(Cow::Owned(STANDARD.encode(bytes))), Some("base64")),
    }
}

/// Writes `topic/partition@offset`, key and value with tabs between.
pub fn text(out: &mut impl Write, topic: &str, partition: i32, record: &Record) -> io::Result<()> {
    write!(out, "{topic}/{partition}@{}\t", record.offset)?;
    readable(out, record.key.as_deref())?;
    out.write_all(b"\t")?;
    readable(out, record.value.as_deref())?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_base64() {
        assert_eq!(encode(None), (None, None));
        assert_eq!(encode(Some(b"a")), (Some("a".into()), None));
        assert_eq!(encode(Some(b"\xff\x00")), (Some("/wA=".into()), Some("base64")));
    }
}
