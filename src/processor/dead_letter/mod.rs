//! Failed records: the headers of dead letters, [records to write](pending), [their
//! destinations](destination), [their writer](writer), [topics](topics) of dead letters and of
//! [delayed retries](retry), and the application's [hooks].

mod destination;
mod hooks;
mod pending;
mod retry;
mod topics;
mod writer;

use std::fmt::Write;

use crate::error::Error;
use crate::event;
use crate::record::{Header, Headers};
use crate::timestamp::Timestamp;
pub(super) use destination::{DeadLetters, has_failed_records, next_retry};
pub use hooks::WrittenDeadLetter;
pub(super) use hooks::{ChooseTopic, Hook, HookCall};
pub(super) use pending::{FailedRecord, HandlerFailure};
pub(super) use retry::{DelayedRecord, RetryPartition, RetryTopics};
pub(super) use writer::DeadLetterWriter;

/// Maximum length of the error text in its header.
const MAX_ERROR_BYTES: usize = 2048;

/// Names of the headers that a failed record gets. The first one begins them: what is before the
/// last header of this name is the record's own.
struct HeaderNames {
    error: &'static str,
    topic: &'static str,
    partition: &'static str,
    offset: &'static str,
    timestamp: &'static str,
    group: &'static str,
    attempts: &'static str,
    first_failure: &'static str,
    last_failure: &'static str,
}

const DEAD_LETTER: HeaderNames = HeaderNames {
    error: "dlq-error",
    topic: "dlq-topic",
    partition: "dlq-partition",
    offset: "dlq-offset",
    timestamp: "dlq-timestamp",
    group: "dlq-group",
    attempts: "dlq-attempts",
    first_failure: "dlq-first-failure",
    last_failure: "dlq-last-failure",
};
const SCHEMA_ID: &str = "dlq-schema-id";
const TRUNCATION: &str = "dlq-left-out";
/// Header of a replayed record, which it has still when it fails again.
const REPLAYS: &str = "dlq-replays";
/// Header of a replayed record: its timestamp before the first replay.
const ORIGINAL_TIMESTAMP: &str = "dlq-original-timestamp";

/// A dead letter: why no attempt could handle a record, and where that is.
///
/// In the dead-letter topic it has the key and value of its record, and these headers after the
/// record's own:
///
/// | header | content |
/// |---|---|
/// | `dlq-error` | the last error and its causes, at most 2,048 bytes |
/// | `dlq-topic`, `dlq-partition`, `dlq-offset` | position of the record |
/// | `dlq-timestamp` | the record's timestamp, milliseconds since 1970; the dead letter's own is the time of its writing, from which retention counts |
/// | `dlq-group` | the group whose handler failed |
/// | `dlq-attempts` | number of attempts |
/// | `dlq-first-failure`, `dlq-last-failure` | their times, RFC 3339 in UTC |
/// | `dlq-schema-id` | only if a codec could not decode it: the id of its schema |
/// | `dlq-left-out` | only if it was too large even compressed: without `value`, `value,headers` or `value,headers,key` |
///
/// ```
/// use ailurus::Message;
/// use ailurus::processor::DeadLetter;
///
/// /// A handler of the topic `orders.dlq`.
/// async fn report(message: Message) -> Result<(), std::convert::Infallible> {
///     if let Some(letter) = DeadLetter::parse(&message.headers) {
///         let at = &letter.origin;
///         println!("{}/{}@{}: {} ({} attempts)", at.topic, at.partition, at.offset, letter.error, letter.attempts);
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The last error and its causes, in one line.
    pub error: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Time at which the first attempt failed.
    pub first_failure: Option<Timestamp>,
    /// Time at which the last attempt failed.
    pub last_failure: Option<Timestamp>,
    /// Position of the record.
    pub origin: Origin,
    /// The record's own headers, in order.
    pub headers: Headers,
    /// Missing parts of the record.
    pub truncation: Truncation,
    /// Id of the record's schema, if a codec could not decode it.
    pub schema_id: Option<String>,
}

/// Position of a dead letter's record.
///
/// ```
/// fn place(origin: &ailurus::processor::Origin) -> String {
///     format!("{}/{}@{}", origin.topic, origin.partition, origin.offset)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The record's timestamp, if it has one.
    pub timestamp: Option<Timestamp>,
    /// Group whose handler failed.
    pub group: Option<String>,
}

/// The parts of its record that a dead letter lacks because it was too large.
///
/// ```
/// use ailurus::processor::Truncation;
///
/// assert!(Truncation::Nothing < Truncation::Value);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Truncation {
    /// Nothing is missing.
    #[default]
    Nothing,
    /// The value is missing.
    Value,
    /// Value and headers are missing.
    ValueAndHeaders,
    /// Value, headers and key are missing.
    ValueHeadersAndKey,
}

impl Truncation {
    /// Returns the next truncation, when this one was not enough.
    pub(in crate::processor) fn next(self) -> Option<Self> {
        match self {
            Self::Nothing => Some(Self::Value),
            Self::Value => Some(Self::ValueAndHeaders),
            Self::ValueAndHeaders => Some(Self::ValueHeadersAndKey),
            Self::ValueHeadersAndKey => None,
        }
    }

    /// Returns the value of the header; empty for `Nothing`.
    pub(in crate::processor) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Value => "value",
            Self::ValueAndHeaders => "value,headers",
            Self::ValueHeadersAndKey => "value,headers,key",
        }
    }

    fn from_name(name: &str) -> Self {
        let all = [Self::Value, Self::ValueAndHeaders, Self::ValueHeadersAndKey];
        all.into_iter().find(|l| l.name() == name).unwrap_or_default()
    }
}

