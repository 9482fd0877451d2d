//! The `REDPANDA_*` variables, one line each.

mod sasl;
mod unknown;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::addr::parse_brokers;
use super::{
    Acks, AssignorKind, Compression, ConfigBuilder, GroupProtocol, HandlerOrdering, IsolationLevel, OffsetReset,
    PartitionerKind, SecurityProtocol, dotenv,
};
use crate::error::{Error, ErrorKind, Result};

/// Each variable and the setting it sets, as errors name it.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("REDPANDA_BROKERS", "brokers"),
    ("REDPANDA_SECURITY_PROTOCOL", "security protocol"),
    ("REDPANDA_TLS_CA_FILE", "tls ca file"),
    ("REDPANDA_TLS_CERT_FILE", "tls cert file"),
    ("REDPANDA_TLS_KEY_FILE", "tls key file"),
    ("REDPANDA_TLS_SERVER_NAME", "tls server name"),
    ("REDPANDA_SASL_MECHANISM", "sasl mechanism"),
    ("REDPANDA_SASL_USERNAME", "sasl username"),
    ("REDPANDA_SASL_PASSWORD", "sasl password"),
    ("REDPANDA_SASL_ALLOW_CLEARTEXT", "sasl allow cleartext"),
    ("REDPANDA_SASL_OAUTH_TOKEN_FILE", "sasl token file"),
    ("REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT", "sasl token endpoint"),
    ("REDPANDA_SASL_OAUTH_CLIENT_ID", "sasl client id"),
    ("REDPANDA_SASL_OAUTH_CLIENT_SECRET", "sasl client secret"),
    ("REDPANDA_SASL_OAUTH_SCOPE", "sasl scope"),
    ("REDPANDA_SASL_OAUTH_CA_FILE", "sasl ca file"),
    ("REDPANDA_SASL_OAUTH_EXTENSIONS", "sasl extensions"),
    ("REDPANDA_CLIENT_ID", "client id"),
    ("REDPANDA_CONSUMER_GROUP_ID", "group id"),
    ("REDPANDA_SESSION_TIMEOUT", "session timeout"),
    ("REDPANDA_REBALANCE_TIMEOUT", "rebalance timeout"),
    ("REDPANDA_MAX_POLL_INTERVAL", "max poll interval"),
    ("REDPANDA_HEARTBEAT_INTERVAL", "heartbeat interval"),
    ("REDPANDA_ASSIGNORS", "assignors"),
    ("REDPANDA_GROUP_PROTOCOL", "group protocol"),
    ("REDPANDA_GROUP_INSTANCE_ID", "group instance id"),
    ("REDPANDA_GROUP_REMOTE_ASSIGNOR", "group remote assignor"),
    ("REDPANDA_CLIENT_RACK", "client rack"),
    ("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", "allow auto topic creation"),
    ("REDPANDA_REQUEST_TIMEOUT", "request timeout"),
    ("REDPANDA_CONNECT_TIMEOUT", "connect timeout"),
    ("REDPANDA_METADATA_MAX_AGE", "metadata max age"),
    ("REDPANDA_METADATA_MAX_IDLE", "metadata max idle"),
    ("REDPANDA_TOPIC_CREATION_TIMEOUT", "topic creation timeout"),
    ("REDPANDA_RETRY_BACKOFF", "retry backoff"),
    ("REDPANDA_RETRY_BACKOFF_MAX", "retry backoff max"),
    ("REDPANDA_DELIVERY_TIMEOUT", "delivery timeout"),
    ("REDPANDA_ACKS", "acks"),
    ("REDPANDA_IDEMPOTENCE", "idempotence"),
    ("REDPANDA_LINGER", "linger"),
    ("REDPANDA_BATCH_SIZE", "batch size"),
    ("REDPANDA_BUFFER_MEMORY", "buffer memory"),
    ("REDPANDA_MAX_REQUEST_SIZE", "max request size"),
    ("REDPANDA_COMPRESSION", "compression"),
    ("REDPANDA_COMPRESSION_LEVEL", "compression level"),
    ("REDPANDA_TOPIC_COMPRESSION", "topic compression"),
    ("REDPANDA_PARTITIONER", "partitioner"),
    ("REDPANDA_ADAPTIVE_PARTITIONING", "adaptive partitioning"),
    ("REDPANDA_PARTITION_AVAILABILITY_TIMEOUT", "partition availability timeout"),
    ("REDPANDA_AUTO_OFFSET_RESET", "offset reset"),
    ("REDPANDA_ISOLATION_LEVEL", "isolation level"),
    ("REDPANDA_FETCH_MIN_BYTES", "fetch min bytes"),
    ("REDPANDA_FETCH_MAX_WAIT", "fetch max wait"),
    ("REDPANDA_FETCH_MAX_BYTES", "fetch max bytes"),
    ("REDPANDA_PARTITION_FETCH_BYTES", "partition fetch bytes"),
    ("REDPANDA_PREFETCH_BYTES", "prefetch bytes"),
    ("REDPANDA_MAX_DECOMPRESSED_BYTES", "max decompressed bytes"),
    ("REDPANDA_HANDLER_ORDERING", "handler ordering"),
    ("REDPANDA_HANDLER_CONCURRENCY", "handler concurrency"),
    ("REDPANDA_PARKED_RECORDS", "parked records"),
    ("REDPANDA_PARKED_BYTES", "parked bytes"),
    ("REDPANDA_ATTEMPT_TIMEOUT", "attempt timeout"),
    ("REDPANDA_MAX_ATTEMPTS", "max attempts"),
    ("REDPANDA_DEAD_LETTER_RETENTION", "dead letter retention"),
    ("REDPANDA_HANDLER_RETRY_BACKOFF", "handler retry backoff"),
    ("REDPANDA_HANDLER_RETRY_BACKOFF_MAX", "handler retry backoff max"),
    ("REDPANDA_DEAD_LETTER_SUFFIX", "dead letter suffix"),
    ("REDPANDA_COMMIT_INTERVAL", "commit interval"),
    ("REDPANDA_SHUTDOWN_TIMEOUT", "shutdown timeout"),
    ("REDPANDA_STALL_TIMEOUT", "stall timeout"),
    ("REDPANDA_HEALTH_TIMEOUT", "health timeout"),
    ("REDPANDA_AUTO_COMMIT_INTERVAL", "auto commit interval"),
];

