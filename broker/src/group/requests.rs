//! Handlers of group requests.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::{Group, GroupResponse, JoinRequest, Member, MemberKey, Phase, RequestId};

/// Error code and member id of a failed join.
type JoinError = (ResponseError, String);

impl Group {
    /// Handles a JoinGroup.
    pub fn join(&mut self, request: JoinRequest, request_id: RequestId, now: Instant) {
        if let Err((error, id)) = self.try_join(request, request_id, now) {
            self.responses.push((request_id, GroupResponse::Failed(error, id)));
        }
    }

    fn try_join(&mut self, request: JoinRequest, request_id: RequestId, now: Instant) -> Result<(), JoinError> {
        let id = request.member_id.clone();
        if self.consumer.as_ref().is_some_and(|c| !c.is_empty()) || !self.supports_protocols(&request) {
            return Err((ResponseError::InconsistentGroupProtocol, id));
        }
        self.consumer = None;
        if id.is_empty() {
            return self.join_new_member(request, request_id, now);
        }
        if self.pending_members.remove(&id).is_some() {
            self.add_member(id, request, request_id, now);
            return Ok(());
        }
        let key = MemberKey { id: &id, instance: request.instance_id.as_deref() };
        self.member(key).map_err(|error| (error, id.clone()))?;
        self.rejoin_member(request, request_id, now);
        Ok(())
    }

    /// Returns whether the group and the member have a protocol in common.
    fn supports_protocols(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        let known_to_all = |name: &str| self.members.values().all(|m| m.metadata(name).is_some());
        self.members.is_empty()
            || (request.protocol_type == self.protocol_type
                && request.protocols.iter().any(|(name, _)| known_to_all(name)))
    }

    fn join_new_member(&mut self, request: JoinRequest, request_id: RequestId, now: Instant) -> Result<(), JoinError> {
        let id = request.generated_member_id.clone();
        let instance = request.instance_id.as_deref();
        let predecessor = instance.and_then(|i| self.id_of_instance(Some(i)).ok()).map(str::to_owned);
        if let Some(old) = predecessor {
            self.replace_static_member(&old, id, request, request_id, now);
        } else if request.requires_known_member_id && request.instance_id.is_none() {
            self.pending_members.insert(id.clone(), now + request.session_timeout);
            return Err((ResponseError::MemberIdRequired, id));
        } else {
            self.add_member(id, request, request_id, now);
        }
        Ok(())
    }

