//! Dead letters that the command alone has written.

use serde_json::Value;

use super::{Bed, Ended};

/// A topic and its dead-letter topic. Their records are written by the command alone: a dead letter is a record with certain
/// headers.
pub struct DeadLetters {
    pub bed: Bed,
    pub topic: String,
    pub dlq: String,
}

impl DeadLetters {
    pub fn new(partitions: u32) -> Self {
        let mut bed = Bed::new();
        let topic = bed.topic("orders", partitions);
        let dlq = bed.topic("orders.dlq", partitions);
        Self { bed, topic, dlq }
    }

    /// Writes a dead letter to partition 0.
    pub fn dead_letter(&self, key: &str, value: &str, error: &str, more: &[&str]) {
        self.dead_letter_of(&self.topic, key, value, error, more);
    }

    pub fn dead_letter_of(&self, origin: &str, key: &str, value: &str, error: &str, more: &[&str]) {
        let headers = [
            "tenant=berlin".to_owned(),
            "tenant=paris".to_owned(),
            "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        ];
        let dlq_headers = [
            format!("dlq-error={error}"),
            format!("dlq-topic={origin}"),
            "dlq-partition=0".to_owned(),
            "dlq-offset=42".to_owned(),
            "dlq-timestamp=1234567".to_owned(),
            "dlq-group=billing".to_owned(),
            "dlq-attempts=4".to_owned(),
            "dlq-first-failure=2026-01-31T12:00:00.000Z".to_owned(),
            "dlq-last-failure=2026-01-31T12:00:05.000Z".to_owned(),
        ];
        let mut args = vec!["produce", &self.dlq, "--partition", "0", "--key", key];
        let before = more.iter().filter(|h| h.starts_with("dlq-replays"));
        let after = more.iter().filter(|h| !h.starts_with("dlq-replays"));
        for header in headers.iter().map(String::as_str).chain(before.copied()) {
            args.extend(["--header", header]);
        }
        for header in dlq_headers.iter().map(String::as_str).chain(after.copied()) {
            args.extend(["--header", header]);
        }
        self.bed.feed(&args, format!("{value}\n").as_bytes()).expect(0);
    }

    pub fn run(&self, action: &str, more: &[&str]) -> Ended {
        let mut args = vec!["dlq", action, &self.dlq];
        args.extend(more);
        self.bed.run(&args)
    }

    /// dead letters, open, replayed, discarded
    pub fn counts(&self) -> [i64; 4] {
        let listed = self.run("list", &["--json"]).expect(0).json_lines().remove(0);
        ["letters", "open", "replayed", "discarded"].map(|name| listed[0][name].as_i64().unwrap())
    }

    /// Does something with a client of this broker.
    pub fn with_client<T>(&self, work: impl AsyncFnOnce(&ailurus::Client) -> T) -> T {
        let config = ailurus::Config::builder().brokers(self.bed.brokers.as_str()).max_request_size(8_000_000_usize);
        let config = config.buffer_memory(16_000_000).build().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = ailurus::Client::connect(config).await.unwrap();
            let done = work(&client).await;
            client.close().await;
            done
        })
    }

    /// The records of the origin topic.
    pub fn replayed(&self) -> Vec<Value> {
        self.bed.run(&["consume", &self.topic, "--exit-at-end", "--json"]).expect(0).json_lines()
    }
}
