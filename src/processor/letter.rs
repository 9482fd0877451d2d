//! The form of a dead letter: what it says of the record it was, in headers behind those of the record.

use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::Write;

use crate::event;
use crate::record::{Header, Headers};

/// The longest error text kept in a header, in bytes.
const ERROR_TEXT: usize = 2048;

/// The first header of those that make a record a dead letter: what stands before the last one of this name is the record's.
const ERROR: &str = "dlq-error";
const TOPIC: &str = "dlq-topic";
const PARTITION: &str = "dlq-partition";
const OFFSET: &str = "dlq-offset";
const TIMESTAMP: &str = "dlq-timestamp";
const GROUP: &str = "dlq-group";
const ATTEMPTS: &str = "dlq-attempts";
const FIRST_FAILURE: &str = "dlq-first-failure";
const LAST_FAILURE: &str = "dlq-last-failure";
const LEFT_OUT: &str = "dlq-left-out";
/// Of a replayed record; it stays with the record when that fails again.
const REPLAYS: &str = "dlq-replays";
/// Of a replayed record: the timestamp it had before its first replay.
const ORIGINAL_TIMESTAMP: &str = "dlq-original-timestamp";

/// A record that no attempt could handle: why, and where it was.
///
/// In the dead-letter topic it has the key and the value of the record it was, and these headers behind the record's own:
///
/// | header | holds |
/// |---|---|
/// | `dlq-error` | the last error and its causes, at most 2,048 bytes |
/// | `dlq-topic`, `dlq-partition`, `dlq-offset` | where the record is |
/// | `dlq-timestamp` | the record's timestamp, milliseconds since 1970; the letter's own is that of its writing, so that it is kept for as long as the dead-letter topic keeps records |
/// | `dlq-group` | the group that could not handle it |
/// | `dlq-attempts` | how often it was tried |
/// | `dlq-first-failure`, `dlq-last-failure` | when, RFC 3339 in UTC |
/// | `dlq-left-out` | only if the letter was too large, compressed too: `value`, `value,headers` or `value,headers,key` are not in it |
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
    /// How often the record was tried.
    pub attempts: u32,
    /// When the first attempt failed.
    pub first_failure: Option<DateTime<Utc>>,
    /// When the last attempt failed.
    pub last_failure: Option<DateTime<Utc>>,
    /// Where the record is.
    pub origin: Origin,
    /// The record's own headers, in order.
    pub headers: Headers,
    /// What of the record is not in the letter.
    pub left_out: Truncation,
}

/// Where a dead letter's record is.
///
/// ```
/// fn place(origin: &ailurus::processor::Origin) -> String {
///     format!("{}/{}@{}", origin.topic, origin.partition, origin.offset)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970, if it has one.
    pub timestamp: Option<i64>,
    /// The group that could not handle it.
    pub group: Option<String>,
}

/// What of its record a dead letter does not have, because it was too large with it.
///
/// ```
/// use ailurus::processor::Truncation;
///
/// assert!(Truncation::Nothing < Truncation::Value);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Truncation {
    /// All is there.
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
    /// What to leave out when that was not enough.
    pub(super) fn more(self) -> Option<Self> {
        match self {
            Self::Nothing => Some(Self::Value),
            Self::Value => Some(Self::ValueAndHeaders),
            Self::ValueAndHeaders => Some(Self::ValueHeadersAndKey),
            Self::ValueHeadersAndKey => None,
        }
    }

    /// As the header says it; nothing for nothing.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Value => "value",
            Self::ValueAndHeaders => "value,headers",
            Self::ValueHeadersAndKey => "value,headers,key",
        }
    }

    fn named(name: &str) -> Self {
        let all = [Self::Value, Self::ValueAndHeaders, Self::ValueHeadersAndKey];
        all.into_iter().find(|l| l.name() == name).unwrap_or_default()
    }
}

