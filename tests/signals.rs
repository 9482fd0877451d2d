//! A program that runs until a signal: in a binary of its own, for a signal is the whole process's.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use ailurus::{Admin, Client, Message, Processor, ProducerRecord, RedpandaService};
use tokio::sync::mpsc;

fn send_to_ourselves(signal: &str) {
    let killed = Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigint_drain_a_subscription() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let (topic, group) = (broker.topic("signals"), broker.group("signals"));
    let admin = Admin::new(&client);
    admin.create_topic(&topic, 1, None).await.unwrap();
    let service = RedpandaService::new(&client).unwrap();
    for (value, signal) in [("first", "-TERM"), ("second", "-INT")] {
        let record = ProducerRecord::to(&topic).value(value);
        let offset = service.producer().send(record).await.unwrap().await.unwrap().offset.unwrap();
        let (begun, mut begins) = mpsc::unbounded_channel();
        let handle = move |message: Message| {
            begun.send(message.offset).unwrap();
            // In flight until the signal has arrived.
            async move { message.stopping().await }
        };
        let subscription = Processor::new(&client).subscribe(&[&topic], &group, handle).await.unwrap();
        let running = tokio::spawn(subscription.run_until_signal());
        assert_eq!(begins.recv().await, Some(offset));
        send_to_ourselves(signal);
        let left = running.await.unwrap().unwrap();
        assert!(left.is_empty(), "{left}");
        let described = admin.describe_group(&group).await.unwrap();
        assert_eq!(described.offsets[0].committed, Some(offset + 1), "what was in flight was finished and committed");
        assert!(described.members.is_empty(), "the group was left");
    }
    client.close().await;
}
