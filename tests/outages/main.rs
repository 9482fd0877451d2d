//! Outages that end, drawn from seeds, on the embedded broker: each step of each role (a member of
//! either protocol, a subscription, a producer) fails for a while, from the start or during work.
//! Afterwards records flow again and none is lost.
//!
//! `AILURUS_OUTAGE_SEEDS=3000` runs so many seeds instead of 120; `AILURUS_OUTAGE_SEED=17` runs that
//! one alone and prints its plan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod leaders;
mod plan;
mod run;
mod starting;

use std::fmt;

use ailurus_test_support::seeds::{self, FaultCounts, SeededTest, add_counts, format_counts, run_seeds};
use plan::Plan;

#[test]
fn every_role_recovers_from_an_outage_of_every_step() {
    let test = SeededTest {
        binary: "outages",
        test: "every_role_recovers_from_an_outage_of_every_step",
        variable: "AILURUS_OUTAGE_SEED",
        default_seeds: 120,
    };
    run_seeds::<Summary, _>(&test, Plan::of, |plan| FaultCounts::from([(plan.name(), run::run(&plan))]));
}

/// Failed attempts by role and step.
#[derive(Default)]
struct Summary(FaultCounts);

impl seeds::Summary for Summary {
    type Outcome = FaultCounts;

    fn add(&mut self, counts: FaultCounts) -> Result<(), String> {
        add_counts(&mut self.0, &counts);
        Ok(())
    }

    fn assert_coverage(&self, _: usize) {
        for step in plan::Step::ALL {
            let failed = self.0.iter().any(|(name, count)| *count > 0 && name.ends_with(&format!(": {step:?}")));
            assert!(failed, "{step:?} never failed");
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_counts(&self.0))
    }
}
