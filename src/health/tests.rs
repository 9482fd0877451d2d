#![allow(clippy::unwrap_used)]

use futures_util::future::join_all;

use super::*;
use crate::Config;
use crate::processor::{HoldScope, WaitingFor};
use crate::timestamp::Timestamp;

fn broker(error: Option<&str>) -> BrokerHealth {
    let status = if error.is_none() { BrokerStatus::Up } else { BrokerStatus::Down };
    BrokerHealth { id: Some(1), address: "a:1".into(), status, latency: None, error: error.map(str::to_owned) }
}

fn topic(name: &str, exists: bool, without_leader: usize) -> TopicHealth {
    let (name, offline, groups) = (name.into(), (0..).take(without_leader).collect(), Vec::new());
    TopicHealth { name, exists, partitions: 3, without_leader, offline, groups, under_replicated: 3 }
}

fn partition(activity: Activity, paused: Option<&str>) -> PartitionHealth {
    PartitionHealth {
        topic: "t".into(),
        partition: 0,
        activity,
        quiet_for: Some(Duration::from_millis(75_400)),
        position: 5,
        committed: None,
        lag: Some(12),
        in_flight: 0,
        parked_keys: 0,
        paused: paused.map(str::to_owned),
        paused_by: Vec::new(),
        problem: None,
    }
}

fn subscription(state: ConsumerState, partitions: Vec<PartitionHealth>) -> SubscriptionHealth {
    SubscriptionHealth {
        group: "g".into(),
        topics: vec!["t".into()],
        state,
        state_age: Duration::from_secs(90),
        member_id: None,
        generation: None,
        problem: None,
        activity: partitions.iter().map(|p| p.activity).max().unwrap_or_default(),
        lag: 0,
        concurrency: Some(64),
        waiting_for: Vec::new(),
        partitions,
    }
}

fn health_of(brokers: Vec<BrokerHealth>, topics: Vec<TopicHealth>, s: SubscriptionHealth) -> Health {
    let seen = ClusterProbe {
        is_fresh: true,
        cluster_id: None,
        controller_id: Some(1),
        brokers,
        topics,
        stable_offsets: vec![],
        held: vec![],
    };
    Health { subscriptions: vec![s], ..Health::without_status(&seen, Duration::ZERO) }.with_status(&seen)
}

fn of_brokers(brokers: Vec<BrokerHealth>) -> Status {
    health_of(brokers, vec![], subscription(ConsumerState::Member, vec![])).status
}

fn of_subscription(s: SubscriptionHealth) -> Health {
    health_of(vec![broker(None)], vec![], s)
}

#[test]
fn a_membership_problem_is_reported() {
    let mut s = subscription(ConsumerState::Member, vec![]);
    s.problem = Some("for 12s: finding the coordinator in group \"g\": no broker could be reached".into());
    let health = of_subscription(s);
    assert_eq!(health.status, Status::Degraded);
    assert!(
        health.problems[0].contains("group \"g\"") && health.problems[0].contains("for 12s"),
        "{:?}",
        health.problems
    );
}

#[tokio::test(start_paused = true)]
async fn silent_brokers_do_not_delay_a_check() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait in its queue
    let config = Config::builder().brokers(silent.local_addr().unwrap().to_string()).build().unwrap();
    let limit = config.health_timeout + Duration::from_secs(1);
    let client = Client::new(config);
    let checks = (0..3).map(|_| Health::check(&client)); // one does not wait for another
    let all = tokio::time::timeout(limit, join_all(checks)).await.unwrap();
    for health in all {
        assert_eq!(health.status, Status::Unhealthy);
        assert!(health.problems[0].contains("within 3s"), "{:?}", health.problems);
    }
}

