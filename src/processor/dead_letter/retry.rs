//! Delayed retries: the topics in which failed records wait for their next attempts, without I/O.
//!
//! A record whose attempts have failed is written to the first retry topic of its topic, from there
//! to the next one, and after the last one to the dead-letter topic. Its headers have its origin and
//! the time at which it is due. Records of a retry topic have the same delay, so that they are due
//! in the order of the log: its partitions are held until their next record is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{DeadLetter, HeaderNames};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Headers;
use crate::timestamp::Timestamp;

/// Between a topic's name and those of group and delay in the name of a retry topic.
const INFIX: &str = ".retry.";
/// Header of the time at which a record is due, in milliseconds since 1970.
const DUE: &str = "retry-due";

const RETRY: HeaderNames = HeaderNames {
    error: "retry-error",
    topic: "retry-topic",
    partition: "retry-partition",
    offset: "retry-offset",
    timestamp: "retry-timestamp",
    group: "retry-group",
    attempts: "retry-attempts",
    first_failure: "retry-first-failure",
    last_failure: "retry-last-failure",
};

/// The retry topics of a group: `orders.retry.billing.10m` has the records of `orders` that the
/// group `billing` handles again 10 minutes later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::processor) struct RetryTopics {
    /// Text between the names of topic and delay.
    infix: String,
    delays: Vec<Duration>,
}

impl RetryTopics {
    /// # Errors
    /// [`ErrorKind::Config`] if the group's name can't be part of a topic's.
    pub(in crate::processor) fn new(group: &str, delays: &[Duration]) -> Result<Self> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // With ".retry." in it, two groups could have topics of the same name: those of "a" and the
        // group "b.retry.c", and those of "a.retry.b" and "c".
        let is_named = group.chars().all(is_legal) && !format!(".{group}.").contains(INFIX);
        if !delays.is_empty() && !is_named {
            let what = format!(
                "the group {group:?} can't have delayed retries (ProcessorConfig::delayed_retries): its name is part of the \
                 names of retry topics, where letters, digits, '.', '_' and '-' are allowed, without {INFIX:?}"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        Ok(Self { infix: format!("{INFIX}{group}."), delays: delays.to_vec() })
    }

    pub(in crate::processor) fn is_empty(&self) -> bool {
        self.delays.is_empty()
    }

    /// Returns whether a topic has the name of a retry topic, of any group.
    pub(super) fn is_retry_topic(name: &str) -> bool {
        name.contains(INFIX)
    }

    /// Returns what the names of its topics have in common.
    pub(in crate::processor) fn infix(&self) -> &str {
        &self.infix
    }

    /// Returns the retry topics of a topic, by delay.
    pub(in crate::processor) fn names(&self, topic: &str) -> Vec<String> {
        self.delays.iter().map(|delay| self.name(topic, *delay)).collect()
    }

    /// Returns a retry topic of a topic, by its place among the delays, and its delay.
    pub(super) fn get(&self, topic: &str, place: usize) -> Option<(String, Duration)> {
        let delay = *self.delays.get(place)?;
        Some((self.name(topic, delay), delay))
    }

    fn name(&self, topic: &str, delay: Duration) -> String {
        format!("{topic}{}{}", self.infix, delay_name(delay))
    }

    /// Returns the topic that a retry topic belongs to, and its place among the delays.
    pub(in crate::processor) fn parse<'a>(&self, name: &'a str) -> Option<(&'a str, usize)> {
        let (topic, delay) = name.rsplit_once(&*self.infix).filter(|(topic, _)| !topic.is_empty())?;
        let place = self.delays.iter().position(|d| delay_name(*d) == delay)?;
        Some((topic, place))
    }

    /// Returns whether a topic is a retry topic of one of `topics` for another delay.
    pub(super) fn is_unread(&self, name: &str, topics: &[&str]) -> bool {
        let of = name.rsplit_once(&*self.infix).map(|(topic, _)| topic);
        of.is_some_and(|topic| topics.contains(&topic)) && self.parse(name).is_none()
    }

    /// Returns what a worker needs of a partition of a retry topic; `None` for other topics.
    pub(in crate::processor) fn partition(&self, topic: &str) -> Option<RetryPartition> {
        let (_, place) = self.parse(topic)?;
        Some(RetryPartition { place, delay: *self.delays.get(place)? })
    }
}

/// A partition of a retry topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) struct RetryPartition {
    /// Place among the delays.
    pub(in crate::processor) place: usize,
    delay: Duration,
}

impl RetryPartition {
    /// Returns until when a record must wait; `None` if it is due, or is no delayed retry. However
    /// wrong the clock of its writer was, that is no longer than the delay.
    pub(in crate::processor) fn held_until(&self, message: &Message, wall: Timestamp, now: Instant) -> Option<Instant> {
        let wait = due(&message.headers)?.saturating_duration_since(wall).min(self.delay);
        (!wait.is_zero()).then(|| now + wait)
    }
}

/// A record of a retry topic as it was in its origin topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::processor) struct DelayedRecord {
    topic: Arc<str>,
    failure: DeadLetter,
}

impl DelayedRecord {
    pub(in crate::processor) fn parse(headers: &Headers) -> Option<Self> {
        due(headers)?;
        let failure = DeadLetter::parse_as(&RETRY, headers)?;
        Some(Self { topic: failure.origin.topic.as_str().into(), failure })
    }

    /// Returns the number of attempts before.
    pub(in crate::processor) fn attempts(&self) -> u32 {
        self.failure.attempts
    }

