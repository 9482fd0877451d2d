//! A publisher and nothing else: each line of stdin becomes a record, and ends acknowledged or as an error.
//!
//! ```text
//! cargo run --release --example publisher -- TOPIC [KEY] < FILE
//! ```
//!
//! Settings are `REDPANDA_*` variables or those of `.env`. What this program weighs is what the library adds to one:
//! `scripts/build-static` builds it by itself and says.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::time::Duration;

use ailurus::{Client, Config, Delivery, Error, ProducerRecord};
use tokio::sync::mpsc;

/// Deliveries that are waited for at a time, at most.
const WINDOW: usize = 10_000;

#[derive(Debug, Default)]
struct Count {
    delivered: u64,
    /// Number of failed records and the last error.
    failed: Option<(u64, Error)>,
}

impl Count {
    async fn add_oldest(&mut self, waiting: &mut VecDeque<Delivery>) {
        match waiting.pop_front() {
            None => {}
            Some(oldest) => match oldest.await {
                Ok(_) => self.delivered += 1,
                Err(e) => self.failed = Some((self.failed.take().map_or(0, |(n, _)| n) + 1, e)),
            },
        }
    }
}

async fn publish(topic: &str, key: Option<&str>) -> ailurus::Result<Count> {
    let config = Config::from_env()?;
    let client = Client::connect(config.clone()).await?;
    let producer = client.producer().config(config.producer).start()?;
    let mut lines = lines();
    let mut waiting = VecDeque::new();
    let mut count = Count::default();
    while let Some(line) = lines.recv().await {
        let mut record = ProducerRecord::to(topic).value(line);
        record.key = key.map(Into::into);
        waiting.push_back(producer.send(record).await?);
        while waiting.len() > WINDOW {
            count.add_oldest(&mut waiting).await;
        }
    }
    while !waiting.is_empty() {
        count.add_oldest(&mut waiting).await;
    }
    producer.close(Duration::from_secs(10)).await?;
    client.close().await;
    Ok(count)
}

/// Reading a terminal or a pipe blocks, so it has a thread of its own; it ends with its input, or when nobody takes its lines.
fn lines() -> mpsc::Receiver<Vec<u8>> {
    let (lines, taken) = mpsc::channel(1000);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            match line {
                Ok(line) => {
                    if lines.blocking_send(line).is_err() {
                        return;
                    }
                }
                Err(e) => return eprintln!("stdin: {e}"),
            }
        }
    });
    taken
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(topic) = args.next() else {
        eprintln!("usage: publisher TOPIC [KEY] < FILE");
        return ExitCode::from(2);
    };
    match publish(&topic, args.next().as_deref()).await {
        Ok(Count { delivered, failed }) => {
            println!("{delivered} delivered");
            let Some((failed, last)) = failed else { return ExitCode::SUCCESS };
            eprintln!("{failed} not delivered, the last because: {last:#}");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
