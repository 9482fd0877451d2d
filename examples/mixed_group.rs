//! One consumer group with members of several clients: two of `ailurus consume`, one of Kafka's console consumer (Java), one
//! of kcat (librdkafka). They are stopped, killed and started again while numbered records are written; what each of them
//! prints is held against what was acknowledged.
//!
//! ```text
//! cargo run --example mixed_group -- BOOTSTRAP SECONDS [RECORDS_PER_SECOND]
//! ```
//!
//! Environment: `AILURUS`, the command's binary; `KAFKA_LIBS`, the folder with Kafka's jars.
//! `tests/kafka/group_faults.rs` runs this while it kills the group's coordinator. The last line is the
//! result; the exit code is 1 if a record was not handled by anyone, was handled long before one in
//! front of it, if a partition had two owners, or if the offsets that the group has committed are not
//! the ends of the log at the end.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ailurus::{Admin, Client, Config, Delivery, Error, ErrorKind, Producer, ProducerRecord, Result};
use members::{Kind, Setting, signal, start};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

mod members;

const TOPIC: &str = "mixed";
const GROUP: &str = "mixed-group";
const PARTITIONS: i32 = 6;
const KEYS: u64 = 50;
/// Maximum time until the group is stable after the last disturbance.
const PATIENCE: Duration = Duration::from_secs(90);
/// Lines of two members arrive through two pipes: a record that is seen this much before its predecessor was really
/// handled before it.
const SLACK: Duration = Duration::from_secs(1);

