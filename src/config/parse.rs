//! Parsers of variables. Errors say what is allowed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::keyword::Keyword;
use super::{AssignorKind, BrokerAddr, Compression, SecurityProtocol, addr};

/// Parses a keyword of the type.
pub(super) fn keyword<T: Keyword>(s: &str) -> Result<T, String> {
    T::from_keyword(s).ok_or_else(T::allowed)
}

pub(super) fn brokers(s: &str) -> Result<Vec<BrokerAddr>, String> {
    addr::parse_brokers(s).map_err(|e| e.to_string())
}

pub(super) fn text(s: &str) -> Result<String, String> {
    Ok(s.to_owned())
}

pub(super) fn millis(s: &str) -> Result<Duration, String> {
    let ms = s.parse().map_err(|_| "allowed is a whole number of milliseconds, such as 30000".to_owned())?;
    Ok(Duration::from_millis(ms))
}

pub(super) fn bytes(s: &str) -> Result<usize, String> {
    s.parse().map_err(|_| "allowed is a whole number of bytes, such as 1000000".to_owned())
}

/// Parses a time in milliseconds, or 0 for none.
pub(super) fn limit(s: &str) -> Result<Option<Duration>, String> {
    let ms = millis(s).map_err(|allowed| format!("{allowed}, or 0 for none"))?;
    Ok(Some(ms).filter(|ms| !ms.is_zero()))
}

/// Parses a time, in milliseconds or with a unit, or `forever`.
pub(super) fn retention(s: &str) -> Result<Option<Duration>, String> {
    if matches!(s, "forever" | "none") {
        return Ok(None);
    }
    duration(s)
        .map(Some)
        .ok_or_else(|| "allowed is a time such as 30d, 12h or 86400000 (milliseconds), or forever".to_owned())
}

/// Parses times as of [`retention`], separated by commas; none if it is empty or `none`.
pub(super) fn delays(s: &str) -> Result<Vec<Duration>, String> {
    if matches!(s, "" | "none") {
        return Ok(Vec::new());
    }
    let all = s.split(',').map(|one| duration(one.trim())).collect::<Option<_>>();
    all.ok_or_else(|| "allowed are times such as 30s, 10m or 1h, separated by commas, or none".to_owned())
}

/// Parses a time, in milliseconds or with a unit.
fn duration(s: &str) -> Option<Duration> {
    let unit = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (number, unit) = s.split_at(unit);
    let unit = match unit {
        "ms" | "" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
}

pub(super) fn count<T: std::str::FromStr>(s: &str) -> Result<T, String> {
    s.parse().map_err(|_| "allowed is a whole number, such as 64".to_owned())
}

pub(super) fn boolean(s: &str) -> Result<bool, String> {
    match s.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("allowed is true or false".into()),
    }
}

pub(super) fn gzip_level(s: &str) -> Result<u32, String> {
    let level = s.parse().ok().filter(|l| (1..=9).contains(l));
    level.ok_or_else(|| "allowed is 1 (fast) to 9 (small)".into())
}

pub(super) fn security_protocol(s: &str) -> Result<SecurityProtocol, String> {
    s.parse().map_err(|_| "allowed is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL".into())
}

pub(super) fn file(s: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(PathBuf::from(s)))
}

pub(super) fn name(s: &str) -> Result<Option<String>, String> {
    Ok(Some(s.to_owned()))
}

/// Parses names, separated by commas.
pub(super) fn assignors(s: &str) -> Result<Vec<AssignorKind>, String> {
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

/// Parses `topic=codec`, separated by commas; a gzip level follows a colon.
pub(super) fn topic_codecs(s: &str) -> Result<HashMap<String, Compression>, String> {
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
