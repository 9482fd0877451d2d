//! Drives a [`Membership`]: one task with a connection to the group's coordinator that belongs to it alone.
//!
//! The connection is not shared, because a broker serves one request of a connection at a time and may park a JoinGroup for as
//! long as the other members take to come. Commits use it too: they are quick, they are only sent while partitions are ours
//! (when no JoinGroup is parked), and standing in front of the JoinGroup in the same connection they are served before it, in
//! the generation they belong to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fetcher::{Assignment, Fetcher};
use super::inbox::Inbox;
use super::leader::{Counts, count, share_out};
use super::membership::Membership;
use super::offsets::{
    Codes, Commit, Commits, Offset, OffsetAndMetadata, commit_answer, commit_request, committed_answer,
    committed_request,
};
use super::protocol::{
    Action, Failure, Joined, Settings, beat, heartbeat_request, join_request, joined, leave_request, left,
    sync_request, synced,
};
use super::status::Status;
use super::{StartOffset, start};
use crate::cluster::{Backoff, Client, Cluster};
use crate::config::ConsumerConfig;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::record::TopicPartition;
use crate::wire::{Api, Connection};

/// Start offsets that wait to be committed.
const PINS: usize = 1024;

/// What the front asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Commit in the name of an assignment.
    Commit {
        epoch: u64,
        commit: Commit,
    },
    Leave(oneshot::Sender<Result<()>>),
}

/// What a request has brought.
enum Answer {
    Found(Result<Connection>),
    Joined(Result<Joined, (Failure, String)>),
    Shared(Counts, Vec<(String, Bytes)>),
    Synced(Result<Vec<TopicPartition>, Failure>),
    Beat(Result<(), Failure>),
    Left(Result<(), Failure>),
}

/// Partitions that are ours but whose committed offsets are not known yet.
struct Starting {
    partitions: Vec<TopicPartition>,
    /// Not asked for before.
    at: Instant,
    backoff: Backoff,
    /// Whether to wait for transactions; brokers from 2.5 on can.
    stable: bool,
}

/// What a member works with.
pub(crate) struct Shell {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) group: String,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) status: Arc<Status>,
    pub(crate) tasks: TaskTracker,
}

/// See the module's text.
pub(crate) struct Group {
    shell: Shell,
    commands: mpsc::Receiver<Command>,
    /// Start offsets to commit, from the fetchers.
    pins: mpsc::Receiver<(u64, Offset)>,
    pinning: mpsc::Sender<(u64, Offset)>,
    membership: Membership,
    connection: Option<Connection>,
    /// The membership's request under way.
    request: Option<BoxFuture<'static, Answer>>,
    /// Counts assignments; what is of another one than the present is void.
    epoch: u64,
    fetcher: Option<Fetcher>,
    draining: Option<CancellationToken>,
    starting: Option<Starting>,
    fetching_committed: Option<BoxFuture<'static, Result<HashMap<TopicPartition, OffsetAndMetadata>, Failure>>>,
    commits: Commits,
    committing: Option<BoxFuture<'static, (Vec<Offset>, Result<Codes>)>>,
    /// What was shared out, if we lead.
    shared: Counts,
    leaving: Option<oneshot::Sender<Result<()>>>,
}

impl Group {
    pub(crate) fn new(shell: Shell, commands: mpsc::Receiver<Command>) -> Self {
        let (pinning, pins) = mpsc::channel(PINS);
        let settings = Settings::new(&shell.group, &shell.config, shell.client.config());
        Self {
            membership: Membership::new(settings, Instant::now()),
            commits: Commits::new(&shell.group, shell.client.cluster().backoff()),
            commands,
            pins,
            pinning,
            connection: None,
            request: None,
            epoch: 0,
            fetcher: None,
            draining: None,
            starting: None,
            fetching_committed: None,
            committing: None,
            shared: Counts::new(),
            leaving: None,
            shell,
        }
    }

