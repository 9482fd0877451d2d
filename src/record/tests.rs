#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::BytesMut;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::codec::Codec;
use super::compression::Compression;
use super::decode::{BatchOrigin, TimestampType};
use super::*;
use crate::error::ErrorKind;

const LIMIT: usize = 64 << 20;

#[derive(Debug, Clone)]
struct Input {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Input {
    fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        for (key, value) in &self.headers {
            headers.push(key, value.as_deref());
        }
        headers
    }
}

fn bytes(max: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    // Repetitive enough to shrink when compressed, now and then.
    option::of(prop_oneof![vec(any::<u8>(), 0..max), (any::<u8>(), 0..max).prop_map(|(b, n)| vec![b; n])])
}

fn input() -> impl Strategy<Value = Input> {
    let timestamp = prop_oneof![0..i64::MAX / 2, Just(0), 1_700_000_000_000..1_700_000_100_000i64];
    let headers = vec(("[a-c]{0,3}", bytes(20)), 0..4);
    (timestamp, bytes(40), bytes(300), headers).prop_map(|(timestamp, key, value, headers)| Input {
        timestamp,
        key,
        value,
        headers,
    })
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    vec(input(), 1..40)
}

fn codec() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        (1..=9u32).prop_map(|level| Compression::Gzip { level }),
        Just(Compression::Snappy),
        Just(Compression::Lz4),
        Just(Compression::Zstd)
    ]
}

fn codec_of(codec: kp::Compression) -> Codec {
    match codec {
        kp::Compression::None => Codec::None,
        kp::Compression::Gzip => Codec::Gzip,
        kp::Compression::Snappy => Codec::Snappy,
        kp::Compression::Lz4 => Codec::Lz4,
        kp::Compression::Zstd => Codec::Zstd,
    }
}

fn build(inputs: &[Input], compression: Compression, producer: ProducerSequence) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    for input in inputs {
        let headers = input.headers();
        let before = builder.size();
        let (key, value) = (input.key.as_deref(), input.value.as_deref());
        builder.append(input.timestamp, key, value, Some(&headers));
        assert!(builder.size() - before <= record_size_bound(key, value, Some(&headers)));
    }
    builder.finish(compression, producer)
}

fn build_simple(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    for (i, value) in values.iter().enumerate() {
        builder.append(1000 + i as i64, None, Some(value.as_bytes()), None);
    }
    builder.finish(Compression::None, ProducerSequence::NONE)
}

fn decode_one(bytes: Bytes) -> (RecordBatch, Vec<Record>) {
    let mut batches = decode_batches(bytes, LIMIT);
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    let records = batch.records().unwrap().collect::<crate::Result<Vec<_>>>().unwrap();
    (batch, records)
}

/// Returns the records before the first error, and the error.
fn decode_all(bytes: Bytes, limit: usize) -> (Vec<Record>, Option<crate::Error>) {
    let mut good = Vec::new();
    for batch in decode_batches(bytes, limit) {
        let records = match batch.and_then(|b| b.records()) {
            Ok(records) => records,
            Err(e) => return (good, Some(e)),
        };
        for record in records {
            match record {
                Ok(record) => good.push(record),
                Err(e) => return (good, Some(e)),
            }
        }
    }
    (good, None)
}

/// Changes a batch and corrects its length and checksum.
fn forge(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut forged = batch.to_vec();
    change(&mut forged);
    let len = (forged.len() - 12) as i32;
    forged[8..12].copy_from_slice(&len.to_be_bytes());
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    forged.into()
}

fn assert_same(records: &[Record], inputs: &[Input], base_offset: i64) {
    assert_eq!(records.len(), inputs.len());
    for (i, (record, input)) in records.iter().zip(inputs).enumerate() {
        assert_eq!(record.offset, base_offset + i as i64);
        assert_eq!(record.timestamp.as_millis(), input.timestamp);
        assert_eq!(record.key.as_deref(), input.key.as_deref());
        assert_eq!(record.value.as_deref(), input.value.as_deref());
        let headers: Vec<_> =
            record.headers.iter().map(|h| (h.key().into_owned(), h.value().map(<[u8]>::to_vec))).collect();
        assert_eq!(headers, input.headers);
    }
}

