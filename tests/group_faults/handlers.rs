//! A member of the group whose records are handled side by side, by a processor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ailurus::processor::RebalanceListener;
use ailurus::{Client, ConsumerConfig, HandlerOrdering, Message, Processor, ProcessorConfig, TopicPartition};
use tokio::sync::mpsc;

use super::member::{GROUP, Order, TOPIC, World, numbers, until_joined};
use super::watch::Number;
use super::weather::mix;

/// Says what was lost.
struct Losses {
    world: Arc<World>,
    member: Number,
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Losses")
    }
}

impl RebalanceListener for Losses {
    fn assigned(&self, _: &[TopicPartition]) {
        self.world.watch().rebalances += 1;
    }

    fn lost(&self, partitions: &[TopicPartition]) {
        self.world.watch().lost(self.member, Some(&numbers(partitions)));
    }
}

fn settings(ordering: HandlerOrdering) -> ProcessorConfig {
    let mut settings = ailurus::Config::builder().build().expect("the defaults are allowed").processor;
    settings.ordering = ordering;
    settings.concurrency = 8;
    settings.max_attempts = 5;
    settings.retry_backoff = Duration::from_millis(5);
    settings.retry_backoff_max = Duration::from_millis(20);
    settings.commit_interval = Duration::from_millis(50);
    settings.shutdown_timeout = Duration::from_secs(10);
    settings
}

/// Handles a record, or fails, once.
async fn handle(world: Arc<World>, message: Message) -> Result<(), &'static str> {
    let place = (message.partition as u64) << 32 | message.offset as u64;
    let random = mix(world.plan.seed ^ u64::from(message.attempt), place);
    let time = Duration::from_micros(random % (world.plan.pace.as_micros() as u64 * 3 + 1));
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    if message.attempt == 1 && random % 16 == 0 {
        return Err("the first attempt fails");
    }
    world.watch().handled_by_key(message.partition, message.offset);
    Ok(())
}

pub async fn run(
    world: Arc<World>,
    number: Number,
    client: &Client,
    consumer: ConsumerConfig,
    ordering: HandlerOrdering,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> ailurus::Result<()> {
    let subscription = until_joined(|| {
        let (handled, losses) = (Arc::clone(&world), Losses { world: Arc::clone(&world), member: number });
        Processor::new(client).consumer(consumer.clone()).processor(settings(ordering)).listener(losses).subscribe(
            &[TOPIC],
            GROUP,
            move |message: Message| handle(Arc::clone(&handled), message),
        )
    })
    .await?;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Hang(_)) => {} // handlers do not keep a processor from its group
                Some(Order::Die) => {
                    world.watch().lost(number, None);
                    subscription.abort().await;
                    return Ok(());
                }
                Some(Order::Leave) | None => {
                    // What could not be committed is handled again.
                    if subscription.shutdown().await.is_err() {
                        world.watch().again_is_allowed = true;
                    }
                    return Ok(());
                }
            },
            ended = subscription.ended() => return ended,
        }
    }
}
