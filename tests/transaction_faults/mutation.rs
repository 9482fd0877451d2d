//! The mutation: a producer that keeps its epoch after a request of unknown effect. If its late
//! requests tore no transaction, faults or checker would be blind.

#![cfg(debug_assertions)]

use ailurus_test_support::has_real_broker;
use ailurus_test_support::transaction_history::TransactionProblem;

use super::plan::{Plan, Release};
use super::run::{self, Outcome};

const SEEDS: u64 = 3;
const VERSION_1: [Release; 4] = [Release::Redpanda24, Release::Redpanda26, Release::Kafka3, Release::Kafka4V1];

/// Runs the plans of these releases, each on a thread.
fn on_each(releases: &[Release], keeps_epoch: bool, check: impl Fn(Release, &[Outcome]) + Sync) {
    std::thread::scope(|scope| {
        for &release in releases.iter().filter(|_| !has_real_broker()) {
            let check = &check;
            scope.spawn(move || {
                let plans = (0..SEEDS).map(|seed| Plan::of_mutation(seed, release, keeps_epoch));
                check(release, &plans.map(run::run).collect::<Vec<_>>());
            });
        }
    });
}

#[test]
fn late_requests_tear_transactions_if_the_epoch_stays() {
    on_each(&VERSION_1, true, |release, outcomes| {
        let torn: usize = outcomes.iter().map(|outcome| outcome.report.count(TransactionProblem::Torn)).sum();
        assert!(torn > 0, "{release:?}");
    });
}

#[test]
fn late_requests_tear_nothing_with_a_new_epoch() {
    on_each(&Release::ALL, false, |release, outcomes| {
        for (seed, outcome) in outcomes.iter().enumerate() {
            assert!(outcome.is_clean(), "{release:?}, seed {seed}: {}\n{}", outcome.report, outcome.report.details());
        }
    });
}
