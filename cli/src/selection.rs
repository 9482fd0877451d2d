//! Topics and partitions chosen on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use ailurus::{Admin, TopicPartition};
use anyhow::Context;

use crate::exit::NotFound;
use crate::output::names;

/// A topic, `TOPIC`, or some of its partitions, `TOPIC:0,3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    topic: String,
    partitions: Option<Vec<i32>>,
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A topic's name has no colon.
        let (topic, partitions) = text.split_once(':').map_or((text, None), |(t, p)| (t, Some(p)));
        let number = |n: &str| n.parse::<i32>().ok().filter(|n| *n >= 0);
        let numbers = |p: &str| p.split(',').map(number).collect::<Option<Vec<_>>>();
        let allowed = "allowed is TOPIC, or TOPIC:PARTITION,… such as orders:0,3";
        let partitions = partitions.map(|p| numbers(p).ok_or(allowed)).transpose()?;
        if topic.is_empty() {
            return Err(allowed.to_owned());
        }
        Ok(Self { topic: topic.to_owned(), partitions })
    }
}

impl Selection {
    /// Selects some partitions of a topic; all of them if none is given.
    pub fn new(topic: &str, partitions: &[i32]) -> Self {
        let partitions = Some(partitions.to_vec()).filter(|p| !p.is_empty());
        Self { topic: topic.to_owned(), partitions }
    }

    /// Returns the partitions, which must exist.
    pub async fn find(&self, admin: &Admin) -> anyhow::Result<Vec<TopicPartition>> {
        let count = admin.describe_topic(&self.topic).await?.partitions.len();
        let all = || (0..).take(count).collect();
        let chosen: Vec<i32> = self.partitions.clone().unwrap_or_else(all);
        if let Some(beyond) = chosen.iter().find(|p| usize::try_from(**p).is_ok_and(|p| p >= count)) {
            let what = format!("{} has no partition {beyond}: it has {count}, counted from 0", self.topic);
            return Err(NotFound(what).into());
        }
        Ok(chosen.into_iter().map(|p| TopicPartition::new(self.topic.as_str(), p)).collect())
    }

    /// Returns the partitions of several selections, each once.
    pub async fn find_all(all: &[Self], admin: &Admin) -> anyhow::Result<Vec<TopicPartition>> {
        let mut found = Vec::new();
        for selection in all {
            found.extend(selection.find(admin).await?);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Returns the offsets of all partitions, for a command that changes all or nothing. `choose` is the option that leaves
/// partitions out.
pub fn all_known(
    offsets: BTreeMap<TopicPartition, ailurus::Result<i64>>,
    choose: &str,
) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    let count = offsets.len();
    let (mut known, mut unknown, mut first) = (BTreeMap::new(), Vec::new(), None);
    for (tp, offset) in offsets {
        match offset {
            Ok(offset) => drop(known.insert(tp, offset)),
            Err(e) => {
                unknown.push(tp);
                first.get_or_insert(e);
            }
        }
    }
    let Some(e) = first else { return Ok(known) };
    let (failed, names) = (unknown.len(), names(&unknown));
    Err(e)
        .with_context(|| format!("no offsets of {failed} of {count} partitions ({names}); choose others with {choose}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_a_topic_or_some_of_its_partitions() {
        let of = |text: &str| text.parse::<Selection>().map(|s| (s.topic, s.partitions));
        assert_eq!(of("orders"), Ok(("orders".into(), None)));
        assert_eq!(of("orders:3,0"), Ok(("orders".into(), Some(vec![3, 0]))));
        for bad in ["", ":1", "orders:", "orders:a", "orders:-1", "orders:1,", "a:1:2"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
