//! Positions: where logs begin and end, by time, and moved by hand.

use super::*;

#[tokio::test]
async fn offsets_are_looked_up_by_end_and_by_time() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    produce(&client, &topic, 1, 0..100, Compression::None).await;
    let config = client.config().consumer.clone();
    let consumer = Consumer::assign(&client, all(&topic, 1, StartOffset::Latest), config).await.unwrap();
    let [p, empty] = [0, 1].map(|i| TopicPartition::new(&*topic, i));
    let both = [p.clone(), empty.clone()];
    assert_eq!(consumer.beginning_offsets(&both).await.unwrap(), [(p.clone(), 0), (empty.clone(), 0)].into());
    assert_eq!(consumer.end_offsets(&both).await.unwrap(), [(p.clone(), 100), (empty.clone(), 0)].into());
    let found = consumer.offsets_for_times(&[(p.clone(), 71), (empty.clone(), 0)]).await.unwrap();
    let first = found[&p].unwrap();
    assert_eq!((first.offset, first.timestamp), (70, 71));
    assert_eq!(found[&empty], None);
    let found = consumer.offsets_for_times(&[(p.clone(), 1_000_000)]).await.unwrap();
    assert_eq!(found[&p], None, "behind the last record");
    let e = consumer.offsets_for_times(&[(p, -1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    let e = consumer.end_offsets(&[TopicPartition::new(&*topic, 2)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnknownTopic, "{e}");
    consumer.close().await.unwrap();
}
