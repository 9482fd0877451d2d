//! A group with its offsets, as a state machine without clock, socket or task: here with members of the classic protocol; those
//! of the `consumer` protocol are a [`ConsumerGroup`] inside. A group has one kind at a time, and may change while it is empty.
//!
//! Join and Sync may have to wait for other members. So a request comes with a [`Ticket`], and its answer, at once or
//! later, comes out of [`Group::take_answers`] under that ticket. Time comes in as an argument; the owner calls
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

use crate::consumer_group::{Beat, Beaten, ConsumerGroup, Topics};

pub(crate) use members::{JoinRequest, Joined, JoinedMember, Member, MemberKey};

/// Names a parked request.
pub(crate) type Ticket = u64;

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
pub(crate) enum Answer {
    Joined(Joined),
    Synced {
        protocol_type: String,
        protocol: String,
        assignment: Bytes,
    },
    /// With the member id that the client has, or gets to come back with.
    Refused(ResponseError, String),
}

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
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
    pending: BTreeMap<String, Instant>,
    /// While preparing or completing: when the members that have not joined or synced are given up.
    phase_ends: Option<Instant>,
    /// While preparing out of an empty group: more members may come until then, and until the other at the latest.
    held: Option<(Instant, Instant)>,
    offsets: BTreeMap<(String, i32), Committed>,
    answers: Vec<(Ticket, Answer)>,
    initial_delay: Duration,
    /// Set while the group is one of the `consumer` protocol.
    consumer: Option<ConsumerGroup>,
    session_timeout: Duration,
}

