//! An exactly-once pipeline of two members, each a process, that are killed, stopped and started again under a steady load;
//! then a comparison of what is visible with the inputs.
//!
//! ```text
//! cargo run --example steady_pipeline -- BOOTSTRAP TOPIC SECONDS [RECORDS_PER_SECOND]
//! ```
//!
//! The topic must exist and be empty. `tests/kafka/pipeline_faults.rs` runs this while it kills and pauses the brokers. One
//! member is static, with a transactional id of its own; the other is dynamic. The last line is the result; the exit code is 1
//! if outputs of an input are missing, doubled, partial or out of the order of its key, if an input has not exactly the dead
//! letter it should have, if the committed offsets are not the ends of the log, or a last stable offset stays behind the end.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "so does the checker, which is made for tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{DeadLetter, ExactlyOnce, Outputs};
use ailurus::{
    Admin, Client, Config, Error, ErrorKind, HandlerOrdering, Message, OffsetReset, Outcome, ProducerRecord, Records,
    Result, StartOffset, TopicPartition,
};
use ailurus_test_support::transaction_cluster::{await_stable, read_committed, read_until};
use ailurus_test_support::transaction_history::{OutputId, SetId, SetStatus, TransactionHistory};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Maximum time until everything is committed after the load, and until a member has ended.
const PATIENCE: Duration = Duration::from_secs(120);
/// The least that Kafka allows. A killed member keeps its partitions for so long.
const SESSION: Duration = Duration::from_secs(6);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from one end of a member to the next: long enough for the other to take over.
const BETWEEN: Duration = Duration::from_secs(9);
const POLL: Duration = Duration::from_millis(50);
const OUTPUT_PARTITIONS: i32 = 4;
const KEYS: u32 = 100;
const SIZE: usize = 100;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["member", bootstrap, topic, number] => member(bootstrap, topic, number).await.map(|()| true),
        [bootstrap, topic, seconds] => load(bootstrap, topic, seconds, "300").await,
        [bootstrap, topic, seconds, rate] => load(bootstrap, topic, seconds, rate).await,
        _ => Err(Error::new(ErrorKind::Config, "usage: steady_pipeline BOOTSTRAP TOPIC SECONDS [RECORDS_PER_SECOND]")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("steady_pipeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn config(bootstrap: &str) -> Result<Config> {
    // An unresponsive broker is disconnected after 3 s.
    let limit = Duration::from_secs(3);
    Config::builder().brokers(bootstrap).request_timeout(limit).connect_timeout(limit).build()
}

/// Handling of an input, by its number.
struct Handling {
    lane: u32,
    outputs: u32,
    failures: u32,
    is_poison: bool,
    time: Duration,
}

impl Handling {
    fn of(number: u32) -> Self {
        Self {
            lane: number % KEYS,
            outputs: 1 + number % 3,
            failures: u32::from(number % 7 == 0),
            is_poison: number % 50 == 49,
            time: Duration::from_millis(u64::from(number % 4)),
        }
    }

    fn of_record(value: Option<&[u8]>) -> Option<Self> {
        std::str::from_utf8(value?).ok()?.parse().ok().map(Self::of)
    }
}

fn output_topic(topic: &str) -> String {
    format!("{topic}.out")
}

fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

fn group_of(topic: &str) -> String {
    format!("{topic}-pipeline")
}

fn partitions_of(topic: &str, count: i32) -> Vec<TopicPartition> {
    (0..count).map(|p| TopicPartition::new(topic, p)).collect()
}

/// Runs a member until it is stopped by a signal, or its subscription ends with an error.
async fn member(bootstrap: &str, topic: &str, number: &str) -> Result<()> {
    let mut stop = signal(SignalKind::terminate()).expect("the signal can be watched");
    let client = Client::connect(config(bootstrap)?).await?;
    let output = output_topic(topic);
    // No other attempt, of this process or another, has this number.
    let attempts = Arc::new(AtomicU32::new(std::process::id().wrapping_mul(2_654_435_761)));
    let handler = move |message: Message| handle(output.clone(), Arc::clone(&attempts), message);
    let is_static = number == "0";
    let instance = is_static.then(|| format!("instance-{number}"));
    let mut settings = ExactlyOnce::new().transaction_timeout(TRANSACTION_TIMEOUT);
    if is_static {
        settings = settings.stable_id(format!("{}-{number}", group_of(topic)));
    }
    let mut consumer = client.config().consumer.clone();
    consumer.group_instance_id = instance;
    consumer.session_timeout = SESSION;
    consumer.heartbeat_interval = Duration::from_millis(500);
    consumer.rebalance_timeout = Duration::from_secs(10);
    consumer.offset_reset = OffsetReset::Earliest;
    let mut processor = client.config().processor.clone();
    processor.ordering = HandlerOrdering::Key;
    processor.retry_backoff = Duration::from_millis(20);
    let builder = client.processor(group_of(topic)).consumer_config(consumer).config(processor);
    let subscription = builder.exactly_once(settings).subscribe([topic], handler).await?;
    let ended = tokio::select! {
        ended = subscription.ended() => ended,
        _ = stop.recv() => subscription.shutdown().await.map(drop),
    };
    client.close().await;
    ended
}

async fn handle(topic: String, attempts: Arc<AtomicU32>, message: Message) -> Outcome {
    let Some(handling) = Handling::of_record(message.value.as_deref()) else {
        return Outcome::stop("an input is a number");
    };
    sleep(handling.time).await;
    if handling.is_poison {
        return Outcome::dead_letter("this input is never handled");
    }
    if message.attempt <= handling.failures {
        return Outcome::retry("this attempt fails");
    }
    let attempt = attempts.fetch_add(1, Ordering::Relaxed);
    let set = SetId { stream: message.partition as u32, sequence: message.offset as u64 };
    let output = |index| {
        let id = OutputId { set, lane: handling.lane, attempt, index, count: handling.outputs };
        let partition = (handling.lane + index) as i32 % OUTPUT_PARTITIONS;
        ProducerRecord::to(topic.clone()).partition(partition).value(id.value(SIZE))
    };
    Outcome::Send((0..handling.outputs).map(output).collect::<Outputs>())
}

/// Time at which outputs of each input partition were last read.
type Progress = Arc<Mutex<BTreeMap<u32, Instant>>>;

/// Runs the load; returns whether the history has no error.
async fn load(bootstrap: &str, topic: &str, seconds: &str, rate: &str) -> Result<bool> {
    let (Ok(seconds), Ok(rate)) = (seconds.parse(), rate.parse::<u32>()) else {
        return Err(Error::new(ErrorKind::Config, format!("{seconds} and {rate} must be numbers")));
    };
    let client = Client::connect(config(bootstrap)?).await?;
    let admin = Admin::new(&client);
    let inputs = partitions_of(topic, admin.describe_topic(topic).await?.partitions.len() as i32);
    admin.create_topic(&output_topic(topic), OUTPUT_PARTITIONS, Some(3)).await?;
    admin.create_topic(&dead_letter_topic(topic), 1, Some(3)).await?;
    let outputs = partitions_of(&output_topic(topic), OUTPUT_PARTITIONS);
    let written = [outputs.clone(), partitions_of(&dead_letter_topic(topic), 1)].concat();

    let stop = CancellationToken::new();
    let progress = Progress::default();
    let read = Arc::clone(&progress);
    let on_read = move |id: OutputId| _ = read.lock().unwrap().insert(id.set.stream, Instant::now());
    let reader = tokio::spawn(read_until(stop.clone(), client.clone(), outputs.clone(), on_read));
    let writing = CancellationToken::new();
    let writer = tokio::spawn(write(client.clone(), topic.to_owned(), rate, writing.clone()));
    let mut members = Members::start(bootstrap, topic, inputs.len(), progress);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() + BETWEEN < end {
        members.end_one().await;
        members.run_for(BETWEEN).await;
    }
    writing.cancel();
    let count = writer.await.expect("the writer does not panic")?;
    let mut problems = members.finish(&client, &inputs).await;

    let mut history = TransactionHistory::default();
    await_stable(&client, &written, PATIENCE, &mut history).await?;
    stop.cancel();
    history.readers.push(reader.await.expect("the reader does not panic"));
    read_committed(&client, &outputs, |batch| _ = history.log.read_batch(batch)).await;
    problems.extend(add_inputs(&client, topic, &inputs, &mut history).await?);
    client.close().await;
    let report = history.check();
    print!("{}", report.details());
    problems.iter().for_each(|problem| println!("{problem}"));
    println!("{count} inputs: {report}; {members}");
    Ok(report.is_clean() && problems.is_empty())
}

/// Writes numbered inputs; returns how many.
async fn write(client: Client, topic: String, rate: u32, stop: CancellationToken) -> Result<u32> {
    let producer = client.producer().linger(Duration::from_millis(5)).start()?;
    let mut pace = interval(Duration::from_secs(1) / rate.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut deliveries = Vec::new();
    for number in 0.. {
        if stop.run_until_cancelled(pace.tick()).await.is_none() {
            break;
        }
        let key = format!("key-{}", Handling::of(number).lane);
        let record = ProducerRecord::to(topic.as_str()).key(key).value(number.to_string());
        deliveries.push(producer.send(record).await?);
    }
    let count = deliveries.len() as u32;
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(PATIENCE).await?;
    Ok(count)
}

/// The members' processes.
struct Members<'a> {
    bootstrap: &'a str,
    topic: &'a str,
    inputs: usize,
    running: [Child; 2],
    progress: Progress,
    /// Time of the last kill, and the input partitions without outputs since then.
    waiting: Option<(Instant, BTreeSet<u32>)>,
    /// From each kill to the first outputs of the last input partition.
    takeovers: Vec<Duration>,
    kills: usize,
    stops: usize,
    restarts: usize,
}

impl<'a> Members<'a> {
    fn start(bootstrap: &'a str, topic: &'a str, inputs: usize, progress: Progress) -> Self {
        let running = [spawn(bootstrap, topic, 0), spawn(bootstrap, topic, 1)];
        let takeovers = Vec::new();
        Self { bootstrap, topic, inputs, running, progress, waiting: None, takeovers, kills: 0, stops: 0, restarts: 0 }
    }

    /// Ends a member and starts it again: each in turn is killed twice, then stopped.
    async fn end_one(&mut self) {
        let turn = self.kills + self.stops;
        let (number, is_kill) = (turn % 2, turn / 2 % 3 < 2);
        if is_kill {
            self.running[number].kill().await.expect("a child can be killed");
            self.waiting = Some((Instant::now(), (0..self.inputs as u32).collect()));
            self.kills += 1;
        } else {
            terminate(&self.running[number]).await;
            if timeout(PATIENCE, self.running[number].wait()).await.is_err() {
                println!("member {number} did not stop within {PATIENCE:?}");
            }
            self.stops += 1;
        }
        self.running[number] = spawn(self.bootstrap, self.topic, number);
    }

    /// Lets the members run; starts one again that ends by itself, as a service manager would.
    async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.note_takeover();
            self.restart_ended();
            sleep(POLL).await;
        }
    }

    fn restart_ended(&mut self) {
        for number in 0..self.running.len() {
            if let Ok(Some(status)) = self.running[number].try_wait() {
                println!("member {number} ended by itself: {status}");
                self.restarts += 1;
                self.running[number] = spawn(self.bootstrap, self.topic, number);
            }
        }
    }

    fn note_takeover(&mut self) {
        let Some((killed, waiting)) = &mut self.waiting else { return };
        let (progress, killed) = (self.progress.lock().unwrap(), *killed);
        // What was read within a moment of the kill may have been committed before it.
        let since = killed + Duration::from_millis(200);
        waiting.retain(|partition| progress.get(partition).is_none_or(|last| *last < since));
        if waiting.is_empty() {
            self.takeovers.push(killed.elapsed());
            self.waiting = None;
        }
    }

    /// Waits until all inputs are committed, and stops the members; returns what went wrong.
    async fn finish(&mut self, client: &Client, inputs: &[TopicPartition]) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut problems = Vec::new();
        loop {
            self.run_for(POLL).await;
            match uncommitted(client, self.topic, inputs).await {
                Ok(None) => break,
                Ok(Some(problem)) if Instant::now() >= end => {
                    problems.push(format!("after {PATIENCE:?}: {problem}"));
                    break;
                }
                Err(e) if Instant::now() >= end => {
                    problems.push(format!("after {PATIENCE:?}: {e:#}"));
                    break;
                }
                _ => {}
            }
        }
        for (number, child) in self.running.iter_mut().enumerate() {
            terminate(child).await;
            match timeout(PATIENCE, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                ended => problems.push(format!("member {number}, stopped: {ended:?}")),
            }
        }
        problems
    }
}

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, stops, restarts, .. } = self;
        write!(f, "members: {kills} killed, {stops} stopped, {restarts} ended by themselves")?;
        let mut takeovers = self.takeovers.clone();
        takeovers.sort();
        match takeovers[..] {
            [] => Ok(()),
            [.., longest] => {
                let median = takeovers[takeovers.len() / 2];
                write!(f, "; from a kill to new outputs of every partition: median {median:.1?}, longest {longest:.1?}")
            }
        }
    }
}

