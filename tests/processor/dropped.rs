//! Subscriptions that nobody keeps.

use std::io;
use std::sync::{Arc, Mutex};

use ailurus::Message;

use super::{connect, filled, support};

/// Lines of a log.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let writer = self.clone();
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

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
    let subscribe = async || client.processor(&group).subscribe([&topic], |_: Message| async {}).await;
    let (dropped, ended) = (subscribe().await.unwrap(), subscribe().await.unwrap());
    let ending = ended.shutdown();
    tracing::subscriber::with_default(log.subscriber(), || drop(dropped));
    ending.await.unwrap();
    let logged = log.text();
    let warned = format!(
        "a subscription was dropped and shuts down: keep it, and end it with run_until_signal or shutdown group=\"{group}\" topics={topic}"
    );
    assert_eq!(logged.matches(&warned).count(), 1, "{logged}");
    client.close().await;
}