    /// Until it has left the group or met with an error that can't be mended.
    pub(crate) async fn run(mut self) {
        let mut updated = self.shell.client.cluster().updated();
        loop {
            while let Some(action) = self.membership.next_action() {
                if let Some(outcome) = self.act(action) {
                    return self.end(outcome);
                }
            }
            self.look_after_offsets();
            let deadline = self.deadline();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return, // the front is gone: so are we, as a crash would have it
                },
                answer = on(&mut self.request) => {
                    self.request = None;
                    self.answer(answer);
                }
                committed = on(&mut self.fetching_committed) => {
                    self.fetching_committed = None;
                    self.start_reading(committed);
                }
                (offsets, outcome) = on(&mut self.committing) => {
                    self.committing = None;
                    self.committed(offsets, outcome);
                }
                Some((epoch, offset)) = self.pins.recv() => self.pin(epoch, offset),
                () = drained(self.draining.as_ref()) => {
                    self.draining = None;
                    self.membership.drained(Instant::now());
                }
                () = closed(self.connection.as_ref()) => {
                    self.connection = None;
                    self.membership.disconnected(Instant::now());
                }
                Ok(()) = updated.changed() => self.look_at_topics(),
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.commits.expire(Instant::now());
                    self.membership.tick(Instant::now());
                }
            }
        }
    }

    /// When there is something to do without an answer or a command.
    fn deadline(&self) -> Instant {
        let connected = self.connection.is_some() && self.membership.has_coordinator();
        let starting = self.starting.as_ref().filter(|_| connected && self.fetching_committed.is_none()).map(|s| s.at);
        let commit = self.commits.retry_at().filter(|_| connected && self.committing.is_none());
        let all = [self.membership.deadline(), self.commits.expiry(), starting, commit];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Commit { epoch, commit } => match self.not_ours(epoch, &commit) {
                None => self.commits.push(commit),
                Some(e) => commit.end(Err(e)),
            },
            Command::Leave(reply) => {
                self.fetcher = None;
                self.leaving = Some(reply);
                self.membership.leave(Instant::now());
            }
        }
    }

    /// Why a commit must not be made, if so.
    fn not_ours(&self, epoch: u64, commit: &Commit) -> Option<Error> {
        let assigned = self.shell.status.assignment();
        let foreign = |(p, _): &&Offset| epoch != self.epoch || !assigned.contains(p);
        let (p, offset) = commit.offsets.iter().find(foreign)?;
        let what = format!(
            "offset {} of {p} was not committed: the partition is not, or no longer, assigned to this member of group {:?}",
            offset.offset, self.shell.group
        );
        Some(Error::new(ErrorKind::GroupMembership, what))
    }

    /// The end of a log is where this group starts: without a commit, records that come before its first commit would be
    /// skipped by the next owner, who would start at the end as it is then.
    fn pin(&mut self, epoch: u64, offset: Offset) {
        if epoch == self.epoch {
            let deadline = Instant::now() + self.shell.client.config().request_timeout;
            self.commits.push(Commit { offsets: vec![offset], deadline, reply: None });
        }
    }

    /// Carries out what the membership asks for; gives the outcome when it is over.
    fn act(&mut self, action: Action) -> Option<Result<()>> {
        match action {
            Action::Find => {
                if let Some(connection) = self.connection.take() {
                    connection.kill("the coordinator is looked up anew"); // a parked JoinGroup would keep it open
                }
                let (cluster, id) = (Arc::clone(self.shell.client.cluster()), self.shell.group.clone());
                self.request = Some(async move { Answer::Found(find(&cluster, &id).await) }.boxed());
            }
            Action::Join { member_id, timeout } => {
                self.shell.status.joining();
                match join_request(&self.shell.group, member_id, &self.shell.topics, &self.shell.config) {
                    Ok(request) => self.send(request, timeout, |r| {
                        Answer::Joined(r.map_err(|failure| (failure, String::new())).and_then(joined))
                    }),
                    Err(e) => self.membership.fail(e),
                }
            }
            Action::Assign { members, assignor } => {
                let (client, topics) = (self.shell.client.clone(), self.shell.topics.clone());
                let sharing = async move {
                    let (counts, shares) = share_out(&client, &topics, &members, assignor).await;
                    Answer::Shared(counts, shares)
                };
                self.request = Some(sharing.boxed());
            }
            Action::Sync { generation, member_id, protocol, shares } => {
                let request = sync_request(&self.shell.group, generation, member_id, protocol, shares);
                // Parked until the leader has shared out, or the group has found out that it never will.
                let timeout = self.shell.config.rebalance_timeout + self.shell.client.config().request_timeout;
                self.send(request, timeout, |r| Answer::Synced(r.and_then(|r| synced(&r))));
            }
            Action::Heartbeat { generation, member_id, timeout } => {
                let request = heartbeat_request(&self.shell.group, generation, member_id);
                self.send(request, timeout, |r| Answer::Beat(r.and_then(|r| beat(&r))));
            }
            Action::Leave { member_id, timeout } => {
                let request = leave_request(&self.shell.group, member_id);
                self.send(request, timeout, |r| Answer::Left(r.and_then(|r| left(&r))));
            }
            Action::Assigned { generation, partitions } => self.assigned(generation, partitions),
            Action::Revoke { partitions, deadline } => {
                self.fetcher = None;
                let token = CancellationToken::new();
                self.draining = Some(token.clone());
                if self.starting.take().is_some() {
                    // The program has not been told of them.
                    token.cancel();
                } else {
                    self.shell.inbox.revoke(partitions, deadline, token);
                }
            }
            Action::GaveUp => {
                self.void("they were given up for a rebalance of the group");
                self.shell.inbox.gave_up();
            }
            Action::Lost(partitions) => {
                let told = self.starting.is_none();
                self.void("the group has taken them from this member");
                if told {
                    self.shell.inbox.lost(partitions);
                }
            }
            Action::End(outcome) => return Some(outcome),
        }
        None
    }

    /// Nothing of the present assignment counts any more.
    fn void(&mut self, why: &str) {
        self.epoch += 1;
        self.fetcher = None;
        self.draining = None;
        self.starting = None;
        self.fetching_committed = None;
        self.shared.clear();
        self.shell.status.joining();
        let what = format!("partitions of group {:?} are no longer ours: {why}", self.shell.group);
        self.commits.fail(&Error::new(ErrorKind::GroupMembership, what));
    }

    /// Sends a request in place of the one under way.
    fn send<A: Api>(
        &mut self,
        request: A,
        timeout: Duration,
        answer: impl FnOnce(Result<A::Response, Failure>) -> Answer + Send + 'static,
    ) {
        let pending = match &self.connection {
            Some(connection) => Ok(connection.submit(request, tokio::time::Instant::now() + timeout)),
            None => Err(Error::new(ErrorKind::Disconnected, "the connection to the coordinator is gone")),
        };
        let outcome = async move {
            let response = match pending {
                Ok(pending) => pending.await,
                Err(e) => Err(e),
            };
            answer(response.map_err(Failure::Connection))
        };
        self.request = Some(outcome.boxed());
    }

    fn answer(&mut self, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Found(Ok(connection)) => {
                tracing::debug!(group = %self.shell.group, coordinator = connection.peer(), "connected to the coordinator");
                self.connection = Some(connection);
                self.membership.found(now, Ok(()));
            }
            Answer::Found(Err(e)) => self.membership.found(now, Err(e)),
            Answer::Joined(outcome) => self.membership.joined(now, outcome),
            Answer::Shared(counts, shares) => {
                self.shared = counts;
                self.membership.shared(now, shares);
            }
            Answer::Synced(outcome) => self.membership.synced(now, outcome),
            Answer::Beat(outcome) => self.membership.beat(now, outcome),
            Answer::Left(outcome) => self.membership.left(now, outcome),
        }
    }

    fn assigned(&mut self, generation: i32, partitions: Vec<TopicPartition>) {
        self.epoch += 1;
        self.shell.status.member(self.membership.member_id(), generation, &partitions);
        tracing::info!(group = %self.shell.group, generation, partitions = partitions.len(), "joined the group");
        let backoff = self.shell.client.cluster().backoff();
        self.starting = Some(Starting { partitions, at: Instant::now(), backoff, stable: true });
        self.look_at_topics();
    }

    /// Sends what waits to be sent of commits and of questions for them.
    fn look_after_offsets(&mut self) {
        let known = self.membership.has_coordinator();
        let Some(connection) = self.connection.as_ref().filter(|_| known) else { return };
        let now = Instant::now();
        let timeout = self.shell.client.config().request_timeout;
        if self.fetching_committed.is_none() {
            if let Some(starting) = self.starting.as_ref().filter(|s| now >= s.at) {
                if starting.partitions.is_empty() {
                    self.fetching_committed = Some(futures_util::future::ready(Ok(HashMap::new())).boxed());
                } else {
                    let request = committed_request(&self.shell.group, &starting.partitions, starting.stable);
                    let pending = connection.submit(request, (now + timeout).into());
                    let answer = async move {
                        let answer = pending.await.map_err(Failure::Connection)?;
                        committed_answer(&answer).map_err(Failure::Code)
                    };
                    self.fetching_committed = Some(answer.boxed());
                }
            }
        }
        if self.membership.is_member() && self.committing.is_none() {
            if let Some(offsets) = self.commits.next(now) {
                let (member_id, generation) = (self.membership.member_id(), self.membership.generation());
                let request = commit_request(&self.shell.group, member_id, generation, &offsets);
                let pending = connection.submit(request, (now + timeout).into());
                let answer = async move { (offsets, pending.await.map(|r| commit_answer(&r))) };
                self.committing = Some(answer.boxed());
            }
        }
    }

    /// The committed offsets are known: the program is told of the assignment, and reading begins.
    fn start_reading(&mut self, committed: Result<HashMap<TopicPartition, OffsetAndMetadata>, Failure>) {
        let Some(mut starting) = self.starting.take() else { return };
        let committed = match committed {
            Ok(committed) => committed,
            Err(failure) => {
                match failure {
                    Failure::Connection(e) if e.kind() == ErrorKind::Unsupported && starting.stable => {
                        starting.stable = false; // an older broker
                        self.starting = Some(starting);
                        return;
                    }
                    Failure::Code(code) if !is_retriable_code(code) => {
                        let what = format!("fetching the committed offsets of group {:?}", self.shell.group);
                        return self.membership.fail(Error::broker(code, what));
                    }
                    Failure::Code(code) => self.membership.commit_refused(Instant::now(), code),
                    Failure::Connection(e) => {
                        tracing::warn!(group = %self.shell.group, error = %e.full(), "committed offsets could not be fetched; it is tried again");
                    }
                }
                starting.at = Instant::now() + starting.backoff.next();
                self.starting = Some(starting);
                return;
            }
        };
        let reset = start(self.shell.config.offset_reset);
        let from = |p: &TopicPartition| committed.get(p).map_or(reset, |at| StartOffset::Offset(at.offset));
        let partitions = starting.partitions.iter().map(|p| (p.clone(), from(p))).collect();
        self.shell.status.committed(&committed);
        self.shell.inbox.assigned(self.epoch, starting.partitions);
        let assignment = Assignment { epoch: self.epoch, partitions, pins: Some(self.pinning.clone()) };
        self.fetcher = Some(Fetcher::start(
            &self.shell.client,
            &self.shell.config,
            &self.shell.inbox,
            &self.shell.tasks,
            assignment,
        ));
    }

    fn committed(&mut self, offsets: Vec<Offset>, outcome: Result<Codes>) {
        if let Ok(codes) = &outcome {
            let taken = |(p, _): &Offset| codes.get(p) == Some(&0);
            self.shell.status.committed(&offsets.into_iter().filter(taken).collect());
        }
        let now = Instant::now();
        if let Some(code) = self.commits.answered(now, outcome) {
            self.membership.commit_refused(now, code);
        }
    }

    /// Whether the group must share out anew, because its topics are others than when that was done.
    fn look_at_topics(&mut self) {
        if !self.membership.leads() || self.shared.is_empty() {
            return;
        }
        let snapshot = self.shell.client.cluster().snapshot();
        if let Some((topic, was)) = self.shared.iter().find(|(topic, was)| count(&snapshot, topic) != **was) {
            tracing::info!(group = %self.shell.group, topic, was, is = count(&snapshot, topic), "the number of partitions has changed: the group rebalances");
            self.membership.topics_changed(Instant::now());
        }
    }

    fn end(mut self, outcome: Result<()>) {
        self.void("the member has ended");
        self.shell.status.closed();
        let why = match &outcome {
            Err(e) if self.leaving.is_none() => e.clone(),
            _ => Error::new(ErrorKind::Closed, "the consumer is closed"),
        };
        self.shell.inbox.end(why);
        if let Some(reply) = self.leaving.take() {
            _ = reply.send(outcome); // whoever asked may be gone
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A parked JoinGroup would keep it open.
        if let Some(connection) = &self.connection {
            connection.kill("the consumer has ended");
        }
    }
}

async fn on<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn drained(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn closed(connection: Option<&Connection>) {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}

async fn find(cluster: &Cluster, group: &str) -> Result<Connection> {
    let broker = cluster.coordinator(group).await?;
    cluster.connect(broker).await
}
