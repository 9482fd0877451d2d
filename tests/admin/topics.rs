//! Topics as they are wanted, their settings, what they take.

use ailurus::admin::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource, NewTopic};
use ailurus::{Admin, Client, ErrorKind, ProducerRecord};

use crate::support;

#[tokio::test]
async fn a_topic_is_created_with_settings_and_assignment() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ids: Vec<i32> = admin.describe_cluster().await.unwrap().brokers.iter().map(|b| b.id).collect();
    let last = *ids.last().unwrap();
    let name = broker.topic("placed");
    let new = NewTopic::new(&name).replicas(vec![vec![last], vec![ids[0]], vec![last]]).config("retention.ms", "77000");
    admin.check_topic(&new).await.unwrap();
    assert!(admin.describe_topic(&name).await.unwrap_err().is_unknown_topic(), "it was only checked");
    admin.create_topic_with(&new).await.unwrap();
    let topic = admin.describe_topic(&name).await.unwrap();
    let replicas: Vec<_> = topic.partitions.iter().map(|p| p.replicas.clone()).collect();
    assert_eq!(replicas, [[last], [ids[0]], [last]]);
    let settings = admin.describe_configs(&ConfigResource::Topic(name.clone())).await.unwrap();
    let retention = find(&settings, "retention.ms");
    assert_eq!((retention.value.as_deref(), retention.source), (Some("77000"), ConfigSource::Topic));
    assert!(settings.is_sorted_by(|a, b| a.name <= b.name));

    assert_eq!(admin.check_topic(&new).await.unwrap_err().kind(), ErrorKind::TopicExists);
    let other = broker.topic("other");
    let e = admin.create_topic_with(&NewTopic::new(&other).config("no.such.setting", "1")).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(40), "{e}");
    assert!(e.to_string().contains("no.such.setting") && e.to_string().contains(&other), "{e}");
    let nowhere = NewTopic::new(&other).replicas(vec![vec![7_777_777]]);
    assert_eq!(admin.create_topic_with(&nowhere).await.unwrap_err().broker_code(), Some(39));
    let e = admin.create_topic_with(&new.partitions(2)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.to_string().contains("replicas placed for 3 partitions"), "{e}");
    client.close().await;
}

fn find<'a>(settings: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
    settings.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name} is not among {settings:?}"))
}

/// Describes until a setting has its new value: brokers apply a change a moment after they have accepted it.
async fn becomes(admin: &Admin, of: &ConfigResource, name: &str, expected: (&str, ConfigSource)) {
    let mut found = None;
    for _ in 0..10_000 {
        let settings = admin.describe_configs(of).await.unwrap();
        found = settings.into_iter().find(|c| c.name == name).map(|c| (c.value.unwrap_or_default(), c.source));
        if found.as_ref().map(|(value, source)| (value.as_str(), *source)) == Some(expected) {
            return;
        }
    }
    panic!("{name} of {of} is {found:?}, not {expected:?}");
}

#[tokio::test]
async fn topic_settings_are_altered_incrementally() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("settings");
    admin.create_topic_with(&NewTopic::new(&name).partitions(1).config("retention.ms", "77000")).await.unwrap();
    let topic = ConfigResource::Topic(name.clone());
    let changes = [ConfigChange::set("max.message.bytes", "5000"), ConfigChange::append("cleanup.policy", "compact")];
    admin.check_configs(&topic, &changes).await.unwrap();
    becomes(&admin, &topic, "retention.ms", ("77000", ConfigSource::Topic)).await;
    let unchanged = admin.describe_configs(&topic).await.unwrap();
    assert_ne!(find(&unchanged, "max.message.bytes").value.as_deref(), Some("5000"), "it was only checked");
    admin.alter_configs(&topic, &changes).await.unwrap();
    becomes(&admin, &topic, "max.message.bytes", ("5000", ConfigSource::Topic)).await;
    becomes(&admin, &topic, "cleanup.policy", ("delete,compact", ConfigSource::Topic)).await;
    let back = [ConfigChange::subtract("cleanup.policy", "delete"), ConfigChange::delete("max.message.bytes")];
    admin.alter_configs(&topic, &back).await.unwrap();
    becomes(&admin, &topic, "cleanup.policy", ("compact", ConfigSource::Topic)).await;
    let left = admin.describe_configs(&topic).await.unwrap();
    assert_eq!(find(&left, "max.message.bytes").source, ConfigSource::Default);
    assert_eq!(find(&left, "retention.ms").value.as_deref(), Some("77000"), "what was not named stays");

    // All or nothing: the good one is not made either.
    let half = [ConfigChange::set("retention.ms", "1"), ConfigChange::set("max.message.bytes", "many")];
    let e = admin.alter_configs(&topic, &half).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(40), "{e}");
    assert!(e.to_string().contains(&format!("changing the settings of topic {name:?}")), "{e}");
    becomes(&admin, &topic, "retention.ms", ("77000", ConfigSource::Topic)).await;
    let none = ConfigResource::Topic(broker.topic("not-there"));
    assert!(admin.describe_configs(&none).await.unwrap_err().is_unknown_topic());
    assert!(admin.alter_configs(&none, &changes).await.unwrap_err().is_unknown_topic());
    client.close().await;
}

