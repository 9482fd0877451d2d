//! Decides which partitions of a subscription are paused, and why, without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::TopicPartition;

/// The reason why a partition is paused. It may have several, and is read on when none is left.
///
/// ```
/// use ailurus::processor::PauseReason;
///
/// assert_eq!(serde_json::to_string(&PauseReason::Control).unwrap(), r#""control""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PauseReason {
    /// [`SubscriptionControl::pause`](super::SubscriptionControl::pause).
    Control,
    /// A dependency of the handler is down.
    Breaker,
    /// The next record of a [retry topic](crate::ProcessorConfig::delayed_retries) is not due.
    Delay,
    /// Read from the JSON of a newer version, which has a reason that this one does not know.
    #[serde(other)]
    Unknown,
}

impl PauseReason {
    const ALL: [Self; 3] = [Self::Control, Self::Breaker, Self::Delay];

    /// Returns `control`, `breaker` or `delay`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Breaker => "breaker",
            Self::Delay => "delay",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn bit(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Breaker => 2,
            Self::Delay => 4,
            Self::Unknown => 0,
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reasons why a partition is paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PauseReasons(pub(super) u8);

impl PauseReasons {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, reason: PauseReason) -> bool {
        self.0 & reason.bit() != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = PauseReason> {
        PauseReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

/// Scope of a pause or a resume by a [`SubscriptionControl`](super::SubscriptionControl).
///
/// ```
/// use ailurus::TopicPartition;
/// use ailurus::processor::Scope;
///
/// assert_eq!(Scope::from("orders").to_string(), "orders");
/// assert_eq!(Scope::from(TopicPartition::new("orders", 3)).to_string(), "orders/3");
/// assert_eq!(Scope::All.to_string(), "all topics");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All partitions of the subscription, those that are assigned later too.
    All,
    /// All partitions of a topic, those that are assigned later too.
    Topic(String),
    /// One partition, while it is assigned.
    Partition(TopicPartition),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all topics"),
            Self::Topic(topic) => f.write_str(topic),
            Self::Partition(partition) => partition.fmt(f),
        }
    }
}

impl From<&str> for Scope {
    fn from(topic: &str) -> Self {
        Self::Topic(topic.to_owned())
    }
}

impl From<String> for Scope {
    fn from(topic: String) -> Self {
        Self::Topic(topic)
    }
}

impl From<&String> for Scope {
    fn from(topic: &String) -> Self {
        Self::Topic(topic.clone())
    }
}

impl From<TopicPartition> for Scope {
    fn from(partition: TopicPartition) -> Self {
        Self::Partition(partition)
    }
}

impl From<&TopicPartition> for Scope {
    fn from(partition: &TopicPartition) -> Self {
        Self::Partition(partition.clone())
    }
}

/// Scopes paused by the control of a subscription: the last call that covers a partition decides.
#[derive(Debug, Default)]
pub(super) struct PauseRules {
    all: bool,
    /// Topics that differ from `all`.
    topics: BTreeMap<String, bool>,
    /// Partitions that differ from their topic.
    partitions: BTreeMap<TopicPartition, bool>,
}

impl PauseRules {
    /// Pauses or resumes a scope, and with it everything narrower.
    pub(super) fn set(&mut self, scope: &Scope, paused: bool) {
        match scope {
            Scope::All => *self = Self { all: paused, ..Self::default() },
            Scope::Topic(topic) => {
                self.partitions.retain(|tp, _| *tp.topic != **topic);
                match paused == self.all {
                    true => drop(self.topics.remove(topic)),
                    false => drop(self.topics.insert(topic.clone(), paused)),
                }
            }
            Scope::Partition(tp) => match paused == self.is_topic_paused(&tp.topic) {
                true => drop(self.partitions.remove(tp)),
                false => drop(self.partitions.insert(tp.clone(), paused)),
            },
        }
    }

    fn is_topic_paused(&self, topic: &str) -> bool {
        self.topics.get(topic).copied().unwrap_or(self.all)
    }

