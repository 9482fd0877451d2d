//! Tests whose plan is drawn from a seed: runs many seeds at once and reports those that failed.

use std::collections::BTreeMap;
use std::env;
use std::fmt::{Debug, Display, Write as _};
use std::io::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Number of times that each fault fired, by `request: kind`.
pub type FaultCounts = BTreeMap<String, u64>;

/// Concurrent seeds per core: they mostly wait.
const SEEDS_PER_CORE: usize = 8;

/// A test that runs the plan of each seed.
pub struct SeededTest {
    /// Names of the test binary and the test, for the command that repeats a seed.
    pub binary: &'static str,
    pub test: &'static str,
    /// Environment variable that selects one seed; with an S appended, the number of seeds.
    pub variable: &'static str,
    pub default_seeds: u64,
}

/// Sums up the outcomes of all seeds. Its text ends the line that the test prints.
pub trait Summary: Default + Display {
    type Outcome: Send;

    /// Adds an outcome; `Err` says why its seed failed.
    fn add(&mut self, outcome: Self::Outcome) -> Result<(), String>;

    /// Fails if a kind of fault never fired, and so tests nothing. Called where at least
    /// [`SeededTest::default_seeds`] ran: a rare fault may be missing from fewer.
    fn assert_coverage(&self, seeds: usize);
}

/// Runs the seeds of a test, and fails if one of them failed. Does nothing against a real broker:
/// the faults are the embedded one's.
pub fn run_seeds<S: Summary, P: Debug>(
    test: &SeededTest,
    plan: impl Fn(u64) -> P + Sync,
    run: impl Fn(P) -> S::Outcome + Sync,
) {
    if crate::has_real_broker() {
        return;
    }
    let started = Instant::now();
    let single = number(test.variable);
    let range = match single {
        Some(seed) => seed..seed + 1,
        None => 0..number(&format!("{}S", test.variable)).unwrap_or(test.default_seeds),
    };
    if let Some(seed) = single {
        print(&format!("{:#?}\n", plan(seed)));
    }
    let (mut summary, mut failures) = (S::default(), Vec::new());
    let outcomes = run_concurrently(range, |seed| run(plan(seed)));
    let seeds = outcomes.len();
    for (seed, outcome) in outcomes {
        let panicked = || format!("panicked, see above\n{:?}", plan(seed));
        if let Err(error) = outcome.map_err(|_| panicked()).and_then(|outcome| summary.add(outcome)) {
            failures.push(format!("seed {seed}: {error}\n{}\n", test.replay_command(seed)));
        }
    }
    let (binary, failed, time) = (test.binary, failures.len(), started.elapsed());
    print(&format!("\n{binary}: {seeds} seeds, {failed} failed, in {time:.1?}; {summary}\n"));
    assert!(failures.is_empty(), "{failed} seeds failed:\n{}", failures.join("\n"));
    if seeds as u64 >= test.default_seeds {
        summary.assert_coverage(seeds);
    }
}

/// Runs a seed, on several threads or on one.
pub fn block_on<T>(threads: bool, run: impl Future<Output = T>) -> T {
    let mut builder = if threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.worker_threads(2).enable_all().build().expect("a runtime").block_on(run)
}

impl SeededTest {
    fn replay_command(&self, seed: u64) -> String {
        let versions =
            env::var("AILURUS_TEST_EMBEDDED").map_or(String::new(), |v| format!("AILURUS_TEST_EMBEDDED={v} "));
        let Self { binary, test, variable, .. } = self;
        format!("repeat it: {versions}{variable}={seed} cargo test --test {binary} {test} -- --nocapture")
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// Runs seeds on several threads; returns their outcomes by seed.
fn run_concurrently<T: Send>(
    range: Range<u64>,
    run: impl Fn(u64) -> T + Sync,
) -> BTreeMap<u64, std::thread::Result<T>> {
    let (next, outcomes) = (AtomicU64::new(range.start), Mutex::new(BTreeMap::new()));
    let threads = SEEDS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    outcomes.lock().unwrap().insert(seed, outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// Prints past the test harness, which hides the output of tests that pass.
fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

pub fn add_counts(total: &mut FaultCounts, counts: &FaultCounts) {
    for (kind, count) in counts {
        *total.entry(kind.clone()).or_default() += count;
    }
}

/// Formats the total, and a line for each request.
pub fn format_counts(counts: &FaultCounts) -> String {
    let mut text = format!("{} faults and events:", counts.values().sum::<u64>());
    let mut group = "";
    for (name, count) in counts {
        let (api, kind) = name.split_once(": ").unwrap_or(("cluster", name));
        let _ = match group == api {
            true => write!(text, ", {kind} {count}"),
            false => write!(text, "\n  {api}: {kind} {count}"),
        };
        group = api;
    }
    text
}
