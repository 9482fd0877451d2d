//! Runs a seed: a broker, a role and an outage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ailurus::{Client, Config, ConsumerEvent, Message, Producer, ProducerRecord, SaslConfig, SecurityProtocol};
use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl, Versions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::plan::{Plan, Role, Step};

/// Far longer than anything takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);
const TOPIC: &str = "t";
const CLIENT: &str = "victim";
const PARTITIONS: i32 = 3;
/// Number of records before, during and after the outage.
const RECORDS_PER_PHASE: i32 = 12;

/// State of the outage.
#[derive(Default)]
struct OutageState {
    active: AtomicBool,
    disconnecting: AtomicBool,
    failures: AtomicU64,
}

impl OutageState {
    fn fails_now(&self) -> bool {
        let active = self.active.load(Ordering::SeqCst);
        if active {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        active
    }
}

/// Runs a plan; returns the number of failed attempts.
pub fn run(plan: &Plan) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(TIMEOUT, run_on(plan)).await.expect("no recovery in time") })
}

struct Scenario {
    plan: Plan,
    broker: Broker,
    state: Arc<OutageState>,
    /// Writes the records, without faults except for stopped nodes.
    writer: Producer,
    _writers: Client,
}

async fn run_on(plan: &Plan) -> u64 {
    let sasl = Sasl::default().user("writer", "secret").token(CLIENT, "a-token");
    let sasl = sasl.user(CLIENT, "secret");
    let config = BrokerConfig::default()
        .nodes(2)
        .versions(Versions::kafka())
        .consumer_protocol_timeouts(Duration::from_millis(50), Duration::from_secs(3))
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300))
        .sasl(sasl);
    let broker = Broker::start(config).await.unwrap();
    broker.create_topic(TOPIC, PARTITIONS).unwrap();
    let state = Arc::new(OutageState::default());
    let (outage, faulty) = (Arc::clone(&state), plan.clone());
    broker.set_hook(move |request| {
        let is_client = request.client_id == CLIENT;
        if is_client && faulty.step.apis().contains(&request.api_key) && outage.fails_now() {
            return faulty.fault;
        }
        let login = matches!(request.api_key, 17 | 18 | 36);
        (is_client && !login && outage.disconnecting.load(Ordering::SeqCst)).then_some(Fault::Close)
    });
    let login = SaslConfig::plain("writer", "secret");
    let writers = Client::connect(settings(&broker, "writer", login)).await.unwrap();
    let writer = writers.producer().start().unwrap();
    let scenario = Scenario { plan: plan.clone(), broker, state, writer, _writers: writers };
    match plan.role {
        Role::Member(protocol) => scenario.member(protocol).await,
        Role::Subscription(protocol) => scenario.subscription(protocol).await,
        Role::Producer => scenario.producer().await,
    }
    scenario.state.failures.load(Ordering::SeqCst)
}

fn settings(broker: &Broker, client_id: &str, login: SaslConfig) -> Config {
    let mut config = Config::builder()
        .brokers(broker.bootstrap())
        .client_id(client_id)
        .security_protocol(SecurityProtocol::SaslPlaintext)
        .sasl(login.allow_cleartext(true))
        .build()
        .unwrap();
    config.retry_backoff = Duration::from_millis(10);
    config.retry_backoff_max = Duration::from_millis(100);
    config.request_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(2);
    config.producer.delivery_timeout = TIMEOUT;
    config.consumer.session_timeout = Duration::from_secs(3);
    config.consumer.heartbeat_interval = Duration::from_millis(50);
    config.consumer.fetch_max_wait = Duration::from_millis(50);
    config
}

impl Scenario {
    fn client_config(&self) -> Config {
        let state = Arc::clone(&self.state);
        let login = match self.plan.step {
            Step::Token => SaslConfig::oauthbearer(move || {
                let token = if state.fails_now() {
                    Err("the token source is unavailable".into())
                } else {
                    Ok("a-token".into())
                };
                async move { token }
            }),
            _ => SaslConfig::plain(CLIENT, "secret"),
        };
        settings(&self.broker, CLIENT, login)
    }

    async fn client(&self, config: &Config) -> Client {
        if self.plan.lazy {
            Client::new(config.clone())
        } else {
            retry_connect(|| Client::connect(config.clone())).await
        }
    }

    /// Starts the outage.
    async fn start_outage(&self) {
        self.state.active.store(true, Ordering::SeqCst);
        self.state.disconnecting.store(self.plan.disconnects, Ordering::SeqCst);
        if self.plan.step == Step::Connect {
            self.state.failures.fetch_add(1, Ordering::SeqCst);
            for node in 0..2 {
                self.broker.stop_node(node).await.unwrap();
            }
        }
    }

    /// Ends the outage after its duration.
    async fn end_outage(&self) {
        sleep(self.plan.duration / 2).await;
        self.state.disconnecting.store(false, Ordering::SeqCst);
        sleep(self.plan.duration / 2).await;
        self.state.active.store(false, Ordering::SeqCst);
        if self.plan.step == Step::Connect {
            for node in 0..2 {
                self.broker.start_node(node).await.unwrap();
            }
        }
    }

    /// Awaits `start`, during the outage if that lasts at the start.
    async fn through_outage_at_start<T>(&self, start: impl Future<Output = T>) -> T {
        if !self.plan.at_start {
            return start.await;
        }
        self.start_outage().await;
        let ((), started) = tokio::join!(self.end_outage(), start);
        started
    }

