//! The connections to a group's coordinator.

use kafka_protocol::messages::ApiKey;

use crate::cluster::{Cluster, CoordinatorKey, check_api_versions};
use crate::error::Result;
use crate::wire::{Connection, api_versions_request};

/// Two connections, since a broker serves one request of a connection at a time and may park a
/// JoinGroup for as long as the other members take to join: commits go on meanwhile, and a slow
/// commit never delays a heartbeat.
pub(super) struct CoordinatorConnections {
    pub(super) membership: Connection,
    pub(super) offsets: Connection,
    /// Newest version of ConsumerGroupHeartbeat that the coordinator supports, if that was
    /// requested.
    pub(super) heartbeat_version: Option<i16>,
}

impl CoordinatorConnections {
    /// Finds the coordinator and connects to it. `with_version` also requests its version of
    /// ConsumerGroupHeartbeat.
    pub(super) async fn open(cluster: &Cluster, group: &str, with_version: bool) -> Result<Self> {
        let broker = cluster.find_coordinator(CoordinatorKey::Group(group)).await?;
        let (membership, offsets) = tokio::try_join!(cluster.connect(broker), cluster.connect(broker))?;
        let mut heartbeat_version = None;
        if with_version {
            let supported = membership.request(api_versions_request(), cluster.request_timeout()).await?;
            let supported = check_api_versions(supported, broker)?.api_keys;
            let api = supported.iter().find(|api| api.api_key == ApiKey::ConsumerGroupHeartbeat as i16);
            heartbeat_version = api.map(|api| api.max_version);
        }
        Ok(Self { membership, offsets, heartbeat_version })
    }

    /// Closes both at once: a parked JoinGroup would keep them open.
    pub(super) fn kill(&self, why: &str) {
        self.membership.kill(why);
        self.offsets.kill(why);
    }

    /// Resolves when one of them is closed. The one for offsets does not count while a response is
    /// awaited on the other, if that `must_arrive`.
    pub(super) async fn closed(&self, must_arrive: bool) {
        tokio::select! {
            () = self.membership.closed() => {}
            () = self.offsets.closed(), if !must_arrive => {}
        }
    }
}