proptest! {
    #[test]
    fn built_batches_are_read(
        inputs in inputs(), codec in codec(), id: i64, epoch: i16, sequence: i32, is_transactional: bool,
    ) {
        let producer = ProducerSequence { id, epoch, sequence, is_transactional };
        let (batch, records) = decode_one(build(&inputs, codec, producer));
        assert_same(&records, &inputs, 0);
        prop_assert_eq!((batch.base_offset, batch.last_offset), (0, inputs.len() as i64 - 1));
        prop_assert_eq!(batch.origin, BatchOrigin { producer, leader_epoch: -1 });
        prop_assert!(!batch.is_control);
        prop_assert_eq!(batch.timestamp_type, TimestampType::CreateTime);
        for record in &records {
            prop_assert_eq!(&record.detach(), record);
        }
    }

    #[test]
    fn kafka_protocol_reads_built_batches(mut inputs in inputs(), codec in codec()) {
        for input in &mut inputs {
            // Its map of headers has no room for duplicates.
            let mut seen = std::collections::HashSet::new();
            input.headers.retain(|(key, _)| seen.insert(key.clone()));
        }
        let mut built = build(&inputs, codec, ProducerSequence { id: 7, epoch: 3, sequence: 11, is_transactional: false });
        let decompress = |data: &mut Bytes, codec: kp::Compression| Ok(codec_of(codec).decompress(data, LIMIT)?.into());
        let set = kp::RecordBatchDecoder::decode_with_custom_compression(&mut built, Some(decompress)).unwrap();
        prop_assert_eq!(set.records.len(), inputs.len());
        for (i, (read, input)) in set.records.iter().zip(&inputs).enumerate() {
            prop_assert_eq!((read.offset, read.timestamp), (i as i64, input.timestamp));
            prop_assert_eq!((read.producer_id, read.producer_epoch, read.sequence), (7, 3, 11 + i as i32));
            prop_assert_eq!(read.key.as_deref(), input.key.as_deref());
            prop_assert_eq!(read.value.as_deref(), input.value.as_deref());
            let headers: Vec<_> =
                read.headers.iter().map(|(k, v)| (k.to_string(), v.as_ref().map(|v| v.to_vec()))).collect();
            prop_assert_eq!(&headers, &input.headers);
        }
    }

    #[test]
    fn batches_of_kafka_protocol_are_read(
        mut inputs in inputs(),
        codec in codec(),
        transactional: bool,
        control: bool,
        base in 0..i64::MAX / 2,
        epoch in 0..1000i32,
    ) {
        for input in &mut inputs {
            let mut seen = std::collections::HashSet::new();
            input.headers.retain(|(key, _)| seen.insert(key.clone()));
        }
        let records: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(i, input)| kp::Record {
                transactional,
                control,
                delete_horizon: false,
                partition_leader_epoch: epoch,
                producer_id: 9,
                producer_epoch: 1,
                timestamp_type: kp::TimestampType::Creation,
                offset: base + i as i64,
                sequence: i as i32,
                timestamp: input.timestamp,
                key: input.key.clone().map(Bytes::from),
                value: input.value.clone().map(Bytes::from),
                headers: input
                    .headers
                    .iter()
                    .map(|(k, v)| (StrBytes::from_string(k.clone()), v.clone().map(Bytes::from)))
                    .collect::<IndexMap<_, _>>(),
            })
            .collect();
        let compression = match codec {
            Compression::None => kp::Compression::None,
            Compression::Gzip { .. } => kp::Compression::Gzip,
            Compression::Snappy => kp::Compression::Snappy,
            Compression::Lz4 => kp::Compression::Lz4,
            Compression::Zstd => kp::Compression::Zstd,
        };
        let options = kp::RecordEncodeOptions { version: 2, compression };
        let compress = |data: &mut BytesMut, out: &mut BytesMut, _| {
            out.extend_from_slice(&codec::compress(codec, data, Vec::new())?.1);
            Ok(())
        };
        let mut built = BytesMut::new();
        kp::RecordBatchEncoder::encode_with_custom_compression(&mut built, &records, &options, Some(compress)).unwrap();
        let (batch, records) = decode_one(built.freeze());
        assert_same(&records, &inputs, base);
        let producer = ProducerSequence { id: 9, epoch: 1, sequence: 0, is_transactional: transactional };
        prop_assert_eq!(batch.origin, BatchOrigin { producer, leader_epoch: epoch });
        prop_assert_eq!(batch.is_control, control);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode_all(bytes.into(), 1 << 20);
    }

    #[test]
    fn arbitrary_records_in_a_valid_batch_do_not_panic(
        section in vec(any::<u8>(), 0..200),
        attributes in 0..128i16,
        count: i32,
        last_delta: i32,
        base: i64,
    ) {
        let batch = forge(&build_simple(&["x"]), |b| {
            b.truncate(61);
            b[0..8].copy_from_slice(&base.to_be_bytes());
            b[21..23].copy_from_slice(&attributes.to_be_bytes());
            b[23..27].copy_from_slice(&last_delta.to_be_bytes());
            b[57..61].copy_from_slice(&count.to_be_bytes());
            b.extend_from_slice(&section);
        });
        let (good, _) = decode_all(batch, 1 << 20);
        prop_assert!(good.len() <= section.len() / 7 || attributes & 7 != 0);
    }

    #[test]
    fn a_flipped_bit_is_never_accepted(inputs in inputs(), codec in codec(), at: prop::sample::Index, bit in 0..8u32) {
        let batch = build(&inputs, codec, ProducerSequence::NONE);
        // The CRC does not cover the fields before it, which the broker sets.
        let at = 17 + at.index(batch.len() - 17);
        let mut flipped = batch.to_vec();
        flipped[at] ^= 1u8 << bit;
        let (good, error) = decode_all(flipped.into(), LIMIT);
        prop_assert!(good.is_empty());
        let error = error.unwrap();
        prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        prop_assert!(error.to_string().contains("CRC-32C"), "{}", error);
    }

    #[test]
    fn a_truncated_last_batch_is_skipped(inputs in inputs(), codec in codec(), cut: prop::sample::Index) {
        let batch = build(&inputs, codec, ProducerSequence::NONE);
        let cut = cut.index(batch.len());
        let (good, error) = decode_all(batch.slice(..cut), LIMIT);
        prop_assert!(good.is_empty());
        prop_assert_eq!(error.is_some(), cut > 0, "without a complete batch before it");
        let two = [&batch[..], &batch[..cut]].concat();
        let (good, error) = decode_all(two.into(), LIMIT);
        prop_assert!(error.is_none());
        assert_same(&good, &inputs, 0);
    }
}

