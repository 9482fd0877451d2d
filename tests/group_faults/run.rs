//! Runs a seed: a cluster, a topic that is written while it is read, members that join and leave,
//! and faults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Client, GroupProtocol, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig, RequestInfo, Versions};
use ailurus_test_support::faults::{inject_faults, listen_address};
use ailurus_test_support::seeds::{FaultCounts, block_on};
use bytes::{Buf, Bytes};
use fastrand::Rng;
use kafka_protocol::messages::{ConsumerProtocolAssignment, OffsetCommitRequest, SyncGroupRequest};
use kafka_protocol::protocol::Decodable;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::checker::{GroupChecker, Problem};
use super::member::{self, Command, Context, GROUP, TOPIC};
use super::plan::{self, APIS, Event, Plan};
use super::support;

/// Far longer than anything takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(180);

pub struct Outcome {
    pub gentle: bool,
    /// Each record had to be handled once.
    pub handled_once: bool,
    pub checker: GroupChecker,
    pub counts: FaultCounts,
    /// Number of commits that a slow broker applied too late.
    pub late_commits: usize,
}

pub fn run(plan: Plan) -> Outcome {
    block_on(false, run_on(plan))
}

struct Members {
    context: Arc<Context>,
    next: usize,
    running: Vec<(mpsc::UnboundedSender<Command>, JoinHandle<ailurus::Result<()>>)>,
    ending: Vec<JoinHandle<ailurus::Result<()>>>,
}

impl Members {
    fn join(&mut self) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(member::run(Arc::clone(&self.context), self.next, receiver));
        self.next += 1;
        self.running.push((commands, task));
    }

    /// Sends a command to one of the members; one always remains.
    fn send_command(&mut self, random: &mut Rng, command: Command) {
        if matches!(command, Command::Hang(_)) {
            let index = random.usize(..self.running.len());
            _ = self.running[index].0.send(command);
        } else if self.running.len() > 1 {
            let (commands, task) = self.running.swap_remove(random.usize(..self.running.len()));
            _ = commands.send(command);
            self.ending.push(task);
        }
    }

    /// Ends all members; none may have failed.
    async fn end(mut self) {
        let running = std::mem::take(&mut self.running);
        self.ending.extend(running.into_iter().map(|(commands, task)| {
            _ = commands.send(Command::Leave);
            task
        }));
        for task in self.ending {
            let text = match timeout(TIMEOUT, task).await {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(e))) => format!("a member ended: {e:#}"),
                Ok(Err(e)) => format!("a member ended: {e}"),
                Err(_) => "a member does not end".into(),
            };
            self.context.checker().problem(Problem::Stuck, text);
        }
    }
}

async fn run_on(plan: Plan) -> Outcome {
    let broker = start(&plan).await;
    let context = Arc::new(Context::new(plan, broker));
    let counts = set_hook(&context);
    let mut members = Members { context: Arc::clone(&context), next: 0, running: Vec::new(), ending: Vec::new() };
    (0..context.plan.members).for_each(|_| members.join());

    let writer = tokio::spawn(write(Arc::clone(&context)));
    let mut random = Rng::with_seed(context.plan.seed);
    let started = Instant::now();
    for &(at, event) in &context.plan.events {
        tokio::time::sleep_until(started + at).await;
        apply_event(&context, &mut members, &mut random, event).await;
        let name = format!("{event:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
        *counts.lock().unwrap().entry(format!("group: {name}")).or_default() += 1;
    }
    writer.await.expect("it writes");
    let ends = ends(&context.broker);
    if timeout(TIMEOUT, all_handled(&context, &ends)).await.is_err() {
        let state = context.broker.group_state(GROUP);
        context
            .checker()
            .problem(Problem::Stuck, format!("not all was handled within {TIMEOUT:?}; the group is {state:?}"));
    }
    members.end().await;
    context.broker.clear_hook();
    observe_committed(&context);
    let keys: HashMap<_, _> = ends.iter().flat_map(|(p, _)| keys(&context.broker, *p)).collect();
    context.checker().check_keys(|p, offset| keys.get(&(p, offset)));
    context.checker().finish(&ends);
    let counts = std::mem::take(&mut *counts.lock().unwrap());
    let context = Arc::into_inner(context).expect("the only one");
    context.broker.shutdown().await;
    let mut checker = context.checker.into_inner().unwrap();
    let slow = |name: &str| plan::COORDINATOR_APIS.iter().any(|api| name.starts_with(api)) && name.contains("Delay");
    let late_commits = match !context.plan.gentle && counts.keys().any(|name| slow(name)) {
        true => checker.allow_late_commits(),
        false => 0,
    };
    Outcome { gentle: context.plan.gentle, handled_once: !checker.repeats_allowed, checker, counts, late_commits }
}

async fn start(plan: &Plan) -> Broker {
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(listen_address(2, plan.seed))
        .default_replication(plan::NODES)
        .auto_create(false)
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300))
        .consumer_protocol_timeouts(plan.heartbeat_interval, plan.session_timeout)
        .versions(match plan.protocol {
            GroupProtocol::Classic => support::embedded_versions(),
            _ => Versions::kafka(), // Redpanda has only the classic protocol
        });
    let broker = Broker::start(config).await.expect("the embedded broker starts");
    broker.create_topic(TOPIC, plan.partitions).expect("a new topic");
    broker.create_topic(&format!("{TOPIC}.dlq"), 1).expect("a new topic"); // processors need it
    broker
}

