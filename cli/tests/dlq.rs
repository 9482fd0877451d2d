//! Dead letters: listed, shown, replayed, discarded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ailurus_broker::{Broker, BrokerConfig, Fault, RequestInfo};
use base64::Engine;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::dead_letters::DeadLetters;
use support::{Bed, DEADLINE, Process, until};

#[test]
fn dead_letters_are_listed_by_origin_and_error() {
    let dead_letters = DeadLetters::new(2);
    dead_letters.dead_letter("a", "1", "no stock of 17", &[]);
    dead_letters.dead_letter("b", "2", "no stock of 18", &[]);
    dead_letters.dead_letter("c", "3", "boom", &[]);
    dead_letters.bed.feed(&["produce", &dead_letters.dlq], b"somebody's note\n").expect(0);
    assert_eq!(dead_letters.counts(), [3, 3, 0, 0]);
    let listed = dead_letters.run("list", &["--json"]).expect(0).json_lines().remove(0);
    assert_eq!(listed[0]["foreign"], 1);
    let first = &listed[0]["errors"][0];
    assert_eq!(
        first,
        &json!({
            "origin": dead_letters.topic, "error": "no stock of 17", "letters": 2, "open": 2,
            "firstFailure": "2026-01-31T12:00:00.000Z", "lastFailure": "2026-01-31T12:00:05.000Z",
        })
    );
    let text = dead_letters.run("list", &[]).expect(0).stdout;
    let row =
        text.lines().find(|l| l.starts_with(&format!("{} ", dead_letters.dlq)) && l.contains("boom")).expect(&text);
    assert_eq!(row.split_whitespace().skip(1).take(3).collect::<Vec<_>>(), ["1", "1", dead_letters.topic.as_str()]);
    assert!(text.contains("1 records are no dead letters"), "{text}");
}

#[test]
fn a_topic_that_is_deleted_while_all_are_listed_is_left_out() {
    const LIST_OFFSETS: i16 = 2;
    const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    let mut bed = Bed::of(broker.bootstrap());
    let (topic, dlq) = (bed.topic("orders", 1), bed.topic("orders.dlq", 1));
    broker.create_topic("deleted.dlq", 2).unwrap();
    let dead_letters = DeadLetters { bed, topic, dlq };
    dead_letters.dead_letter("a", "1", "boom", &[]);
    let is_of_deleted = |body: &[u8]| body.windows(11).any(|name| name == b"deleted.dlq");
    broker.set_hook(move |request: &RequestInfo<'_>| {
        let is_deleted = request.api_key == LIST_OFFSETS && is_of_deleted(request.body);
        is_deleted.then_some(Fault::Error(UNKNOWN_TOPIC_OR_PARTITION))
    });
    let listed = dead_letters.bed.run(&["dlq", "list", "--json"]).expect(0);
    let topics: Vec<_> = listed.json_lines()[0].as_array().unwrap().iter().map(|t| t["topic"].clone()).collect();
    assert_eq!(topics, [json!(dead_letters.dlq)]);
    assert!(listed.stderr.contains("deleted.dlq is left out"), "{}", listed.stderr);
    dead_letters.bed.run(&["dlq", "list", "deleted.dlq"]).expect(3);
}

