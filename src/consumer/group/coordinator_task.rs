//! Drives a [`Member`]: one task with two connections to the group's coordinator that belong to it alone.
//!
//! One is for the membership, the other for committed offsets: a broker serves one request of a connection at a time and may
//! park a JoinGroup for as long as the other members take to come. Meanwhile what is kept goes on being committed, in the
//! generation that is not over yet; and a commit that takes its time never delays a heartbeat. Before partitions are given up
//! the commits for them that are on their way are waited for, within the time there is for the drain.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::classic::COORDINATOR_MOVE_GRACE;
use super::commit_task::Leaving;
use super::initial_topics::InitialTopics;
use super::kip848::{beaten, encode_heartbeat};
use super::leader::{GroupAssignment, PartitionCounts, compute_assignment, count};
use super::member::{CoordinatorResponse, Member};
use super::requests::{
    Action, MemberConfig, RequestFailure, beat, heartbeat_request, instance_id, join_request, joined, leave_request,
    left, sync_request, synced,
};
use crate::cluster::offset_commit::{
    CommitCodes, OffsetAndMetadata, PartitionOffset, decode_commit_response, encode_commit,
};
use crate::cluster::{Backoff, Client, Cluster, Pin};
use crate::config::{AssignorKind, ConsumerConfig, GroupProtocol};
use crate::consumer::command::Command;
use crate::consumer::event_queue::EventQueue;
use crate::consumer::fetch::partition::StartPosition;
use crate::consumer::fetch::tasks::{FetchState, Fetcher};
use crate::consumer::lease::{Lease, Leases};
use crate::consumer::offsets::commits::{Commits, Outbox};
use crate::consumer::offsets::requests::{committed_request, decode_committed};
use crate::consumer::status::Status;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{Outage, is_final, is_final_code, needs_action};
use crate::record::TopicPartition;
use crate::wire::{Api, Connection, api_versions_request};

/// Start offsets that wait to be committed.
const RESET_OFFSET_QUEUE: usize = 1024;

/// What a request has brought.
enum RequestOutcome {
    CoordinatorFound(Result<CoordinatorConnections>),
    AssignmentComputed(GroupAssignment),
    Response(CoordinatorResponse),
}

/// The connections to the coordinator.
struct CoordinatorConnections {
    group: Connection,
    offsets: Connection,
    /// The newest version of ConsumerGroupHeartbeat that it serves, if that was asked.
    heartbeats: Option<i16>,
}

/// Partitions that are ours but whose committed offsets are not known yet: the program has not been told of them.
struct AwaitingOffsets {
    leases: Leases,
    /// Not asked for before.
    at: Instant,
    backoff: Backoff,
    /// Why they are not known.
    outage: Outage,
    /// Whether to wait for transactions; brokers from 2.5 on can.
    stable: bool,
}

/// What is drained.
pub(super) struct Draining {
    partitions: Vec<TopicPartition>,
    /// Cancelled when the program has finished.
    done: CancellationToken,
    /// Whether what was handled by then is on its way to be committed.
    pub(super) flushed: bool,
}

/// CommitOutcome offsets of partitions that were asked for.
type CommittedOffsets = (Vec<Lease>, Result<HashMap<TopicPartition, OffsetAndMetadata>, RequestFailure>);

/// A generation, what was sent in its name and what came of it.
pub(super) type CommitOutcome = (i32, Vec<PartitionOffset>, Result<CommitCodes>);

/// What a member works with.
pub(crate) struct GroupContext {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) group: String,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) status: Arc<Status>,
    pub(crate) tasks: TaskTracker,
}

/// See the module's text.
pub(crate) struct CoordinatorTask {
    pub(super) context: GroupContext,
    commands: mpsc::Receiver<Command>,
    /// Start offsets to commit, from the fetchers.
    reset_offsets: mpsc::Receiver<(Lease, i64)>,
    pub(super) membership: Member,
    coordinator: Option<CoordinatorConnections>,
    /// The membership's request under way.
    request: Option<BoxFuture<'static, RequestOutcome>>,
    /// PartitionCounts assignments.
    epoch: u64,
    /// What is ours, being drained or not.
    pub(super) leases: Leases,
    fetcher: Fetcher,
    pub(super) draining: Option<Draining>,
    starting: AwaitingOffsets,
    fetching_committed: Option<BoxFuture<'static, CommittedOffsets>>,
    pub(super) commits: Commits,
    /// When to commit by itself what was handled.
    pub(super) auto_commit_at: Option<Instant>,
    committing: Option<BoxFuture<'static, CommitOutcome>>,
    /// What was shared out, if we lead.
    shared: PartitionCounts,
    /// The topics of all members, while this one leads: another number of their partitions is a reason to rebalance.
    _topics_in_use: Vec<Pin>,
    pub(super) leaving: Option<Leaving>,
    /// Since when the group shares out anew.
    rebalancing: Option<Instant>,
    /// Topics as they were when this member began: what they get later is new.
    known: InitialTopics,
    /// When the outage began that the program was told of last.
    told_trouble: Option<Instant>,
}