#[test]
fn the_worst_finding_is_the_status() {
    assert_eq!(of_brokers(vec![broker(None)]), Status::Healthy);
    assert_eq!(of_brokers(vec![broker(None), broker(Some("down"))]), Status::Degraded);
    assert_eq!(of_brokers(vec![broker(Some("down"))]), Status::Unhealthy);
    assert_eq!(of_brokers(vec![]), Status::Unhealthy);
    let waits = || vec![partition(Activity::Busy, Some("why"))];
    let health = health_of(vec![broker(Some("down"))], vec![], subscription(ConsumerState::Member, waits()));
    assert_eq!((health.status, health.problems.len()), (Status::Unhealthy, 2));
    let waiting = of_subscription(subscription(ConsumerState::Member, waits()));
    assert_eq!(waiting.status, Status::Degraded);
    assert_eq!(waiting.problems, ["t/0 of group \"g\" is blocked: why"]);
    assert_eq!(of_subscription(subscription(ConsumerState::Closed, vec![])).status, Status::Unhealthy);
}

#[test]
fn stale_metadata_is_no_missing_controller() {
    let of = |is_fresh| {
        let brokers = vec![broker(None)];
        let seen = ClusterProbe {
            is_fresh,
            cluster_id: None,
            controller_id: None,
            brokers,
            topics: vec![],
            stable_offsets: vec![],
            held: vec![],
        };
        Health::without_status(&seen, Duration::ZERO).with_status(&seen).problems
    };
    assert!(of(true)[0].starts_with("the cluster has no controller"), "{:?}", of(true));
    assert!(
        of(false)[0].starts_with("no broker has returned metadata in time") && of(false).len() == 1,
        "{:?}",
        of(false)
    );
}

#[test]
fn only_stalled_partitions_are_unhealthy() {
    let of = |activity, why| of_subscription(subscription(ConsumerState::Member, vec![partition(activity, why)]));
    assert_eq!(of(Activity::Idle, None).status, Status::Healthy);
    assert_eq!(of(Activity::Busy, None).status, Status::Healthy);
    let health = of(Activity::Stalled, None);
    assert_eq!(health.status, Status::Unhealthy);
    assert_eq!(health.problems, ["t/0 of group \"g\" is stalled: 12 records wait, none done for 75s"]);
    let health = of(Activity::Stalled, Some("no topic"));
    assert!(health.problems[0].ends_with("none done for 75s; blocked: no topic"), "{:?}", health.problems);
}

#[test]
fn many_partitions_are_counted() {
    let many =
        |activity, why| of_subscription(subscription(ConsumerState::Member, vec![partition(activity, why); 1000]));
    for (health, last) in [
        (many(Activity::Stalled, None), "980 more partitions of group \"g\" are stalled"),
        (many(Activity::Busy, Some("why")), "980 more partitions of group \"g\" are blocked"),
    ] {
        assert_eq!((health.problems.len(), health.problems[20].as_str()), (21, last));
    }
}

#[test]
fn joining_for_too_long_is_unhealthy() {
    let joining = |activity| {
        let mut s = subscription(ConsumerState::Joining, vec![]);
        s.activity = activity;
        of_subscription(s)
    };
    assert_eq!(joining(Activity::Busy).status, Status::Healthy);
    let health = joining(Activity::Stalled);
    assert_eq!(health.status, Status::Unhealthy);
    assert_eq!(health.problems, ["the subscription of group \"g\" has been joining for 90s"]);
}

#[test]
fn topics_count_by_leader_and_by_use() {
    let of = |t| health_of(vec![broker(None)], vec![t], subscription(ConsumerState::Member, vec![]));
    assert_eq!(of(topic("t", true, 0)).status, Status::Healthy, "replicas are the brokers' affair");
    assert_eq!(of(topic("other", false, 0)).status, Status::Healthy, "nobody reads it");
    let gone = of(topic("t", false, 0));
    assert_eq!(gone.status, Status::Degraded);
    assert_eq!(gone.problems, ["topic \"t\" of group \"g\" does not exist"]);
    let electing = of(topic("t", true, 2));
    assert_eq!(electing.status, Status::Degraded);
    assert!(electing.problems[0].starts_with("2 of the 3 partitions of topic \"t\" have no leader (0, 1): "));
    let mut read = topic("other", true, 1);
    read.groups = vec!["billing".into()];
    let problem = of(read).problems.remove(0);
    assert!(problem.starts_with("1 of the 3 partitions of topic \"other\" has no leader (0): it can"), "{problem}");
    assert!(problem.ends_with("; read by group \"billing\""), "{problem}");
}

