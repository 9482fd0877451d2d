//! A group with its offsets, as a state machine without clock, socket or task: here with members of the classic protocol; those
//! of the `consumer` protocol are a [`ConsumerGroup`] inside. A group has one kind at a time, and may change while it is empty.
//!
//! Join and Sync may have to wait for other members. So a request comes with a [`RequestId`], and its answer, at once or
//! later, comes out of [`Group::take_responses`] under that ticket. Time comes in as an argument; the owner calls
//! [`Group::tick`] at the latest at [`Group::deadline`].
//!
//! A rebalance runs through the phases in order: *preparing* until every member has joined again or the rebalance
//! timeout is over, *completing* until the leader has sent the assignment, then *stable*.

mod members;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;

use crate::consumer_group::{ConsumerGroup, HeartbeatRequest, HeartbeatResponse, Topics};

pub(crate) use members::{JoinGroupMember, JoinGroupResult, JoinRequest, Member, MemberKey};

/// Names a parked request.
pub(crate) type RequestId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl Phase {
    /// The name that DescribeGroups and ListGroups give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// The answer to a JoinGroup or SyncGroup request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupResponse {
    Joined(JoinGroupResult),
    Synced {
        protocol_type: String,
        protocol: String,
        assignment: Bytes,
    },
    /// With the member id that the client has, or gets to come back with.
    Failed(ResponseError, String),
}

/// An offset that a group has committed.
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
    /// Member ids that were handed out and not yet come back with, and when they lapse.
    pending_members: BTreeMap<String, Instant>,
    /// While preparing or completing: when the members that have not joined or synced are given up.
    phase_deadline: Option<Instant>,
    /// While preparing out of an empty group: more members may come until then, and until the other at the latest.
    join_window: Option<(Instant, Instant)>,
    offsets: BTreeMap<(String, i32), CommittedOffset>,
    responses: Vec<(RequestId, GroupResponse)>,
    initial_rebalance_delay: Duration,
    /// Set while the group is one of the `consumer` protocol.
    consumer: Option<ConsumerGroup>,
    session_timeout: Duration,
}

impl Group {
    /// An empty group that waits `initial_rebalance_delay` for more members after the first; members of the `consumer` protocol have
    /// `session_timeout`.
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
            responses: Vec::new(),
            initial_rebalance_delay,
            consumer: None,
            session_timeout,
        }
    }

    /// Its members of the `consumer` protocol; `None` of a classic group.
    pub fn consumer(&self) -> Option<&ConsumerGroup> {
        self.consumer.as_ref()
    }

    /// The name of its type, as ListGroups gives it.
    pub fn group_type(&self) -> &'static str {
        if self.consumer.is_some() { "consumer" } else { "classic" }
    }

    /// The name of its state, as ListGroups gives it.
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
        self.offsets.insert((topic.to_owned(), partition), committed);
    }

    /// Forgets one offset.
    pub fn delete_offset(&mut self, topic: &str, partition: i32) {
        self.offsets.remove(&(topic.to_owned(), partition));
    }

    /// Whether a member subscribes to the topic; of one whose metadata is not that of a consumer, it is taken for granted.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.members().any(|(_, m)| m.topics.contains(topic));
        }
        let names =
            |metadata: &Bytes| members::subscribed_topics(metadata).is_none_or(|t| t.iter().any(|t| t == topic));
        self.members.values().flat_map(|m| &m.protocols).any(|(_, metadata)| names(metadata))
    }

    /// Forgets the offsets of a topic that was deleted.
    pub fn delete_offsets_of_topic(&mut self, topic: &str) {
        self.offsets.retain(|(t, _), _| t != topic);
    }

    /// The answers that are ready; each ticket is answered once.
    pub fn take_responses(&mut self) -> Vec<(RequestId, GroupResponse)> {
        std::mem::take(&mut self.responses)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|m| !m.has_pending_request()).map(|m| m.session_expires_at);
        let phase = self.join_window.map(|(until, _)| until).or(self.phase_deadline);
        let consumer = self.consumer.as_ref().and_then(ConsumerGroup::deadline);
        sessions.chain(self.pending_members.values().copied()).chain(phase).chain(consumer).min()
    }

    /// Gives up members whose session is over and ends a phase whose time is over.
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
            (Phase::PreparingRebalance, None, Some(ends)) if ends <= now => self.complete_join(now),
            (Phase::CompletingRebalance, _, Some(ends)) if ends <= now => {
                self.members.retain(|_, m| m.pending_sync.is_some());
                self.prepare_rebalance(now);
            }
            _ => {}
        }
        self.complete_join_if_all_joined(now);
    }

    /// The group moves to another node: those who wait are sent there, and every session starts anew.
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

    /// ConsumerGroupHeartbeat of a member that joins or is one.
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

    /// ConsumerGroupHeartbeat of a member that goes: for good, or a static one for now.
    pub fn consumer_leave(
        &mut self,
        id: &str,
        instance: Option<&str>,
        is_static_leave: bool,
    ) -> Result<(), ResponseError> {
        self.consumer.as_mut().ok_or(ResponseError::GroupIdNotFound)?.leave(id, instance, is_static_leave)
    }

    /// Everyone has to join again: those who wait for an assignment are told so at once.
    fn prepare_rebalance(&mut self, now: Instant) {
        for (id, member) in &mut self.members {
            if let Some(request_id) = member.pending_sync.take() {
                self.responses
                    .push((request_id, GroupResponse::Failed(ResponseError::RebalanceInProgress, id.clone())));
                member.renew_session(now);
            }
        }
        let longest_timeout = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        let first = self.phase == Phase::Empty && !self.initial_rebalance_delay.is_zero();
        self.join_window = first.then(|| (now + self.initial_rebalance_delay, now + longest_timeout));
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

    /// Goes on with the members that have joined. Those that have not are out, except for static ones: they keep their
    /// place until their session ends.
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

    /// The leader stays if it joined; else it is one that did. Whether there is one.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.pending_join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.keys().find(|id| joined(id)).cloned();
        }
        self.leader.is_some()
    }

    /// The assignor that most members put first among those that all of them know.
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

    /// What `id` is told about the current generation; the leader is told all members.
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

    /// Takes a member out and has the others share its partitions.
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
