//! Record batches, encoded by kafka-protocol.

use bytes::{Bytes, BytesMut};
use flate2::read::GzEncoder;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use std::io::Read;

/// Builds a batch of records with these timestamps: `k0`/`v0`, `k1`/`v1` and so on.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    pub timestamps: Vec<i64>,
    pub producer: (i64, i16, i32),
    pub gzip: bool,
    pub control: bool,
    pub transactional: bool,
}

impl BatchBuilder {
    pub fn new(timestamps: &[i64]) -> Self {
        Self {
            timestamps: timestamps.to_vec(),
            producer: (-1, -1, -1),
            gzip: false,
            control: false,
            transactional: false,
        }
    }

    /// Sets producer id, epoch and base sequence.
    pub fn by(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.producer = (id, epoch, sequence);
        self
    }

    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    pub fn records(&self) -> Vec<Record> {
        let (producer_id, producer_epoch, first) = self.producer;
        let record = |(i, &timestamp): (usize, &i64)| Record {
            transactional: self.transactional,
            control: self.control,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            sequence: first.wrapping_add(i as i32),
            timestamp,
            key: Some(Bytes::from(format!("k{i}"))),
            value: Some(Bytes::from(format!("v{i}"))),
            headers: [("h".into(), Some(Bytes::from_static(b"x"))), ("null".into(), None)].into_iter().collect(),
        };
        self.timestamps.iter().enumerate().map(record).collect()
    }

    pub fn make(&self) -> Bytes {
        encode(&self.records(), self.gzip)
    }
}

pub fn encode(records: &[Record], gzip: bool) -> Bytes {
    let compression = if gzip { Compression::Gzip } else { Compression::None };
    let compress = |plain: &mut BytesMut, out: &mut BytesMut, codec: Compression| {
        if codec == Compression::None {
            out.extend_from_slice(plain);
            return Ok(());
        }
        let mut packed = Vec::new();
        GzEncoder::new(&plain[..], flate2::Compression::fast()).read_to_end(&mut packed)?;
        out.extend_from_slice(&packed);
        Ok(())
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode_with_custom_compression(&mut out, records, &options, Some(compress)).unwrap();
    out.freeze()
}

/// Writes the checksum after a test has changed the batch.
pub fn write_checksum(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}
