//! All partitions of all topics, assigned to the members in turn.

use super::{Assignments, GroupMember, Topics, empty};
use crate::record::TopicPartition;

pub(super) fn assign(topics: &Topics, members: &[&GroupMember]) -> Assignments {
    let mut out = empty(members);
    let mut turn = members.iter().cycle().peekable();
    for (topic, layout) in topics {
        if !members.iter().any(|m| m.topics.contains(topic)) {
            continue;
        }
        for partition in 0..layout.partitions {
            // Terminates, since some member subscribes to the topic.
            while turn.next_if(|m| !m.topics.contains(topic)).is_some() {}
            if let Some(list) = turn.next().and_then(|m| out.get_mut(&m.id)) {
                list.push(TopicPartition::new(&**topic, partition));
            }
        }
    }
    out
}
