//! Transactions of version 2 under late requests and late markers, from seeds: none may be torn.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

const SEEDS: u64 = 40;
const TRANSACTIONS: usize = 12;

/// Xorshift: one number after another from a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Sends over a new connection after each that the broker closed, until there is a response.
async fn retry<R: kafka_protocol::protocol::Request>(
    p: &mut Producer,
    broker: &Broker,
    version: i16,
    request: &R,
) -> R::Response {
    loop {
        if let Some(response) = p.client.try_call(version, request).await {
            return response;
        }
        p.client = Client::connect(&broker.bootstrap()).await;
    }
}

/// Runs transactions of random partitions and outcomes; returns by epoch whether each was committed,
/// and the number of its records.
async fn run(broker: &Broker, random: &mut Random) -> BTreeMap<i16, (bool, i32)> {
    let mut p = producer(broker, V2).await;
    let mut outcomes = BTreeMap::new();
    for _ in 0..TRANSACTIONS {
        let mut sequences = [0, 0];
        for _ in 0..=random.below(4) {
            let partition = random.below(2) as usize;
            let request = p.produce_request("t", partition as i32, sequences[partition], 1);
            let mut code = CONCURRENT_TRANSACTIONS;
            while code == CONCURRENT_TRANSACTIONS {
                let response = retry(&mut p, broker, 12, &request).await;
                code = response.responses[0].partition_responses[0].error_code;
            }
            assert_eq!(code, 0);
            sequences[partition] += 1;
        }
        let commit = random.below(3) > 0;
        let request = p.end_request(commit);
        let mut ended = retry(&mut p, broker, 5, &request).await;
        while ended.error_code == CONCURRENT_TRANSACTIONS {
            ended = retry(&mut p, broker, 5, &request).await;
        }
        assert_eq!(ended.error_code, 0, "commit {commit}");
        assert!(
            outcomes.insert(p.epoch, (commit, sequences[0] + sequences[1])).is_none(),
            "an epoch is one transaction's"
        );
        (p.id, p.epoch) = (ended.producer_id.0, ended.producer_epoch);
    }
    outcomes
}

#[tokio::test]
async fn transactions_of_version_2_are_whole_despite_late_messages() {
    for seed in 0..SEEDS {
        let broker = start(Versions::kafka()).await;
        let faults = Mutex::new(Random::new(seed));
        broker.set_hook(move |request| {
            let mut random = faults.lock().unwrap();
            match (request.api_key, random.below(8)) {
                (PRODUCE | END_TXN, 0) => Some(Fault::Hold),
                (PRODUCE | END_TXN, 1) => Some(Fault::HoldFor(Duration::from_millis(random.below(3)))),
                (PRODUCE | END_TXN, 2) => Some(Fault::DropResponse),
                (WRITE_TXN_MARKERS, 0..4) => Some(Fault::Delay(Duration::from_millis(random.below(5)))),
                _ => None,
            }
        });
        let expected = run(&broker, &mut Random::new(seed ^ 0xabcd)).await;
        broker.clear_hook();
        while broker.release_held().await > 0 || !state(&broker).starts_with("Complete") {}
        let mut found: BTreeMap<i16, i32> = BTreeMap::new();
        for partition in 0..2 {
            let (_, end) = broker.log_range("t", partition).unwrap();
            assert_eq!(broker.last_stable_offset("t", partition).unwrap(), end, "seed {seed}: nothing is open");
            for record in broker.transactional_records("t", partition).unwrap() {
                let committed = record.outcome == TransactionOutcome::Committed;
                assert_eq!(committed, expected[&record.producer_epoch].0, "seed {seed}: {record:?}");
                *found.entry(record.producer_epoch).or_default() += 1;
            }
        }
        let written = expected.into_iter().filter(|(_, (_, count))| *count > 0);
        assert_eq!(found, written.map(|(epoch, (_, count))| (epoch, count)).collect(), "seed {seed}: records by epoch");
        broker.shutdown().await;
    }
}