impl CoordinatorTask {
    pub(crate) fn new(context: GroupContext, commands: mpsc::Receiver<Command>) -> Self {
        let (pinning, reset_offsets) = mpsc::channel(RESET_OFFSET_QUEUE);
        let settings = MemberConfig::new(&context.group, &context.config, context.client.config());
        let backoff = context.client.cluster().backoff();
        let fetcher = Fetcher::start(&context.client, &context.config, &context.events, &context.tasks, Some(pinning));
        Self {
            membership: Member::new(context.config.group_protocol, settings, Instant::now()),
            commits: Commits::new(&context.group, backoff.clone()),
            auto_commit_at: context.config.auto_commit_interval.map(|interval| Instant::now() + interval),
            commands,
            reset_offsets,
            coordinator: None,
            request: None,
            epoch: 0,
            leases: Leases::default(),
            fetcher,
            draining: None,
            starting: AwaitingOffsets {
                leases: Leases::default(),
                at: Instant::now(),
                backoff,
                outage: Outage::default(),
                stable: true,
            },
            fetching_committed: None,
            committing: None,
            shared: PartitionCounts::new(),
            _topics_in_use: Vec::new(),
            leaving: None,
            rebalancing: None,
            known: InitialTopics::new(&context.client.cluster().snapshot(), &context.topics),
            told_trouble: None,
            context,
        }
    }

    /// For the front.
    pub(crate) fn fetch_state(&self) -> Arc<FetchState> {
        self.fetcher.state()
    }

