//! TLS that fails for a while: every role waits, and works again by itself.

use ailurus::health::Status;
use ailurus::{Message, RedpandaService};
use tokio::sync::mpsc;

use super::files::restart_nodes;
use super::*;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it takes too long")
}

async fn until(mut wanted: impl AsyncFnMut() -> bool) {
    soon(async {
        while !wanted().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn untrusted_brokers_are_retried_after_success() {
    let server = |authority: &Authority| authority.issue(HERE).server_of(rustls::ALL_VERSIONS, None);
    let secured = Secured::start(server).await;
    secured.broker.create_topic("t", 1).unwrap();
    let mut config = secured.config(secured.tls()).build().unwrap();
    config.retry_backoff = Duration::from_millis(5);
    config.retry_backoff_max = Duration::from_millis(50);
    let service = RedpandaService::connect(config).await.unwrap();
    let (handled, mut seen) = mpsc::unbounded_channel();
    let handle = move |message: Message| {
        let handled = handled.clone();
        async move { handled.send(message.offset).unwrap() }
    };
    let subscription = service.subscribe(["t"], "g", handle).await.unwrap();
    let send = || service.producer().send(ProducerRecord::to("t").value("x"));
    soon(async { send().await.unwrap().await.unwrap() }).await;
    assert_eq!(soon(seen.recv()).await, Some(0));
    // All nodes have a certificate of somebody else, and every connection is made again.
    let other = Authority::new("others");
    secured.broker.set_tls(Some(server(&other)));
    restart_nodes(&secured.broker).await;
    let waiting = soon(send()).await.unwrap();
    until(async || {
        let health = service.health().await;
        health.status > Status::Healthy && health.problems.iter().any(|p| p.contains("certificate"))
    })
    .await;
    secured.broker.set_tls(Some(server(&secured.authority)));
    restart_nodes(&secured.broker).await;
    soon(waiting).await.unwrap();
    assert_eq!(soon(seen.recv()).await, Some(1));
    until(async || service.health().await.status == Status::Healthy).await;
    soon(subscription.shutdown()).await.unwrap();
    soon(service.close(LONG)).await.unwrap();
}
