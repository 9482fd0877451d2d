//! The bed of both protocols' tests: a member and a clock, with its actions in short words.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::Instant;

use super::member::{Action, Member};
use super::protocol::Protocol;
use super::requests::RequestFailure;
use super::session::MemberConfig;
use crate::cluster::Backoff;
use crate::config::AssignorKind;
use crate::error::{Error, ErrorKind};
use crate::failure::OutageLog;
use crate::record::TopicPartition;

pub(super) const SESSION: Duration = Duration::from_secs(30);
pub(super) const REBALANCE: Duration = Duration::from_secs(60);
pub(super) const HEARTBEAT: Duration = Duration::from_secs(3);

pub(super) struct TestBed<M> {
    pub(super) m: M,
    pub(super) now: Instant,
    pub(super) actions: Vec<String>,
}

pub(super) fn config() -> MemberConfig {
    MemberConfig {
        group: "g".into(),
        instance_id: None,
        may_be_classic: false,
        assignors: vec![AssignorKind::Range, AssignorKind::RoundRobin, AssignorKind::CooperativeSticky],
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        heartbeat_interval: HEARTBEAT,
        request_timeout: Duration::from_secs(30),
        outages: OutageLog::default(),
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
    }
}

pub(super) fn broken() -> RequestFailure {
    RequestFailure::Connection(Error::new(ErrorKind::Disconnected, "gone"))
}

fn word(a: &Action) -> String {
    let all = |p: &[TopicPartition]| p.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match a {
        Action::FindCoordinator => "find".into(),
        Action::JoinGroup { member_id, previous, .. } => {
            let owned = match all(&previous.owned) {
                owned if owned.is_empty() => owned,
                owned => format!(" with {owned} of {}", previous.owned_generation),
            };
            format!("join {member_id:?}{owned}")
        }
        Action::ComputeAssignment { members, assignor } => format!("assign {} {assignor}", members.len()),
        Action::SyncGroup { generation, assignment, .. } => format!("sync {generation} {}", assignment.len()),
        Action::Heartbeat { generation, .. } => format!("heartbeat {generation}"),
        Action::LeaveGroup { member_id, .. } => format!("leave {member_id:?}"),
        Action::ConsumerGroupHeartbeat { heartbeat, .. } => {
            let owned = heartbeat.owned.as_ref().map(|owned| {
                let numbers = owned.iter().map(|(_, p)| p.to_string()).collect::<Vec<_>>().join(",");
                format!(" owning [{numbers}]")
            });
            let full = if heartbeat.full { " full" } else { "" };
            format!("heartbeat {} {}{full}{}", heartbeat.member_id, heartbeat.epoch, owned.unwrap_or_default())
        }
        Action::RefreshTopicNames => "refresh names".into(),
        Action::FallBackToClassic => "fall back".into(),
        Action::Assigned { generation, added } => format!("assigned {generation} {}", all(added)),
        Action::Revoke { partitions, .. } => format!("revoke {}", all(partitions)),
        Action::Revoked(partitions) => format!("revoked {}", all(partitions)),
        Action::Lost(partitions) => format!("lost {}", all(partitions)),
        Action::Stop(Ok(())) => "stop".into(),
        Action::Stop(Err(e)) => format!("failed {:?}: {}", e.kind(), e.full()),
    }
}

impl<M: Protocol> TestBed<M> {
    pub(super) fn of(m: M, now: Instant) -> Self {
        Self { m, now, actions: Vec::new() }
    }

    /// Returns the actions since the last call.
    pub(super) fn actions(&mut self) -> Vec<String> {
        while let Some(a) = self.m.poll_action() {
            self.actions.push(word(&a));
        }
        std::mem::take(&mut self.actions)
    }

    #[track_caller]
    pub(super) fn expect(&mut self, what: &[&str]) {
        assert_eq!(self.actions(), what);
    }

    /// Goes to the next timeout.
    pub(super) fn wait(&mut self) {
        self.now = self.m.poll_timeout().unwrap().max(self.now);
        self.m.handle_timeout(self.now);
    }

    /// Returns the deadline of the first revocation among the actions.
    pub(super) fn drain_deadline(&mut self) -> Option<Instant> {
        std::iter::from_fn(|| self.m.poll_action()).find_map(|a| match a {
            Action::Revoke { deadline, .. } => Some(deadline),
            _ => None,
        })
    }
}
