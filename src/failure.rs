//! What passes and what is final: the one decision that every loop asks that goes on by itself, and the one way in which an outage
//! stands in the log ([`Outage`]).
//!
//! Final is only what cannot get better while the process runs: a setting that is wrong, a login that is refused before this client was
//! ever let in, a protocol that is not spoken, a client that was closed. Everything else is an outage: it is tried again with backoff for as
//! long as whoever waits has time, and stands in the log and in health meanwhile. A loop that serves nobody in particular (membership, fetching,
//! metadata, the producer's identity) has no deadline; a delivery, a commit and a call have one, and end at it with the last failure.
//!
//! A call whose caller waits for its answer asks [`Error::is_retriable`] instead: there a refusal is an answer.
//!
//! docs/delivery-guarantees.md has the same as a table.

mod outage;

pub(crate) use outage::{OngoingOutage, Outage};

use crate::code;
use crate::error::{Error, ErrorKind};

/// Whether trying again can't help.
pub(crate) fn is_final(e: &Error) -> bool {
    match e.kind() {
        // Of a client that was let in once, or whose token source is away, it is an outage.
        ErrorKind::Config | ErrorKind::Authentication | ErrorKind::Unsupported => !e.is_transient(),
        ErrorKind::Broker(code) => is_final_code(code),
        ErrorKind::Connect
        | ErrorKind::Disconnected
        | ErrorKind::Timeout
        | ErrorKind::Corrupt // better bytes may come
        | ErrorKind::UnknownTopic
        | ErrorKind::Authorization
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::GroupMembership => false,
        ErrorKind::Closed
        | ErrorKind::Indeterminate // a repetition may write twice
        | ErrorKind::TopicExists
        | ErrorKind::RecordTooLarge
        | ErrorKind::InvalidRecord
        | ErrorKind::Event
        | ErrorKind::Handler
        | ErrorKind::Io => true,
    }
}

/// Whether this is what a start or a send has to hear, and not wait for: it is final, or a topic that does not exist or may not be used.
pub(crate) fn fails_fast(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::UnknownTopic | ErrorKind::Authorization) || is_final(e)
}

/// Whether a request that a broker refuses with this code will be refused with it for as long as it is the same request. What a code means
/// to a certain state (a generation that is over, a leader that has moved) is for whoever keeps that state.
///
/// A code that is not known, and a broker that says no more than that something went wrong (-1), are outages.
pub(crate) fn is_final_code(code: i16) -> bool {
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
            | code::FENCED_INSTANCE_ID // to come back would fence the other one
            | code::INVALID_RECORD
            | code::UNRELEASED_INSTANCE_ID
            | code::UNSUPPORTED_ASSIGNOR
            | code::INVALID_REGULAR_EXPRESSION
    )
}

/// Whether somebody has to act before an outage ends, so that a program is told of it at once, and not its log alone.
pub(crate) fn needs_action(e: &Error) -> bool {
    // The two codes: other members have to go.
    matches!(
        e.kind(),
        ErrorKind::Authorization | ErrorKind::Broker(code::INCONSISTENT_GROUP_PROTOCOL | code::GROUP_MAX_SIZE_REACHED)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_to_be_final_is_tried_again() {
        for code in [-1, 6, 7, 14, 15, 16, 29, 30, 31, 56, 78, 89, 999] {
            assert!(!is_final(&Error::broker(code, "x")), "{code}");
        }
        for code in [24, 26, 35, 42, 87, 112] {
            assert!(is_final(&Error::broker(code, "x")), "{code}");
        }
        for kind in [ErrorKind::Connect, ErrorKind::Disconnected, ErrorKind::Timeout, ErrorKind::Corrupt] {
            assert!(!is_final(&Error::new(kind, "x")), "{kind:?}");
        }
    }

    #[test]
    fn a_refused_login_is_final_until_the_client_was_let_in_once() {
        for kind in [ErrorKind::Authentication, ErrorKind::Config, ErrorKind::Unsupported] {
            let e = Error::new(kind, "x");
            assert!(is_final(&e), "{kind:?}");
            let later = e.into_transient().context("finding the coordinator");
            assert!(!is_final(&later) && later.is_retriable() && later.kind() == kind, "{kind:?}");
        }
    }
}
