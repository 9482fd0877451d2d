//! A group with its offsets, as a state machine without clock, socket or task. Members of the
//! classic protocol are here; those of the `consumer` protocol are in a [`ConsumerGroup`] inside.
//! An empty group may change its protocol.
//!
//! JoinGroup and SyncGroup may wait for other members. So a request has a [`RequestId`], and its
//! response, at once or later, comes out of [`Group::take_responses`] under that id. The caller
//! passes the time, and calls [`Group::tick`] no later than [`Group::deadline`].
//!
//! A rebalance has these phases: *preparing* until every member has rejoined or the rebalance
//! timeout has expired, *completing* until the leader has sent the assignment, then *stable*.

mod members;
mod requests;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use crate::consumer_group::{ConsumerGroup, HeartbeatRequest, HeartbeatResponse, Topics};

use transactions::PendingTransaction;

pub(crate) use members::{JoinGroupMember, JoinGroupResult, JoinRequest, Member, MemberKey};

/// Identifies a pending request.
pub(crate) type RequestId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl Phase {
    /// Returns the name of the phase, as in DescribeGroups and ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// Response to a JoinGroup or SyncGroup request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupResponse {
    Joined(JoinGroupResult),
    Synced {
        protocol_type: String,
        protocol: String,
        assignment: Bytes,
    },
    /// Error code and member id, which a new member may have to rejoin with.
    Failed(ResponseError, String),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids that were generated but have not rejoined, with the times at which they expire.
    pending_members: BTreeMap<String, Instant>,
    /// Deadline of the phase, for members to join or sync.
    phase_deadline: Option<Instant>,
    /// End of the initial rebalance delay, which a join extends, and its latest end.
    join_window: Option<(Instant, Instant)>,
    offsets: BTreeMap<(String, i32), CommittedOffset>,
    /// Offsets of open transactions, by producer id.
    pending_offsets: BTreeMap<i64, PendingTransaction>,
    /// Number of the last commit, and of the last commit of each partition.
    last_commit: u64,
    commits: BTreeMap<(String, i32), u64>,
    responses: Vec<(RequestId, GroupResponse)>,
    initial_rebalance_delay: Duration,
    /// Members of the `consumer` protocol; `None` for a classic group.
    consumer: Option<ConsumerGroup>,
    session_timeout: Duration,
}