/// Sets a hook that injects the planned faults and observes requests of the group.
fn set_hook(context: &Arc<Context>) -> Arc<Mutex<FaultCounts>> {
    let weak = Arc::downgrade(context);
    inject_faults(&context.broker, move |request, index| {
        let context = weak.upgrade()?;
        observe_request(&context, request);
        let (kind, fault) = context.plan.fault(request.api_key, request.node, index)?;
        let api = APIS.iter().find(|(key, _)| *key == request.api_key).map_or("other", |(_, name)| *name);
        Some((format!("{api}: {kind:?}"), fault))
    })
}

fn observe_request(context: &Context, request: &RequestInfo<'_>) {
    let mut body: Bytes = request.body.clone();
    match request.api_key {
        plan::SYNC_GROUP => {
            let sync = SyncGroupRequest::decode(&mut body, request.version).expect("a request that the broker reads");
            let share = |a: &kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment| {
                (stable_id(&a.member_id), assigned(a.assignment.clone()))
            };
            if !sync.assignments.is_empty() {
                context.checker().leader_assigned(sync.generation_id, sync.assignments.iter().map(share).collect());
            }
        }
        plan::OFFSET_COMMIT => {
            let commit =
                OffsetCommitRequest::decode(&mut body, request.version).expect("a request that the broker reads");
            let mut checker = context.checker();
            for p in commit.topics.iter().flat_map(|t| &t.partitions) {
                checker.commit_requested(
                    &stable_id(&commit.member_id),
                    commit.generation_id_or_member_epoch,
                    p.partition_index,
                    p.committed_offset,
                );
            }
        }
        _ => {}
    }
    observe_committed(context);
}

/// Returns a member's id; a static one's instance, which may return with another id in the same
/// generation.
fn stable_id(id: &str) -> String {
    let instance = id.strip_prefix("instance-").and_then(|rest| rest.split('-').next());
    instance.map_or_else(|| id.to_owned(), |n| format!("instance-{n}"))
}

/// Decodes the partitions of an assignment.
fn assigned(mut bytes: Bytes) -> Vec<i32> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let version = bytes.get_i16();
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).expect("an assignment");
    assignment.assigned_partitions.iter().flat_map(|t| t.partitions.iter().copied()).collect()
}

fn observe_committed(context: &Context) {
    let partitions = ends(&context.broker);
    let mut checker = context.checker();
    for (p, _) in partitions {
        if let Some(offset) = context.broker.committed_offset(GROUP, TOPIC, p) {
            checker.committed(p, offset);
        }
    }
}

/// Returns the key of each record.
fn keys(broker: &Broker, p: i32) -> Vec<((i32, i64), Option<Bytes>)> {
    let records = broker.log_records(TOPIC, p).expect("it can be read");
    records.into_iter().map(|r| ((p, r.offset), r.key)).collect()
}

/// Returns the log end offset of each partition.
fn ends(broker: &Broker) -> Vec<(i32, i64)> {
    let count = broker.topics().iter().find(|(name, _)| name == TOPIC).map_or(0, |(_, count)| *count as i32);
    (0..count).map(|p| (p, broker.log_range(TOPIC, p).expect("it is there").1)).collect()
}

async fn write(context: Arc<Context>) {
    let plan = &context.plan;
    // Without the faults' time limits: the writer is not under test.
    let mut config = context.client_config();
    config.request_timeout = Duration::from_secs(5);
    let client = loop {
        if let Ok(client) = Client::connect(config.clone()).await {
            break client;
        }
    };
    let producer = client.producer().config(config.producer.clone()).start().expect("these settings are allowed");
    let mut random = Rng::with_seed(plan.seed);
    let mut waiting = Vec::new();
    for n in 0..plan.records {
        let (key, value) = (format!("key-{}", random.u32(0..plan.keys)), n.to_string());
        match producer.send(ProducerRecord::to(TOPIC).key(&key).value(&value)).await {
            Ok(delivery) => waiting.push(delivery),
            Err(_) => continue, // a metadata fault: one record less
        }
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
    _ = producer.close(TIMEOUT).await;
    drop(waiting);
    client.close().await;
}

async fn apply_event(context: &Context, members: &mut Members, random: &mut Rng, event: Event) {
    let broker = &context.broker;
    match event {
        Event::Join => members.join(),
        Event::Leave => members.send_command(random, Command::Leave),
        Event::Crash => members.send_command(random, Command::Crash),
        Event::Hang(time) => members.send_command(random, Command::Hang(time)),
        Event::MoveCoordinator(node) => broker.move_coordinator(GROUP, node).expect("it exists"),
        Event::MoveLeader { partition, node } => broker.move_leader(TOPIC, partition, node).expect("they exist"),
        Event::Stop(node) => broker.stop_node(node).await.expect("it exists"),
        Event::Start(node) => broker.start_node(node).await.expect("its port is free"),
        Event::Grow(count) => _ = broker.grow_topic(TOPIC, count), // it may have grown already
    }
}

async fn all_handled(context: &Context, ends: &[(i32, i64)]) {
    while !ends.iter().all(|(p, end)| context.checker().has_handled(*p, *end)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