const SLOTS: [Kind; 4] = [Kind::Ailurus, Kind::Ailurus, Kind::Java, Kind::Librdkafka];

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Some(default), |text| text.parse().ok());
    let (Some(bootstrap), Some(seconds), Some(rate)) = (args.first(), number(1, 60), number(2, 500)) else {
        println!("usage: mixed_group BOOTSTRAP SECONDS [RECORDS_PER_SECOND]");
        return ExitCode::from(2);
    };
    match run(bootstrap, Duration::from_secs(seconds), rate).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("mixed_group: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the history has no error.
async fn run(bootstrap: &str, time: Duration, rate: u64) -> Result<bool> {
    let config = Config::builder().brokers(bootstrap).request_timeout(Duration::from_secs(3)).build()?;
    let client = Client::connect(config).await?;
    let admin = Admin::new(&client);
    admin.create_topic(TOPIC, PARTITIONS, Some(3)).await?;
    let mut settings = client.config().producer.clone();
    settings.delivery_timeout = PATIENCE;
    let producer = client.producer().config(settings).start()?;

    let (lines, printed) = mpsc::unbounded_channel();
    let mut members = Members { bootstrap: bootstrap.to_owned(), lines, slots: Vec::new(), counts: Counts::default() };
    for kind in SLOTS {
        let slot = members.start(kind)?;
        members.slots.push(slot);
    }
    let took_part = Arc::new(AtomicBool::new(false));
    let history = tokio::spawn(note(printed, Arc::clone(&took_part)));
    let writer = tokio::spawn(write(producer, time, rate, took_part));
    let (mut owners, mut next) = (Owners::default(), Instant::now() + Duration::from_secs(10));
    let end = Instant::now() + time;
    let mut ticks = interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !writer.is_finished() {
        ticks.tick().await;
        owners.look(&admin).await;
        members.bring_back()?;
        if (next..end).contains(&Instant::now()) {
            members.disturb().await?;
            next = Instant::now() + Duration::from_secs(fastrand::u64(3..7));
        }
    }
    let acknowledged = writer.await.map_err(|e| Error::with_source(ErrorKind::Closed, "the writer ended", e))??;
    // Stopped members return; all is read and committed; then all leave.
    let done = timeout(PATIENCE, async {
        while !settled(&admin).await {
            owners.look(&admin).await;
            members.bring_back()?;
            sleep(Duration::from_millis(500)).await;
        }
        Ok::<_, Error>(())
    })
    .await;
    if let Ok(outcome) = &done {
        outcome.clone()?;
    }
    let counts = members.end().await;
    let seen = history.await.map_err(|e| Error::with_source(ErrorKind::Closed, "the watch ended", e))?;
    let offsets = admin.describe_group(GROUP).await?.offsets;
    client.close().await;
    Ok(report(&acknowledged, &seen, &owners, &counts, done.is_ok(), offsets.iter().map(|o| o.lag.unwrap_or(1)).sum()))
}

/// Returns whether the group has committed every offset.
async fn settled(admin: &Admin) -> bool {
    let Ok(group) = admin.describe_group(GROUP).await else { return false };
    group.offsets.len() == PARTITIONS as usize && group.offsets.iter().all(|o| o.lag == Some(0))
}

fn report(
    acknowledged: &BTreeSet<(i32, i64)>,
    seen: &Seen,
    owners: &Owners,
    counts: &Counts,
    settled: bool,
    lag: i64,
) -> bool {
    let lost: Vec<_> = acknowledged.iter().filter(|place| !seen.first.contains_key(place)).collect();
    let mut early = Vec::new();
    for ((p, offset), at) in &seen.first {
        let before = offset.checked_sub(1).and_then(|before| seen.first.get(&(*p, before)));
        if before.is_some_and(|before| *before > *at + SLACK) {
            early.push((p, offset));
        }
    }
    for (what, found) in
        [("lost", format!("{:?}", lost.iter().take(5).collect::<Vec<_>>())), ("early", format!("{early:?}"))]
    {
        if found.len() > 2 {
            println!("{what}: {found}");
        }
    }
    owners.twice.iter().take(5).for_each(|text| println!("two owners: {text}"));
    println!("by client: {:?}; assignors of the group: {:?}", seen.by_kind, owners.assignors);
    println!(
        "{} acknowledged, {} handled ({} again), {} lost, {} out of order, {} times two owners in {} looks, lag {lag} at the end; \
         members: {} started, {} stopped, {} killed, {} ended by themselves",
        acknowledged.len(),
        seen.lines,
        seen.again,
        lost.len(),
        early.len(),
        owners.twice.len(),
        owners.looks,
        counts.started,
        counts.stopped,
        counts.killed,
        counts.ended
    );
    if !seen.all_took_part() {
        println!("a client handled nothing at all");
    }
    lost.is_empty() && early.is_empty() && owners.twice.is_empty() && settled && lag == 0 && seen.all_took_part()
}

/// Writes for a time, and until all clients took part, for which a busy machine may need longer; where each record that was
/// acknowledged is.
async fn write(
    producer: Producer,
    time: Duration,
    rate: u64,
    took_part: Arc<AtomicBool>,
) -> Result<BTreeSet<(i32, i64)>> {
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    let (mut sent, mut waiting): (u64, Vec<Delivery>) = (0, Vec::new());
    while began.elapsed() < time || (!took_part.load(Ordering::Relaxed) && began.elapsed() < time + PATIENCE) {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let (key, value) = (format!("key-{}", sent % KEYS), sent.to_string());
            waiting.push(producer.send(ProducerRecord::to(TOPIC).key(&key).value(&value)).await?);
            sent += 1;
        }
    }
    let mut places = BTreeSet::new();
    for delivery in waiting {
        let ack = delivery.await?;
        places.extend(ack.offset.map(|offset| (ack.partition, offset)));
    }
    producer.close(PATIENCE).await?;
    Ok(places)
}

/// Owners of the partitions whenever the group was stable.
#[derive(Default)]
struct Owners {
    looks: u64,
    assignors: BTreeSet<String>,
    twice: Vec<String>,
}

impl Owners {
    async fn look(&mut self, admin: &Admin) {
        let Ok(group) = admin.describe_group(GROUP).await else { return }; // its coordinator may be down
        if group.state.as_str() != "Stable" {
            return;
        }
        self.looks += 1;
        self.assignors.insert(group.assignor);
        let mut owners: BTreeMap<i32, String> = BTreeMap::new();
        for member in group.members {
            for p in member.assignment.into_values().flatten() {
                if let Some(other) = owners.insert(p, member.member_id.clone()) {
                    self.twice.push(format!("partition {p}: {other} and {}", member.member_id));
                }
            }
        }
    }
}

