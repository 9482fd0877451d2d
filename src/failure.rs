//! Transient and final failures: the one decision that every retrying loop takes, and the one way
//! in which an outage is logged ([`Outage`]).
//!
//! Final is only what can't change while the process runs: an invalid setting, a login that is
//! rejected before this client ever logged in, an unsupported protocol, a closed client. Everything
//! else is an outage: it is retried with backoff for as long as its caller has time, and is logged
//! and part of health meanwhile. A loop without a caller (membership, fetching, metadata, the
//! producer id) has no deadline; a delivery, a commit and a call have one, and fail at it with the
//! last error.
//!
//! A call whose caller waits for the response uses [`Error::is_retriable`] instead: there a
//! rejection is final.
//!
//! Error codes of a group request are decided first by the group's protocol, which calls
//! [`is_fatal_code`] for the rest: see `on_failure` in `consumer/group/protocol`. Codes of produced
//! batches are in `producer/verdict`.
//!
//! docs/delivery-guarantees.md has the same as a table.

mod outage;

pub(crate) use outage::{OngoingOutage, Outage, OutageLog};

use crate::code;
use crate::error::{Error, ErrorKind};

/// Returns whether a retry can't help.
pub(crate) fn is_fatal(e: &Error) -> bool {
    match e.kind() {
        // An outage, if a login succeeded before or the token source is unavailable.
        ErrorKind::Config | ErrorKind::Authentication | ErrorKind::Unsupported => !e.is_transient(),
        ErrorKind::Broker(code) => is_fatal_code(code),
        ErrorKind::Connect
        | ErrorKind::Disconnected
        | ErrorKind::Timeout
        | ErrorKind::Corrupt // the next response may be intact
        | ErrorKind::UnknownTopic
        | ErrorKind::Authorization
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::GroupMembership => false,
        ErrorKind::Closed
        | ErrorKind::Indeterminate // a retry may write twice
        | ErrorKind::TransactionAborted
        | ErrorKind::TopicExists
        | ErrorKind::RecordTooLarge
        | ErrorKind::InvalidRecord
        | ErrorKind::Event
        | ErrorKind::Handler
        | ErrorKind::Io => true,
    }
}

/// Returns whether a start or a send fails at once with this error: it is final, or the topic does
/// not exist or is not authorized.
pub(crate) fn fails_fast(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::UnknownTopic | ErrorKind::Authorization) || is_fatal(e)
}

/// Returns whether a broker rejects the same request with this code for good. Codes that depend on
/// a state, such as an old generation or a leader that moved, are not among these: the owner of
/// that state handles them.
///
/// Unknown codes and UNKNOWN_SERVER_ERROR are outages.
pub(crate) fn is_fatal_code(code: i16) -> bool {
    matches!(
        code,
        code::INVALID_FETCH_SIZE
            | code::MESSAGE_TOO_LARGE
            | code::RECORD_LIST_TOO_LARGE
            | code::OFFSET_METADATA_TOO_LARGE
            | code::INVALID_COMMIT_OFFSET_SIZE
            | code::INVALID_TOPIC_EXCEPTION
            | code::INVALID_REQUIRED_ACKS
            | code::INVALID_GROUP_ID
            | code::INVALID_SESSION_TIMEOUT
            | code::INVALID_TIMESTAMP
            | code::UNSUPPORTED_SASL_MECHANISM
            | code::ILLEGAL_SASL_STATE
            | code::UNSUPPORTED_VERSION
            | code::TOPIC_ALREADY_EXISTS
            | code::INVALID_PARTITIONS
            | code::INVALID_REPLICATION_FACTOR
            | code::INVALID_REPLICA_ASSIGNMENT
            | code::INVALID_CONFIG
            | code::INVALID_REQUEST
            | code::UNSUPPORTED_FOR_MESSAGE_FORMAT
            | code::POLICY_VIOLATION
            | code::SECURITY_DISABLED
            | code::UNSUPPORTED_COMPRESSION_TYPE
            | code::FENCED_INSTANCE_ID // to rejoin would fence the other member
            | code::INVALID_RECORD
            | code::UNRELEASED_INSTANCE_ID
            | code::UNSUPPORTED_ASSIGNOR
            | code::INVALID_REGULAR_EXPRESSION
    )
}

/// Returns whether somebody must act before an outage ends: it is then reported to the application
/// at once, not only logged.
pub(crate) fn needs_action(e: &Error) -> bool {
    // The two codes: other members must leave the group.
    matches!(
        e.kind(),
        ErrorKind::Authorization | ErrorKind::Broker(code::INCONSISTENT_GROUP_PROTOCOL | code::GROUP_MAX_SIZE_REACHED)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_failures_are_retried() {
        for code in [-1, 6, 7, 14, 15, 16, 29, 30, 31, 56, 78, 89, 999] {
            assert!(!is_fatal(&Error::broker(code, "x")), "{code}");
        }
        for code in [24, 26, 35, 42, 87, 112] {
            assert!(is_fatal(&Error::broker(code, "x")), "{code}");
        }
        for kind in [ErrorKind::Connect, ErrorKind::Disconnected, ErrorKind::Timeout, ErrorKind::Corrupt] {
            assert!(!is_fatal(&Error::new(kind, "x")), "{kind:?}");
        }
    }

    #[test]
    fn a_rejected_login_is_final_until_one_succeeded() {
        for kind in [ErrorKind::Authentication, ErrorKind::Config, ErrorKind::Unsupported] {
            let e = Error::new(kind, "x");
            assert!(is_fatal(&e), "{kind:?}");
            let later = e.into_transient().context("finding the coordinator");
            assert!(!is_fatal(&later) && later.is_retriable() && later.kind() == kind, "{kind:?}");
        }
    }
}
