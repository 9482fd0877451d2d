//! Dead-letter topics: created with the limits of the topics whose records they take, looked at where they exist.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::admin::{Admin, ConfigEntry, ConfigSource, NewTopic, TopicInfo};
use crate::cluster::Client;
use crate::code;
use crate::config::ProcessorConfig;
use crate::error::{Error, ErrorKind, Result};

/// What a letter may be larger than its record, in bytes: the error's text, the origin, a trace.
pub(super) const HEADERS_ROOM: usize = 8 << 10;

/// Kafka's default of `max.message.bytes`. A limit that was lowered below it says nothing of the records written before.
const USUAL_MESSAGE_BYTES: i64 = 1_048_588;

/// Most partitions that a dead-letter topic is created with: Kafka refuses 10,000 in one request. Keys find their partition
/// whatever their number is.
const MOST_PARTITIONS: i32 = 5000;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const CLEANUP_POLICY: &str = "cleanup.policy";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// What is asked for of each topic.
const SETTINGS: [&str; 5] = [MAX_MESSAGE_BYTES, RETENTION_MS, RETENTION_BYTES, CLEANUP_POLICY, MIN_INSYNC_REPLICAS];

/// A dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LetterTopic {
    pub(super) name: String,
    /// Largest batch that it takes, if the broker told.
    pub(super) max_message_bytes: Option<usize>,
}

/// Finds or creates the dead-letter topic of each topic, and warns of those that may lose letters.
pub(super) async fn open(
    client: &Client,
    topics: &[&str],
    config: &ProcessorConfig,
) -> Result<HashMap<String, LetterTopic>> {
    let admin = Admin::new(client);
    let topics: BTreeSet<_> = topics.iter().copied().collect();
    let mut missing = Vec::new();
    for topic in &topics {
        let name = format!("{topic}{}", config.dead_letter_suffix);
        match admin.describe_topic(&name).await {
            Ok(_) => {}
            Err(e) if e.is_unknown_topic() => missing.push((*topic, name)),
            // It is being created, by another member for example.
            Err(e) if e.is_retriable() && e.broker_code().is_some() => {}
            Err(e) => return Err(e.context(format!("looking for the dead-letter topic {name:?}"))),
        }
    }
    let origins = Settings::of(&admin, topics.iter().map(|t| (*t).to_owned())).await;
    for (topic, name) in missing {
        if !client.config().allow_auto_topic_creation {
            return Err(not_allowed(topic, &name, config.dead_letter_retention));
        }
        let origin = admin.describe_topic(topic).await?;
        create(&admin, &origin, &name, origins.get(topic), config.dead_letter_retention).await?;
    }
    let names = topics.iter().map(|topic| (*topic, format!("{topic}{}", config.dead_letter_suffix)));
    let found = Settings::of(&admin, names.clone().map(|(_, name)| name)).await;
    Ok(names
        .map(|(topic, name)| {
            let settings = found.get(&name);
            for problem in settings.into_iter().flat_map(|s| s.problems(origins.get(topic), config)) {
                tracing::warn!(topic = %name, "{problem}");
            }
            let max = settings.and_then(|s| usize::try_from(s.number(MAX_MESSAGE_BYTES)?).ok());
            (topic.to_owned(), LetterTopic { name, max_message_bytes: max })
        })
        .collect())
}

fn not_allowed(topic: &str, name: &str, retention: Option<Duration>) -> Error {
    let what = format!(
        "the dead-letter topic {name:?} of {topic:?} does not exist, and creating topics is not allowed: create it \
         (ailurus topic create {name} --config {RETENTION_MS}={}) or set REDPANDA_ALLOW_AUTO_TOPIC_CREATION=true",
        retention_ms(retention)
    );
    Error::new(ErrorKind::Config, what)
}

/// Creates a dead-letter topic as its origin is: as many partitions and replicas, and room for what is as large as the
/// origin takes. A cluster may have rules of its own: what it refuses is left to its defaults, down to the name alone.
async fn create(
    admin: &Admin,
    origin: &TopicInfo,
    name: &str,
    settings: Option<&Settings>,
    retention: Option<Duration>,
) -> Result<()> {
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
                tracing::info!(topic = %name, partitions, settings, "dead-letter topic created");
                return Ok(());
            }
            Err(e) if e.kind() == ErrorKind::TopicExists => return Ok(()),
            Err(e) => e,
        };
        match error.broker_code() {
            // Nodes may be down: the origin had them when it was created.
            Some(code::INVALID_REPLICATION_FACTOR) if replication.is_some() => {
                replication = None;
                plan.retain(|(name, _)| *name != MIN_INSYNC_REPLICAS);
            }
            Some(code::INVALID_CONFIG | code::POLICY_VIOLATION) if plans.len() > 0 => {
                tracing::warn!(topic = %name, error = %error.full(), "the dead-letter topic can't be created with all settings");
                plan = plans.next().unwrap_or_default();
            }
            _ => return Err(error.context(format!("creating the dead-letter topic {name:?}"))),
        }
    }
}

