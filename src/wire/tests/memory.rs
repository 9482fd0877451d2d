//! Memory of a response: it grows with the bytes received, not with the length claimed.

use allocation_counter::{AllocationInfo, measure};

use super::*;

/// Returns the allocations of a Heartbeat whose response begins with `bytes` and then ends, and the
/// error.
fn cost_of(limit: usize, bytes: &[u8]) -> (AllocationInfo, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (connection, mut peer) = runtime.block_on(async {
        let (socket, mut peer) = tokio::io::duplex(1 << 16);
        let metrics = Reporter::default();
        let open = Connection::establish(socket, "broker:9092", "test", limit, LONG, &metrics, None);
        let (connection, ()) = tokio::join!(open, negotiate(&mut peer));
        (connection.unwrap(), peer)
    });
    let mut error = None;
    let cost = measure(|| {
        runtime.block_on(async {
            let (response, ()) = tokio::join!(connection.request(heartbeat(), LONG), async {
                request(&mut peer).await;
                peer.write_all(bytes).await.unwrap();
                // Lets the connection read all of it, and wait for more.
                tokio::task::yield_now().await;
                peer.shutdown().await.unwrap();
            });
            error = response.err();
        });
    });
    (cost, error.expect("the request fails").full())
}

#[test]
fn a_length_without_bytes_reserves_nothing() {
    let (cost, e) = cost_of(256 << 20, &(100_u32 << 20).to_be_bytes());
    assert!(cost.bytes_max < 1 << 20, "{cost:?}");
    assert!(e.contains("the broker closed the connection"), "{e}");
}

#[test]
fn a_length_beyond_the_limit_reserves_nothing() {
    let (cost, e) = cost_of(64 << 20, &(100_u32 << 20).to_be_bytes());
    assert!(cost.bytes_max < 1 << 20, "{cost:?}");
    assert!(e.contains("104857600 bytes, more than the 67108864 that are allowed"), "{e}");
}

#[test]
fn memory_is_a_few_times_the_bytes_received() {
    let begun = [&(100_u32 << 20).to_be_bytes()[..], &[0; 1 << 20]].concat();
    let (cost, _) = cost_of(256 << 20, &begun);
    assert!((1 << 20..8 << 20).contains(&cost.bytes_max), "{cost:?}");
}
