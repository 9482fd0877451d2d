//! Outages that end, by seeds, on the embedded broker: each step of each role (a member of either protocol, a subscription, a producer) fails for a
//! while, from the start or in the midst of work. Afterwards records flow again and none is lost.
//!
//! `AILURUS_OUTAGE_SEEDS=3000` runs so many seeds instead of 120; `AILURUS_OUTAGE_SEED=17` runs that one alone and prints what it decides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/seeds.rs"]
mod seeds;
#[path = "../support/mod.rs"]
mod support;

mod leaders;
mod plan;
mod run;
mod starting;

use std::time::Instant;

use plan::Plan;
use seeds::{Fired, Seeds, say};

#[test]
fn every_role_comes_back_from_an_outage_of_every_step() {
    if std::env::var("AILURUS_TEST_BROKERS").is_ok_and(|b| !b.is_empty()) {
        return; // the faults are the embedded broker's
    }
    let began = Instant::now();
    let seeds = Seeds::of("outages", "AILURUS_OUTAGE_SEED", 120);
    if let Some(seed) = seeds.one {
        say(&format!("{:#?}\n", Plan::of(seed)));
    }
    let (mut fired, mut failures, mut count) = (Fired::new(), Vec::new(), 0);
    for (seed, outcome) in seeds.run(|seed| run::run(&Plan::of(seed))) {
        count += 1;
        match outcome {
            Ok(hits) => seeds::add(&mut fired, &Fired::from([(Plan::of(seed).name(), hits)])),
            Err(why) => failures.push(format!("seed {seed}: {why}\n{:?}{}", Plan::of(seed), seeds.again(seed))),
        }
    }
    say(&format!(
        "\noutages: {count} seeds, {} failed, in {:.1?}; {}\n",
        failures.len(),
        began.elapsed(),
        seeds::list(&fired)
    ));
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    if seeds.one.is_none() {
        for step in plan::Step::ALL {
            let hit = fired.iter().any(|(name, hits)| *hits > 0 && name.ends_with(&format!(": {step:?}")));
            assert!(hit, "no {step:?} has failed");
        }
    }
}
