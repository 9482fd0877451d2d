//! The example `bill_orders` is killed at every step and at any time, its database too: each order is
//! billed once, and each bill is in the ledger once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ailurus::{Headers, ProducerRecord};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::{Cluster, PATIENCE, server, take};

/// Steps of `bill_orders`.
const STEPS: [&str; 9] = [
    "order claimed",
    "bill written",
    "outbox written",
    "order committed",
    "rows fetched",
    "records acknowledged",
    "rows removed",
    "bill claimed",
    "bill committed",
];
const CUSTOMERS: i64 = 5;
const ORDERS_PER_ROUND: i64 = 30;

/// The end of one run.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// At a step, when it is reached for the nth time.
    AtStep(&'static str, u32),
    /// After a time.
    After(Duration),
    /// The database, after a time, and then the process.
    Database(Duration, Duration),
}

/// Returns the kills of a seed: two at each step, and as many at any time.
fn plan(seed: u64) -> Vec<Kill> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut kills = Vec::new();
    for step in STEPS {
        // Batches are few: the relay may need one for all rows.
        let most = if step.starts_with("row") || step.starts_with("records") { 1 } else { 12 };
        kills.push(Kill::AtStep(step, 1));
        kills.push(Kill::AtStep(step, rng.u32(1..=most)));
    }
    let mut time = || Duration::from_micros(rng.u64(0..400_000));
    kills.extend((0..12).map(|_| Kill::After(time())));
    kills.extend((0..6).map(|_| Kill::Database(time(), time())));
    rng.shuffle(&mut kills);
    kills
}

struct World {
    cluster: Cluster,
    database: server::Database,
    observer: Client,
    /// Number of orders sent.
    orders: i64,
    /// Records of these: some twice.
    records: u64,
    rng: fastrand::Rng,
}

