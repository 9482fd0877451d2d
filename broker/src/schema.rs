//! Checks the structure of a request before it is decoded.
//!
//! kafka-protocol reserves memory for as many elements as an array claims, and 2^31 of them abort
//! the process. So each request is walked first, by a table of its fields, and every length is
//! checked against the bytes left.

use kafka_protocol::messages::ApiKey;

/// Kind of a field and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    kind: Kind,
    since: i16,
    until: i16,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A fixed number of bytes.
    Fixed(usize),
    /// String; null is allowed, the decoder checks it.
    Str,
    /// Bytes with a 4-byte (or compact) length, records among them.
    Bytes,
    /// Array of structures, each with tagged fields; null is allowed.
    Array(&'static [Field]),
    /// Array of plain values.
    Values(&'static Field),
}

const fn field(kind: Kind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}
const BOOL: Field = field(Kind::Fixed(1));
const I8: Field = field(Kind::Fixed(1));
const I16: Field = field(Kind::Fixed(2));
const I32: Field = field(Kind::Fixed(4));
const I64: Field = field(Kind::Fixed(8));
const UUID: Field = field(Kind::Fixed(16));
const STR: Field = field(Kind::Str);
const BYTES: Field = field(Kind::Bytes);
const I32S: Field = field(Kind::Values(&I32));
const STRS: Field = field(Kind::Values(&STR));
const fn array(of: &'static [Field]) -> Field {
    field(Kind::Array(of))
}
const fn since(version: i16, f: Field) -> Field {
    Field { since: version, ..f }
}
const fn until(version: i16, f: Field) -> Field {
    Field { until: version, ..f }
}

// Fields of each request, in the decoder's order. A test compares them with the decoder.
const PRODUCE: &[Field] = &[STR, I16, I32, array(&[until(12, STR), since(13, UUID), array(&[I32, BYTES])])];
const FETCH: &[Field] = &[
    until(14, I32),
    I32,
    I32,
    I32,
    I8,
    since(7, I32),
    since(7, I32),
    array(&[until(12, STR), since(13, UUID), array(&[I32, since(9, I32), I64, since(12, I32), since(5, I64), I32])]),
    since(7, array(&[until(12, STR), since(13, UUID), I32S])),
    since(11, STR),
];
const LIST_OFFSETS: &[Field] = &[I32, since(2, I8), array(&[STR, array(&[I32, since(4, I32), I64])]), since(10, I32)];
const METADATA: &[Field] = &[array(&[since(10, UUID), STR]), since(4, BOOL), until(10, since(8, BOOL)), since(8, BOOL)];
const OFFSET_COMMIT: &[Field] =
    &[STR, I32, STR, since(7, STR), until(4, I64), array(&[STR, array(&[I32, I64, since(6, I32), STR])])];
const OFFSET_FETCH: &[Field] = &[
    until(7, STR),
    until(7, array(&[STR, I32S])),
    since(8, array(&[STR, since(9, STR), since(9, I32), array(&[STR, I32S])])),
    since(7, BOOL),
];
const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[since(3, I32), array(&[STR, array(&[I32, I32, I32])])];
const FIND_COORDINATOR: &[Field] = &[until(3, STR), since(1, I8), since(4, STRS)];
const JOIN_GROUP: &[Field] = &[STR, I32, since(1, I32), STR, since(5, STR), STR, array(&[STR, BYTES]), since(8, STR)];
const HEARTBEAT: &[Field] = &[STR, I32, STR, since(3, STR)];
const LEAVE_GROUP: &[Field] = &[STR, until(2, STR), since(3, array(&[STR, STR, since(5, STR)]))];
const SYNC_GROUP: &[Field] = &[STR, I32, STR, since(3, STR), since(5, STR), since(5, STR), array(&[STR, BYTES])];
const DESCRIBE_GROUPS: &[Field] = &[STRS, since(3, BOOL)];
const LIST_GROUPS: &[Field] = &[since(4, STRS), since(5, STRS)];
const API_VERSIONS: &[Field] = &[since(3, STR), since(3, STR)];
const CREATE_TOPICS: &[Field] = &[array(&[STR, I32, I16, array(&[I32, I32S]), array(&[STR, STR])]), I32, BOOL];
const DELETE_TOPICS: &[Field] = &[since(6, array(&[STR, UUID])), until(5, STRS), I32];
const DELETE_RECORDS: &[Field] = &[array(&[STR, array(&[I32, I64])]), I32];
const INIT_PRODUCER_ID: &[Field] = &[STR, I32, since(3, I64), since(3, I16)];
const DESCRIBE_ACLS: &[Field] = &[I8, STR, I8, STR, STR, I8, I8];
const CREATE_ACLS: &[Field] = &[array(&[I8, STR, I8, STR, STR, I8, I8])];
const DELETE_ACLS: &[Field] = &[array(&[I8, STR, I8, STR, STR, I8, I8])];
const DESCRIBE_CONFIGS: &[Field] = &[array(&[I8, STR, STRS]), BOOL, since(3, BOOL)];
const DESCRIBE_LOG_DIRS: &[Field] = &[array(&[STR, I32S])];
const CREATE_PARTITIONS: &[Field] = &[array(&[STR, I32, array(&[I32S])]), I32, BOOL];
const DELETE_GROUPS: &[Field] = &[STRS];
const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[array(&[I8, STR, array(&[STR, I8, STR])]), BOOL];
const OFFSET_DELETE: &[Field] = &[STR, array(&[STR, array(&[I32])])];
const DESCRIBE_CLUSTER: &[Field] = &[BOOL, since(1, I8), since(2, BOOL)];
const CONSUMER_GROUP_HEARTBEAT: &[Field] =
    &[STR, STR, I32, STR, STR, I32, STRS, since(1, STR), STR, array(&[UUID, I32S])];
const CONSUMER_GROUP_DESCRIBE: &[Field] = &[STRS, BOOL];
const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    since(4, array(&[STR, I64, I16, BOOL, array(&[STR, I32S])])),
    until(3, STR),
    until(3, I64),
    until(3, I16),
    until(3, array(&[STR, I32S])),
];
const ADD_OFFSETS_TO_TXN: &[Field] = &[STR, I64, I16, STR];
const END_TXN: &[Field] = &[STR, I64, I16, BOOL];
const TXN_OFFSET_COMMIT: &[Field] = &[
    STR,
    STR,
    I64,
    I16,
    since(3, I32),
    since(3, STR),
    since(3, STR),
    array(&[STR, array(&[I32, I64, since(2, I32), STR])]),
];
const LIST_TRANSACTIONS: &[Field] = &[STRS, field(Kind::Values(&I64)), since(1, I64), since(2, STR)];
const DESCRIBE_TRANSACTIONS: &[Field] = &[STRS];
const DESCRIBE_PRODUCERS: &[Field] = &[array(&[STR, I32S])];
const WRITE_TXN_MARKERS: &[Field] = &[array(&[I64, I16, BOOL, array(&[STR, I32S]), I32])];
const SASL_HANDSHAKE: &[Field] = &[STR];
const SASL_AUTHENTICATE: &[Field] = &[BYTES];

