//! Sends the requests of a member's actions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::connections::CoordinatorConnections;
use super::coordinator_task::{CoordinatorTask, GroupContext, RequestOutcome};
use super::kip848;
use super::leader::compute_assignment;
use super::member::{Action, CoordinatorResponse, Member};
use super::requests::{
    RequestFailure, check_heartbeat, check_join, check_leave, check_sync, heartbeat_request, instance_id, join_request,
    leave_request, sync_request,
};
use crate::config::AssignorKind;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::Api;

impl CoordinatorTask {
    /// Sends the request of an action, in place of the one in flight.
    pub(super) fn send_request(&mut self, action: Action) {
        let GroupContext { client, config, group, topics, status, .. } = &self.context;
        let instance_id = instance_id(config);
        match action {
            Action::FindCoordinator => {
                let (cluster, id) = (Arc::clone(client.cluster()), group.clone());
                let with_version = self.member.uses_topic_ids();
                self.disconnect("the coordinator is looked up again");
                let open = async move { CoordinatorConnections::open(&cluster, &id, with_version).await };
                self.request = Some(open.map(RequestOutcome::CoordinatorFound).boxed());
            }
            Action::JoinGroup { member_id, previous, timeout } => {
                status.joining();
                match join_request(group, member_id, topics, previous, config) {
                    Ok(request) => self.send(request, timeout, check_join, CoordinatorResponse::JoinGroup),
                    Err(e) => self.member.on_fatal_error(e),
                }
            }
            Action::ComputeAssignment { members, assignor } => {
                let (client, topics) = (client.clone(), topics.clone());
                // The member has checked that it is one of those offered.
                let assignor = config.assignors.iter().find(|a| a.name() == assignor).cloned();
                let assignor = assignor.unwrap_or(AssignorKind::Range);
                let assign = async move { compute_assignment(&client, &topics, &members, &assignor).await };
                self.request = Some(assign.map(RequestOutcome::AssignmentComputed).boxed());
            }
            Action::SyncGroup { generation, member_id, assignor, assignment } => {
                let request = sync_request(group, generation, member_id, assignor, assignment)
                    .with_group_instance_id(instance_id);
                // Parked until the leader's assignment arrives, or the coordinator stops waiting
                // for it.
                let timeout = config.rebalance_timeout + client.config().request_timeout;
                self.send(request, timeout, check_sync, CoordinatorResponse::SyncGroup);
            }
            Action::Heartbeat { generation, member_id, timeout } => {
                let request = heartbeat_request(group, generation, member_id).with_group_instance_id(instance_id);
                self.send(request, timeout, check_heartbeat, CoordinatorResponse::Heartbeat);
            }
            Action::LeaveGroup { member_id, timeout } => {
                let request = leave_request(group, member_id);
                self.send(request, timeout, check_leave, CoordinatorResponse::LeaveGroup);
            }
            Action::ConsumerGroupHeartbeat { heartbeat, timeout } => {
                if heartbeat.epoch == kip848::JOIN_EPOCH {
                    status.joining();
                }
                let request = kip848::encode_heartbeat(group, topics, config, heartbeat);
                let respond = CoordinatorResponse::ConsumerGroupHeartbeat;
                self.send(request, timeout, kip848::check_heartbeat, respond);
            }
            _ => {} // `act` has carried it out
        }
    }

    /// Sends a request in place of the one in flight.
    fn send<A: Api, T: Send + 'static, E: From<RequestFailure> + Send + 'static>(
        &mut self,
        request: A,
        timeout: Duration,
        check: fn(A::Response) -> Result<T, E>,
        respond: fn(Result<T, E>) -> CoordinatorResponse,
    ) {
        let response = self.connections.as_ref().map(|connections| connections.membership.submit(request, timeout));
        let outcome = async move {
            let closed = || Error::new(ErrorKind::Disconnected, "the connection to the coordinator is closed");
            let response = match response {
                Some(response) => response.await,
                None => Err(closed()),
            };
            RequestOutcome::Response(respond(
                response.map_err(|e| RequestFailure::Connection(e).into()).and_then(check),
            ))
        };
        self.request = Some(outcome.boxed());
    }
}
