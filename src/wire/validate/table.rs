//! The fields of each API's response, in the order of the wire.
#![allow(non_upper_case_globals)]

use super::{Field, FieldKind};

const fn field(kind: FieldKind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}
const BOOL: Field = field(FieldKind::Fixed(1));
const I8: Field = field(FieldKind::Fixed(1));
const I16: Field = field(FieldKind::Fixed(2));
const I32: Field = field(FieldKind::Fixed(4));
const I64: Field = field(FieldKind::Fixed(8));
const UUID: Field = field(FieldKind::Fixed(16));
const STR: Field = field(FieldKind::Str);
const BYTES: Field = field(FieldKind::Bytes);
const fn array(of: &'static [Field]) -> Field {
    field(FieldKind::Array(of))
}
const fn nullable(of: &'static [Field]) -> Field {
    field(FieldKind::Nullable(of))
}
const fn tagged(tag: usize, of: &'static [Field]) -> Field {
    field(FieldKind::Tagged(tag, of))
}
const fn tagged_array(tag: usize, of: &'static [Field]) -> Field {
    field(FieldKind::TaggedArray(tag, of))
}
const fn since(version: i16, f: Field) -> Field {
    Field { since: version, ..f }
}
const fn until(version: i16, f: Field) -> Field {
    Field { until: version, ..f }
}
/// An array of plain values: numbers and strings have no tagged fields.
const I32_ARRAY: Field = array(&[I32]);

pub(crate) const Produce: &[Field] = &[
    array(&[
        STR,
        array(&[
            I32,
            I16,
            I64,
            since(2, I64),
            since(5, I64),
            since(8, array(&[I32, STR])),
            since(8, STR),
            since(10, tagged(0, &[I32, I32])),
        ]),
    ]),
    since(1, I32),
    since(10, tagged_array(0, &[I32, STR, I32, STR])),
];
pub(crate) const Fetch: &[Field] = &[
    since(1, I32),
    since(7, I16),
    since(7, I32),
    array(&[
        STR,
        array(&[
            I32,
            I16,
            I64,
            since(4, I64),
            since(5, I64),
            since(4, array(&[I64, I64])),
            since(11, I32),
            BYTES,
            tagged(0, &[I32, I64]),
            tagged(1, &[I32, I32]),
            tagged(2, &[I64, I32]),
        ]),
    ]),
];
pub(crate) const ListOffsets: &[Field] =
    &[since(2, I32), array(&[STR, array(&[I32, I16, since(1, I64), since(1, I64), since(4, I32)])])];
pub(crate) const Metadata: &[Field] = &[
    since(3, I32),
    array(&[I32, STR, I32, since(1, STR)]),
    since(2, STR),
    since(1, I32),
    array(&[
        I16,
        STR,
        since(10, UUID),
        since(1, BOOL),
        array(&[I16, I32, I32, since(7, I32), I32_ARRAY, I32_ARRAY, since(5, I32_ARRAY)]),
        since(8, I32),
    ]),
    since(8, until(10, I32)),
];
pub(crate) const OffsetCommit: &[Field] = &[since(3, I32), array(&[STR, array(&[I32, I16])])];
pub(crate) const OffsetFetch: &[Field] =
    &[since(3, I32), array(&[STR, array(&[I32, I64, since(5, I32), STR, I16])]), since(2, I16)];
pub(crate) const FindCoordinator: &[Field] = &[since(1, I32), I16, since(1, STR), I32, STR, I32];
pub(crate) const JoinGroup: &[Field] =
    &[since(2, I32), I16, I32, since(7, STR), STR, STR, since(9, BOOL), STR, array(&[STR, since(5, STR), BYTES])];