    /// Until it has left the group or met with an error that can't be mended.
    pub(crate) async fn run(mut self) {
        let mut updated = self.context.client.cluster().updated();
        loop {
            while let Some(action) = self.membership.next_action() {
                if let Some(outcome) = self.act(action) {
                    return self.end(outcome);
                }
            }
            self.look_after_offsets();
            self.look_at_trouble();
            if self.leave_if_ready() {
                continue;
            }
            let (deadline, awaited) = (self.deadline(), self.awaits_heartbeat());
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return, // the front is gone: so are we, as a crash would have it
                },
                () = self.context.outbox.ready() => self.take_commits(),
                answer = on(&mut self.request) => {
                    self.request = None;
                    self.answer(answer);
                }
                committed = on(&mut self.fetching_committed) => {
                    self.fetching_committed = None;
                    self.start_reading(committed);
                }
                committed = on(&mut self.committing) => {
                    self.committing = None;
                    self.committed(committed);
                }
                Some((lease, offset)) = self.reset_offsets.recv() => self.pin(lease, offset),
                () = drained(self.draining.as_ref(), &self.commits) => self.drained(),
                () = closed(self.coordinator.as_ref(), awaited) => {
                    self.disconnect("its other connection is gone");
                    self.membership.disconnected(Instant::now());
                }
                () = self.context.events.polled() => self.membership.come_back(Instant::now()),
                Ok(()) = updated.changed() => self.look_at_topics(),
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.commits.expire(Instant::now());
                    self.look_at_the_program();
                    self.auto_commit_if_due();
                    self.membership.tick(Instant::now());
                }
            }
        }
    }

    /// Tells health what keeps this member from its group or its partitions from being read; and the program, once, what does not
    /// end unless somebody acts.
    fn look_at_trouble(&mut self) {
        let trouble = self.membership.trouble().or_else(|| self.starting.outage.ongoing());
        if let Some(trouble) = trouble.as_ref().filter(|t| needs_action(&t.error)) {
            if self.told_trouble.replace(trouble.since) != Some(trouble.since) {
                self.context.events.push_error(None, trouble.error.clone());
            }
        }
        self.context.status.trouble(trouble);
    }

    /// When there is something to do without an answer or a command.
    fn deadline(&self) -> Instant {
        let connected = self.coordinator.is_some() && self.membership.has_coordinator();
        let start = connected && self.fetching_committed.is_none() && !self.starting.leases.is_empty();
        let starting = Some(self.starting.at).filter(|_| start);
        let commit = connected && self.committing.is_none() && self.membership.may_commit();
        let commit = self.commits.retry_at().filter(|_| commit);
        // A program that goes away later is noticed at the next heartbeat.
        let away = self.context.events.last_poll().filter(|_| self.membership.may_expel());
        let hung = away.map(|(since, _)| since + self.context.config.max_poll_interval);
        let leave = self.leaving.as_ref().and_then(|l| l.commits_until);
        let offsets = [self.commits.expiry(), starting, commit, self.auto_commit_at];
        let all = [self.membership.deadline(), hung, leave].into_iter().chain(offsets);
        all.flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Expel(why) => self.expel(&why),
            Command::Leave(reply) => self.leave(reply),
        }
    }

    fn expel(&mut self, why: &str) {
        if !self.membership.may_expel() {
            return; // not in the group
        }
        tracing::warn!(group = %self.context.group, member = self.membership.member_id(), "{why}: the member leaves the group until it goes on");
        self.membership.expel(Instant::now());
        if self.context.events.wait_for_poll() {
            self.membership.come_back(Instant::now());
        }
    }

    /// Whether the program is hung on what it took last, so that others had better have its partitions.
    fn look_at_the_program(&mut self) {
        let Some((since, held)) = self.context.events.last_poll().filter(|_| self.membership.may_expel()) else {
            return;
        };
        let limit = self.context.config.max_poll_interval;
        if since.elapsed() < limit {
            return;
        }
        let on = held.map_or_else(String::new, |(p, offset)| {
            format!(", since it took the records of {p} from offset {offset} on")
        });
        self.expel(&format!(
            "the program has not asked for the next event for {limit:?}{on}; handle records faster, or raise REDPANDA_MAX_POLL_INTERVAL"
        ));
    }

    /// Carries out what the membership asks for; gives the outcome when it is over.
    fn act(&mut self, action: Action) -> Option<Result<()>> {
        if action.is_of_rebalance() {
            self.rebalancing.get_or_insert_with(Instant::now);
        }
        match action {
            Action::FindCoordinator => {
                self.disconnect("the coordinator is looked up anew");
                let (cluster, id) = (Arc::clone(self.context.client.cluster()), self.context.group.clone());
                let modern = self.membership.is_modern();
                self.request =
                    Some(async move { RequestOutcome::CoordinatorFound(find(&cluster, &id, modern).await) }.boxed());
            }
            Action::JoinGroup { member_id, had, timeout } => {
                self.context.status.joining();
                let GroupContext { group, topics, config, .. } = &self.context;
                match join_request(group, member_id, topics, had, config) {
                    Ok(request) => self.send(request, timeout, |r| {
                        CoordinatorResponse::JoinGroup(r.map_err(|failure| (failure, String::new())).and_then(joined))
                    }),
                    Err(e) => self.membership.fail(e),
                }
            }
            Action::ComputeAssignment { members, assignor } => {
                let (client, topics) = (self.context.client.clone(), self.context.topics.clone());
                let assignor = self.context.config.assignors.iter().find(|a| a.name() == assignor).cloned();
                let sharing = async move {
                    // The membership has checked that it is one of ours.
                    let assignor = assignor.unwrap_or(AssignorKind::Range);
                    RequestOutcome::AssignmentComputed(compute_assignment(&client, &topics, &members, &assignor).await)
                };
                self.request = Some(sharing.boxed());
            }
            Action::SyncGroup { generation, member_id, protocol, shares } => {
                let request = sync_request(&self.context.group, generation, member_id, protocol, shares)
                    .with_group_instance_id(instance_id(&self.context.config));
                // Parked until the leader has shared out, or the group has found out that it never will.
                let timeout = self.context.config.rebalance_timeout + self.context.client.config().request_timeout;
                self.send(request, timeout, |r| CoordinatorResponse::SyncGroup(r.and_then(|r| synced(&r))));
            }
            Action::Heartbeat { generation, member_id, timeout } => {
                let request = heartbeat_request(&self.context.group, generation, member_id)
                    .with_group_instance_id(instance_id(&self.context.config));
                self.send(request, timeout, |r| CoordinatorResponse::Heartbeat(r.and_then(|r| beat(&r))));
            }
            Action::LeaveGroup { member_id, timeout } => {
                let request = leave_request(&self.context.group, member_id);
                self.send(request, timeout, |r| CoordinatorResponse::LeaveGroup(r.and_then(|r| left(&r))));
            }
            Action::ConsumerGroupHeartbeat { heartbeat, timeout } => {
                if heartbeat.epoch == 0 {
                    self.context.status.joining();
                }
                let request =
                    encode_heartbeat(&self.context.group, &self.context.topics, &self.context.config, heartbeat);
                self.send(request, timeout, |r| {
                    CoordinatorResponse::ConsumerGroupHeartbeat(
                        r.map_err(|failure| (failure, String::new())).and_then(beaten),
                    )
                });
            }
            Action::RefreshTopicNames => self.context.client.cluster().refresh_soon(),
            Action::FallBackToClassic => {
                let settings =
                    MemberConfig::new(&self.context.group, &self.context.config, self.context.client.config());
                self.membership = Member::new(GroupProtocol::Classic, settings, Instant::now());
            }
            Action::Assigned { generation, added } => self.assigned(generation, added),
            Action::Revoke { partitions, deadline } => {
                self.fetcher.remove(&partitions);
                self.starting.leases.remove(&partitions);
                let done = CancellationToken::new();
                self.context.events.on_revoke(&partitions, deadline, done.clone());
                self.draining = Some(Draining { partitions, done, flushed: false });
            }
            Action::Revoked(partitions) => {
                self.void(&partitions, false, "they were given up for a rebalance of the group");
                self.context.events.on_revoked(&partitions);
            }
            Action::Lost(partitions) => {
                self.void(&partitions, true, "the group has taken them from this member");
                self.context.events.on_lost(&partitions);
            }
            Action::Stop(outcome) => return Some(outcome),
        }
        None
    }

    /// Nothing of these counts any more.
    fn void(&mut self, partitions: &[TopicPartition], lost: bool, why: &str) {
        self.leases.remove(partitions);
        self.starting.leases.remove(partitions);
        self.fetcher.remove(partitions);
        self.draining = None;
        self.context.status.gone(partitions, lost);
        let what = format!("partitions of group {:?} are no longer ours: {why}", self.context.group);
        self.commits.fail(partitions, &Error::new(ErrorKind::GroupMembership, what));
    }

    /// A parked JoinGroup would keep it open.
    fn disconnect(&mut self, why: &str) {
        if let Some(CoordinatorConnections { group, offsets, .. }) = self.coordinator.take() {
            group.kill(why);
            offsets.kill(why);
        }
    }

    /// In the `consumer` protocol the answer to a heartbeat may bring an epoch, and who misses it may be fenced. In the classic one
    /// there is none that can't be had again, and a JoinGroup may be parked for long.
    fn awaits_heartbeat(&self) -> bool {
        self.membership.is_modern() && self.request.is_some()
    }

    /// Sends a request in place of the one under way.
    fn send<A: Api>(
        &mut self,
        request: A,
        timeout: Duration,
        answer: impl FnOnce(Result<A::Response, RequestFailure>) -> CoordinatorResponse + Send + 'static,
    ) {
        let pending = match &self.coordinator {
            Some(coordinator) => Ok(coordinator.group.submit(request, timeout)),
            None => Err(Error::new(ErrorKind::Disconnected, "the connection to the coordinator is gone")),
        };
        let outcome = async move {
            let response = match pending {
                Ok(pending) => pending.await,
                Err(e) => Err(e),
            };
            RequestOutcome::Response(answer(response.map_err(RequestFailure::Connection)))
        };
        self.request = Some(outcome.boxed());
    }

    fn answer(&mut self, answer: RequestOutcome) {
        let now = Instant::now();
        match answer {
            RequestOutcome::CoordinatorFound(Ok(coordinator)) => {
                tracing::debug!(group = %self.context.group, coordinator = coordinator.group.peer(), "connected to the coordinator");
                let heartbeats = coordinator.heartbeats;
                self.coordinator = Some(coordinator);
                self.look_at_topics();
                self.membership.found(now, Ok(heartbeats));
            }
            RequestOutcome::CoordinatorFound(Err(e)) => {
                self.context.status.meter().failed("group", e.kind());
                self.membership.found(now, Err(e));
            }
            RequestOutcome::AssignmentComputed(GroupAssignment { counts, shares, withheld, in_use }) => {
                self.shared = counts;
                self._topics_in_use = in_use;
                self.membership.said(now, CoordinatorResponse::Assignment(shares, withheld));
            }
            RequestOutcome::Response(said) => self.membership.said(now, said),
        }
    }

    fn assigned(&mut self, generation: i32, added: Vec<TopicPartition>) {
        self.epoch += 1;
        let took = self.rebalancing.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.context.status.meter().rebalanced(took);
        self.context.status.member(self.membership.member_id(), generation, &added);
        tracing::info!(group = %self.context.group, generation, added = added.len(), "joined the group");
        if added.is_empty() {
            self.context.events.on_assigned([]);
        }
        for partition in added {
            let lease = Lease { partition, epoch: self.epoch };
            self.leases.insert(lease.clone());
            self.starting.leases.insert(lease);
        }
        self.starting.at = Instant::now();
        self.look_at_topics();
    }

    /// Sends what waits to be sent of commits and of questions for them.
    fn look_after_offsets(&mut self) {
        let known = self.membership.has_coordinator();
        let Some(CoordinatorConnections { offsets: connection, .. }) = self.coordinator.as_ref().filter(|_| known)
        else {
            return;
        };
        let now = Instant::now();
        let timeout = self.context.client.config().request_timeout;
        let start = &self.starting;
        if self.fetching_committed.is_none() && !start.leases.is_empty() && now >= start.at {
            let leases: Vec<_> = start.leases.all().collect();
            let partitions: Vec<_> = leases.iter().map(|l| l.partition.clone()).collect();
            let request = committed_request(&self.context.group, &partitions, start.stable);
            let pending = connection.submit(request, timeout);
            let answer = async move {
                let answer = pending.await.map_err(RequestFailure::Connection);
                (leases, answer.and_then(|answer| decode_committed(&answer).map_err(RequestFailure::Code)))
            };
            self.fetching_committed = Some(answer.boxed());
        }
        if self.membership.may_commit() && self.committing.is_none() {
            if let Some(offsets) = self.commits.next(now) {
                let (member_id, generation) = (self.membership.member_id(), self.membership.generation());
                let request = encode_commit(&self.context.group, member_id, generation, &offsets)
                    .with_group_instance_id(instance_id(&self.context.config));
                let pending = connection.submit(request, timeout);
                let answer = async move { (generation, offsets, pending.await.map(|r| decode_commit_response(&r))) };
                self.committing = Some(answer.boxed());
            }
        }
    }

    /// The committed offsets are known: the program is told of the partitions, and reading them begins.
    fn start_reading(&mut self, (mut asked, committed): CommittedOffsets) {
        asked.retain(|lease| self.starting.leases.holds(lease));
        let committed = match committed {
            Ok(committed) => committed,
            Err(RequestFailure::Connection(e)) if e.kind() == ErrorKind::Unsupported && self.starting.stable => {
                self.starting.stable = false; // an older broker
                return;
            }
            Err(failure) => return self.not_started(failure),
        };
        let now = Instant::now();
        if let Some(lasted) = self.starting.outage.record_recovery(now) {
            tracing::warn!(group = %self.context.group, "committed offsets can be fetched again, after {lasted}");
        }
        self.starting.backoff.reset();
        if asked.is_empty() {
            return; // they have gone meanwhile
        }
        let snapshot = self.context.client.cluster().snapshot();
        let from = |p: &TopicPartition| match committed.get(p) {
            Some(at) => StartPosition::Committed(at.offset, at.leader_epoch),
            None if self.known.is_new(p, &snapshot) => StartPosition::NewPartition,
            None => StartPosition::ByResetPolicy,
        };
        self.starting.leases.remove(asked.iter().map(|l| &l.partition));
        self.context.status.committed(&committed);
        self.context.events.on_assigned(asked.iter().cloned());
        self.fetcher.add(asked.into_iter().map(|l| (l.clone(), from(&l.partition))).collect());
    }

    /// The committed offsets can't be had, for now or ever.
    fn not_started(&mut self, failure: RequestFailure) {
        let now = Instant::now();
        let what = format!("fetching the committed offsets of group {:?}", self.context.group);
        let (e, code) = match failure {
            RequestFailure::Code(code) => (Error::broker(code, what), Some(code)),
            RequestFailure::Connection(e) => (e.context(what), None),
        };
        if is_final(&e) || code.is_some_and(is_final_code) {
            return self.membership.fail(e);
        }
        if let Some(lasted) = self.starting.outage.record_failure_with_grace(now, &e, COORDINATOR_MOVE_GRACE) {
            tracing::warn!(group = %self.context.group, error = %e.full(), "committed offsets can't be fetched, {lasted}; it is tried again");
        }
        if let Some(code) = code {
            self.membership.commit_refused(now, code);
        }
        self.starting.at = now + self.starting.backoff.next();
    }

    /// Tells the membership what the topics are called; and whether the group must share out anew, because they are others
    /// than when that was done.
    fn look_at_topics(&mut self) {
        if self.membership.is_modern() {
            let snapshot = self.context.client.cluster().snapshot();
            let topics = self.context.topics.iter().filter_map(|t| snapshot.topics.get(t.as_str()));
            let names = topics.filter_map(|t| Some((t.id?, Arc::clone(&t.name))));
            self.membership.learn(Instant::now(), names);
        }
        if !self.membership.leads() || self.shared.is_empty() {
            return;
        }
        let snapshot = self.context.client.cluster().snapshot();
        if let Some((topic, was)) = self.shared.iter().find(|(topic, was)| count(&snapshot, topic) != **was) {
            tracing::info!(group = %self.context.group, topic, was, is = count(&snapshot, topic), "the number of partitions has changed: the group rebalances");
            self.membership.topics_changed(Instant::now());
        }
    }

    fn end(mut self, outcome: Result<()>) {
        self.context.status.closed();
        let rest: Vec<_> = self.leases.all().map(|l| l.partition).collect();
        self.void(&rest, false, "the member has ended");
        let why = match &outcome {
            Err(e) if self.leaving.is_none() => {
                self.context.status.meter().failed("group", e.kind());
                e.clone()
            }
            _ => Error::new(ErrorKind::Closed, "the consumer is closed"),
        };
        self.context.events.close(why);
        if let Some(Leaving { reply, .. }) = self.leaving.take() {
            _ = reply.send(outcome); // whoever asked may be gone
        }
    }
}

