#![allow(clippy::unwrap_used)]

use super::*;

fn settings(all: &[(&str, &str, ConfigSource)]) -> TopicSettings {
    TopicSettings(all.iter().map(|(name, value, source)| ConfigEntry::new(*name, *value, *source)).collect())
}

fn topic_settings(all: &[(&str, &str)]) -> TopicSettings {
    settings(&all.iter().map(|(n, v)| (*n, *v, ConfigSource::Topic)).collect::<Vec<_>>())
}

fn value<'a>(plan: &'a TopicPlan, name: &str) -> Option<&'a str> {
    plan.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
}

#[test]
fn created_with_larger_limits_and_unlimited_retention() {
    let origin = settings(&[
        (MAX_MESSAGE_BYTES, "5000000", ConfigSource::Topic),
        (MIN_INSYNC_REPLICAS, "2", ConfigSource::Topic),
        (RETENTION_MS, "3600000", ConfigSource::Topic),
        (CLEANUP_POLICY, "compact", ConfigSource::Topic),
    ]);
    let all = plans(Some(&origin), None);
    let best = &all[0];
    assert_eq!(value(best, MAX_MESSAGE_BYTES), Some("5008192"));
    assert_eq!((value(best, RETENTION_MS), value(best, RETENTION_BYTES)), (Some("-1"), Some("-1")));
    assert_eq!((value(best, CLEANUP_POLICY), value(best, MIN_INSYNC_REPLICAS)), (Some("delete"), Some("2")));
    assert_eq!(value(&all[1], MAX_MESSAGE_BYTES), Some("5000000"), "a cluster may allow no more");
    assert_eq!(all.last(), Some(&TopicPlan::new()), "and may allow none");
}

#[test]
fn number_of_partitions_is_that_of_the_topic_up_to_a_maximum() {
    assert_eq!([1, 12, 5000, 10_000, 100_000].map(partitions), [1, 12, 5000, 5000, 5000]);
}

#[test]
fn broker_defaults_and_unknown_limits_are_respected() {
    let by_default = settings(&[
        (MAX_MESSAGE_BYTES, "20000", ConfigSource::BrokerDefaults),
        (MIN_INSYNC_REPLICAS, "2", ConfigSource::BrokerDefaults),
    ]);
    let best = &plans(Some(&by_default), Some(Duration::from_secs(60)))[0];
    assert_eq!(value(best, MAX_MESSAGE_BYTES), Some("1056780"), "older records may be larger than that");
    assert_eq!((value(best, MIN_INSYNC_REPLICAS), value(best, RETENTION_MS)), (None, Some("60000")));
    let unknown = plans(None, None);
    assert_eq!((value(&unknown[0], MAX_MESSAGE_BYTES), value(&unknown[0], RETENTION_MS)), (None, Some("-1")));
    assert_eq!(limit_for_dead_letters(i64::MAX), i64::from(i32::MAX));
}

#[test]
fn problems_name_the_setting_to_change() {
    let config = ProcessorConfig::default();
    let problems = |of: &[(&str, &str)], config: &ProcessorConfig| {
        topic_settings(of).problems(TopicKind::DeadLetters, None, config)
    };
    let week = &[(CLEANUP_POLICY, "delete"), (RETENTION_MS, "604800000"), (RETENTION_BYTES, "-1")];
    let found = problems(week, &config);
    assert_eq!(found.len(), 1, "{found:?}");
    for text in ["after 7 days", "set retention.ms=-1", "ProcessorConfig::dead_letter_retention to 604800000 ms"] {
        assert!(found[0].contains(text), "{found:?} without {text}");
    }
    let accepted =
        ProcessorConfig { dead_letter_retention: Some(Duration::from_millis(604_800_000)), ..config.clone() };
    assert_eq!(problems(week, &accepted), [""; 0]);
    assert_eq!(problems(&[(RETENTION_MS, "-1")], &accepted), [""; 0], "longer is well");
    assert_eq!(problems(&[(RETENTION_MS, "604799999")], &accepted).len(), 1);
    let found = problems(&[(RETENTION_MS, "-1"), (RETENTION_BYTES, "1000")], &accepted);
    assert!(found.len() == 1 && found[0].contains("beyond 1000 bytes"), "{found:?}");
    let found = problems(&[(CLEANUP_POLICY, "compact"), (RETENTION_MS, "1")], &config);
    assert!(found.len() == 1 && found[0].contains("set cleanup.policy=delete"), "{found:?}");
    assert_eq!(problems(&[], &config), [""; 0], "no settings are known");
}

#[test]
fn a_smaller_limit_than_the_topics_is_a_problem() {
    let of_size = |bytes: &str| topic_settings(&[(MAX_MESSAGE_BYTES, bytes)]);
    let config = ProcessorConfig::default();
    let found = of_size("1048588").problems(TopicKind::DeadLetters, Some(&of_size("5000000")), &config);
    assert!(found.len() == 1 && found[0].contains("set max.message.bytes=5008192"), "{found:?}");
    assert_eq!(of_size("5000000").problems(TopicKind::DeadLetters, Some(&of_size("5000000")), &config), [""; 0]);
}

#[test]
fn durations_have_units() {
    let durations = [604_800_000, 129_600_000, 5_400_000, 90_000, 1000, 999, 0].map(describe_duration);
    assert_eq!(durations, ["7 days", "36 hours", "90 minutes", "90 seconds", "1 seconds", "999 ms", "0 ms"]);
}

#[test]
fn a_retry_topic_keeps_records_for_as_long_as_their_topic_and_the_delay() {
    let (config, hour) = (ProcessorConfig::default(), Duration::from_secs(3600));
    let kind = TopicKind::Retry(hour);
    let of = |ms: &str| kind.retention(Some(&topic_settings(&[(RETENTION_MS, ms)])), &config);
    assert_eq!(of("-1"), None);
    assert_eq!(of("2592000000"), Some(Duration::from_secs(30 * 86_400) + hour));
    assert_eq!(of("60000"), Some(RETRY_RETENTION + hour), "a group may be down for longer than that");
    assert_eq!(kind.retention(None, &config), None, "the settings can't be read");
    let problems = |ms: &str| topic_settings(&[(RETENTION_MS, ms)]).problems(kind, None, &config);
    assert_eq!(problems("608400000"), [""; 0]);
    let found = problems("3600000");
    assert!(found.len() == 1 && found[0].contains("the retry topic deletes records after 60 minutes"), "{found:?}");
}

#[test]
fn names_that_no_topic_has_are_refused() {
    for good in ["a", "orders.dlq", "A_b-9", &"x".repeat(249)] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", "a b", "a/b", "größe", &"x".repeat(250)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
