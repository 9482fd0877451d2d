//! Fault injection: a hook sees every request before it is served and may inject a fault.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A fault that a [hook](crate::Broker::set_hook) injects into one request.
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
    /// Waits, then serves the request. Later requests of the connection wait too.
    Delay(Duration),
    /// Serves the request at once, and delays the response.
    DelayResponse(Duration),
    /// Closes the connection without serving the request.
    Close,
    /// Closes the connection without a response, and serves the request when the test
    /// [releases](crate::Broker::release_held) it, even if later requests were served meanwhile:
    /// so a delayed packet arrives late.
    ///
    /// Also for the markers of a transaction: the hook sees each as a WriteTxnMarkers request of
    /// client `transaction-coordinator` with one partition, and may `Hold` it, or delay it with
    /// `HoldFor` or `Delay`. Other faults have no effect on markers.
    Hold,
    /// Like [`Hold`](Self::Hold), and serves the request after this time.
    HoldFor(Duration),
    /// Serves the request, then closes the connection without a response: the client cannot
    /// distinguish it from `Close`.
    DropResponse,
    /// Returns this Kafka error code in every place where the response has one, without serving the
    /// request.
    Error(i16),
    /// Returns this Kafka error code for partitions with this index, without serving them, and
    /// serves the others. For Produce, Fetch and ListOffsets; other requests are served.
    PartitionError {
        /// Partition id.
        partition: i32,
        /// Kafka error code.
        code: i16,
    },
    /// Serves the request, then returns this Kafka error code for each appended batch. For Produce;
    /// other requests are served.
    ErrorAfterAppend(i16),
    /// Appends no batch, and returns INVALID_RECORD that names the first record of each and every
    /// `every`-th after it. For Produce; other requests are served.
    RecordErrors {
        /// Distance between two named records; 1 names all, 0 counts as 1.
        every: u32,
    },
}

/// A request as a [hook](crate::Broker::set_hook) sees it: decoded header, undecoded body.
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
    /// Node that received the request.
    pub node: i32,
    /// API key.
    pub api_key: i16,
    /// API version.
    pub version: i16,
    /// Correlation id.
    pub correlation_id: i32,
    /// Client id; empty if there is none.
    pub client_id: &'a str,
    /// Body, after the header.
    pub body: &'a Bytes,
}

/// The hook of a broker.
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
