//! Members that stay although they hang, restart or are slow, and those that do not.

use super::*;

#[tokio::test]
async fn a_static_member_that_restarts_costs_no_rebalance() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    for assignor in [AssignorKind::Range, AssignorKind::CooperativeSticky] {
        let group = format!("{group}-{}", assignor.name());
        let start = |id: &'static str| {
            let mut config = client.config().consumer.clone();
            config.group_instance_id = Some(id.into());
            config.assignors = vec![assignor.clone()];
            config.session_timeout = Duration::from_secs(30);
            let (client, group, topic) = (&client, &group, &topic);
            async move { client.consumer(group).config(config).subscribe([topic]).await.unwrap() }
        };
        let mut first = start("one").await;
        assigned(&mut first).await;
        let mut second = start("two").await;
        soon(async {
            while (first.assignment().len(), second.assignment().len()) != (2, 2) {
                tokio::select! {
                    event = first.recv() => drop(event.unwrap()),
                    event = second.recv() => drop(event.unwrap()),
                    () = tokio::task::yield_now() => {}
                }
            }
        })
        .await;
        // The leader restarts, and then the other one.
        for restarted in ["one", "two"] {
            let (leaves, stays) = if restarted == "one" { (&mut first, &second) } else { (&mut second, &first) };
            let (had, generation) = (leaves.assignment(), stays.generation());
            let id = leaves.member_id();
            let again = start(restarted).await;
            std::mem::replace(leaves, again).close().await.unwrap();
            let has = assigned(leaves).await;
            assert_eq!(has, had, "{restarted} has what it had");
            assert_eq!((leaves.generation(), stays.generation()), (generation, generation), "no rebalance");
            assert_ne!(leaves.member_id(), id);
        }
        // A second member with the same instance id fences the first.
        let mut thief = start("two").await;
        assigned(&mut thief).await;
        let e = soon(async {
            loop {
                if let Err(e) = second.recv().await {
                    break e;
                }
            }
        })
        .await;
        assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e:#}");
        assert!(format!("{e:#}").contains("ConsumerConfig::group_instance_id"), "{e:#}");
        assert_eq!(second.state(), ConsumerState::Closed);
        thief.close().await.unwrap();
        first.close().await.unwrap();
    }
}

#[tokio::test]
async fn exceeding_max_poll_interval_leaves_the_group() {
    let broker = support::broker().await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    hangs_and_goes_on(&client, &topic, &broker.group("g"), client.config().consumer.clone()).await;
}

/// The same for either protocol.
pub async fn hangs_and_goes_on(client: &Client, topic: &str, group: &str, settings: ConsumerConfig) {
    produce(client, topic, 2, 0..20, Compression::None).await;
    let mut config = settings.clone();
    config.max_poll_interval = Duration::from_millis(500);
    let mut hung = client.consumer(group).config(config).subscribe([topic]).await.unwrap();
    let records = next_records(&mut hung).await;
    let committer = hung.committer();
    // It handles these, and does not come back for more: another one gets all.
    let mut other = client.consumer(group).config(settings).subscribe([topic]).await.unwrap();
    soon(async {
        while other.assignment().len() != 2 {
            tokio::select! {
                event = other.recv() => drop(event.unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    let late = committer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::GroupMembership);
    assert_eq!(Admin::new(client).describe_group(group).await.unwrap().members.len(), 1);
    other.close().await.unwrap();
    drop(records);
    let event = next(&mut hung).await;
    assert!(matches!(&event, ConsumerEvent::Lost(_)), "{event:?}");
    soon(async {
        while hung.assignment().len() != 2 {
            tokio::select! {
                event = hung.recv() => drop(event.unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    hung.close().await.unwrap();
}

#[tokio::test]
async fn heartbeats_continue_during_slow_commits_and_polls() {
    let test = support::broker().await;
    let Some(broker) = test.embedded() else { return };
    let client = client(&test).await;
    let topic = topic(&test, &client, "t", 2).await;
    let mut consumer = client.consumer(test.group("g")).subscribe([&topic]).await.unwrap();
    let partitions = assigned(&mut consumer).await;
    let generation = consumer.generation();
    let slow = test.shortest_session() * 3;
    let beats = Arc::new(watch::channel(0).0);
    let count = Arc::clone(&beats);
    broker.set_hook(move |request| {
        if request.api_key == HEARTBEAT {
            count.send_modify(|n| *n += 1);
        }
        (request.api_key == OFFSET_COMMIT).then_some(Fault::Delay(slow))
    });
    consumer.commit(&[(partitions[0].clone(), 0)]).await.unwrap();
    assert!(*beats.borrow() > 3, "they go on while the commit waits");
    assert_eq!((consumer.generation(), consumer.assignment().len()), (generation, 2));
    broker.clear_hook();
    consumer.close().await.unwrap();
}
