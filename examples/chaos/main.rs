//! Everything at once: a steady producer, a group of handlers in the order of keys whose records fail and become dead letters, and a group of
//! the `consumer` protocol, all of which log in by a token that lapses. Members are stopped, killed and started again;
//! `scripts/chaos` kills and pauses the nodes meanwhile. What each of them says is held against each other at the end.
//!
//! ```text
//! cargo run --example chaos -- PLAINTEXT_BOOTSTRAP SASL_BOOTSTRAP SECONDS [RECORDS_PER_SECOND]
//! ```
//!
//! The topics `chaos` and `single` must exist and be empty. The producer and the members are processes of this program, so that they
//! can die. The last line is the result; the exit code is 1 if a record is lost, is handled twice though nobody died, or comes
//! before one of its key that is in front of it, if a commit is ahead of what has ended, or if memory grows.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

mod history;
mod roles;
mod token;

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use ailurus::{Admin, Client, Config, Error, ErrorKind, Result};
use history::{History, Line, SLACK};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const TOPICS: [&str; 2] = ["chaos", "single"];
/// Maximum time until cluster and groups are stable after the last disturbance.
const PATIENCE: Duration = Duration::from_secs(180);
/// Duration of a member's pause: longer than its session.
const SLEEP: Duration = Duration::from_secs(14);
/// A process has taken what memory it needs after this time,
const WARM: Duration = Duration::from_secs(30);
/// and may take so much more from then on, in KiB: what an outage has wait in the producer's buffer, and again as much.
const GROWTH: u64 = 32 << 10;

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Writes.
    Producer,
    /// A member of the classic protocol; some of its records fail.
    Classic,
    /// A member of the `consumer` protocol.
    Modern,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Classic => "chaos-classic",
            Self::Modern => "chaos-modern",
        }
    }

    const GROUPS: [Self; 2] = [Self::Classic, Self::Modern];
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Some(default), |text| text.parse().ok());
    let outcome = match (args.first().map(String::as_str), args.get(1)) {
        (Some("producer"), Some(rate)) => roles::produce(rate.parse().expect("a rate")).await.map(|()| true),
        (Some("member"), Some(group)) => roles::handle(group).await.map(|()| true),
        (Some(plain), Some(sasl)) => match (number(2, 60), number(3, 300)) {
            (Some(seconds), Some(rate)) => tokio::select! {
                outcome = run(plain, sasl, Duration::from_secs(seconds), rate) => outcome,
                () = roles::terminated() => Ok(false), // the processes end with it
            },
            _ => return usage(),
        },
        _ => return usage(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    println!("usage: chaos PLAINTEXT_BOOTSTRAP SASL_BOOTSTRAP SECONDS [RECORDS_PER_SECOND]");
    ExitCode::from(2)
}

/// Returns whether the history has no error.
async fn run(plain: &str, sasl: &str, time: Duration, rate: u64) -> Result<bool> {
    let config = Config::builder().brokers(plain).request_timeout(Duration::from_secs(3)).build()?;
    let client = Client::connect(config).await?;
    let admin = Admin::new(&client);
    let (lines, mut received) = mpsc::unbounded_channel();
    let token_file = env::current_dir().unwrap_or_default().join("token");
    let mut all = Processes {
        sasl: sasl.to_owned(),
        token: token_file.clone(),
        rate,
        lines,
        slots: Vec::new(),
        ids: 0,
        counts: [0; 5],
        memory: Memory::default(),
    };
    for role in [Role::Producer, Role::Classic, Role::Classic, Role::Classic, Role::Modern, Role::Modern] {
        all.start(role, true)?;
    }
    let mut history = History::default();
    let began = Instant::now();
    let (end, mut next) = (began + time, began + Duration::from_secs(15));
    let mut token = token::Source::new(token_file, began, end)?;
    let mut ticks = interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut waits_since, mut heard) = (None, Vec::new());
    loop {
        tokio::select! {
            count = received.recv_many(&mut heard, 10_000) => {
                if count == 0 {
                    break;
                }
                heard.drain(..).for_each(|(process, line)| history.note(process, line));
            }
            _ = ticks.tick() => {
                token.tick(Instant::now())?;
                all.bring_back(&mut history)?;
                all.wake().await;
                all.measure();
                // The last query may have taken long: lines that arrived meanwhile come first.
                while let Ok((process, line)) = received.try_recv() {
                    history.note(process, line);
                }
                history.check_commits(SLACK);
                for role in Role::GROUPS {
                    if let Ok(group) = admin.describe_group(role.name()).await {
                        history.committed(role, group.offsets.into_iter().filter_map(|o| Some((o.topic, o.partition, o.committed?))));
                    }
                }
                if Instant::now() < end {
                    if Instant::now() > next {
                        all.disturb(&mut history).await;
                        next = Instant::now() + Duration::from_secs(fastrand::u64(6..15));
                    }
                } else if waits_since.is_none() {
                    all.end(Role::Producer).await;
                    waits_since = Some(Instant::now());
                } else if all.has_none(Role::Producer) && history.is_settled() || waits_since.is_some_and(|at: Instant| at.elapsed() > PATIENCE) {
                    break;
                }
            }
        }
    }
    for role in Role::GROUPS {
        all.end(role).await;
    }
    // What they still say.
    let (counts, memory) = (all.counts, std::mem::take(&mut all.memory));
    all.wait().await;
    drop(all);
    while let Some((process, line)) = received.recv().await {
        history.note(process, line);
    }
    sleep(Duration::from_secs(1)).await;
    for role in Role::GROUPS {
        let group = admin.describe_group(role.name()).await?;
        history.committed(role, group.offsets.into_iter().filter_map(|o| Some((o.topic, o.partition, o.committed?))));
    }
    history.check_commits(Duration::ZERO);
    roles::read_letters(&client, &mut history).await?;
    client.close().await;
    let [started, stopped, killed, paused, ended] = counts;
    let (healthy, text) = history.report();
    let (flat, grown) = memory.report();
    println!(
        "{text}; processes: {started} started, {stopped} stopped, {killed} killed, {paused} paused, \
         {ended} ended by themselves; token away {} times; {grown}",
        token.times_away()
    );
    Ok(healthy && flat && ended == 0)
}

