//! Error codes of brokers that this library handles, under Kafka's names. `error::kind_of` maps
//! them to kinds of errors; `failure::is_fatal_code` decides whether one is fatal or an outage.

/// The broker does not know what went wrong.
pub(crate) const UNKNOWN_SERVER_ERROR: i16 = -1;
/// The offset is outside the partition's log.
pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
/// A batch's checksum was wrong on arrival, or it can't be decoded.
pub(crate) const CORRUPT_MESSAGE: i16 = 2;
/// The topic or partition does not exist, as far as the broker knows.
pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// The size of a fetch is not valid.
pub(crate) const INVALID_FETCH_SIZE: i16 = 4;
/// The topic is being created, or the partition's leader is being elected.
pub(crate) const LEADER_NOT_AVAILABLE: i16 = 5;
/// The broker does not lead the partition, or has no replica of it.
pub(crate) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// The time limit of the request passed on the broker.
pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
/// A batch is larger than the topic allows.
pub(crate) const MESSAGE_TOO_LARGE: i16 = 10;
/// The metadata of a committed offset is too large.
pub(crate) const OFFSET_METADATA_TOO_LARGE: i16 = 12;
/// The connection between brokers broke.
pub(crate) const NETWORK_EXCEPTION: i16 = 13;
/// The coordinator is still loading its state.
pub(crate) const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
/// There is no coordinator for now.
pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
/// The broker is not the coordinator any more.
pub(crate) const NOT_COORDINATOR: i16 = 16;
/// The topic's name is not valid, or the topic is not for clients.
pub(crate) const INVALID_TOPIC_EXCEPTION: i16 = 17;
/// A batch is larger than a segment of the log.
pub(crate) const RECORD_LIST_TOO_LARGE: i16 = 18;
/// Fewer replicas are in sync than `min.insync.replicas`; the batch was not written.
pub(crate) const NOT_ENOUGH_REPLICAS: i16 = 19;
/// Fewer replicas are in sync than `min.insync.replicas`; the batch was written.
pub(crate) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
/// The requested number of acknowledgements is not valid.
pub(crate) const INVALID_REQUIRED_ACKS: i16 = 21;
/// The generation is not the group's current one.
pub(crate) const ILLEGAL_GENERATION: i16 = 22;
/// The members of the group have no assignor in common.
pub(crate) const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
/// The group's id is not valid.
pub(crate) const INVALID_GROUP_ID: i16 = 24;
/// The coordinator does not know the member.
pub(crate) const UNKNOWN_MEMBER_ID: i16 = 25;
/// The session timeout is outside the broker's bounds.
pub(crate) const INVALID_SESSION_TIMEOUT: i16 = 26;
/// The group rebalances: members rejoin.
pub(crate) const REBALANCE_IN_PROGRESS: i16 = 27;
/// A committed offset is too large to be stored.
pub(crate) const INVALID_COMMIT_OFFSET_SIZE: i16 = 28;
/// The principal is not authorized for the topic.
pub(crate) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// The principal is not authorized for the group.
pub(crate) const GROUP_AUTHORIZATION_FAILED: i16 = 30;
/// The principal is not authorized for the cluster.
pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
/// A record's timestamp is outside the topic's bounds.
pub(crate) const INVALID_TIMESTAMP: i16 = 32;
/// The broker does not support the SASL mechanism.
pub(crate) const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
/// The listener does not expect a login.
pub(crate) const ILLEGAL_SASL_STATE: i16 = 34;
/// The API's version is not supported, or the API is switched off.
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
/// A topic of this name exists.
pub(crate) const TOPIC_ALREADY_EXISTS: i16 = 36;
/// The number of partitions is not valid.
pub(crate) const INVALID_PARTITIONS: i16 = 37;
/// The replication factor is not valid, or there are fewer brokers.
pub(crate) const INVALID_REPLICATION_FACTOR: i16 = 38;
/// The assignment of replicas is not valid.
pub(crate) const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
/// A setting is not valid.
pub(crate) const INVALID_CONFIG: i16 = 40;
/// The broker is not the cluster's controller.
pub(crate) const NOT_CONTROLLER: i16 = 41;
/// The request contradicts itself or the protocol.
pub(crate) const INVALID_REQUEST: i16 = 42;
/// The log's message format does not have what the request needs.
pub(crate) const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
/// A policy of the cluster forbids the request.
pub(crate) const POLICY_VIOLATION: i16 = 44;
/// A batch's sequence number is not the next one of its producer.
pub(crate) const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
/// The batch's sequence number is in the log already.
pub(crate) const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// The producer's epoch is older than the newest.
pub(crate) const INVALID_PRODUCER_EPOCH: i16 = 47;
/// The transaction's state does not allow the request.
pub(crate) const INVALID_TXN_STATE: i16 = 48;
/// The producer id does not belong to the transactional id.
pub(crate) const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
/// The transaction timeout is outside the broker's bounds.
pub(crate) const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
/// The coordinator is ending a transaction of the transactional id.
pub(crate) const CONCURRENT_TRANSACTIONS: i16 = 51;
/// A newer coordinator has written a marker.
pub(crate) const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
/// The principal is not authorized for the transactional id.
pub(crate) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
/// The cluster has no authorizer, hence no access control lists.
pub(crate) const SECURITY_DISABLED: i16 = 54;
/// Another part of the request failed, so this one was not tried.
pub(crate) const OPERATION_NOT_ATTEMPTED: i16 = 55;
/// The broker's disk failed.
pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
/// The credentials were rejected.
pub(crate) const SASL_AUTHENTICATION_FAILED: i16 = 58;
/// The partition's leader does not know the producer id any more.
pub(crate) const UNKNOWN_PRODUCER_ID: i16 = 59;
/// The group has members.
pub(crate) const NON_EMPTY_GROUP: i16 = 68;
/// The group does not exist, or is of the other protocol.
pub(crate) const GROUP_ID_NOT_FOUND: i16 = 69;
/// The broker does not know the fetch session.
pub(crate) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
/// The fetch session's epoch is not the next one.
pub(crate) const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
/// The request's leader epoch is older than the broker's.
pub(crate) const FENCED_LEADER_EPOCH: i16 = 74;
/// The request's leader epoch is newer than the broker's.
pub(crate) const UNKNOWN_LEADER_EPOCH: i16 = 75;
/// The compression is not supported for the request's version.
pub(crate) const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
/// The member must join with the id of this response.
pub(crate) const MEMBER_ID_REQUIRED: i16 = 79;
/// The group has as many members as the broker allows.
pub(crate) const GROUP_MAX_SIZE_REACHED: i16 = 81;
/// Another member has taken over the group instance id.
pub(crate) const FENCED_INSTANCE_ID: i16 = 82;
/// Members of the group subscribe to the topic.
pub(crate) const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
/// The broker rejected a record of the batch.
pub(crate) const INVALID_RECORD: i16 = 87;
/// A quota is exhausted for now.
pub(crate) const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
/// A newer producer has the transactional id.
pub(crate) const PRODUCER_FENCED: i16 = 90;
/// The broker does not know the topic's id.
pub(crate) const UNKNOWN_TOPIC_ID: i16 = 100;
/// The topic's id is not the one of the log.
pub(crate) const INCONSISTENT_TOPIC_ID: i16 = 103;
/// The coordinator does not know the transactional id.
pub(crate) const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
/// The member's epoch is not valid: it must rejoin.
pub(crate) const FENCED_MEMBER_EPOCH: i16 = 110;
/// Another member has the group instance id.
pub(crate) const UNRELEASED_INSTANCE_ID: i16 = 111;
/// The coordinator does not have the assignor.
pub(crate) const UNSUPPORTED_ASSIGNOR: i16 = 112;
/// The member's epoch is older than the coordinator's.
pub(crate) const STALE_MEMBER_EPOCH: i16 = 113;
/// The transaction can only be aborted.
pub(crate) const TRANSACTION_ABORTABLE: i16 = 120;
/// The regular expression of a subscription is not valid.
pub(crate) const INVALID_REGULAR_EXPRESSION: i16 = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kafka_protocol::ResponseError;

    /// The constants of this file, in its order.
    fn constants() -> Vec<(String, i16)> {
        let lines = include_str!("code.rs").lines().filter_map(|line| line.strip_prefix("pub(crate) const "));
        let constants = lines.filter_map(|line| line.strip_suffix(';')?.split_once(": i16 = "));
        constants.map(|(name, code)| (name.replace('_', "").to_lowercase(), code.parse().unwrap())).collect()
    }

    #[test]
    fn names_and_codes_are_kafkas() {
        let constants = constants();
        assert!(constants.len() > 60, "{constants:?}");
        for (name, code) in &constants {
            let known = ResponseError::try_from_code(*code).unwrap();
            assert_eq!(*name, format!("{known:?}").to_lowercase(), "{code}");
        }
        assert!(constants.windows(2).all(|pair| pair[0].1 < pair[1].1), "each once, in ascending order");
    }
}
