//! The error type of the crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use kafka_protocol::ResponseError;

use crate::code;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of any call of the crate.
///
/// Its text says what failed, where, after how long and what to do about it; [`kind`](Error::kind)
/// and the predicates are for code. `{:#}` prints it with its causes. It is cheap to clone, so all
/// records of a failed batch share one.
///
/// ```
/// use ailurus::{Config, ErrorKind};
///
/// let error = Config::builder().brokers("not an address").build().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert!(!error.is_retriable());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>, Option<Transient>);

struct Inner {
    kind: ErrorKind,
    /// Error code of the response that this error or its cause is about.
    broker_code: Option<i16>,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    event_id: Option<String>,
    schema_id: Option<String>,
}

impl Inner {
    fn copy(&self) -> Self {
        Self {
            kind: self.kind,
            broker_code: self.broker_code,
            message: self.message.clone(),
            source: self.source.clone(),
            event_id: self.event_id.clone(),
            schema_id: self.schema_id.clone(),
        }
    }
}

/// Reason why an error is an outage although its kind is fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transient {
    /// The client was authenticated before, or another broker may accept it.
    Broker,
    /// The token source is unavailable, whichever broker is tried.
    TokenSource,
}

/// Classes of [`Error`].
///
/// ```
/// use ailurus::{Error, ErrorKind};
///
/// fn belongs_to_the_sender(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::RecordTooLarge | ErrorKind::InvalidRecord | ErrorKind::Event)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing or invalid.
    Config,
    /// No broker could be reached.
    Connect,
    /// A connection closed while a request was in flight.
    Disconnected,
    /// A deadline expired.
    Timeout,
    /// A record was sent, but whether it was written is unknown, and it is not retried: sending it
    /// again may write it twice.
    Indeterminate,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// The topic exists already.
    TopicExists,
    /// The login failed: the broker rejected the credentials, failed mutual authentication or lacks
    /// the mechanism, or there was no token. [`is_retriable`](Error::is_retriable) is true if the
    /// login succeeded before or the token source is unavailable; otherwise it fails until somebody
    /// changes that.
    Authentication,
    /// The broker denied the operation.
    Authorization,
    /// A record exceeds the limit of the producer or the broker.
    RecordTooLarge,
    /// A record is invalid (a partition that does not exist, a negative timestamp).
    InvalidRecord,
    /// The member was removed from its group, or its partitions were reassigned.
    GroupMembership,
    /// The offset is not in the log.
    OffsetOutOfRange,
    /// A response violates the protocol, or a checksum is wrong.
    Corrupt,
    /// The broker does not support the request.
    Unsupported,
    /// A broker responded with an error code without a kind of its own: see [`Error::broker_code`].
    Broker(i16),
    /// The handle was closed.
    Closed,
    /// The record's transaction was aborted: no reader of committed records sees it.
    TransactionAborted,
    /// An event could not be encoded or decoded.
    Event,
    /// A handler failed.
    Handler,
    /// A file or a store failed.
    Io,
}

impl ErrorKind {
    /// Returns a name for labels and fields, of low cardinality: such as `timeout`, or the
    /// protocol's name of a broker's code, such as `NotLeaderOrFollower`.
    ///
    /// ```
    /// assert_eq!(ailurus::ErrorKind::Indeterminate.name(), "fate_unknown");
    /// assert_eq!(ailurus::ErrorKind::Broker(6).name(), "NotLeaderOrFollower");
    /// ```
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Indeterminate => "fate_unknown",
            Self::UnknownTopic => "unknown_topic",
            Self::TopicExists => "topic_exists",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::RecordTooLarge => "record_too_large",
            Self::InvalidRecord => "invalid_record",
            Self::GroupMembership => "group_membership",
            Self::OffsetOutOfRange => "offset_out_of_range",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::TransactionAborted => "transaction_aborted",
            Self::Event => "event",
            Self::Handler => "handler",
            Self::Io => "io",
            Self::Broker(code) => {
                return match ResponseError::try_from_code(code) {
                    None | Some(ResponseError::Unknown(_)) => format!("code_{code}").into(),
                    Some(e) => format!("{e:?}").into(),
                };
            }
        })
    }
}

