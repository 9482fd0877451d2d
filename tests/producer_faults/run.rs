//! One seed: a cluster, a producer, the faults; then the history.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Acknowledgement, Client, Compression, Config, Delivery, Error, Producer, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};
use fastrand::Rng;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::history::{Fate, Guarantee, History, Id, Report};
use super::plan::{self, Ending, Event, Plan, Stream, Target};
use super::seeds::Fired;
use super::support;

/// Far more than the delivery timeout.
const PATIENCE: Duration = Duration::from_secs(30);
/// A producer whose buffer is full makes `send` wait: the rest of a stream is left out then.
const ENOUGH: Duration = Duration::from_secs(2);
const TOPIC: &str = "records";

pub struct Outcome {
    pub report: Report,
    pub fired: Fired,
    /// Refused by `send`.
    pub refused: usize,
    /// What is wrong beside the history.
    pub wrong: Vec<String>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.wrong.is_empty()
    }
}

pub fn run(plan: Plan) -> Outcome {
    let mut builder = if plan.threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run_on(plan))
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
    let fired = spoil(&broker, &plan);
    let producer = client.producer().config(settings).start().expect("these settings are allowed");

    let disturbed = tokio::spawn(disturb(Arc::clone(&broker), Arc::clone(&plan), Arc::clone(&fired)));
    let (sent, refused) = send_all(&plan, &producer).await;
    let mut wrong = Vec::new();
    let mut history = History::default();
    end(&plan, producer, sent, &mut history, &mut wrong).await;
    disturbed.await.expect("events happen");
    client.close().await;
    // A request that was delayed is served even when nobody waits for it any more.
    if timeout(PATIENCE, async {
        while broker.connection_count() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .is_err()
    {
        wrong.push(format!("{} connections were left open", broker.connection_count()));
    }
    let guarantee = read(&plan, &broker, &mut history);
    let report = history.check(guarantee);
    let fired = fired.lock().unwrap().clone();
    Arc::into_inner(broker).expect("the only one").shutdown().await;
    Outcome { report, fired, refused, wrong }
}

async fn start(plan: &Plan) -> Broker {
    // An address of its own, where a machine has them: nobody else takes the port of a node that is down.
    let [.., a, b] = plan.seed.to_be_bytes();
    let ip = if cfg!(target_os = "linux") { Ipv4Addr::new(127, 1, a, b) } else { Ipv4Addr::LOCALHOST };
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(SocketAddr::from((ip, 0)))
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

/// From now on requests are spoilt as planned; counts what is.
fn spoil(broker: &Broker, plan: &Arc<Plan>) -> Arc<Mutex<Fired>> {
    let fired = Arc::new(Mutex::new(Fired::new()));
    let seen = Mutex::new(HashMap::<(i16, i32), u32>::new());
    let (plan, counts, began) = (Arc::clone(plan), Arc::clone(&fired), Instant::now());
    broker.set_hook(move |request| {
        let n = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry((request.api_key, request.node)).or_default();
            std::mem::replace(count, *count + 1)
        };
        let (name, fault) = plan.fault(request.api_key, request.node, n, began.elapsed())?;
        *counts.lock().unwrap().entry(name).or_default() += 1;
        Some(fault)
    });
    fired
}

/// Moves leaders, stops and starts nodes.
async fn disturb(broker: Arc<Broker>, plan: Arc<Plan>, fired: Arc<Mutex<Fired>>) {
    let began = Instant::now();
    for &(at, event) in &plan.events {
        tokio::time::sleep_until(began + at).await;
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
        *fired.lock().unwrap().entry(name.into()).or_default() += 1;
    }
}

/// What was handed in: its handle, or what became of it already.
type Sent = (Id, Result<Delivery, Ended>);
/// How a record ended; `None` if it did not.
type Ended = Option<Result<Acknowledgement, Error>>;

/// Hands in all streams, their records mixed; how many records `send` refused is counted.
async fn send_all(plan: &Plan, producer: &Producer) -> (Vec<Sent>, usize) {
    let mut random = Rng::with_seed(plan.seed);
    let mut left: Vec<(u32, &Stream, u32)> = (0..).zip(&plan.streams).map(|(i, s)| (i, s, 0)).collect();
    let (mut ended, mut refused) = (Vec::new(), 0);
    let mut waiting: VecDeque<(Id, Delivery)> = VecDeque::new();
    let (began, mut handed_in) = (Instant::now(), 0);
    while !left.is_empty() && began.elapsed() < ENOUGH {
        let place = random.usize(..left.len());
        let (number, stream, sequence) = &mut left[place];
        let id = Id { stream: *number, sequence: *sequence };
        *sequence += 1;
        let size = random.usize(..=stream.size);
        match send(producer, id, stream, size, random.u32(0..100) < stream.gzip).await {
            Ok(delivery) => waiting.push_back((id, delivery)),
            Err(error) => {
                refused += 1;
                ended.push((id, Err(Some(Err(error)))));
            }
        }
        if *sequence == stream.records {
            left.swap_remove(place);
        }
        if waiting.len() > plan.window {
            let (id, delivery) = waiting.pop_front().expect("there is one");
            ended.push((id, Err(resolved(delivery).await)));
        }
        handed_in += 1;
        if handed_in % plan.burst == 0 {
            tokio::time::sleep(plan.pause).await;
        }
    }
    ended.extend(waiting.into_iter().map(|(id, delivery)| (id, Ok(delivery))));
    (ended, refused)
}

async fn send(producer: &Producer, id: Id, stream: &Stream, size: usize, gzip: bool) -> ailurus::Result<Delivery> {
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

async fn resolved(delivery: Delivery) -> Ended {
    timeout(PATIENCE, delivery).await.ok()
}

fn note(history: &mut History, id: Id, ended: &Ended) -> Fate {
    let fate = ended.as_ref().map_or(Fate::Unresolved, Fate::of);
    history.sent(id, fate);
    if let Some(Err(error)) = ended {
        history.said(id, error);
    }
    fate
}

/// Ends the producer as planned and collects what became of the records.
async fn end(plan: &Plan, producer: Producer, sent: Vec<Sent>, history: &mut History, wrong: &mut Vec<String>) {
    let mut waiting = Vec::new();
    let mut unknown = false;
    for (id, handle) in sent {
        let ended = match handle {
            Err(ended) => ended,
            Ok(delivery) if plan.ending == Ending::Await => resolved(delivery).await,
            Ok(delivery) => {
                waiting.push((id, delivery));
                continue;
            }
        };
        unknown |= note(history, id, &ended) == Fate::Unknown;
    }
    match plan.ending {
        Ending::Await => {
            // What has an unknown fate keeps its place until its broker answers.
            if !unknown && producer.buffered_bytes() > 0 {
                wrong.push(format!("{} bytes of the buffer are in use at the end", producer.buffered_bytes()));
            }
            if let Err(error) = producer.close(PATIENCE).await {
                wrong.push(format!("close: {error}"));
            }
        }
        Ending::Close => {
            if let Err(error) = producer.close(PATIENCE).await {
                wrong.push(format!("close: {error}"));
            }
        }
        // That it gave records up is their handles' to tell.
        Ending::CloseWithin(time) => drop(producer.close(time).await),
        Ending::Drop => drop(producer),
    }
    for (id, delivery) in waiting {
        let ended = match plan.ending {
            // Nobody waits for its tasks then: one may be about to tell what it has already taken from the queue.
            Ending::Drop => resolved(delivery).await,
            _ => delivery.now_or_never(),
        };
        note(history, id, &ended);
    }
}

/// Reads the log, and tells what may be asked of it: everything, if all that is there carries a producer's id.
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