pub(super) fn variable_of(setting: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(_, s)| *s == setting).map(|(v, _)| *v)
}

/// Reads settings from the environment and, for those not set there, from the file.
pub(super) fn read(file: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<ConfigBuilder> {
    let mut settings = from_file(file)?;
    let mut origins: BTreeMap<_, _> = settings.keys().map(|name| (name.clone(), file.display().to_string())).collect();
    // Also where a variable of the environment is empty: that is not set, and hides nothing.
    for (name, value) in environment.into_iter().filter(|(_, value)| !value.trim().is_empty()) {
        if name.starts_with("REDPANDA_") && !unknown::is_service_link(&name, &value) {
            origins.insert(name.clone(), "the environment".to_owned());
            settings.insert(name, value);
        }
    }
    unknown::warn(origins.iter().map(|(name, origin)| (name.as_str(), origin.as_str())));
    let mut builder = ConfigBuilder::default();
    apply(&mut builder, |name| settings.get(name).cloned());
    Ok(builder)
}

/// Returns the settings of the file; none if there is no such file.
fn from_file(file: &Path) -> Result<BTreeMap<String, String>> {
    // A directory of that name is some other tool's, as a virtual environment of Python.
    let parsed = match std::fs::read(file) {
        Ok(text) => dotenv::parse(&text),
        Err(_) if file.is_dir() => return Ok(BTreeMap::new()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => Err(e.to_string()),
    };
    parsed.map_err(|why| Error::new(ErrorKind::Config, format!("{}: {why}; see .env.example", file.display())))
}

/// Sets what is set; notes what is not allowed.
pub(super) fn apply(builder: &mut ConfigBuilder, read: impl Fn(&str) -> Option<String>) {
    let problems = std::mem::take(&mut builder.problems);
    // Empty is not set: what writes environments from templates can't leave a variable out.
    let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
    builder.set_by_variable.extend(VARIABLES.iter().map(|(name, _)| *name).filter(|name| read(name).is_some()));
    let mut vars = Vars { read: &read, problems };
    let config = &mut builder.config;
    let brokers = |s: &str| parse_brokers(s).map_err(|e| e.to_string());
    vars.set("REDPANDA_BROKERS", brokers, &mut config.brokers);
    vars.set("REDPANDA_SECURITY_PROTOCOL", security_protocol, &mut config.security_protocol);
    vars.set("REDPANDA_TLS_CA_FILE", file, &mut config.tls.ca_file);
    vars.set("REDPANDA_TLS_CERT_FILE", file, &mut config.tls.cert_file);
    vars.set("REDPANDA_TLS_KEY_FILE", file, &mut config.tls.key_file);
    vars.set("REDPANDA_TLS_SERVER_NAME", name, &mut config.tls.server_name);
    sasl::apply(&mut vars, &mut config.sasl);
    vars.set("REDPANDA_CLIENT_ID", text, &mut config.client_id);
    vars.set("REDPANDA_CONSUMER_GROUP_ID", text, &mut config.group_id);
    vars.set("REDPANDA_SESSION_TIMEOUT", millis, &mut config.consumer.session_timeout);
    vars.set("REDPANDA_REBALANCE_TIMEOUT", millis, &mut config.consumer.rebalance_timeout);
    vars.set("REDPANDA_MAX_POLL_INTERVAL", millis, &mut config.consumer.max_poll_interval);
    vars.set("REDPANDA_HEARTBEAT_INTERVAL", millis, &mut config.consumer.heartbeat_interval);
    vars.set("REDPANDA_ASSIGNORS", assignors, &mut config.consumer.assignors);
    vars.set("REDPANDA_GROUP_PROTOCOL", protocol, &mut config.consumer.group_protocol);
    vars.set("REDPANDA_GROUP_INSTANCE_ID", name, &mut config.consumer.group_instance_id);
    vars.set("REDPANDA_GROUP_REMOTE_ASSIGNOR", name, &mut config.consumer.group_remote_assignor);
    vars.set("REDPANDA_CLIENT_RACK", name, &mut config.consumer.client_rack);
    vars.set("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", boolean, &mut config.allow_auto_topic_creation);
    vars.set("REDPANDA_REQUEST_TIMEOUT", millis, &mut config.request_timeout);
    vars.set("REDPANDA_CONNECT_TIMEOUT", millis, &mut config.connect_timeout);
    vars.set("REDPANDA_METADATA_MAX_AGE", millis, &mut config.metadata_max_age);
    vars.set("REDPANDA_METADATA_MAX_IDLE", millis, &mut config.metadata_max_idle);
    vars.set("REDPANDA_TOPIC_CREATION_TIMEOUT", millis, &mut config.topic_creation_timeout);
    vars.set("REDPANDA_RETRY_BACKOFF", millis, &mut config.retry_backoff);
    vars.set("REDPANDA_RETRY_BACKOFF_MAX", millis, &mut config.retry_backoff_max);
    vars.set("REDPANDA_DELIVERY_TIMEOUT", millis, &mut config.producer.delivery_timeout);
    vars.set("REDPANDA_ACKS", acks, &mut config.producer.acks);
    vars.set("REDPANDA_IDEMPOTENCE", boolean, &mut config.producer.idempotence);
    vars.set("REDPANDA_LINGER", millis, &mut config.producer.linger);
    vars.set("REDPANDA_BATCH_SIZE", bytes, &mut config.producer.batch_size);
    vars.set("REDPANDA_BUFFER_MEMORY", bytes, &mut config.producer.buffer_memory);
    vars.set("REDPANDA_MAX_REQUEST_SIZE", bytes, &mut config.producer.max_request_size);
    vars.set("REDPANDA_AUTO_OFFSET_RESET", reset, &mut config.consumer.offset_reset);
    vars.set("REDPANDA_ISOLATION_LEVEL", isolation, &mut config.consumer.isolation_level);
    vars.set("REDPANDA_FETCH_MIN_BYTES", bytes, &mut config.consumer.fetch_min_bytes);
    vars.set("REDPANDA_FETCH_MAX_WAIT", millis, &mut config.consumer.fetch_max_wait);
    vars.set("REDPANDA_FETCH_MAX_BYTES", bytes, &mut config.consumer.fetch_max_bytes);
    vars.set("REDPANDA_PARTITION_FETCH_BYTES", bytes, &mut config.consumer.partition_fetch_bytes);
    vars.set("REDPANDA_PREFETCH_BYTES", bytes, &mut config.consumer.prefetch_bytes);
    vars.set("REDPANDA_MAX_DECOMPRESSED_BYTES", bytes, &mut config.consumer.max_decompressed_bytes);
    vars.set("REDPANDA_HANDLER_ORDERING", ordering, &mut config.processor.ordering);
    vars.set("REDPANDA_HANDLER_CONCURRENCY", count, &mut config.processor.concurrency);
    vars.set("REDPANDA_PARKED_RECORDS", count, &mut config.processor.parked_records);
    vars.set("REDPANDA_PARKED_BYTES", bytes, &mut config.processor.parked_bytes);
    vars.set("REDPANDA_ATTEMPT_TIMEOUT", limit, &mut config.processor.attempt_timeout);
    vars.set("REDPANDA_MAX_ATTEMPTS", count, &mut config.processor.max_attempts);
    vars.set("REDPANDA_DEAD_LETTER_RETENTION", retention, &mut config.processor.dead_letter_retention);
    vars.set("REDPANDA_HANDLER_RETRY_BACKOFF", millis, &mut config.processor.retry_backoff);
    vars.set("REDPANDA_HANDLER_RETRY_BACKOFF_MAX", millis, &mut config.processor.retry_backoff_max);
    vars.set("REDPANDA_DEAD_LETTER_SUFFIX", text, &mut config.processor.dead_letter_suffix);
    vars.set("REDPANDA_COMMIT_INTERVAL", millis, &mut config.processor.commit_interval);
    vars.set("REDPANDA_SHUTDOWN_TIMEOUT", millis, &mut config.processor.shutdown_timeout);
    vars.set("REDPANDA_STALL_TIMEOUT", millis, &mut config.processor.stall_timeout);
    vars.set("REDPANDA_HEALTH_TIMEOUT", millis, &mut config.health_timeout);
    vars.set("REDPANDA_AUTO_COMMIT_INTERVAL", limit, &mut config.consumer.auto_commit_interval);
    vars.set("REDPANDA_COMPRESSION", codec, &mut config.producer.compression);
    vars.set("REDPANDA_PARTITIONER", partitioner, &mut config.producer.partitioner);
    vars.set("REDPANDA_ADAPTIVE_PARTITIONING", boolean, &mut config.producer.adaptive_partitioning);
    let timeout = &mut config.producer.partition_availability_timeout;
    vars.set("REDPANDA_PARTITION_AVAILABILITY_TIMEOUT", millis, timeout);
    let mut level = Compression::DEFAULT_GZIP_LEVEL;
    vars.set("REDPANDA_COMPRESSION_LEVEL", gzip_level, &mut level);
    if let Compression::Gzip { level: l } = &mut config.producer.compression {
        *l = level;
    }
    vars.set("REDPANDA_TOPIC_COMPRESSION", topic_codecs, &mut config.producer.topic_compression);
    builder.problems = vars.problems;
}

struct Vars<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Vars<'_> {
    fn set<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>, into: &mut T) {
        let Some(value) = (self.read)(name) else { return };
        match parse(value.trim()) {
            Ok(parsed) => *into = parsed,
            Err(allowed) => self.problems.push(format!("{name} is {value:?}: {allowed}")),
        }
    }
}