#[test]
fn nulls_empties_and_repeated_headers_are_kept() {
    let headers = vec![("a".into(), Some(vec![])), ("a".into(), None), ("".into(), Some(b"x".to_vec()))];
    let inputs = [
        Input { timestamp: 5, key: None, value: None, headers },
        Input { timestamp: 4, key: Some(vec![]), value: Some(vec![]), headers: vec![] },
    ];
    let (_, records) = decode_one(build(&inputs, Compression::Gzip { level: 9 }, ProducerSequence::NONE));
    assert_same(&records, &inputs, 0);
}

#[test]
fn a_batch_that_does_not_shrink_stays_uncompressed() {
    let mut rng = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..2000).map(|_| rng.u8(..)).collect();
    let codecs = [Compression::gzip(6).unwrap(), Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (bits, compression) in (1..).zip(codecs) {
        let mut builder = BatchBuilder::new(0);
        builder.append(1, None, Some(&noise), None);
        let size = builder.size();
        let batch = builder.finish(compression, ProducerSequence::NONE);
        assert_eq!(batch.len(), size);
        assert_eq!(batch[22] & 7, 0);

        let mut builder = BatchBuilder::new(0);
        builder.append(1, None, Some(&[b'x'; 2000]), None);
        let batch = builder.finish(compression, ProducerSequence::NONE);
        assert!(batch.len() < 250, "{compression:?}: {}", batch.len());
        assert_eq!(batch[22] & 7, bits);
    }
}

/// Batches as Kafka 4.3's console producer (java) and kcat 1.7 (librdkafka 2.0) wrote them, with
/// each codec.
#[test]
fn batches_of_other_clients_are_read() {
    let batches: [(&str, i16, &[u8]); 8] = [
        ("java gzip", 1, include_bytes!("testdata/java-gzip.batch")),
        ("java snappy", 2, include_bytes!("testdata/java-snappy.batch")),
        ("java lz4", 3, include_bytes!("testdata/java-lz4.batch")),
        ("java zstd", 4, include_bytes!("testdata/java-zstd.batch")),
        ("librdkafka gzip", 1, include_bytes!("testdata/librdkafka-gzip.batch")),
        ("librdkafka snappy", 2, include_bytes!("testdata/librdkafka-snappy.batch")),
        ("librdkafka lz4", 3, include_bytes!("testdata/librdkafka-lz4.batch")),
        ("librdkafka zstd", 4, include_bytes!("testdata/librdkafka-zstd.batch")),
    ];
    for (who, bits, bytes) in batches {
        assert_eq!(i16::from(bytes[22]) & 7, bits, "{who}");
        let (records, error) = decode_all(Bytes::from_static(bytes), LIMIT);
        assert!(error.is_none(), "{who}: {error:?}");
        assert_eq!(records.len(), 40, "{who}");
        for (i, record) in records.iter().enumerate() {
            let key = format!("order-{}", i % 7);
            let value = format!(r#"{{"orderId":"{key}","eventType":"order.created","number":{i}}}"#);
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "{who}");
            assert_eq!(record.value.as_deref(), Some(value.as_bytes()), "{who}");
        }
    }
}