impl Error {
    /// Creates an error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::build(kind, message.into(), None)
    }

    /// Creates an error with a cause.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::build(kind, message.into(), Some(Arc::from(source.into())))
    }

    fn build(kind: ErrorKind, message: String, source: Option<Arc<dyn StdError + Send + Sync>>) -> Self {
        let broker_code = if let ErrorKind::Broker(code) = kind { Some(code) } else { None };
        Self(Arc::new(Inner { kind, broker_code, message, source, event_id: None, schema_id: None }), None)
    }

    /// Creates an error for a code that a broker responded with; `what` names the request.
    pub(crate) fn broker(code: i16, what: impl fmt::Display) -> Self {
        let name = code_name(code);
        let hint = hint(code).map(|a| format!("; {a}")).unwrap_or_default();
        Self::from_code(code, format!("{what}: the broker returned {name} ({code}){hint}"))
    }

    /// Creates an error for a code that a broker responded with, with a message that explains the code.
    pub(crate) fn from_code(code: i16, message: impl Into<String>) -> Self {
        let (kind, message) = (kind_of(code), message.into());
        Self(
            Arc::new(Inner { kind, broker_code: Some(code), message, source: None, event_id: None, schema_id: None }),
            None,
        )
    }

    /// Adds the code of the response that this error explains; the kind stays.
    #[must_use]
    pub(crate) fn with_broker_code(self, code: i16) -> Self {
        Self(Arc::new(Inner { broker_code: Some(code), ..self.0.copy() }), self.1)
    }

    /// Prefixes what was being done; kind, code and retriability stay.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        let (transient, copy) = (self.1, self.0.copy());
        Self(Arc::new(Inner { message: what.to_string(), source: Some(Arc::new(self)), ..copy }), transient)
    }

    /// Adds the id of the event that was being sent.
    pub(crate) fn with_event_id(&self, id: &str) -> Self {
        let message = format!("{} (event {id})", self.0.message);
        Self(Arc::new(Inner { message, event_id: Some(id.to_owned()), ..self.0.copy() }), self.1)
    }

    /// Returns the id of the event that was not sent, or whose outcome is unknown: sent again under
    /// that id ([`SendOptions::id`](crate::SendOptions::id)), consumers that track ids recognise
    /// the duplicate.
    pub fn event_id(&self) -> Option<&str> {
        self.0.event_id.as_deref()
    }

    /// Adds the id of the schema that a record which can't be decoded was written with.
    #[must_use]
    pub fn with_schema_id(self, id: impl Into<String>) -> Self {
        Self(Arc::new(Inner { schema_id: Some(id.into()), ..self.0.copy() }), self.1)
    }

    /// Returns the id of the schema that a record which can't be decoded was written with: the header
    /// `dlq-schema-id` of its dead letter.
    pub fn schema_id(&self) -> Option<&str> {
        self.0.schema_id.as_deref()
    }

    /// Marks an error as an outage: a login that is rejected after it succeeded before, for
    /// example.
    #[must_use]
    pub(crate) fn into_transient(self) -> Self {
        let why = self.1.unwrap_or(Transient::Broker);
        Self(self.0, Some(why))
    }

    /// Marks an error as an outage of the token source, which no broker can remedy.
    #[must_use]
    pub(crate) fn into_token_source_outage(self) -> Self {
        Self(self.0, Some(Transient::TokenSource))
    }

    /// Returns whether the error is marked as an outage, whatever its kind.
    pub(crate) fn is_transient(&self) -> bool {
        self.1.is_some()
    }

    /// Returns whether the error occurs whichever broker is tried, because there is no token.
    pub(crate) fn is_token_source_outage(&self) -> bool {
        self.1 == Some(Transient::TokenSource)
    }

    /// Returns the class.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the protocol's error code, if a broker responded with one. It distinguishes the codes
    /// that share a [`kind`](Self::kind).
    ///
    /// ```no_run
    /// # fn retry(error: ailurus::Error) {
    /// const FENCED_INSTANCE_ID: i16 = 82;
    /// if error.kind() == ailurus::ErrorKind::GroupMembership && error.broker_code() == Some(FENCED_INSTANCE_ID) {
    ///     // Another member has the same `group_instance_id`.
    /// }
    /// # }
    /// ```
    pub fn broker_code(&self) -> Option<i16> {
        self.0.broker_code
    }

    /// Returns whether the same call may succeed later without a change by the caller.
    ///
    /// The library has retried such errors itself until its own deadline; this is for the layer
    /// above.
    pub fn is_retriable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Disconnected | ErrorKind::Timeout => true,
            ErrorKind::Broker(code) => is_retriable_code(code),
            _ => self.is_transient(),
        }
    }

    /// Returns whether a deadline expired.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Returns whether the topic or partition does not exist.
    pub fn is_unknown_topic(&self) -> bool {
        self.0.kind == ErrorKind::UnknownTopic
    }

    /// Returns whether it is unknown if a record was written.
    pub fn is_indeterminate(&self) -> bool {
        self.0.kind == ErrorKind::Indeterminate
    }

    /// Returns whether the handle was closed before.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::Closed
    }

    /// Returns what `{:#}` prints.
    pub(crate) fn full(&self) -> String {
        chain(self)
    }
}

/// Returns the text of an error and its causes, in one line without repetitions.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut last = error.to_string();
    let mut text = last.clone();
    let mut next = error.source();
    while let Some(cause) = next {
        let text_of_cause = cause.to_string();
        if !text_of_cause.is_empty() && !text.contains(&text_of_cause) {
            // A cause may begin with what was being done, too.
            let new =
                text_of_cause.strip_prefix(&last).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text_of_cause);
            text.push_str(": ");
            text.push_str(new);
        }
        last = text_of_cause;
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.alternate() {
            true => f.write_str(&chain(self)),
            false => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.full())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

/// Returns the protocol's name of an error code, such as `NotLeaderOrFollower`.
pub(crate) fn code_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "no error".into(),
        Some(ResponseError::Unknown(_)) => "an unknown error".into(),
        Some(e) => format!("{e:?}"),
    }
}