pub(crate) const SaslHandshake: &[Field] = &[I16, array(&[STR])];
pub(crate) const SaslAuthenticate: &[Field] = &[I16, STR, BYTES, since(1, I64)];
pub(crate) const Heartbeat: &[Field] = &[since(1, I32), I16];
pub(crate) const LeaveGroup: &[Field] = &[since(1, I32), I16, since(3, array(&[STR, STR, I16]))];
pub(crate) const SyncGroup: &[Field] = &[since(1, I32), I16, since(5, STR), since(5, STR), BYTES];
pub(crate) const DescribeGroups: &[Field] = &[
    since(1, I32),
    array(&[I16, STR, STR, STR, STR, array(&[STR, since(4, STR), STR, STR, BYTES, BYTES]), since(3, I32)]),
];
pub(crate) const ListGroups: &[Field] = &[since(1, I32), I16, array(&[STR, STR, since(4, STR), since(5, STR)])];
pub(crate) const CreateTopics: &[Field] = &[
    since(2, I32),
    array(&[
        STR,
        since(7, UUID),
        I16,
        since(1, STR),
        since(5, I32),
        since(5, I16),
        since(5, array(&[STR, STR, BOOL, I8, BOOL])),
        tagged(0, &[I16]),
    ]),
];
pub(crate) const DeleteTopics: &[Field] = &[since(1, I32), array(&[STR, I16, since(5, STR)])];
pub(crate) const DeleteRecords: &[Field] = &[I32, array(&[STR, array(&[I32, I64, I16])])];
pub(crate) const DeleteGroups: &[Field] = &[I32, array(&[STR, I16])];
pub(crate) const DescribeAcls: &[Field] = &[I32, I16, STR, array(&[I8, STR, I8, array(&[STR, STR, I8, I8])])];
pub(crate) const CreateAcls: &[Field] = &[I32, array(&[I16, STR])];
pub(crate) const DeleteAcls: &[Field] = &[I32, array(&[I16, STR, array(&[I16, STR, I8, STR, I8, STR, STR, I8, I8])])];
const CONFIG: &[Field] = &[STR, STR, BOOL, I8, BOOL, array(&[STR, STR, I8]), since(3, I8), since(3, STR)];
pub(crate) const DescribeConfigs: &[Field] = &[I32, array(&[I16, STR, I8, STR, array(CONFIG)])];
pub(crate) const IncrementalAlterConfigs: &[Field] = &[I32, array(&[I16, STR, I8, STR])];
const LOGS: Field = array(&[STR, array(&[I32, I64, I64, BOOL])]);
pub(crate) const DescribeLogDirs: &[Field] =
    &[I32, since(3, I16), array(&[I16, STR, LOGS, since(4, I64), since(4, I64)])];
pub(crate) const OffsetDelete: &[Field] = &[I16, I32, array(&[STR, array(&[I32, I16])])];
pub(crate) const CreatePartitions: &[Field] = &[I32, array(&[STR, I16, STR])];
pub(crate) const OffsetForLeaderEpoch: &[Field] = &[I32, array(&[STR, array(&[I16, I32, I32, I64])])];
pub(crate) const InitProducerId: &[Field] = &[I32, I16, I64, I16];
pub(crate) const WriteTxnMarkers: &[Field] = &[array(&[I64, array(&[STR, array(&[I32, I16])])])];
const PRODUCER: &[Field] = &[I64, I32, I32, I64, I32, I64];
pub(crate) const DescribeProducers: &[Field] = &[I32, array(&[STR, array(&[I32, I16, STR, array(PRODUCER)])])];
pub(crate) const DescribeTransactions: &[Field] =
    &[I32, array(&[I16, STR, STR, I32, I64, I64, I16, array(&[STR, I32_ARRAY])])];
pub(crate) const ListTransactions: &[Field] = &[I32, I16, array(&[STR]), array(&[STR, I64, STR])];
pub(crate) const AddPartitionsToTxn: &[Field] = &[I32, array(&[STR, array(&[I32, I16])])];
pub(crate) const AddOffsetsToTxn: &[Field] = &[I32, I16];
pub(crate) const TxnOffsetCommit: &[Field] = &[I32, array(&[STR, array(&[I32, I16])])];
pub(crate) const EndTxn: &[Field] = &[I32, I16, since(5, I64), since(5, I16)];
const FEATURES: &[Field] = &[STR, I16, I16];
pub(crate) const ApiVersions: &[Field] = &[
    I16,
    array(&[I16, I16, I16]),
    since(1, I32),
    tagged_array(0, FEATURES),
    tagged(1, &[I64]),
    tagged_array(2, FEATURES),
    tagged(3, &[BOOL]),
];
pub(crate) const ConsumerGroupHeartbeat: &[Field] =
    &[I32, I16, STR, STR, I32, I32, nullable(&[array(&[UUID, I32_ARRAY])])];
const ASSIGNMENT: Field = field(FieldKind::Struct(&[array(&[UUID, STR, I32_ARRAY])]));
const MEMBER: &[Field] = &[STR, STR, STR, I32, STR, STR, array(&[STR]), STR, ASSIGNMENT, ASSIGNMENT, since(1, I8)];
pub(crate) const ConsumerGroupDescribe: &[Field] =
    &[I32, array(&[I16, STR, STR, STR, I32, I32, STR, array(MEMBER), I32])];