#[test]
fn log_append_time_replaces_timestamps() {
    let batch = forge(&build_simple(&["a", "b"]), |b| {
        b[22] |= 1 << 3;
        b[35..43].copy_from_slice(&9999i64.to_be_bytes());
    });
    let (batch, records) = decode_one(batch);
    assert_eq!(batch.timestamp_type, TimestampType::LogAppendTime);
    assert!(records.iter().all(|r| r.timestamp.as_millis() == 9999));
}

#[test]
fn a_compacted_batch_keeps_its_last_offset() {
    // A batch of ten after compaction removed all its records.
    let empty = forge(&build_simple(&["x"]), |b| {
        b.truncate(61);
        b[0..8].copy_from_slice(&100i64.to_be_bytes());
        b[23..27].copy_from_slice(&9i32.to_be_bytes());
        b[57..61].copy_from_slice(&0i32.to_be_bytes());
    });
    let (batch, records) = decode_one(empty);
    assert_eq!((batch.base_offset, batch.last_offset, records.len()), (100, 109, 0));
}

#[test]
fn errors_name_the_damaged_offset() {
    let batch = build_simple(&["aaaa", "bbbb", "cccc"]);
    let second = 61 + (batch.len() - 61) / 3;
    let damaged = forge(&batch, |b| {
        b[0..8].copy_from_slice(&500i64.to_be_bytes());
        // Length, attributes, timestamp delta, offset delta, key length, then the value's length.
        b[second + 5] = 0x7e;
    });
    let (good, error) = decode_all(damaged, LIMIT);
    assert_eq!(good.len(), 1);
    let error = error.unwrap().to_string();
    assert!(error.contains("damaged at offset 501") && error.contains("value length is 63"), "{error}");

    let (good, error) = decode_all(forge(&batch, |b| b.push(0)), LIMIT);
    assert_eq!(good.len(), 3);
    assert!(error.unwrap().to_string().contains("1 bytes are left"));

    let (good, error) = decode_all(forge(&batch, |b| b[60] = 4), LIMIT);
    assert_eq!(good.len(), 3, "the header says four");
    assert!(error.unwrap().to_string().contains("the bytes end within its length"));

    let (good, error) = decode_all(forge(&batch, |b| b[26] = 1), LIMIT);
    assert_eq!(good.len(), 2, "the header says that the last one has delta 1");
    assert!(error.unwrap().to_string().contains("offset delta is 2"));
}

#[test]
fn gzip_decompression_is_bounded() {
    let mut builder = BatchBuilder::new(0);
    builder.append(1, None, Some(&vec![0; 32 << 20]), None);
    let batch = builder.finish(Compression::Gzip { level: 9 }, ProducerSequence::NONE);
    assert!(batch.len() < 64 << 10);
    let (good, error) = decode_all(batch.clone(), 1 << 20);
    assert!(good.is_empty());
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.full().contains("max_decompressed_bytes"), "{error:?}");
    assert_eq!(decode_all(batch, LIMIT).0.len(), 1);
}

#[test]
fn unsupported_codecs_and_formats_are_named() {
    let kind_and_text = |bytes| {
        let error = decode_all(bytes, LIMIT).1.unwrap();
        (error.kind(), error.full())
    };
    for bits in 5..8 {
        let (kind, text) = kind_and_text(forge(&build_simple(&["a"]), |b| b[22] = bits));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.contains(&format!("codec number {bits}")), "{text}");
    }
    assert_eq!(kind_and_text(forge(&build_simple(&["a"]), |b| b[16] = 3)).0, ErrorKind::Corrupt);
}

#[test]
fn impossible_lengths_are_named() {
    for len in [-1i32, 0, 48, i32::MIN] {
        let mut batch = build_simple(&["a"]).to_vec();
        batch[8..12].copy_from_slice(&len.to_be_bytes());
        let error = decode_all(batch.into(), LIMIT).1.unwrap().to_string();
        assert!(error.contains("impossible length"), "{error}");
    }
    let error = decode_all(forge(&build_simple(&["a"]), |b| b[23] = 0xff), LIMIT).1.unwrap().to_string();
    assert!(error.contains("last offset delta"), "{error}");
}

#[test]
fn a_detached_record_releases_its_batch() {
    let batch = build_simple(&["aaaa", "bbbb"]);
    let (decoded, mut records) = decode_one(batch.clone());
    let kept = records.remove(0).detach();
    drop((decoded, records));
    assert!(batch.try_into_mut().is_ok(), "nothing else holds the buffer");
    assert_eq!(kept.value.as_deref(), Some(&b"aaaa"[..]));
}
