//! One seed: a broker, somebody who works with it, and an outage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ailurus::{
    Client, Config, ConsumerEvent, Message, Processor, Producer, ProducerRecord, SaslConfig, SecurityProtocol,
};
use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl, Versions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::plan::{Plan, Role, Step};

/// Far more than anything takes, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "t";
const VICTIM: &str = "victim";
const PARTITIONS: i32 = 3;
/// Records before, during and behind the outage.
const BATCH: i32 = 12;

/// What is out, for whom it is looked at, and how often it has failed.
#[derive(Default)]
struct State {
    out: AtomicBool,
    cut: AtomicBool,
    hits: AtomicU64,
}

impl State {
    fn hit(&self) -> bool {
        let out = self.out.load(Ordering::SeqCst);
        if out {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        out
    }
}

/// Runs it; how often the step has failed.
pub fn run(plan: &Plan) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE, run_on(plan)).await.expect("it does not come back") })
}

struct World {
    plan: Plan,
    broker: Broker,
    state: Arc<State>,
    /// Writes and is left alone, but for nodes that are down.
    writer: Producer,
    _writers: Client,
}

async fn run_on(plan: &Plan) -> u64 {
    let sasl = Sasl::default().user("writer", "secret").token(VICTIM, "a-token");
    let sasl = sasl.user(VICTIM, "secret");
    let config = BrokerConfig::default()
        .nodes(2)
        .versions(Versions::kafka())
        .consumer_protocol_timeouts(Duration::from_millis(50), Duration::from_secs(3))
        .session_timeouts(Duration::from_millis(100), Duration::from_secs(300))
        .sasl(sasl);
    let broker = Broker::start(config).await.unwrap();
    broker.create_topic(TOPIC, PARTITIONS).unwrap();
    let state = Arc::new(State::default());
    let (seen, faulty) = (Arc::clone(&state), plan.clone());
    broker.set_hook(move |request| {
        let ours = request.client_id == VICTIM;
        if ours && faulty.step.apis().contains(&request.api_key) && seen.hit() {
            return faulty.fault;
        }
        let login = matches!(request.api_key, 17 | 18 | 36);
        (ours && !login && seen.cut.load(Ordering::SeqCst)).then_some(Fault::Close)
    });
    let login = SaslConfig::plain("writer", "secret");
    let writers = Client::connect(settings(&broker, "writer", login)).await.unwrap();
    let writer = writers.producer().start().unwrap();
    let world = World { plan: plan.clone(), broker, state, writer, _writers: writers };
    match plan.role {
        Role::Member(protocol) => world.member(protocol).await,
        Role::Subscription(protocol) => world.subscription(protocol).await,
        Role::Producer => world.producer().await,
    }
    world.state.hits.load(Ordering::SeqCst)
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
    config.producer.delivery_timeout = PATIENCE;
    config.consumer.session_timeout = Duration::from_secs(3);
    config.consumer.heartbeat_interval = Duration::from_millis(50);
    config.consumer.fetch_max_wait = Duration::from_millis(50);
    config
}

impl World {
    fn victim(&self) -> Config {
        let state = Arc::clone(&self.state);
        let login = match self.plan.step {
            Step::Token => SaslConfig::oauthbearer(move || {
                let token = if state.hit() { Err("the source of tokens is away".into()) } else { Ok("a-token".into()) };
                async move { token }
            }),
            _ => SaslConfig::plain(VICTIM, "secret"),
        };
        settings(&self.broker, VICTIM, login)
    }

    async fn client(&self, config: &Config) -> Client {
        if self.plan.lazy {
            Client::new(config.clone())
        } else {
            until_it_works(|| Client::connect(config.clone())).await
        }
    }

    /// The outage begins.
    async fn fails(&self) {
        self.state.out.store(true, Ordering::SeqCst);
        self.state.cut.store(self.plan.cuts, Ordering::SeqCst);
        if self.plan.step == Step::Connect {
            self.state.hits.fetch_add(1, Ordering::SeqCst);
            for node in 0..2 {
                self.broker.stop_node(node).await.unwrap();
            }
        }
    }