/// Returns the fields of a request, without tagged ones: no decoder reads an array there.
pub(crate) fn fields(api: ApiKey) -> Option<&'static [Field]> {
    Some(match api {
        ApiKey::Produce => PRODUCE,
        ApiKey::Fetch => FETCH,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::DeleteRecords => DELETE_RECORDS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::DescribeAcls => DESCRIBE_ACLS,
        ApiKey::CreateAcls => CREATE_ACLS,
        ApiKey::DeleteAcls => DELETE_ACLS,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::DescribeLogDirs => DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS,
        ApiKey::OffsetDelete => OFFSET_DELETE,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        ApiKey::ConsumerGroupHeartbeat => CONSUMER_GROUP_HEARTBEAT,
        ApiKey::ConsumerGroupDescribe => CONSUMER_GROUP_DESCRIBE,
        ApiKey::AddPartitionsToTxn => ADD_PARTITIONS_TO_TXN,
        ApiKey::AddOffsetsToTxn => ADD_OFFSETS_TO_TXN,
        ApiKey::EndTxn => END_TXN,
        ApiKey::TxnOffsetCommit => TXN_OFFSET_COMMIT,
        ApiKey::ListTransactions => LIST_TRANSACTIONS,
        ApiKey::DescribeTransactions => DESCRIBE_TRANSACTIONS,
        ApiKey::DescribeProducers => DESCRIBE_PRODUCERS,
        ApiKey::WriteTxnMarkers => WRITE_TXN_MARKERS,
        ApiKey::SaslHandshake => SASL_HANDSHAKE,
        ApiKey::SaslAuthenticate => SASL_AUTHENTICATE,
        _ => return None,
    })
}

/// Checks that every length in a request body is covered by bytes. `flexible`: lengths are compact
/// and tagged fields follow.
pub(crate) fn check(body: &[u8], fields: &[Field], version: i16, flexible: bool) -> Result<(), String> {
    Reader { body, at: 0, version, flexible }.structure(fields)
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
}