fn text(s: &str) -> Result<String, String> {
    Ok(s.to_owned())
}

fn millis(s: &str) -> Result<Duration, String> {
    let ms = s.parse().map_err(|_| "allowed is a whole number of milliseconds, such as 30000".to_owned())?;
    Ok(Duration::from_millis(ms))
}

fn bytes(s: &str) -> Result<usize, String> {
    s.parse().map_err(|_| "allowed is a whole number of bytes, such as 1000000".to_owned())
}

/// A time, or none.
fn limit(s: &str) -> Result<Option<Duration>, String> {
    let ms = millis(s).map_err(|allowed| format!("{allowed}, or 0 for none"))?;
    Ok(Some(ms).filter(|ms| !ms.is_zero()))
}

/// A time, in milliseconds or with a unit, or none for good.
fn retention(s: &str) -> Result<Option<Duration>, String> {
    if matches!(s, "forever" | "none") {
        return Ok(None);
    }
    let unit = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (number, unit) = s.split_at(unit);
    let unit = match unit {
        "ms" | "" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = unit.and_then(|unit: u64| number.parse::<u64>().ok()?.checked_mul(unit));
    ms.map(|ms| Some(Duration::from_millis(ms)))
        .ok_or_else(|| "allowed is a time such as 30d, 12h or 86400000 (milliseconds), or forever".to_owned())
}

fn count<T: std::str::FromStr>(s: &str) -> Result<T, String> {
    s.parse().map_err(|_| "allowed is a whole number, such as 64".to_owned())
}

fn boolean(s: &str) -> Result<bool, String> {
    match s.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("allowed is true or false".into()),
    }
}

