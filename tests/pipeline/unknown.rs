//! Commits whose outcome is not known: the pipeline learns it, and writes the outputs again only if they
//! were not committed.

use ailurus_broker::{Fault, Versions};
use ailurus_test_support::api_keys::{END_TXN, INIT_PRODUCER_ID, OFFSET_FETCH};

use super::*;

/// Version 1 and version 2 of transactions.
fn versions() -> [Versions; 2] {
    [Versions::kafka_3_9(), Versions::kafka()]
}

/// The first commit meets this fault, and when it is sent again, the coordinator does not know its
/// epoch any more. So many fetches of committed offsets after that are refused. Returns the number of
/// these fetches, and of aborted records in the log; `None` on a real broker, which has no faults.
async fn run(versions: Versions, fault: Fault, refused: usize) -> Option<(usize, i64)> {
    let test = Setup::on(support::broker_offering(versions).await).await;
    let broker = test.broker.embedded()?;
    let (ends, fetches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (end, fetch) = (Arc::clone(&ends), Arc::clone(&fetches));
    broker.set_hook(move |r| {
        match r.api_key {
            END_TXN => match end.fetch_add(1, Ordering::SeqCst) {
                0 => return Some(fault),
                1 => return Some(Fault::Error(47)), // INVALID_PRODUCER_EPOCH
                _ => {}
            },
            OFFSET_FETCH if end.load(Ordering::SeqCst) >= 2 => {
                let is_refused = fetch.fetch_add(1, Ordering::SeqCst) < refused;
                return is_refused.then_some(Fault::Error(30)); // GROUP_AUTHORIZATION_FAILED
            }
            _ => {}
        }
        None
    });
    test.produce(0..30).await;
    let seen = Seen::new();
    // One transaction for all, so that what is in the log is of the faulty one.
    let settings = ExactlyOnce::new().commit_interval(Duration::from_secs(10)).max_records(30);
    let subscription = test.copy(settings, counted(&seen)).await;
    seen.until(30).await;
    test.until_written(30).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..30).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 30);
    assert_eq!(seen.all(), (0..30).collect::<Vec<_>>(), "handlers are not called again");
    assert!(broker.request_count(INIT_PRODUCER_ID) >= 2, "a new epoch before the next transaction");
    let markers = 2 * PARTITIONS as i64;
    Some((fetches.load(Ordering::SeqCst), test.log_size().await - 30 - markers))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_response_is_lost_is_found_in_the_offsets() {
    for versions in versions() {
        let Some((fetches, aborted)) = run(versions, Fault::DropResponse, 0).await else { return };
        assert!(fetches > 0, "the committed offsets are fetched");
        assert!(aborted <= 0, "{aborted} records were written again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_found_also_if_the_offsets_can_not_be_fetched_at_first() {
    for versions in versions() {
        let Some((fetches, aborted)) = run(versions, Fault::DropResponse, 2).await else { return };
        assert!(fetches > 2, "the committed offsets are fetched again");
        assert!(aborted <= 0, "{aborted} records were written again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_did_not_arrive_is_written_again() {
    for versions in versions() {
        let Some((fetches, aborted)) = run(versions, Fault::Close, 0).await else { return };
        assert!(fetches > 0, "the committed offsets are fetched");
        assert!(aborted > 0, "the outputs are in the log once only");
    }
}
