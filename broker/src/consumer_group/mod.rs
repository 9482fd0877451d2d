//! A group of the `consumer` protocol (KIP-848), as a state machine without clock, socket or task.
//!
//! Members only send heartbeats, and each gets a response at once. The broker computes a *target*
//! assignment and reconciles each member by itself: it first revokes partitions outside the target,
//! and waits until the member no longer owns them; then the member moves to the target's epoch and
//! gets the partitions that no other member owns.

mod assignor;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use assignor::Assignor;
pub(crate) use member::{HeartbeatRequest, Member, MemberState};

/// Partitions by topic id.
pub(crate) type Partitions = BTreeSet<(Uuid, i32)>;
/// Topic id and partition count by topic name.
pub(crate) type Topics = BTreeMap<String, (Uuid, i32)>;

/// Epoch of a member that joins.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// Epoch of a member that leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// Epoch of a static member that leaves temporarily.
pub(crate) const STATIC_LEAVE_EPOCH: i32 = -2;

/// Response to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatResponse {
    pub member_id: String,
    pub epoch: i32,
    /// `None` if it has not changed.
    pub assignment: Option<Partitions>,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    epoch: i32,
    /// Group epoch that the target was computed for.
    target_epoch: i32,
    target: BTreeMap<String, Partitions>,
    /// Subscribed topics that the target was computed from.
    topics: Topics,
    members: BTreeMap<String, Member>,
    session_timeout: Duration,
}

impl ConsumerGroup {
    pub fn new(session_timeout: Duration) -> Self {
        Self {
            epoch: 1,
            target_epoch: 1,
            target: BTreeMap::new(),
            topics: BTreeMap::new(),
            members: BTreeMap::new(),
            session_timeout,
        }
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    pub fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(id, m)| (id.as_str(), m))
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the target assignment of a member.
    pub fn target(&self, id: &str) -> Partitions {
        self.target.get(id).cloned().unwrap_or_default()
    }

