//! From the owned partitions to the target assignment, step by step.

use std::sync::Arc;

use tokio::time::Instant;

use super::heartbeat::IdPartition;
use super::{Kip848Member, Member};
use crate::consumer::group::member::Action;
use crate::consumer::group::protocol::Protocol;
use crate::consumer::group::session::Phase;
use crate::record::TopicPartition;

impl Kip848Member {
    /// Takes the next step towards the target assignment.
    ///
    /// 1. The target is {0, 2}, and {0, 1} are owned: 1 is drained, while heartbeats still report
    ///    {0, 1}.
    /// 2. 1 is revoked; the next heartbeat reports {0}.
    /// 3. Only its response lets the member own 2: until then the coordinator may have fenced it,
    ///    and assigned 2 to another member. A response that crosses a rejoin is none to the
    ///    heartbeat in flight, and adds nothing.
    pub(super) fn reconcile(&mut self, now: Instant, new_epoch: bool) {
        let mut added = Vec::new();
        if self.session.phase == Phase::Stable {
            let removed: Vec<_> = self.owned.keys().filter(|p| !self.target.contains(p)).copied().collect();
            if !removed.is_empty() {
                self.revoke(now, removed);
            } else if self.owned.keys().eq(&self.reported) {
                added = self.add_assigned();
            }
            if self.session.phase == Phase::Stable && !self.owned.keys().eq(&self.reported) {
                self.session.next_heartbeat_at = now;
            }
        }
        if new_epoch || !added.is_empty() {
            let generation = self.session.generation;
            self.session.actions.push_back(Action::Assigned { generation, added });
        }
        self.request_topic_names(now);
    }

    fn revoke(&mut self, now: Instant, partitions: Vec<IdPartition>) {
        let named = partitions.iter().filter_map(|p| self.owned.get(p).cloned()).collect();
        self.revoking = partitions;
        self.start_revocation(now, named);
    }

    /// Owns the rest of the target assignment, as far as topic names are known. Where a topic was
    /// deleted and created again, partitions of the old one are revoked first.
    fn add_assigned(&mut self) -> Vec<TopicPartition> {
        let mut added = Vec::new();
        for p in &self.target {
            let Some(name) = self.topic_names.get(&p.0).filter(|_| !self.owned.contains_key(p)) else { continue };
            let partition = TopicPartition::new(Arc::clone(name), p.1);
            if !self.owned.values().any(|owned| *owned == partition) {
                self.owned.insert(*p, partition.clone());
                added.push(partition);
            }
        }
        added
    }

    /// Returns whether an assigned partition waits for the name of its topic.
    pub(super) fn needs_topic_names(&self) -> bool {
        self.is_member() && self.target.iter().any(|(topic, _)| !self.topic_names.contains_key(topic))
    }

    pub(super) fn request_topic_names(&mut self, now: Instant) {
        if !self.needs_topic_names() {
            self.names_backoff.reset();
            self.refresh_names_at = now;
        } else if now >= self.refresh_names_at {
            self.refresh_names_at = now + self.names_backoff.next();
            self.session.actions.push_back(Action::RefreshTopicNames);
        }
    }
}
