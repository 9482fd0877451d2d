//! Runs a seed: a cluster, inputs that are written while they are handled, members that join, leave
//! and die, and faults.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Admin, Client, Config, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig};
use ailurus_test_support::faults::{inject_faults, listen_address};
use ailurus_test_support::seeds::{FaultCounts, block_on};
use ailurus_test_support::transaction_cluster::{await_quiet, read_until, release_at_intervals};
use ailurus_test_support::transaction_history::{Report, TransactionHistory};
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::check;
use super::member::{self, COMPACTED, Command, Context, DEAD_LETTERS, GROUP, INPUT, OUTPUT};
use super::plan::{self, Event, Plan, Release};

/// Far longer than anything takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);
const OBSERVER_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(3);
/// Maximum number of members.
const MAX_MEMBERS: usize = 3;
/// Interval at which held markers are released.
const RELEASE_EVERY: Duration = Duration::from_millis(50);
/// Events that every run of all seeds has.
pub const EVENTS: [&str; 11] = [
    "group: join",
    "group: leave",
    "group: crash",
    "group coordinator moved",
    "coordinator moved",
    "input leader moved",
    "output leader moved",
    "marker: Hold",
    "node stopped",
    "node started",
    "inputs grown",
];

pub struct Outcome {
    pub release: Release,
    pub report: Report,
    pub dead_letters: usize,
    /// Number of attempts that returned outputs.
    pub handled: usize,
    /// Errors with which members ended.
    pub ended: Vec<String>,
    pub counts: FaultCounts,
    /// Problems other than the history's.
    pub other_problems: Vec<String>,
}

struct Members {
    context: Arc<Context>,
    /// With the number of each.
    running: Vec<(usize, mpsc::UnboundedSender<Command>, JoinHandle<()>)>,
    ending: Vec<JoinHandle<()>>,
}

impl Members {
    fn join(&mut self) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let number = (0..).find(|n| self.running.iter().all(|(number, ..)| number != n)).unwrap_or_default();
        let task = tokio::spawn(member::run(Arc::clone(&self.context), number, receiver));
        self.running.push((number, commands, task));
    }

    /// Ends one of the members.
    fn end(&mut self, random: &mut Rng, command: Command) {
        let (_, commands, task) = self.running.swap_remove(random.usize(..self.running.len()));
        _ = commands.send(command);
        self.ending.push(task);
    }

    /// Shuts all members down.
    async fn end_all(&mut self, problems: &mut Vec<String>) {
        while !self.running.is_empty() {
            self.end(&mut Rng::with_seed(0), Command::Leave);
        }
        for task in self.ending.drain(..) {
            match timeout(TIMEOUT, task).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => problems.push(format!("a member panicked: {e}")),
                Err(_) => problems.push("a member does not end".to_owned()),
            }
        }
    }
}

pub fn run(plan: Plan) -> Outcome {
    block_on(false, run_on(plan))
}

async fn run_on(plan: Plan) -> Outcome {
    let broker = start(&plan).await;
    let context = Arc::new(Context { plan, broker, handled: AtomicU32::new(0), ended: Mutex::default() });
    // What is not under test has longer timeouts, for machines that are busy.
    let config = Config::builder().brokers(context.broker.bootstrap()).request_timeout(OBSERVER_TIMEOUT);
    let config = config.retry_backoff(POLL).metadata_max_age(Duration::from_millis(200)).build();
    let observer = Client::connect(config.expect("these settings are allowed")).await.expect("no fault yet");
    let planned = context.plan.clone();
    let counts =
        inject_faults(&context.broker, move |request, index| planned.fault(request.api_key, request.node, index));
    let mut problems = Vec::new();
    let mut history = TransactionHistory::default();

    let stop = CancellationToken::new();
    let (released, stopped) = (Arc::clone(&context), stop.clone());
    let releaser = tokio::spawn(async move { release_at_intervals(&released.broker, RELEASE_EVERY, stopped).await });
    let outputs = check::outputs(context.plan.outputs);
    let reader = tokio::spawn(read_until(stop.clone(), observer.clone(), outputs, |_| {}));
    let mut members = Members { context: Arc::clone(&context), running: Vec::new(), ending: Vec::new() };
    (0..context.plan.members).for_each(|_| members.join());
    let writer = tokio::spawn(write(Arc::clone(&context), observer.clone()));
    run_events(&context, &observer, &mut members, &counts).await;
    writer.await.expect("it writes");
    members.end_all(&mut problems).await;

    // No more faults: one member finishes everything.
    context.broker.clear_hook();
    members.join();
    if timeout(TIMEOUT, all_committed(&context)).await.is_err() {
        let state = context.broker.group_state(GROUP);
        problems.push(format!("not all was committed within {TIMEOUT:?}; the group is {state:?}"));
    }
    members.end_all(&mut problems).await;
    drop(members);
    let written = check::output_partitions(context.plan.outputs);
    await_quiet(&context.broker, &written, &[GROUP.to_owned()], Duration::from_secs(10), &mut history).await;
    stop.cancel();
    releaser.await.expect("markers are released");
    history.readers.push(reader.await.expect("a reader reads"));
    check::read_log(&context, &observer, &mut history).await;
    let dead_letters = check::add_inputs(&context, &observer, &mut history, &mut problems).await;
    observer.close().await;

    let counts = counts.lock().unwrap().clone();
    let Context { plan, broker, handled, ended } = Arc::into_inner(context).expect("the only one");
    broker.shutdown().await;
    Outcome {
        release: plan.release,
        report: history.check(),
        dead_letters,
        handled: handled.load(Ordering::Relaxed) as usize,
        ended: ended.into_inner().unwrap(),
        counts,
        other_problems: problems,
    }
}

