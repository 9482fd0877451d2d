//! Faults on demand: a hook sees every request before it is served and may spoil it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// What a [hook](crate::Broker::set_hook) does to one request.
///
/// ```
/// use ailurus_broker::{Fault, RequestInfo};
///
/// const PRODUCE: i16 = 0;
/// const NOT_LEADER: i16 = 6;
/// let hook = |request: &RequestInfo<'_>| (request.api_key == PRODUCE).then_some(Fault::Error(NOT_LEADER));
/// # let _ = hook;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Wait, then serve the request: what stands behind it on its connection waits too.
    Delay(Duration),
    /// Serve the request at once, but hold the answer back for this long.
    DelayResponse(Duration),
    /// Close the connection without serving the request.
    Close,
    /// Serve the request, then close the connection in place of an answer: the client cannot tell it from `Close`.
    DropResponse,
    /// Answer with this Kafka error code, in every place where the answer has one, in place of serving the request.
    Error(i16),
    /// Answer with this Kafka error code for the partitions with this index, in place of serving them, and serve the others. Of Produce,
    /// Fetch and ListOffsets requests; others are served.
    PartitionError {
        /// Index of the partition in its topic.
        partition: i32,
        /// The code.
        code: i16,
    },
    /// Serve the request, then answer with this Kafka error code for each batch that was appended. Of Produce requests; others are served.
    ErrorAfterAppend(i16),
    /// Append no batch, and answer with `InvalidRecord` that names the first record of each and every so many-th behind it. Of Produce
    /// requests; others are served.
    RecordErrors {
        /// Distance of two records that are named; 1 names all, 0 counts as 1.
        every: u32,
    },
}

/// One request as a [hook](crate::Broker::set_hook) sees it: decoded header, undecoded body.
///
/// ```
/// use ailurus_broker::RequestInfo;
/// use kafka_protocol::messages::{HeartbeatRequest, ApiKey};
/// use kafka_protocol::protocol::Decodable;
///
/// fn group_of_heartbeat(request: &RequestInfo<'_>) -> Option<String> {
///     if request.api_key != ApiKey::Heartbeat as i16 {
///         return None;
///     }
///     let heartbeat = HeartbeatRequest::decode(&mut request.body.clone(), request.version).ok()?;
///     Some(heartbeat.group_id.to_string())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestInfo<'a> {
    /// The node that the request reached.
    pub node: i32,
    /// The API, by its number in the Kafka protocol guide.
    pub api_key: i16,
    /// The version of the API.
    pub version: i16,
    /// The correlation id.
    pub correlation_id: i32,
    /// The client id; empty if the client sent none.
    pub client_id: &'a str,
    /// The request's body, after the header.
    pub body: &'a Bytes,
}

/// A function that sees every request before it is served.
#[derive(Clone)]
pub(crate) struct Hook(Arc<HookFn>);

type HookFn = dyn Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync;

impl Hook {
    pub(crate) fn new(hook: impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn fault_for(&self, request: &RequestInfo<'_>) -> Option<Fault> {
        (self.0)(request)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
