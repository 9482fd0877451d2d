//! The APIs and versions that a broker offers.

use std::collections::BTreeMap;

use kafka_protocol::messages::ApiKey;

use crate::features::{Feature, Features};
use crate::transaction::TransactionRules;

/// (API, lowest, highest) of everything this broker can serve.
///
/// The lowest versions are those of `kafka-protocol`, except for Produce: Kafka 4 announces
/// versions 0 to 2 without serving them, because librdkafka takes their absence for a broker
/// without compression (KAFKA-18659).
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 13),
    (ApiKey::ListOffsets, 1, 9),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::SaslHandshake, 0, 1),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 5),
    (ApiKey::AddOffsetsToTxn, 0, 4),
    (ApiKey::EndTxn, 0, 5),
    (ApiKey::TxnOffsetCommit, 0, 5),
    (ApiKey::DescribeAcls, 1, 3),
    (ApiKey::CreateAcls, 1, 3),
    (ApiKey::DeleteAcls, 1, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DescribeLogDirs, 1, 4),
    (ApiKey::SaslAuthenticate, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 1),
    (ApiKey::WriteTxnMarkers, 1, 1),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::DescribeTransactions, 0, 0),
    (ApiKey::ListTransactions, 0, 2),
    (ApiKey::ConsumerGroupHeartbeat, 0, 1),
    (ApiKey::ConsumerGroupDescribe, 0, 1),
];

/// Highest versions of Redpanda 24.3, of the APIs served here.
const REDPANDA_24_3: &[(ApiKey, i16)] = &[
    (ApiKey::Produce, 7),
    (ApiKey::Fetch, 11),
    (ApiKey::ListOffsets, 4),
    (ApiKey::Metadata, 8),
    (ApiKey::OffsetCommit, 8),
    (ApiKey::OffsetFetch, 7),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::JoinGroup, 6),
    (ApiKey::Heartbeat, 4),
    (ApiKey::LeaveGroup, 4),
    (ApiKey::SyncGroup, 4),
    (ApiKey::DescribeGroups, 5),
    (ApiKey::ListGroups, 4),
    (ApiKey::SaslHandshake, 1),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 6),
    (ApiKey::DeleteTopics, 5),
    (ApiKey::DeleteRecords, 2),
    (ApiKey::InitProducerId, 3),
    (ApiKey::OffsetForLeaderEpoch, 4),
    (ApiKey::AddPartitionsToTxn, 3),
    (ApiKey::AddOffsetsToTxn, 1),
    (ApiKey::EndTxn, 3),
    (ApiKey::TxnOffsetCommit, 3),
    (ApiKey::DescribeAcls, 1),
    (ApiKey::CreateAcls, 1),
    (ApiKey::DeleteAcls, 1),
    (ApiKey::DescribeConfigs, 4),
    (ApiKey::DescribeLogDirs, 2),
    (ApiKey::SaslAuthenticate, 2),
    (ApiKey::CreatePartitions, 3),
    (ApiKey::DeleteGroups, 2),
    (ApiKey::IncrementalAlterConfigs, 1),
    (ApiKey::OffsetDelete, 0),
    (ApiKey::DescribeProducers, 0),
    (ApiKey::DescribeTransactions, 0),
    (ApiKey::ListTransactions, 0),
];

/// Highest versions of Kafka 3.9, where they differ from Kafka 4's.
const KAFKA_3_9: &[(ApiKey, i16)] = &[
    (ApiKey::Produce, 11),
    (ApiKey::Metadata, 12),
    (ApiKey::FindCoordinator, 5),
    (ApiKey::DescribeGroups, 5),
    (ApiKey::EndTxn, 4),
    (ApiKey::TxnOffsetCommit, 4),
    (ApiKey::ListTransactions, 1),
];

/// APIs that only a broker with transactions offers.
const TRANSACTION_APIS: &[ApiKey] = &[
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::WriteTxnMarkers,
    ApiKey::DescribeTransactions,
    ApiKey::ListTransactions,
];

/// Version range of each API in a broker's ApiVersions response, its features, and its rules of
/// transactions.
///
/// Start from a preset and change single APIs with [`with`](Self::with) and
/// [`without`](Self::without), to test a client against an older or limited broker.
///
/// ```
/// use ailurus_broker::Versions;
///
/// const FETCH: i16 = 1;
/// const DESCRIBE_CONFIGS: i16 = 32;
/// let versions = Versions::redpanda_24_3().with(FETCH, 4, 6).without(DESCRIBE_CONFIGS);
/// assert_eq!(versions.range(FETCH), Some((4, 6)));
/// assert_eq!(versions.range(DESCRIBE_CONFIGS), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    ranges: BTreeMap<i16, (i16, i16)>,
    features: Vec<Feature>,
    rules: TransactionRules,
}

impl Versions {
    /// Versions of Redpanda 24.3, the default: no topic ids, no flexible Produce, one group per
    /// OffsetFetch.
    pub fn redpanda_24_3() -> Self {
        let range = |&(api, highest): &(ApiKey, i16)| {
            let lowest = served(api as i16).map_or(0, |(lowest, _)| lowest);
            (api as i16, (lowest, highest))
        };
        Self {
            ranges: REDPANDA_24_3.iter().map(range).collect(),
            features: Vec::new(),
            rules: TransactionRules::Redpanda,
        }
    }