    /// Writes records before, during and after the outage.
    async fn write_through(&self) {
        self.write(0..RECORDS_PER_PHASE).await;
        if !self.plan.at_start {
            self.start_outage().await;
            let ((), ()) = tokio::join!(self.end_outage(), self.write(RECORDS_PER_PHASE..2 * RECORDS_PER_PHASE));
        }
        self.write(2 * RECORDS_PER_PHASE..3 * RECORDS_PER_PHASE).await;
    }

    async fn write(&self, numbers: std::ops::Range<i32>) {
        for n in numbers {
            let value = n.to_string();
            let record = ProducerRecord::to(TOPIC).value(&value).partition(n % PARTITIONS);
            self.writer.send(record).await.unwrap().await.unwrap();
        }
    }

    fn written(&self) -> BTreeSet<i32> {
        let during = if self.plan.at_start { 0..0 } else { RECORDS_PER_PHASE..2 * RECORDS_PER_PHASE };
        (0..RECORDS_PER_PHASE).chain(during).chain(2 * RECORDS_PER_PHASE..3 * RECORDS_PER_PHASE).collect()
    }

    async fn member(&self, protocol: ailurus::GroupProtocol) {
        let mut config = self.client_config();
        config.consumer.group_protocol = protocol;
        let start = async {
            let client = self.client(&config).await;
            let consumer = client.consumer("g").config(config.consumer.clone()).subscribe([TOPIC]).await.unwrap();
            (client, consumer)
        };
        let (_client, mut consumer) = self.through_outage_at_start(start).await;
        let (mut seen, written) = (BTreeSet::new(), self.written());
        let read = async {
            while seen != written {
                match consumer.recv().await {
                    Ok(ConsumerEvent::Records(records)) => {
                        seen.extend(records.records.iter().map(|r| number(r.value.as_deref())));
                        consumer.commit_async(&[(records.topic_partition(), records.next_offset)]);
                    }
                    Ok(_) => {}
                    Err(e) => assert_ne!(consumer.state(), ailurus::consumer::ConsumerState::Closed, "{e:?}"),
                }
            }
        };
        tokio::join!(read, self.write_through());
        consumer.close().await.unwrap();
    }

    async fn subscription(&self, protocol: ailurus::GroupProtocol) {
        let mut config = self.client_config();
        config.consumer.group_protocol = protocol;
        let (handled, mut seen) = mpsc::unbounded_channel();
        let start = async {
            let client = self.client(&config).await;
            let handle = move |message: Message| {
                let handled = handled.clone();
                async move { handled.send(number(message.value.as_deref())).unwrap() }
            };
            let processor = client.processor("g").consumer_config(config.consumer.clone());
            let subscription = processor.subscribe([TOPIC], handle).await.unwrap();
            (client, subscription)
        };
        let (_client, subscription) = self.through_outage_at_start(start).await;
        let (mut all, written) = (BTreeSet::new(), self.written());
        let read = async {
            while all != written {
                tokio::select! {
                    n = seen.recv() => all.extend(n),
                    ended = subscription.ended() => panic!("the subscription ended: {ended:?}"),
                }
            }
        };
        tokio::join!(read, self.write_through());
        while subscription.health().problem.is_some() {
            sleep(Duration::from_millis(5)).await;
        }
        subscription.shutdown().await.unwrap();
    }

    async fn producer(&self) {
        let config = self.client_config();
        let client = self.through_outage_at_start(self.client(&config)).await;
        let producer = client.producer().config(config.producer.clone()).start().unwrap();
        let send = |n: i32| {
            let (value, producer) = (n.to_string(), &producer);
            async move {
                let record = ProducerRecord::to(TOPIC).value(&value).partition(n % PARTITIONS);
                let acknowledged = async { producer.send(record).await?.await };
                acknowledged.await.unwrap_or_else(|e| panic!("record {n}: {e:#}"));
            }
        };
        let mut acknowledged = BTreeSet::new();
        for n in 0..3 * RECORDS_PER_PHASE {
            // The first record needs a producer id, which may be the failing step.
            let at =
                if self.plan.step == Step::InitProducerId || self.plan.seed % 2 == 0 { 0 } else { RECORDS_PER_PHASE };
            let starts_outage = n == at && !self.plan.at_start;
            if starts_outage {
                self.start_outage().await;
                tokio::join!(send(n), self.end_outage());
            } else {
                send(n).await;
            }
            acknowledged.insert(n);
        }
        let log = (0..PARTITIONS).flat_map(|p| self.broker.log_records(TOPIC, p).unwrap());
        let log: Vec<i32> = log.map(|r| number(r.value.as_deref())).collect();
        assert_eq!(log.len(), acknowledged.len(), "no duplicates");
        assert_eq!(log.into_iter().collect::<BTreeSet<_>>(), acknowledged);
        producer.close(TIMEOUT).await.unwrap();
    }
}

fn number(value: Option<&[u8]>) -> i32 {
    std::str::from_utf8(value.unwrap()).unwrap().parse().unwrap()
}

/// `Client::connect` reports an outage; a later call succeeds.
async fn retry_connect<T, F: Future<Output = ailurus::Result<T>>>(mut call: impl FnMut() -> F) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(e) => assert!(e.is_retriable() || e.kind() != ailurus::ErrorKind::Authentication, "{e:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