    fn add_member(&mut self, id: String, request: JoinRequest, request_id: RequestId, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type = request.protocol_type.clone();
        }
        self.leader.get_or_insert_with(|| id.clone());
        let mut member = Member::new(request, now);
        member.pending_join = Some(request_id);
        self.members.insert(id, member);
        if let Some((until, latest)) = &mut self.join_window {
            *until = (now + self.initial_rebalance_delay).min(*latest);
        }
        self.start_or_continue_rebalance(now);
    }

    /// Handles the join of a known member: in a rebalance, after a lost response, or to start a
    /// rebalance.
    fn rejoin_member(&mut self, request: JoinRequest, request_id: RequestId, now: Instant) {
        let id = request.member_id.clone();
        let is_leader = self.leader.as_ref() == Some(&id);
        let Some(member) = self.members.get_mut(&id) else { return };
        let same = member.protocols == request.protocols;
        let is_unchanged = match self.phase {
            Phase::CompletingRebalance => same,
            // The leader rejoins when topics have changed, to assign again.
            Phase::Stable => same && !is_leader,
            Phase::PreparingRebalance | Phase::Empty => false,
        };
        member.update(request, now);
        if is_unchanged {
            let joined = self.join_result(&id);
            self.responses.push((request_id, GroupResponse::Joined(joined)));
            return;
        }
        if let Some(previous) = member.pending_join.replace(request_id) {
            self.responses.push((previous, GroupResponse::Failed(ResponseError::RebalanceInProgress, id)));
        }
        self.start_or_continue_rebalance(now);
    }

    /// Replaces a static member by its new member id; the old one is fenced.
    fn replace_static_member(
        &mut self,
        old: &str,
        id: String,
        request: JoinRequest,
        request_id: RequestId,
        now: Instant,
    ) {
        let Some(mut member) = self.members.remove(old) else { return };
        for previous in [member.pending_join.take(), member.pending_sync.take()].into_iter().flatten() {
            self.responses.push((previous, GroupResponse::Failed(ResponseError::FencedInstanceId, old.to_owned())));
        }
        let is_leader = self.leader.as_deref() == Some(old);
        let skips = request.supports_skipping_assignment;
        member.update(request, now);
        self.members.insert(id.clone(), member);
        if is_leader {
            self.leader = Some(id.clone());
        }
        if self.phase == Phase::Stable && self.select_protocol() == self.protocol {
            // Nothing changes for the others. A leader that must not assign again sees another
            // leader.
            let mut joined = self.join_result(&id);
            if is_leader && skips {
                joined.skip_assignment = true;
            } else if is_leader {
                joined.leader = old.to_owned();
                joined.members = Vec::new();
            }
            self.responses.push((request_id, GroupResponse::Joined(joined)));
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.pending_join = Some(request_id);
        }
        self.start_or_continue_rebalance(now);
    }

    /// Starts a rebalance or continues the current one.
    fn start_or_continue_rebalance(&mut self, now: Instant) {
        if self.phase == Phase::PreparingRebalance {
            self.complete_join_if_all_joined(now);
        } else {
            self.prepare_rebalance(now);
        }
    }

    /// Handles a SyncGroup. `expected`: protocol type and protocol, if the client sent them.
    pub fn sync(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        expected: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        request_id: RequestId,
        now: Instant,
    ) {
        if let Err(error) = self.try_sync(key, generation, expected, assignments, request_id, now) {
            self.responses.push((request_id, GroupResponse::Failed(error, key.id.to_owned())));
        }
    }

    fn try_sync(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        expected: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        request_id: RequestId,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.member_in_generation(key, generation)?;
        let differs = |named: Option<&str>, is: &str| named.is_some_and(|t| t != is);
        if differs(expected.0, &self.protocol_type) || differs(expected.1, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance => return Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => {}
        }
        let member = self.member(key)?;
        member.renew_session(now);
        if let Some(previous) = member.pending_sync.replace(request_id) {
            self.responses
                .push((previous, GroupResponse::Failed(ResponseError::RebalanceInProgress, key.id.to_owned())));
        }
        if self.phase == Phase::CompletingRebalance && self.leader.as_deref() == Some(key.id) {
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
            self.phase_deadline = None;
        }
        if self.phase == Phase::Stable {
            self.complete_sync(now);
        }
        Ok(())
    }

    fn complete_sync(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(request_id) = member.pending_sync.take() {
                member.renew_session(now);
                let response = GroupResponse::Synced {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                self.responses.push((request_id, response));
            }
        }
    }

    /// Handles a Heartbeat.
    pub fn heartbeat(&mut self, key: MemberKey<'_>, generation: i32, now: Instant) -> Result<(), ResponseError> {
        self.member_in_generation(key, generation)?.renew_session(now);
        match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        }
    }

    /// Handles a LeaveGroup of one member. A static one may be identified by its instance id alone.
    pub fn leave(&mut self, key: MemberKey<'_>, now: Instant) -> Result<(), ResponseError> {
        if self.pending_members.remove(key.id).is_some() {
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
        self.remove_member(&id, now);
        Ok(())
    }

    /// Checks whether offsets may be committed: by a member in the current generation, or with
    /// generation -1 and no member id while the group is empty. `supports_member_epoch`: the
    /// request's version has member epochs.
    pub fn check_commit(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
        supports_member_epoch: bool,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if let Some(consumer) = &self.consumer {
            let known = consumer.check_epoch(key.id, generation);
            let outdated = !supports_member_epoch && generation >= 0 && known != Err(ResponseError::UnknownMemberId);
            return if outdated { Err(ResponseError::UnsupportedVersion) } else { known };
        }
        if generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if generation < 0 && key.id.is_empty() && key.instance.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.member_in_generation(key, generation)?.renew_session(now);
        if self.phase == Phase::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    fn id_of_instance(&self, instance: Option<&str>) -> Result<&str, ResponseError> {
        let found = self.members.iter().find(|(_, m)| m.instance_id.as_deref() == instance);
        found.map(|(id, _)| id.as_str()).ok_or(ResponseError::UnknownMemberId)
    }

    /// Returns the member; fails if another has replaced it in its instance.
    fn member(&mut self, key: MemberKey<'_>) -> Result<&mut Member, ResponseError> {
        if key.instance.is_some() && self.id_of_instance(key.instance)? != key.id {
            return Err(ResponseError::FencedInstanceId);
        }
        self.members.get_mut(key.id).ok_or(ResponseError::UnknownMemberId)
    }

    /// Returns the member if the generation is the current one.
    pub(super) fn member_in_generation(
        &mut self,
        key: MemberKey<'_>,
        generation: i32,
    ) -> Result<&mut Member, ResponseError> {
        let current = self.generation;
        let member = self.member(key)?;
        if generation == current { Ok(member) } else { Err(ResponseError::IllegalGeneration) }
    }
}
