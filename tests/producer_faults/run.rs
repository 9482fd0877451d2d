//! Runs a seed: a cluster, a producer and faults; then checks the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Acknowledgement, Client, Compression, Config, Delivery, Error, Producer, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};
use ailurus_test_support::faults::{await_closed_connections, inject_faults, listen_address};
use ailurus_test_support::history::{Guarantee, History, RecordId, RecordStatus, Report};
use ailurus_test_support::seeds::{FaultCounts, block_on};
use fastrand::Rng;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::plan::{self, Ending, Event, Plan, Stream, Target};
use super::support;

/// Far longer than the delivery timeout.
const TIMEOUT: Duration = Duration::from_secs(300);
/// With a full buffer `send` waits: the rest of a stream is skipped after this time.
const SEND_TIME_LIMIT: Duration = Duration::from_secs(2);
const TOPIC: &str = "records";

pub struct Outcome {
    pub report: Report,
    pub counts: FaultCounts,
    /// Number of records rejected by `send`.
    pub rejected_by_send: usize,
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
    let plan = Arc::new(plan);
    let broker = Arc::new(start(&plan).await);
    let client = Client::connect(config(&plan, &broker)).await.expect("no fault yet");
    let mut settings = client.config().producer.clone();
    settings.linger = plan.linger;
    settings.batch_size = plan.batch_size;
    settings.buffer_memory = plan.buffer_memory;
    settings.delivery_timeout = plan.delivery_timeout;
    let (planned, started) = (Arc::clone(&plan), Instant::now());
    let counts = inject_faults(&broker, move |request, index| {
        planned.fault(request.api_key, request.node, index, started.elapsed())
    });
    let producer = client.producer().config(settings).start().expect("these settings are allowed");

    let events = tokio::spawn(run_events(Arc::clone(&broker), Arc::clone(&plan), Arc::clone(&counts)));
    let (sent, rejected_by_send) = send_all(&plan, &producer).await;
    let mut other_problems = Vec::new();
    let mut history = History::default();
    close_producer(&plan, producer, sent, &mut history, &mut other_problems).await;
    events.await.expect("events happen");
    client.close().await;
    other_problems.extend(await_closed_connections(&broker, TIMEOUT).await.err());
    let guarantee = read(&plan, &broker, &mut history);
    let report = history.check(guarantee);
    let counts = counts.lock().unwrap().clone();
    Arc::into_inner(broker).expect("the only one").shutdown().await;
    Outcome { report, counts, rejected_by_send, other_problems }
}

