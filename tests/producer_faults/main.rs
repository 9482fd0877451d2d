//! The producer under faults drawn from seeds, on the embedded broker: whatever happens to its requests and its cluster,
//! what it says about its records is held against the log.
//!
//! `AILURUS_FAULT_SEEDS=5000` runs so many seeds instead of 500; `AILURUS_FAULT_SEED=17` runs that one alone and prints what
//! it decides. A seed decides everything but the timing of the machine, so a rare failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/history.rs"]
mod history;
#[path = "../support/problems.rs"]
mod problems;
#[path = "../support/seeds.rs"]
mod seeds;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod checker;
mod plan;
mod run;

use history::Guarantee;
use plan::Plan;
use run::Outcome;
use seeds::{Fired, Seeds, say};

use std::time::Instant;

#[test]
fn no_fault_makes_the_producer_lose_repeat_reorder_or_lie() {
    if std::env::var("AILURUS_TEST_BROKERS").is_ok_and(|b| !b.is_empty()) {
        return; // the faults are the embedded broker's
    }
    let began = Instant::now();
    let seeds = Seeds::of("producer_faults", "AILURUS_FAULT_SEED", 500);
    if let Some(seed) = seeds.one {
        say(&format!("{:#?}\n", Plan::of(seed)));
    }
    let mut total = Total::default();
    for (seed, outcome) in seeds.run(|seed| run::run(Plan::of(seed))) {
        total.add(seed, outcome, &seeds.again(seed));
    }
    say(&format!("\n{} in {:.1?}\n", total.summary(), began.elapsed()));
    assert!(total.failures.is_empty(), "{} seeds failed:\n{}", total.failures.len(), total.failures.join("\n"));
    if seeds.one.is_none() {
        total.assert_all_kinds();
    }
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
    fn add(&mut self, seed: u64, outcome: Result<Outcome, String>, again: &str) {
        self.seeds += 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.failures.push(format!("seed {seed}: {why}{again}")),
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
        seeds::add(&mut self.fired, &outcome.fired);
        if !outcome.is_clean() {
            let mut text = format!("seed {seed}: {report}\n{}", report.details());
            outcome.wrong.iter().for_each(|wrong| text += &format!("{wrong}\n"));
            self.failures.push(format!("{text}fired: {:?}{again}", outcome.fired));
        }
    }

    fn summary(&self) -> String {
        let text = format!(
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
        text + "; " + &seeds::list(&self.fired)
    }

    /// A kind of fault that never fires tests nothing.
    fn assert_all_kinds(&self) {
        let produced = |kind: &str| self.fired.get(&format!("produce: {kind}")).copied().unwrap_or(0);
        for kind in weather::KINDS {
            assert!(produced(&format!("{kind:?}")) > 0, "{kind:?} never fired");
        }
        for part in plan::PARTS {
            assert!(produced(&format!("{part:?}")) > 0, "{part:?} never fired");
        }
        for (_, name) in plan::APIS {
            assert!(self.fired.keys().any(|k| k.starts_with(name)), "no {name} request was spoilt");
        }
        assert_eq!(self.exactly_once, self.seeds, "a producer is idempotent unless it is told not to be");
        for event in ["leader moved", "node stopped", "node started", "all nodes stopped", "no identity for a while"] {
            assert!(self.fired.contains_key(event), "no {event}");
        }
        for (what, count) in [("acknowledged", self.acknowledged), ("not written", self.not_written)] {
            assert!(count > 0, "no record was {what}");
        }
        assert!(self.unknown > self.unknown_but_present && self.unknown_but_present > 0, "unknown fates were no such");
    }
}
