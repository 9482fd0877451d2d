//! Runs a seed: a cluster, producers, a reader and faults; then checks the history.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Client, Config, Consumer, ConsumerEvent, GroupProtocol, OffsetReset, ProducerRecord, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig};
use ailurus_test_support::faults::{await_closed_connections, inject_faults, listen_address};
use ailurus_test_support::seeds::{FaultCounts, block_on};
use ailurus_test_support::transaction_cluster::{
    await_quiet, committed_by_broker, read_committed, read_until, release_at_intervals,
};
use ailurus_test_support::transaction_history::{OutputId, ReaderHistory, Report, TransactionHistory};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::owner::{self, Owner, Shared, name_of, offset_of};
use super::plan::{self, Event, Plan, Release, Workload};

/// Far longer than the transaction timeout.
const TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(3);
const TOPIC: &str = "records";
const INPUTS: &str = "inputs";

pub struct Outcome {
    pub release: Release,
    pub workload: Workload,
    pub report: Report,
    pub counts: FaultCounts,
    /// Number of producers that another one, or a timeout, has fenced.
    pub fenced: usize,
    /// Problems other than the history's.
    pub other_problems: Vec<String>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.other_problems.is_empty()
    }
}

pub fn run(plan: Plan) -> Outcome {
    block_on(plan.threads, run_on(plan))
}

async fn run_on(plan: Plan) -> Outcome {
    let broker = Arc::new(start(&plan).await);
    let client = Client::connect(config(&plan, &broker)).await.expect("no fault yet");
    // What is not under test has the default timeouts, for machines that are busy.
    let observer = Config::builder().brokers(broker.bootstrap()).retry_backoff(POLL).build();
    let observer = Client::connect(observer.expect("these settings are allowed")).await.expect("no fault yet");
    let consumers = join_groups(&plan, &observer).await;
    let shared = Shared::new(plan, Arc::clone(&broker), client, observer, TOPIC);
    let planned = shared.plan.clone();
    let counts = inject_faults(&broker, move |request, index| planned.fault(request.api_key, request.node, index));

    let stop = CancellationToken::new();
    let reading = Arc::clone(&shared);
    let on_read = move |id: OutputId| *reading.last_read.lock().unwrap() = Some(id.set);
    let reader = tokio::spawn(read_until(stop.clone(), shared.observer.clone(), partitions(&shared), on_read));
    let (released, interval, stopped) = (Arc::clone(&broker), shared.plan.release_every, stop.clone());
    let releaser = tokio::spawn(async move { release_at_intervals(&released, interval, stopped).await });
    let events = tokio::spawn(run_events(Arc::clone(&shared), Arc::clone(&counts)));
    let mut ids = JoinSet::new();
    for (number, consumer) in consumers.iter().enumerate() {
        let consumer = consumer.clone().map(|consumer| (consumer, TopicPartition::new(INPUTS, 0)));
        ids.spawn(owner::run_id(Arc::clone(&shared), number, consumer));
    }
    let mut other_problems = Vec::new();
    let mut owners: Vec<Owner> = Vec::new();
    let all = async {
        while let Some(done) = ids.join_next().await {
            owners.extend(done.expect("an id does not panic"));
        }
    };
    if timeout(TIMEOUT, all).await.is_err() {
        other_problems.push("not all producers have done their transactions".to_owned());
    }
    ids.shutdown().await;
    events.await.expect("events happen");
    // No more faults: what is not known yet is learned now.
    broker.clear_hook();
    let mut history = TransactionHistory::default();
    let fenced = close_producers(owners, &mut history, &mut other_problems).await;
    let groups: Vec<_> = (0..shared.plan.ids.len()).map(name_of).collect();
    await_quiet(&broker, &partitions(&shared), &groups, 5 * shared.plan.transaction_timeout, &mut history).await;
    stop.cancel();
    releaser.await.expect("requests are released");
    history.readers.push(reader.await.expect("a reader reads"));
    read_log(&shared, &mut history).await;
    read_offsets(&shared, &consumers, &mut history);
    for consumer in consumers.into_iter().flatten() {
        let consumer = Arc::into_inner(consumer).expect("its producers have ended");
        consumer.abort().await;
    }
    shared.client.clone().close().await;
    shared.observer.clone().close().await;
    other_problems.extend(await_closed_connections(&broker, TIMEOUT).await.err());
    let counts = counts.lock().unwrap().clone();
    let report = history.check();
    let Plan { release, workload, .. } = shared.plan;
    drop(shared);
    if let Some(broker) = Arc::into_inner(broker) {
        broker.shutdown().await;
    }
    Outcome { release, workload, report, counts, fenced, other_problems }
}