impl DeadLetter {
    /// Reads the headers of a record of a dead-letter topic; `None` if it is no dead letter, as the marks are not by which
    /// `ailurus dlq` knows what it has done with.
    pub fn parse(headers: &Headers) -> Option<Self> {
        let own = headers.iter().enumerate().filter(|(_, h)| h.key_bytes() == ERROR.as_bytes()).last()?.0;
        let said: Headers = headers.iter().skip(own).collect();
        let number = |name| said.get_str(name)?.parse::<i64>().ok();
        let time = |name| Some(DateTime::parse_from_rfc3339(said.get_str(name)?).ok()?.to_utc());
        let origin = Origin {
            topic: said.get_str(TOPIC)?.to_owned(),
            partition: said.get_str(PARTITION)?.parse().ok()?,
            offset: number(OFFSET)?,
            timestamp: number(TIMESTAMP),
            group: said.get_str(GROUP).map(str::to_owned),
        };
        Some(Self {
            error: String::from_utf8_lossy(said.get(ERROR).unwrap_or_default()).into_owned(),
            attempts: said.get_str(ATTEMPTS).and_then(|n| n.parse().ok()).unwrap_or_default(),
            first_failure: time(FIRST_FAILURE),
            last_failure: time(LAST_FAILURE),
            origin,
            headers: headers.iter().take(own).collect(),
            left_out: said.get_str(LEFT_OUT).map(Truncation::named).unwrap_or_default(),
        })
    }

    /// The headers of the letter: those of the record, if they are not left out, then what is said of it.
    pub(super) fn to_headers(&self) -> Headers {
        let keeps = self.left_out < Truncation::ValueAndHeaders;
        let mut headers = if keeps { self.headers.clone() } else { Headers::new() };
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                headers.push(name, Some(value.as_bytes()));
            }
        };
        let Origin { topic, partition, offset, timestamp, group } = &self.origin;
        add(ERROR, Some(clip(&self.error)));
        add(TOPIC, Some(topic));
        add(PARTITION, Some(&partition.to_string()));
        add(OFFSET, Some(&offset.to_string()));
        add(TIMESTAMP, timestamp.map(|t| t.to_string()).as_deref());
        add(GROUP, group.as_deref());
        add(ATTEMPTS, Some(&self.attempts.to_string()));
        add(FIRST_FAILURE, self.first_failure.map(rfc3339).as_deref());
        add(LAST_FAILURE, self.last_failure.map(rfc3339).as_deref());
        add(LEFT_OUT, Some(self.left_out.name()).filter(|name| !name.is_empty()));
        headers
    }

    /// How often the record was replayed before it came here: what keeps one that can't be handled from going round for
    /// ever. A count that can't be read is the largest there is.
    pub fn replays(&self) -> u32 {
        let Some(count) = self.headers.get(REPLAYS) else { return 0 };
        std::str::from_utf8(count).ok().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
    }

    /// The headers to replay the record with: its own, and those by which readers know it again.
    ///
    /// - `dlq-replays` counts the replays;
    /// - `dlq-original-timestamp` is the timestamp that the record had before its first replay, in milliseconds since 1970: it is
    ///   replayed as of now, for brokers delete by timestamps;
    /// - `ce_id` and `ce_time`, where the record has none, are what [`Envelope`](crate::Envelope) gave as id and time of the event when
    ///   it was read at its first place: the same in each replay.
    pub fn replay_headers(&self) -> Headers {
        let counts = |h: &Header<'_>| h.key_bytes() == REPLAYS.as_bytes();
        let own: Headers = self.headers.iter().filter(|h| !counts(h)).collect();
        let Origin { topic, partition, offset, timestamp, .. } = &self.origin;
        let named = event::name_again(own, (topic, *partition, *offset), *timestamp);
        let original = timestamp.filter(|_| named.get(ORIGINAL_TIMESTAMP).is_none());
        let headers = original.into_iter().fold(named, |h, t| h.with(ORIGINAL_TIMESTAMP, t.to_string()));
        headers.with(REPLAYS, self.replays().saturating_add(1).to_string())
    }
}

fn rfc3339(t: DateTime<Utc>) -> String {
    t.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// An error and its causes in one line.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    crate::error::chain(error)
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(ERROR_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A key for logs: escaped, and cut where it is long.
pub(super) fn shown(key: &[u8]) -> String {
    const CHARS: usize = 64;
    let text = String::from_utf8_lossy(key);
    let mut shown = text.chars().take(CHARS).flat_map(char::escape_debug).collect::<String>();
    if text.chars().nth(CHARS).is_some() {
        _ = write!(shown, "… ({} bytes)", key.len()); // a String takes all
    }
    shown
}
