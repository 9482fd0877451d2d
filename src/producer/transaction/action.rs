//! The meaning of each error code of a transactional request: one table, from request and code to
//! the action that follows.

use crate::code;

/// The version of transactions (KIP-890) that a transaction is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// The producer adds partitions and groups; the epoch stays.
    V1,
    /// Leaders and group coordinators add themselves; each end raises the epoch.
    V2,
}

/// A request to a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    FindCoordinator,
    InitProducerId,
    AddPartitions,
    AddOffsets,
    CommitOffsets,
    EndTxn,
}

impl RequestKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FindCoordinator => "FindCoordinator",
            Self::InitProducerId => "InitProducerId",
            Self::AddPartitions => "AddPartitionsToTxn",
            Self::AddOffsets => "AddOffsetsToTxn",
            Self::CommitOffsets => "TxnOffsetCommit",
            Self::EndTxn => "EndTxn",
        }
    }
}

/// The step after an error code. Ordered: of several codes in a response the greatest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Send the same request again.
    Retry,
    /// Send it again soon: the last transaction's end is being written.
    RetrySoon,
    /// Find the coordinator, then send it again.
    FindCoordinator,
    /// It may have taken effect or not: find the coordinator, then send it again.
    Unknown,
    /// Abort, then go on.
    Abort,
    /// Abort, then get a new epoch.
    AbortAndRaise,
    /// A bug or a setting: stop.
    Stop,
    /// Another producer has the transactional id, or the transaction timed out.
    Fenced,
}

/// Returns what to do after an error code of a coordinator's response.
pub(super) fn action_of(request: RequestKind, code: i16) -> Action {
    use RequestKind::{AddOffsets, AddPartitions, CommitOffsets, EndTxn, FindCoordinator, InitProducerId};
    match (request, code) {
        (FindCoordinator, code::GROUP_AUTHORIZATION_FAILED) => Action::Abort,
        (_, code::COORDINATOR_LOAD_IN_PROGRESS) => Action::Retry,
        (_, code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR) => Action::FindCoordinator,
        (EndTxn, code::REQUEST_TIMED_OUT | code::NETWORK_EXCEPTION | code::UNKNOWN_SERVER_ERROR) => Action::Unknown,
        (_, code::REQUEST_TIMED_OUT | code::NETWORK_EXCEPTION) => Action::Retry,
        (_, code::CONCURRENT_TRANSACTIONS) => Action::RetrySoon,
        (_, code::INVALID_PRODUCER_EPOCH | code::PRODUCER_FENCED | code::INVALID_PRODUCER_ID_MAPPING) => Action::Fenced,
        (_, code::TRANSACTION_ABORTABLE) => Action::Abort,
        (InitProducerId | FindCoordinator, code::INVALID_TXN_STATE) => Action::Retry,
        (_, code::INVALID_TXN_STATE) => Action::Stop,
        (InitProducerId | FindCoordinator, code::UNKNOWN_PRODUCER_ID | code::OUT_OF_ORDER_SEQUENCE_NUMBER) => {
            Action::Retry
        }
        (_, code::UNKNOWN_PRODUCER_ID | code::OUT_OF_ORDER_SEQUENCE_NUMBER) => Action::AbortAndRaise,
        (
            _,
            code::INVALID_TRANSACTION_TIMEOUT
            | code::INVALID_REQUEST
            | code::UNSUPPORTED_VERSION
            | code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | code::CLUSTER_AUTHORIZATION_FAILED,
        ) => Action::Stop,
        (InitProducerId | FindCoordinator, _) => Action::Retry,
        (AddPartitions | CommitOffsets, code::UNKNOWN_TOPIC_OR_PARTITION) => Action::Retry,
        // With the generation of then, if the partitions are still the member's.
        (CommitOffsets, code) if concerns_generation(code) => Action::Retry,
        // Topic and group ACLs, a member that is not in the group, metadata that is too large, another
        // partition's failure, and what is not known: the transaction can't go on, the next one may.
        (AddPartitions | AddOffsets | CommitOffsets, _) => Action::Abort,
        (EndTxn, _) => Action::Unknown,
    }
}

/// Returns whether a code says that offsets were committed in another generation, or member epoch, than
/// that of the coordinator.
pub(super) fn concerns_generation(code: i16) -> bool {
    matches!(code, code::ILLEGAL_GENERATION | code::STALE_MEMBER_EPOCH)
}

