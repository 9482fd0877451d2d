//! Drives a [`Member`]: one task per consumer, with the [connections](CoordinatorConnections) to
//! the group's coordinator.
//!
//! Before partitions are revoked, their commits in flight are awaited, within the time of the
//! drain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::awaiting_offsets::{AwaitingOffsets, CommittedOffsets, StartOffsets};
use super::commit_task::{CommitOutcome, PendingLeave};
use super::connections::CoordinatorConnections;
use super::initial_topics::InitialTopics;
use super::leader::{GroupAssignment, PartitionCounts, count};
use super::member::{self, Action, CoordinatorResponse, Member};
use super::protocol::Protocol;
use super::session::MemberConfig;
use crate::cluster::{Client, Pin};
use crate::config::{ConsumerConfig, GroupProtocol};
use crate::consumer::command::Command;
use crate::consumer::event_queue::EventQueue;
use crate::consumer::fetch::partition::StartPosition;
use crate::consumer::fetch::tasks::{FetchState, Fetcher};
use crate::consumer::lease::{Lease, lease_epoch};
use crate::consumer::offsets::commit_queue::Commits;
use crate::consumer::status::Status;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::needs_action;
use crate::metrics::Observation;
use crate::record::TopicPartition;
use crate::text;

/// Capacity of the queue of reset offsets to commit.
const RESET_OFFSETS: usize = 1024;
/// The task wakes up at least this often.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// Result of a member's request.
pub(super) enum RequestOutcome {
    CoordinatorFound(Result<CoordinatorConnections>),
    AssignmentComputed(GroupAssignment),
    Response(CoordinatorResponse),
}

/// Partitions that the application is finishing.
pub(super) struct PendingRevocation {
    partitions: Vec<TopicPartition>,
    /// Cancelled when the application has finished.
    finished: CancellationToken,
    /// True once the commits of what was handled until then are in the queue.
    pub(super) flushed: bool,
}

/// The surroundings of a member.
pub(crate) struct GroupContext {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) group: String,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) commits: Arc<Commits>,
    pub(crate) status: Arc<Status>,
    pub(crate) tasks: TaskTracker,
}

/// See the [module](self).
pub(crate) struct CoordinatorTask {
    pub(super) context: GroupContext,
    commands: mpsc::Receiver<Command>,
    /// Start offsets without a commit, from the fetchers.
    reset_offsets: mpsc::Receiver<(Lease, i64)>,
    pub(super) member: Box<dyn Protocol>,
    pub(super) connections: Option<CoordinatorConnections>,
    /// The member's request in flight.
    pub(super) request: Option<BoxFuture<'static, RequestOutcome>>,
    /// Number of assignments so far.
    /// Number of completed rebalances.
    rebalances: u32,
    fetcher: Fetcher,
    pub(super) revocation: Option<PendingRevocation>,
    awaiting_offsets: AwaitingOffsets,
    pub(super) auto_commit_at: Option<Instant>,
    pub(super) commit_in_flight: Option<BoxFuture<'static, CommitOutcome>>,
    /// The leader's view of the topics when it computed the assignment.
    partition_counts: PartitionCounts,
    /// The topics of all members, while this one leads: a change of their partitions starts a
    /// rebalance.
    _topics_in_use: Vec<Pin>,
    pub(super) leaving: Option<PendingLeave>,
    rebalance_started_at: Option<Instant>,
    initial_topics: InitialTopics,
    /// Start of the last outage that the application was informed of.
    reported_outage_since: Option<Instant>,
}

impl CoordinatorTask {
    pub(crate) fn new(context: GroupContext, commands: mpsc::Receiver<Command>) -> Self {
        let (to_commit, reset_offsets) = mpsc::channel(RESET_OFFSETS);
        let member_config = MemberConfig::new(&context.group, &context.config, context.client.cluster());
        let now = Instant::now();
        let fetcher =
            Fetcher::start(&context.client, &context.config, &context.events, &context.tasks, Some(to_commit));
        Self {
            member: member::new(context.config.group_protocol, member_config, now),
            auto_commit_at: context.config.auto_commit_interval.map(|interval| now + interval),
            commands,
            reset_offsets,
            connections: None,
            request: None,
            rebalances: 0,
            fetcher,
            revocation: None,
            awaiting_offsets: AwaitingOffsets::new(&context.group, context.client.cluster(), now),
            commit_in_flight: None,
            partition_counts: PartitionCounts::new(),
            _topics_in_use: Vec::new(),
            leaving: None,
            rebalance_started_at: None,
            initial_topics: InitialTopics::new(&context.client.cluster().snapshot(), &context.topics),
            reported_outage_since: None,
            context,
        }
    }

