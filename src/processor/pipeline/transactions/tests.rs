#![allow(clippy::unwrap_used, clippy::expect_used)]

use ailurus_broker::{Broker, BrokerConfig};
use futures_util::FutureExt;

use super::*;
use crate::Client;
use crate::config::Config;
use crate::processor::pipeline::Outputs;
use crate::producer::ProducerRecord;

fn end(collector: &PartitionCollector, offset: i64) {
    let outputs = Outputs::from(ProducerRecord::to("out")).into_records();
    collector.end(vec![(0, offset)], Payload::Outputs(outputs, Vec::new()));
}

async fn transactions() -> Transactions {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    let config = Config::builder().brokers(broker.bootstrap()).build().unwrap();
    let client = Client::new(config.clone());
    let letters = DeadLetters::open(&client, &[], "g", &config.processor, None).await.unwrap();
    let limits = Limits { interval: Duration::from_millis(10), size: Size { records: 100, bytes: 1 << 20 } };
    Transactions::new(limits, letters)
}

fn assign(transactions: &Transactions, tp: &TopicPartition) -> Arc<PartitionCollector> {
    let collector = transactions.assign(tp, &Arc::new(PartitionState::new()), None, None);
    collector.lock().start_from(0);
    collector.lock().admit(0);
    collector
}

/// Only the first record since the last transaction wakes the task.
#[tokio::test]
async fn record_wakes_the_task_after_a_partition_was_lost() {
    let transactions = transactions().await;
    let partitions = [0, 1].map(|p| TopicPartition::new("t", p));
    let [lost, kept] = partitions.each_ref().map(|tp| assign(&transactions, tp));
    tokio::time::pause();
    let work = transactions.wait_for_work(Instant::now(), false, None);
    tokio::pin!(work);
    assert!(work.as_mut().now_or_never().is_none());
    end(&lost, 0);
    assert!(work.as_mut().now_or_never().is_none());
    assert_eq!(transactions.remove(partitions[..1].iter()), 1);
    end(&lost, 1); // by a worker that has not stopped yet
    transactions.shared.work.notify_one();
    assert!(work.as_mut().now_or_never().is_none());
    end(&kept, 0);
    assert!(tokio::time::timeout(Duration::from_secs(60), work).await.is_ok(), "nothing wakes the task");
}

#[tokio::test]
async fn flush_does_not_wait_for_lost_partitions() {
    let (transactions, tp) = (transactions().await, TopicPartition::new("t", 0));
    end(&assign(&transactions, &tp), 0);
    let flush = transactions.flush(std::iter::once(&tp), Instant::now() + Duration::from_secs(3600));
    tokio::pin!(flush);
    assert!(flush.as_mut().now_or_never().is_none());
    assert_eq!(transactions.remove(std::iter::once(&tp)), 1);
    let outcome = flush.now_or_never().expect("it has ended");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::GroupMembership);
}
