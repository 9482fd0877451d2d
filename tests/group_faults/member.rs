//! A member of the group: handles the records of its consumer and reports to the checker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{Client, Config, Consumer, ConsumerConfig, ConsumerEvent, ErrorKind, Records, TopicPartition};
use ailurus_broker::Broker;
use fastrand::Rng;
use tokio::sync::mpsc;

use super::checker::{GroupChecker, MemberNumber};
use super::handlers;
use super::plan::Plan;

pub const TOPIC: &str = "records";
pub const GROUP: &str = "members";

/// A command to a member.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    Leave,
    Crash,
    Hang(Duration),
}

/// State shared by all members of a seed.
pub struct Context {
    pub plan: Plan,
    pub broker: Broker,
    pub checker: Mutex<GroupChecker>,
}

impl Context {
    pub fn new(plan: Plan, broker: Broker) -> Self {
        let mut checker = GroupChecker::new(plan.gentle);
        // A processor does not report that the last commit before a revocation has failed.
        checker.repeats_allowed = plan.handler_ordering.is_some() && !plan.gentle;
        let checker = Mutex::new(checker);
        Self { plan, broker, checker }
    }

    pub fn checker(&self) -> MutexGuard<'_, GroupChecker> {
        self.checker.lock().unwrap()
    }

    pub fn client_config(&self) -> Config {
        Config::builder()
            .brokers(self.broker.bootstrap())
            .request_timeout(self.plan.request_timeout)
            .connect_timeout(self.plan.request_timeout)
            .retry_backoff(Duration::from_millis(5))
            .retry_backoff_max(Duration::from_millis(50))
            .metadata_max_age(Duration::from_millis(200))
            .build()
            .expect("these settings are allowed")
    }

    fn consumer_config(&self, config: &Config, number: MemberNumber) -> ConsumerConfig {
        let mut c = config.consumer.clone();
        c.session_timeout = self.plan.session_timeout;
        c.rebalance_timeout = self.plan.rebalance_timeout;
        c.heartbeat_interval = self.plan.heartbeat_interval;
        c.assignors = self.plan.assignors[number % self.plan.assignors.len()].clone();
        c.group_protocol = self.plan.protocol;
        c.group_instance_id = self.plan.static_members.then(|| format!("instance-{number}"));
        c.fetch_max_wait = Duration::from_millis(50);
        c.partition_fetch_bytes = 1 << 10; // a few records at a time
        c
    }
}

/// A running member.
struct Member {
    context: Arc<Context>,
    number: MemberNumber,
    consumer: Consumer,
    random: Rng,
    /// Offsets of the next records, for partitions with uncommitted records.
    uncommitted: HashMap<TopicPartition, i64>,
}

/// Runs a member until a command ends it; returns the error if it ended otherwise.
pub async fn run(
    context: Arc<Context>,
    number: MemberNumber,
    commands: mpsc::UnboundedReceiver<Command>,
) -> ailurus::Result<()> {
    let config = context.client_config();
    let client = until_joined(|| Client::connect(config.clone())).await?;
    let settings = context.consumer_config(&config, number);
    let outcome = match context.plan.handler_ordering {
        None => consume(context, number, &client, settings, commands).await,
        Some(ordering) => handlers::run(context, number, &client, settings, ordering, commands).await,
    };
    client.close().await;
    outcome
}

/// Retries while brokers are down or metadata has faults.
pub async fn until_joined<T, F: Future<Output = ailurus::Result<T>>>(
    mut join: impl FnMut() -> F,
) -> ailurus::Result<T> {
    loop {
        match join().await {
            Err(e) if e.is_retriable() || e.kind() == ErrorKind::Connect => {}
            outcome => return outcome,
        }
    }
}

async fn consume(
    context: Arc<Context>,
    number: MemberNumber,
    client: &Client,
    settings: ConsumerConfig,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> ailurus::Result<()> {
    let consumer = until_joined(|| client.consumer(GROUP).config(settings.clone()).subscribe([TOPIC])).await?;
    let random = Rng::with_seed(context.plan.seed ^ (number as u64) << 32);
    let mut member = Member { context, number, consumer, random, uncommitted: HashMap::new() };
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Hang(time)) => tokio::time::sleep(time).await,
                Some(Command::Crash) => break member.crash().await,
                Some(Command::Leave) | None => break member.leave().await,
            },
            event = member.consumer.recv() => match event {
                Ok(event) => member.handle_event(event).await,
                Err(e) if member.consumer.state() == ConsumerState::Closed => break Err(e),
                Err(_) => {} // transient: retried
            },
        }
    }
}

pub fn numbers(partitions: &[TopicPartition]) -> Vec<i32> {
    partitions.iter().map(|p| p.partition).collect()
}

impl Member {
    async fn handle_event(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => self.context.checker().assigned(self.number, &numbers(&partitions)),
            ConsumerEvent::Records(records) => self.handle(records).await,
            ConsumerEvent::Revoked(revocation) => {
                self.commit(|p| revocation.partitions.contains(p)).await;
                self.context.checker().revoked(self.number, &numbers(&revocation.partitions));
                drop(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                self.uncommitted.retain(|p, _| !partitions.contains(p));
                self.context.checker().lost(self.number, Some(&numbers(&partitions)));
            }
            other => panic!("{other:?}"),
        }
    }

    async fn handle(&mut self, records: Records) {
        for record in &records.records {
            let time =
                Duration::from_micros(self.random.u64(0..=self.context.plan.max_handling_time.as_micros() as u64));
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            self.context.checker().handled(self.number, records.partition, record.offset);
        }
        self.uncommitted.insert(records.topic_partition(), records.next_offset);
        if self.random.u32(0..100) < self.context.plan.commit_percent {
            self.commit(|_| true).await;
        }
    }

    /// Commits the handled records of some partitions.
    async fn commit(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        let offsets: Vec<_> = self.uncommitted.iter().filter(|(p, _)| which(p)).map(|(p, o)| (p.clone(), *o)).collect();
        self.uncommitted.retain(|p, _| !which(p));
        if offsets.is_empty() {
            return;
        }
        if self.consumer.commit(&offsets).await.is_err() {
            self.context.checker().repeats_allowed = true;
        }
    }

    async fn leave(mut self) -> ailurus::Result<()> {
        self.commit(|_| true).await;
        let owned = numbers(&self.consumer.assignment());
        self.context.checker().revoked(self.number, &owned);
        // If the group cannot be reached, it continues when the session expires.
        _ = self.consumer.close().await;
        Ok(())
    }

    async fn crash(self) -> ailurus::Result<()> {
        self.context.checker().lost(self.number, None);
        self.consumer.abort().await;
        Ok(())
    }
}
