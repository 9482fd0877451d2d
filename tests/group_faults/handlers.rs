//! A member of the group whose records are handled concurrently, by a processor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ailurus::processor::RebalanceListener;
use ailurus::{Client, ConsumerConfig, HandlerOrdering, Message, ProcessorConfig, TopicPartition};
use ailurus_test_support::faults::mix;
use tokio::sync::mpsc;

use super::checker::MemberNumber;
use super::member::{Command, Context, GROUP, TOPIC, numbers, until_joined};

/// Reports assignments and losses.
struct Listener {
    context: Arc<Context>,
    member: MemberNumber,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Losses")
    }
}

impl RebalanceListener for Listener {
    fn assigned(&self, _: &[TopicPartition]) {
        self.context.checker().assignments += 1;
    }

    fn lost(&self, partitions: &[TopicPartition]) {
        self.context.checker().lost(self.member, Some(&numbers(partitions)));
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

/// Handles a record, or fails at the first attempt.
async fn handle(context: Arc<Context>, message: Message) -> Result<(), &'static str> {
    let hash = (message.partition as u64) << 32 | message.offset as u64;
    let random = mix(context.plan.seed ^ u64::from(message.attempt), hash);
    let time = Duration::from_micros(random % (context.plan.max_handling_time.as_micros() as u64 * 3 + 1));
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    if message.attempt == 1 && random % 16 == 0 {
        return Err("the first attempt fails");
    }
    context.checker().handled_by_key(message.partition, message.offset);
    Ok(())
}

pub async fn run(
    context: Arc<Context>,
    number: MemberNumber,
    client: &Client,
    consumer: ConsumerConfig,
    ordering: HandlerOrdering,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> ailurus::Result<()> {
    let subscription = until_joined(|| {
        let (handled, losses) = (Arc::clone(&context), Listener { context: Arc::clone(&context), member: number });
        client
            .processor(GROUP)
            .consumer_config(consumer.clone())
            .config(settings(ordering))
            .listener(losses)
            .subscribe([TOPIC], move |message: Message| handle(Arc::clone(&handled), message))
    })
    .await?;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Hang(_)) => {} // handlers do not keep a processor from its group
                Some(Command::Crash) => {
                    context.checker().lost(number, None);
                    subscription.abort().await;
                    return Ok(());
                }
                Some(Command::Leave) | None => {
                    // Records that could not be committed are handled again.
                    if subscription.shutdown().await.is_err() {
                        context.checker().repeats_allowed = true;
                    }
                    return Ok(());
                }
            },
            ended = subscription.ended() => return ended,
        }
    }
}
