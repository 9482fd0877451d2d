//! What the first record to each of many topics costs: one in turn, then one to each of as many others at the same time.
//!
//! ```text
//! cargo run --release --example many_topics -- BOOTSTRAP TOPICS
//! ```
//!
//! It creates twice so many topics of one partition, named `many-topics-…`, and deletes them. One line tells the wall-clock time
//! of each part; it should grow with the number of topics and no faster.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ailurus::{Admin, Client, Config, Producer, ProducerRecord, Result};
use futures_util::future::join_all;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topics] = args.as_slice() else {
        println!("usage: many_topics BOOTSTRAP TOPICS");
        return ExitCode::from(2);
    };
    let Ok(topics) = topics.parse() else {
        println!("many_topics: {topics:?} is not a number of topics");
        return ExitCode::from(2);
    };
    match run(bootstrap, topics).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("many_topics: {}", error.full());
            ExitCode::FAILURE
        }
    }
}

async fn run(bootstrap: &str, topics: usize) -> Result<()> {
    let client = Client::connect(Config::builder().brokers(bootstrap).build()?).await?;
    let admin = Admin::new(&client);
    let names: Vec<String> = (0..2 * topics).map(|n| format!("many-topics-{n}")).collect();
    for name in &names {
        admin.create_topic(name, 1, None).await?;
    }
    let (in_turn, at_once) = names.split_at(topics);
    let producer = Producer::new(&client, client.config().producer.clone())?;
    let begun = Instant::now();
    for name in in_turn {
        producer.send(ProducerRecord::to(name).value("x")).await?.await?;
    }
    let turns = begun.elapsed();
    let begun = Instant::now();
    let sent = join_all(at_once.iter().map(|name| producer.send(ProducerRecord::to(name).value("x")))).await;
    for delivery in sent {
        delivery?.await?;
    }
    println!("{topics} topics: in turn {turns:.1?}, at the same time {:.1?}", begun.elapsed());
    producer.close(Duration::from_secs(10)).await?;
    for name in &names {
        admin.delete_topic(name).await?;
    }
    client.close().await;
    Ok(())
}
