//! Faults by name: what happens to which requests, and how often.
//!
//! A function of this module names what happens; the methods of [`Fault`] choose the requests and
//! how often. [`TestCluster::inject`](crate::TestCluster::inject) makes it happen.
//!
//! ```
//! use std::time::Duration;
//! use ailurus_testing::{Api, fault};
//!
//! let _ = fault::not_leader().times(3); // of each Produce, Fetch and ListOffsets: the next three
//! let _ = fault::drop_response().on(Api::OffsetCommit); // the next one
//! let _ = fault::delay(Duration::from_secs(5)).on(Api::Fetch).node(1).always();
//! let _ = fault::close_connection().client("billing-2").chance(0.1); // of each request, by the seed
//! ```

use std::time::Duration;

pub(crate) use ailurus_broker::Fault as Effect;

macro_rules! apis {
    ($($name:ident = $key:literal),* $(,)?) => {
        /// A kind of request, by Kafka's name.
        ///
        /// ```
        /// use ailurus_testing::Api;
        ///
        /// assert_eq!(Api::OffsetCommit.key(), 8);
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Api {
            $(#[doc = concat!("API key ", stringify!($key), ".")] $name,)*
        }

        impl Api {
            /// Returns the API key.
            pub const fn key(self) -> i16 {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

apis! {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    SaslHandshake = 17,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    WriteTxnMarkers = 27,
    TxnOffsetCommit = 28,
    DescribeConfigs = 32,
    SaslAuthenticate = 36,
    CreatePartitions = 37,
    ConsumerGroupHeartbeat = 68,
}

/// Requests of members to their coordinator.
const GROUP_APIS: &[Api] = &[
    Api::OffsetCommit,
    Api::OffsetFetch,
    Api::JoinGroup,
    Api::Heartbeat,
    Api::SyncGroup,
    Api::ConsumerGroupHeartbeat,
    Api::TxnOffsetCommit,
];
/// Requests to the leader of a partition.
const LEADER_APIS: &[Api] = &[Api::Produce, Api::Fetch, Api::ListOffsets];

/// A fault: what happens, to which requests, how often. By default once.
#[derive(Clone, Debug)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    pub(crate) effect: Effect,
    /// API keys; empty: any.
    apis: Vec<i16>,
    node: Option<i32>,
    client: Option<String>,
    /// Number of requests that are served before.
    pub(crate) skip: u32,
    /// None: always.
    pub(crate) times: Option<u32>,
    pub(crate) chance: f64,
}

impl Fault {
    fn new(effect: Effect, apis: &[Api]) -> Self {
        let apis = apis.iter().map(|api| api.key()).collect();
        Self { effect, apis, node: None, client: None, skip: 0, times: Some(1), chance: 1.0 }
    }

    /// Chooses the requests of one API, in place of those that the fault has by default.
    pub fn on(self, api: Api) -> Self {
        self.on_any([api])
    }

    /// Chooses the requests of several APIs.
    pub fn on_any(mut self, apis: impl IntoIterator<Item = Api>) -> Self {
        self.apis = apis.into_iter().map(Api::key).collect();
        self
    }

    /// Chooses the requests to a node.
    pub fn node(mut self, node: i32) -> Self {
        self.node = Some(node);
        self
    }

    /// Chooses the requests of a client, by its client id. Otherwise they are those of all clients
    /// but the cluster's own, which publishes.
    pub fn client(mut self, client_id: impl Into<String>) -> Self {
        self.client = Some(client_id.into());
        self
    }

    /// Serves this number of requests first.
    pub fn after(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }

    /// Happens to this number of requests; by default to one.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Happens until it is [cleared](crate::InjectedFault::clear).
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Happens [always](Self::always), to each request with this probability, drawn from the
    /// cluster's seed.
    pub fn chance(mut self, probability: f64) -> Self {
        self.chance = probability;
        self.always()
    }

    /// Returns whether a request is one of those it happens to.
    pub(crate) fn concerns(&self, api_key: i16, node: i32, client_id: &str) -> bool {
        let is_client = match &self.client {
            Some(client) => client == client_id,
            None => client_id != crate::cluster::PUBLISHER,
        };
        is_client && (self.apis.is_empty() || self.apis.contains(&api_key)) && self.node.is_none_or(|n| n == node)
    }
}

/// The node is not the partition's leader: NOT_LEADER_OR_FOLLOWER. Of Produce, Fetch, ListOffsets.
pub fn not_leader() -> Fault {
    Fault::new(Effect::Error(6), LEADER_APIS)
}

/// The broker has waited for replicas for too long: REQUEST_TIMED_OUT. Of Produce.
pub fn timed_out() -> Fault {
    Fault::new(Effect::Error(7), &[Api::Produce])
}

/// Too few replicas are in sync: NOT_ENOUGH_REPLICAS. Of Produce.
pub fn not_enough_replicas() -> Fault {
    Fault::new(Effect::Error(19), &[Api::Produce])
}

/// The batch is too large: MESSAGE_TOO_LARGE. Of Produce.
pub fn too_large() -> Fault {
    Fault::new(Effect::Error(10), &[Api::Produce])
}

/// The coordinator loads its state: COORDINATOR_LOAD_IN_PROGRESS. Of a group's requests.
pub fn coordinator_loading() -> Fault {
    Fault::new(Effect::Error(14), GROUP_APIS)
}

/// No coordinator is available: COORDINATOR_NOT_AVAILABLE. Of FindCoordinator.
pub fn coordinator_not_available() -> Fault {
    Fault::new(Effect::Error(15), &[Api::FindCoordinator])
}

/// The node is not the group's coordinator: NOT_COORDINATOR. Of a group's requests.
pub fn not_coordinator() -> Fault {
    Fault::new(Effect::Error(16), GROUP_APIS)
}

/// The member is unknown, as after its session: UNKNOWN_MEMBER_ID. Of Heartbeat.
pub fn unknown_member() -> Fault {
    Fault::new(Effect::Error(25), &[Api::Heartbeat, Api::ConsumerGroupHeartbeat])
}

/// The group rebalances: REBALANCE_IN_PROGRESS. Of Heartbeat.
pub fn rebalance_in_progress() -> Fault {
    Fault::new(Effect::Error(27), &[Api::Heartbeat])
}

/// The principal may not write to or read from the topic: TOPIC_AUTHORIZATION_FAILED. Of Produce
/// and Fetch.
pub fn topic_not_authorized() -> Fault {
    Fault::new(Effect::Error(29), &[Api::Produce, Api::Fetch])
}

/// Any of Kafka's error codes. Of every request, unless [`on`](Fault::on) chooses.
pub fn error_code(code: i16) -> Fault {
    Fault::new(Effect::Error(code), &[])
}

/// The connection is closed, and the request not served.
pub fn close_connection() -> Fault {
    Fault::new(Effect::Close, &[])
}

/// The request is served, and the connection closed without a response: the client can't know.
pub fn drop_response() -> Fault {
    Fault::new(Effect::DropResponse, &[])
}

/// The request, and those behind it on its connection, are served after a time.
pub fn delay(time: Duration) -> Fault {
    Fault::new(Effect::Delay(time), &[])
}

/// The request is served at once, and the response sent after a time.
pub fn delay_response(time: Duration) -> Fault {
    Fault::new(Effect::DelayResponse(time), &[])
}

/// The connection is closed, and the request arrives after a time, when others have overtaken it.
pub fn arrive_late(time: Duration) -> Fault {
    Fault::new(Effect::HoldFor(time), &[])
}