/// Returns what to do after the error code of a batch in a transaction. Codes after which the batch
/// is retried do not come here.
pub(super) fn action_of_produce(version: Version, code: i16) -> Action {
    match (code, version) {
        (code::INVALID_PRODUCER_EPOCH, Version::V2) => Action::Fenced,
        (code::INVALID_PRODUCER_EPOCH, Version::V1) => Action::AbortAndRaise,
        (code::PRODUCER_FENCED | code::INVALID_PRODUCER_ID_MAPPING, _) => Action::Fenced,
        (code::UNKNOWN_PRODUCER_ID | code::OUT_OF_ORDER_SEQUENCE_NUMBER, _) => Action::AbortAndRaise,
        (
            code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | code::CLUSTER_AUTHORIZATION_FAILED
            | code::INVALID_REQUEST
            | code::UNSUPPORTED_VERSION,
            _,
        ) => Action::Stop,
        _ => Action::Abort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table: a code, then what each request does after it, in the order of [`REQUESTS`].
    /// R retry, S soon, F find the coordinator, U unknown, A abort, B abort and raise the epoch,
    /// X fenced, C stop, - not of that request.
    const TABLE: &[(i16, &str)] = &[
        (code::COORDINATOR_LOAD_IN_PROGRESS, "RRRRR"),
        (code::COORDINATOR_NOT_AVAILABLE, "FFFFF"),
        (code::NOT_COORDINATOR, "FFFFF"),
        (code::REQUEST_TIMED_OUT, "RRRRU"),
        (code::NETWORK_EXCEPTION, "RRRRU"),
        (code::CONCURRENT_TRANSACTIONS, "SSSSS"),
        (code::INVALID_PRODUCER_EPOCH, "XXXXX"),
        (code::PRODUCER_FENCED, "XXXXX"),
        (code::TRANSACTION_ABORTABLE, "AAAAA"),
        (code::INVALID_TXN_STATE, "-CCCC"),
        (code::INVALID_PRODUCER_ID_MAPPING, "XXXXX"),
        (code::UNKNOWN_PRODUCER_ID, "-BBBB"),
        (code::OUT_OF_ORDER_SEQUENCE_NUMBER, "-BBBB"),
        (code::INVALID_TRANSACTION_TIMEOUT, "CCCCC"),
        (code::INVALID_REQUEST, "CCCCC"),
        (code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "CCCCC"),
        (code::CLUSTER_AUTHORIZATION_FAILED, "CCCCC"),
        (code::TOPIC_AUTHORIZATION_FAILED, "-AAA-"),
        (code::GROUP_AUTHORIZATION_FAILED, "-AAA-"),
        (code::UNKNOWN_TOPIC_OR_PARTITION, "-R-R-"),
        (code::OPERATION_NOT_ATTEMPTED, "-A---"),
        (code::ILLEGAL_GENERATION, "---R-"),
        (code::UNKNOWN_MEMBER_ID, "---A-"),
        (code::FENCED_INSTANCE_ID, "---A-"),
        (code::STALE_MEMBER_EPOCH, "---R-"),
        (code::REBALANCE_IN_PROGRESS, "---A-"),
        (code::OFFSET_METADATA_TOO_LARGE, "---A-"),
        (code::UNKNOWN_SERVER_ERROR, "RAAAU"),
        (999, "RAAAU"),
    ];

    const REQUESTS: [RequestKind; 5] = [
        RequestKind::InitProducerId,
        RequestKind::AddPartitions,
        RequestKind::AddOffsets,
        RequestKind::CommitOffsets,
        RequestKind::EndTxn,
    ];

    #[test]
    fn each_code_of_each_request_has_its_action() {
        for (code, row) in TABLE {
            for (request, letter) in REQUESTS.into_iter().zip(row.chars()) {
                let expected = match letter {
                    'R' => Action::Retry,
                    'S' => Action::RetrySoon,
                    'F' => Action::FindCoordinator,
                    'U' => Action::Unknown,
                    'A' => Action::Abort,
                    'B' => Action::AbortAndRaise,
                    'X' => Action::Fenced,
                    'C' => Action::Stop,
                    _ => continue,
                };
                assert_eq!(action_of(request, *code), expected, "{code} of {request:?}");
            }
        }
    }

    #[test]
    fn each_code_of_a_batch_has_its_action() {
        use Action::{Abort, AbortAndRaise, Fenced, Stop};
        let table = [
            (47, AbortAndRaise, Fenced),
            (90, Fenced, Fenced),
            (49, Fenced, Fenced),
            (120, Abort, Abort),
            (48, Abort, Abort),
            (59, AbortAndRaise, AbortAndRaise),
            (45, AbortAndRaise, AbortAndRaise),
            (42, Stop, Stop),
            (53, Stop, Stop),
            (31, Stop, Stop),
            (29, Abort, Abort),
            (10, Abort, Abort),
            (87, Abort, Abort),
            (-1, Abort, Abort),
        ];
        for (code, v1, v2) in table {
            assert_eq!(action_of_produce(Version::V1, code), v1, "{code}");
            assert_eq!(action_of_produce(Version::V2, code), v2, "{code}");
        }
    }

    #[test]
    fn an_end_of_unknown_effect_never_becomes_another() {
        for code in i16::MIN..=i16::MAX {
            let action = action_of(RequestKind::EndTxn, code);
            assert!(action != Action::Abort || code == code::TRANSACTION_ABORTABLE, "{code}");
        }
    }
}
