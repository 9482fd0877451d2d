//! Transactions under faults drawn from seeds, on the embedded broker, with the versions of each
//! release: requests fail, are lost and arrive late, leaders and coordinators move, producers fence
//! each other. What the producers report is compared with what readers of committed records see.
//!
//! `AILURUS_TXN_SEEDS=5000` runs so many seeds instead of 500; `AILURUS_TXN_SEED=17` runs that one
//! alone and prints its plan. A seed decides everything but the timing of the machine, so a rare
//! failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checker;
mod mutation;
mod owner;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::fmt;

use ailurus_test_support::faults::FaultKind;
use ailurus_test_support::seeds::{self, FaultCounts, SeededTest, add_counts, format_counts, run_seeds};
use plan::{LateFault, Plan, Release, Workload};
use run::Outcome;

#[test]
fn transactions_are_whole_under_faults() {
    let test = SeededTest {
        binary: "transaction_faults",
        test: "transactions_are_whole_under_faults",
        variable: "AILURUS_TXN_SEED",
        default_seeds: 500,
    };
    run_seeds::<Summary, _>(&test, Plan::of, run::run);
}

#[derive(Default)]
struct Summary {
    /// Seeds with late requests alone.
    late: usize,
    transactions: usize,
    committed: usize,
    aborted: usize,
    unknown: usize,
    visible: usize,
    fenced: usize,
    counts: FaultCounts,
    /// Committed transactions by release.
    releases: BTreeMap<Release, usize>,
}

impl seeds::Summary for Summary {
    type Outcome = Outcome;

    fn add(&mut self, outcome: Outcome) -> Result<(), String> {
        let report = &outcome.report;
        self.late += usize::from(outcome.workload == Workload::Late);
        self.transactions += report.sets;
        self.committed += report.committed;
        self.aborted += report.aborted;
        self.unknown += report.unknown;
        self.visible += report.visible;
        self.fenced += outcome.fenced;
        *self.releases.entry(outcome.release).or_default() += report.committed;
        add_counts(&mut self.counts, &outcome.counts);
        if outcome.is_clean() {
            return Ok(());
        }
        let other = outcome.other_problems.join("\n");
        Err(format!("{:?}: {report}\n{}{other}\nfired: {:?}", outcome.release, report.details(), outcome.counts))
    }

    fn assert_coverage(&self, _: usize) {
        let fired = |name: &str| self.counts.get(name).copied().unwrap_or(0);
        for kind in FaultKind::ALL {
            assert!(self.counts.keys().any(|k| k.ends_with(&format!(": {kind:?}"))), "{kind:?} never fired");
        }
        for (api, name) in plan::APIS {
            assert!(self.counts.keys().any(|k| k.starts_with(name)), "no {name} request had a fault");
            let may_be_late = ![plan::METADATA, plan::FIND_COORDINATOR, plan::API_VERSIONS].contains(&api);
            for kind in [LateFault::Hold, LateFault::HoldFor].iter().filter(|_| may_be_late) {
                assert!(fired(&format!("{name}: {kind:?}")) > 0, "{kind:?} of {name} never fired");
            }
        }
        for event in ["leader moved", "coordinator moved", "group coordinator moved", "version changed", "marker: Hold"]
        {
            assert!(fired(event) > 0, "no {event}");
        }
        for release in Release::ALL {
            assert!(self.releases.get(&release).is_some_and(|n| *n > 0), "nothing was committed on {release:?}");
        }
        assert!(self.committed > 0 && self.aborted > 0 && self.fenced > 0, "{self}");
        assert!(self.unknown > 0, "no commit without a response");
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { late, transactions, committed, aborted, unknown, visible, fenced, counts, releases: _ } = self;
        write!(
            f,
            "{late} with late requests alone; {transactions} transactions: {committed} committed, {aborted} aborted, {unknown} unknown; {visible} records \
             visible; {fenced} producers fenced; {}",
            format_counts(counts),
        )
    }
}
