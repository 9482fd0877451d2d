//! Dead-letter topics and retry topics: created with the limits of the topics of their records,
//! checked if they exist.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::admin::{Admin, ConfigEntry, ConfigSource, NewTopic, TopicInfo};
use crate::cluster::Client;
use crate::code;
use crate::config::ProcessorConfig;
use crate::error::{Error, ErrorKind, Result};

/// Maximum size that a dead letter adds to its record: error text, origin, trace.
pub(super) const MAX_ADDED_HEADER_BYTES: usize = 8 << 10;

/// Kafka's default of `max.message.bytes`. If the limit was lowered, older records may be larger
/// than it.
const DEFAULT_MAX_MESSAGE_BYTES: i64 = 1_048_588;

/// Maximum length of a topic's name.
const MAX_NAME_BYTES: usize = 249;

/// Maximum number of partitions of a new topic: Kafka rejects 10,000 in one request. It
/// need not be the origin's.
const MAX_PARTITIONS: i32 = 5000;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const CLEANUP_POLICY: &str = "cleanup.policy";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// The settings that are read of each topic.
const READ_SETTINGS: [&str; 5] =
    [MAX_MESSAGE_BYTES, RETENTION_MS, RETENTION_BYTES, CLEANUP_POLICY, MIN_INSYNC_REPLICAS];

/// Time that a retry topic keeps records beyond their delay, at least: a group may be down so long.
const RETRY_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// Use of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicKind {
    DeadLetters,
    /// Records that wait for their next attempt, for this long.
    Retry(Duration),
}

impl TopicKind {
    fn name(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead-letter topic",
            Self::Retry(_) => "retry topic",
        }
    }

    /// Returns the retention of a new topic; `None` is unlimited.
    fn retention(self, origin: Option<&TopicSettings>, config: &ProcessorConfig) -> Option<Duration> {
        match self {
            Self::DeadLetters => config.dead_letter_retention,
            // A group may be down for as long as its topics keep their records.
            Self::Retry(delay) => {
                let of_origin = origin.and_then(|o| o.number(RETENTION_MS)).and_then(|ms| u64::try_from(ms).ok())?;
                Some(Duration::from_millis(of_origin).max(RETRY_RETENTION).saturating_add(delay))
            }
        }
    }

    /// Returns the retention below which an existing topic may lose records; `None` is unlimited.
    fn least_retention(self, config: &ProcessorConfig) -> Option<Duration> {
        match self {
            Self::DeadLetters => config.dead_letter_retention,
            Self::Retry(delay) => Some(delay.saturating_add(RETRY_RETENTION)),
        }
    }
}

/// A topic for failed records of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedTopic {
    pub(super) origin: String,
    pub(super) name: String,
    pub(super) kind: TopicKind,
}

/// Finds or creates topics, and warns of those that may lose records. Returns the
/// `max.message.bytes` of each, if the broker returned it.
pub(super) async fn find_or_create(
    client: &Client,
    wanted: &[WantedTopic],
    config: &ProcessorConfig,
) -> Result<HashMap<String, Option<usize>>> {
    let admin = Admin::new(client);
    let mut missing = Vec::new();
    for topic in wanted {
        let WantedTopic { origin, name, kind } = topic;
        let kind = kind.name();
        check_name(name).map_err(|problem| {
            Error::new(ErrorKind::Config, format!("the {kind} of {origin:?} would be {name:?}: {problem}"))
        })?;
        match admin.describe_topic(name).await {
            Ok(_) => {}
            Err(e) if e.is_unknown_topic() => missing.push(topic),
            // Another member is creating it.
            Err(e) if e.is_retriable() && matches!(e.kind(), ErrorKind::Broker(_)) => {}
            Err(e) => return Err(e.context(format!("looking for the {kind} {name:?}"))),
        }
    }
    let origins: BTreeSet<_> = wanted.iter().map(|topic| topic.origin.clone()).collect();
    let origins = TopicSettings::read(&admin, origins.into_iter()).await;
    for topic in missing {
        let settings = origins.get(&topic.origin);
        let retention = topic.kind.retention(settings, config);
        if !client.config().allow_auto_topic_creation {
            return Err(creation_not_allowed(topic, retention));
        }
        let origin = admin.describe_topic(&topic.origin).await?;
        create(&admin, &origin, topic, settings, retention).await?;
    }
    let found = TopicSettings::read(&admin, wanted.iter().map(|topic| topic.name.clone())).await;
    Ok(wanted
        .iter()
        .map(|WantedTopic { origin, name, kind }| {
            let settings = found.get(name);
            for problem in settings.into_iter().flat_map(|s| s.problems(*kind, origins.get(origin), config)) {
                tracing::warn!(topic = %name, "{problem}");
            }
            (name.clone(), settings.and_then(|s| usize::try_from(s.number(MAX_MESSAGE_BYTES)?).ok()))
        })
        .collect())
}