impl DeadLetter {
    /// Parses the headers of a record in a dead-letter topic. Returns `None` if it is no dead
    /// letter, for example a mark of `ailurus dlq`.
    pub fn parse(headers: &Headers) -> Option<Self> {
        Self::parse_as(&DEAD_LETTER, headers)
    }

    fn parse_as(names: &HeaderNames, headers: &Headers) -> Option<Self> {
        let own = headers.iter().enumerate().filter(|(_, h)| h.key_bytes() == names.error.as_bytes()).last()?.0;
        let added: Headers = headers.iter().skip(own).collect();
        let number = |name| added.get_str(name)?.parse::<i64>().ok();
        let time = |name| added.get_str(name)?.parse().ok();
        let origin = Origin {
            topic: added.get_str(names.topic)?.to_owned(),
            partition: added.get_str(names.partition)?.parse().ok()?,
            offset: number(names.offset)?,
            timestamp: number(names.timestamp).map(Timestamp::from_millis),
            group: added.get_str(names.group).map(str::to_owned),
        };
        Some(Self {
            error: String::from_utf8_lossy(added.get(names.error).unwrap_or_default()).into_owned(),
            attempts: added.get_str(names.attempts).and_then(|n| n.parse().ok()).unwrap_or_default(),
            first_failure: time(names.first_failure),
            last_failure: time(names.last_failure),
            origin,
            headers: headers.iter().take(own).collect(),
            truncation: added.get_str(TRUNCATION).map(Truncation::from_name).unwrap_or_default(),
            schema_id: added.get_str(SCHEMA_ID).map(str::to_owned),
        })
    }

    /// Returns the headers of the dead letter: the record's own unless truncated, then those of the
    /// table.
    pub(in crate::processor) fn to_headers(&self) -> Headers {
        self.to_headers_as(&DEAD_LETTER)
    }

    fn to_headers_as(&self, names: &HeaderNames) -> Headers {
        let has_headers = self.truncation < Truncation::ValueAndHeaders;
        let mut headers = if has_headers { self.headers.clone() } else { Headers::new() };
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                headers.push(name, Some(value.as_bytes()));
            }
        };
        let Origin { topic, partition, offset, timestamp, group } = &self.origin;
        add(names.error, Some(clip(&self.error)));
        add(names.topic, Some(topic));
        add(names.partition, Some(&partition.to_string()));
        add(names.offset, Some(&offset.to_string()));
        add(names.timestamp, timestamp.map(|t| t.as_millis().to_string()).as_deref());
        add(names.group, group.as_deref());
        add(names.attempts, Some(&self.attempts.to_string()));
        add(names.first_failure, self.first_failure.map(|t| format!("{t:.3}")).as_deref());
        add(names.last_failure, self.last_failure.map(|t| format!("{t:.3}")).as_deref());
        add(SCHEMA_ID, self.schema_id.as_deref().map(clip));
        add(TRUNCATION, Some(self.truncation.name()).filter(|name| !name.is_empty()));
        headers
    }

    /// Returns the number of replays of the record, which bounds them for records that always fail.
    /// `u32::MAX` if the header can't be parsed.
    pub fn replays(&self) -> u32 {
        let Some(count) = self.headers.get(REPLAYS) else { return 0 };
        std::str::from_utf8(count).ok().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
    }

    /// Returns the headers to replay the record with: its own, and those that identify it:
    ///
    /// - `dlq-replays` counts its replays;
    /// - `dlq-original-timestamp` is its timestamp before the first replay, in milliseconds since
    ///   1970; the replayed record has the current time, because brokers delete by timestamps;
    /// - `ce_id` and `ce_time`, unless it has them, are the id and time that
    ///   [`Envelope`](crate::Envelope) derived from its original position: the same in each replay.
    pub fn replay_headers(&self) -> Headers {
        let is_count = |h: &Header<'_>| h.key_bytes() == REPLAYS.as_bytes();
        let own: Headers = self.headers.iter().filter(|h| !is_count(h)).collect();
        let Origin { topic, partition, offset, timestamp, .. } = &self.origin;
        let named = event::preserve_identity(own, (topic, *partition, *offset), *timestamp);
        let original = timestamp.filter(|_| named.get(ORIGINAL_TIMESTAMP).is_none());
        let headers = original.into_iter().fold(named, |h, t| h.with(ORIGINAL_TIMESTAMP, t.as_millis().to_string()));
        headers.with(REPLAYS, self.replays().saturating_add(1).to_string())
    }
}

/// Returns an error and its causes in one line.
pub(in crate::processor) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    crate::error::chain(error)
}

/// Returns the schema id that an error, or a cause of it, has.
fn schema_id(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.filter_map(|e| e.downcast_ref::<Error>()?.schema_id()).next().map(str::to_owned)
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Formats a key for logs: escaped, and truncated if long.
pub(in crate::processor) fn printable_key(key: &[u8]) -> String {
    const CHARS: usize = 64;
    let text = String::from_utf8_lossy(key);
    let mut shown = text.chars().take(CHARS).flat_map(char::escape_debug).collect::<String>();
    if text.chars().nth(CHARS).is_some() {
        _ = write!(shown, "… ({} bytes)", key.len()); // writing to a String can't fail
    }
    shown
}

#[cfg(test)]
mod tests;
