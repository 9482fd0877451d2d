//! One seed: a cluster, a topic that is written while it is read, members that come and go, faults.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::{Client, GroupProtocol, ProducerRecord};
use ailurus_broker::{Broker, BrokerConfig, RequestInfo, Versions};
use bytes::{Buf, Bytes};
use fastrand::Rng;
use kafka_protocol::messages::{ConsumerProtocolAssignment, OffsetCommitRequest, SyncGroupRequest};
use kafka_protocol::protocol::Decodable;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::member::{self, GROUP, Order, TOPIC, World};
use super::plan::{self, APIS, Event, Plan};
use super::seeds::Fired;
use super::support;
use super::watch::{Problem, Watch};

/// Far more than anything takes, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Outcome {
    pub gentle: bool,
    /// Held to handling each record once.
    pub once: bool,
    pub watch: Watch,
    pub fired: Fired,
    /// Commits that a slow broker carried out too late.
    pub late_commits: usize,
}

pub fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run_on(plan))
}

struct Members {
    world: Arc<World>,
    next: usize,
    running: Vec<(mpsc::UnboundedSender<Order>, JoinHandle<ailurus::Result<()>>)>,
    ending: Vec<JoinHandle<ailurus::Result<()>>>,
}

impl Members {
    fn join(&mut self) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(member::run(Arc::clone(&self.world), self.next, receiver));
        self.next += 1;
        self.running.push((orders, task));
    }

    /// Tells one of them; there is always one left.
    fn tell(&mut self, random: &mut Rng, order: Order) {
        if matches!(order, Order::Hang(_)) {
            let place = random.usize(..self.running.len());
            _ = self.running[place].0.send(order);
        } else if self.running.len() > 1 {
            let (orders, task) = self.running.swap_remove(random.usize(..self.running.len()));
            _ = orders.send(order);
            self.ending.push(task);
        }
    }

    /// Ends all; none of them may have failed.
    async fn end(mut self) {
        let running = std::mem::take(&mut self.running);
        self.ending.extend(running.into_iter().map(|(orders, task)| {
            _ = orders.send(Order::Leave);
            task
        }));
        for task in self.ending {
            let wrong = match timeout(PATIENCE, task).await {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(e))) => format!("a member ended: {e:#}"),
                Ok(Err(e)) => format!("a member ended: {e}"),
                Err(_) => "a member does not end".into(),
            };
            self.world.watch().problem(Problem::Stuck, wrong);
        }
    }
}

async fn run_on(plan: Plan) -> Outcome {
    let broker = start(&plan).await;
    let world = Arc::new(World::new(plan, broker));
    let fired = Arc::new(Mutex::new(Fired::new()));
    look_on(&world, &fired);
    let mut members = Members { world: Arc::clone(&world), next: 0, running: Vec::new(), ending: Vec::new() };
    (0..world.plan.members).for_each(|_| members.join());

    let writer = tokio::spawn(write(Arc::clone(&world)));
    let mut random = Rng::with_seed(world.plan.seed);
    let began = Instant::now();
    for &(at, event) in &world.plan.events {
        tokio::time::sleep_until(began + at).await;
        happen(&world, &mut members, &mut random, event).await;
        let name = format!("{event:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
        *fired.lock().unwrap().entry(format!("group: {name}")).or_default() += 1;
    }
    writer.await.expect("it writes");
    let ends = ends(&world.broker);
    if timeout(PATIENCE, all_handled(&world, &ends)).await.is_err() {
        let state = world.broker.group_state(GROUP);
        world
            .watch()
            .problem(Problem::Stuck, format!("not all was handled within {PATIENCE:?}; the group is {state:?}"));
    }
    members.end().await;
    world.broker.clear_hook();
    see_committed(&world);
    let keys: HashMap<_, _> = ends.iter().flat_map(|(p, _)| keys(&world.broker, *p)).collect();
    world.watch().check_keys(|p, offset| keys.get(&(p, offset)));
    world.watch().finish(&ends);
    let fired = std::mem::take(&mut *fired.lock().unwrap());
    let world = Arc::into_inner(world).expect("the only one");
    world.broker.shutdown().await;
    let mut watch = world.watch.into_inner().unwrap();
    let slow = |name: &str| plan::COORDINATOR_APIS.iter().any(|api| name.starts_with(api)) && name.contains("Delay");
    let late_commits = match !world.plan.gentle && fired.keys().any(|name| slow(name)) {
        true => watch.excuse_late_commits(),
        false => 0,
    };
    Outcome { gentle: world.plan.gentle, once: !watch.again_is_allowed, watch, fired, late_commits }
}

async fn start(plan: &Plan) -> Broker {
    // An address of its own, where a machine has them: nobody else takes the port of a node that is down.
    let [.., a, b] = plan.seed.to_be_bytes();
    let ip = if cfg!(target_os = "linux") { Ipv4Addr::new(127, 2, a, b) } else { Ipv4Addr::LOCALHOST };
    let config = BrokerConfig::default()
        .nodes(plan::NODES)
        .listen(SocketAddr::from((ip, 0)))
        .default_replication(plan::NODES)
        .auto_create(false)
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300))
        .consumer_protocol_timeouts(plan.heartbeat_interval, plan.session_timeout)
        .versions(match plan.protocol {
            GroupProtocol::Classic => support::embedded_versions(),
            _ => Versions::kafka(), // Redpanda has no other protocol
        });
    let broker = Broker::start(config).await.expect("the embedded broker starts");
    broker.create_topic(TOPIC, plan.partitions).expect("a new topic");
    broker.create_topic(&format!("{TOPIC}.dlq"), 1).expect("a new topic"); // handlers want it, and never use it
    broker
}

