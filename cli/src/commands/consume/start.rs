//! Where reading begins: as it is asked for, and as offsets.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::SystemTime;

use ailurus::{Admin, StartOffset, TopicPartition};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::{Missing, reachable};
use crate::output::{names, note};

/// A place in each partition: the value of `--from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From(pub StartOffset);

const ALLOWED: &str = "allowed are earliest, latest, an offset from 0, a time ago such as -5m, 2h or 1h30m (ms, s, m, h, d, w), a date \
                       such as 2026-01-31 (UTC), or a time as in RFC 3339, such as 2026-01-31T12:00:00Z";

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let offset = || text.parse().ok().filter(|offset: &i64| *offset >= 0).map(StartOffset::Offset);
        let place = match text {
            "earliest" => Some(StartOffset::Earliest),
            "latest" => Some(StartOffset::Latest),
            _ => offset().or_else(|| time(text).or_else(|| ago(text)).map(StartOffset::Timestamp)),
        };
        place.map(Self).ok_or_else(|| ALLOWED.to_owned())
    }
}

/// Returns milliseconds since 1970 of a point in time.
fn time(text: &str) -> Option<i64> {
    let zoned = DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis());
    let of_day = || text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0);
    let unzoned = || text.parse::<NaiveDateTime>().ok().or_else(of_day).map(|t| t.and_utc().timestamp_millis());
    zoned.or_else(unzoned)
}

/// Returns milliseconds since 1970 of so long ago.
fn ago(text: &str) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
    let ago = duration_ms(text.strip_prefix('-').unwrap_or(text))?;
    i64::try_from(now).ok().map(|now| now.saturating_sub(ago).max(0))
}

/// Returns the milliseconds of numbers with units, such as `1h30m`.
fn duration_ms(mut text: &str) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let ms: i64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(ms)?)?;
        text = rest;
    }
    Some(total)
}

/// One record's place, as log lines print it: the value of `--at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    pub partition: TopicPartition,
    pub offset: i64,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (partition, offset) = text.rsplit_once('@')?;
            let (topic, partition) = partition.rsplit_once('/')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            let fits = !topic.is_empty() && partition >= 0 && offset >= 0;
            fits.then(|| Self { partition: TopicPartition::new(topic, partition), offset })
        };
        parse().ok_or_else(|| "allowed is TOPIC/PARTITION@OFFSET, such as orders/0@17".to_owned())
    }
}

/// Where to begin without a group.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    From(StartOffset),
    /// So many offsets before the end.
    Last(i64),
}

/// A number from here on is milliseconds since 1970 (since 2001), where no partition has such an offset.
const LEAST_EPOCH_MS: i64 = 1_000_000_000_000;

/// Returns the offset at which each partition begins, inside its log.
pub async fn offsets(
    admin: &Admin,
    partitions: &[TopicPartition],
    start: Start,
    missing: &mut Missing,
) -> ailurus::Result<BTreeMap<TopicPartition, i64>> {
    if let Start::From(from @ (StartOffset::Earliest | StartOffset::Latest | StartOffset::Timestamp(_))) = start {
        return Ok(reachable(admin.list_offsets_each(partitions, from).await?, missing));
    }
    let firsts = reachable(admin.list_offsets_each(partitions, StartOffset::Earliest).await?, missing);
    let mut starts = reachable(admin.list_offsets_each(partitions, StartOffset::Latest).await?, missing);
    starts.retain(|tp, _| firsts.contains_key(tp));
    let first = |tp: &TopicPartition| firsts.get(tp).copied().unwrap_or(0);
    match start {
        Start::From(StartOffset::Offset(wanted)) => {
            if wanted >= LEAST_EPOCH_MS && starts.values().all(|end| *end < wanted) {
                note(format_args!(
                    "no partition has an offset {wanted}: taken as milliseconds since 1970{}",
                    DateTime::from_timestamp_millis(wanted).map_or(String::new(), |t| format!(", {}", t.to_rfc3339()))
                ));
                let at = StartOffset::Timestamp(wanted);
                return Ok(reachable(admin.list_offsets_each(partitions, at).await?, missing));
            }
            let beyond = starts.iter().filter(|(_, end)| wanted > **end);
            let beyond: Vec<_> = beyond.map(|(tp, end)| format!("{tp} (ends at {end})")).collect();
            if !beyond.is_empty() {
                note(format_args!("offset {wanted} is beyond the end, where reading begins, of {}", names(beyond)));
            }
            starts.iter_mut().for_each(|(tp, end)| *end = wanted.max(first(tp)).min(*end));
        }
        Start::Last(n) => starts.iter_mut().for_each(|(tp, end)| *end = end.saturating_sub(n).max(first(tp))),
        Start::From(_) => {}
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn from_is_a_word_an_offset_or_a_time() {
        let from = |text: &str| text.parse::<From>().map(|f| f.0);
        assert_eq!(from("earliest"), Ok(StartOffset::Earliest));
        assert_eq!(from("latest"), Ok(StartOffset::Latest));
        assert_eq!(from("0"), Ok(StartOffset::Offset(0)));
        assert_eq!(from("5000000000"), Ok(StartOffset::Offset(5_000_000_000)));
        assert_eq!(from("1970-01-01T00:00:01.5Z"), Ok(StartOffset::Timestamp(1500)));
        assert_eq!(from("1970-01-01T01:00:00+01:00"), Ok(StartOffset::Timestamp(0)));
        assert_eq!(from("1970-01-02"), Ok(StartOffset::Timestamp(86_400_000)));
        assert_eq!(from("1970-01-01T00:00:02"), Ok(StartOffset::Timestamp(2000)));
        for bad in ["-1", "", "-", "yesterday", "2026-13-31", "5", "m", "5y", "1h30", "--5m", "99999999999999w"] {
            assert!(bad == "5" || from(bad).is_err_and(|e| e.contains("RFC 3339")), "{bad}");
        }
    }

    #[test]
    fn a_time_ago_is_numbers_with_units() {
        for (text, ms) in
            [("5m", 300_000), ("2h", 7_200_000), ("1h30m", 5_400_000), ("250ms", 250), ("1w1d", 691_200_000)]
        {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        for text in ["-5m", "5m"] {
            let Ok(From(StartOffset::Timestamp(at))) = text.parse() else { unreachable!("{text}") };
            assert!((now - 300_000..now).contains(&at), "{at} is not five minutes before {now}");
        }
    }

    #[test]
    fn a_record_s_place_is_as_log_lines_print_it() {
        let at: At = "a/b.c/3@17".parse().unwrap();
        assert_eq!(at, At { partition: TopicPartition::new("a/b.c", 3), offset: 17 });
        for bad in ["", "t", "t/0", "t@1", "/0@1", "t/-1@1", "t/0@-1", "t/x@1"] {
            assert!(bad.parse::<At>().is_err_and(|e| e.contains("TOPIC/PARTITION@OFFSET")), "{bad}");
        }
    }
}
