//! What each error code of a produce answer says of the batch: could it be in the log?
//!
//! A code that is not named here leaves that open, whatever the protocol calls it: the batch is sent again under its sequence
//! number, by which its leader recognises it if it is there, and if the delivery timeout ends that, its fate is unknown.

/// What a broker that answers with an error code has done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not written for now: sent again.
    NotYet,
    /// Written or not: sent again.
    Open,
    /// Its sequence number is not the next, or its producer is not known any more.
    OutOfSequence,
    /// The broker has its sequence number already.
    Duplicate,
    /// The producer's epoch is not the newest.
    Fenced,
    /// Not written: larger than the broker takes.
    TooLarge,
    /// Not written: some of its records are not allowed.
    BadRecords,
    /// Not written, and never will be.
    Refused,
}

/// All codes that say whether the batch may be in the log.
const VERDICTS: &[(i16, Verdict)] = &[
    (2, Verdict::NotYet),         // CORRUPT_MESSAGE: its checksum was wrong when it came
    (3, Verdict::NotYet),         // UNKNOWN_TOPIC_OR_PARTITION
    (5, Verdict::NotYet),         // LEADER_NOT_AVAILABLE
    (6, Verdict::Open), // NOT_LEADER_OR_FOLLOWER: also of a leader that stepped down while it waited for followers
    (7, Verdict::Open), // REQUEST_TIMED_OUT: the followers did not confirm it in time
    (10, Verdict::TooLarge), // MESSAGE_TOO_LARGE
    (17, Verdict::Refused), // INVALID_TOPIC_EXCEPTION
    (18, Verdict::TooLarge), // RECORD_LIST_TOO_LARGE
    (19, Verdict::NotYet), // NOT_ENOUGH_REPLICAS
    (20, Verdict::Open), // NOT_ENOUGH_REPLICAS_AFTER_APPEND
    (21, Verdict::Refused), // INVALID_REQUIRED_ACKS
    (29, Verdict::Refused), // TOPIC_AUTHORIZATION_FAILED
    (31, Verdict::Refused), // CLUSTER_AUTHORIZATION_FAILED
    (32, Verdict::BadRecords), // INVALID_TIMESTAMP
    (35, Verdict::Refused), // UNSUPPORTED_VERSION
    (42, Verdict::Refused), // INVALID_REQUEST
    (43, Verdict::Refused), // UNSUPPORTED_FOR_MESSAGE_FORMAT
    (44, Verdict::Refused), // POLICY_VIOLATION
    (45, Verdict::OutOfSequence), // OUT_OF_ORDER_SEQUENCE_NUMBER
    (46, Verdict::Duplicate), // DUPLICATE_SEQUENCE_NUMBER
    (47, Verdict::Fenced), // INVALID_PRODUCER_EPOCH
    (48, Verdict::Refused), // INVALID_TXN_STATE
    (49, Verdict::Refused), // INVALID_PRODUCER_ID_MAPPING
    (53, Verdict::Refused), // TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    (56, Verdict::Open), // KAFKA_STORAGE_ERROR: the disk may have failed behind the write
    (59, Verdict::OutOfSequence), // UNKNOWN_PRODUCER_ID
    (74, Verdict::NotYet), // FENCED_LEADER_EPOCH
    (75, Verdict::NotYet), // UNKNOWN_LEADER_EPOCH
    (76, Verdict::Refused), // UNSUPPORTED_COMPRESSION_TYPE
    (87, Verdict::BadRecords), // INVALID_RECORD
    (89, Verdict::NotYet), // THROTTLING_QUOTA_EXCEEDED
    (90, Verdict::Fenced), // PRODUCER_FENCED
    (100, Verdict::NotYet), // UNKNOWN_TOPIC_ID
    (103, Verdict::NotYet), // INCONSISTENT_TOPIC_ID
];

impl Verdict {
    pub(super) fn of(code: i16) -> Self {
        VERDICTS.iter().find(|(known, _)| *known == code).map_or(Self::Open, |(_, verdict)| *verdict)
    }
}

/// Returns whether the leader that is known may be the wrong one.
pub(super) fn is_stale_leader(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 56 | 74 | 75 | 100 | 103)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::is_retriable_code;

    #[test]
    fn a_code_that_is_not_known_leaves_the_outcome_open() {
        for code in [-1, -7, 13, 27, 41, 91, 999, i16::MAX, i16::MIN] {
            assert_eq!(Verdict::of(code), Verdict::Open, "{code}");
        }
    }

    #[test]
    fn each_code_stands_once_in_order_and_what_the_protocol_calls_retriable_is_sent_again() {
        assert!(VERDICTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for code in i16::MIN..=i16::MAX {
            if is_retriable_code(code) {
                assert!(matches!(Verdict::of(code), Verdict::NotYet | Verdict::Open), "{code}");
            }
        }
    }

    #[test]
    fn only_codes_of_brokers_that_have_not_appended_end_a_batch_as_not_written() {
        let ended = |code| matches!(Verdict::of(code), Verdict::TooLarge | Verdict::BadRecords | Verdict::Refused);
        let all: Vec<i16> = (i16::MIN..=i16::MAX).filter(|code| ended(*code)).collect();
        assert_eq!(all, [10, 17, 18, 21, 29, 31, 32, 35, 42, 43, 44, 48, 49, 53, 76, 87]);
    }
}
