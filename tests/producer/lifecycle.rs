//! Flush, close, bounded memory; topics that come, go and grow.

use std::time::Duration;

use ailurus::{Admin, Client, ErrorKind, ProducerRecord};
use ailurus_broker::{Fault, RequestInfo};
use futures_util::FutureExt;

use super::{PATIENCE, Setup, numbers, support};

const PRODUCE: i16 = 0;

fn produce_only(fault: Fault) -> impl Fn(&RequestInfo<'_>) -> Option<Fault> + Send + Sync + 'static {
    move |request| (request.api_key == PRODUCE).then_some(fault)
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_skips_linger_and_waits_for_all() {
    let s = Setup::with(3, |c| c.linger = Duration::from_secs(60)).await;
    let mut handles = Vec::new();
    for n in 0..30 {
        handles
            .push(s.producer.send(ProducerRecord::to(&s.topic).value(n.to_string()).partition(n % 3)).await.unwrap());
    }
    s.producer.flush(PATIENCE).await.unwrap();
    for handle in handles {
        handle.now_or_never().expect("it has ended").unwrap();
    }
    s.producer.flush(Duration::ZERO).await.unwrap();
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_delivers_queued_records() {
    let s = Setup::with(1, |c| c.linger = Duration::from_secs(60)).await;
    let other = s.producer.clone();
    let handle = s.producer.send(ProducerRecord::to(&s.topic).value("1")).await.unwrap();
    s.producer.close(PATIENCE).await.unwrap();
    handle.now_or_never().expect("it has ended").unwrap();
    let error = other.send(ProducerRecord::to(&s.topic).value("2")).await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    other.close(PATIENCE).await.unwrap();
    assert_eq!(numbers(&s.read().await[&0]), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn close_fails_undelivered_records() {
    let s = Setup::new(1).await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    s.producer.send(ProducerRecord::to(&s.topic).value("0")).await.unwrap().await.unwrap();
    embedded.set_hook(produce_only(Fault::DelayResponse(Duration::from_secs(3600))));
    let handle = s.producer.send(ProducerRecord::to(&s.topic).value("1")).await.unwrap();
    let error = s.producer.close(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 records"), "{error}");
    assert!(handle.now_or_never().expect("it has completed").unwrap_err().is_indeterminate(), "it was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_clone_fails_deliveries() {
    let s = Setup::with(1, |c| c.linger = Duration::from_secs(60)).await;
    let clone = s.producer.clone();
    let handle = clone.send(ProducerRecord::to(&s.topic).value("1")).await.unwrap();
    drop(clone);
    let Setup { producer, client, topic, broker } = s;
    drop(producer);
    let error = handle.now_or_never().expect("it has ended").unwrap_err();
    assert!(error.is_closed() && error.to_string().contains("not written"), "{error}");
    drop((client, topic, broker));
}

#[tokio::test(flavor = "multi_thread")]
async fn send_waits_for_memory_in_order() {
    let s = Setup::with(1, |c| {
        c.batch_size = 4096;
        c.max_request_size = 4096;
        c.buffer_memory = 10_000;
    })
    .await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    s.producer.send(ProducerRecord::to(&s.topic).value("9999")).await.unwrap().await.unwrap();
    embedded.set_hook(produce_only(Fault::Close));
    let send = |n: u32| {
        let (producer, topic) = (s.producer.clone(), s.topic.clone());
        async move { producer.send(ProducerRecord::to(&topic).value(format!("{n:02000}"))).await }
    };
    let mut handles = Vec::new();
    for n in 0..4 {
        handles.push(send(n).await.unwrap());
    }
    let mut waiting: Vec<_> = (4..10).map(|n| Box::pin(send(n))).collect();
    assert!(waiting.iter_mut().all(|w| w.now_or_never().is_none()), "the buffer is full");
    assert!(s.producer.buffered_bytes() <= 10_000);
    drop(waiting.pop()); // a cancelled waiter does not block the others
    embedded.clear_hook();
    for send in waiting {
        handles.push(send.await.unwrap());
    }
    for handle in handles {
        handle.await.unwrap();
    }
    assert_eq!(s.producer.buffered_bytes(), 0);
    let all = numbers(&s.read().await[&0]);
    assert_eq!(all, [9999, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_memory_times_out() {
    let broker = support::broker().await;
    let s = Setup::on(
        broker,
        1,
        |c| c.request_timeout(Duration::from_millis(500)),
        |c| {
            c.batch_size = 4096;
            c.max_request_size = 4096;
            c.buffer_memory = 4096;
            c.delivery_timeout = Duration::from_secs(1);
        },
    )
    .await;
    let Some(embedded) = s.broker.embedded() else { return s.close().await };
    embedded.set_hook(produce_only(Fault::Close));
    let value = vec![b'x'; 3000];
    let send = || s.producer.send(ProducerRecord::to(&s.topic).value(&value));
    let first = send().await.unwrap();
    // There is memory for one. The one that gets it after the first has failed keeps it from the other.
    let (second, third) = tokio::join!(send(), send());
    let errors: Vec<_> = [second, third].into_iter().filter_map(Result::err).collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("was not sent: the producer's buffer of 4096 bytes"), "{error}");
    }
    assert!(first.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_only_if_the_settings_allow_it() {
    let broker = support::broker().await;
    for allowed in [false, true] {
        let config = broker.config().allow_auto_topic_creation(allowed).build().unwrap();
        let client = Client::connect(config).await.unwrap();
        let producer = client.producer().start().unwrap();
        let topic = broker.topic("new");
        let result = producer.send(ProducerRecord::to(&topic).value("1")).await;
        if allowed {
            result.unwrap().await.unwrap();
        } else {
            let error = result.unwrap_err();
            assert!(error.is_unknown_topic(), "{error}");
            assert!(error.to_string().contains(&topic), "{error}");
            assert!(Admin::new(&client).describe_topic(&topic).await.is_err(), "it was not created");
        }
        producer.close(PATIENCE).await.unwrap();
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_can_be_written() {
    let broker = support::broker().await;
    let change = |c: &mut ailurus::ProducerConfig| c.delivery_timeout = Duration::from_secs(30);
    let settings =
        |c: ailurus::ConfigBuilder| c.allow_auto_topic_creation(false).request_timeout(Duration::from_secs(1));
    let s = Setup::on(broker, 2, settings, change).await;
    let send = |n: i32| {
        let (producer, topic) = (s.producer.clone(), s.topic.clone());
        async move { producer.send(ProducerRecord::to(&topic).value(n.to_string()).partition(0)).await?.await }
    };
    send(1).await.unwrap();
    let admin = Admin::new(&s.client);
    admin.delete_topic(&s.topic).await.unwrap();
    let error = send(2).await.unwrap_err();
    assert!(error.is_unknown_topic(), "{error:?}");
    assert!(error.to_string().contains("has not existed for"), "{error:?}");
    admin.create_topic(&s.topic, 1, None).await.unwrap();
    assert_eq!(send(3).await.unwrap().offset, Some(0));
    assert_eq!(numbers(&s.read().await[&0]), [3]);
    s.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_used() {
    let s = Setup::new(1).await;
    s.producer.send(ProducerRecord::to(&s.topic).value("1")).await.unwrap().await.unwrap();
    Admin::new(&s.client).create_partitions(&s.topic, 3).await.unwrap();
    let ack = s.producer.send(ProducerRecord::to(&s.topic).value("2").partition(2)).await.unwrap().await.unwrap();
    assert_eq!((ack.partition, ack.offset), (2, Some(0)));
    s.close().await;
}
