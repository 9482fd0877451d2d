#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ailurus_test_support::raw_client::batch::BatchBuilder;
use kafka_protocol::records::{self, RecordBatchDecoder, RecordSet};
use proptest::prelude::*;

use super::*;

fn read_all(batch: &Bytes) -> Vec<Record> {
    let header = Header::read(batch).unwrap();
    assert!(header.is_intact(batch));
    Records::new(decompress(&header, batch).unwrap().unwrap()).map(Result::unwrap).collect()
}

fn decoded(batch: &Bytes) -> Vec<records::Record> {
    let set: RecordSet = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
    set.records
}

#[test]
fn decodes_batches_of_kafka_protocol() {
    for builder in [BatchBuilder::new(&[5, 3, 9]), BatchBuilder::new(&[5, 3, 9]).gzip()] {
        let read = read_all(&builder.make());
        let header = Header::read(&builder.make()).unwrap();
        assert_eq!(read.len(), 3);
        for (read, sent) in read.iter().zip(builder.records()) {
            assert_eq!((&read.key, &read.value), (&sent.key, &sent.value));
            assert_eq!(i64::from(read.offset_delta), sent.offset);
            assert_eq!(header.base_timestamp + read.timestamp_delta, sent.timestamp);
            assert_eq!(read.headers[0], (Bytes::from_static(b"h"), Some(Bytes::from_static(b"x"))));
            assert_eq!(read.headers[1], (Bytes::from_static(b"null"), None));
        }
    }
}

#[test]
fn kafka_protocol_decodes_built_batches() {
    let batch = BatchBuilder::new(&[5, 3, 9]).make();
    let header = Header::read(&batch).unwrap();
    let kept: Vec<Bytes> = read_all(&batch).into_iter().filter(|r| r.offset_delta != 1).map(|r| r.raw).collect();
    let rebuilt = build(&header, kept).freeze();
    let offsets: Vec<i64> = decoded(&rebuilt).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 2]);
}

#[test]
fn control_batch_has_one_control_record() {
    let marker = EndMarker {
        producer_id: 7,
        producer_epoch: 3,
        coordinator_epoch: 2,
        commit: true,
        has_new_epoch: false,
        timestamp: 99,
    };
    let batch = control(&marker).freeze();
    let records = decoded(&batch);
    assert_eq!(records.len(), 1);
    assert!(records[0].control && records[0].transactional);
    assert_eq!((records[0].producer_id, records[0].timestamp), (7, 99));
    assert_eq!(records[0].key, Some(Bytes::from_static(&[0, 0, 0, 1])));
}

#[test]
fn empty_batch_has_offsets_but_no_records() {
    let batch = empty(3, 99).freeze();
    let header = Header::read(&batch).unwrap();
    assert_eq!((header.last_offset_delta, header.count, read_all(&batch).len()), (2, 0, 0));
}

#[test]
fn reading_stops_at_a_record_longer_than_its_batch() {
    let mut records = Records::new(Bytes::from_static(&[40, 0, 0]));
    assert!(records.next().unwrap().is_err());
    assert!(records.next().is_none());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Some(header) = Header::read(&bytes) {
            let _ = header.is_intact(&bytes);
            let _ = decompress(&header, &bytes);
        }
        prop_assert!(Records::new(bytes.clone()).count() <= bytes.len());
    }

    #[test]
    fn varints_round_trip(value in any::<i64>()) {
        let mut out = BytesMut::new();
        put_varint(&mut out, value);
        prop_assert_eq!(varint(&mut out.freeze()), Some(value));
    }
}