#[test]
fn a_letter_is_shown_in_full() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("o-1", r#"{"total":1}"#, "boom", &[]);
    dead_letters.dead_letter("o-2", "later", "other", &["dlq-left-out=value"]);
    let shown = dead_letters.run("show", &["--at", "0/0"]).expect(0).stdout;
    let origin = format!("  origin    {}/0@42  1970-01-01T00:20:34.567Z  group billing", dead_letters.topic);
    for line in [
        format!("{}/0@0  open", dead_letters.dlq),
        origin,
        "  error     boom".to_owned(),
        "  attempts  4  from 2026-01-31T12:00:00.000Z  to 2026-01-31T12:00:05.000Z".to_owned(),
        "  key       o-1".to_owned(),
        r#"  value     {"total":1}"#.to_owned(),
        "  header    tenant = berlin".to_owned(),
        "  header    tenant = paris".to_owned(),
    ] {
        assert!(shown.lines().any(|l| l == line), "{line:?} is missing in:\n{shown}");
    }
    assert!(!shown.contains("dlq-topic"), "{shown}");

    let last = dead_letters.run("show", &["--last", "1", "--json"]).expect(0).json_lines();
    assert_eq!(last.len(), 1);
    assert_eq!(
        (&last[0]["key"], &last[0]["leftOut"], &last[0]["offset"]),
        (&json!("o-2"), &json!(["value"]), &json!(1))
    );
    assert_eq!(last[0]["origin"]["timestamp"], 1_234_567);
    assert_eq!(last[0]["headers"][1], json!({"key": "tenant", "value": "paris"}));
    for (filter, count) in [
        (&["--key", "o-1"][..], 1),
        (&["--error", "oth"], 1),
        (&["--since", "2026-01-31T12:00:05Z"], 2),
        (&["--since", "2026-01-31"], 2),
        (&["--since", "-1h"], 0),
        (&["--before", "1h"], 2),
        (&["--from-offset", "1", "--before-offset", "2"], 1),
        (&["--partition", "0"], 2),
    ] {
        let mut args = filter.to_vec();
        args.push("--json");
        assert_eq!(dead_letters.run("show", &args).expect(0).json_lines().len(), count, "{filter:?}");
    }
    let none = dead_letters.run("show", &["--before", "2026-01-31T12:00:05Z"]).expect(0);
    assert!(none.stderr.contains("no dead letter that matches"), "{}", none.stderr);
    // A place as everything prints it, with or without the topic beside it.
    let first = dead_letters.run("show", &["--last", "1"]).expect(0).stdout;
    let place = first.split_whitespace().next().unwrap();
    assert!(place.starts_with(&format!("{}/", dead_letters.dlq)), "{first}");
    assert_eq!(dead_letters.run("show", &["--at", place]).expect(0).stdout, first);
    assert_eq!(dead_letters.bed.run(&["dlq", "show", "--at", place]).expect(0).stdout, first);
    let other = dead_letters.run("show", &["--at", "other.dlq/0@1"]).expect(2);
    assert!(other.stderr.contains("--at is in other.dlq"), "{}", other.stderr);
    let none = dead_letters.run("show", &["--at", "0/9"]).expect(3);
    assert!(none.stderr.contains("no dead letter at"), "{}", none.stderr);
}

