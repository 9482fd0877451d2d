//! A member of the group: a program that handles what its consumer gives it, and says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{Client, Config, Consumer, ConsumerConfig, ConsumerEvent, ErrorKind, Records, TopicPartition};
use ailurus_broker::Broker;
use fastrand::Rng;
use tokio::sync::mpsc;

use super::handlers;
use super::plan::Plan;
use super::watch::{Number, Watch};

pub const TOPIC: &str = "records";
pub const GROUP: &str = "members";

/// What a member is told to do.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Leave,
    Die,
    Hang(Duration),
}

/// What all of a seed's members share.
pub struct World {
    pub plan: Plan,
    pub broker: Broker,
    pub watch: Mutex<Watch>,
}

impl World {
    pub fn new(plan: Plan, broker: Broker) -> Self {
        let mut watch = Watch::new(plan.gentle);
        // A processor does not tell that the last commit before a revocation has failed.
        watch.again_is_allowed = plan.handlers.is_some() && !plan.gentle;
        let watch = Mutex::new(watch);
        Self { plan, broker, watch }
    }

    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap()
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

    fn consumer_config(&self, config: &Config, number: Number) -> ConsumerConfig {
        let mut c = config.consumer.clone();
        c.session_timeout = self.plan.session_timeout;
        c.rebalance_timeout = self.plan.rebalance_timeout;
        c.heartbeat_interval = self.plan.heartbeat_interval;
        c.assignors = self.plan.assignors[number % self.plan.assignors.len()].clone();
        c.group_protocol = self.plan.protocol;
        c.group_instance_id = self.plan.fixed.then(|| format!("instance-{number}"));
        c.fetch_max_wait = Duration::from_millis(50);
        c.partition_fetch_bytes = 1 << 10; // a few records at a time
        c
    }
}

/// What a member of the group works with.
struct Member {
    world: Arc<World>,
    number: Number,
    consumer: Consumer,
    random: Rng,
    /// Handled and not committed: the offset of the next record.
    done: HashMap<TopicPartition, i64>,
}

/// Runs a member until it is told to end; the error that ended it otherwise.
pub async fn run(world: Arc<World>, number: Number, orders: mpsc::UnboundedReceiver<Order>) -> ailurus::Result<()> {
    let config = world.client_config();
    let client = until_joined(|| Client::connect(config.clone())).await?;
    let settings = world.consumer_config(&config, number);
    let outcome = match world.plan.handlers {
        None => consume(world, number, &client, settings, orders).await,
        Some(ordering) => handlers::run(world, number, &client, settings, ordering, orders).await,
    };
    client.close().await;
    outcome
}

/// Until it succeeds: brokers are down, or metadata is spoilt.
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
    world: Arc<World>,
    number: Number,
    client: &Client,
    settings: ConsumerConfig,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> ailurus::Result<()> {
    let consumer = until_joined(|| client.consumer(GROUP).config(settings.clone()).subscribe([TOPIC])).await?;
    let random = Rng::with_seed(world.plan.seed ^ (number as u64) << 32);
    let mut member = Member { world, number, consumer, random, done: HashMap::new() };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Hang(time)) => tokio::time::sleep(time).await,
                Some(Order::Die) => break member.die().await,
                Some(Order::Leave) | None => break member.leave().await,
            },
            event = member.consumer.recv() => match event {
                Ok(event) => member.on(event).await,
                Err(e) if member.consumer.state() == ConsumerState::Closed => break Err(e),
                Err(_) => {} // told once, tried again
            },
        }
    }
}

pub fn numbers(partitions: &[TopicPartition]) -> Vec<i32> {
    partitions.iter().map(|p| p.partition).collect()
}

impl Member {
    async fn on(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => self.world.watch().assigned(self.number, &numbers(&partitions)),
            ConsumerEvent::Records(records) => self.handle(records).await,
            ConsumerEvent::Revoked(revocation) => {
                self.commit(|p| revocation.partitions.contains(p)).await;
                self.world.watch().gave_up(self.number, &numbers(&revocation.partitions));
                drop(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                self.done.retain(|p, _| !partitions.contains(p));
                self.world.watch().lost(self.number, Some(&numbers(&partitions)));
            }
            other => panic!("{other:?}"),
        }
    }

    async fn handle(&mut self, records: Records) {
        for record in &records.records {
            let time = Duration::from_micros(self.random.u64(0..=self.world.plan.pace.as_micros() as u64));
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            self.world.watch().handled(self.number, records.partition, record.offset);
        }
        self.done.insert(records.topic_partition(), records.next_offset);
        if self.random.u32(0..100) < self.world.plan.commits {
            self.commit(|_| true).await;
        }
    }

    /// Commits what was handled of some partitions.
    async fn commit(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        let offsets: Vec<_> = self.done.iter().filter(|(p, _)| which(p)).map(|(p, o)| (p.clone(), *o)).collect();
        self.done.retain(|p, _| !which(p));
        if offsets.is_empty() {
            return;
        }
        if self.consumer.commit(&offsets).await.is_err() {
            self.world.watch().again_is_allowed = true;
        }
    }

    async fn leave(mut self) -> ailurus::Result<()> {
        self.commit(|_| true).await;
        let left = numbers(&self.consumer.assignment());
        self.world.watch().gave_up(self.number, &left);
        // A group that could not be told goes on when the session has expired.
        _ = self.consumer.close().await;
        Ok(())
    }

    async fn die(self) -> ailurus::Result<()> {
        self.world.watch().lost(self.number, None);
        self.consumer.abort().await;
        Ok(())
    }
}
