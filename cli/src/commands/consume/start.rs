//! The first position to read: as an option, and as offsets.

use std::collections::BTreeMap;
use std::str::FromStr;

use ailurus::{Admin, StartOffset, TopicPartition};

use super::{Missing, reachable};
use crate::output::{names, note};
use crate::place::Place;

/// Position of a record, as log lines print it: the value of `--at`.
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

/// First position without a group.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    From(StartOffset),
    /// A number of offsets before the end.
    Last(i64),
}

/// Returns the offset at which reading of each partition begins, inside its log.
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
            if let at @ StartOffset::Timestamp(_) = Place(StartOffset::Offset(wanted)).resolve(starts.values().copied())
            {
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
    fn a_position_is_as_log_lines_print_it() {
        let at: At = "a/b.c/3@17".parse().unwrap();
        assert_eq!(at, At { partition: TopicPartition::new("a/b.c", 3), offset: 17 });
        for bad in ["", "t", "t/0", "t@1", "/0@1", "t/-1@1", "t/0@-1", "t/x@1"] {
            assert!(bad.parse::<At>().is_err_and(|e| e.contains("TOPIC/PARTITION@OFFSET")), "{bad}");
        }
    }
}
