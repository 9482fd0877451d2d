//! The `REDPANDA_*` variables, one line each.

mod sasl;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Acks, Compression, ConfigBuilder, GroupProtocol, HandlerOrdering, IsolationLevel, OffsetReset, PartitionerKind,
    SecurityProtocol, parse_brokers,
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
    ("REDPANDA_GROUP_PROTOCOL", "group protocol"),
    ("REDPANDA_GROUP_INSTANCE_ID", "group instance id"),
    ("REDPANDA_GROUP_REMOTE_ASSIGNOR", "group remote assignor"),
    ("REDPANDA_CLIENT_RACK", "client rack"),
    ("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", "allow auto topic creation"),
    ("REDPANDA_REQUEST_TIMEOUT", "request timeout"),
    ("REDPANDA_DELIVERY_TIMEOUT", "delivery timeout"),
    ("REDPANDA_ACKS", "acks"),
    ("REDPANDA_IDEMPOTENCE", "idempotence"),
    ("REDPANDA_LINGER", "linger"),
    ("REDPANDA_BATCH_SIZE", "batch size"),
    ("REDPANDA_BUFFER_MEMORY", "buffer memory"),
    ("REDPANDA_COMPRESSION", "compression"),
    ("REDPANDA_COMPRESSION_LEVEL", "compression level"),
    ("REDPANDA_PARTITIONER", "partitioner"),
    ("REDPANDA_ADAPTIVE_PARTITIONING", "adaptive partitioning"),
    ("REDPANDA_PARTITION_AVAILABILITY_TIMEOUT", "partition availability timeout"),
    ("REDPANDA_AUTO_OFFSET_RESET", "offset reset"),
    ("REDPANDA_ISOLATION_LEVEL", "isolation level"),
    ("REDPANDA_HANDLER_ORDERING", "handler ordering"),
    ("REDPANDA_HANDLER_CONCURRENCY", "handler concurrency"),
    ("REDPANDA_PARKED_RECORDS", "parked records"),
    ("REDPANDA_PARKED_BYTES", "parked bytes"),
    ("REDPANDA_ATTEMPT_TIMEOUT", "attempt timeout"),
    ("REDPANDA_MAX_ATTEMPTS", "max attempts"),
    ("REDPANDA_DEAD_LETTER_RETENTION", "dead letter retention"),
    ("REDPANDA_SHUTDOWN_TIMEOUT", "shutdown timeout"),
    ("REDPANDA_STALL_TIMEOUT", "stall timeout"),
    ("REDPANDA_HEALTH_TIMEOUT", "health timeout"),
    ("REDPANDA_AUTO_COMMIT_INTERVAL", "auto commit interval"),
];

pub(super) fn variable_of(setting: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(_, s)| *s == setting).map(|(v, _)| *v)
}

/// The environment first, then the file.
pub(super) fn read(file: &Path, var: impl Fn(&str) -> Option<String>) -> Result<ConfigBuilder> {
    let mut from_file = HashMap::new();
    match dotenvy::from_path_iter(file) {
        Ok(lines) => {
            for line in lines {
                let (name, value) = line.map_err(|e| unreadable(file, e))?;
                from_file.insert(name, value);
            }
        }
        Err(e) if e.not_found() => {}
        Err(e) => return Err(unreadable(file, e)),
    }
    for name in from_file.keys().filter(|n| n.starts_with("REDPANDA_")) {
        if !VARIABLES.iter().any(|(known, _)| known == name) {
            tracing::warn!("{}: {name} is no setting of ailurus and has no effect; see .env.example", file.display());
        }
    }
    let mut builder = ConfigBuilder::default();
    apply(&mut builder, |name| var(name).or_else(|| from_file.get(name).cloned()));
    Ok(builder)
}

fn unreadable(file: &Path, e: dotenvy::Error) -> Error {
    // A line may hold a secret: the parser's own text, which quotes the line, is not repeated.
    let why = match e {
        dotenvy::Error::LineParse(line, column) => {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let first = line.lines().next().unwrap_or_default();
            let number = text.lines().position(|l| l.trim() == first.trim());
            let line = number.map_or_else(|| "a line".to_owned(), |n| format!("line {}", n + 1));
            format!("{line} is not NAME=value (at its column {})", column + 1)
        }
        dotenvy::Error::Io(e) => e.to_string(),
        _ => "it can't be read".to_owned(),
    };
    Error::new(ErrorKind::Config, format!("{}: {why}; see .env.example", file.display()))
}

/// Sets what is set; notes what is not allowed.
pub(super) fn apply(builder: &mut ConfigBuilder, read: impl Fn(&str) -> Option<String>) {
    let problems = std::mem::take(&mut builder.problems);
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
    vars.set("REDPANDA_GROUP_PROTOCOL", protocol, &mut config.consumer.group_protocol);
    vars.set("REDPANDA_GROUP_INSTANCE_ID", name, &mut config.consumer.group_instance_id);
    vars.set("REDPANDA_GROUP_REMOTE_ASSIGNOR", name, &mut config.consumer.group_remote_assignor);
    vars.set("REDPANDA_CLIENT_RACK", name, &mut config.consumer.client_rack);
    vars.set("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", boolean, &mut config.allow_auto_topic_creation);
    vars.set("REDPANDA_REQUEST_TIMEOUT", millis, &mut config.request_timeout);
    vars.set("REDPANDA_DELIVERY_TIMEOUT", millis, &mut config.producer.delivery_timeout);
    vars.set("REDPANDA_ACKS", acks, &mut config.producer.acks);
    vars.set("REDPANDA_IDEMPOTENCE", boolean, &mut config.producer.idempotence);
    vars.set("REDPANDA_LINGER", millis, &mut config.producer.linger);
    vars.set("REDPANDA_BATCH_SIZE", bytes, &mut config.producer.batch_size);
    vars.set("REDPANDA_BUFFER_MEMORY", bytes, &mut config.producer.buffer_memory);
    vars.set("REDPANDA_AUTO_OFFSET_RESET", reset, &mut config.consumer.offset_reset);
    vars.set("REDPANDA_ISOLATION_LEVEL", isolation, &mut config.consumer.isolation_level);
    vars.set("REDPANDA_HANDLER_ORDERING", ordering, &mut config.processor.ordering);
    vars.set("REDPANDA_HANDLER_CONCURRENCY", count, &mut config.processor.concurrency);
    vars.set("REDPANDA_PARKED_RECORDS", count, &mut config.processor.parked_records);
    vars.set("REDPANDA_PARKED_BYTES", bytes, &mut config.processor.parked_bytes);
    vars.set("REDPANDA_ATTEMPT_TIMEOUT", limit, &mut config.processor.attempt_timeout);
    vars.set("REDPANDA_MAX_ATTEMPTS", count, &mut config.processor.max_attempts);
    vars.set("REDPANDA_DEAD_LETTER_RETENTION", retention, &mut config.processor.dead_letter_retention);
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

/// Nothing is none.
fn file(s: &str) -> Result<Option<PathBuf>, String> {
    Ok(name(s)?.map(PathBuf::from))
}

/// Nothing is none.
fn name(s: &str) -> Result<Option<String>, String> {
    Ok(Some(s.to_owned()).filter(|s| !s.is_empty()))
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
