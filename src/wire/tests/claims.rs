//! What a peer's claims cost: memory grows with what has come, not with what is said to come.

use allocation_counter::{AllocationInfo, measure};

use super::*;

/// Allocations between here and the broker's answer to the first Heartbeat, which begins with `bytes`, and its end.
fn cost_of(limit: usize, bytes: &[u8]) -> (AllocationInfo, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (connection, mut peer) = runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let metrics = Reporter::default();
        let open = Connection::over(ours, "broker:9092", "test", limit, LONG, &metrics, None);
        let (connection, ()) = tokio::join!(open, greet(&mut theirs));
        (connection.unwrap(), theirs)
    });
    let mut error = None;
    let cost = measure(|| {
        runtime.block_on(async {
            let (answer, ()) = tokio::join!(connection.request(heartbeat(), LONG), async {
                request(&mut peer).await;
                peer.write_all(bytes).await.unwrap();
                // Read until nothing is left to read: then the other side waits for more.
                tokio::task::yield_now().await;
                peer.shutdown().await.unwrap();
            });
            error = answer.err();
        });
    });
    (cost, error.expect("it was no answer").full())
}

#[test]
fn a_length_that_nothing_follows_costs_nothing() {
    let (cost, e) = cost_of(256 << 20, &(100_u32 << 20).to_be_bytes());
    assert!(cost.bytes_max < 1 << 20, "{cost:?}");
    assert!(e.contains("the broker closed the connection"), "{e}");
}

#[test]
fn a_length_beyond_the_limit_costs_nothing() {
    let (cost, e) = cost_of(64 << 20, &(100_u32 << 20).to_be_bytes());
    assert!(cost.bytes_max < 1 << 20, "{cost:?}");
    assert!(e.contains("104857600 bytes, more than the 67108864 that are allowed"), "{e}");
}

#[test]
fn a_length_costs_a_few_times_what_has_come() {
    let begun = [&(100_u32 << 20).to_be_bytes()[..], &[0; 1 << 20]].concat();
    let (cost, _) = cost_of(256 << 20, &begun);
    assert!((1 << 20..8 << 20).contains(&cost.bytes_max), "{cost:?}");
}