/// The processes that run.
struct Processes {
    sasl: String,
    token: PathBuf,
    rate: u64,
    lines: mpsc::UnboundedSender<(u32, Line)>,
    slots: Vec<Slot>,
    ids: u32,
    /// Started, stopped, killed, paused, ended by themselves.
    counts: [u32; 5],
    memory: Memory,
}

struct Slot {
    id: u32,
    role: Role,
    child: Child,
    since: Instant,
    /// Time of its restart after a stop; none if it stays stopped.
    back: Option<Option<Instant>>,
    /// The first of its role is left alone, to see its memory over a long time.
    protected: bool,
    /// When it is woken, while it is paused.
    wakes: Option<Instant>,
}

impl Processes {
    fn start(&mut self, role: Role, first: bool) -> Result<()> {
        let program = env::current_exe().map_err(|e| Error::with_source(ErrorKind::Config, "who am I", e))?;
        let mut command = Command::new(program);
        match role {
            Role::Producer => command.args(["producer", &self.rate.to_string()]),
            _ => command.args(["member", role.name()]),
        };
        let token = self.token.display().to_string();
        command.envs([
            ("REDPANDA_BROKERS", &*self.sasl),
            ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"),
            ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
            ("REDPANDA_SASL_OAUTH_TOKEN_FILE", &token),
            ("REDPANDA_REQUEST_TIMEOUT", "3000"),
            ("REDPANDA_CONNECT_TIMEOUT", "3000"),
            ("REDPANDA_DELIVERY_TIMEOUT", "180000"),
            ("REDPANDA_SESSION_TIMEOUT", "10000"),
            ("REDPANDA_HEARTBEAT_INTERVAL", "1000"),
            ("REDPANDA_AUTO_OFFSET_RESET", "earliest"),
            ("REDPANDA_HANDLER_ORDERING", "key"),
            ("REDPANDA_HANDLER_CONCURRENCY", "64"),
            ("REDPANDA_MAX_ATTEMPTS", "3"),
            ("REDPANDA_GROUP_PROTOCOL", if role == Role::Modern { "consumer" } else { "classic" }),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| Error::with_source(ErrorKind::Config, "no process", e))?;
        self.ids += 1;
        self.counts[0] += 1;
        let (id, lines) = (self.ids, self.lines.clone());
        let mut output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                match Line::parse(role, &line) {
                    Some(line) => _ = lines.send((id, line)), // it is received until the end
                    None => println!("process {id} ({}): {line}", role.name()),
                }
            }
        });
        let protected = first && !self.slots.iter().any(|slot| slot.role == role);
        self.slots.push(Slot { id, role, child, since: Instant::now(), back: None, protected, wakes: None });
        Ok(())
    }

    /// Starts those that have ended and whose time has come.
    fn bring_back(&mut self, history: &mut History) -> Result<()> {
        for i in (0..self.slots.len()).rev() {
            let slot = &mut self.slots[i];
            let Ok(Some(status)) = slot.child.try_wait() else { continue };
            let (role, again) = match slot.back {
                None => {
                    println!("process {} ({}) ended by itself: {status}", slot.id, slot.role.name());
                    self.counts[4] += 1;
                    history.died(slot.id);
                    (slot.role, true)
                }
                Some(None) => {
                    self.slots.remove(i);
                    continue;
                }
                Some(Some(at)) => (slot.role, at <= Instant::now()),
            };
            if again {
                self.slots.remove(i);
                self.start(role, false)?;
            }
        }
        Ok(())
    }

    /// Stops, kills or pauses a member that runs.
    async fn disturb(&mut self, history: &mut History) {
        let able = |slot: &&mut Slot| {
            !slot.protected
                && slot.back.is_none()
                && slot.wakes.is_none()
                && slot.since.elapsed() > Duration::from_secs(5)
        };
        let able: Vec<_> = self.slots.iter_mut().filter(able).collect();
        let Some(slot) = fastrand::choice(able) else { return };
        let (what, name) = [("stop", "TERM"), ("kill", "KILL"), ("pause", "STOP")][fastrand::usize(..3)];
        let now = Instant::now();
        let back = Some(Some(now + Duration::from_secs(fastrand::u64(1..8))));
        let count = match what {
            "stop" => {
                slot.back = back;
                1
            }
            "kill" => {
                slot.back = back;
                history.died(slot.id);
                2
            }
            _ => {
                slot.wakes = Some(now + SLEEP);
                history.slept(slot.id);
                3
            }
        };
        signal(&slot.child, name).await;
        self.counts[count] += 1;
        println!("{what} process {}, a member of {}", slot.id, slot.role.name());
    }

    /// Wakes those that have slept long enough.
    async fn wake(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.wakes.is_some_and(|at| at <= Instant::now())) {
            slot.wakes = None;
            signal(&slot.child, "CONT").await;
        }
    }

    async fn end(&mut self, role: Role) {
        for slot in self.slots.iter_mut().filter(|slot| slot.role == role) {
            slot.back = Some(None);
            signal(&slot.child, "TERM").await;
            signal(&slot.child, "CONT").await; // it may be paused
        }
    }

    fn has_none(&self, role: Role) -> bool {
        !self.slots.iter().any(|slot| slot.role == role)
    }

    async fn wait(&mut self) {
        for slot in &mut self.slots {
            if tokio::time::timeout(Duration::from_secs(45), slot.child.wait()).await.is_err() {
                println!("process {} ({}) does not end", slot.id, slot.role.name());
            }
        }
    }

    fn measure(&mut self) {
        for slot in &self.slots {
            let status = slot.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
            let resident = status.as_deref().and_then(|s| s.lines().find_map(|line| line.strip_prefix("VmRSS:")));
            if let Some(kib) = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()) {
                self.memory.sample(slot.id, slot.role, slot.since.elapsed(), kib);
            }
        }
    }
}

async fn signal(child: &Child, name: &str) {
    if let Some(pid) = child.id() {
        _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().await;
    }
}

/// The memory of each process: the most until it is warm, and the most since then, in KiB.
#[derive(Default)]
struct Memory(BTreeMap<(Role, u32), (u64, u64)>);

impl Memory {
    fn sample(&mut self, id: u32, role: Role, age: Duration, kib: u64) {
        let (warm, later) = self.0.entry((role, id)).or_default();
        let most = if age < WARM { warm } else { later };
        *most = (*most).max(kib);
    }

    /// Returns whether memory is constant, and a summary.
    fn report(&self) -> (bool, String) {
        let grown = |(warm, later): &(u64, u64)| later.saturating_sub(*warm);
        let most = self.0.values().map(|(warm, later)| *warm.max(later)).max().unwrap_or_default();
        let growth = self.0.values().map(grown).max().unwrap_or_default();
        for ((role, id), both) in self.0.iter().filter(|(_, both)| grown(both) > GROWTH) {
            println!("process {id} ({}) grew from {} to {} KiB", role.name(), both.0, both.1);
        }
        (growth <= GROWTH, format!("memory: {most} KiB at most, {growth} more than after {WARM:?}"))
    }
}