    /// Versions of Redpanda 26.2: [`redpanda_24_3`](Self::redpanda_24_3) with topic ids in Fetch
    /// and Metadata, several groups per OffsetFetch, and DescribeCluster.
    pub fn redpanda_26_2() -> Self {
        Self::redpanda_24_3()
            .with(ApiKey::Fetch as i16, 4, 13)
            .with(ApiKey::Metadata as i16, 0, 12)
            .with(ApiKey::OffsetFetch as i16, 1, 8)
            .with(ApiKey::DescribeCluster as i16, 0, 0)
    }

    /// Versions of Kafka 4: everything this broker can serve, the `consumer` group protocol
    /// included, and `transaction.version` 2, which
    /// [`set_transaction_version`](crate::Broker::set_transaction_version) changes.
    pub fn kafka() -> Self {
        Self {
            ranges: SERVED.iter().map(|&(api, lowest, highest)| (api as i16, (lowest, highest))).collect(),
            features: features(25, 1, 2),
            rules: TransactionRules::Kafka,
        }
    }

    /// Versions of Kafka 3.9: no `consumer` group protocol, no topic ids in Produce, and
    /// transactions of version 0.
    pub fn kafka_3_9() -> Self {
        let without_consumer_protocol =
            Self::kafka().without(ApiKey::ConsumerGroupHeartbeat as i16).without(ApiKey::ConsumerGroupDescribe as i16);
        let older =
            KAFKA_3_9.iter().fold(without_consumer_protocol, |v, &(api, highest)| v.with(api as i16, 0, highest));
        Self { features: features(21, 0, 0), rules: TransactionRules::Kafka3, ..older }
    }

    /// Offers versions `lowest` to `highest` of an API, clamped to the served ones; removes the API
    /// if none is served.
    #[must_use]
    pub fn with(mut self, api_key: i16, lowest: i16, highest: i16) -> Self {
        let range = served(api_key).map(|(min, max)| (lowest.max(min), highest.min(max)));
        match range {
            Some((min, max)) if min <= max => self.ranges.insert(api_key, (min, max)),
            _ => self.ranges.remove(&api_key),
        };
        self
    }

    /// Removes an API: its requests close the connection.
    #[must_use]
    pub fn without(mut self, api_key: i16) -> Self {
        self.ranges.remove(&api_key);
        self
    }

    pub(crate) fn features(&self) -> Features {
        if self.features.is_empty() { Features::default() } else { Features::new(self.features.clone()) }
    }

    pub(crate) fn transaction_rules(&self) -> TransactionRules {
        self.rules
    }

    /// Removes the APIs of transactions, as Redpanda does with `enable_transactions=false`. Then
    /// FindCoordinator returns UNSUPPORTED_VERSION for a transactional id, and Produce
    /// TRANSACTIONAL_ID_AUTHORIZATION_FAILED for a batch of a transaction.
    #[must_use]
    pub fn without_transactions(self) -> Self {
        TRANSACTION_APIS.iter().fold(self, |versions, &api| versions.without(api as i16))
    }

    pub(crate) fn has_transactions(&self) -> bool {
        self.range(ApiKey::EndTxn as i16).is_some()
    }

    /// Returns the lowest and highest version of an API; `None` if it is not offered.
    pub fn range(&self, api_key: i16) -> Option<(i16, i16)> {
        self.ranges.get(&api_key).copied()
    }

    /// Iterates over (API key, lowest, highest), by API key.
    pub fn iter(&self) -> impl Iterator<Item = (i16, i16, i16)> + '_ {
        self.ranges.iter().map(|(&key, &(min, max))| (key, min, max))
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::redpanda_24_3()
    }
}

/// Returns the features of a Kafka with these levels.
fn features(metadata: i16, group: i16, transaction: i16) -> Vec<Feature> {
    vec![
        Feature { name: "group.version", supported: (0, group), level: group },
        Feature { name: "metadata.version", supported: (7, metadata), level: metadata },
        Feature { name: "transaction.version", supported: (0, transaction), level: transaction },
    ]
}

fn served(api_key: i16) -> Option<(i16, i16)> {
    SERVED.iter().find(|(api, ..)| *api as i16 == api_key).map(|&(_, lowest, highest)| (lowest, highest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_within_served_versions() {
        for preset in [Versions::redpanda_24_3(), Versions::redpanda_26_2(), Versions::kafka_3_9()] {
            for (key, min, max) in preset.iter() {
                let (lowest, highest) = Versions::kafka().range(key).unwrap_or((1, 0));
                assert!(lowest <= min && min <= max && max <= highest, "api {key}: {min} to {max}");
            }
        }
    }

    #[test]
    fn range_is_clamped_to_served_versions() {
        let fetch = ApiKey::Fetch as i16;
        assert_eq!(Versions::kafka().with(fetch, 0, 99).range(fetch), Some((4, 13)));
        assert_eq!(Versions::kafka().with(fetch, 0, 3).range(fetch), None);
    }
}
