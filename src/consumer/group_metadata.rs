//! A consumer's membership, as transactions commit offsets with.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::command::Command;
use super::lease::{Lease, Leases};
use super::offsets::committer::Commands;
use super::status::Status;
use crate::cluster::ConsumerGroupMetadata;
use crate::cluster::group_metadata::{GroupMember, GroupMembership};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// The leases that a consumer's application had at one time.
#[derive(Debug)]
struct Membership {
    group: Arc<str>,
    instance_id: Option<String>,
    leases: Leases,
    status: Arc<Status>,
    /// Weak: the consumer's task ends with its consumer.
    commands: mpsc::WeakSender<Command>,
}

/// Returns the membership of a consumer whose application has these leases.
pub(super) fn group_metadata(
    commands: Option<&Commands>,
    leases: Leases,
    status: &Arc<Status>,
) -> Result<ConsumerGroupMetadata> {
    let Some(Commands { group, instance_id, sender, .. }) = commands else {
        let what = "this consumer reads without a group: no offsets can be committed for it";
        return Err(Error::new(ErrorKind::GroupMembership, what));
    };
    let (group, instance_id, status) = (Arc::clone(group), instance_id.clone(), Arc::clone(status));
    let commands = sender.downgrade();
    let membership = Membership { group: Arc::clone(&group), instance_id, leases, status, commands };
    Ok(ConsumerGroupMetadata::new(group, Arc::new(membership)))
}

impl GroupMembership for Membership {
    fn member(&self, partitions: &mut dyn Iterator<Item = &TopicPartition>) -> Result<Option<GroupMember>> {
        let lease = |p: &TopicPartition| self.leases.of(p).ok_or_else(|| not_assigned(p, &self.group));
        let leases: Vec<Lease> = partitions.map(lease).collect::<Result<_>>()?;
        let Some((member_id, generation)) = self.status.member_of(leases.iter()) else {
            let gone = leases.iter().find(|lease| !self.status.holds(lease));
            return gone.map_or(Ok(None), |lease| Err(not_assigned(&lease.partition, &self.group)));
        };
        Ok(Some(GroupMember { member_id, generation, instance_id: self.instance_id.clone() }))
    }

    fn on_refused(&self, generation: i32) {
        if let Some(commands) = self.commands.upgrade() {
            _ = commands.try_send(Command::RefreshGeneration(generation)); // if it is full, a later one comes
        }
    }
}

fn not_assigned(partition: &TopicPartition, group: &str) -> Error {
    let what = format!(
        "the offset of {partition} was not committed: the partition is not, or no longer, assigned to this member of group {group:?}"
    );
    Error::new(ErrorKind::GroupMembership, what)
}
