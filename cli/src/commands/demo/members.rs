//! The consumers of a run: members of two groups that join and are killed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{Client, Config, ConsumerConfig, Message, Subscription};
use anyhow::{Context, bail};
use tokio::time::Instant;

use super::history::{Handling, History};
use super::plan::{Names, PARTITIONS, Plan, Stream};
use crate::progress::Progress;

/// State of a run, for publisher and handlers.
pub struct Run {
    pub plan: Plan,
    pub begun: Instant,
    pub progress: Progress,
    history: Mutex<History>,
}

impl Run {
    pub fn new(orders: u32) -> Self {
        let plan = Plan::new(orders);
        let history = Mutex::new(History::new(plan.keys_and_places()));
        let progress = Progress::new("events handled", Some(plan.len() as u64));
        Self { plan, begun: Instant::now(), progress, history }
    }

    pub fn history<T>(&self, f: impl FnOnce(&mut History) -> T) -> T {
        // Each call leaves the history consistent, also after a panic elsewhere.
        f(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the time since the first event was sent.
    pub fn since_first(&self) -> Duration {
        let first = self.history(|h| h.begun());
        self.begun.elapsed().saturating_sub(first.unwrap_or_default())
    }

    fn handle(&self, member: u32, stream: Stream, message: &Message) -> anyhow::Result<()> {
        let event = self.plan.recognise(message)?;
        let partition = message.partition as u32 + if stream == Stream::Stock { PARTITIONS as u32 } else { 0 };
        let at = self.begun.elapsed();
        let handled = self.history(|h| {
            h.handled(Handling { event, member, partition, offset: message.offset, at });
            h.handled_so_far()
        });
        if handled.is_multiple_of(1000) {
            self.progress.set(handled);
        }
        Ok(())
    }
}

/// Figures of a member that has ended.
#[derive(Debug, Clone, Copy)]
struct Past {
    id: u32,
    stream: Stream,
    assignments: u64,
    dead_letters: u64,
}

/// A member of a group, with connections of its own, as in a process of its own.
struct Member {
    id: u32,
    client: Client,
    subscription: Subscription,
}

/// All members, running and ended.
pub struct Members {
    config: Config,
    consumer: ConsumerConfig,
    names: Names,
    alive: Vec<(Stream, Member)>,
    past: Vec<Past>,
    next_id: u32,
}

impl Members {
    pub fn new(config: Config, consumer: ConsumerConfig, names: Names) -> Self {
        Self { config, consumer, names, alive: Vec::new(), past: Vec::new(), next_id: 1 }
    }

    /// Adds a member to the group that reads `stream`.
    pub async fn add(&mut self, run: &Arc<Run>, stream: Stream) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let client = Client::connect(self.config.clone()).await?;
        let (run, topic) = (Arc::clone(run), self.names.topic(stream));
        let subscription = client
            .processor(self.names.group(stream))
            .consumer_config(self.consumer.clone())
            .subscribe([&topic], move |message: Message| {
                let run = Arc::clone(&run);
                async move { run.handle(id, stream, &message) }
            })
            .await
            .with_context(|| format!("subscribing to {topic}"))?;
        self.alive.push((stream, Member { id, client, subscription }));
        Ok(())
    }

    /// Kills the oldest member of the group that reads `stream`, as a crash would.
    pub async fn kill(&mut self, stream: Stream) {
        if let Some(at) = self.alive.iter().position(|(s, _)| *s == stream) {
            let (stream, Member { id, client, subscription }) = self.alive.remove(at);
            let stats = subscription.stats();
            subscription.abort().await;
            client.close().await;
            self.past.push(Past { id, stream, assignments: stats.rebalances, dead_letters: stats.dead_letters });
        }
    }

    /// Kills all members as a crash would.
    pub async fn kill_all(&mut self) {
        while let Some(&(stream, _)) = self.alive.first() {
            self.kill(stream).await;
        }
    }

    /// Waits until every member has joined its group and all partitions are assigned; fails if a member has ended.
    pub async fn settle(&self) -> anyhow::Result<()> {
        loop {
            let health: Vec<_> = self.alive.iter().map(|(stream, m)| (*stream, m, m.subscription.health())).collect();
            if let Some((_, member, _)) = health.iter().find(|(.., h)| h.state == ConsumerState::Closed) {
                member.subscription.ended().await.with_context(|| format!("member {}", member.id))?;
                bail!("member {} has ended by itself", member.id);
            }
            let of = |stream| health.iter().filter(move |(s, ..)| *s == stream);
            let owned = |stream| -> usize { of(stream).map(|(.., h)| h.partitions.len()).sum() };
            let all_owned = [Stream::Orders, Stream::Stock].map(owned) == [PARTITIONS as usize; 2];
            if all_owned && health.iter().all(|(.., h)| h.state == ConsumerState::Member) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Shuts all members down and waits for them.
    pub async fn close(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for (stream, Member { id, client, subscription }) in self.alive.drain(..) {
            let stats = subscription.stats();
            self.past.push(Past { id, stream, assignments: stats.rebalances, dead_letters: stats.dead_letters });
            if let Err(e) = subscription.shutdown().await {
                result = result.and(Err(anyhow::Error::new(e).context(format!("member {id} did not end in order"))));
            }
            client.close().await;
        }
        result
    }

    /// Returns the number of assignments of a member that has ended.
    pub fn assignments(&self, member: u32) -> u64 {
        self.past.iter().find(|p| p.id == member).map_or(0, |p| p.assignments)
    }

    /// Returns the number of rebalances of both groups, each as counted by the member with the most.
    pub fn rebalances(&self) -> u64 {
        let of = |stream| self.past.iter().filter(|p| p.stream == stream).map(|p| p.assignments).max();
        [Stream::Orders, Stream::Stock].into_iter().filter_map(of).sum()
    }

    /// Returns the number of dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.past.iter().map(|p| p.dead_letters).sum()
    }
}
