//! A group under faults drawn from seeds, on the embedded broker: its members join, leave, hang and
//! crash, its coordinator moves, and its requests fail. What members handle and commit is checked.
//!
//! `AILURUS_GROUP_SEEDS=3000` runs so many seeds instead of 300; `AILURUS_GROUP_SEED=17` runs that one
//! alone and prints its plan. A seed decides everything but the timing of the machine, so a rare
//! failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checker;
mod checker_tests;
mod handlers;
mod member;
mod plan;
mod run;

use std::fmt;

use ailurus_test_support as support;
use ailurus_test_support::faults::FaultKind;
use ailurus_test_support::problems::Problems;
use ailurus_test_support::seeds::{self, FaultCounts, SeededTest, add_counts, format_counts, run_seeds};
use checker::Problem;
use plan::Plan;
use run::Outcome;

#[test]
fn group_keeps_its_guarantees_under_faults() {
    let test = SeededTest {
        binary: "group_faults",
        test: "group_keeps_its_guarantees_under_faults",
        variable: "AILURUS_GROUP_SEED",
        default_seeds: 300,
    };
    run_seeds::<Summary, _>(&test, Plan::of, run::run);
}

#[derive(Default)]
struct Summary {
    /// Seeds whose plan is gentle.
    gentle: usize,
    /// Seeds in which each record had to be handled once.
    handled_once: usize,
    handled: u64,
    repeated: u64,
    assignments: u64,
    losses: u64,
    late_commits: usize,
    problems: Problems<Problem>,
    counts: FaultCounts,
}

impl seeds::Summary for Summary {
    type Outcome = Outcome;

    fn add(&mut self, outcome: Outcome) -> Result<(), String> {
        let Outcome { gentle, handled_once, checker, counts, late_commits } = outcome;
        self.gentle += usize::from(gentle);
        self.handled_once += usize::from(handled_once);
        self.handled += checker.handled;
        self.repeated += checker.repeated;
        self.assignments += checker.assignments;
        self.losses += checker.losses;
        self.late_commits += late_commits;
        add_counts(&mut self.counts, &counts);
        let unexpected_loss = gentle && !handled_once;
        let result = if checker.is_clean() && !unexpected_loss {
            Ok(())
        } else {
            let text = if unexpected_loss { "a session was lost or a commit failed without a cause\n" } else { "" };
            Err(format!("{checker}\n{}{text}fired: {counts:?}", checker.problems.details()))
        };
        self.problems.add_all(checker.problems);
        result
    }

    fn assert_coverage(&self, seeds: usize) {
        for kind in FaultKind::ALL {
            assert!(self.counts.keys().any(|k| k.ends_with(&format!(": {kind:?}"))), "{kind:?} never fired");
        }
        for (_, name) in plan::APIS {
            assert!(self.counts.keys().any(|k| k.starts_with(name)), "no {name} request had a fault");
        }
        for event in ["Join", "Leave", "Crash", "Hang", "MoveCoordinator", "MoveLeader", "Stop", "Start", "Grow"] {
            assert!(self.counts.contains_key(&format!("group: {event}")), "no {event}");
        }
        assert!(
            self.handled_once >= self.gentle && self.gentle * 4 > seeds,
            "too few seeds where each record is handled once"
        );
        assert!(self.losses > 0 && self.repeated > 0, "no member lost a partition");
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checked for handling each record once; {} records handled ({} of them again), {} assignments, \
             {} losses, {} late commits of a slow broker: {}; {}",
            self.handled_once,
            self.handled,
            self.repeated,
            self.assignments,
            self.losses,
            self.late_commits,
            self.problems.counts(&Problem::ALL),
            format_counts(&self.counts),
        )
    }
}
