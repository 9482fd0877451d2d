//! The assignors of Kafka's Java client, as implementations of `crate::assignor::Assignor`.

mod range;
mod round_robin;
mod sticky;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::subscription::{Subscription, decode_sticky, encode_sticky};
use crate::assignor::{Assignments, Assignor, GroupMember, RebalanceProtocol, TopicLayout, Topics};
use crate::config::AssignorKind;
use crate::record::TopicPartition;

impl GroupMember {
    pub(crate) fn subscribed(id: String, instance_id: Option<String>, subscription: Subscription) -> Self {
        let Subscription { topics, user_data, owned, generation, rack } = subscription;
        Self { id, instance_id, topics, user_data, owned, generation, rack }
    }
}

#[derive(Debug)]
struct Range;
#[derive(Debug)]
struct RoundRobin;
#[derive(Debug)]
struct KafkaJs;
#[derive(Debug)]
struct Sticky;
#[derive(Debug)]
struct CooperativeSticky;

impl AssignorKind {
    /// Creates the kind of an assignor that the application implements.
    pub fn custom(assignor: impl Assignor + 'static) -> Self {
        Self::Custom(std::sync::Arc::new(assignor))
    }

    fn assignor(&self) -> &dyn Assignor {
        match self {
            Self::Range => &Range,
            Self::RoundRobin => &RoundRobin,
            Self::KafkaJs => &KafkaJs,
            Self::Sticky => &Sticky,
            Self::CooperativeSticky => &CooperativeSticky,
            Self::Custom(assignor) => &**assignor,
        }
    }

    /// Name by which members agree on it.
    pub fn name(&self) -> &str {
        self.assignor().name()
    }
}

/// Lets an application's assignor build on one of these.
impl Assignor for AssignorKind {
    fn name(&self) -> &str {
        self.assignor().name()
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.assignor().protocol()
    }

    fn user_data(&self, topics: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        self.assignor().user_data(topics, last, generation)
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        self.assignor().assign(topics, members)
    }
}

impl Assignor for Range {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        range::assign(topics, &sorted(members))
    }
}

impl Assignor for RoundRobin {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        round_robin::assign(topics, &sorted(members))
    }
}

impl Assignor for KafkaJs {
    fn name(&self) -> &str {
        "RoundRobinAssigner"
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        RoundRobin.assign(topics, members)
    }
}

impl Assignor for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn user_data(&self, _: &BTreeSet<String>, last: &[TopicPartition], generation: i32) -> Option<Bytes> {
        (generation >= 0).then(|| encode_sticky(last, generation))
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        let last = |m: &GroupMember| {
            let data = m.user_data.as_deref().filter(|data| !data.is_empty());
            let decoded = data.map(decode_sticky).transpose().unwrap_or_else(|e| {
                tracing::debug!(member = m.id, error = %e.full(), "the previous assignment of a member can't be decoded");
                None
            });
            decoded.map_or((Vec::new(), -1), |(partitions, generation)| (partitions, generation.unwrap_or(-1)))
        };
        sticky::assign(topics, &sorted(members), last)
    }
}

impl Assignor for CooperativeSticky {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    /// Returns the generation, for leaders that do not read it in the subscription.
    fn user_data(&self, _: &BTreeSet<String>, _: &[TopicPartition], generation: i32) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&generation.to_be_bytes()))
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Assignments {
        let generation = |m: &GroupMember| {
            let from_user_data =
                || m.user_data.as_deref().and_then(|data| data.try_into().ok()).map(i32::from_be_bytes);
            m.generation.or_else(from_user_data).unwrap_or(-1)
        };
        let owned = |m: &GroupMember| (m.owned.clone(), generation(m));
        let members = sorted(members);
        let mut all = sticky::assign(topics, &members, owned);
        sticky::withhold(&mut all, &members, owned);
        all
    }
}

fn sorted(members: &[GroupMember]) -> Vec<&GroupMember> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| a.canonical_order(b));
    sorted
}

fn empty(members: &[&GroupMember]) -> Assignments {
    members.iter().map(|m| (m.id.clone(), Vec::new())).collect()
}

/// Returns whether to consider racks (KIP-881): some member is in the rack of some replica, and not
/// all partitions have their replicas in the same racks.
fn is_rack_aware<'a>(members: impl IntoIterator<Item = &'a GroupMember>, topics: &[&TopicLayout]) -> bool {
    let all: BTreeSet<&String> = topics.iter().flat_map(|t| t.racks.iter().flatten()).collect();
    let any_in_rack = members.into_iter().any(|m| m.rack.as_ref().is_some_and(|rack| all.contains(rack)));
    let spread = |t: &&TopicLayout| (0..t.partitions).any(|p| t.racks_of(p).map_or(0, BTreeSet::len) != all.len());
    any_in_rack && topics.iter().any(spread)
}

#[cfg(test)]
mod tests;
