//! Tests of which fault happens to which request.

use super::*;
use crate::{Api, fault};

fn effects(rules: &Faults, requests: &[(Api, i32, &str)]) -> Vec<bool> {
    let one = |&(api, node, client): &(Api, i32, &str)| rules.with(|r| r.effect_on(api.key(), node, client)).is_some();
    requests.iter().map(one).collect()
}

#[test]
fn fault_happens_to_chosen_requests_only() {
    let faults = Faults::new(1);
    faults.inject(fault::not_leader().on(Api::Fetch).node(1).client("a").always());
    let requests = [(Api::Fetch, 1, "a"), (Api::Produce, 1, "a"), (Api::Fetch, 0, "a"), (Api::Fetch, 1, "b")];
    assert_eq!(effects(&faults, &requests), [true, false, false, false]);
}

#[test]
fn fault_happens_as_often_as_it_was_set_to() {
    let faults = Faults::new(1);
    let injected = faults.inject(fault::not_leader().after(1).times(2));
    assert_eq!(effects(&faults, &[(Api::Produce, 0, "a"); 5]), [false, true, true, false, false]);
    assert_eq!(injected.fired(), 2);
}

#[test]
fn cleared_fault_happens_no_more() {
    let faults = Faults::new(1);
    let injected = faults.inject(fault::close_connection().always());
    assert_eq!(effects(&faults, &[(Api::Produce, 0, "a")]), [true]);
    injected.clear();
    assert_eq!(effects(&faults, &[(Api::Produce, 0, "a")]), [false]);
}

#[test]
fn publisher_of_the_cluster_has_no_faults_unless_named() {
    let faults = Faults::new(1);
    faults.inject(fault::close_connection().always());
    assert_eq!(effects(&faults, &[(Api::Produce, 0, crate::cluster::PUBLISHER)]), [false]);
    faults.inject(fault::close_connection().client(crate::cluster::PUBLISHER));
    assert_eq!(effects(&faults, &[(Api::Produce, 0, crate::cluster::PUBLISHER)]), [true]);
}

#[test]
fn chance_is_drawn_from_the_seed() {
    let drawn = |seed| {
        let faults = Faults::new(seed);
        faults.inject(fault::close_connection().chance(0.5));
        effects(&faults, &[(Api::Fetch, 0, "a"); 64])
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