#[test]
fn json_is_read_again_and_new_words_are_unknown() {
    let health = of_subscription(subscription(ConsumerState::Member, vec![partition(Activity::Stalled, None)]));
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["subscriptions"][0]["partitions"][0]["activity"], "stalled");
    assert_eq!(json["brokers"][0]["status"], "up");
    let read: Health = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
    let mut newer = json;
    newer["status"] = "smouldering".into();
    newer["brokers"][0]["status"] = "sideways".into();
    newer["subscriptions"][0]["state"] = "waving".into();
    newer["subscriptions"][0]["partitions"][0]["activity"] = "humming".into();
    let read: Health = serde_json::from_value(newer).unwrap();
    assert_eq!((read.status, read.brokers[0].status), (Status::Unknown, BrokerStatus::Unknown));
    let subscription = &read.subscriptions[0];
    let words = (subscription.state, subscription.partitions[0].activity);
    assert_eq!(words, (ConsumerState::Unknown, Activity::Unknown));
}

#[test]
fn a_transactional_producer_that_can_not_go_on_is_reported() {
    let health = |state: &str, open_ms: Option<u64>, problem: Option<&str>| {
        let producer = serde_json::json!({
            "transactionalId": "g.1", "group": "g", "state": state, "openMs": open_ms, "timeoutMs": 40_000, "committed": 1,
            "aborted": 0, "lastError": {"error": "why", "action": "fenced", "ageMs": 5}, "problem": problem,
        });
        let producer = serde_json::from_value(producer).unwrap();
        let seen = health_of(vec![broker(None)], vec![], subscription(ConsumerState::Member, vec![]));
        let Health { brokers, topics, .. } = seen;
        let probe = ClusterProbe {
            is_fresh: true,
            cluster_id: None,
            controller_id: Some(1),
            brokers,
            topics,
            stable_offsets: vec![],
            held: vec![],
        };
        let health = Health::without_status(&probe, Duration::ZERO);
        let health = Health { transactional_producers: vec![producer], ..health }.with_status(&probe);
        (health.status, health.problems.join("; "))
    };
    assert_eq!(health("open", Some(39_999), None).0, Status::Healthy);
    let (status, text) = health("fenced", None, None);
    assert_eq!(status, Status::Unhealthy);
    assert_eq!(text, "the transactional producer \"g.1\" of group \"g\" is fenced: why");
    let (status, text) = health("open", Some(40_000), None);
    assert_eq!(status, Status::Degraded);
    assert!(text.contains("has been open for 40s") && text.contains("after 40s"), "{text}");
    assert_eq!(health("unconfirmed", Some(50_000), None).0, Status::Degraded);
    let (status, text) = health("committing", Some(3000), Some("for 3s: no coordinator"));
    assert_eq!(status, Status::Degraded);
    assert!(text.ends_with("waits for its coordinator for 3s: no coordinator"), "{text}");
    assert_eq!(health("a state of the future", None, None).0, Status::Healthy);
}

#[test]
fn a_subscription_that_waits_for_a_dependency_says_so() {
    let mut s = subscription(ConsumerState::Member, vec![partition(Activity::Idle, None)]);
    s.waiting_for = vec![WaitingFor {
        dependency: "postgres".into(),
        scope: HoldScope::Subscription,
        since: Timestamp::from_millis(1_764_547_200_000),
        waited_for: Duration::from_millis(600_400),
        error: "connection refused".into(),
        failed_probes: 21,
        partitions: 3,
    }];
    let health = of_subscription(s);
    assert_eq!(health.status, Status::Degraded, "it is not for a restart to mend");
    assert_eq!(
        health.problems,
        [
            r#"group "g" is waiting for postgres since 2025-12-01T00:00:00Z: connection refused (for 600s, 21 failed probes)"#
        ]
    );
    let json = serde_json::to_value(&health).unwrap();
    let waiting = &json["subscriptions"][0]["waitingFor"][0];
    assert_eq!((&waiting["dependency"], &waiting["since"]), (&"postgres".into(), &"2025-12-01T00:00:00Z".into()));
    let read: Health = serde_json::from_value(json).unwrap();
    assert_eq!(read.subscriptions[0].waiting_for[0].waited_for, Duration::from_millis(600_400));
}