#[tokio::test]
async fn broker_settings_are_described_and_altered() {
    const RETENTION: &str = "log.retention.ms";
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let ids: Vec<i32> = admin.describe_cluster().await.unwrap().brokers.iter().map(|b| b.id).collect();
    for id in &ids {
        let settings = admin.describe_configs(&ConfigResource::Broker(*id)).await.unwrap();
        assert!(find(&settings, "num.partitions").read_only);
    }
    let e = admin.describe_configs(&ConfigResource::Broker(7_777_777)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect, "{e}");
    let (one, all) = (ConfigResource::Broker(ids[0]), ConfigResource::BrokerDefaults);
    let fixed = [ConfigChange::set("num.partitions", "2")];
    assert_eq!(admin.alter_configs(&one, &fixed).await.unwrap_err().broker_code(), Some(42));
    admin.alter_configs(&all, &[ConfigChange::set(RETENTION, "604800001")]).await.unwrap();
    becomes(&admin, &one, RETENTION, ("604800001", ConfigSource::BrokerDefaults)).await;
    becomes(&admin, &all, RETENTION, ("604800001", ConfigSource::BrokerDefaults)).await;
    admin.alter_configs(&one, &[ConfigChange::set(RETENTION, "604800002")]).await.unwrap();
    becomes(&admin, &one, RETENTION, ("604800002", ConfigSource::Broker)).await;
    admin.alter_configs(&one, &[ConfigChange::delete(RETENTION)]).await.unwrap();
    becomes(&admin, &one, RETENTION, ("604800001", ConfigSource::BrokerDefaults)).await;
    admin.alter_configs(&all, &[ConfigChange::delete(RETENTION)]).await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn replica_sizes_are_described() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let name = broker.topic("sizes");
    admin.create_topic(&name, 2, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    let record = ProducerRecord::to(&name).partition(1).value(&[7_u8; 10_000]);
    producer.send(record).await.unwrap().await.unwrap();
    producer.close(std::time::Duration::from_secs(30)).await.unwrap();

    let topic = admin.describe_topic(&name).await.unwrap();
    let dirs = admin.log_dirs(Some(&name)).await.unwrap();
    assert!(dirs.iter().all(|d| d.error.is_none() && !d.path.is_empty()), "{dirs:?}");
    for p in &topic.partitions {
        let of = |d: &ailurus::admin::LogDir| d.replicas.iter().find(|r| r.partition == p.partition).map(|r| r.bytes);
        let held: Vec<_> = dirs.iter().filter_map(|d| Some((d.broker, of(d)?))).collect();
        assert_eq!(held.iter().map(|(b, _)| *b).collect::<Vec<_>>(), sorted(&p.replicas));
        let enough = if p.partition == 1 { 10_000..20_000 } else { 0..1 };
        assert!(held.iter().all(|(_, bytes)| enough.contains(bytes)), "{p:?}: {held:?}");
    }
    let all = admin.log_dirs(None).await.unwrap();
    assert!(all.iter().flat_map(|d| &d.replicas).any(|r| r.topic == name && r.partition == 0));
    assert!(admin.log_dirs(Some(&broker.topic("not-there"))).await.unwrap_err().is_unknown_topic());
    client.close().await;
}

fn sorted(ids: &[i32]) -> Vec<i32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}