async fn start(plan: &Plan) -> Broker {
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(listen_address(4, plan.seed))
        .default_replication(plan::NODES)
        .auto_create(false)
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300));
    let config = config.consumer_protocol_timeouts(plan.heartbeat_interval, plan.session_timeout);
    let broker = plan.release.start(config).await;
    for (topic, partitions) in [(INPUT, plan.partitions), (OUTPUT, plan.outputs), (DEAD_LETTERS, 1)] {
        broker.create_topic(topic, partitions).expect("a new topic");
    }
    broker.create_topic_with(COMPACTED, 1, &[("cleanup.policy", "compact")]).expect("a new topic");
    broker
}

async fn run_events(context: &Context, observer: &Client, members: &mut Members, counts: &Mutex<FaultCounts>) {
    let mut random = Rng::with_seed(context.plan.seed);
    let started = Instant::now();
    for &(at, event) in &context.plan.events {
        tokio::time::sleep_until(started + at).await;
        if let Some(name) = apply_event(context, observer, members, &mut random, event).await {
            *counts.lock().unwrap().entry(name.into()).or_default() += 1;
        }
    }
}

/// Returns the name of the event, if it happened.
async fn apply_event(
    context: &Context,
    observer: &Client,
    members: &mut Members,
    random: &mut Rng,
    event: Event,
) -> Option<&'static str> {
    let broker = &context.broker;
    Some(match event {
        Event::Join if members.running.len() < MAX_MEMBERS => {
            members.join();
            "group: join"
        }
        Event::Leave if members.running.len() > 1 => {
            members.end(random, Command::Leave);
            "group: leave"
        }
        Event::Crash => {
            members.end(random, Command::Crash);
            if members.running.is_empty() {
                members.join();
            }
            "group: crash"
        }
        Event::Join | Event::Leave => return None,
        Event::MoveGroupCoordinator(node) => {
            broker.move_coordinator(GROUP, node).expect("it exists");
            "group coordinator moved"
        }
        Event::MoveCoordinator(node) => {
            let ids = broker.transactions();
            let id = (!ids.is_empty()).then(|| &ids[random.usize(..ids.len())])?;
            broker.move_transaction_coordinator(&id.transactional_id, node).expect("it exists");
            "coordinator moved"
        }
        Event::MoveInputLeader { partition, node } => {
            broker.move_leader(INPUT, partition, node).expect("they exist");
            "input leader moved"
        }
        Event::StopNode(node) => {
            broker.stop_node(node).await.expect("it exists");
            "node stopped"
        }
        Event::StartNode(node) => {
            broker.start_node(node).await.expect("its port is free");
            "node started"
        }
        Event::Grow => {
            let count = check::input_ends(broker).count() as i32 + 1;
            // It is refused while the controller is stopped.
            Admin::new(observer).create_partitions(INPUT, count).await.ok()?;
            "inputs grown"
        }
        Event::MoveOutputLeader { partition, node } => {
            broker.move_leader(OUTPUT, partition, node).expect("they exist");
            "output leader moved"
        }
    })
}

/// Writes the inputs. Their producer has the faults, too: only what is in the log counts.
async fn write(context: Arc<Context>, client: Client) {
    let plan = &context.plan;
    let producer = client.producer().start().expect("these settings are allowed");
    let mut random = Rng::with_seed(plan.seed);
    for _ in 0..plan.records {
        let key = random.u32(0..plan.keys);
        let record = ProducerRecord::to(INPUT).key(key.to_string()).value(format!("input of {key}"));
        if let Ok(delivery) = producer.send(record).await {
            drop(delivery);
        }
        if !plan.pause.is_zero() {
            sleep(plan.pause).await;
        }
    }
    _ = producer.close(TIMEOUT).await;
}

/// Waits until the group has committed the end of each partition.
async fn all_committed(context: &Context) {
    let is_done = |(p, end)| end == 0 || context.broker.committed_offset(GROUP, INPUT, p) == Some(end);
    while !check::input_ends(&context.broker).all(is_done) {
        sleep(POLL).await;
    }
}