    /// It lasts for its time, and ends.
    async fn ends(&self) {
        sleep(self.plan.lasts / 2).await;
        self.state.cut.store(false, Ordering::SeqCst);
        sleep(self.plan.lasts / 2).await;
        self.state.out.store(false, Ordering::SeqCst);
        if self.plan.step == Step::Connect {
            for node in 0..2 {
                self.broker.start_node(node).await.unwrap();
            }
        }
    }

    /// The outage that is there when something begins, beside it.
    async fn beside<T>(&self, begin: impl Future<Output = T>) -> T {
        if !self.plan.from_the_start {
            return begin.await;
        }
        self.fails().await;
        let ((), begun) = tokio::join!(self.ends(), begin);
        begun
    }

    /// Some records are written, an outage comes and goes in which more are written, and more behind it.
    async fn write_through(&self) {
        self.write(0..BATCH).await;
        if !self.plan.from_the_start {
            self.fails().await;
            let ((), ()) = tokio::join!(self.ends(), self.write(BATCH..2 * BATCH));
        }
        self.write(2 * BATCH..3 * BATCH).await;
    }

    async fn write(&self, numbers: std::ops::Range<i32>) {
        for n in numbers {
            let value = n.to_string();
            let record = ProducerRecord::to(TOPIC).value(&value).partition(n % PARTITIONS);
            self.writer.send(record).await.unwrap().await.unwrap();
        }
    }

    fn written(&self) -> BTreeSet<i32> {
        let midst = if self.plan.from_the_start { 0..0 } else { BATCH..2 * BATCH };
        (0..BATCH).chain(midst).chain(2 * BATCH..3 * BATCH).collect()
    }

    async fn member(&self, protocol: ailurus::GroupProtocol) {
        let mut config = self.victim();
        config.consumer.group_protocol = protocol;
        let begin = async {
            let client = self.client(&config).await;
            let consumer = client.consumer("g").config(config.consumer.clone()).subscribe([TOPIC]).await.unwrap();
            (client, consumer)
        };
        let (_client, mut consumer) = self.beside(begin).await;
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
        let mut config = self.victim();
        config.consumer.group_protocol = protocol;
        let (handled, mut seen) = mpsc::unbounded_channel();
        let begin = async {
            let client = self.client(&config).await;
            let handle = move |message: Message| {
                let handled = handled.clone();
                async move { handled.send(number(message.value.as_deref())).unwrap() }
            };
            let processor = Processor::new(&client).consumer(config.consumer.clone());
            let subscription = processor.subscribe(&[TOPIC], "g", handle).await.unwrap();
            (client, subscription)
        };
        let (_client, subscription) = self.beside(begin).await;
        let (mut all, written) = (BTreeSet::new(), self.written());
        let read = async {
            while all != written {
                tokio::select! {
                    n = seen.recv() => all.extend(n),
                    ended = subscription.ended() => panic!("it has ended: {ended:?}"),
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
        let config = self.victim();
        let client = self.beside(self.client(&config)).await;
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
        for n in 0..3 * BATCH {
            // The first record needs an identity, which may be what fails.
            let at = if self.plan.step == Step::InitProducerId || self.plan.seed % 2 == 0 { 0 } else { BATCH };
            let begins = n == at && !self.plan.from_the_start;
            if begins {
                self.fails().await;
                tokio::join!(send(n), self.ends());
            } else {
                send(n).await;
            }
            acknowledged.insert(n);
        }
        let log = (0..PARTITIONS).flat_map(|p| self.broker.log_records(TOPIC, p).unwrap());
        let log: Vec<i32> = log.map(|r| number(r.value.as_deref())).collect();
        assert_eq!(log.len(), acknowledged.len(), "each once");
        assert_eq!(log.into_iter().collect::<BTreeSet<_>>(), acknowledged);
        producer.close(PATIENCE).await.unwrap();
    }
}

fn number(value: Option<&[u8]>) -> i32 {
    std::str::from_utf8(value.unwrap()).unwrap().parse().unwrap()
}

/// `Client::connect` tells of an outage; whoever calls it again gets through when it is over.
async fn until_it_works<T, F: Future<Output = ailurus::Result<T>>>(mut call: impl FnMut() -> F) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(e) => assert!(e.is_retriable() || e.kind() != ailurus::ErrorKind::Authentication, "{e:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