async fn start(plan: &Plan) -> Broker {
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(listen_address(1, plan.seed))
        .default_replication(plan.replicas)
        .auto_create(false)
        .versions(support::embedded_versions());
    let broker = Broker::start(config).await.expect("the embedded broker starts");
    let min_in_sync = plan.min_in_sync.to_string();
    broker.create_topic_with(TOPIC, plan.partitions, &[("min.insync.replicas", &min_in_sync)]).expect("a new topic");
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

/// Moves leaders, and stops and starts nodes.
async fn run_events(broker: Arc<Broker>, plan: Arc<Plan>, counts: Arc<Mutex<FaultCounts>>) {
    let started = Instant::now();
    for &(at, event) in &plan.events {
        tokio::time::sleep_until(started + at).await;
        let name = match event {
            Event::Move { partition, node } => {
                broker.move_leader(TOPIC, partition, node).expect("they exist");
                "leader moved"
            }
            Event::Stop(node) => {
                broker.stop_node(node).await.expect("it exists");
                "node stopped"
            }
            Event::Start(node) => {
                broker.start_node(node).await.expect("its port is free");
                "node started"
            }
            Event::StopAll => {
                for node in 0..i32::from(plan::NODES) {
                    broker.stop_node(node).await.expect("it exists");
                }
                "all nodes stopped"
            }
            Event::StartAll => {
                for node in 0..i32::from(plan::NODES) {
                    broker.start_node(node).await.expect("its port is free");
                }
                "all nodes started"
            }
        };
        *counts.lock().unwrap().entry(name.into()).or_default() += 1;
    }
}

/// A sent record: its delivery, or its result already.
type Sent = (RecordId, Result<Delivery, SendResult>);
/// Result of a record; `None` if its delivery did not resolve.
type SendResult = Option<Result<Acknowledgement, Error>>;

/// Sends all streams, their records mixed; returns the number of records rejected by `send` too.
async fn send_all(plan: &Plan, producer: &Producer) -> (Vec<Sent>, usize) {
    let mut random = Rng::with_seed(plan.seed);
    let mut unfinished: Vec<(u32, &Stream, u32)> = (0..).zip(&plan.streams).map(|(i, s)| (i, s, 0)).collect();
    let (mut results, mut rejected_by_send) = (Vec::new(), 0);
    let mut pending: VecDeque<(RecordId, Delivery)> = VecDeque::new();
    let (started, mut sent_count) = (Instant::now(), 0);
    while !unfinished.is_empty() && started.elapsed() < SEND_TIME_LIMIT {
        let index = random.usize(..unfinished.len());
        let (number, stream, sequence) = &mut unfinished[index];
        let id = RecordId { stream: *number, sequence: *sequence };
        *sequence += 1;
        let size = random.usize(..=stream.size);
        match send(producer, id, stream, size, random.u32(0..100) < stream.gzip).await {
            Ok(delivery) => pending.push_back((id, delivery)),
            Err(error) => {
                rejected_by_send += 1;
                results.push((id, Err(Some(Err(error)))));
            }
        }
        if *sequence == stream.records {
            unfinished.swap_remove(index);
        }
        if pending.len() > plan.max_pending {
            let (id, delivery) = pending.pop_front().expect("there is one");
            results.push((id, Err(await_delivery(delivery).await)));
        }
        sent_count += 1;
        if sent_count % plan.burst == 0 {
            tokio::time::sleep(plan.pause).await;
        }
    }
    results.extend(pending.into_iter().map(|(id, delivery)| (id, Ok(delivery))));
    (results, rejected_by_send)
}

async fn send(
    producer: &Producer,
    id: RecordId,
    stream: &Stream,
    size: usize,
    gzip: bool,
) -> ailurus::Result<Delivery> {
    let (key, value) = (format!("key-{}", id.stream), id.value(size));
    let mut record = ProducerRecord::to(TOPIC).value(&value);
    match stream.target {
        Target::Partition(partition) => record = record.partition(partition),
        Target::Key => record = record.key(&key),
        Target::Any => {}
    }
    if gzip {
        record = record.compression(Compression::Gzip { level: 1 });
    }
    producer.send(record).await
}

async fn await_delivery(delivery: Delivery) -> SendResult {
    timeout(TIMEOUT, delivery).await.ok()
}

fn record_result(history: &mut History, id: RecordId, result: &SendResult) -> RecordStatus {
    let status = result.as_ref().map_or(RecordStatus::Unresolved, RecordStatus::of);
    history.sent(id, status);
    if let Some(Err(error)) = result {
        history.failed(id, error);
    }
    status
}

/// Ends the producer as planned and records the results.
async fn close_producer(
    plan: &Plan,
    producer: Producer,
    sent: Vec<Sent>,
    history: &mut History,
    other_problems: &mut Vec<String>,
) {
    let mut pending = Vec::new();
    let mut indeterminate = false;
    for (id, handle) in sent {
        let result = match handle {
            Err(result) => result,
            Ok(delivery) if plan.ending == Ending::Await => await_delivery(delivery).await,
            Ok(delivery) => {
                pending.push((id, delivery));
                continue;
            }
        };
        indeterminate |= record_result(history, id, &result) == RecordStatus::Indeterminate;
    }
    match plan.ending {
        Ending::Await => {
            // An indeterminate record keeps its buffer until the broker responds.
            if !indeterminate && producer.buffered_bytes() > 0 {
                other_problems.push(format!("{} bytes of the buffer are still in use", producer.buffered_bytes()));
            }
            if let Err(error) = producer.close(TIMEOUT).await {
                other_problems.push(format!("close: {error}"));
            }
        }
        Ending::Close => {
            if let Err(error) = producer.close(TIMEOUT).await {
                other_problems.push(format!("close: {error}"));
            }
        }
        // Deliveries report the records that were not sent.
        Ending::CloseWithin(time) => drop(producer.close(time).await),
        Ending::Drop => drop(producer),
    }
    for (id, delivery) in pending {
        let result = match plan.ending {
            // Dropping does not wait for the tasks: one may be about to resolve a delivery.
            Ending::Drop => await_delivery(delivery).await,
            _ => delivery.now_or_never(),
        };
        record_result(history, id, &result);
    }
}

/// Reads the log and returns the guarantee to check: exactly once if all records have a producer
/// id.
fn read(plan: &Plan, broker: &Broker, history: &mut History) -> Guarantee {
    let mut idempotent = true;
    for partition in 0..plan.partitions {
        for record in broker.log_records(TOPIC, partition).expect("it can be read") {
            idempotent &= record.producer_id >= 0;
            history.read(partition, record.offset, record.value.as_deref());
        }
    }
    if idempotent { Guarantee::ExactlyOncePerPartition } else { Guarantee::AtLeastOnce }
}