impl Drop for CoordinatorTask {
    fn drop(&mut self) {
        self.disconnect("the consumer has ended");
        let what = format!("the consumer of group {:?} has ended", self.context.group);
        self.context.outbox.close(&Error::new(ErrorKind::Closed, what));
    }
}

async fn on<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// When the program has finished with what is drained, and so have its commits.
async fn drained(draining: Option<&Draining>, commits: &Commits) {
    match draining {
        Some(draining) if !commits.touch(&draining.partitions) => draining.done.cancelled().await,
        _ => std::future::pending().await,
    }
}

/// When one of the connections is gone; that for offsets alone does not count while the other has an answer to bring.
async fn closed(coordinator: Option<&CoordinatorConnections>, awaited: bool) {
    match coordinator {
        Some(CoordinatorConnections { group, offsets, .. }) => tokio::select! {
            () = group.closed() => {}
            () = offsets.closed(), if !awaited => {}
        },
        None => std::future::pending().await,
    }
}

/// `modern`: whether to ask for the version of ConsumerGroupHeartbeat.
async fn find(cluster: &Cluster, group: &str, modern: bool) -> Result<CoordinatorConnections> {
    let broker = cluster.coordinator(group).await?;
    let (group, offsets) = tokio::try_join!(cluster.connect(broker), cluster.connect(broker))?;
    let mut heartbeats = None;
    if modern {
        let served = group.request(api_versions_request(), cluster.config().request_timeout).await?;
        if served.error_code != 0 {
            let what = format!("asking the coordinator {} for its API versions", group.peer());
            return Err(Error::broker(served.error_code, what));
        }
        let api = served.api_keys.iter().find(|api| api.api_key == ApiKey::ConsumerGroupHeartbeat as i16);
        heartbeats = api.map(|api| api.max_version);
    }
    Ok(CoordinatorConnections { group, offsets, heartbeats })
}
