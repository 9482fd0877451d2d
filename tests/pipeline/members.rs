//! Several members: partitions move, members crash.

use ailurus_test_support::api_keys::END_TXN;

use super::*;

/// A handler that never waits is never cancelled: what it has handled is committed before its partition is
/// revoked, so that the next owner does not handle it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partition_is_committed_before_its_next_owner_reads_it() {
    let test = Setup::new().await;
    test.produce(0..300).await;
    let (of_first, of_second) = (Seen::new(), Seen::new());
    let settings = || ExactlyOnce::new().commit_interval(Duration::from_millis(5));
    let first = test.copy(settings(), counted(&of_first)).await;
    of_first.until(50).await;
    let second = test.copy(settings(), counted(&of_second)).await;
    let mut count = 300;
    let until_moved = async {
        while of_second.all().is_empty() {
            test.produce(count..count + 30).await;
            count += 30;
        }
    };
    tokio::time::timeout(PATIENCE, until_moved).await.expect("the second has a partition that the first had");
    test.produce(count..count + 300).await;
    first.shutdown().await.unwrap();
    count += 300;
    test.until_written(count).await;
    second.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..count).collect::<Vec<_>>());
    let mut handled = of_first.all();
    handled.extend(of_second.all());
    handled.sort_unstable();
    assert_eq!(handled, (0..count).collect::<Vec<_>>(), "each was handled by one member, once");
    assert_eq!(test.committed().await, count as i64);
}

/// The first member has written outputs, and dies while its commit has no response.
#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_members_open_transaction_is_not_seen() {
    let test = Setup::new().await;
    let Some(broker) = test.broker.embedded() else { return };
    let held = Arc::new(watch::channel(0).0);
    let (count, requests) = (Arc::clone(&held), AtomicUsize::new(0));
    broker.set_hook(move |r| {
        // All records of its transaction are acknowledged then.
        let is_held = r.api_key == END_TXN && requests.fetch_add(1, Ordering::SeqCst) >= 2;
        is_held.then(|| {
            count.send_modify(|n| *n += 1);
            ailurus_broker::Fault::Hold
        })
    });
    test.produce(0..200).await;
    let short = test.broker.shortest_session();
    let processor = || test.processor().session_timeout(short).heartbeat_interval(short / 5);
    let settings = || {
        let settings = ExactlyOnce::new().commit_interval(Duration::from_millis(5)).max_records(20);
        settings.transaction_timeout(Duration::from_secs(1))
    };
    let handle = |seen: &Seen| {
        let (seen, output) = (seen.clone(), test.output.clone());
        move |message: Message| {
            seen.push(number(&message));
            std::future::ready(Outputs::from(copy_of(&message, &*output)))
        }
    };
    let first = processor().exactly_once(settings()).subscribe([&*test.input], handle(&Seen::new())).await.unwrap();
    let crash = async { held.subscribe().wait_for(|n| *n > 0).await.map(drop) };
    tokio::time::timeout(PATIENCE, crash).await.expect("it commits").unwrap();
    first.abort().await;
    broker.clear_hook();
    let written = test.log_size().await;
    let later = Seen::new();
    let second = processor().exactly_once(settings()).subscribe([&*test.input], handle(&later)).await.unwrap();
    test.until_written(200).await;
    broker.release_held().await; // too late: the commit of the dead member changes nothing
    second.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..200).collect::<Vec<_>>());
    // It had two transactions of 20 records, and the open one.
    assert!(written > 0 && later.all().len() >= 200 - 40, "{written} written, {} handled", later.all().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stable_id_ends_the_pipeline_that_had_it() {
    let test = Setup::new().await;
    test.produce(0..10).await;
    let seen = Seen::new();
    let settings = || ExactlyOnce::new().stable_id(test.broker.group("id")).commit_interval(Duration::from_millis(5));
    let first = test.copy(settings(), counted(&seen)).await;
    seen.until(10).await;
    let second = test.copy(settings(), counted(&seen)).await;
    test.produce(10..200).await;
    let ended =
        tokio::time::timeout(PATIENCE, first.run_until(std::future::pending::<()>(), std::future::pending::<()>()));
    let error = ended.await.expect("it ends").unwrap_err();
    assert!(format!("{error:#}").contains("transactional id"), "{error:#}");
    test.until_written(200).await;
    second.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..200).collect::<Vec<_>>());
}
