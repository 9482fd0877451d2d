//! A group of the `consumer` protocol (KIP-848), as a state machine without clock, socket or task.
//!
//! Members only send heartbeats, and each is answered at once. The broker computes a *target* for every member and leads each
//! one there by itself: first it asks for what is not in the target, and waits until the member no longer owns it; then the
//! member goes to the target's epoch and gets what no one else owns any more.

mod assignor;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use uuid::Uuid;

pub(crate) use assignor::Assignor;
pub(crate) use member::{HeartbeatRequest, Member, MemberState};

/// Partitions, by the topic's id.
pub(crate) type Partitions = BTreeSet<(Uuid, i32)>;
/// Id and number of partitions of topics, by name.
pub(crate) type Topics = BTreeMap<String, (Uuid, i32)>;

/// The epoch of a member that joins.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// The epoch of a member that leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// The epoch of a static member that leaves and will be back.
pub(crate) const STATIC_LEAVE_EPOCH: i32 = -2;

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatResponse {
    pub member_id: String,
    pub epoch: i32,
    /// `None`: what it was.
    pub assignment: Option<Partitions>,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    epoch: i32,
    /// The epoch that the target was computed for.
    target_epoch: i32,
    target: BTreeMap<String, Partitions>,
    /// What the target was computed from.
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

    /// What a member is led to.
    pub fn target(&self, id: &str) -> Partitions {
        self.target.get(id).cloned().unwrap_or_default()
    }

    /// The name that ConsumerGroupDescribe and ListGroups give its state.
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

    /// The assignor that most members ask for.
    pub fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|m| m.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        votes.into_iter().max_by_key(|&(_, n)| n).map(|(assignor, _)| assignor).unwrap_or_default()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.members.values().map(Member::deadline).min()
    }

    /// Puts those out whose session is over, or who have not given up in time what they were asked for.
    pub fn tick(&mut self, now: Instant) {
        let expired = |(id, m): (&String, &Member)| (m.deadline() <= now).then(|| id.clone());
        let expired: Vec<String> = self.members.iter().filter_map(expired).collect();
        for id in expired {
            self.remove(&id);
        }
    }

    /// The group moves to another node: every session starts anew.
    pub fn on_coordinator_moved(&mut self, now: Instant) {
        self.members.values_mut().for_each(|m| m.session_expires_at = now + self.session_timeout);
    }

    /// ConsumerGroupHeartbeat of a member that joins or is one.
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

    /// ConsumerGroupHeartbeat of a member that goes: for good, or a static one for now.
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

    /// Whether a member may commit or fetch offsets; -1 is no one, who may while there are no members.
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

    fn member_of_instance(&self, instance: &str) -> Option<&str> {
        let found = self.members.iter().find(|(_, m)| m.instance_id.as_deref() == Some(instance));
        found.map(|(id, _)| id.as_str())
    }

    /// Refuses who is not the member of an instance.
    fn check_instance(&self, id: &str, instance: &str) -> Result<(), ResponseError> {
        match self.member_of_instance(instance) {
            None => Err(ResponseError::UnknownMemberId),
            Some(owner) if owner != id => Err(ResponseError::FencedInstanceId),
            Some(_) => Ok(()),
        }
    }

    /// Sees to it that the member is there, or refuses it.
    fn find_or_join(&mut self, request: &HeartbeatRequest, now: Instant) -> Result<(), ResponseError> {
        let id = &request.member_id;
        match (&request.instance_id, request.epoch == JOIN_EPOCH) {
            (Some(instance), true) => match self.member_of_instance(instance).map(str::to_owned) {
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

    /// A static member is back under a new id; its old self must have left.
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

    /// The topics there are of those that members want.
    fn subscribed_topics(&self, topics: &Topics) -> Topics {
        let wanted: BTreeSet<&String> = self.members.values().flat_map(|m| &m.topics).collect();
        wanted.into_iter().filter_map(|name| Some((name.clone(), *topics.get(name)?))).collect()
    }

    /// Leads a member one step towards its target.
    fn reconcile(&mut self, id: &str, owned: Option<&Partitions>, now: Instant) {
        let target = self.target(id);
        let Some(member) = self.members.get(id) else { return };
        if member.state == MemberState::Stable && member.epoch == self.target_epoch {
            return;
        }
        // Without a word about what it owns, it may own everything.
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