/// A line that a member printed.
struct Line {
    kind: Kind,
    partition: i32,
    offset: i64,
}

#[derive(Default)]
struct Seen {
    /// When each record was handled first.
    first: BTreeMap<(i32, i64), Instant>,
    by_kind: BTreeMap<Kind, u64>,
    lines: u64,
    again: u64,
}

/// Records the lines of members; returns when all clients took part.
async fn note(mut printed: mpsc::UnboundedReceiver<Line>, all: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while let Some(line) = printed.recv().await {
        seen.lines += 1;
        *seen.by_kind.entry(line.kind).or_default() += 1;
        if seen.all_took_part() {
            all.store(true, Ordering::Relaxed);
        }
        let mut again = true;
        seen.first.entry((line.partition, line.offset)).or_insert_with(|| {
            again = false;
            Instant::now()
        });
        seen.again += u64::from(again);
    }
    seen
}

impl Seen {
    fn all_took_part(&self) -> bool {
        SLOTS.iter().all(|kind| self.by_kind.contains_key(kind))
    }
}

#[derive(Default)]
struct Counts {
    started: u32,
    stopped: u32,
    killed: u32,
    ended: u32,
}

/// The processes.
struct Members {
    bootstrap: String,
    lines: mpsc::UnboundedSender<Line>,
    slots: Vec<Slot>,
    counts: Counts,
}

struct Slot {
    kind: Kind,
    child: Child,
    /// True if it has handled a record.
    at_work: Arc<AtomicBool>,
    /// Time of its restart, if it was stopped.
    back: Option<Instant>,
}

impl Members {
    fn start(&mut self, kind: Kind) -> Result<Slot> {
        let (session, heartbeat) = (Duration::from_secs(6), Duration::from_millis(500));
        let setting = Setting { bootstrap: &self.bootstrap, topic: TOPIC, group: GROUP, session, heartbeat };
        let (child, output) = start(kind, &setting)?;
        let lines = self.lines.clone();
        let at_work = Arc::new(AtomicBool::new(false));
        let works = Arc::clone(&at_work);
        tokio::spawn(members::watch(kind, output, move |partition, offset| {
            works.store(true, Ordering::Relaxed);
            _ = lines.send(Line { kind, partition, offset }); // the counting task may have ended
        }));
        self.counts.started += 1;
        Ok(Slot { kind, child, at_work, back: None })
    }

    /// Starts those that have ended and whose time has come.
    fn bring_back(&mut self) -> Result<()> {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            let Ok(Some(_)) = slot.child.try_wait() else { continue };
            let kind = slot.kind;
            if slot.back.is_none_or(|back| back <= Instant::now()) {
                self.counts.ended += u32::from(slot.back.is_none());
                self.slots[i] = self.start(kind)?;
            }
        }
        Ok(())
    }

    /// Stops or kills one of those that run, none before it has handled something. kcat is always killed: stopped, it
    /// leaves out the record that it has just taken, whose offset it commits all the same.
    async fn disturb(&mut self) -> Result<()> {
        let at_work = self.slots.iter_mut().filter_map(|slot| {
            let runs = slot.at_work.load(Ordering::Relaxed) && slot.child.try_wait().is_ok_and(|ended| ended.is_none());
            runs.then_some(slot)
        });
        let Some(slot) = fastrand::choice(at_work.collect::<Vec<_>>()) else { return Ok(()) };
        let kill = slot.kind == Kind::Librdkafka || fastrand::bool();
        signal(&slot.child, if kill { "KILL" } else { "TERM" }).await;
        slot.back = Some(Instant::now() + Duration::from_secs(fastrand::u64(1..4)));
        self.counts.killed += u32::from(kill);
        self.counts.stopped += u32::from(!kill);
        println!("{} a member of {:?}", if kill { "kill" } else { "stop" }, slot.kind);
        Ok(())
    }

    async fn end(mut self) -> Counts {
        for slot in &mut self.slots {
            signal(&slot.child, "TERM").await;
            if timeout(Duration::from_secs(20), slot.child.wait()).await.is_err() {
                println!("a member of {:?} does not end", slot.kind);
            }
        }
        self.counts
    }
}