fn codec(s: &str) -> Result<Compression, String> {
    s.parse().map_err(|_| "allowed is none, gzip, snappy, lz4 or zstd".into())
}

fn partitioner(s: &str) -> Result<PartitionerKind, String> {
    s.parse().map_err(|_| "allowed is murmur2, consistent_random or round_robin".into())
}

fn gzip_level(s: &str) -> Result<u32, String> {
    let level = s.parse().ok().filter(|l| (1..=9).contains(l));
    level.ok_or_else(|| "allowed is 1 (fast) to 9 (small)".into())
}

fn acks(s: &str) -> Result<Acks, String> {
    match s {
        "all" | "-1" => Ok(Acks::All),
        "leader" | "1" => Ok(Acks::Leader),
        _ => Err("allowed is all or leader".into()),
    }
}

fn protocol(s: &str) -> Result<GroupProtocol, String> {
    s.parse().map_err(|_| "allowed is classic, consumer or auto".into())
}

fn security_protocol(s: &str) -> Result<SecurityProtocol, String> {
    s.parse().map_err(|_| "allowed is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL".into())
}

fn file(s: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(PathBuf::from(s)))
}

fn name(s: &str) -> Result<Option<String>, String> {
    Ok(Some(s.to_owned()))
}

/// Reads names, separated by commas.
fn assignors(s: &str) -> Result<Vec<AssignorKind>, String> {
    let one = |name: &str| match name.trim() {
        "range" => Some(AssignorKind::Range),
        "roundrobin" => Some(AssignorKind::RoundRobin),
        "sticky" => Some(AssignorKind::Sticky),
        "cooperative-sticky" => Some(AssignorKind::CooperativeSticky),
        "RoundRobinAssigner" => Some(AssignorKind::KafkaJs),
        _ => None,
    };
    let allowed =
        "allowed are range, roundrobin, sticky, cooperative-sticky and RoundRobinAssigner, separated by commas";
    s.split(',').map(one).collect::<Option<_>>().ok_or_else(|| allowed.to_owned())
}

