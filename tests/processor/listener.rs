//! Listeners of assignments and revocations.

use ailurus::processor::RebalanceListener;

use super::*;

/// Calls of the listener, by number of partitions.
#[derive(Debug, Clone)]
struct Calls(Arc<watch::Sender<Vec<(&'static str, usize)>>>);

impl Calls {
    async fn until(&self, all: &[(&'static str, usize)]) {
        let mut calls = self.0.subscribe();
        let wait = calls.wait_for(|calls| calls.iter().filter(|(_, n)| *n > 0).eq(all));
        let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
        assert!(in_time, "{:?} seen, {all:?} wanted", self.0.borrow());
    }
}

impl RebalanceListener for Calls {
    fn assigned(&self, partitions: &[TopicPartition]) {
        self.0.send_modify(|all| all.push(("assigned", partitions.len())));
    }
    fn revoked(&self, partitions: &[TopicPartition]) {
        self.0.send_modify(|all| all.push(("revoked", partitions.len())));
    }
    fn lost(&self, partitions: &[TopicPartition]) {
        self.0.send_modify(|all| all.push(("lost", partitions.len())));
    }
}

#[tokio::test]
async fn a_listener_sees_assignments_and_revocations() {
    let broker = support::broker().await;
    let session = broker.shortest_session();
    let client = connect(broker.config().session_timeout(session).heartbeat_interval(session / 10)).await;
    let topic = filled(&broker, &client, "t", 4, 20).await;
    let group = broker.group("g");
    let calls = Calls(Arc::new(watch::channel(Vec::new()).0));
    let handle = |_: Message| async { Ok::<(), Infallible>(()) };
    let first = client.processor(&group).listener(calls.clone()).subscribe([&topic], handle).await.unwrap();
    calls.until(&[("assigned", 4)]).await;
    let second = client.processor(&group).subscribe([&topic], handle).await.unwrap();
    calls.until(&[("assigned", 4), ("revoked", 2)]).await;
    second.shutdown().await.unwrap();
    calls.until(&[("assigned", 4), ("revoked", 2), ("assigned", 2)]).await;
    first.shutdown().await.unwrap();
    calls.until(&[("assigned", 4), ("revoked", 2), ("assigned", 2), ("revoked", 4)]).await;
}