    pub(crate) fn fetch_state(&self) -> Arc<FetchState> {
        self.fetcher.state()
    }

    /// Runs until the member has left the group, or a fatal error.
    pub(crate) async fn run(mut self) {
        let mut metadata = self.context.client.cluster().updated();
        loop {
            while let Some(action) = self.member.poll_action() {
                if let Some(outcome) = self.act(action) {
                    return self.stop(outcome);
                }
            }
            self.send_offset_requests();
            self.report_outage();
            if self.leave_if_ready() {
                continue;
            }
            let (wake_at, must_arrive) = (self.poll_timeout(), self.response_must_arrive());
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::LeaveTemporarily(why)) => self.leave_temporarily(&why),
                    Some(Command::RefreshGeneration(refused)) => self.refresh_generation(refused),
                    Some(Command::SetTopics { topics, new_topics }) => self.set_topics(topics, &new_topics),
                    Some(Command::Leave(reply)) => self.leave(reply),
                    None => return, // `Consumer` was dropped: exit without leaving the group, as in a crash
                },
                () = self.context.commits.pushed() => {}
                outcome = poll_optional(&mut self.request) => {
                    self.request = None;
                    self.on_request_done(outcome);
                }
                committed = poll_optional(&mut self.awaiting_offsets.in_flight) => {
                    self.awaiting_offsets.in_flight = None;
                    self.on_committed_offsets(committed);
                }
                outcome = poll_optional(&mut self.commit_in_flight) => {
                    self.commit_in_flight = None;
                    self.on_committed(outcome);
                }
                Some((lease, offset)) = self.reset_offsets.recv() => self.commit_reset_offset(lease, offset),
                () = drained(self.revocation.as_ref(), &self.context.commits) => self.on_drained(),
                () = closed(self.connections.as_ref(), must_arrive) => {
                    self.disconnect("its other connection is closed");
                    self.member.on_disconnected(Instant::now());
                }
                () = self.context.events.polled() => self.member.resume(Instant::now()),
                Ok(()) = metadata.changed() => self.on_metadata(),
                () = tokio::time::sleep_until(wake_at) => {
                    self.context.commits.with(|commits| commits.expire(Instant::now()));
                    self.check_poll_interval();
                    self.auto_commit_if_due();
                    self.member.handle_timeout(Instant::now());
                }
            }
        }
    }

    /// Reports an outage to health and, if it only ends when somebody acts, once to the
    /// application.
    fn report_outage(&mut self) {
        let outage = self.member.outage().or_else(|| self.awaiting_offsets.outage.ongoing());
        if let Some(outage) = outage.as_ref().filter(|o| needs_action(&o.error)) {
            if self.reported_outage_since.replace(outage.since) != Some(outage.since) {
                self.context.events.push_error(None, outage.error.clone());
            }
        }
        self.context.status.set_outage(outage);
    }

    /// Time at which there is something to do without a response or a command.
    fn poll_timeout(&self) -> Instant {
        let connected = self.connections.is_some() && self.member.has_coordinator();
        let start = self.awaiting_offsets.poll_timeout().filter(|_| connected);
        let can_commit = connected && self.commit_in_flight.is_none() && self.member.can_commit();
        let (commit, expiry) = self.context.commits.with(|commits| (commits.retry_at(), commits.expiry()));
        let commit = commit.filter(|_| can_commit);
        // An application that takes a poll interval later on is noticed at the next heartbeat.
        let away = self.context.events.last_poll().filter(|_| self.member.is_member());
        let stuck = away.map(|(since, _)| since + self.context.config.max_poll_interval);
        let leave = self.leaving.as_ref().and_then(|l| l.commits_until);
        let all = [self.member.poll_timeout(), stuck, leave, expiry, start, commit, self.auto_commit_at];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + MAX_SLEEP)
    }

    fn leave_temporarily(&mut self, why: &str) {
        if !self.member.is_member() {
            return;
        }
        tracing::warn!(
            group = %self.context.group,
            member = self.member.member_id(),
            "{why}: the member leaves the group until the next poll"
        );
        self.member.leave_temporarily(Instant::now());
        if self.context.events.wait_for_poll() {
            self.member.resume(Instant::now());
        }
    }

    /// Leaves the group if the application has exceeded `max_poll_interval`.
    fn check_poll_interval(&mut self) {
        let Some((since, last)) = self.context.events.last_poll().filter(|_| self.member.is_member()) else { return };
        let limit = self.context.config.max_poll_interval;
        if since.elapsed() < limit {
            return;
        }
        let after = last.map_or_else(String::new, |(p, offset)| {
            format!(" after it got the records of {p} from offset {offset} on")
        });
        self.leave_temporarily(&format!(
            "the application has not polled for {limit:?}{after}; handle records faster, or raise ConsumerConfig::max_poll_interval"
        ));
    }

    /// Carries out an action of the member; returns the outcome when the member has stopped.
    fn act(&mut self, action: Action) -> Option<Result<()>> {
        if action.is_of_rebalance() {
            self.rebalance_started_at.get_or_insert_with(Instant::now);
        }
        match action {
            Action::RefreshTopicNames => self.context.client.cluster().refresh_soon(),
            Action::FallBackToClassic => {
                let GroupContext { group, config, client, .. } = &self.context;
                let member_config = MemberConfig::new(group, config, client.cluster());
                self.member = member::new(GroupProtocol::Classic, member_config, Instant::now());
            }
            Action::Assigned { generation, added } => self.on_assigned(generation, added),
            Action::Revoke { partitions, deadline } => {
                self.fetcher.remove(&partitions);
                self.awaiting_offsets.remove(&partitions);
                let finished = CancellationToken::new();
                self.context.events.on_revoke(&partitions, deadline, finished.clone());
                self.revocation = Some(PendingRevocation { partitions, finished, flushed: false });
            }
            Action::Revoked(partitions) => {
                self.release(&partitions, false, "they were revoked by a rebalance");
                self.context.events.on_revoked(&partitions);
            }
            Action::Lost(partitions) => {
                self.release(&partitions, true, "this member has lost them");
                self.context.events.on_lost(&partitions);
            }
            Action::Stop(outcome) => return Some(outcome),
            request => self.send_request(request),
        }
        None
    }

    fn on_request_done(&mut self, outcome: RequestOutcome) {
        let now = Instant::now();
        match outcome {
            RequestOutcome::CoordinatorFound(Ok(connections)) => {
                let coordinator = connections.membership.peer();
                tracing::debug!(group = %self.context.group, coordinator, "connected to the coordinator");
                let heartbeat_version = connections.heartbeat_version;
                self.connections = Some(connections);
                self.on_metadata();
                self.member.on_coordinator_found(now, Ok(heartbeat_version));
            }
            RequestOutcome::CoordinatorFound(Err(e)) => {
                self.context.status.meter().failed("group", e.kind());
                self.member.on_coordinator_found(now, Err(e));
            }
            RequestOutcome::AssignmentComputed(GroupAssignment { counts, assignment, withheld, topics_in_use }) => {
                self.partition_counts = counts;
                self._topics_in_use = topics_in_use;
                self.member.on_assignment_computed(now, assignment, withheld);
            }
            RequestOutcome::Response(response) => self.member.on_response(now, response),
        }
    }

    /// Ends what goes on for partitions that are no longer assigned.
    fn release(&mut self, partitions: &[TopicPartition], lost: bool, why: &str) {
        self.awaiting_offsets.remove(partitions);
        self.fetcher.remove(partitions);
        self.revocation = None;
        self.context.status.unassigned(partitions, lost); // before their commits are dropped, see `Commits::push`
        let what = format!("partitions of group {:?} are no longer assigned: {why}", self.context.group);
        let why = Error::new(ErrorKind::GroupMembership, what);
        self.context.commits.with(|commits| commits.drop_partitions(partitions, &why));
    }

    pub(super) fn disconnect(&mut self, why: &str) {
        if let Some(connections) = self.connections.take() {
            connections.kill(why);
        }
    }

    /// Returns whether the response in flight must not be dropped. In the `consumer` protocol it
    /// may carry a new epoch, without which the member may be fenced. In the classic one each can
    /// be requested again, and a JoinGroup may be parked for long.
    fn response_must_arrive(&self) -> bool {
        self.member.uses_topic_ids() && self.request.is_some()
    }

    fn on_assigned(&mut self, generation: i32, added: Vec<TopicPartition>) {
        self.rebalances = self.rebalances.wrapping_add(1);
        let took = self.rebalance_started_at.take().map_or(Duration::ZERO, |since| since.elapsed());
        let GroupContext { group, status, events, .. } = &self.context;
        status.meter().report(|group| Observation::Rebalanced { group, took });
        let epoch = lease_epoch(generation, self.rebalances);
        let leases: Vec<_> = added.into_iter().map(|partition| Lease { partition, epoch }).collect();
        status.member(self.member.member_id(), generation, &leases);
        tracing::info!(%group, generation, added = leases.len(), "joined the group");
        if leases.is_empty() {
            events.on_assigned([]);
        }
        self.awaiting_offsets.insert(Instant::now(), leases);
        self.on_metadata();
    }

    /// Sends OffsetFetch and OffsetCommit, if they are due.
    fn send_offset_requests(&mut self) {
        if !self.member.has_coordinator() {
            return;
        }
        let Some(CoordinatorConnections { offsets, .. }) = &self.connections else { return };
        let (now, timeout) = (Instant::now(), self.context.client.config().request_timeout);
        self.awaiting_offsets.send_due(now, offsets, timeout);
        if self.member.can_commit() && self.commit_in_flight.is_none() {
            if let Some(commit) = self.context.commits.with(|commits| commits.next_request(now)) {
                self.commit_in_flight = Some(self.send_commit(offsets, commit, timeout));
            }
        }
    }

    /// Reports partitions as assigned and starts to fetch them, once their committed offsets are
    /// known.
    fn on_committed_offsets(&mut self, committed: CommittedOffsets) {
        let now = Instant::now();
        match self.awaiting_offsets.on_response(now, committed) {
            StartOffsets::Known(leases, _) if leases.is_empty() => {} // no longer assigned
            StartOffsets::Known(leases, committed) => {
                let snapshot = self.context.client.cluster().snapshot();
                let start = |p: &TopicPartition| match committed.get(p) {
                    Some(at) => StartPosition::Committed(at.offset, at.leader_epoch),
                    None if self.initial_topics.is_new_partition(p, &snapshot) => StartPosition::NewPartition,
                    None => StartPosition::ByResetPolicy,
                };
                self.context.status.committed(&committed);
                self.context.events.on_assigned(leases.iter().cloned());
                self.fetcher.add(leases.into_iter().map(|l| (l.clone(), start(&l.partition))).collect());
            }
            StartOffsets::Retry(Some(code)) => self.member.on_commit_refused(now, code),
            StartOffsets::Retry(None) => {}
            StartOffsets::Fatal(e) => self.member.on_fatal_error(e),
        }
    }

    /// Passes topic names to the member and, if it leads, rebalances the group when a number of
    /// partitions has changed.
    fn on_metadata(&mut self) {
        let snapshot = self.context.client.cluster().snapshot();
        if self.member.uses_topic_ids() {
            let topics = self.context.topics.iter().filter_map(|t| snapshot.topics.get(t.as_str()));
            let names = topics.filter_map(|t| Some((t.id?, Arc::clone(&t.name)))).collect();
            self.member.on_topic_names(Instant::now(), names);
        }
        if !self.member.is_leader() {
            return;
        }
        let changed = self.partition_counts.iter().find(|(topic, was)| count(&snapshot, topic) != **was);
        if let Some((topic, was)) = changed {
            let (group, is) = (&self.context.group, count(&snapshot, topic));
            tracing::info!(%group, topic, was, is, "the number of partitions has changed: the group rebalances");
            self.member.on_partitions_changed(Instant::now());
        }
    }

    /// Changes the subscription; the member then rebalances with the group.
    fn set_topics(&mut self, topics: BTreeSet<String>, new_topics: &BTreeSet<String>) {
        if topics == self.context.topics {
            return;
        }
        tracing::info!(group = %self.context.group, topics = %text::list(&topics), "the subscription has changed: the group rebalances");
        self.initial_topics.set(&self.context.client.cluster().snapshot(), &topics, new_topics);
        self.context.topics = topics;
        self.member.on_subscription_changed(Instant::now());
        self.on_metadata();
    }

    fn stop(mut self, outcome: Result<()>) {
        self.release(&self.context.status.assignment(), false, "the member has stopped");
        self.context.status.closed();
        let why = match &outcome {
            Err(e) if self.leaving.is_none() => {
                self.context.status.meter().failed("group", e.kind());
                e.clone()
            }
            _ => Error::new(ErrorKind::Closed, "the consumer is closed"),
        };
        self.context.events.close(why);
        if let Some(PendingLeave { reply, .. }) = self.leaving.take() {
            _ = reply.send(outcome); // the caller may have stopped waiting
        }
    }
}

impl Drop for CoordinatorTask {
    fn drop(&mut self) {
        self.disconnect("the consumer is closed");
        let what = format!("the consumer of group {:?} is closed", self.context.group);
        self.context.commits.with(|commits| commits.close(&Error::new(ErrorKind::Closed, what)));
    }
}

/// Resolves with the output of a future, if there is one.
async fn poll_optional<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Resolves when the application has finished with the partitions being revoked, and none of their
/// commits is pending.
async fn drained(revocation: Option<&PendingRevocation>, commits: &Commits) {
    match revocation {
        Some(revocation) if !commits.with(|commits| commits.involves(&revocation.partitions)) => {
            revocation.finished.cancelled().await
        }
        _ => std::future::pending().await,
    }
}

async fn closed(connections: Option<&CoordinatorConnections>, must_arrive: bool) {
    match connections {
        Some(connections) => connections.closed(must_arrive).await,
        None => std::future::pending().await,
    }
}