/// Returns the kind of a code other than 0.
pub(crate) fn kind_of(code: i16) -> ErrorKind {
    match code {
        code::OFFSET_OUT_OF_RANGE => ErrorKind::OffsetOutOfRange,
        code::CORRUPT_MESSAGE => ErrorKind::Corrupt,
        code::UNKNOWN_TOPIC_OR_PARTITION => ErrorKind::UnknownTopic,
        code::MESSAGE_TOO_LARGE | code::RECORD_LIST_TOO_LARGE => ErrorKind::RecordTooLarge,
        code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID | code::REBALANCE_IN_PROGRESS | code::FENCED_INSTANCE_ID => {
            ErrorKind::GroupMembership
        }
        code::TOPIC_AUTHORIZATION_FAILED | code::GROUP_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED => {
            ErrorKind::Authorization
        }
        code::UNSUPPORTED_SASL_MECHANISM | code::ILLEGAL_SASL_STATE | code::SASL_AUTHENTICATION_FAILED => {
            ErrorKind::Authentication
        }
        code::UNSUPPORTED_VERSION | code::SECURITY_DISABLED => ErrorKind::Unsupported,
        code::TOPIC_ALREADY_EXISTS => ErrorKind::TopicExists,
        code::INVALID_RECORD => ErrorKind::InvalidRecord,
        code => ErrorKind::Broker(code),
    }
}

/// Returns whether the protocol calls the code retriable.
pub(crate) fn is_retriable_code(code: i16) -> bool {
    // UnknownTopicOrPartition is retriable in the protocol because metadata spreads with a delay; callers decide how long.
    ResponseError::try_from_code(code).is_some_and(|e| e.is_retriable())
}

/// Returns what to do about an error code, where its name does not say so.
fn hint(code: i16) -> Option<&'static str> {
    Some(match code {
        code::UNKNOWN_TOPIC_OR_PARTITION => "create the topic first, or allow it by Config::allow_auto_topic_creation",
        code::MESSAGE_TOO_LARGE => "raise the topic's max.message.bytes or send smaller records",
        code::INVALID_TOPIC_EXCEPTION => {
            "a topic's name has 1 to 249 letters, digits, '.', '_' and '-', and is neither '.' nor '..'"
        }
        code::NOT_ENOUGH_REPLICAS | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND => {
            "fewer replicas are in sync than min.insync.replicas requires: check the brokers"
        }
        code::INVALID_SESSION_TIMEOUT => {
            "the broker bounds session timeouts (6 s to 300 s by default): change ConsumerConfig::session_timeout"
        }
        code::INCONSISTENT_GROUP_PROTOCOL => "all members of a group must share an assignor: check their settings",
        code::SECURITY_DISABLED => "it keeps no access control lists: Kafka does with authorizer.class.name set",
        code::NON_EMPTY_GROUP => "the group has members: stop them first",
        code::GROUP_ID_NOT_FOUND => "the group does not exist",
        code::TRANSACTIONAL_ID_NOT_FOUND => "no producer has used the transactional id, or it has expired",
        code::GROUP_SUBSCRIBED_TO_TOPIC => "members of the group subscribe to the topic: stop them first",
        code::TOPIC_AUTHORIZATION_FAILED | code::GROUP_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED => {
            "check the ACLs of this client's principal"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_code_keeps_its_name_and_says_what_to_do() {
        let e = Error::broker(3, "produce to orders/0 on 127.0.0.1:9092");
        assert_eq!(e.kind(), ErrorKind::UnknownTopic);
        assert!(e.to_string().contains("UnknownTopicOrPartition (3); create the topic"), "{e}");
        assert!(Error::broker(6, "x").is_retriable());
        assert_eq!(Error::broker(6, "x").broker_code(), Some(6));
        assert!(!Error::broker(10, "x").is_retriable());
        let codes = [22, 25, 27, 82].map(|code| Error::broker(code, "x").context("joining").with_event_id("e"));
        assert!(codes.iter().all(|e| e.kind() == ErrorKind::GroupMembership));
        assert_eq!(codes.map(|e| e.broker_code()), [Some(22), Some(25), Some(27), Some(82)], "each code is kept");
    }

    #[test]
    fn a_cause_is_printed_once() {
        let io = || std::io::Error::other("no route to host");
        let connect = Error::with_source(ErrorKind::Connect, "a:1 can't be reached: no route to host", io());
        assert_eq!(connect.full(), "a:1 can't be reached: no route to host");
        let described = Error::broker(15, "describing group \"g\"").context("describing group \"g\"");
        assert!(described.full().starts_with("describing group \"g\": the broker returned"), "{}", described.full());
        let two = Error::with_source(ErrorKind::Io, "reading x", io()).context("starting");
        assert_eq!(two.full(), "starting: reading x: no route to host");
    }

    #[test]
    fn context_keeps_kind_and_chain() {
        let e = Error::broker(7, "fetch").context("reading orders");
        assert_eq!(e.broker_code(), Some(7));
        assert!(e.full().starts_with("reading orders: fetch: the broker returned RequestTimedOut (7)"), "{}", e.full());
    }
}
