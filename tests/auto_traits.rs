//! Handles and futures cross threads, and types that are held per record are small.

use std::mem::size_of;

use ailurus::admin::{GroupDescription, TopicInfo};
use ailurus::{
    Acknowledgement, Admin, Client, CommitHandle, Committer, Config, Consumer, ConsumerEvent, Delivery, Error, Headers,
    Health, Message, MessageStream, Processor, Producer, ProducerRecord, Record, Records, RedpandaService, Revocation,
    Router, Subscription, Timestamp, TopicPartition, Transaction, TransactionalProducer,
};
use ailurus_metrics::{MetricsSnapshot, Registry};

fn is_send_sync<T: Send + Sync>() {}
fn is_send<T: Send>(_: T) {}

#[test]
fn handles_and_data_are_send_and_sync() {
    is_send_sync::<(Client, Producer, Consumer, Processor, Subscription, Admin, RedpandaService)>();
    is_send_sync::<ailurus::processor::SubscriptionControl>();
    is_send_sync::<(TransactionalProducer, Transaction<'static>)>();
    is_send_sync::<(Router, Committer, CommitHandle, Delivery, Revocation, Registry)>();
    is_send(None::<MessageStream>);
    is_send_sync::<(Config, Error, Message, Record, Records, Headers, ConsumerEvent, TopicPartition)>();
    is_send_sync::<(Acknowledgement, ProducerRecord<'static>, Health, MetricsSnapshot, GroupDescription, TopicInfo)>();
}

/// Compiled, never called.
#[allow(dead_code)]
fn futures_are_send(
    client: &'static Client,
    producer: &'static Producer,
    mut consumer: Consumer,
    admin: &'static Admin,
    transactional: &'static mut TransactionalProducer,
    transaction: Transaction<'static>,
) {
    is_send(client.transactional_producer("id").start());
    is_send(transactional.begin());
    is_send(transaction.commit());
    is_send(Client::connect(Config::default()));
    is_send(producer.send(ProducerRecord::to("t")));
    is_send(producer.flush(std::time::Duration::ZERO));
    is_send(admin.describe_group("g"));
    is_send(admin.list_groups());
    is_send(admin.list_topics());
    is_send(admin.log_dirs(None));
    is_send(admin.describe_cluster());
    is_send(admin.list_offsets(&[], ailurus::StartOffset::Latest));
    is_send(Health::check(client));
    is_send(async move {
        let _ = consumer.recv().await;
        let _ = consumer.commit(&[]).await;
    });
}

#[test]
fn types_held_per_record_are_small() {
    let sizes = [
        ("Error", size_of::<Error>(), 16),
        ("Result<()>", size_of::<ailurus::Result<()>>(), 16),
        ("Delivery", size_of::<Delivery>(), 24),
        ("Timestamp", size_of::<Timestamp>(), 8),
        ("TopicPartition", size_of::<TopicPartition>(), 24),
    ];
    let large: Vec<_> = sizes.into_iter().filter(|(_, size, most)| size > most).collect();
    assert!(large.is_empty(), "type, bytes, maximum: {large:?}");
}
