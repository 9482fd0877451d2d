//! What members ask of a group.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::{Answer, Group, JoinRequest, Member, MemberKey, Phase, Ticket};

/// An error and the member id that goes with it.
type Refusal = (ResponseError, String);

impl Group {
    /// JoinGroup.
    pub fn join(&mut self, request: JoinRequest, ticket: Ticket, now: Instant) {
        if let Err((error, id)) = self.try_join(request, ticket, now) {
            self.answers.push((ticket, Answer::Refused(error, id)));
        }
    }

    fn try_join(&mut self, request: JoinRequest, ticket: Ticket, now: Instant) -> Result<(), Refusal> {
        let id = request.member_id.clone();
        if self.consumer.as_ref().is_some_and(|c| !c.is_empty()) || !self.understands(&request) {
            return Err((ResponseError::InconsistentGroupProtocol, id));
        }
        self.consumer = None;
        if id.is_empty() {
            return self.join_new(request, ticket, now);
        }
        if self.pending.remove(&id).is_some() {
            self.add(id, request, ticket, now);
            return Ok(());
        }
        let key = MemberKey { id: &id, instance: request.instance_id.as_deref() };
        self.member(key).map_err(|error| (error, id.clone()))?;
        self.join_again(request, ticket, now);
        Ok(())
    }

    /// Whether the group and the newcomer have an assignor in common.
    fn understands(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        let known_to_all = |name: &str| self.members.values().all(|m| m.metadata(name).is_some());
        self.members.is_empty()
            || (request.protocol_type == self.protocol_type
                && request.protocols.iter().any(|(name, _)| known_to_all(name)))
    }

    fn join_new(&mut self, request: JoinRequest, ticket: Ticket, now: Instant) -> Result<(), Refusal> {
        let id = request.fresh_id.clone();
        let instance = request.instance_id.as_deref();
        let predecessor = instance.and_then(|i| self.id_of_instance(Some(i)).ok()).map(str::to_owned);
        if let Some(old) = predecessor {
            self.replace(&old, id, request, ticket, now);
        } else if request.must_know_id && request.instance_id.is_none() {
            self.pending.insert(id.clone(), now + request.session_timeout);
            return Err((ResponseError::MemberIdRequired, id));
        } else {
            self.add(id, request, ticket, now);
        }
        Ok(())
    }

