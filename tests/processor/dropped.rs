//! Subscriptions that nobody keeps.

use std::io;
use std::sync::{Arc, Mutex};

use ailurus::Message;

use super::{connect, filled, support};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_dropped_subscription_is_logged() {
    let broker = support::broker().await;
    let client = connect(broker.config()).await;
    let topic = filled(&broker, &client, "dropped", 1, 0).await;
    let group = broker.group("dropped");
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let subscribe = async || client.processor(&group).subscribe([&topic], |_: Message| async {}).await;
    let (dropped, ended) = (subscribe().await.unwrap(), subscribe().await.unwrap());
    let ending = ended.shutdown();
    tracing::subscriber::with_default(subscriber, || drop(dropped));
    ending.await.unwrap();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let warned = format!(
        "a subscription was dropped and shuts down: keep it, and end it with run_until_signal or shutdown group=\"{group}\" topics={topic}"
    );
    assert_eq!(logged.matches(&warned).count(), 1, "{logged}");
    client.close().await;
}