    pub(in crate::processor) fn first_failure(&self) -> Option<Timestamp> {
        self.failure.first_failure
    }

    /// Makes a record of a retry topic what it was in its origin topic, in all but its trace.
    pub(in crate::processor) fn restore(&self, message: &mut Message) {
        let origin = &self.failure.origin;
        message.topic = Arc::clone(&self.topic);
        (message.partition, message.offset) = (origin.partition, origin.offset);
        message.timestamp = origin.timestamp.unwrap_or(Timestamp::NONE);
        message.headers = self.failure.headers.clone();
    }
}

/// Returns the headers of a record in a retry topic.
pub(super) fn to_headers(failure: &DeadLetter, due: Timestamp) -> Headers {
    failure.to_headers_as(&RETRY).with(DUE, due.as_millis().to_string())
}

fn due(headers: &Headers) -> Option<Timestamp> {
    headers.get_str(DUE)?.parse().ok().map(Timestamp::from_millis)
}

/// Returns a delay as in names of topics: `10m`, with the largest unit in which it is a whole number.
fn delay_name(delay: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let ms = delay.as_millis();
    let unit = UNITS.into_iter().find(|(unit, _)| ms >= *unit && ms % unit == 0);
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{Origin, Truncation};
    use super::*;
    use crate::record::Record;

    const MINUTE: Duration = Duration::from_secs(60);

    fn failure(headers: Headers) -> DeadLetter {
        let at = |millis| Some(Timestamp::from_millis(millis));
        let (topic, group) = ("orders".to_owned(), Some("billing".to_owned()));
        DeadLetter {
            error: "no".into(),
            attempts: 4,
            first_failure: at(1000),
            last_failure: at(2500),
            origin: Origin { topic, partition: 3, offset: 42, timestamp: at(7), group },
            headers,
            truncation: Truncation::Nothing,
            schema_id: None,
        }
    }

    fn message(headers: Headers) -> Message {
        let record = Record { offset: 5, timestamp: Timestamp::from_millis(9), key: None, value: None, headers };
        Message::new("orders.retry.billing.1m".into(), 0, record)
    }

    #[test]
    fn retry_topics_are_named_after_topic_group_and_delay() {
        let delays = [MINUTE, 90 * MINUTE, 120 * MINUTE, 2880 * MINUTE, Duration::from_millis(250)];
        let topics = RetryTopics::new("billing", &delays).unwrap();
        let names = topics.names("orders");
        let of = |delay: &str| format!("orders.retry.billing.{delay}");
        assert_eq!(names, ["1m", "90m", "2h", "2d", "250ms"].map(of));
        for (place, name) in names.iter().enumerate() {
            assert_eq!(topics.parse(name), Some(("orders", place)));
        }
        for other in ["orders", "orders.retry.other.1m", "orders.retry.billing.3m", ".retry.billing.1m"] {
            assert_eq!(topics.parse(other), None, "{other}");
        }
        let is_unread = |name: &str| topics.is_unread(name, &["orders"]);
        assert!(is_unread("orders.retry.billing.3m"), "its delay was taken away");
        for other in ["orders", "orders.retry.billing.1m", "orders.retry.other.3m", "bills.retry.billing.3m"] {
            assert!(!is_unread(other), "{other}");
        }
    }

    #[test]
    fn two_groups_never_have_a_retry_topic_in_common() {
        for group in ["b.retry.c", "retry.c", "b.retry", "mine/yours", "größe", "a b"] {
            let e = RetryTopics::new(group, &[MINUTE]).unwrap_err();
            assert!(e.to_string().contains(&format!("{group:?}")), "{e}");
            RetryTopics::new(group, &[]).unwrap();
        }
    }

    #[test]
    fn a_delayed_record_is_restored_as_it_was() {
        let own = Headers::new().with("h", "1").with("retry-error", "its own").with("retry-due", "7");
        let written = to_headers(&failure(own.clone()), Timestamp::from_millis(60_000));
        let delayed = DelayedRecord::parse(&written).unwrap();
        let mut restored = message(written);
        delayed.restore(&mut restored);
        assert_eq!((&*restored.topic, restored.partition, restored.offset), ("orders", 3, 42));
        assert_eq!((restored.timestamp, &restored.headers), (Timestamp::from_millis(7), &own));
        assert_eq!((delayed.attempts(), delayed.first_failure()), (4, Some(Timestamp::from_millis(1000))));
        assert_eq!(DelayedRecord::parse(&Headers::new().with("h", "1")), None);
    }

    #[test]
    fn a_record_is_held_until_it_is_due_and_never_longer_than_the_delay() {
        let retry = RetryTopics::new("billing", &[MINUTE]).unwrap().partition("orders.retry.billing.1m").unwrap();
        let (wall, now) = (Timestamp::from_millis(1_000_000), Instant::now());
        let held = |due: i64| {
            let headers = to_headers(&failure(Headers::new()), Timestamp::from_millis(due));
            retry.held_until(&message(headers), wall, now).map(|at| at - now)
        };
        assert_eq!(held(1_000_000), None);
        assert_eq!(held(0), None);
        assert_eq!(held(1_000_001), Some(Duration::from_millis(1)));
        assert_eq!(held(1_030_000), Some(MINUTE / 2));
        assert_eq!(held(i64::MAX), Some(MINUTE), "the writer's clock was ahead");
        assert_eq!(retry.held_until(&message(Headers::new()), wall, now), None, "no delayed retry");
    }
}