    fn add(&mut self, id: String, request: JoinRequest, ticket: Ticket, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type = request.protocol_type.clone();
        }
        self.leader.get_or_insert_with(|| id.clone());
        let mut member = Member::new(request, now);
        member.joining = Some(ticket);
        self.members.insert(id, member);
        if let Some((until, latest)) = &mut self.held {
            *until = (now + self.initial_delay).min(*latest);
        }
        self.rebalance(now);
    }

    /// A member joins again: into a rebalance, or because it missed an answer, or to start a rebalance.
    fn join_again(&mut self, request: JoinRequest, ticket: Ticket, now: Instant) {
        let id = request.member_id.clone();
        let leads = self.leader.as_ref() == Some(&id);
        let Some(member) = self.members.get_mut(&id) else { return };
        let same = member.protocols == request.protocols;
        let informed = match self.phase {
            Phase::CompletingRebalance => same,
            // A leader that joins again has seen the topics change and wants to assign anew.
            Phase::Stable => same && !leads,
            Phase::PreparingRebalance | Phase::Empty => false,
        };
        member.update(request, now);
        if informed {
            let joined = self.joined(&id);
            self.answers.push((ticket, Answer::Joined(joined)));
            return;
        }
        if let Some(older) = member.joining.replace(ticket) {
            self.answers.push((older, Answer::Refused(ResponseError::RebalanceInProgress, id)));
        }
        self.rebalance(now);
    }

    /// A static member is back under a new id and takes over the place of its old self, which is fenced.
    fn replace(&mut self, old: &str, id: String, request: JoinRequest, ticket: Ticket, now: Instant) {
        let Some(mut member) = self.members.remove(old) else { return };
        for older in [member.joining.take(), member.syncing.take()].into_iter().flatten() {
            self.answers.push((older, Answer::Refused(ResponseError::FencedInstanceId, old.to_owned())));
        }
        let leads = self.leader.as_deref() == Some(old);
        let skips = request.may_skip_assignment;
        member.update(request, now);
        self.members.insert(id.clone(), member);
        if leads {
            self.leader = Some(id.clone());
        }
        if self.phase == Phase::Stable && self.vote() == self.protocol {
            // Nothing changes for the others. A leader that must not assign again is told that another one leads.
            let mut joined = self.joined(&id);
            if leads && skips {
                joined.skip_assignment = true;
            } else if leads {
                joined.leader = old.to_owned();
                joined.members = Vec::new();
            }
            self.answers.push((ticket, Answer::Joined(joined)));
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = Some(ticket);
        }
        self.rebalance(now);
    }

    /// Starts a rebalance, or goes on with the one that is under way.
    fn rebalance(&mut self, now: Instant) {
        if self.phase == Phase::PreparingRebalance {
            self.complete_join_if_all_joined(now);
        } else {
            self.prepare_rebalance(now);
        }
    }

    /// SyncGroup. `expected`: protocol type and protocol, where the client told them.
    pub fn sync(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        expected: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        ticket: Ticket,
        now: Instant,
    ) {
        if let Err(error) = self.try_sync(key, generation, expected, assignments, ticket, now) {
            self.answers.push((ticket, Answer::Refused(error, key.id.to_owned())));
        }
    }

    fn try_sync(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        expected: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        ticket: Ticket,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.current(key, generation)?;
        let differs = |told: Option<&str>, is: &str| told.is_some_and(|t| t != is);
        if differs(expected.0, &self.protocol_type) || differs(expected.1, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance => return Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => {}
        }
        let member = self.member(key)?;
        member.touch(now);
        if let Some(older) = member.syncing.replace(ticket) {
            self.answers.push((older, Answer::Refused(ResponseError::RebalanceInProgress, key.id.to_owned())));
        }
        if self.phase == Phase::CompletingRebalance && self.leader.as_deref() == Some(key.id) {
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
            self.phase_ends = None;
        }
        if self.phase == Phase::Stable {
            self.hand_out_assignments(now);
        }
        Ok(())
    }

    fn hand_out_assignments(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.touch(now);
                let answer = Answer::Synced {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                self.answers.push((ticket, answer));
            }
        }
    }

    /// Heartbeat.
    pub fn heartbeat(&mut self, key: MemberKey<'_>, generation: i32, now: Instant) -> Result<(), ResponseError> {
        self.current(key, generation)?.touch(now);
        match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        }
    }

    /// LeaveGroup, of one member. A static one may be named by its instance alone.
    pub fn leave(&mut self, key: MemberKey<'_>, now: Instant) -> Result<(), ResponseError> {
        if self.pending.remove(key.id).is_some() {
            self.complete_join_if_all_joined(now);
            return Ok(());
        }
        let id = match key.instance {
            Some(_) if key.id.is_empty() => self.id_of_instance(key.instance)?.to_owned(),
            _ => {
                self.member(key)?;
                key.id.to_owned()
            }
        };
        self.remove(&id, now);
        Ok(())
    }

    /// Whether offsets may be committed in the name of a member, or with generation -1 and no name by anyone while the
    /// group has no members. `speaks_epochs`: the request's version has a place for the epoch of a `consumer` member.
    pub fn may_commit(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        speaks_epochs: bool,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if let Some(consumer) = &self.consumer {
            let known = consumer.check_epoch(key.id, generation);
            let outdated = !speaks_epochs && generation >= 0 && known != Err(ResponseError::UnknownMemberId);
            return if outdated { Err(ResponseError::UnsupportedVersion) } else { known };
        }
        if generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if generation < 0 && key.id.is_empty() && key.instance.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.current(key, generation)?.touch(now);
        if self.phase == Phase::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    fn id_of_instance(&self, instance: Option<&str>) -> Result<&str, ResponseError> {
        let found = self.members.iter().find(|(_, m)| m.instance_id.as_deref() == instance);
        found.map(|(id, _)| id.as_str()).ok_or(ResponseError::UnknownMemberId)
    }

    /// The member of that id, who must not have been replaced by another of its instance.
    fn member(&mut self, key: MemberKey<'_>) -> Result<&mut Member, ResponseError> {
        if key.instance.is_some() && self.id_of_instance(key.instance)? != key.id {
            return Err(ResponseError::FencedInstanceId);
        }
        self.members.get_mut(key.id).ok_or(ResponseError::UnknownMemberId)
    }

    /// The member, if it speaks of the current generation.
    fn current(&mut self, key: MemberKey<'_>, generation: i32) -> Result<&mut Member, ResponseError> {
        let now = self.generation;
        let member = self.member(key)?;
        if generation == now { Ok(member) } else { Err(ResponseError::IllegalGeneration) }
    }
}