impl Group {
    /// Creates an empty group. Its first rebalance waits `initial_rebalance_delay` for more
    /// members; `session_timeout` is for the `consumer` protocol.
    pub fn new(initial_rebalance_delay: Duration, session_timeout: Duration) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            phase_deadline: None,
            join_window: None,
            offsets: BTreeMap::new(),
            pending_offsets: BTreeMap::new(),
            last_commit: 0,
            commits: BTreeMap::new(),
            responses: Vec::new(),
            initial_rebalance_delay,
            consumer: None,
            session_timeout,
        }
    }

    pub fn consumer(&self) -> Option<&ConsumerGroup> {
        self.consumer.as_ref()
    }

    /// Returns the group type, as in ListGroups.
    pub fn group_type(&self) -> &'static str {
        if self.consumer.is_some() { "consumer" } else { "classic" }
    }

    /// Returns the state, as in ListGroups.
    pub fn state(&self) -> &'static str {
        self.consumer.as_ref().map_or(self.phase.name(), ConsumerGroup::state)
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> &str {
        if self.consumer.is_some() { "consumer" } else { &self.protocol_type }
    }

    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    pub fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(id, m)| (id.as_str(), m))
    }

    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
            || !self.pending_members.is_empty()
            || self.consumer.as_ref().is_some_and(|c| !c.is_empty())
    }

    pub fn offsets(&self) -> &BTreeMap<(String, i32), CommittedOffset> {
        &self.offsets
    }

    pub fn commit(&mut self, topic: &str, partition: i32, committed: CommittedOffset) {
        self.last_commit += 1;
        let key = (topic.to_owned(), partition);
        self.commits.insert(key.clone(), self.last_commit);
        self.offsets.insert(key, committed);
    }

    pub fn delete_offset(&mut self, topic: &str, partition: i32) {
        let key = (topic.to_owned(), partition);
        self.offsets.remove(&key);
        self.commits.remove(&key);
    }

    /// Returns whether a member subscribes to the topic, or has metadata that is not a consumer's.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.members().any(|(_, m)| m.topics.contains(topic));
        }
        let names =
            |metadata: &Bytes| members::subscribed_topics(metadata).is_none_or(|t| t.iter().any(|t| t == topic));
        self.members.values().flat_map(|m| &m.protocols).any(|(_, metadata)| names(metadata))
    }

    pub fn delete_offsets_of_topic(&mut self, topic: &str) {
        self.offsets.retain(|(t, _), _| t != topic);
        self.commits.retain(|(t, _), _| t != topic);
        self.delete_pending_offsets_of_topic(topic);
    }

    /// Returns the responses that are ready.
    pub fn take_responses(&mut self) -> Vec<(RequestId, GroupResponse)> {
        std::mem::take(&mut self.responses)
    }

    /// Returns the time by which [`tick`](Self::tick) must be called.
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|m| !m.has_pending_request()).map(|m| m.session_expires_at);
        let phase = self.join_window.map(|(until, _)| until).or(self.phase_deadline);
        let consumer = self.consumer.as_ref().and_then(ConsumerGroup::deadline);
        sessions.chain(self.pending_members.values().copied()).chain(phase).chain(consumer).min()
    }

    /// Removes members whose session expired, and ends a phase at its deadline.
    pub fn tick(&mut self, now: Instant) {
        if let Some(consumer) = &mut self.consumer {
            consumer.tick(now);
        }
        self.pending_members.retain(|_, expires_at| *expires_at > now);
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| !m.has_pending_request() && m.session_expires_at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.remove_member(&id, now);
        }
        match (self.phase, self.join_window, self.phase_deadline) {
            (Phase::PreparingRebalance, Some((until, _)), _) if until <= now => self.complete_join(now),
            (Phase::PreparingRebalance, None, Some(deadline)) if deadline <= now => self.complete_join(now),
            (Phase::CompletingRebalance, _, Some(deadline)) if deadline <= now => {
                self.members.retain(|_, m| m.pending_sync.is_some());
                self.prepare_rebalance(now);
            }
            _ => {}
        }
        self.complete_join_if_all_joined(now);
    }

    /// Fails pending requests and restarts all sessions when the group moves to another node.
    pub fn on_coordinator_moved(&mut self, now: Instant) {
        if let Some(consumer) = &mut self.consumer {
            consumer.on_coordinator_moved(now);
        }
        for (id, member) in &mut self.members {
            for request_id in [member.pending_join.take(), member.pending_sync.take()].into_iter().flatten() {
                self.responses.push((request_id, GroupResponse::Failed(ResponseError::NotCoordinator, id.clone())));
            }
            member.renew_session(now);
        }
    }

    /// Handles a ConsumerGroupHeartbeat of a member that joins or stays.
    pub fn consumer_heartbeat(
        &mut self,
        request: HeartbeatRequest,
        topics: &Topics,
        now: Instant,
    ) -> Result<HeartbeatResponse, ResponseError> {
        if self.consumer.is_none() && (self.has_members() || request.epoch != crate::consumer_group::JOIN_EPOCH) {
            return Err(ResponseError::GroupIdNotFound);
        }
        let session = self.session_timeout;
        self.consumer.get_or_insert_with(|| ConsumerGroup::new(session)).heartbeat(request, topics, now)
    }

    /// Handles a ConsumerGroupHeartbeat of a member that leaves, a static one possibly temporarily.
    pub fn consumer_leave(
        &mut self,
        id: &str,
        instance: Option<&str>,
        is_static_leave: bool,
    ) -> Result<(), ResponseError> {
        self.consumer.as_mut().ok_or(ResponseError::GroupIdNotFound)?.leave(id, instance, is_static_leave)
    }

    /// Starts a rebalance: every member has to rejoin, and pending syncs fail.
    fn prepare_rebalance(&mut self, now: Instant) {
        for (id, member) in &mut self.members {
            if let Some(request_id) = member.pending_sync.take() {
                self.responses
                    .push((request_id, GroupResponse::Failed(ResponseError::RebalanceInProgress, id.clone())));
                member.renew_session(now);
            }
        }
        let longest_timeout = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        let is_first = self.phase == Phase::Empty && !self.initial_rebalance_delay.is_zero();
        self.join_window = is_first.then(|| (now + self.initial_rebalance_delay, now + longest_timeout));
        self.phase_deadline = Some(now + longest_timeout);
        self.phase = Phase::PreparingRebalance;
        self.complete_join_if_all_joined(now);
    }

    fn complete_join_if_all_joined(&mut self, now: Instant) {
        let all = self.pending_members.is_empty() && self.members.values().all(|m| m.pending_join.is_some());
        if self.phase == Phase::PreparingRebalance && all && (self.join_window.is_none() || self.members.is_empty()) {
            self.complete_join(now);
        }
    }

    /// Completes the join phase with the members that have joined. Others are removed, except for
    /// static ones: they stay until their session expires.
    fn complete_join(&mut self, now: Instant) {
        self.join_window = None;
        self.members.retain(|_, m| m.pending_join.is_some() || m.instance_id.is_some());
        if !self.members.is_empty() && !self.elect_leader() {
            let longest_timeout = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
            self.phase_deadline = Some(now + longest_timeout);
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        self.protocol = self.select_protocol();
        self.phase = Phase::CompletingRebalance;
        let longest_timeout = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        self.phase_deadline = Some(now + longest_timeout);
        let completed: Vec<(String, RequestId)> = self
            .members
            .iter_mut()
            .filter_map(|(id, m)| {
                m.assignment = Bytes::new();
                m.renew_session(now);
                Some((id.clone(), m.pending_join.take()?))
            })
            .collect();
        for (id, request_id) in completed {
            let joined = self.join_result(&id);
            self.responses.push((request_id, GroupResponse::Joined(joined)));
        }
    }

    fn become_empty(&mut self) {
        self.phase = Phase::Empty;
        self.phase_deadline = None;
        self.join_window = None;
        self.leader = None;
        self.protocol = String::new();
    }

    /// Elects a leader among the members that joined, if the current one did not. Returns false if
    /// none joined.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.pending_join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.keys().find(|id| joined(id)).cloned();
        }
        self.leader.is_some()
    }

    /// Selects the protocol that most members prefer among those that all support.
    fn select_protocol(&self) -> String {
        let common = |name: &str| self.members.values().all(|m| m.metadata(name).is_some());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|&(_, n)| n).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// Returns the result of a join; only the leader's has all members.
    fn join_result(&self, id: &str) -> JoinGroupResult {
        let one = |(id, m): (&String, &Member)| JoinGroupMember {
            member_id: id.clone(),
            instance_id: m.instance_id.clone(),
            metadata: m.metadata(&self.protocol).cloned().unwrap_or_default(),
        };
        let is_leader = self.leader.as_deref() == Some(id);
        JoinGroupResult {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: if is_leader { self.members.iter().map(one).collect() } else { Vec::new() },
            skip_assignment: false,
        }
    }

    /// Removes a member and starts a rebalance.
    fn remove_member(&mut self, id: &str, now: Instant) {
        let Some(member) = self.members.remove(id) else { return };
        for request_id in [member.pending_join, member.pending_sync].into_iter().flatten() {
            self.responses.push((request_id, GroupResponse::Failed(ResponseError::UnknownMemberId, id.to_owned())));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => self.prepare_rebalance(now),
            Phase::PreparingRebalance => self.complete_join_if_all_joined(now),
            Phase::Empty => {}
        }
    }
}
