//! The producer under faults drawn from seeds, on the embedded broker: whatever happens to its
//! requests and its cluster, the outcomes that it reports are compared with the log.
//!
//! `AILURUS_FAULT_SEEDS=5000` runs so many seeds instead of 500; `AILURUS_FAULT_SEED=17` runs that one
//! alone and prints its plan. A seed decides everything but the timing of the machine, so a rare
//! failure may take several runs of its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checker;
mod plan;
mod run;

use std::fmt;

use ailurus_test_support as support;
use ailurus_test_support::faults::FaultKind;
use ailurus_test_support::history::Guarantee;
use ailurus_test_support::seeds::{self, FaultCounts, SeededTest, add_counts, format_counts, run_seeds};
use plan::Plan;
use run::Outcome;

#[test]
fn producer_keeps_its_guarantees_under_faults() {
    let test = SeededTest {
        binary: "producer_faults",
        test: "producer_keeps_its_guarantees_under_faults",
        variable: "AILURUS_FAULT_SEED",
        default_seeds: 500,
    };
    run_seeds::<Summary, _>(&test, Plan::of, run::run);
}

#[derive(Default)]
struct Summary {
    /// Seeds whose logs were checked for exactly once.
    exactly_once: usize,
    sent: usize,
    acknowledged: usize,
    not_written: usize,
    rejected_by_send: usize,
    indeterminate: usize,
    indeterminate_but_written: usize,
    duplicates: usize,
    counts: FaultCounts,
}

impl seeds::Summary for Summary {
    type Outcome = Outcome;

    fn add(&mut self, outcome: Outcome) -> Result<(), String> {
        let report = &outcome.report;
        self.exactly_once += usize::from(report.guarantee == Guarantee::ExactlyOncePerPartition);
        self.sent += report.sent;
        self.acknowledged += report.acknowledged;
        self.not_written += report.not_written;
        self.rejected_by_send += outcome.rejected_by_send;
        self.indeterminate += report.indeterminate;
        self.indeterminate_but_written += report.indeterminate_but_written;
        self.duplicates += report.duplicates;
        add_counts(&mut self.counts, &outcome.counts);
        if outcome.is_clean() {
            return Ok(());
        }
        let other = outcome.other_problems.join("\n");
        Err(format!("{report}\n{}{other}\nfired: {:?}", report.details(), outcome.counts))
    }

    fn assert_coverage(&self, seeds: usize) {
        let produce_faults = |kind: &str| self.counts.get(&format!("produce: {kind}")).copied().unwrap_or(0);
        for kind in FaultKind::ALL {
            assert!(produce_faults(&format!("{kind:?}")) > 0, "{kind:?} never fired");
        }
        for kind in plan::PartialFault::ALL {
            assert!(produce_faults(&format!("{kind:?}")) > 0, "{kind:?} never fired");
        }
        for (_, name) in plan::APIS {
            assert!(self.counts.keys().any(|k| k.starts_with(name)), "no {name} request had a fault");
        }
        assert_eq!(self.exactly_once, seeds, "a producer is idempotent by default");
        for event in ["leader moved", "node stopped", "node started", "all nodes stopped", "no producer id for a while"]
        {
            assert!(self.counts.contains_key(event), "no {event}");
        }
        assert!(self.acknowledged > 0 && self.not_written > 0, "no record was acknowledged, or none was not written");
        let (all, written) = (self.indeterminate, self.indeterminate_but_written);
        assert!(all > written && written > 0, "{written} of {all} indeterminate records are in the log");
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checked for exactly once; {} records: {} acknowledged, {} not written ({} of them rejected by send), \
             {} indeterminate ({} of them in the log), {} duplicates; {}",
            self.exactly_once,
            self.sent,
            self.acknowledged,
            self.not_written,
            self.rejected_by_send,
            self.indeterminate,
            self.indeterminate_but_written,
            self.duplicates,
            format_counts(&self.counts),
        )
    }
}
