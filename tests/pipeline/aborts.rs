//! Transactions that are aborted, and outputs that can't be written.

use std::sync::atomic::AtomicBool;

use ailurus::GroupProtocol;
use ailurus_test_support::api_keys::{CONSUMER_GROUP_HEARTBEAT, END_TXN, HEARTBEAT, TXN_OFFSET_COMMIT};
use kafka_protocol::messages::EndTxnRequest;
use kafka_protocol::protocol::Decodable;

use super::*;

/// A large record is rejected by the topic; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_output_is_rejected_becomes_a_dead_letter() {
    let test = Setup::new().await;
    test.produce(0..30).await;
    let (seen, output) = (Seen::new(), test.output.clone());
    let done = seen.clone();
    let handle = move |message: Message| {
        let mut record = copy_of(&message, &*output);
        if number(&message) == 17 {
            record = record.partition(PARTITIONS + 1);
        }
        done.push(number(&message));
        std::future::ready(Outputs::from(record))
    };
    let subscription =
        test.processor().exactly_once(ExactlyOnce::new()).subscribe([&*test.input], handle).await.unwrap();
    seen.until(30).await;
    test.until_written(29).await;
    subscription.shutdown().await.unwrap();
    assert_eq!(test.numbers().await, (0..30).filter(|n| *n != 17).collect::<Vec<_>>());
    let letters = test.dead_letters().await;
    assert_eq!(letters.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [17]);
    assert!(letters[0].1.error.contains("an output can't be written"), "{}", letters[0].1.error);
    assert_eq!(test.committed().await, 30);
    assert_eq!(seen.all().len(), 30, "handlers are not called again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_transaction_is_written_again_without_the_handlers() {
    let test = Setup::new().await;
    let Some(broker) = test.broker.embedded() else { return };
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    broker.set_hook(move |r| {
        let fails = r.api_key == TXN_OFFSET_COMMIT && count.fetch_add(1, Ordering::SeqCst) % 2 == 0;
        fails.then_some(ailurus_broker::Fault::Error(27)) // REBALANCE_IN_PROGRESS: the transaction is aborted
    });
    test.produce(0..100).await;
    let seen = Seen::new();
    let subscription = test.copy(ExactlyOnce::new().max_records(30), counted(&seen)).await;
    seen.until(100).await;
    subscription.shutdown().await.unwrap();
    assert!(requests.load(Ordering::SeqCst) > 1, "a transaction was aborted");
    assert_eq!(test.numbers().await, (0..100).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 100);
    assert_eq!(seen.all(), (0..100).collect::<Vec<_>>(), "each is handled once");
}

/// The last response of each EndTxn is lost: the outcome is unknown at first.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_response_is_not_written_twice() {
    let test = Setup::new().await;
    let Some(broker) = test.broker.embedded() else { return };
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    broker.set_hook(move |r| {
        let fails = r.api_key == END_TXN && count.fetch_add(1, Ordering::SeqCst) % 2 == 0;
        fails.then_some(ailurus_broker::Fault::DropResponse)
    });
    test.produce(0..100).await;
    let seen = Seen::new();
    let subscription = test.copy(ExactlyOnce::new().max_records(30), counted(&seen)).await;
    seen.until(100).await;
    subscription.shutdown().await.unwrap();
    assert!(requests.load(Ordering::SeqCst) > 1);
    assert_eq!(test.numbers().await, (0..100).collect::<Vec<_>>());
    assert_eq!(test.committed().await, 100);
}

/// The coordinator refuses offsets as of an old generation, until the member has sent a heartbeat, which
/// brings the newer one where there is one.
async fn offsets_of_an_old_generation_abort_nothing(protocol: GroupProtocol) {
    let test = Setup::on(support::broker_offering(ailurus_broker::Versions::kafka()).await).await;
    let Some(broker) = test.broker.embedded() else { return };
    let (refused, aborts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, aborted, is_over) = (Arc::clone(&refused), Arc::clone(&aborts), AtomicBool::new(false));
    broker.set_hook(move |r| {
        match r.api_key {
            HEARTBEAT | CONSUMER_GROUP_HEARTBEAT if count.load(Ordering::SeqCst) > 0 => {
                is_over.store(true, Ordering::SeqCst);
            }
            TXN_OFFSET_COMMIT if !is_over.load(Ordering::SeqCst) => {
                count.fetch_add(1, Ordering::SeqCst);
                return Some(ailurus_broker::Fault::Error(22)); // ILLEGAL_GENERATION
            }
            END_TXN => {
                let end = EndTxnRequest::decode(&mut r.body.clone(), r.version).unwrap();
                aborted.fetch_add(usize::from(!end.committed), Ordering::SeqCst);
            }
            _ => {}
        }
        None
    });
    test.produce(0..100).await;
    let (seen, output) = (Seen::new(), test.output.clone());
    let done = seen.clone();
    let handle = move |message: Message| {
        done.push(number(&message));
        std::future::ready(Outputs::from(copy_of(&message, &*output)))
    };
    let mut consumer = test.client.config().consumer.clone();
    consumer.group_protocol = protocol;
    consumer.heartbeat_interval = Duration::from_millis(100); // of a classic member
    let pipeline = test.processor().consumer_config(consumer).exactly_once(ExactlyOnce::new().max_records(30));
    let subscription = pipeline.subscribe([&*test.input], handle).await.unwrap();
    seen.until(100).await;
    test.until_written(100).await;
    subscription.shutdown().await.unwrap();
    assert!(refused.load(Ordering::SeqCst) > 0);
    assert_eq!(aborts.load(Ordering::SeqCst), 0, "the transaction goes on");
    assert_eq!(test.numbers().await, (0..100).collect::<Vec<_>>());
    assert_eq!(seen.all(), (0..100).collect::<Vec<_>>(), "each is handled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_an_old_member_epoch_are_sent_again() {
    offsets_of_an_old_generation_abort_nothing(GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_an_old_generation_are_sent_again() {
    offsets_of_an_old_generation_abort_nothing(GroupProtocol::Classic).await;
}