impl Group {
    /// An empty group that waits `initial_delay` for more members after the first; members of the `consumer` protocol have
    /// `session_timeout`.
    pub fn new(initial_delay: Duration, session_timeout: Duration) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            phase_ends: None,
            held: None,
            offsets: BTreeMap::new(),
            answers: Vec::new(),
            initial_delay,
            consumer: None,
            session_timeout,
        }
    }

    /// Its members of the `consumer` protocol; `None` of a classic group.
    pub fn consumer(&self) -> Option<&ConsumerGroup> {
        self.consumer.as_ref()
    }

    /// The name of its type, as ListGroups gives it.
    pub fn kind(&self) -> &'static str {
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
        !self.members.is_empty() || !self.pending.is_empty() || self.consumer.as_ref().is_some_and(|c| !c.is_empty())
    }

    pub fn offsets(&self) -> &BTreeMap<(String, i32), Committed> {
        &self.offsets
    }

    pub fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        self.offsets.insert((topic.to_owned(), partition), committed);
    }

    /// Forgets one offset.
    pub fn forget(&mut self, topic: &str, partition: i32) {
        self.offsets.remove(&(topic.to_owned(), partition));
    }

    /// Whether a member subscribes to the topic; of one whose metadata is not that of a consumer, it is taken for granted.
    pub fn subscribes(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.members().any(|(_, m)| m.topics.contains(topic));
        }
        let names = |metadata: &Bytes| members::subscribed(metadata).is_none_or(|t| t.iter().any(|t| t == topic));
        self.members.values().flat_map(|m| &m.protocols).any(|(_, metadata)| names(metadata))
    }

    /// Forgets the offsets of a topic that was deleted.
    pub fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|(t, _), _| t != topic);
    }

    /// The answers that are ready; each ticket is answered once.
    pub fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|m| !m.is_waiting()).map(|m| m.session_ends);
        let phase = self.held.map(|(until, _)| until).or(self.phase_ends);
        let consumer = self.consumer.as_ref().and_then(ConsumerGroup::deadline);
        sessions.chain(self.pending.values().copied()).chain(phase).chain(consumer).min()
    }

    /// Gives up members whose session is over and ends a phase whose time is over.
    pub fn tick(&mut self, now: Instant) {
        if let Some(consumer) = &mut self.consumer {
            consumer.tick(now);
        }
        self.pending.retain(|_, lapses| *lapses > now);
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| !m.is_waiting() && m.session_ends <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(&id, now);
        }
        match (self.phase, self.held, self.phase_ends) {
            (Phase::PreparingRebalance, Some((until, _)), _) if until <= now => self.complete_join(now),
            (Phase::PreparingRebalance, None, Some(ends)) if ends <= now => self.complete_join(now),
            (Phase::CompletingRebalance, _, Some(ends)) if ends <= now => {
                self.members.retain(|_, m| m.syncing.is_some());
                self.prepare_rebalance(now);
            }
            _ => {}
        }
        self.complete_join_if_all_joined(now);
    }

    /// The group moves to another node: those who wait are sent there, and every session starts anew.
    pub fn resign(&mut self, now: Instant) {
        if let Some(consumer) = &mut self.consumer {
            consumer.resign(now);
        }
        for (id, member) in &mut self.members {
            for ticket in [member.joining.take(), member.syncing.take()].into_iter().flatten() {
                self.answers.push((ticket, Answer::Refused(ResponseError::NotCoordinator, id.clone())));
            }
            member.touch(now);
        }
    }

    /// ConsumerGroupHeartbeat of a member that joins or is one.
    pub fn consumer_heartbeat(&mut self, beat: Beat, topics: &Topics, now: Instant) -> Result<Beaten, ResponseError> {
        if self.consumer.is_none() && (self.has_members() || beat.epoch != crate::consumer_group::JOIN) {
            return Err(ResponseError::GroupIdNotFound);
        }
        let session = self.session_timeout;
        self.consumer.get_or_insert_with(|| ConsumerGroup::new(session)).heartbeat(beat, topics, now)
    }

    /// ConsumerGroupHeartbeat of a member that goes: for good, or a static one for now.
    pub fn consumer_leave(&mut self, id: &str, instance: Option<&str>, for_now: bool) -> Result<(), ResponseError> {
        self.consumer.as_mut().ok_or(ResponseError::GroupIdNotFound)?.leave(id, instance, for_now)
    }

    /// Everyone has to join again: those who wait for an assignment are told so at once.
    fn prepare_rebalance(&mut self, now: Instant) {
        for (id, member) in &mut self.members {
            if let Some(ticket) = member.syncing.take() {
                self.answers.push((ticket, Answer::Refused(ResponseError::RebalanceInProgress, id.clone())));
                member.touch(now);
            }
        }
        let longest = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        let first = self.phase == Phase::Empty && !self.initial_delay.is_zero();
        self.held = first.then(|| (now + self.initial_delay, now + longest));
        self.phase_ends = Some(now + longest);
        self.phase = Phase::PreparingRebalance;
        self.complete_join_if_all_joined(now);
    }

    fn complete_join_if_all_joined(&mut self, now: Instant) {
        let all = self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        if self.phase == Phase::PreparingRebalance && all && (self.held.is_none() || self.members.is_empty()) {
            self.complete_join(now);
        }
    }

    /// Goes on with the members that have joined. Those that have not are out, except for static ones: they keep their
    /// place until their session ends.
    fn complete_join(&mut self, now: Instant) {
        self.held = None;
        self.members.retain(|_, m| m.joining.is_some() || m.instance_id.is_some());
        if !self.members.is_empty() && !self.elect_leader() {
            let longest = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
            self.phase_ends = Some(now + longest);
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        self.protocol = self.vote();
        self.phase = Phase::CompletingRebalance;
        let longest = self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default();
        self.phase_ends = Some(now + longest);
        let tickets: Vec<(String, Ticket)> = self
            .members
            .iter_mut()
            .filter_map(|(id, m)| {
                m.assignment = Bytes::new();
                m.touch(now);
                Some((id.clone(), m.joining.take()?))
            })
            .collect();
        for (id, ticket) in tickets {
            let joined = self.joined(&id);
            self.answers.push((ticket, Answer::Joined(joined)));
        }
    }

    fn become_empty(&mut self) {
        self.phase = Phase::Empty;
        self.phase_ends = None;
        self.held = None;
        self.leader = None;
        self.protocol = String::new();
    }

    /// The leader stays if it joined; else it is one that did. Whether there is one.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            self.leader = self.members.keys().find(|id| joined(id)).cloned();
        }
        self.leader.is_some()
    }

    /// The assignor that most members put first among those that all of them know.
    fn vote(&self) -> String {
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
    fn joined(&self, id: &str) -> Joined {
        let one = |(id, m): (&String, &Member)| JoinedMember {
            member_id: id.clone(),
            instance_id: m.instance_id.clone(),
            metadata: m.metadata(&self.protocol).cloned().unwrap_or_default(),
        };
        let leads = self.leader.as_deref() == Some(id);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: if leads { self.members.iter().map(one).collect() } else { Vec::new() },
            skip_assignment: false,
        }
    }

    /// Takes a member out and has the others share its partitions.
    fn remove(&mut self, id: &str, now: Instant) {
        let Some(member) = self.members.remove(id) else { return };
        for ticket in [member.joining, member.syncing].into_iter().flatten() {
            self.answers.push((ticket, Answer::Refused(ResponseError::UnknownMemberId, id.to_owned())));
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
