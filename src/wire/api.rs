//! The Kafka APIs that the client speaks, and the versions of each.

#[cfg(any(test, fuzzing))]
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rskafka::protocol::api_key::ApiKey as Key;
use rskafka::protocol::primitives::Int16;

use super::produce::{Insert, Produce};
use super::validate::{self, Field};

pub(super) type Malformed = Box<dyn std::error::Error + Send + Sync>;

/// A message that can be encoded in a version.
pub(crate) trait EncodeMessage {
    /// Appends the message to the frame; returns the bytes that the stream inserts into the frame
    /// as it writes it.
    fn encode_into(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed>;
}

impl<T: Encodable> EncodeMessage for T {
    fn encode_into(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed> {
        frame.reserve_exact(self.compute_size(version)?);
        self.encode(frame, version)?;
        Ok(Vec::new())
    }
}

impl EncodeMessage for Produce {
    fn encode_into(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed> {
        Ok(self.encode(frame, version))
    }
}

/// A request of transaction version 2 (KIP-890), in the one version that means it: the brokers of a
/// cluster with version 1 serve that version too, and reject what it leaves out.
#[derive(Debug, Clone)]
pub(crate) struct TransactionV2<R>(pub(crate) R);

impl<R: EncodeMessage> EncodeMessage for TransactionV2<R> {
    fn encode_into(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed> {
        self.0.encode_into(frame, version)
    }
}

pub(crate) trait Api: EncodeMessage + Clone + Send + Sync + 'static {
    type Response: Decodable + Send + 'static;
    const NAME: &'static str;
    const KEY: Key;
    /// Minimum and maximum version. Requests are built before the version is chosen, so all of
    /// these have the same fields.
    const VERSIONS: (i16, i16);
    /// First version with tagged fields.
    const FLEXIBLE: i16;
    const RESPONSE: &'static [Field];
}

#[cfg(any(test, fuzzing))]
pub(super) struct ApiResponse {
    pub(super) fields: &'static [Field],
    pub(super) versions: (i16, i16),
    pub(super) flexible: i16,
    pub(super) decode: fn(&[u8], i16),
}

/// Expands to rskafka's name of an API, or to its number where rskafka has none.
macro_rules! key {
    ($name:ident) => {
        Key::$name
    };
    ($name:ident $key:literal) => {
        Key::Unknown(Int16($key))
    };
}

const fn last(versions: &[i16]) -> i16 {
    versions[versions.len() - 1]
}

macro_rules! table {
    ($($name:ident $($key:literal)? $request:ident $response:ident $min:literal..=$max:literal, flexible from $flexible:literal
       $(, $pinned:literal in transaction version 2)?;)*) => {
        $(impl Api for $request {
            type Response = $response;
            const NAME: &'static str = stringify!($name);
            const KEY: Key = key!($name $($key)?);
            const VERSIONS: (i16, i16) = ($min, $max);
            const FLEXIBLE: i16 = $flexible;
            const RESPONSE: &'static [Field] = validate::$name;
        }
        $(impl Api for TransactionV2<$request> {
            type Response = $response;
            const NAME: &'static str = stringify!($name);
            const KEY: Key = key!($name);
            const VERSIONS: (i16, i16) = ($pinned, $pinned);
            const FLEXIBLE: i16 = $flexible;
            const RESPONSE: &'static [Field] = validate::$name;
        })?)*

        /// Key, name and versions of each API.
        pub(crate) const SUPPORTED_APIS: &[(i16, &str, (i16, i16))] =
            &[$((ApiKey::$name as i16, stringify!($name), ($min, last(&[$max $(, $pinned)?]))),)*];

        /// Calls `f` with the response of each API.
        #[cfg(any(test, fuzzing))]
        pub(super) fn for_each_response(mut f: impl FnMut(ApiResponse)) {
            $(f(ApiResponse {
                fields: $request::RESPONSE,
                versions: ($min, last(&[$max $(, $pinned)?])),
                flexible: $request::FLEXIBLE,
                decode: |body, version| {
                    _ = $response::decode(&mut Bytes::copy_from_slice(body), version);
                },
            });)*
        }
    };
}

// The ranges are wide enough for Redpanda 24.3 and Kafka 4, and narrow enough for one shape of each
// request. SaslHandshake is never flexible; its version 0 has exchanges without frames. Fetch ends
// at 12 because later versions name topics by id, Produce at 12 for the same reason. Later versions
// of AddPartitionsToTxn are for brokers.
table! {
    Produce Produce ProduceResponse 3..=11, flexible from 9, 12 in transaction version 2;
    Fetch FetchRequest FetchResponse 4..=12, flexible from 12;
    ListOffsets ListOffsetsRequest ListOffsetsResponse 1..=7, flexible from 6;
    Metadata MetadataRequest MetadataResponse 4..=12, flexible from 9;
    OffsetCommit OffsetCommitRequest OffsetCommitResponse 2..=9, flexible from 8;
    OffsetFetch OffsetFetchRequest OffsetFetchResponse 1..=7, flexible from 6;
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse 1..=3, flexible from 3;
    JoinGroup JoinGroupRequest JoinGroupResponse 2..=9, flexible from 6;
    Heartbeat HeartbeatRequest HeartbeatResponse 0..=4, flexible from 4;
    LeaveGroup LeaveGroupRequest LeaveGroupResponse 3..=5, flexible from 4;
    SyncGroup SyncGroupRequest SyncGroupResponse 0..=5, flexible from 4;
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse 0..=5, flexible from 5;
    ListGroups ListGroupsRequest ListGroupsResponse 0..=5, flexible from 3;
    CreateTopics CreateTopicsRequest CreateTopicsResponse 2..=6, flexible from 5;
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse 1..=5, flexible from 4;
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse 0..=2, flexible from 2;
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse 0..=2, flexible from 2;
    DescribeAcls DescribeAclsRequest DescribeAclsResponse 1..=3, flexible from 2;
    CreateAcls CreateAclsRequest CreateAclsResponse 1..=3, flexible from 2;
    DeleteAcls DeleteAclsRequest DeleteAclsResponse 1..=3, flexible from 2;
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse 1..=4, flexible from 4;
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse 0..=1, flexible from 1;
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse 1..=4, flexible from 2;
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse 0..=0, flexible from 1;
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse 0..=3, flexible from 2;
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse 2..=4, flexible from 4;
    InitProducerId InitProducerIdRequest InitProducerIdResponse 0..=5, flexible from 2;
    AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse 0..=3, flexible from 3;
    AddOffsetsToTxn AddOffsetsToTxnRequest AddOffsetsToTxnResponse 0..=4, flexible from 3;
    TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse 3..=4, flexible from 3, 5 in transaction version 2;
    EndTxn EndTxnRequest EndTxnResponse 0..=4, flexible from 3, 5 in transaction version 2;
    WriteTxnMarkers WriteTxnMarkersRequest WriteTxnMarkersResponse 1..=1, flexible from 1;
    DescribeProducers DescribeProducersRequest DescribeProducersResponse 0..=0, flexible from 0;
    DescribeTransactions DescribeTransactionsRequest DescribeTransactionsResponse 0..=0, flexible from 0;
    ListTransactions ListTransactionsRequest ListTransactionsResponse 0..=2, flexible from 0;
    ApiVersions ApiVersionsRequest ApiVersionsResponse 0..=4, flexible from 3;
    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse 1..=1, flexible from 32767;
    SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse 0..=2, flexible from 2;
    ConsumerGroupHeartbeat 68 ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse 0..=1, flexible from 0;
    ConsumerGroupDescribe 69 ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse 0..=1, flexible from 0;
}

/// Returns a request for the versions that a broker serves, with the name and version of this
/// client.
pub(crate) fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str(env!("CARGO_PKG_NAME")))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}
