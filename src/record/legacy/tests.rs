#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use flate2::Crc;

use super::super::decode::TimestampType;
use super::super::{RecordBatch, decode_batches};
use super::*;
use crate::error::ErrorKind;

const LIMIT: usize = 64 << 20;

fn hex(text: &str) -> Option<Bytes> {
    let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (text != "null").then(|| (0..text.len()).step_by(2).map(byte).collect())
}

fn text(field: &Option<Bytes>) -> String {
    field.as_ref().map_or("null".to_owned(), |bytes| bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Returns the records of a set as the Java generator of the vectors prints them, and the first
/// error.
fn read(set: Bytes) -> (Vec<String>, Option<crate::Error>) {
    let mut all = Vec::new();
    for batch in decode_batches(set, LIMIT) {
        let records = batch.and_then(|batch: RecordBatch| {
            let kind = if batch.timestamp_type == TimestampType::LogAppendTime { 'a' } else { 'c' };
            let records: Vec<_> = batch.records()?.collect::<Result<_>>()?;
            assert_eq!(records.last().unwrap().offset, batch.last_offset);
            Ok((kind, records))
        });
        match records {
            Ok((kind, records)) => all.extend(records.iter().map(|r| {
                assert!(r.headers.is_empty());
                format!("{}:{kind}:{}:{}:{}", r.offset, r.timestamp.as_millis(), text(&r.key), text(&r.value))
            })),
            Err(e) => return (all, Some(e)),
        }
    }
    (all, None)
}

fn vectors() -> impl Iterator<Item = (&'static str, Bytes, Vec<&'static str>)> {
    let lines =
        include_str!("../../../tests/vectors/legacy-messages.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let mut fields = line.split(' ');
        (fields.next().unwrap(), hex(fields.next().unwrap()).unwrap(), fields.collect())
    })
}

fn vector(name: &str) -> Bytes {
    vectors().find(|(of, ..)| *of == name).unwrap().1
}

#[test]
fn messages_written_by_kafka_are_read() {
    let mut seen = 0;
    for (name, set, expected) in vectors() {
        let (records, error) = read(set);
        assert!(error.is_none(), "{name}: {error:?}");
        let step = if name.ends_with("-large") { 100 } else { 1 };
        assert_eq!(records.iter().step_by(step).collect::<Vec<_>>(), expected, "{name}");
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn a_truncated_last_message_is_skipped() {
    let set = vector("v1-none");
    let (whole, _) = read(set.clone());
    let (records, error) = read(set.slice(..set.len() - 1));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, whole[..2]);
}

fn forge(set: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = set.to_vec();
    change(&mut bytes);
    let size = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    let mut crc = Crc::new();
    crc.update(&bytes[CRC_END..]);
    bytes[12..16].copy_from_slice(&crc.sum().to_be_bytes());
    bytes.into()
}

#[test]
fn errors_name_the_damaged_offset() {
    let set = vector("v1-none");
    let whole = read(set.clone()).0;
    let at = set.len() - 1;
    let mut bytes = set.to_vec();
    bytes[at] ^= 1;
    let (records, error) = read(bytes.into());
    assert_eq!(records, whole[..2]);
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("the message at offset 102 is damaged: its CRC-32 is"), "{error}");

    for (name, change, expected) in [
        ("v1-gzip", 26..30, "its bytes end within its key or value"),
        ("v0-gzip", 40..44, "the batch is not valid gzip"),
    ] {
        let set = forge(&vector(name), |bytes| bytes[change].fill(0x7e));
        let error = read(set).1.unwrap();
        assert!(error.full().contains(expected), "{error:?}");
    }
    let longer = forge(&vector("v1-gzip"), |bytes| bytes.push(0));
    assert!(read(longer).1.unwrap().to_string().contains("1 bytes are left behind its value"));
    let before = forge(&vector("v1-gzip"), |bytes| bytes[..8].copy_from_slice(&1_i64.to_be_bytes()));
    assert!(read(before).1.unwrap().full().contains("holds the offset 2, which is beyond its own"));
}

/// Returns a compressed message at offset 200 that holds `inner`.
fn wrap(magic: u8, inner: &[u8]) -> Bytes {
    let value = crate::record::raw::compress(inner, crate::Compression::Gzip { level: 6 }).unwrap();
    let mut bytes = vec![0; 16];
    bytes[7] = 200;
    bytes.extend([magic, Codec::Gzip as u8]);
    bytes.extend(if magic == 0 { vec![] } else { vec![0; 8] });
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    forge(&bytes.into(), |_| ())
}

#[test]
fn invalid_wrappers_are_errors() {
    for (magic, inner, expected) in [
        (1, vector("v1-gzip"), "it is compressed twice"),
        (1, vector("v0-none"), "it holds no whole message of format 1 at its byte 0"),
        (0, vector("v0-none").slice(..40), "it holds no whole message of format 0 at its byte"),
        (1, Bytes::new(), "holds nothing"),
    ] {
        let (records, error) = read(wrap(magic, &inner));
        assert!(records.is_empty());
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.full().contains(expected), "{error:?}");
        assert!(error.full().contains("200"), "{error:?}");
    }
}

#[test]
fn wrapper_decompression_is_bounded() {
    let batch = decode_batches(vector("v1-gzip-large"), 1 << 10).next().unwrap().unwrap();
    let error = batch.records().unwrap_err();
    assert!(error.full().contains("max_decompressed_bytes"), "{error:?}");
}
