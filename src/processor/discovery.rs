//! Decides which topics a subscription by a pattern reads, without I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The function of a subscription that chooses topics by name.
#[derive(Clone)]
pub(super) struct TopicPattern(pub(super) Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicPattern")
    }
}

impl TopicPattern {
    /// Returns whether it chooses a topic. Internal ones are never chosen.
    pub(super) fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__") && (self.0)(topic)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Discovery {
    pattern: TopicPattern,
    /// Topics that the control has removed.
    removed: BTreeSet<String>,
    /// Subscribed topics that the last list did not have.
    missing: BTreeSet<String>,
}

/// Topics to subscribe to, and to subscribe to no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TopicChanges {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Discovery {
    pub(super) fn new(pattern: TopicPattern) -> Self {
        Self { pattern, removed: BTreeSet::new(), missing: BTreeSet::new() }
    }

    /// Handles the topics that the control adds.
    pub(super) fn on_added(&mut self, topics: &[String]) {
        topics.iter().for_each(|topic| _ = self.removed.remove(topic));
    }

    /// Handles the topics that the control removes.
    pub(super) fn on_removed(&mut self, topics: &[String]) {
        self.removed.extend(topics.iter().cloned());
    }

    /// Handles a list of the cluster's topics. `has_failed_records` for those of dead letters and
    /// retries: a pattern that matches them would handle them again and again.
    pub(super) fn on_listed(
        &mut self,
        listed: &BTreeSet<String>,
        subscribed: &BTreeSet<String>,
        has_failed_records: impl Fn(&str) -> bool,
    ) -> TopicChanges {
        let is_new = |topic: &&String| {
            !subscribed.contains(*topic)
                && !self.removed.contains(*topic)
                && !has_failed_records(topic)
                && self.pattern.matches(topic)
        };
        let added = listed.iter().filter(is_new).cloned().collect();
        // A topic that is created again, or whose leaders are being elected, is missing from one list.
        // Each change is a rebalance of the group, so it must be missing from two.
        let is_missing = |topic: &&String| !listed.contains(*topic) && self.pattern.matches(topic);
        let missing: BTreeSet<_> = subscribed.iter().filter(is_missing).cloned().collect();
        let removed = missing.intersection(&self.missing).cloned().collect();
        self.missing = missing;
        TopicChanges { added, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(topics: &[&str]) -> BTreeSet<String> {
        topics.iter().map(|t| (*t).to_owned()).collect()
    }

    fn discovery() -> Discovery {
        Discovery::new(TopicPattern(Arc::new(|topic| topic.contains("orders"))))
    }

    fn changes(added: &[&str], removed: &[&str]) -> TopicChanges {
        let all = |topics: &[&str]| topics.iter().map(|t| (*t).to_owned()).collect();
        TopicChanges { added: all(added), removed: all(removed) }
    }

    #[test]
    fn new_topics_are_added_but_dead_letters_and_internal_ones() {
        let listed = set(&["__orders", "orders", "orders.dlq", "eu.orders", "payments"]);
        let found = discovery().on_listed(&listed, &set(&["orders"]), |topic| topic.ends_with(".dlq"));
        assert_eq!(found, changes(&["eu.orders"], &[]));
    }

    #[test]
    fn a_topic_is_removed_when_two_lists_lack_it() {
        let (mut core, subscribed) = (discovery(), set(&["orders", "eu.orders", "by-hand"]));
        let mut list = |listed: &[&str]| core.on_listed(&set(listed), &subscribed, |_| false);
        assert_eq!(list(&["orders"]), changes(&[], &[]));
        assert_eq!(list(&["orders", "eu.orders"]), changes(&[], &[]));
        assert_eq!(list(&["orders"]), changes(&[], &[]));
        assert_eq!(list(&["orders"]), changes(&[], &["eu.orders"]));
    }

    #[test]
    fn what_the_control_removes_stays_removed_until_it_adds_it() {
        let mut core = discovery();
        core.on_removed(&["orders".to_owned()]);
        assert_eq!(core.on_listed(&set(&["orders"]), &set(&[]), |_| false), changes(&[], &[]));
        core.on_added(&["orders".to_owned()]);
        assert_eq!(core.on_listed(&set(&["orders"]), &set(&[]), |_| false), changes(&["orders"], &[]));
    }
}
