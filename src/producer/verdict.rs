//! The meaning of each error code of a produce response for its batch: may it be in the log?
//!
//! A code that is not listed here leaves that open, whatever the protocol calls it: the batch is
//! retried with its sequence, by which its leader recognises it if it is there. If the delivery
//! timeout ends the retries, it is indeterminate.

use crate::code;

/// The effect of an error code on a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not written: retried.
    Retry,
    /// Written or not: retried.
    RetryMaybeWritten,
    /// Not written: its sequence is not the next one, or the broker has forgotten the producer.
    OutOfSequence,
    /// The broker has its sequence already.
    Duplicate,
    /// Not written: the broker knows a newer epoch of the producer.
    Fenced,
    /// Not written: larger than the broker allows.
    TooLarge,
    /// Not written: some of its records are invalid.
    BadRecords,
    /// Not written: it would be rejected again.
    Rejected,
}

/// Verdicts by error code, in ascending order.
const VERDICTS: &[(i16, Verdict)] = &[
    (code::CORRUPT_MESSAGE, Verdict::Retry), // its checksum was wrong on arrival
    (code::UNKNOWN_TOPIC_OR_PARTITION, Verdict::Retry),
    (code::LEADER_NOT_AVAILABLE, Verdict::Retry),
    (code::NOT_LEADER_OR_FOLLOWER, Verdict::RetryMaybeWritten), // also of a leader that stepped down while it waited for followers
    (code::REQUEST_TIMED_OUT, Verdict::RetryMaybeWritten),      // the followers did not confirm it in time
    (code::MESSAGE_TOO_LARGE, Verdict::TooLarge),
    (code::INVALID_TOPIC_EXCEPTION, Verdict::Rejected),
    (code::RECORD_LIST_TOO_LARGE, Verdict::TooLarge),
    (code::NOT_ENOUGH_REPLICAS, Verdict::Retry),
    (code::NOT_ENOUGH_REPLICAS_AFTER_APPEND, Verdict::RetryMaybeWritten),
    (code::INVALID_REQUIRED_ACKS, Verdict::Rejected),
    (code::TOPIC_AUTHORIZATION_FAILED, Verdict::Rejected),
    (code::CLUSTER_AUTHORIZATION_FAILED, Verdict::Rejected),
    (code::INVALID_TIMESTAMP, Verdict::BadRecords),
    (code::UNSUPPORTED_VERSION, Verdict::Rejected),
    (code::INVALID_REQUEST, Verdict::Rejected),
    (code::UNSUPPORTED_FOR_MESSAGE_FORMAT, Verdict::Rejected),
    (code::POLICY_VIOLATION, Verdict::Rejected),
    (code::OUT_OF_ORDER_SEQUENCE_NUMBER, Verdict::OutOfSequence),
    (code::DUPLICATE_SEQUENCE_NUMBER, Verdict::Duplicate),
    (code::INVALID_PRODUCER_EPOCH, Verdict::Fenced),
    (code::INVALID_TXN_STATE, Verdict::Rejected),
    (code::INVALID_PRODUCER_ID_MAPPING, Verdict::Rejected),
    (code::CONCURRENT_TRANSACTIONS, Verdict::Retry), // the end of the last transaction is being written
    (code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Verdict::Rejected),
    (code::KAFKA_STORAGE_ERROR, Verdict::RetryMaybeWritten), // the disk may have failed behind the write
    (code::UNKNOWN_PRODUCER_ID, Verdict::OutOfSequence),
    (code::FENCED_LEADER_EPOCH, Verdict::Retry),
    (code::UNKNOWN_LEADER_EPOCH, Verdict::Retry),
    (code::UNSUPPORTED_COMPRESSION_TYPE, Verdict::Rejected),
    (code::INVALID_RECORD, Verdict::BadRecords),
    (code::THROTTLING_QUOTA_EXCEEDED, Verdict::Retry),
    (code::PRODUCER_FENCED, Verdict::Fenced),
    (code::UNKNOWN_TOPIC_ID, Verdict::Retry),
    (code::INCONSISTENT_TOPIC_ID, Verdict::Retry),
    (code::TRANSACTION_ABORTABLE, Verdict::Rejected),
];

impl Verdict {
    pub(super) fn of_code(code: i16) -> Self {
        VERDICTS.iter().find(|(known, _)| *known == code).map_or(Self::RetryMaybeWritten, |(_, verdict)| *verdict)
    }
}

/// Returns whether the code means that the known leader may be the wrong one.
pub(super) fn is_stale_leader(code: i16) -> bool {
    matches!(
        code,
        code::UNKNOWN_TOPIC_OR_PARTITION
            | code::LEADER_NOT_AVAILABLE
            | code::NOT_LEADER_OR_FOLLOWER
            | code::KAFKA_STORAGE_ERROR
            | code::FENCED_LEADER_EPOCH
            | code::UNKNOWN_LEADER_EPOCH
            | code::UNKNOWN_TOPIC_ID
            | code::INCONSISTENT_TOPIC_ID
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::is_retriable_code;

    #[test]
    fn unknown_codes_are_retried_as_maybe_written() {
        for code in [-1, -7, 13, 27, 41, 91, 999, i16::MAX, i16::MIN] {
            assert_eq!(Verdict::of_code(code), Verdict::RetryMaybeWritten, "{code}");
        }
    }

    #[test]
    fn codes_are_sorted_and_retriable_ones_are_retried() {
        assert!(VERDICTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for code in i16::MIN..=i16::MAX {
            if is_retriable_code(code) {
                assert!(matches!(Verdict::of_code(code), Verdict::Retry | Verdict::RetryMaybeWritten), "{code}");
            }
        }
    }

    #[test]
    fn only_codes_of_unwritten_batches_fail_them_as_not_written() {
        let fails =
            |code| matches!(Verdict::of_code(code), Verdict::TooLarge | Verdict::BadRecords | Verdict::Rejected);
        let all: Vec<i16> = (i16::MIN..=i16::MAX).filter(|code| fails(*code)).collect();
        assert_eq!(all, [10, 17, 18, 21, 29, 31, 32, 35, 42, 43, 44, 48, 49, 53, 76, 87, 120]);
    }
}