    pub(super) fn is_paused(&self, tp: &TopicPartition) -> bool {
        self.partitions.get(tp).copied().unwrap_or_else(|| self.is_topic_paused(&tp.topic))
    }

    /// Forgets partitions that have moved to another member, at the end of a rebalance.
    ///
    /// With an eager assignor each rebalance revokes all partitions, and most come back:
    /// 1. `orders/3` is paused. A member joins: all partitions are revoked.
    /// 2. The rebalance ends. `orders/3` is assigned again: it stays paused. Forgotten at its
    ///    revocation, the pause would be lost.
    /// 3. Another rebalance ends without `orders/3`: its pause is forgotten here. Kept, it would
    ///    stand still when it comes back after days.
    pub(super) fn retain_assigned(&mut self, is_assigned: impl Fn(&TopicPartition) -> bool) {
        self.partitions.retain(|tp, _| is_assigned(tp));
    }

    /// Forgets topics that are not subscribed to any more.
    pub(super) fn retain_topics(&mut self, topics: &BTreeSet<String>) {
        self.topics.retain(|topic, _| topics.contains(topic));
    }

    /// Returns the scopes that are paused.
    pub(super) fn paused(&self) -> Vec<Scope> {
        let topics = self.topics.iter().filter(|(_, paused)| **paused).map(|(topic, _)| Scope::Topic(topic.clone()));
        let partitions = self.partitions.iter().filter(|(_, paused)| **paused);
        let partitions = partitions.map(|(tp, _)| Scope::Partition(tp.clone()));
        self.all.then_some(Scope::All).into_iter().chain(topics).chain(partitions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    #[test]
    fn the_last_call_that_covers_a_partition_decides() {
        let mut rules = PauseRules::default();
        rules.set(&Scope::All, true);
        rules.set(&"a".into(), false);
        rules.set(&p("a", 1).into(), true);
        let are = |rules: &PauseRules| [p("a", 0), p("a", 1), p("b", 0)].map(|tp| rules.is_paused(&tp));
        assert_eq!(are(&rules), [false, true, true]);
        assert_eq!(rules.paused(), [Scope::All, p("a", 1).into()]);
        rules.set(&"a".into(), false);
        assert_eq!(are(&rules), [false, false, true], "a wider call covers earlier ones of its partitions");
        rules.set(&p("b", 0).into(), false);
        assert_eq!(are(&rules), [false, false, false]);
        rules.set(&"b".into(), true);
        assert_eq!(are(&rules), [false, false, true]);
        rules.set(&Scope::All, false);
        assert_eq!((are(&rules), rules.paused()), ([false; 3], Vec::new()));
    }

    #[test]
    fn a_resumed_scope_leaves_no_rule_behind() {
        let mut rules = PauseRules::default();
        for scope in ["a".into(), p("a", 0).into(), Scope::All] {
            rules.set(&scope, true);
            rules.set(&scope, false);
            let PauseRules { all, topics, partitions } = &rules;
            assert!(!all && topics.is_empty() && partitions.is_empty(), "{rules:?}");
        }
    }

    #[test]
    fn a_partition_that_moves_away_comes_back_resumed() {
        let mut rules = PauseRules::default();
        rules.set(&p("a", 0).into(), true);
        rules.set(&p("a", 1).into(), true);
        rules.set(&"b".into(), true);
        rules.retain_assigned(|tp| *tp == p("a", 1)); // revoked and assigned again in one rebalance
        assert!(rules.is_paused(&p("a", 1)) && !rules.is_paused(&p("a", 0)));
        assert!(rules.is_paused(&p("b", 7)), "a topic stays paused, whichever of its partitions are here");
    }

    #[test]
    fn reasons_are_a_set() {
        let all = PauseReasons(PauseReason::ALL.iter().fold(0, |bits, reason| bits | reason.bit()));
        assert_eq!(all.iter().collect::<Vec<_>>(), PauseReason::ALL);
        assert!(!PauseReasons(all.0 & !PauseReason::Control.bit()).is_empty(), "others are left");
    }
}
