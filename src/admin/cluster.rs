//! The cluster and its brokers: ids, addresses, racks, versions, APIs.

use std::collections::BTreeMap;

use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use serde::Serialize;

use super::Admin;
use crate::cluster::check_api_versions;
use crate::cluster::leaders::RetryPolicy;
use crate::config::BrokerAddr;
use crate::error::Result;
use crate::wire::{SUPPORTED_APIS, api_versions_request};

/// Feature whose highest level identifies a broker's release.
const METADATA_VERSION: &str = "metadata.version";
/// Releases of Kafka, by the first level of that feature that they have.
const RELEASES: &[(i16, &str)] = &[
    (31, "later than 4.3"),
    (30, "4.3"),
    (28, "4.2"),
    (26, "4.1"),
    (22, "4.0"),
    (21, "3.9"),
    (20, "3.8"),
    (15, "3.7"),
    (12, "3.6"),
    (9, "3.5"),
    (8, "3.4"),
    (4, "3.3"),
];

/// A cluster, as [`Admin::describe_cluster`] returns it.
///
/// ```
/// use ailurus::admin::ClusterDescription;
///
/// fn racks(cluster: &ClusterDescription) -> Vec<&str> {
///     cluster.brokers.iter().filter_map(|b| b.rack.as_deref()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Cluster id, if it has one.
    pub cluster_id: Option<String>,
    /// Broker id of the controller, if there is one. With KRaft, any broker, since each forwards.
    pub controller: Option<i32>,
    /// Live brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker of a cluster.
///
/// ```
/// # fn show(b: &ailurus::admin::BrokerDescription) {
/// println!("{} at {}: Kafka {}", b.id, b.address, b.version.as_deref().unwrap_or("of an untold version"));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Broker id.
    pub id: i32,
    /// Advertised `host:port`.
    pub address: String,
    /// Rack, if it has one.
    pub rack: Option<String>,
    /// Release of Kafka, derived from the highest `metadata.version` that it supports. Unknown for
    /// Redpanda and for Kafka before 3.3.
    pub version: Option<String>,
    /// Finalized level of each feature, as this broker sees it.
    pub features: BTreeMap<String, i16>,
    /// Reason why it did not respond, if it did not.
    pub error: Option<String>,
}

/// Versions of an API, inclusive.
///
/// ```
/// # fn show(v: ailurus::admin::VersionRange) {
/// println!("{} to {}", v.min, v.max);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionRange {
    /// Lowest version.
    pub min: i16,
    /// Highest version.
    pub max: i16,
}

/// An API that a broker serves, or that this client uses, or both.
///
/// ```
/// use ailurus::admin::ApiSupport;
///
/// fn gaps(apis: &[ApiSupport]) -> Vec<&str> {
///     apis.iter().filter(|a| a.client.is_some() && a.usable().is_none()).map(|a| a.name.as_str()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiSupport {
    /// API key in the protocol.
    pub key: i16,
    /// Name; `API n` if this client does not know it.
    pub name: String,
    /// Versions that the broker serves.
    pub broker: Option<VersionRange>,
    /// Versions that this client supports.
    pub client: Option<VersionRange>,
}

impl ApiSupport {
    /// Returns the version that client and broker use: the highest that both support.
    pub fn usable(&self) -> Option<i16> {
        let (broker, client) = (self.broker?, self.client?);
        Some(broker.max.min(client.max)).filter(|v| *v >= broker.min.max(client.min))
    }
}

impl Admin {
    /// Describes the cluster and each of its brokers. One that does not respond is listed with the
    /// reason.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if no broker can be reached.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let cluster = self.cluster();
        let limit = RetryPolicy::best_effort(cluster).response;
        let describe = |id, at: BrokerAddr| async move {
            let versions = cluster.request_within(limit, &at, api_versions_request()).await;
            let (versions, error) = match versions.and_then(|versions| check_api_versions(versions, id)) {
                Ok(versions) => (versions, None),
                Err(e) => (ApiVersionsResponse::default(), Some(e.full())),
            };
            let (version, features) = (release(&versions), features(&versions));
            let rack = cluster.snapshot().racks.get(&id).cloned();
            Ok(BrokerDescription { id, address: at.to_string(), rack, version, features, error })
        };
        let brokers = cluster.for_each_broker(describe).await?.into_values().collect::<Result<_>>()?;
        let snapshot = cluster.snapshot();
        let (cluster_id, controller) = (snapshot.cluster_id.clone(), snapshot.controller);
        Ok(ClusterDescription { cluster_id, controller, brokers })
    }

    /// Returns the APIs of a broker and of this client, by key.
    ///
    /// # Errors
    /// If the broker does not respond.
    pub async fn api_versions(&self, broker: i32) -> Result<Vec<ApiSupport>> {
        let versions = self.cluster().api_versions(broker).await?;
        Ok(compare(&versions))
    }
}

fn compare(versions: &ApiVersionsResponse) -> Vec<ApiSupport> {
    let range = |(min, max)| VersionRange { min, max };
    let entry = |key| ApiSupport { key, name: name(key), broker: None, client: None };
    let mut apis = BTreeMap::new();
    for api in &versions.api_keys {
        let key = api.api_key;
        apis.entry(key).or_insert_with(|| entry(key)).broker = Some(range((api.min_version, api.max_version)));
    }
    for &(key, _, versions) in SUPPORTED_APIS {
        apis.entry(key).or_insert_with(|| entry(key)).client = Some(range(versions));
    }
    apis.into_values().collect()
}

fn name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |api| format!("{api:?}"))
}

fn release(versions: &ApiVersionsResponse) -> Option<String> {
    let level = versions.supported_features.iter().find(|f| f.name.as_str() == METADATA_VERSION)?.max_version;
    RELEASES.iter().find(|(first, _)| *first <= level).map(|(_, release)| (*release).to_owned())
}

fn features(versions: &ApiVersionsResponse) -> BTreeMap<String, i16> {
    versions.finalized_features.iter().map(|f| (f.name.to_string(), f.max_version_level)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kafka_protocol::messages::api_versions_response::{ApiVersion, SupportedFeatureKey};

    use super::*;

    #[test]
    fn what_both_have_is_used_and_gaps_are_seen() {
        let api = |key, min, max| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let versions =
            ApiVersionsResponse::default().with_api_keys(vec![api(3, 0, 8), api(35, 9, 10), api(9999, 0, 1)]);
        let apis = compare(&versions);
        let find = |key| apis.iter().find(|a| a.key == key).unwrap();
        assert_eq!(find(3).usable(), Some(8));
        assert_eq!((find(35).usable(), find(35).broker.unwrap().max), (None, 10), "no version in common");
        assert_eq!((find(47).usable(), find(47).broker), (None, None), "not served");
        assert_eq!((find(9999).usable(), find(9999).name.as_str()), (None, "API 9999"));
        assert!(apis.is_sorted_by_key(|a| a.key));
    }

    #[test]
    fn the_release_is_known_by_the_level_of_metadata() {
        let of = |level| {
            let feature = SupportedFeatureKey::default().with_name(METADATA_VERSION.into()).with_max_version(level);
            release(&ApiVersionsResponse::default().with_supported_features(vec![feature]))
        };
        assert_eq!([of(1), of(21), of(29), of(30)].map(Option::unwrap_or_default), ["", "3.9", "4.2", "4.3"]);
        assert_eq!(of(99).unwrap(), "later than 4.3");
        assert_eq!(release(&ApiVersionsResponse::default()), None);
    }
}