#[test]
fn a_record_is_replayed_once_and_as_it_was() {
    let dead_letters = DeadLetters::new(2);
    for i in 0..5 {
        dead_letters.dead_letter(&format!("k{i}"), &format!("v{i}"), if i == 3 { "other" } else { "boom" }, &[]);
    }
    let began = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let dry = dead_letters.run("replay", &["--error", "boom"]).expect(0);
    assert_eq!(dry.stdout.lines().count(), 4);
    assert!(dry.stdout.starts_with(&format!("{}/0@0 would be replayed to {}", dead_letters.dlq, dead_letters.topic)));
    assert!(dry.stderr.contains("4 dead letters") && dry.stderr.contains("--yes does it"), "{}", dry.stderr);
    assert_eq!(dead_letters.replayed(), Vec::<Value>::new(), "a dry run");
    assert_eq!(dead_letters.counts(), [5, 5, 0, 0]);

    let done = dead_letters.run("replay", &["--error", "boom", "--yes", "--json"]).expect(0);
    assert!(done.stderr.contains("4 dead letters") && done.stderr.contains("replayed"), "{}", done.stderr);
    assert!(done.json_lines().iter().all(|l| l["outcome"] == "replayed"));
    let places: Vec<_> = done.json_lines().iter().map(|l| l["toOffset"].as_i64().unwrap()).collect();
    let records = dead_letters.replayed();
    assert_eq!(places, records.iter().map(|r| r["offset"].as_i64().unwrap()).collect::<Vec<_>>());
    assert_eq!(records.iter().map(|r| r["key"].as_str().unwrap()).collect::<Vec<_>>(), ["k0", "k1", "k2", "k4"]);
    let first = &records[0];
    assert_eq!((&first["value"], &first["partition"]), (&json!("v0"), &json!(0)));
    assert!(first["timestamp"].as_i64().unwrap() >= began, "as of now, or retention may take it: {first}");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        first["headers"],
        json!([
            {"key": "tenant", "value": "berlin"},
            {"key": "tenant", "value": "paris"},
            {"key": "traceparent", "value": trace},
            {"key": "ce_id", "value": format!("{}-0-42", dead_letters.topic)},
            {"key": "ce_time", "value": "1970-01-01T00:20:34.567Z"},
            {"key": "dlq-original-timestamp", "value": "1234567"},
            {"key": "dlq-replays", "value": "1"},
        ])
    );
    assert_eq!(dead_letters.counts(), [5, 1, 4, 0]);

    let last = dead_letters.run("replay", &["--yes"]).expect(0);
    assert_eq!(last.stdout, format!("{}/0@3 replayed to {}/0@4: other\n", dead_letters.dlq, dead_letters.topic));
    assert_eq!(dead_letters.replayed().len(), 5, "the one that was left, and no other again");
    dead_letters.run("replay", &["--yes"]).expect(0);
    assert_eq!(dead_letters.replayed().len(), 5);
    let state = dead_letters.run("show", &["--at", "0/3", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(state["state"], "replayed");
}

#[test]
fn what_would_go_round_or_is_not_whole_is_refused() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("often", "v", "boom", &["dlq-replays=3"]);
    dead_letters.dead_letter("damaged", "v", "boom", &["dlq-replays=x"]);
    dead_letters.dead_letter("twice", "v", "boom", &["dlq-replays=2"]);
    dead_letters.dead_letter("large", "v", "boom", &["dlq-left-out=value"]);
    dead_letters.dead_letter_of(&dead_letters.dlq, "dead", "v", "boom", &[]);
    dead_letters.dead_letter_of("cli-test-nobody-made-this", "gone", "v", "boom", &[]);
    let done = dead_letters.run("replay", &["--yes", "--json"]).expect(1);
    assert!(done.stderr.contains("1 dead letter of") && done.stderr.contains("5 refused"), "{}", done.stderr);
    let why: Vec<_> = done.json_lines().iter().filter_map(|l| l["why"].as_str().map(str::to_owned)).collect();
    let expected = ["--max-replays is 3", "can't be read", "no longer exists", "dead-letter topic", "does not exist"];
    assert_eq!(why.len(), expected.len(), "{why:?}");
    for (why, text) in why.iter().zip(expected) {
        assert!(why.contains(text), "{why:?} without {text:?}");
    }
    let records = dead_letters.replayed();
    assert_eq!(records.len(), 1);
    assert!(records[0]["headers"].as_array().unwrap().contains(&json!({"key": "dlq-replays", "value": "3"})));
    dead_letters.run("replay", &["--yes", "--key", "often", "--max-replays", "4"]).expect(0);
    assert_eq!(dead_letters.replayed().len(), 2);
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_large_record_becomes_a_whole_letter_and_is_replayed_whole() {
    let mut dead_letters = DeadLetters::new(1);
    dead_letters.topic = dead_letters.bed.topic_with("large", 1, &["--config", "max.message.bytes=5000000"]);
    dead_letters.dlq = format!("{}.dlq", dead_letters.topic);
    let group = dead_letters.bed.name("g");
    let value = noise(2_000_000);
    dead_letters.with_client(async |client| {
        let producer = client.producer().start().unwrap();
        let record = ailurus::ProducerRecord::to(&dead_letters.topic).value(&value);
        producer.send(record).await.unwrap().await.unwrap();
        let handle = |_: ailurus::Message| async { ailurus::processor::Outcome::dead_letter("no") };
        let subscription = client.processor(&group).subscribe([&dead_letters.topic], handle).await.unwrap();
        while subscription.stats().dead_letters < 1 {
            tokio::task::yield_now().await;
        }
        subscription.shutdown().await.unwrap();
        producer.close(DEADLINE).await.unwrap();
    });
    dead_letters.run("replay", &["--yes"]).expect(0);
    assert_eq!(dead_letters.counts(), [1, 0, 1, 0]);
    let whole = json!(base64::engine::general_purpose::STANDARD.encode(&value));
    assert!(dead_letters.replayed().iter().filter(|r| r["value"] == whole).count() == 2, "the record and its replay");
}

#[test]
fn what_the_topic_does_not_take_stays_open_and_does_not_stop_the_others() {
    let mut dead_letters = DeadLetters::new(1);
    dead_letters.topic = dead_letters.bed.topic_with("small", 1, &["--config", "max.message.bytes=2000"]);
    dead_letters.dead_letter("one", "v", "boom", &[]);
    let hard: String = noise(3000).iter().map(|b| char::from(b'0' + b % 64)).collect();
    dead_letters.dead_letter("hard", &hard, "boom", &[]);
    dead_letters.dead_letter("soft", &"v".repeat(3000), "boom", &[]);
    let done = dead_letters.run("replay", &["--yes", "--json"]).expect(1);
    let outcomes: Vec<_> = done.json_lines().iter().map(|l| l["outcome"].clone()).collect();
    assert_eq!(outcomes, ["replayed", "refused", "replayed"], "{}", done.stdout);
    assert!(done.stdout.contains("max.message.bytes"), "{}", done.stdout);
    assert_eq!(dead_letters.counts(), [3, 1, 2, 0]);
    let raise = ["config", "alter", "--topic", &dead_letters.topic, "--set", "max.message.bytes=9000", "--yes"];
    dead_letters.bed.run(&raise).expect(0);
    assert!(until(|| (dead_letters.run("replay", &["--yes"]).code == 0).then_some(())).is_some());
    assert_eq!(dead_letters.counts(), [3, 0, 3, 0]);
    assert_eq!(dead_letters.replayed().len(), 3);
}

#[test]
fn what_a_letter_lacks_is_read_where_its_record_was() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.bed.feed(&["produce", &dead_letters.topic, "--key", "k", "--header", "h=1"], b"whole\n").expect(0);
    let was = dead_letters.replayed().remove(0);
    let timestamp = format!("dlq-timestamp={}", was["timestamp"]);
    let left_out = ["dlq-offset=0", "dlq-left-out=value,headers,key", &timestamp];
    dead_letters.dead_letter("left out", "left out", "boom", &left_out);
    dead_letters.dead_letter("another record", "v", "boom", &["dlq-offset=0", "dlq-left-out=value"]);
    let done = dead_letters.run("replay", &["--yes"]).expect(1);
    assert!(done.stderr.contains("1 dead letter of") && done.stderr.contains("1 refused"), "{}", done.stderr);
    let records = dead_letters.replayed();
    assert_eq!(records.len(), 2);
    assert_eq!((&records[1]["key"], &records[1]["value"]), (&json!("k"), &json!("whole")));
    assert_eq!(records[1]["headers"][0], json!({"key": "h", "value": "1"}));
    assert_eq!(dead_letters.counts(), [2, 1, 1, 0]);
}

