//! Transactions on the embedded broker alone: faults, moves, timeouts, presets, inspection. What Kafka
//! has too is in the conformance tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod churn;
mod faults;
mod groups;
mod operators;
mod presets;

use ailurus_broker::{Broker, BrokerConfig, Fault, TransactionOutcome, Versions};
use ailurus_test_support::api_keys::{END_TXN, PRODUCE, WRITE_TXN_MARKERS};
use ailurus_test_support::raw_client::transactions::*;
use ailurus_test_support::raw_client::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;

/// Starts one node with topic `t` of two partitions.
async fn start(versions: Versions) -> Broker {
    let broker = Broker::start(BrokerConfig::default().versions(versions)).await.unwrap();
    broker.create_topic("t", 2).unwrap();
    broker
}

/// Returns an initialized producer `p`.
async fn producer(broker: &Broker, versions: RequestVersions) -> Producer {
    let mut producer = Producer::connect(&broker.bootstrap(), versions, "p").await;
    assert_eq!(producer.init().await, 0);
    producer
}

/// Returns the state of the only transactional id.
fn state(broker: &Broker) -> &'static str {
    let transactions = broker.transactions();
    assert_eq!(transactions.len(), 1);
    transactions[0].state
}

/// Waits until the only transactional id is in this state.
async fn wait_for_state(broker: &Broker, expected: &str) {
    while state(broker) != expected {
        tokio::task::yield_now().await;
    }
}

/// Returns the outcomes of the transactional records of a partition of `t`.
fn outcomes(broker: &Broker, partition: i32) -> Vec<TransactionOutcome> {
    broker.transactional_records("t", partition).unwrap().iter().map(|r| r.outcome).collect()
}
