//! The cost of a subscription with many partitions, on an embedded broker in the same process.
//!
//! ```text
//! cargo run --release --example many_partitions -- [PARTITIONS [RECORDS [BROKER]]]
//! ```
//!
//! With the address of another broker, that one is used; its topics and groups stay there.
//!
//! Lines of numbers: records of 340 bytes handled by a handler that does nothing; a second in which nothing happens; records of
//! all partitions while the handler of one takes 20 ms for each, and what that one got done meanwhile. CPU time is the broker's
//! too.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ailurus::{Admin, Client, Config, HandlerOrdering, Message, ProducerRecord, Subscription};
use ailurus_broker::{Broker, BrokerConfig};
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SLOW: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(300);

/// CPU time of this process; none where the system does not report it.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}

/// Resident memory in MB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() / 1024
}

async fn measure<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let (began, used) = (Instant::now(), cpu());
    let done = tokio::time::timeout(LIMIT, work).await.map_err(|_| format!("{what}: not done after {LIMIT:?}"))??;
    let (wall, used) = (began.elapsed(), cpu().saturating_sub(used));
    println!("{what:<44} {:>8.2} s wall {:>8.2} s CPU {:>5} MB", wall.as_secs_f64(), used.as_secs_f64(), memory());
    Ok(done)
}

async fn fill(client: &Client, topic: &str, partitions: usize, records: usize) -> Result<()> {
    let mut config = client.config().producer.clone();
    config.linger = Duration::from_millis(5);
    let producer = client.producer().config(config).start()?;
    let value = [b'x'; 340];
    for i in 0..records {
        let key = i.to_string();
        let record = ProducerRecord::to(topic).key(&key).value(&value).partition((i % partitions) as i32);
        producer.send(record).await?.on_complete(drop);
    }
    Ok(producer.close(LIMIT).await?)
}

/// Counts of what the handlers have done.
#[derive(Default)]
struct Done {
    of_slow: AtomicUsize,
    of_others: AtomicUsize,
}

/// Work of a handler.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    Nothing,
    /// Each gives way to others once.
    Yield,
    /// Those of one partition wait.
    OneIsSlow,
}

async fn subscribe(client: &Client, topic: &str, work: Work, done: &Arc<Done>) -> Result<Subscription> {
    let (group, done) = (format!("{topic}-{work:?}"), Arc::clone(done));
    let handle = move |message: Message| {
        let done = Arc::clone(&done);
        async move {
            if work == Work::Yield {
                tokio::task::yield_now().await;
            }
            if work == Work::OneIsSlow && message.partition == 0 {
                tokio::time::sleep(SLOW).await;
                done.of_slow.fetch_add(1, Ordering::Relaxed);
            } else {
                done.of_others.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    Ok(client.processor(&group).subscribe([topic], handle).await?)
}

async fn until(count: &AtomicUsize, all: usize) -> Result<()> {
    while count.load(Ordering::Relaxed) < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Kafka refuses to create a topic of more partitions at once.
const AT_ONCE: usize = 5000;

async fn create(client: &Client, topic: &str, partitions: usize) -> Result<()> {
    let admin = Admin::new(client);
    let mut count = partitions.min(AT_ONCE);
    admin.create_topic(topic, count as i32, None).await?;
    while count < partitions {
        count = partitions.min(count + AT_ONCE);
        admin.create_partitions(topic, count as i32).await?;
    }
    Ok(())
}

async fn run(partitions: usize, records: usize, address: Option<String>) -> Result<()> {
    let (_broker, address) = match address {
        Some(address) => (None, address),
        None => {
            let broker = Broker::start(BrokerConfig::default()).await?;
            let address = broker.bootstrap();
            (Some(broker), address)
        }
    };
    let run = std::process::id();
    for ordering in [HandlerOrdering::Unordered, HandlerOrdering::Partition, HandlerOrdering::Key] {
        let config = Config::builder().brokers(&address).handler_ordering(ordering).build()?;
        let client = Client::connect(config).await?;
        let topic = format!("{ordering:?}-{run}");
        create(&client, &topic, partitions).await?;
        fill(&client, &topic, partitions, records).await?;

        println!("{ordering:?}, {partitions} partitions, {records} records");
        for work in [Work::Nothing, Work::Yield] {
            let done = Arc::new(Done::default());
            let handled = async {
                let subscription = subscribe(&client, &topic, work, &done).await?;
                until(&done.of_others, records).await?;
                Ok(subscription)
            };
            let subscription = measure(&format!("  handlers do: {work:?}"), handled).await?;
            let idle = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            };
            measure("  idle", idle).await?;
            let left = measure("  shutdown", async { Ok(subscription.shutdown().await?) }).await?;
            println!("    {left}");
        }

        let done = Arc::new(Done::default());
        let of_slow = records.div_ceil(partitions);
        let slow = measure("  others, beside one slow partition", async {
            let slow = subscribe(&client, &topic, Work::OneIsSlow, &done).await?;
            until(&done.of_others, records - of_slow).await?;
            Ok(slow)
        })
        .await?;
        println!("    the slow one has handled {} of {of_slow}", done.of_slow.load(Ordering::Relaxed));
        slow.abort().await;
        client.close().await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let partitions = args.next().map_or(Ok(1000), |n| n.parse())?.max(1);
    let records = args.next().map_or(Ok(200_000), |n| n.parse())?;
    run(partitions, records, args.next()).await
}
