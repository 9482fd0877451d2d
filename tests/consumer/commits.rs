//! What is committed, when, and what comes back.

use super::*;

#[tokio::test]
async fn what_is_committed_with_an_offset_comes_back_to_the_next_owner() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    produce(&client, &topic, 2, 0..20, Compression::None).await;
    let (group, config) = (broker.group("g"), client.config().consumer.clone());
    let (p, other) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
    let offset = OffsetAndMetadata::new(4).with_leader_epoch(0).with_metadata("{\"checked\":true} \u{1f43c}");

    let mut first = Consumer::subscribe(&client, &group, &[&topic], config.clone()).await.unwrap();
    assigned(&mut first).await;
    assert_eq!(first.committed_metadata(&p), None);
    let plain = OffsetAndMetadata::new(7);
    first.commit_with(&[(p.clone(), offset.clone()), (other.clone(), plain.clone())]).await.unwrap();
    assert_eq!(first.committed_metadata(&p), Some(offset.clone()));
    for (len, kind) in [(5_000, ErrorKind::Broker(12)), (40_000, ErrorKind::Config)] {
        let long = OffsetAndMetadata::new(5).with_metadata("x".repeat(len));
        let e = first.commit_with(&[(p.clone(), long)]).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
    first.close().await.unwrap();

    let mut second = Consumer::subscribe(&client, &group, &[&topic], config).await.unwrap();
    assigned(&mut second).await;
    assert_eq!((second.committed(&p), second.committed_metadata(&p)), (Some(4), Some(offset)));
    assert_eq!(second.committed_metadata(&other), Some(plain));
    second.close().await.unwrap();
}