impl World {
    fn spawn(&self, kill: Option<Kill>) -> Child {
        let test = std::env::current_exe().unwrap();
        let example: PathBuf = test.ancestors().nth(2).unwrap().join("examples/bill_orders");
        assert!(example.exists(), "{} is missing: cargo build --examples", example.display());
        let mut command = Command::new(example);
        command.env("DATABASE", &self.database.config).env("BROKERS", self.cluster.broker.bootstrap());
        command.env("PREFIX", self.cluster.broker.prefix()).env_remove("KILL_AT");
        if let Some(Kill::AtStep(step, n)) = kill {
            command.env("KILL_AT", format!("{step}:{n}"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    /// Sends orders: numbers of each customer in their order, and a fourth of them twice, one of
    /// them behind the next ones, as a producer without idempotence may.
    async fn send_orders(&mut self) {
        let producer = self.cluster.client.producer().start().unwrap();
        let topic = self.cluster.broker.topic("orders");
        let mut again = Vec::new();
        let mut numbers: Vec<_> = (self.orders..self.orders + ORDERS_PER_ROUND).collect();
        self.orders += ORDERS_PER_ROUND;
        for n in numbers.clone() {
            if self.rng.u8(..) < 64 {
                again.push(n);
            }
        }
        numbers.append(&mut again);
        self.records += numbers.len() as u64;
        for n in numbers {
            let (customer, number) = (format!("customer-{}", n % CUSTOMERS), (n / CUSTOMERS).to_string());
            let headers = Headers::new().with("ce_id", format!("order-{n}")).with("ce_source", "shop");
            let record = ProducerRecord::to(&topic).key(&customer).value(&number).headers(&headers);
            producer.send(record).await.unwrap().await.unwrap();
        }
        producer.close(PATIENCE).await.unwrap();
    }

    async fn run(&mut self, kill: Kill) {
        self.send_orders().await;
        let mut child = self.spawn(Some(kill));
        match kill {
            Kill::AtStep(..) => {}
            Kill::After(time) => tokio::time::sleep(time).await,
            Kill::Database(time, then) => {
                tokio::time::sleep(time).await;
                self.database.restart_server().await;
                self.observer = self.database.connect().await;
                tokio::time::sleep(then).await;
            }
        }
        if !matches!(kill, Kill::AtStep(..)) {
            // It has ended already if its database was not there at its start.
            _ = child.start_kill();
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{kill:?} is not reached")).unwrap();
        let died = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
        let no_database = matches!(kill, Kill::Database(..)) && output.status.code() == Some(1);
        assert!(died || no_database, "{kill:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the numbers of each customer in the order of the rows of a table.
    async fn numbers(&self, table: &str) -> BTreeMap<String, Vec<i64>> {
        let rows =
            self.observer.query(&format!("SELECT customer, number FROM {table} ORDER BY id"), &[]).await.unwrap();
        let mut numbers = BTreeMap::<String, Vec<i64>>::new();
        for row in rows {
            numbers.entry(row.get(0)).or_default().push(row.get(1));
        }
        numbers
    }

    async fn count(&self, table: &str) -> i64 {
        self.observer.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }

    /// Runs without a kill until all is done, and shuts down.
    async fn finish(&mut self) {
        let mut child = self.spawn(None);
        let done = async {
            while self.count("ledger").await < self.orders || self.count("ailurus_outbox").await > 0 {
                assert_eq!(child.try_wait().unwrap(), None, "the example has ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(2 * PATIENCE, done).await.is_err() {
            _ = child.start_kill();
            let output = child.wait_with_output().await.unwrap();
            let (bills, ledger) = (self.count("bills").await, self.count("ledger").await);
            let errors = String::from_utf8_lossy(&output.stderr);
            panic!("{} orders, {bills} bills, {ledger} in the ledger\n{errors}", self.orders);
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it shuts down").unwrap();
        assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_twice_whatever_is_killed() {
    let Some(database) = server::database_to_restart().await else { return };
    let seed = std::env::var("AILURUS_KILL_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (begun, kills) = (Instant::now(), plan(seed));
    let cluster = Cluster::start().await;
    for topic in ["orders", "bills"] {
        cluster.topic(topic).await;
    }
    let observer = database.migrated().await;
    let rng = fastrand::Rng::with_seed(seed);
    let mut world = World { cluster, database, observer, orders: 0, records: 0, rng };
    for kill in &kills {
        world.run(*kill).await;
    }
    world.finish().await;

    let expected: BTreeMap<_, Vec<_>> =
        (0..CUSTOMERS).map(|c| (format!("customer-{c}"), (0..world.orders / CUSTOMERS).collect())).collect();
    assert_eq!(world.numbers("bills").await, expected, "each order is billed once, in order");
    assert_eq!(world.numbers("ledger").await, expected, "each bill is in the ledger once, in order");
    // Records of the outbox: each bill at least once.
    let topic = world.cluster.broker.topic("bills");
    let (mut events, mut records, mut stream) = (BTreeSet::new(), 0, world.cluster.reader(&topic).await);
    while events.len() < usize::try_from(world.orders).unwrap() {
        let message = take(&mut stream, 1).await.remove(0);
        events.insert(message.headers.get_str("ce_id").unwrap().to_owned());
        records += 1;
    }

    assert!(records > events.len(), "no record was sent again, though a relay ended before it removed its rows");

    let mut line = String::new();
    let at_steps = kills.iter().filter(|kill| matches!(kill, Kill::AtStep(..))).count();
    let databases = kills.iter().filter(|kill| matches!(kill, Kill::Database(..))).count();
    let restarts = if std::env::var_os("AILURUS_TEST_POSTGRES").is_some() { 0 } else { databases };
    writeln!(
        line,
        "\nkill -9: seed {seed}, {} kills ({at_steps} at {} steps), {restarts} restarts of PostgreSQL; {} orders in {} \
         records: billed once each, {records} records of {} bills, in the ledger once each; lost 0, twice 0, out of order 0, \
         in {:.1?}",
        kills.len(),
        STEPS.len(),
        world.orders,
        world.records,
        events.len(),
        begun.elapsed(),
    )
    .unwrap();
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