/// From now on requests are spoilt as planned, and those that say something about the group are seen.
fn look_on(world: &Arc<World>, fired: &Arc<Mutex<Fired>>) {
    let seen = Mutex::new(HashMap::<(i16, i32), u32>::new());
    let (weak, counts) = (Arc::downgrade(world), Arc::clone(fired));
    world.broker.set_hook(move |request| {
        let world = weak.upgrade()?;
        see(&world, request);
        let n = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry((request.api_key, request.node)).or_default();
            std::mem::replace(count, *count + 1)
        };
        let (kind, fault) = world.plan.fault(request.api_key, request.node, n)?;
        let api = APIS.iter().find(|(key, _)| *key == request.api_key).map_or("other", |(_, name)| *name);
        *counts.lock().unwrap().entry(format!("{api}: {kind:?}")).or_default() += 1;
        Some(fault)
    });
}

fn see(world: &World, request: &RequestInfo<'_>) {
    let mut body: Bytes = request.body.clone();
    match request.api_key {
        plan::SYNC_GROUP => {
            let sync = SyncGroupRequest::decode(&mut body, request.version).expect("a request that the broker reads");
            let share = |a: &kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment| {
                (who(&a.member_id), assigned(a.assignment.clone()))
            };
            if !sync.assignments.is_empty() {
                world.watch().shared(sync.generation_id, sync.assignments.iter().map(share).collect());
            }
        }
        plan::OFFSET_COMMIT => {
            let commit =
                OffsetCommitRequest::decode(&mut body, request.version).expect("a request that the broker reads");
            let mut watch = world.watch();
            for p in commit.topics.iter().flat_map(|t| &t.partitions) {
                watch.commits(
                    &who(&commit.member_id),
                    commit.generation_id_or_member_epoch,
                    p.partition_index,
                    p.committed_offset,
                );
            }
        }
        _ => {}
    }
    see_committed(world);
}

/// A member by its id; a static one by its instance, which may come back under another id in the same generation.
fn who(id: &str) -> String {
    let instance = id.strip_prefix("instance-").and_then(|rest| rest.split('-').next());
    instance.map_or_else(|| id.to_owned(), |n| format!("instance-{n}"))
}

/// The partitions of an assignment as the group's leader writes it.
fn assigned(mut bytes: Bytes) -> Vec<i32> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let version = bytes.get_i16();
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).expect("an assignment");
    assignment.assigned_partitions.iter().flat_map(|t| t.partitions.iter().copied()).collect()
}

fn see_committed(world: &World) {
    let partitions = ends(&world.broker);
    let mut watch = world.watch();
    for (p, _) in partitions {
        if let Some(offset) = world.broker.committed_offset(GROUP, TOPIC, p) {
            watch.committed(p, offset);
        }
    }
}

/// The key of each record.
fn keys(broker: &Broker, p: i32) -> Vec<((i32, i64), Option<Bytes>)> {
    let records = broker.log_records(TOPIC, p).expect("it can be read");
    records.into_iter().map(|r| ((p, r.offset), r.key)).collect()
}

/// The end of each partition's log.
fn ends(broker: &Broker) -> Vec<(i32, i64)> {
    let count = broker.topics().iter().find(|(name, _)| name == TOPIC).map_or(0, |(_, count)| *count as i32);
    (0..count).map(|p| (p, broker.log_range(TOPIC, p).expect("it is there").1)).collect()
}

async fn write(world: Arc<World>) {
    let plan = &world.plan;
    // Not through the faults' time limits: writing is not what is tried here.
    let mut config = world.client_config();
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
            Err(_) => continue, // metadata is spoilt: one record less
        }
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
    _ = producer.close(PATIENCE).await;
    drop(waiting);
    client.close().await;
}

async fn happen(world: &World, members: &mut Members, random: &mut Rng, event: Event) {
    let broker = &world.broker;
    match event {
        Event::Join => members.join(),
        Event::Leave => members.tell(random, Order::Leave),
        Event::Die => members.tell(random, Order::Die),
        Event::Hang(time) => members.tell(random, Order::Hang(time)),
        Event::MoveCoordinator(node) => broker.move_coordinator(GROUP, node).expect("it exists"),
        Event::MoveLeader { partition, node } => broker.move_leader(TOPIC, partition, node).expect("they exist"),
        Event::Stop(node) => broker.stop_node(node).await.expect("it exists"),
        Event::Start(node) => broker.start_node(node).await.expect("its port is free"),
        Event::Grow(count) => _ = broker.grow_topic(TOPIC, count), // it may have grown already
    }
}

async fn all_handled(world: &World, ends: &[(i32, i64)]) {
    while !ends.iter().all(|(p, end)| world.watch().has_handled(*p, *end)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