/// Reads `topic=codec`, separated by commas; a gzip level stands behind a colon.
fn topic_codecs(s: &str) -> Result<HashMap<String, Compression>, String> {
    let allowed = "allowed is TOPIC=CODEC, separated by commas, such as orders=zstd,events=gzip:6,images=none";
    let one = |entry: &str| {
        let (topic, codec) = entry.split_once('=')?;
        let codec = match codec.trim().strip_prefix("gzip:") {
            Some(level) => Compression::Gzip { level: gzip_level(level).ok()? },
            None => codec.trim().parse().ok()?,
        };
        Some((topic.trim().to_owned(), codec)).filter(|(topic, _)| !topic.is_empty())
    };
    s.split(',').map(one).collect::<Option<_>>().ok_or_else(|| allowed.to_owned())
}

fn ordering(s: &str) -> Result<HandlerOrdering, String> {
    match s {
        "partition" => Ok(HandlerOrdering::Partition),
        "key" => Ok(HandlerOrdering::Key),
        "unordered" => Ok(HandlerOrdering::Unordered),
        _ => Err("allowed is partition, key or unordered".into()),
    }
}

fn reset(s: &str) -> Result<OffsetReset, String> {
    match s {
        "earliest" => Ok(OffsetReset::Earliest),
        "latest" => Ok(OffsetReset::Latest),
        "none" => Ok(OffsetReset::None),
        _ => Err("allowed is earliest, latest or none".into()),
    }
}

fn isolation(s: &str) -> Result<IsolationLevel, String> {
    match s {
        "read_uncommitted" => Ok(IsolationLevel::ReadUncommitted),
        "read_committed" => Ok(IsolationLevel::ReadCommitted),
        _ => Err("allowed is read_uncommitted or read_committed".into()),
    }
}
