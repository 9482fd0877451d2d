//! The producer under faults drawn from seeds, on the embedded broker: whatever happens to its requests and its cluster,
//! what it says about its records is held against the log.
//!
//! `AILURUS_FAULT_SEEDS=5000` runs so many seeds instead of 500; `AILURUS_FAULT_SEED=17` runs that one alone and prints what
//! it decides. A seed decides everything but the timing of the machine, so a rare failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/history.rs"]
mod history;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod checker;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use history::Guarantee;
use plan::Plan;
use run::{Fired, Outcome};

const SEEDS: u64 = 500;
/// Seeds at a time: they mostly wait.
const AT_ONCE: usize = 24;

#[test]
fn no_fault_makes_the_producer_lose_repeat_reorder_or_lie() {
    if env::var("AILURUS_TEST_BROKERS").is_ok_and(|b| !b.is_empty()) {
        return; // the faults are the embedded broker's
    }
    let began = Instant::now();
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let one = number("AILURUS_FAULT_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("AILURUS_FAULT_SEEDS").unwrap_or(SEEDS),
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
    /// Of these, how many logs were held to exactly once.
    exactly_once: usize,
    sent: usize,
    acknowledged: usize,
    not_written: usize,
    refused: usize,
    unknown: usize,
    unknown_but_present: usize,
    repeated: usize,
    fired: Fired,
    failures: Vec<String>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Result<Outcome, String>) {
        self.seeds += 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.failures.push(format!("seed {seed}: {why}{}", again(seed))),
        };
        let report = &outcome.report;
        self.exactly_once += usize::from(report.guarantee == Guarantee::ExactlyOncePerPartition);
        self.sent += report.sent;
        self.acknowledged += report.acknowledged;
        self.not_written += report.not_written;
        self.refused += outcome.refused;
        self.unknown += report.unknown;
        self.unknown_but_present += report.unknown_but_present;
        self.repeated += report.repeated;
        for (kind, count) in &outcome.fired {
            *self.fired.entry(kind.clone()).or_default() += count;
        }
        if !outcome.is_clean() {
            let mut text = format!("seed {seed}: {report}\n{}", report.details());
            outcome.wrong.iter().for_each(|wrong| text += &format!("{wrong}\n"));
            self.failures.push(format!("{text}fired: {:?}{}", outcome.fired, again(seed)));
        }
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "producer faults: {} seeds ({} held to exactly once), {} failed; {} records: {} acknowledged, {} not written \
             ({} of them refused by send), {} of unknown fate ({} of them in the log), {} in the log again",
            self.seeds,
            self.exactly_once,
            self.failures.len(),
            self.sent,
            self.acknowledged,
            self.not_written,
            self.refused,
            self.unknown,
            self.unknown_but_present,
            self.repeated,
        );
        let _ = write!(text, "; {} faults fired:", self.fired.values().sum::<u64>());
        let mut group = "";
        for (name, count) in &self.fired {
            let (api, kind) = name.split_once(": ").unwrap_or(("cluster", name));
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
        let produced = |kind: &str| self.fired.get(&format!("produce: {kind}")).copied().unwrap_or(0);
        for kind in weather::KINDS {
            assert!(produced(&format!("{kind:?}")) > 0, "{kind:?} never fired");
        }
        for (_, name) in plan::APIS {
            assert!(self.fired.keys().any(|k| k.starts_with(name)), "no {name} request was spoilt");
        }
        assert_eq!(self.exactly_once, self.seeds, "a producer is idempotent unless it is told not to be");
        for event in ["leader moved", "node stopped", "node started"] {
            assert!(self.fired.contains_key(event), "no {event}");
        }
        for (what, count) in [("acknowledged", self.acknowledged), ("not written", self.not_written)] {
            assert!(count > 0, "no record was {what}");
        }
        assert!(self.unknown > self.unknown_but_present && self.unknown_but_present > 0, "unknown fates were no such");
    }
}

fn again(seed: u64) -> String {
    let versions = env::var("AILURUS_TEST_EMBEDDED").map_or(String::new(), |v| format!("AILURUS_TEST_EMBEDDED={v} "));
    format!("\nagain: {versions}AILURUS_FAULT_SEED={seed} cargo test --test producer_faults no_fault -- --nocapture\n")
}