async fn start(plan: &Plan) -> Broker {
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(listen_address(3, plan.seed))
        .default_replication(plan.replicas)
        .auto_create(false)
        .coordinator_load_time(plan.load_time)
        .persist_last_epoch(plan.persists_last_epoch);
    let broker = plan.release.start(config).await;
    broker.create_topic(TOPIC, plan.partitions).expect("a new topic");
    broker.create_topic(INPUTS, 1).expect("a new topic");
    broker
}

fn config(plan: &Plan, broker: &Broker) -> Config {
    Config::builder()
        .brokers(broker.bootstrap())
        .request_timeout(plan.request_timeout)
        .connect_timeout(plan.request_timeout)
        .retry_backoff(plan.retry_backoff)
        .retry_backoff_max(plan.retry_backoff * 5)
        .build()
        .expect("these settings are allowed")
}

/// Starts a member of the group of each id that has one, and waits until it is assigned the input.
async fn join_groups(plan: &Plan, client: &Client) -> Vec<Option<Arc<Consumer>>> {
    let producer = client.producer().start().expect("these settings are allowed");
    producer.send(ProducerRecord::to(INPUTS).value("input")).await.expect("a topic").await.expect("no fault yet");
    producer.close(TIMEOUT).await.expect("nothing is pending");
    let mut consumers = Vec::new();
    for (number, id) in plan.ids.iter().enumerate() {
        consumers.push(match id.group {
            Some(protocol) => Some(Arc::new(join(client, number, protocol).await)),
            None => None,
        });
    }
    consumers
}

async fn join(client: &Client, number: usize, protocol: GroupProtocol) -> Consumer {
    let mut config = client.config().consumer.clone();
    config.group_protocol = protocol;
    config.offset_reset = OffsetReset::Earliest;
    let consumer = client.consumer(name_of(number).as_str()).config(config).subscribe([INPUTS]).await;
    let mut consumer = consumer.expect("no fault yet");
    loop {
        let event = timeout(TIMEOUT, consumer.recv()).await.expect("the input comes").expect("no fault yet");
        if matches!(event, ConsumerEvent::Records(batch) if !batch.records.is_empty()) {
            return consumer;
        }
    }
}

/// Moves leaders and coordinators, and changes the version of transactions.
async fn run_events(shared: Arc<Shared>, counts: Arc<Mutex<FaultCounts>>) {
    let started = Instant::now();
    for &(at, event) in &shared.plan.events {
        tokio::time::sleep_until(started + at).await;
        let broker = &shared.broker;
        let name = match event {
            Event::MoveLeader { partition, node } => {
                broker.move_leader(TOPIC, partition, node).expect("they exist");
                "leader moved"
            }
            Event::MoveCoordinator { id, node } => {
                broker.move_transaction_coordinator(&name_of(id), node).expect("it exists");
                "coordinator moved"
            }
            Event::MoveGroupCoordinator { id, node } => {
                broker.move_coordinator(&name_of(id), node).expect("it exists");
                "group coordinator moved"
            }
            Event::SetVersion(level) => {
                assert!(broker.set_transaction_version(level));
                "version changed"
            }
        };
        *counts.lock().unwrap().entry(name.into()).or_default() += 1;
    }
}

/// Closes the producers after what was unknown is known; returns how many were fenced.
async fn close_producers(
    owners: Vec<Owner>,
    history: &mut TransactionHistory,
    other_problems: &mut Vec<String>,
) -> usize {
    let mut fenced = 0;
    for mut owner in owners {
        owner.resolve().await;
        fenced += usize::from(owner.fenced);
        if let Err(error) = owner.close(history, TIMEOUT).await {
            other_problems.push(format!("close: {error:#}"));
        }
    }
    fenced
}

fn partitions(shared: &Shared) -> Vec<TopicPartition> {
    (0..shared.plan.partitions).map(|p| TopicPartition::new(TOPIC, p)).collect()
}

/// Has two fresh readers of committed records read everything, and adds what the broker knows.
async fn read_log(shared: &Shared, history: &mut TransactionHistory) {
    let partitions = partitions(shared);
    let mut second = ReaderHistory::default();
    for seen in [&mut history.log, &mut second] {
        read_committed(&shared.observer, &partitions, |batch| _ = seen.read_batch(batch)).await;
    }
    history.readers.extend([second, committed_by_broker(&shared.broker, &partitions)]);
}

fn read_offsets(shared: &Shared, consumers: &[Option<Arc<Consumer>>], history: &mut TransactionHistory) {
    for (number, _) in consumers.iter().enumerate().filter(|(_, consumer)| consumer.is_some()) {
        let committed = shared.broker.committed_offset(&name_of(number), INPUTS, 0);
        history.committed_offset(&offset_of(number), committed);
    }
}