impl Reader<'_> {
    fn error(&self, what: &str) -> String {
        format!("{what}, at byte {} of {}", self.at, self.body.len())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        match self.at.checked_add(n).and_then(|end| self.body.get(self.at..end)) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => Err(self.error("the request ends too early")),
        }
    }

    fn varint(&mut self) -> Result<usize, String> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let value = u32::try_from(value).ok().and_then(|v| usize::try_from(v).ok());
                return value.ok_or_else(|| self.error("a length is too large"));
            }
        }
        Err(self.error("a length has too many bytes"))
    }

    /// Reads the length of a string, bytes or an array; null counts as 0.
    fn length(&mut self, short: bool) -> Result<usize, String> {
        if self.flexible {
            return Ok(self.varint()?.saturating_sub(1));
        }
        let bytes = self.take(if short { 2 } else { 4 })?;
        let n = bytes.iter().fold(if bytes[0] >= 0x80 { -1_i64 } else { 0 }, |n, byte| n << 8 | i64::from(*byte));
        match n {
            -1 => Ok(0),
            n => usize::try_from(n).map_err(|_| self.error("a length is negative")),
        }
    }

    /// Checks a structure: its fields and the tagged fields after them.
    fn structure(&mut self, fields: &[Field]) -> Result<(), String> {
        let version = self.version;
        for f in fields.iter().filter(|f| (f.since..=f.until).contains(&version)) {
            self.value(f)?;
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.take(size)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, f: &Field) -> Result<(), String> {
        match f.kind {
            Kind::Fixed(n) => drop(self.take(n)?),
            Kind::Str | Kind::Bytes => {
                let n = self.length(matches!(f.kind, Kind::Str))?;
                self.take(n)?;
            }
            Kind::Array(of) => {
                for _ in 0..self.count()? {
                    self.structure(of)?;
                }
            }
            Kind::Values(of) => {
                for _ in 0..self.count()? {
                    self.value(of)?;
                }
            }
        }
        Ok(())
    }

    /// Reads an array's length. Each element takes a byte at least, so a claim beyond that is
    /// rejected here.
    fn count(&mut self) -> Result<usize, String> {
        let n = self.length(false)?;
        if n > self.body.len() - self.at {
            return Err(self.error("an array claims to be longer than the request"));
        }
        Ok(n)
    }
}

/// Random well-formed request bodies.
#[cfg(test)]
pub(crate) mod sample {
    use super::{Field, Kind};

    /// Random numbers (SplitMix64).
    #[derive(Debug)]
    pub struct Rng(pub u64);

    impl Rng {
        pub fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        }

        pub fn byte(&mut self) -> u8 {
            self.below(256) as u8
        }
    }

    /// Names that the broker under test may know: topic, group, setting, protocol.
    const NAMES: [&str; 6] = ["t", "g", "", "t.dlq", "retention.ms", "consumer"];

    pub fn body(fields: &[Field], version: i16, flexible: bool, rng: &mut Rng, batch: &[u8]) -> Vec<u8> {
        let mut writer = SampleWriter { out: Vec::new(), version, flexible, rng, batch };
        writer.structure(fields);
        writer.out
    }

    struct SampleWriter<'a> {
        out: Vec<u8>,
        version: i16,
        flexible: bool,
        rng: &'a mut Rng,
        batch: &'a [u8],
    }

    impl SampleWriter<'_> {
        fn varint(&mut self, mut value: usize) {
            while value >= 0x80 {
                self.out.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.out.push(value as u8);
        }

        fn length(&mut self, n: usize, short: bool) {
            if self.flexible {
                self.varint(n + 1);
            } else if short {
                self.out.extend((n as u16).to_be_bytes());
            } else {
                self.out.extend((n as u32).to_be_bytes());
            }
        }

        fn structure(&mut self, fields: &[Field]) {
            let version = self.version;
            fields.iter().filter(|f| (f.since..=f.until).contains(&version)).for_each(|f| self.value(f));
            if self.flexible {
                self.out.push(0);
            }
        }

        fn value(&mut self, f: &Field) {
            match f.kind {
                Kind::Fixed(n) => {
                    // Small numbers and -1 have a meaning more often than others.
                    let kind = self.rng.below(4);
                    for i in 0..n {
                        let byte = self.rng.byte();
                        self.out.push(match kind {
                            0 => 0,
                            1 if i + 1 == n => byte % 4,
                            1 => 0,
                            2 => 0xff,
                            _ => byte,
                        });
                    }
                }
                Kind::Str => {
                    let name = NAMES[self.rng.below(NAMES.len() as u64) as usize];
                    self.length(name.len(), true);
                    self.out.extend(name.as_bytes());
                }
                Kind::Bytes => {
                    self.length(self.batch.len(), false);
                    self.out.extend(self.batch);
                }
                Kind::Array(of) => {
                    let n = self.rng.below(3);
                    self.length(n as usize, false);
                    (0..n).for_each(|_| self.structure(of));
                }
                Kind::Values(of) => {
                    let n = self.rng.below(3);
                    self.length(n as usize, false);
                    (0..n).for_each(|_| self.value(of));
                }
            }
        }
    }
}