    /// Returns the name of its state, as in ConsumerGroupDescribe and ListGroups.
    pub fn state(&self) -> &'static str {
        let is_stable = |m: &Member| m.state == MemberState::Stable && m.epoch == self.target_epoch;
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(is_stable) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Returns the assignor that most members request.
    pub fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|m| m.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        votes.into_iter().max_by_key(|&(_, n)| n).map(|(assignor, _)| assignor).unwrap_or_default()
    }

    /// Returns the time by which [`tick`](Self::tick) must be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.members.values().map(Member::deadline).min()
    }

    /// Removes members whose session expired, or that did not revoke partitions in time.
    pub fn tick(&mut self, now: Instant) {
        let expired = |(id, m): (&String, &Member)| (m.deadline() <= now).then(|| id.clone());
        let expired: Vec<String> = self.members.iter().filter_map(expired).collect();
        for id in expired {
            self.remove(&id);
        }
    }

    /// Restarts all sessions when the group moves to another node.
    pub fn on_coordinator_moved(&mut self, now: Instant) {
        self.members.values_mut().for_each(|m| m.session_expires_at = now + self.session_timeout);
    }

    /// Handles the heartbeat of a member that joins or stays.
    pub fn heartbeat(
        &mut self,
        request: HeartbeatRequest,
        topics: &Topics,
        now: Instant,
    ) -> Result<HeartbeatResponse, ResponseError> {
        self.find_or_join(&request, now)?;
        let id = request.member_id.clone();
        let Some(member) = self.members.get_mut(&id) else { return Err(ResponseError::UnknownMemberId) };
        let previous = member.assigned.clone();
        let full = request.is_full();
        let owned = request.owned.clone();
        let mut changed = member.update(request);
        member.session_expires_at = now + self.session_timeout;
        changed |= self.subscribed_topics(topics) != self.topics;
        self.epoch += i32::from(changed);
        if self.epoch > self.target_epoch {
            self.topics = self.subscribed_topics(topics);
            self.target = self.assignor().assign(&self.members, &self.target, &self.topics);
            self.target_epoch = self.epoch;
        }
        self.reconcile(&id, owned.as_ref(), now);
        let Some(member) = self.members.get(&id) else { return Err(ResponseError::UnknownMemberId) };
        let assignment = (full || member.assigned != previous).then(|| member.assigned.clone());
        Ok(HeartbeatResponse { epoch: member.epoch, assignment, member_id: id })
    }

    /// Removes a member; a static one may leave temporarily.
    pub fn leave(&mut self, id: &str, instance: Option<&str>, is_static_leave: bool) -> Result<(), ResponseError> {
        match instance {
            Some(instance) => self.check_instance(id, instance)?,
            None if self.members.contains_key(id) => {}
            None => return Err(ResponseError::UnknownMemberId),
        }
        match self.members.get_mut(id) {
            Some(member) if is_static_leave => {
                member.epoch = STATIC_LEAVE_EPOCH;
                member.state = MemberState::Stable;
                member.pending_revocation.clear();
                member.revocation_deadline = None;
            }
            _ => self.remove(id),
        }
        Ok(())
    }

    /// Checks the member epoch of an OffsetCommit or OffsetFetch; -1 is allowed while there are no
    /// members.
    pub fn check_epoch(&self, id: &str, epoch: i32) -> Result<(), ResponseError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(id).ok_or(ResponseError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(ResponseError::StaleMemberEpoch) }
    }

    fn remove(&mut self, id: &str) {
        if self.members.remove(id).is_some() {
            self.target.remove(id);
            self.epoch += 1;
        }
    }

    fn id_of_instance(&self, instance: &str) -> Option<&str> {
        let found = self.members.iter().find(|(_, m)| m.instance_id.as_deref() == Some(instance));
        found.map(|(id, _)| id.as_str())
    }

    /// Fails unless the member is the one of the instance.
    fn check_instance(&self, id: &str, instance: &str) -> Result<(), ResponseError> {
        match self.id_of_instance(instance) {
            None => Err(ResponseError::UnknownMemberId),
            Some(owner) if owner != id => Err(ResponseError::FencedInstanceId),
            Some(_) => Ok(()),
        }
    }

    /// Finds or adds the member of a heartbeat, and checks its epoch.
    fn find_or_join(&mut self, request: &HeartbeatRequest, now: Instant) -> Result<(), ResponseError> {
        let id = &request.member_id;
        match (&request.instance_id, request.epoch == JOIN_EPOCH) {
            (Some(instance), true) => match self.id_of_instance(instance).map(str::to_owned) {
                Some(old) => return self.replace_static_member(&old, id),
                None => _ = self.members.entry(id.clone()).or_insert_with(|| Member::new(now + self.session_timeout)),
            },
            (Some(instance), false) => self.check_instance(id, instance)?,
            (None, true) => {
                self.members.entry(id.clone()).or_insert_with(|| Member::new(now + self.session_timeout));
            }
            (None, false) => {}
        }
        let member = self.members.get(id).ok_or(ResponseError::UnknownMemberId)?;
        if member.accepts_epoch(request.epoch, request.owned.as_ref()) {
            Ok(())
        } else {
            Err(ResponseError::FencedMemberEpoch)
        }
    }

    /// Replaces a static member that left by its new member id.
    fn replace_static_member(&mut self, old: &str, id: &str) -> Result<(), ResponseError> {
        let Some(member) = self.members.get_mut(old).filter(|m| m.epoch == STATIC_LEAVE_EPOCH) else {
            return Err(ResponseError::UnreleasedInstanceId);
        };
        member.epoch = JOIN_EPOCH;
        member.previous_epoch = JOIN_EPOCH;
        if let Some(member) = self.members.remove(old) {
            self.members.insert(id.to_owned(), member);
        }
        if let Some(target) = self.target.remove(old) {
            self.target.insert(id.to_owned(), target);
        }
        Ok(())
    }

    /// Returns the existing topics that members subscribe to.
    fn subscribed_topics(&self, topics: &Topics) -> Topics {
        let wanted: BTreeSet<&String> = self.members.values().flat_map(|m| &m.topics).collect();
        wanted.into_iter().filter_map(|name| Some((name.clone(), *topics.get(name)?))).collect()
    }

    /// Moves a member one step towards its target.
    fn reconcile(&mut self, id: &str, owned: Option<&Partitions>, now: Instant) {
        let target = self.target(id);
        let Some(member) = self.members.get(id) else { return };
        if member.state == MemberState::Stable && member.epoch == self.target_epoch {
            return;
        }
        // A request without owned partitions may own all.
        let may_own = |ps: &Partitions| owned.is_none_or(|owned| !owned.is_disjoint(ps));
        let mut epoch = member.epoch;
        if member.state == MemberState::UnrevokedPartitions {
            if may_own(&member.pending_revocation) {
                return;
            }
            epoch += 1;
        }
        let kept: Partitions = member.assigned.intersection(&target).copied().collect();
        let pending_revocation: Partitions = member.assigned.difference(&target).copied().collect();
        let must_revoke = !pending_revocation.is_empty() && may_own(&pending_revocation);
        let others = self.members.iter().filter(|(other, _)| *other != id).map(|(_, m)| m);
        let owned_by_others: Partitions =
            others.flat_map(|m| m.assigned.union(&m.pending_revocation)).copied().collect();
        let target_epoch = self.target_epoch;
        let Some(member) = self.members.get_mut(id) else { return };
        if must_revoke {
            member.set_epoch(epoch);
            member.assigned = kept;
            member.pending_revocation = pending_revocation;
            member.state = MemberState::UnrevokedPartitions;
            member.revocation_deadline = Some(now + member.rebalance_timeout);
            return;
        }
        let is_incomplete = target.intersection(&owned_by_others).next().is_some();
        member.assigned = target.difference(&owned_by_others).copied().collect();
        member.pending_revocation.clear();
        member.revocation_deadline = None;
        member.set_epoch(target_epoch);
        member.state = if is_incomplete { MemberState::UnreleasedPartitions } else { MemberState::Stable };
    }
}