/// Returns why a topic can't have this name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name =
        (1..=MAX_NAME_BYTES).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(is_legal);
    let allowed = || format!("allowed are 1 to {MAX_NAME_BYTES} letters, digits, '.', '_' and '-'");
    if is_name { Ok(()) } else { Err(allowed()) }
}

fn creation_not_allowed(WantedTopic { origin, name, kind }: &WantedTopic, retention: Option<Duration>) -> Error {
    let what = format!(
        "the {} {name:?} of {origin:?} does not exist, and creating topics is not allowed: create it with \
         {RETENTION_MS}={} (Admin::create_topic_with), or allow it by Config::allow_auto_topic_creation",
        kind.name(),
        retention_ms(retention)
    );
    Error::new(ErrorKind::Config, what)
}

/// Creates a topic like its origin: as many partitions and replicas, and room for the largest
/// records of the origin. Settings that the cluster's policies reject are left to its defaults, down
/// to the name alone.
async fn create(
    admin: &Admin,
    origin: &TopicInfo,
    WantedTopic { name, kind, .. }: &WantedTopic,
    settings: Option<&TopicSettings>,
    retention: Option<Duration>,
) -> Result<()> {
    let kind = kind.name();
    let partitions = partitions(origin.partitions.len());
    let replicas = origin.partitions.iter().map(|p| p.replicas.len()).max();
    let mut replication = replicas.and_then(|n| i16::try_from(n).ok()).filter(|n| *n > 0);
    let mut plans = plans(settings, retention).into_iter();
    let mut plan = plans.next().unwrap_or_default();
    loop {
        let mut new = NewTopic::new(name).partitions(partitions);
        new = replication.into_iter().fold(new, NewTopic::replication);
        new = plan.iter().fold(new, |new, (name, value)| new.config(*name, value));
        let error = match admin.create_topic_with(&new).await {
            Ok(()) => {
                let settings = plan.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
                tracing::info!(topic = %name, partitions, settings, "{kind} created");
                return Ok(());
            }
            Err(e) if e.kind() == ErrorKind::TopicExists => return Ok(()),
            Err(e) => e,
        };
        match error.broker_code() {
            // Fewer brokers are alive than when the origin was created.
            Some(code::INVALID_REPLICATION_FACTOR) if replication.is_some() => {
                replication = None;
                plan.retain(|(name, _)| *name != MIN_INSYNC_REPLICAS);
            }
            Some(code::INVALID_CONFIG | code::POLICY_VIOLATION) if plans.len() > 0 => {
                tracing::warn!(topic = %name, error = %error.full(), "the broker rejected settings of the new {kind}: retrying with fewer");
                plan = plans.next().unwrap_or_default();
            }
            _ => return Err(error.context(format!("creating the {kind} {name:?}"))),
        }
    }
}

/// Returns the number of partitions of the topic for an origin with `origin` partitions.
fn partitions(origin: usize) -> i32 {
    i32::try_from(origin).unwrap_or(i32::MAX).clamp(1, MAX_PARTITIONS)
}