/// Number of partitions of the dead-letter topic for an origin of so many.
fn partitions(origin: usize) -> i32 {
    i32::try_from(origin).unwrap_or(i32::MAX).clamp(1, MOST_PARTITIONS)
}

type Plan = Vec<(&'static str, String)>;

/// Settings to create a dead-letter topic with, the best ones first, the broker's defaults last.
fn plans(origin: Option<&Settings>, retention: Option<Duration>) -> Vec<Plan> {
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
        let mut best = sized(larger(limit));
        // A letter is to survive what its record would have survived.
        best.extend(origin.and_then(|o| o.given(MIN_INSYNC_REPLICAS)).map(|n| (MIN_INSYNC_REPLICAS, n.to_owned())));
        plans.push(best);
        plans.push(sized(limit));
    }
    plans.push(kept.to_vec());
    plans.push(Vec::new());
    plans
}

/// What a dead-letter topic must take for an origin that takes `limit`.
fn larger(limit: i64) -> i64 {
    limit.max(USUAL_MESSAGE_BYTES).saturating_add(HEADERS_ROOM as i64).min(i64::from(i32::MAX))
}

fn retention_ms(retention: Option<Duration>) -> i64 {
    retention.map_or(-1, |r| i64::try_from(r.as_millis()).unwrap_or(i64::MAX))
}

/// Settings of a topic, as far as they matter here.
#[derive(Debug, Default)]
struct Settings(Vec<ConfigEntry>);

impl Settings {
    /// Those of each topic; of none that may not be looked at.
    async fn of(admin: &Admin, topics: impl Iterator<Item = String>) -> HashMap<String, Self> {
        let topics: Vec<_> = topics.collect();
        match admin.topic_configs(&topics, &SETTINGS).await {
            Ok(found) => found.into_iter().map(|(topic, entries)| (topic, Self(entries))).collect(),
            Err(e) => {
                tracing::debug!(error = %e.full(), "the settings of topics and their dead-letter topics are not known");
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

    /// The value, if the topic was given one of its own.
    fn given(&self, name: &str) -> Option<&str> {
        self.entry(name).filter(|(_, source)| *source == ConfigSource::Topic).map(|(value, _)| value)
    }

    /// What keeps this dead-letter topic from keeping all letters, and what to do about it.
    fn problems(&self, origin: Option<&Self>, config: &ProcessorConfig) -> Vec<String> {
        let mut problems = Vec::new();
        let policy = self.entry(CLEANUP_POLICY).map_or("delete", |(value, _)| value);
        let policies = || policy.split(',').map(str::trim);
        if policies().any(|p| p == "compact") {
            problems.push(format!(
                "the dead-letter topic has {CLEANUP_POLICY}={policy}: a letter deletes older ones of its key, and one without a key is \
                 refused; set {CLEANUP_POLICY}=delete"
            ));
        }
        if policies().any(|p| p == "delete") {
            let wanted = retention_ms(config.dead_letter_retention);
            let ms = self.number(RETENTION_MS).filter(|ms| *ms >= 0 && (wanted < 0 || *ms < wanted));
            if let Some(ms) = ms {
                problems.push(format!(
                    "the dead-letter topic deletes letters after {} ({RETENTION_MS}={ms}), handled or not: set {RETENTION_MS}={wanted}, \
                     or accept it by REDPANDA_DEAD_LETTER_RETENTION={ms}",
                    rough(ms)
                ));
            }
            if let Some(bytes) = self.number(RETENTION_BYTES).filter(|b| *b >= 0) {
                problems.push(format!(
                    "the dead-letter topic deletes its oldest letters beyond {bytes} bytes a partition: set {RETENTION_BYTES}=-1"
                ));
            }
        }
        let limits = self.number(MAX_MESSAGE_BYTES).zip(origin.and_then(|o| o.number(MAX_MESSAGE_BYTES)));
        if let Some((limit, of_origin)) = limits.filter(|(limit, of_origin)| limit < of_origin) {
            problems.push(format!(
                "the dead-letter topic takes {limit} bytes and its topic takes {of_origin}: larger records are kept there \
                 compressed or without their value; set {MAX_MESSAGE_BYTES}={}",
                larger(of_origin)
            ));
        }
        problems
    }
}

/// A time in words.
fn rough(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] =
        [(86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1000, "seconds")];
    let unit = UNITS.into_iter().find(|(unit, _)| ms >= 2 * unit || (*unit == 1000 && ms >= 1000));
    unit.map_or_else(|| format!("{ms} ms"), |(unit, name)| format!("{} {name}", ms / unit))
}

#[cfg(test)]
#[path = "letter_topics_tests.rs"]
mod tests;
