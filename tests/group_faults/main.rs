//! A group whose members come, leave, hang and die, whose coordinator moves and whose requests are spoilt, by seeds, on the
//! embedded broker: what its members handle and commit is watched.
//!
//! `AILURUS_GROUP_SEEDS=3000` runs so many seeds instead of 300; `AILURUS_GROUP_SEED=17` runs that one alone and prints what it
//! decides. A seed decides everything but the timing of the machine, so a rare failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod member;
mod plan;
mod run;
mod watch;
mod watch_tests;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plan::Plan;
use run::{Fired, Outcome};
use watch::Problem;

const SEEDS: u64 = 300;
/// Seeds at a time: they mostly wait.
const AT_ONCE: usize = 24;

#[test]
fn no_fault_makes_a_group_lose_skip_or_share_a_record() {
    if env::var("AILURUS_TEST_BROKERS").is_ok_and(|b| !b.is_empty()) {
        return; // the faults are the embedded broker's
    }
    let began = Instant::now();
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let one = number("AILURUS_GROUP_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("AILURUS_GROUP_SEEDS").unwrap_or(SEEDS),
    };
    if let Some(seed) = one {
        say(&format!("{:#?}\n", Plan::of(seed)));
    }
    let mut total = Total::default();
    for (seed, outcome) in run_all(seeds) {
        total.add(seed, outcome);
    }
    say(&format!("\n{} in {:.1?}\n", total.summary(), began.elapsed()));
    assert!(total.failures.is_empty(), "{} seeds failed:\n{}", total.failures.len(), total.failures.join("\n"));
    if one.is_none() {
        total.assert_all_kinds();
    }
}

/// Past the test harness, which keeps back what a test prints that passes.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs the seeds, many at once; in their order. A panic is an outcome.
fn run_all(seeds: std::ops::Range<u64>) -> BTreeMap<u64, Result<Outcome, String>> {
    let (next, outcomes) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| run::run(Plan::of(seed))));
                    outcomes.lock().unwrap().insert(seed, outcome.map_err(|_| "it panicked, see above".to_owned()));
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

#[derive(Default)]
struct Total {
    seeds: usize,
    gentle: usize,
    once: usize,
    handled: u64,
    repeated: u64,
    rebalances: u64,
    lost: u64,
    late_commits: usize,
    problems: BTreeMap<Problem, usize>,
    fired: Fired,
    failures: Vec<String>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Result<Outcome, String>) {
        self.seeds += 1;
        let Outcome { gentle, once, watch, fired, late_commits } = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.failures.push(format!("seed {seed}: {why}{}", again(seed))),
        };
        self.gentle += usize::from(gentle);
        self.once += usize::from(once);
        self.handled += watch.handled;
        self.repeated += watch.repeated;
        self.rebalances += watch.rebalances;
        self.lost += watch.lost;
        self.late_commits += late_commits;
        for (problem, _) in Problem::ALL {
            *self.problems.entry(problem).or_default() += watch.count(problem);
        }
        for (kind, count) in &fired {
            *self.fired.entry(kind.clone()).or_default() += count;
        }
        let unfair = gentle && !once;
        if !watch.is_clean() || unfair {
            let unfair = if unfair { "a session was lost or a commit failed, though nothing gave cause\n" } else { "" };
            self.failures.push(format!(
                "seed {seed}: {watch}\n{}{unfair}fired: {fired:?}{}",
                watch.details(),
                again(seed)
            ));
        }
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "group faults: {} seeds ({} held to handling each record once), {} failed; {} records handled ({} of them again), \
             {} assignments, {} losses, {} commits carried out too late by a slow broker:",
            self.seeds,
            self.once,
            self.failures.len(),
            self.handled,
            self.repeated,
            self.rebalances,
            self.lost,
            self.late_commits,
        );
        for (i, (problem, name)) in Problem::ALL.into_iter().enumerate() {
            let count = self.problems.get(&problem).copied().unwrap_or(0);
            let _ = write!(text, "{} {count} {name}", if i == 0 { "" } else { "," });
        }
        let _ = write!(text, "; {} faults and events:", self.fired.values().sum::<u64>());
        let mut group = "";
        for (name, count) in &self.fired {
            let (api, kind) = name.split_once(": ").unwrap_or(("group", name));
            let _ = match group == api {
                true => write!(text, ", {kind} {count}"),
                false => write!(text, "\n  {api}: {kind} {count}"),
            };
            group = api;
        }
        text
    }

    /// A kind of fault that never fires tests nothing.
    fn assert_all_kinds(&self) {
        for kind in weather::KINDS {
            assert!(self.fired.keys().any(|k| k.ends_with(&format!(": {kind:?}"))), "{kind:?} never fired");
        }
        for (_, name) in plan::APIS {
            assert!(self.fired.keys().any(|k| k.starts_with(name)), "no {name} request was spoilt");
        }
        for event in ["Join", "Leave", "Die", "Hang", "MoveCoordinator", "MoveLeader", "Stop", "Start", "Grow"] {
            assert!(self.fired.contains_key(&format!("group: {event}")), "no {event}");
        }
        assert!(
            self.once >= self.gentle && self.gentle * 4 > self.seeds,
            "too few seeds where each record is handled once"
        );
        assert!(self.lost > 0 && self.repeated > 0, "nobody lost anything");
    }
}

fn again(seed: u64) -> String {
    let versions = env::var("AILURUS_TEST_EMBEDDED").map_or(String::new(), |v| format!("AILURUS_TEST_EMBEDDED={v} "));
    format!("\nagain: {versions}AILURUS_GROUP_SEED={seed} cargo test --test group_faults no_fault -- --nocapture\n")
}