#[test]
fn dead_letters_are_discarded_and_then_deleted() {
    let dead_letters = DeadLetters::new(1);
    for i in 0..4 {
        dead_letters.dead_letter(&format!("k{i}"), "v", "boom", &[]);
    }
    let dry = dead_letters.run("discard", &["--key", "k0", "--delete"]).expect(0);
    assert_eq!(
        dry.stdout,
        format!(
            "{0}/0: 1 dead letter would be discarded, at offsets 0: not replayed any more\n\
             {0}/0: all records from offset 0 to 0 would be deleted for good\n",
            dead_letters.dlq
        )
    );
    assert_eq!(dead_letters.counts(), [4, 4, 0, 0], "a dry run");
    dead_letters.run("discard", &["--key", "k2", "--yes"]).expect(0);
    assert_eq!(dead_letters.counts(), [4, 3, 0, 1]);
    dead_letters.run("discard", &["--key", "k0", "--delete", "--yes"]).expect(0);
    assert_eq!(dead_letters.counts(), [3, 2, 0, 1], "what is before the first open dead letter is gone");
    dead_letters.run("replay", &["--yes"]).expect(0);
    let keys: Vec<_> = dead_letters.replayed().iter().map(|r| r["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["k1", "k3"], "what was discarded is not replayed");
    let json = dead_letters.run("discard", &["--delete", "--yes", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!((&json[0]["discard"], &json[0]["first"], &json[0]["done"]), (&json!(0), &json!(1), &json!(true)));
    assert_eq!(dead_letters.counts(), [0, 0, 0, 0]);
    let again = dead_letters.run("discard", &["--yes"]).expect(0);
    assert!(again.stderr.contains("nothing to discard"), "{}", again.stderr);
}

#[test]
fn a_second_command_on_the_same_topic_is_refused() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.dead_letter("k", "v", "boom", &[]);
    let group = format!("{}.replay", dead_letters.dlq);
    // Any member of the group is another command.
    let other = Process::spawn(dead_letters.bed.command(&["consume", &dead_letters.dlq, "--group", &group]));
    let joined = until(|| {
        let described = dead_letters.bed.run(&["group", "describe", &group, "--json"]).stdout;
        serde_json::from_str::<Value>(&described).ok().filter(|g| g["state"] == "Stable")
    });
    assert!(joined.is_some());
    let refused = dead_letters.run("replay", &["--yes"]).expect(6);
    assert!(refused.stderr.contains("another command works on"), "{}", refused.stderr);
    assert_eq!(dead_letters.replayed(), Vec::<Value>::new());
    dead_letters.run("replay", &[]).expect(0); // a dry run needs no lock
    other.signal(Signal::SIGINT);
    other.end().expect(0);
    dead_letters.run("replay", &["--yes"]).expect(0);
    assert_eq!(dead_letters.replayed().len(), 1);
}

#[test]
fn one_command_after_the_other_works_off_a_topic_also_with_the_static_id_of_a_service() {
    let dead_letters = DeadLetters::new(1);
    for key in ["a", "b", "c"] {
        dead_letters.dead_letter(key, "v", "boom", &[]);
    }
    // A static member would stay in the group until its session ends, and keep the next command out.
    let file = "REDPANDA_GROUP_INSTANCE_ID=billing-0\nREDPANDA_SESSION_TIMEOUT=45000\n";
    std::fs::write(dead_letters.bed.dir.path().join(".env"), file).unwrap();
    let group = format!("{}.replay", dead_letters.dlq);
    let members = || {
        let described = dead_letters.bed.run(&["group", "describe", &group, "--json"]).json_lines();
        described.first().map_or(0, |g| g["members"].as_array().unwrap().len())
    };
    for (action, key) in [("replay", "a"), ("discard", "b"), ("replay", "c")] {
        dead_letters.run(action, &["--yes", "--key", key]).expect(0);
        assert_eq!(members(), 0, "it has left");
    }
    assert_eq!(dead_letters.counts(), [3, 0, 2, 1]);
}

#[test]
fn a_partition_or_a_topic_that_is_not_there_is_named_and_nothing_is_summed_up() {
    let dead_letters = DeadLetters::new(1);
    for action in ["show", "replay", "discard"] {
        let ended = dead_letters.run(action, &["--partition", "7"]).expect(3);
        assert_eq!(ended.stderr, format!("error: {} has no partition 7: it has 1, counted from 0\n", dead_letters.dlq));
        let ended = dead_letters.bed.run(&["dlq", action, "nobody-made-this.dlq"]).expect(3);
        assert_eq!(ended.stderr, "error: topic \"nobody-made-this.dlq\" does not exist\n");
    }
    dead_letters.run("show", &["--at", "7/0"]).expect(3);
}

#[test]
fn a_record_that_fails_again_and_again_is_not_replayed_for_ever() {
    let dead_letters = DeadLetters::new(1);
    dead_letters.bed.feed(&["produce", &dead_letters.topic, "--key", "k"], b"v\n").expect(0);
    let config =
        ailurus::Config::builder().brokers(dead_letters.bed.brokers.as_str()).max_attempts(1_u32).build().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let group = dead_letters.bed.name("g");
    let handle = |_: ailurus::Message| async { Err::<(), _>("never") };
    let (client, subscription) = runtime.block_on(async {
        let client = ailurus::Client::connect(config).await.unwrap();
        let subscription = client.processor(&group).subscribe([&dead_letters.topic], handle).await.unwrap();
        (client, subscription)
    });
    for replayed in 0..3 {
        let dead_letter = until(|| (dead_letters.counts() == [replayed + 1, 1, replayed, 0]).then_some(()));
        assert!(dead_letter.is_some(), "{:?} after {replayed} replays", dead_letters.counts());
        dead_letters.run("replay", &["--yes"]).expect(0);
    }
    assert!(until(|| (dead_letters.counts() == [4, 1, 3, 0]).then_some(())).is_some(), "{:?}", dead_letters.counts());
    let refused = dead_letters.run("replay", &["--yes"]).expect(1);
    assert!(refused.stdout.contains("it was replayed 3 times"), "{}", refused.stdout);
    assert_eq!(dead_letters.replayed().len(), 4, "the record and three replays");
    let last = dead_letters.run("show", &["--last", "1", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!((&last["replays"], &last["origin"]["offset"], &last["error"]), (&json!(3), &json!(3), &json!("never")));
    runtime.block_on(async {
        subscription.shutdown().await.unwrap();
        client.close().await;
    });
}

#[test]
fn an_outage_during_a_replay_is_reported_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    let mut bed = Bed::of(broker.bootstrap());
    let (topic, dlq) = (bed.topic("orders", 1), bed.topic("orders.dlq", 1));
    let dead_letters = DeadLetters { bed, topic, dlq };
    dead_letters.dead_letter("k", "v", "boom", &[]);
    // From the replay's first record on, no request gets a response.
    let is_out = AtomicBool::new(false);
    broker.set_hook(move |request: &RequestInfo<'_>| {
        if request.api_key == 0 {
            is_out.store(true, Ordering::Relaxed);
        }
        is_out.load(Ordering::Relaxed).then_some(Fault::DelayResponse(DEADLINE * 10))
    });
    let mut replay = dead_letters.bed.command(&["dlq", "replay", &dead_letters.dlq, "--yes"]);
    replay.envs([("REDPANDA_REQUEST_TIMEOUT", "1000"), ("REDPANDA_DELIVERY_TIMEOUT", "3000")]);
    let ended = support::run(replay, b"").expect(5);
    let lines: Vec<_> = ended.stderr.lines().collect();
    let errors: Vec<_> = lines.iter().filter(|l| l.starts_with("error: ")).collect();
    assert!(
        matches!(errors[..], [e] if e.contains(&format!("replaying {}/0@0", dead_letters.dlq))),
        "{}",
        ended.stderr
    );
    assert!(lines.iter().any(|l| l.starts_with("0 dead letters")), "{}", ended.stderr);
    let reading = lines.iter().filter(|l| l.contains("can't be read from")).count();
    assert!(reading <= 1, "{}", ended.stderr);
}