type TopicPlan = Vec<(&'static str, String)>;

/// Returns the settings to create a topic with, in order of preference; the last ones
/// are the broker's defaults.
fn plans(origin: Option<&TopicSettings>, retention: Option<Duration>) -> Vec<TopicPlan> {
    let kept = [
        (CLEANUP_POLICY, "delete".to_owned()),
        (RETENTION_MS, retention_ms(retention).to_string()),
        (RETENTION_BYTES, "-1".to_owned()),
    ];
    let limit = origin.and_then(|o| o.number(MAX_MESSAGE_BYTES));
    let sized = |limit: i64| {
        let mut plan = kept.to_vec();
        plan.push((MAX_MESSAGE_BYTES, limit.to_string()));
        plan
    };
    let mut plans = Vec::new();
    if let Some(limit) = limit {
        let mut best = sized(limit_for_dead_letters(limit));
        // A dead letter must be as durable as its record.
        best.extend(
            origin.and_then(|o| o.topic_value(MIN_INSYNC_REPLICAS)).map(|n| (MIN_INSYNC_REPLICAS, n.to_owned())),
        );
        plans.push(best);
        plans.push(sized(limit));
    }
    plans.push(kept.to_vec());
    plans.push(Vec::new());
    plans
}

/// Returns the `max.message.bytes` of a dead-letter topic whose origin has `limit`.
fn limit_for_dead_letters(limit: i64) -> i64 {
    limit.max(DEFAULT_MAX_MESSAGE_BYTES).saturating_add(MAX_ADDED_HEADER_BYTES as i64).min(i64::from(i32::MAX))
}

fn retention_ms(retention: Option<Duration>) -> i64 {
    retention.map_or(-1, |r| i64::try_from(r.as_millis()).unwrap_or(i64::MAX))
}

/// The [read settings](READ_SETTINGS) of a topic.
#[derive(Debug, Default)]
struct TopicSettings(Vec<ConfigEntry>);

impl TopicSettings {
    /// Reads the settings of topics; of none if that is not allowed.
    async fn read(admin: &Admin, topics: impl Iterator<Item = String>) -> HashMap<String, Self> {
        let topics: Vec<_> = topics.collect();
        match admin.topic_configs(&topics, &READ_SETTINGS).await {
            Ok(found) => found.into_iter().map(|(topic, entries)| (topic, Self(entries))).collect(),
            Err(e) => {
                tracing::debug!(error = %e.full(), "can't read the settings of topics and their dead-letter topics");
                HashMap::new()
            }
        }
    }

    fn entry(&self, name: &str) -> Option<(&str, ConfigSource)> {
        let found = self.0.iter().find(|e| e.name == name)?;
        Some((found.value.as_deref()?, found.source))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.entry(name)?.0.parse().ok()
    }

    /// Returns the value if it is set on the topic itself.
    fn topic_value(&self, name: &str) -> Option<&str> {
        self.entry(name).filter(|(_, source)| *source == ConfigSource::Topic).map(|(value, _)| value)
    }

    /// Returns why this topic may lose records, and what to do about it.
    fn problems(&self, kind: TopicKind, origin: Option<&Self>, config: &ProcessorConfig) -> Vec<String> {
        let mut problems = Vec::new();
        let topic = kind.name();
        let policy = self.entry(CLEANUP_POLICY).map_or("delete", |(value, _)| value);
        let policies = || policy.split(',').map(str::trim);
        if policies().any(|p| p == "compact") {
            problems.push(format!(
                "the {topic} has {CLEANUP_POLICY}={policy}: compaction deletes older records with the same key, and one \
                 without a key is rejected; set {CLEANUP_POLICY}=delete"
            ));
        }
        if policies().any(|p| p == "delete") {
            let wanted = retention_ms(kind.least_retention(config));
            let ms = self.number(RETENTION_MS).filter(|ms| *ms >= 0 && (wanted < 0 || *ms < wanted));
            if let Some(ms) = ms {
                let accept = match kind {
                    TopicKind::DeadLetters => {
                        format!(", or accept it by setting ProcessorConfig::dead_letter_retention to {ms} ms")
                    }
                    TopicKind::Retry(_) => String::new(),
                };
                problems.push(format!(
                    "the {topic} deletes records after {} ({RETENTION_MS}={ms}): set {RETENTION_MS}={wanted}{accept}",
                    describe_duration(ms)
                ));
            }
            if let Some(bytes) = self.number(RETENTION_BYTES).filter(|b| *b >= 0) {
                problems.push(format!(
                    "the {topic} deletes its oldest records beyond {bytes} bytes per partition: set {RETENTION_BYTES}=-1"
                ));
            }
        }
        let limits = self.number(MAX_MESSAGE_BYTES).zip(origin.and_then(|o| o.number(MAX_MESSAGE_BYTES)));
        if let Some((limit, of_origin)) = limits.filter(|(limit, of_origin)| limit < of_origin) {
            let larger = match kind {
                TopicKind::DeadLetters => "written compressed or without their value",
                TopicKind::Retry(_) => "written compressed, or become dead letters",
            };
            problems.push(format!(
                "the {topic} accepts {limit} bytes and its topic {of_origin}: larger records are {larger}; \
                 set {MAX_MESSAGE_BYTES}={}",
                limit_for_dead_letters(of_origin)
            ));
        }
        problems
    }
}

/// Formats a duration with its unit.
fn describe_duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] =
        [(86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1000, "seconds")];
    let unit = UNITS.into_iter().find(|(unit, _)| ms >= 2 * unit || (*unit == 1000 && ms >= 1000));
    unit.map_or_else(|| format!("{ms} ms"), |(unit, name)| format!("{} {name}", ms / unit))
}

#[cfg(test)]
mod tests;