fn spawn(bootstrap: &str, topic: &str, number: usize) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args(["member", bootstrap, topic, &number.to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().expect("a member can be started")
}

async fn terminate(child: &Child) {
    if let Some(pid) = child.id() {
        _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    }
}

/// Returns the committed offset of each partition.
async fn committed(client: &Client, topic: &str) -> Result<BTreeMap<TopicPartition, i64>> {
    let group = Admin::new(client).describe_group(&group_of(topic)).await?;
    Ok(group
        .offsets
        .into_iter()
        .filter_map(|at| Some((TopicPartition::new(at.topic, at.partition), at.committed?)))
        .collect())
}

/// Returns an input partition that is not committed to its end, if there is one.
async fn uncommitted(client: &Client, topic: &str, inputs: &[TopicPartition]) -> Result<Option<String>> {
    let ends = Admin::new(client).list_offsets(inputs, StartOffset::Latest).await?;
    let committed = committed(client, topic).await?;
    let behind = ends.iter().find(|(partition, end)| **end > committed.get(partition).copied().unwrap_or(0));
    Ok(behind
        .map(|(partition, end)| format!("{partition}: {:?} is committed, the end is {end}", committed.get(partition))))
}

/// Adds the inputs and what the group has committed; returns dead letters that are missing, and those that should not be.
async fn add_inputs(
    client: &Client,
    topic: &str,
    inputs: &[TopicPartition],
    history: &mut TransactionHistory,
) -> Result<Vec<String>> {
    let mut letters = BTreeMap::<(i32, i64), usize>::new();
    let add_letters = |batch: &Records| {
        for record in &batch.records {
            let letter = DeadLetter::parse(&record.headers).expect("a dead letter has its headers");
            *letters.entry((letter.origin.partition, letter.origin.offset)).or_default() += 1;
        }
    };
    read_committed(client, &partitions_of(&dead_letter_topic(topic), 1), add_letters).await;
    let mut problems = Vec::new();
    let add_inputs = |batch: &Records| {
        for record in &batch.records {
            let handling = Handling::of_record(record.value.as_deref()).expect("an input is a number");
            let set = SetId { stream: batch.partition as u32, sequence: record.offset as u64 };
            history.set(set, SetStatus::Unknown, if handling.is_poison { 0 } else { handling.outputs });
            let found = letters.remove(&(batch.partition, record.offset)).unwrap_or(0);
            if found != usize::from(handling.is_poison) {
                problems.push(format!("{topic}-{}@{} has {found} dead letters", batch.partition, record.offset));
            }
        }
    };
    read_committed(client, inputs, add_inputs).await;
    if !letters.is_empty() {
        problems.push(format!("dead letters of no input: {letters:?}"));
    }
    for (partition, offset) in committed(client, topic).await? {
        history.committed_inputs(partition.partition as u32, offset as u64, []);
    }
    Ok(problems)
}
