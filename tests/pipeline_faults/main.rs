//! Exactly-once pipelines under faults drawn from seeds, on the embedded broker, with the versions of
//! each release: members of both protocols join, leave and die, handlers of records and of batches
//! fail, outputs can't be written, requests are lost, rejected and late, nodes stop, topics grow,
//! leaders and coordinators move. Each input must have the outputs of one attempt, or one dead letter.
//!
//! `AILURUS_PIPELINE_SEEDS=1000` runs so many seeds instead of 60; `AILURUS_PIPELINE_SEED=17` runs
//! that one alone and prints its plan. A seed decides everything but the timing of the machine, so a
//! rare failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod member;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::fmt;

use ailurus_test_support::faults::FaultKind;
use ailurus_test_support::seeds::{self, FaultCounts, SeededTest, add_counts, format_counts, run_seeds};
use plan::{Plan, Release};
use run::Outcome;

#[test]
fn pipelines_write_each_output_once_under_faults() {
    let test = SeededTest {
        binary: "pipeline_faults",
        test: "pipelines_write_each_output_once_under_faults",
        variable: "AILURUS_PIPELINE_SEED",
        default_seeds: 60,
    };
    run_seeds::<Summary, _>(&test, Plan::of, run::run);
}

#[derive(Default)]
struct Summary {
    inputs: usize,
    visible: usize,
    dead_letters: usize,
    handled: usize,
    ended: usize,
    counts: FaultCounts,
    /// Visible outputs by release.
    releases: BTreeMap<Release, usize>,
}

impl seeds::Summary for Summary {
    type Outcome = Outcome;

    fn add(&mut self, outcome: Outcome) -> Result<(), String> {
        let report = &outcome.report;
        self.inputs += report.sets;
        self.visible += report.visible;
        self.dead_letters += outcome.dead_letters;
        self.handled += outcome.handled;
        self.ended += outcome.ended.len();
        *self.releases.entry(outcome.release).or_default() += report.visible;
        add_counts(&mut self.counts, &outcome.counts);
        if report.is_clean() && outcome.other_problems.is_empty() {
            return Ok(());
        }
        let (other, ended) = (outcome.other_problems.join("\n"), outcome.ended.join("\n"));
        Err(format!(
            "{:?}: {report}\n{}{other}\nmembers that ended: {ended}\nfired: {:?}",
            outcome.release,
            report.details(),
            outcome.counts
        ))
    }

    fn assert_coverage(&self, _: usize) {
        for (_, name) in plan::APIS {
            assert!(self.counts.keys().any(|k| k.starts_with(name)), "no {name} request had a fault");
        }
        for kind in FaultKind::ALL {
            assert!(self.counts.keys().any(|k| k.ends_with(&format!(": {kind:?}"))), "{kind:?} never fired");
        }
        for event in run::EVENTS {
            assert!(self.counts.contains_key(event), "no {event}");
        }
        for release in Release::ALL {
            assert!(self.releases.get(&release).is_some_and(|n| *n > 0), "nothing was written on {release:?}");
        }
        // Some handlers are called again, by the next owner.
        assert!(self.dead_letters > 0 && self.handled + self.dead_letters > self.inputs, "{self}");
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, visible, dead_letters, handled, ended, counts, releases: _ } = self;
        write!(
            f,
            "{inputs} inputs: {visible} outputs visible, {dead_letters} dead letters; handlers returned {handled} times; \
             {ended} members ended by errors; {}",
            format_counts(counts),
        )
    }
}
