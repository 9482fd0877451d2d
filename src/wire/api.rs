//! The table of Kafka APIs we speak, and the one adapter between kafka-protocol's messages and rskafka's `Messenger`.

use std::io::Cursor;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rskafka::protocol::api_key::ApiKey as Key;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::messages::{
    ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
};
use rskafka::protocol::primitives::Int16;
use rskafka::protocol::traits::{ReadError, WriteError};

use super::produce::{Insert, Produce};
use super::schema::{self, Field};
use super::stream::Control;

type Malformed = Box<dyn std::error::Error + Send + Sync>;

/// What can be written in a version.
pub(crate) trait Message {
    /// Appends it to the frame, and tells what has to be put into that on the way to the socket.
    fn write(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed>;
}

impl<T: Encodable> Message for T {
    fn write(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed> {
        frame.reserve_exact(self.compute_size(version)?);
        self.encode(frame, version)?;
        Ok(Vec::new())
    }
}

impl Message for Produce {
    fn write(&self, frame: &mut Vec<u8>, version: i16) -> Result<Vec<Insert>, Malformed> {
        Ok(self.encode(frame, version))
    }
}

/// A request we can send.
pub(crate) trait Api: Message + Clone + Send + Sync + 'static {
    type Response: Decodable + Send + 'static;
    const NAME: &'static str;
    const KEY: Key;
    /// The versions in which the request has one shape for us: it is built before the version is chosen.
    const VERSIONS: (i16, i16);
    /// The first version with tagged fields.
    const FLEXIBLE: i16;
    const RESPONSE: &'static [Field];
}

/// What a line of the table says of an answer.
#[cfg(any(test, fuzzing))]
pub(super) struct Line {
    pub(super) fields: &'static [Field],
    pub(super) versions: (i16, i16),
    pub(super) flexible: i16,
    pub(super) decode: fn(&[u8], i16),
}

/// rskafka's name of an API, or its number where it has none.
macro_rules! key {
    ($name:ident) => {
        Key::$name
    };
    ($name:ident $key:literal) => {
        Key::Unknown(Int16($key))
    };
}

macro_rules! table {
    ($($name:ident $($key:literal)? $request:ident $response:ident $min:literal..=$max:literal, flexible from $flexible:literal;)*) => {
        $(impl Api for $request {
            type Response = $response;
            const NAME: &'static str = stringify!($name);
            const KEY: Key = key!($name $($key)?);
            const VERSIONS: (i16, i16) = ($min, $max);
            const FLEXIBLE: i16 = $flexible;
            const RESPONSE: &'static [Field] = schema::$name;
        })*

        /// Key, name and versions of each line.
        pub(crate) const SPOKEN: &[(i16, &str, (i16, i16))] =
            &[$((ApiKey::$name as i16, stringify!($name), ($min, $max)),)*];

        /// Calls `f` with each line.
        #[cfg(any(test, fuzzing))]
        pub(super) fn each(mut f: impl FnMut(Line)) {
            $(f(Line {
                fields: $request::RESPONSE,
                versions: $request::VERSIONS,
                flexible: $request::FLEXIBLE,
                decode: |body, version| {
                    _ = $response::decode(&mut Bytes::copy_from_slice(body), version);
                },
            });)*
        }
    };
}

// The range is what both sides must share: wide enough for Redpanda 24.3 and Kafka 4, narrow enough for one request shape.
// SaslHandshake is never flexible; its version 0 has exchanges without frames. Produce stops at 9 and Fetch at 12 because later versions name topics by id or carry arrays in tagged fields.
table! {
    Produce Produce ProduceResponse 3..=9, flexible from 9;
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
    InitProducerId InitProducerIdRequest InitProducerIdResponse 0..=4, flexible from 2;
    ApiVersions ApiVersionsRequest ApiVersionsResponse 0..=4, flexible from 3;
    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse 1..=1, flexible from 32767;
    SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse 0..=2, flexible from 2;
    ConsumerGroupHeartbeat 68 ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse 0..=1, flexible from 0;
    ConsumerGroupDescribe 69 ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse 0..=1, flexible from 0;
}

/// Asks for a broker's versions; newer ones want to know who asks.
pub(crate) fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str(env!("CARGO_PKG_NAME")))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

/// A request on its way into the messenger's buffer, and to the connection's stream.
pub(super) struct Body<T> {
    pub(super) message: T,
    pub(super) control: Arc<Control>,
}

/// A response out of the messenger's buffer.
pub(super) struct Reply<T: Api>(pub(super) T::Response);

const fn version(v: i16) -> ApiVersion {
    ApiVersion(Int16(v))
}

impl<T: Api> RequestBody for Body<T> {
    type ResponseBody = Reply<T>;
    const API_KEY: Key = T::KEY;
    const API_VERSION_RANGE: ApiVersionRange = ApiVersionRange::new(version(T::VERSIONS.0), version(T::VERSIONS.1));
    const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = version(T::FLEXIBLE);
    /// Whoever asks for ApiVersions does not know yet which header it will understand: its answer has the oldest one.
    const FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION: ApiVersion =
        version(if matches!(T::KEY, Key::ApiVersions) { i16::MAX } else { T::FLEXIBLE });
}

impl<T: Api> WriteVersionedType<Vec<u8>> for Body<T> {
    fn write_versioned(&self, writer: &mut Vec<u8>, version: ApiVersion) -> Result<(), WriteVersionedError> {
        let inserts = self.message.write(writer, version.0.0).map_err(WriteError::Malformed)?;
        self.control.give(writer, inserts);
        Ok(())
    }
}

impl<T: Api> ReadVersionedType<Cursor<Vec<u8>>> for Reply<T> {
    fn read_versioned(reader: &mut Cursor<Vec<u8>>, version: ApiVersion) -> Result<Self, ReadVersionedError> {
        let malformed = |e: Malformed| ReadError::Malformed(e);
        // The messenger's whole buffer becomes the response's: fetched records stay where they are. With the buffer gone and
        // the position at 0 its check for unread bytes still holds; ours is the decoder's rest below.
        let position = reader.position() as usize;
        let mut frame = Bytes::from(std::mem::take(reader.get_mut()));
        reader.set_position(0);
        frame.advance(position.min(frame.len()));
        let version = version.0.0;
        schema::check(&frame, T::RESPONSE, version, version >= T::FLEXIBLE).map_err(|e| malformed(e.into()))?;
        let response = T::Response::decode(&mut frame, version).map_err(|e| malformed(e.into()))?;
        Ok(Self(response))
    }
}
