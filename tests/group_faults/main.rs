//! A group whose members come, leave, hang and die, whose coordinator moves and whose requests are spoilt, by seeds, on the
//! embedded broker: what its members handle and commit is watched.
//!
//! `AILURUS_GROUP_SEEDS=3000` runs so many seeds instead of 300; `AILURUS_GROUP_SEED=17` runs that one alone and prints what it
//! decides. A seed decides everything but the timing of the machine, so a rare failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/problems.rs"]
mod problems;
#[path = "../support/seeds.rs"]
mod seeds;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod handlers;
mod member;
mod plan;
mod run;
mod watch;
mod watch_tests;

use std::time::Instant;

use plan::Plan;
use problems::Problems;
use run::Outcome;
use seeds::{Fired, Seeds, say};
use watch::Problem;

#[test]
fn no_fault_makes_a_group_lose_skip_or_share_a_record() {
    if std::env::var("AILURUS_TEST_BROKERS").is_ok_and(|b| !b.is_empty()) {
        return; // the faults are the embedded broker's
    }
    let began = Instant::now();
    let seeds = Seeds::of("group_faults", "AILURUS_GROUP_SEED", 300);
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
    gentle: usize,
    once: usize,
    handled: u64,
    repeated: u64,
    rebalances: u64,
    lost: u64,
    late_commits: usize,
    problems: Problems<Problem>,
    fired: Fired,
    failures: Vec<String>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Result<Outcome, String>, again: &str) {
        self.seeds += 1;
        let Outcome { gentle, once, watch, fired, late_commits } = match outcome {
            Ok(outcome) => outcome,
            Err(why) => return self.failures.push(format!("seed {seed}: {why}{again}")),
        };
        self.gentle += usize::from(gentle);
        self.once += usize::from(once);
        self.handled += watch.handled;
        self.repeated += watch.repeated;
        self.rebalances += watch.rebalances;
        self.lost += watch.lost;
        self.late_commits += late_commits;
        seeds::add(&mut self.fired, &fired);
        let unfair = gentle && !once;
        if !watch.is_clean() || unfair {
            let unfair = if unfair { "a session was lost or a commit failed, though nothing gave cause\n" } else { "" };
            self.failures
                .push(format!("seed {seed}: {watch}\n{}{unfair}fired: {fired:?}{again}", watch.problems.details()));
        }
        self.problems.add_all(watch.problems);
    }

    fn summary(&self) -> String {
        format!(
            "group faults: {} seeds ({} held to handling each record once), {} failed; {} records handled ({} of them again), \
             {} assignments, {} losses, {} commits carried out too late by a slow broker: {}; {}",
            self.seeds,
            self.once,
            self.failures.len(),
            self.handled,
            self.repeated,
            self.rebalances,
            self.lost,
            self.late_commits,
            self.problems.counts(&Problem::ALL),
            seeds::list(&self.fired),
        )
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
