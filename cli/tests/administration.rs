//! Topics, settings, offsets, records, the cluster and access control lists, as an operator works on them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ailurus_broker::{Broker, BrokerConfig, Fault, RequestInfo};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Bed, Ended, until};
use tokio::runtime::Runtime;

/// The cells of the row that begins with these.
#[track_caller]
fn row<'a>(text: &'a str, begins: &[&str]) -> Vec<&'a str> {
    let rows = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|cells| cells.starts_with(begins)).unwrap_or_else(|| panic!("no row {begins:?} in: {text}"))
}

#[track_caller]
fn says(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stderr.contains(text), "{text:?} is missing in: {}", ended.stderr);
    }
}

/// Ten records in the second of two partitions, each a second younger than the one before.
fn topic(bed: &mut Bed) -> String {
    let topic = bed.topic("t", 2);
    let input: String = (0..10).map(|i| format!("{i}\n")).collect();
    bed.feed(&["produce", &topic, "--partition", "1"], input.as_bytes()).expect(0);
    topic
}

/// Returns the change of the second partition by a reset: committed and new offset, in JSON.
fn reset(bed: &Bed, group: &str, args: &[&str]) -> (Value, Value, bool) {
    let mut all = vec!["group", "reset", group, "--json"];
    all.extend(args);
    let printed = bed.run(&all).expect(0).json_lines().remove(0);
    let offset = printed["offsets"].as_array().unwrap().iter().find(|o| o["partition"] == json!(1)).unwrap();
    assert_eq!(printed["done"], json!(args.contains(&"--yes")));
    (offset["from"].clone(), offset["to"].clone(), offset["cut"] == json!(true))
}

#[test]
fn a_topic_is_created_as_wanted_checked_and_grown() {
    let bed = Bed::new();
    let name = bed.name("wanted");
    let create = |more: &[&str]| {
        let mut args = vec!["topic", "create", &name, "--config", "retention.ms=77000"];
        args.extend(more);
        bed.run(&args)
    };
    let described = bed.run(&["cluster", "describe", "--json"]).expect(0).json_lines().remove(0);
    let id = described["brokers"][0]["id"].to_string();
    let placed = format!("{id},{id}");
    let checked = create(&["--replica-assignment", &placed, "--validate-only"]).expect(0);
    assert_eq!(checked.stdout, format!("{name} with 2 partitions could be created\n"));
    says(&bed.run(&["topic", "describe", &name]).expect(3), &["does not exist"]);
    let created = create(&["--replica-assignment", &placed]).expect(0);
    assert_eq!(created.stdout, format!("created {name} with 2 partitions\n"));
    let grown = bed.run(&["topic", "add-partitions", &name, "--partitions", "3"]).expect(0);
    assert_eq!(grown.stdout, format!("{name} has 3 partitions\n"));
    says(&bed.run(&["topic", "add-partitions", &name, "--partitions", "3"]).expect(6), &[&name, "InvalidPartitions"]);

    bed.feed(&["produce", &name, "--partition", "1"], b"a\nb\n").expect(0);
    let text = bed.run(&["topic", "describe", &name]).expect(0).stdout;
    assert_eq!(row(&text, &["1"])[1..6], [&id, &id, &id, "0", "2"], "{text}");
    assert_ne!(row(&text, &["1"])[6], "0", "{text}");
    assert_eq!(row(&text, &["0"])[6], "0", "{text}");
    let described = bed.run(&["topic", "describe", &name, "--json"]).expect(0).json_lines().remove(0);
    assert!(described["partitions"][1]["bytes"][&id].as_i64().unwrap() > 0, "{described}");
    says(&create(&["--partitions", "1", "--replica-assignment", &placed]).expect(2), &["cannot be used with"]);
    says(&create(&["--replica-assignment", "1:,2"]).expect(2), &["the ids of brokers"]);
    bed.run(&["topic", "delete", &name, "--yes"]).expect(0);
}

#[test]
fn settings_are_described_and_changed() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 1);
    let described = |more: &[&str]| {
        let mut args = vec!["config", "describe", "--topic", &topic];
        args.extend(more);
        bed.run(&args).expect(0).stdout
    };
    assert!(!described(&[]).contains("retention.ms"), "only what was given");
    assert_eq!(row(&described(&["--all"]), &["retention.ms"])[2], "default");
    let alter = |more: &[&str]| {
        let mut args = vec!["config", "alter", "--topic", &topic];
        args.extend(more);
        bed.run(&args)
    };
    let change = ["--set", "retention.ms=77000", "--append", "cleanup.policy=compact"];
    let printed = alter(&change).expect(0);
    assert_eq!(row(&printed.stdout, &["retention.ms"])[2..], ["set", "to", "77000"], "{}", printed.stdout);
    assert_eq!(row(&printed.stdout, &["cleanup.policy", "delete"])[2..], ["add", "compact"], "{}", printed.stdout);
    says(&printed, &[&format!("nothing of topic \"{topic}\" was changed; --yes does it")]);
    assert!(!described(&[]).contains("retention.ms"), "a dry run");
    alter(&[&change[..], &["--yes"]].concat()).expect(0);
    // A real broker shows it a moment later.
    let shown = until(|| Some(described(&[])).filter(|text| text.contains("retention.ms"))).unwrap();
    assert_eq!(row(&shown, &["retention.ms"]), ["retention.ms", "77000", "topic"]);
    assert_eq!(row(&shown, &["cleanup.policy"]), ["cleanup.policy", "delete,compact", "topic"]);
    alter(&["--delete", "retention.ms", "--yes"]).expect(0);
    let found: Value = serde_json::from_str(&described(&["--all", "--json"])).unwrap();
    assert!(found.as_array().unwrap().iter().any(|c| c["name"] == "retention.ms" && c["readOnly"] == json!(false)));
    says(&alter(&["--set", "retention.ms=soon"]).expect(6), &["changing the settings of topic", "retention.ms"]);
    says(&alter(&[]).expect(2), &["--set", "--subtract"]);
    says(&alter(&["--set", "retention.ms"]).expect(2), &["NAME=VALUE"]);
    says(&bed.run(&["config", "describe"]).expect(2), &["--broker-defaults"]);

    let cluster = bed.run(&["cluster", "describe", "--json"]).expect(0).json_lines().remove(0);
    let id = cluster["brokers"][0]["id"].to_string();
    let text = bed.run(&["config", "describe", "--broker", &id, "--all"]).expect(0).stdout;
    assert!(row(&text, &["num.partitions"]).ends_with(&["read-only"]), "{text}");
}

#[test]
fn offsets_of_a_group_are_reset_only_with_yes() {
    let mut bed = Bed::new();
    let (topic, group) = (topic(&mut bed), bed.name("g"));
    bed.run(&["consume", &topic, "--group", &group, "--max", "4"]).expect(0);
    let second = format!("{topic}:1");
    let only = ["--topic", second.as_str()];
    assert_eq!(reset(&bed, &group, &["--to", "earliest", only[0], only[1]]), (json!(4), json!(0), false));
    assert_eq!(
        reset(&bed, &group, &["--to", "earliest"]).0,
        json!(4),
        "all that it has committed, as it is still there"
    );

    let printed = bed.run(&["group", "reset", &group, "--to", "9"]).expect(0);
    assert_eq!(row(&printed.stdout, &[&topic, "1"]), [&topic, "1", "4", "9", "+5", "1"]);
    says(&printed, &["nothing was changed; --yes does it"]);
    let printed = bed.run(&["group", "reset", &group, "--to", "77", "--yes"]).expect(0);
    assert_eq!(row(&printed.stdout, &[&topic, "1"])[3], "10", "{}", printed.stdout);
    says(&printed, &["the offset is outside the log, and becomes its nearest end", "/1 (from 0 to 10)"]);
    assert_eq!(reset(&bed, &group, &["--shift", "-3", "--yes"]), (json!(10), json!(7), false));
    assert_eq!(reset(&bed, &group, &["--to", "2100-01-01T00:00:00Z", "--yes"]), (json!(7), json!(10), false));
    assert_eq!(reset(&bed, &group, &["--to", "2000-01-01T00:00:00Z", "--yes"]), (json!(10), json!(0), false));

    std::fs::write(bed.dir.path().join("kept.csv"), format!("\"{topic}\",1,6\n")).unwrap();
    assert_eq!(reset(&bed, &group, &["--file", "kept.csv", "--yes"]), (json!(0), json!(6), false));
    let fed = bed.feed(&["group", "reset", &group, "--file", "-", "--yes"], format!("{topic},0,0\n").as_bytes());
    assert_eq!(row(&fed.expect(0).stdout, &[&topic, "0"])[3], "0");
    let rest = bed.run(&["consume", &topic, "--group", &group, "--exit-at-end"]).expect(0);
    assert!(rest.stdout.starts_with(&format!("{topic}/1@6\t")), "{}", rest.stdout);

    says(&bed.run(&["group", "reset", &group, "--to", "0", "--topic", &format!("{topic}:2")]).expect(3), &["has 2"]);
    says(&bed.run(&["group", "reset", &group]).expect(2), &["--to", "--shift", "--file"]);
    says(&bed.run(&["group", "reset", &bed.name("new"), "--to", "0"]).expect(2), &["name topics with --topic"]);
    let bad = bed.feed(&["group", "reset", &group, "--file", "-"], b"nonsense\n").expect(2);
    says(&bad, &["-: line 1 is \"nonsense\": allowed is TOPIC,PARTITION,OFFSET"]);
}

#[test]
fn nothing_of_a_group_is_changed_under_its_members() {
    let mut bed = Bed::new();
    let (topic, group) = (topic(&mut bed), bed.name("g"));
    let member = bed.start(&["consume", &topic, "--group", &group]);
    member.line(|l| l.ends_with('9'));
    let refused = bed.run(&["group", "reset", &group, "--to", "0", "--topic", &topic, "--yes"]).expect(6);
    says(&refused, &["it has 1 member (ailurus at ", "stop it first"]);
    let printed = bed.run(&["group", "reset", &group, "--to", "0", "--topic", &topic]).expect(0);
    says(&printed, &["nothing was changed", "has members (1): --yes is refused until they have stopped"]);
    for args in [&["group", "delete", &group][..], &["group", "delete-offsets", &group, "--topic", &topic]] {
        says(&bed.run(args).expect(0), &["nothing was deleted", "--yes is refused until they have stopped"]);
    }
    says(&bed.run(&["group", "delete", &group, "--yes"]).expect(6), &["NonEmptyGroup", "stop them first"]);
    let offsets = ["group", "delete-offsets", &group, "--topic", &topic, "--yes"];
    says(&bed.run(&offsets).expect(6), &["GroupSubscribedToTopic"]);
    let listed = |state: &str| {
        let listed = bed.run(&["group", "list", "--state", state, "--json"]).expect(0).json_lines().remove(0);
        listed.as_array().unwrap().iter().any(|g| g["group"] == json!(group))
    };
    assert!(listed("stable,empty") && !listed("Empty"));
    member.signal(Signal::SIGINT);
    member.end().expect(0);
    assert!(listed("empty"));
    let offsets = ["group", "delete-offsets", &group, "--topic", &format!("{topic}:1")];
    assert_eq!(row(&bed.run(&offsets).expect(0).stdout, &[&topic, "1"]).len(), 3);
    bed.run(&[&offsets[..], &["--yes"]].concat()).expect(0);
    let described = bed.run(&["group", "describe", &group, "--json"]).json_lines().remove(0);
    let committed = |o: &Value| o["partition"] == json!(1) && !o["committed"].is_null();
    assert!(!described["offsets"].as_array().unwrap().iter().any(committed), "{described}");
    bed.run(&["group", "delete", &group, "--yes"]);
    says(&bed.run(&["group", "delete", &group]).expect(3), &["does not exist"]);
    says(&bed.run(&["group", "delete", &group, "--yes"]).expect(3), &["the group does not exist"]);
}

#[test]
fn records_are_deleted_only_with_yes() {
    let mut bed = Bed::new();
    let topic = topic(&mut bed);
    let delete = |before: &str, more: &[&str]| {
        let mut args = vec!["records", "delete", &topic, "--before", before];
        args.extend(more);
        bed.run(&args).expect(0)
    };
    let first = || {
        let described = bed.run(&["topic", "describe", &topic, "--json"]).expect(0).json_lines().remove(0);
        described["partitions"][1]["firstOffset"].as_i64().unwrap()
    };
    let printed = delete("4", &[]);
    assert_eq!(row(&printed.stdout, &["1"]), ["1", "0", "4", "10"]);
    says(&printed, &["nothing was deleted; --yes does it"]);
    assert_eq!(first(), 0);
    let done = delete("4", &["--yes", "--json"]).json_lines().remove(0);
    assert_eq!(done["partitions"], json!([{"partition": 1, "first": 0, "before": 4, "end": 10}]));
    assert_eq!(first(), 4);
    says(&delete("3", &["--yes"]), &["there is nothing to delete"]);
    says(&delete("latest", &["--partition", "0", "--yes"]), &["there is nothing to delete"]);
    assert_eq!(first(), 4);
    delete("77", &["--partition", "1", "--yes"]);
    assert_eq!(first(), 10);
}

#[test]
fn the_cluster_and_its_apis_are_described() {
    let bed = Bed::new();
    let text = bed.run(&["cluster", "describe"]).expect(0).stdout;
    let address = bed.brokers.split(',').next().unwrap();
    assert!(text.starts_with("cluster ") && text.contains("controller ") && text.contains(address), "{text}");
    let cluster = bed.run(&["cluster", "describe", "--json"]).expect(0).json_lines().remove(0);
    assert!(cluster["brokers"][0]["replicas"].is_u64() && cluster["brokers"][0]["bytes"].is_u64(), "{cluster}");
    let text = bed.run(&["cluster", "api-versions"]).expect(0).stdout;
    assert_eq!(row(&text, &["KEY"]), ["KEY", "API", "BROKER", "CLIENT", "USED"]);
    assert_eq!(row(&text, &["3", "Metadata"])[3], "4-12");
    let id = cluster["brokers"][0]["id"].to_string();
    let printed = bed.run(&["cluster", "api-versions", "--broker", &id, "--json"]).expect(0).json_lines().remove(0);
    let api = printed[0]["apis"].as_array().unwrap().iter().find(|a| a["key"] == json!(47)).unwrap();
    assert_eq!((&api["name"], &api["used"]), (&json!("OffsetDelete"), &json!(0)));
    says(&bed.run(&["cluster", "api-versions", "--broker", "777"]).expect(3), &["no such broker"]);
}

#[test]
fn what_the_broker_does_not_serve_is_an_error_that_says_so() {
    let bed = Bed::embedded();
    let text = bed.run(&["cluster", "api-versions"]).expect(0).stdout;
    if std::env::var("AILURUS_TEST_EMBEDDED").as_deref() == Ok("kafka") {
        return assert_eq!(row(&text, &["68"])[4], "1");
    }
    assert_eq!(row(&text, &["68", "ConsumerGroupHeartbeat"])[2..], ["-", "0-1", "no"]);
    let refused = bed.run(&["group", "list", "--type", "consumer"]).expect(6);
    says(&refused, &["listing groups by type needs ListGroups in version 5", "in versions 0 to 4"]);
    assert_eq!(refused.stdout, "", "no empty list");
}

#[test]
fn access_control_lists_are_created_listed_and_deleted() {
    let mut bed = Bed::new();
    let topic = bed.topic("t", 1);
    let resource = format!("topic:{topic}");
    let create = bed.run(&[
        "acl",
        "create",
        "--principal",
        "User:alice,User:bob",
        "--operation",
        "read",
        "--resource",
        &resource,
    ]);
    if create.code == 1 && create.stderr.contains("authorizer.class.name") {
        return says(&bed.run(&["acl", "list"]).expect(6), &["authorizer.class.name"]); // it keeps none, and says so
    }
    let created = create.expect(0).stdout;
    assert!(created.starts_with(&format!("created: allow User:alice from * to read topic {topic}\n")), "{created}");
    let prefix = format!("topic:{}", &topic[..topic.len() - 1]);
    let mut args = vec!["acl", "create", "--principal", "User:eve", "--operation", "all", "--resource", &prefix];
    args.extend(["--pattern", "prefixed", "--permission", "deny", "--host", "10.0.0.1"]);
    bed.run(&args).expect(0);

    // A real broker shows them a moment later.
    let list = || bed.run(&["acl", "list", "--resource", &resource, "--covering"]).expect(0).stdout;
    let found = until(|| Some(list()).filter(|text| text.lines().count() == 4)).unwrap();
    assert_eq!(row(&found, &["topic", &topic])[2..], ["literal", "User:alice", "*", "read", "allow"]);
    let denied = row(&found, &["topic", &prefix["topic:".len()..]]);
    assert_eq!(denied[2..], ["prefixed", "User:eve", "10.0.0.1", "all", "deny"]);
    let of_bob = bed.run(&["acl", "list", "--resource", &resource, "--principal", "User:bob", "--json"]).expect(0);
    assert_eq!(of_bob.json_lines()[0][0]["operation"], "read");

    let delete = |more: &[&str]| {
        let mut args = vec!["acl", "delete", "--resource", &resource, "--principal", "User:alice"];
        args.extend(more);
        bed.run(&args).expect(0)
    };
    says(&delete(&[]), &["nothing was deleted; --yes does it"]);
    assert_eq!(delete(&["--yes", "--json"]).json_lines()[0]["acls"].as_array().unwrap().len(), 1);
    says(&delete(&["--yes"]), &["there is nothing to delete"]);
    bed.run(&["acl", "delete", "--resource", &resource, "--covering", "--yes"]).expect(0);

    says(&bed.run(&["acl", "delete", "--yes"]).expect(2), &["--resource", "--principal"]);
    let bad = bed.run(&["acl", "create", "--principal", "User:a", "--operation", "fly", "--resource", "cluster"]);
    says(&bad.expect(2), &["allowed is all, read, write"]);
    let bad = bed.run(&["acl", "create", "--principal", "User:a", "--operation", "read", "--resource", "topic"]);
    says(&bad.expect(2), &["topic:NAME"]);
}

/// Three nodes and a topic with a partition on each; its last partition has no leader any more.
fn without_a_leader(runtime: &Runtime) -> (Broker, Bed, String) {
    let broker = runtime.block_on(Broker::start(BrokerConfig::default().nodes(3))).unwrap();
    let bed = Bed::of(broker.bootstrap());
    let topic = bed.name("thin");
    bed.run(&["topic", "create", &topic, "--replica-assignment", "0,1,2"]).expect(0);
    for partition in ["0", "1", "2"] {
        bed.feed(&["produce", &topic, "--partition", partition], b"a\nb\n").expect(0);
    }
    let group = bed.name("g");
    broker.move_coordinator(&group, 0).unwrap();
    bed.run(&["group", "reset", &group, "--to", "earliest", "--topic", &topic, "--yes"]).expect(0);
    runtime.block_on(broker.stop_node(2)).unwrap();
    (broker, bed, topic)
}

#[test]
fn a_partition_without_a_leader_is_named_and_the_others_are_served() {
    let runtime = Runtime::new().unwrap();
    let (_broker, bed, topic) = without_a_leader(&runtime);
    let group = bed.name("g");
    // Whatever is waited for would take longer than a test may.
    let run = |args: &[&str], code| {
        let mut command = bed.command(args);
        command.envs([("REDPANDA_REQUEST_TIMEOUT", "600000"), ("REDPANDA_DELIVERY_TIMEOUT", "700000")]);
        support::run(command, b"").expect(code)
    };
    let no_leader = format!("{topic}/2 has no leader; its one replica is on broker 2: start that");

    let described = run(&["group", "describe", &group], 1);
    says(&described, &[&no_leader]);
    assert_eq!(row(&described.stdout, &[&topic, "1"])[2..5], ["0", "2", "2"]);
    assert_eq!(row(&described.stdout, &[&topic, "2"])[2..5], ["0", "-", "-"]);
    assert!(
        described.stdout.contains("lag 4 and that of 1 of 3 partitions, which is not known"),
        "{}",
        described.stdout
    );

    says(&run(&["topic", "describe", &topic], 1), &[&no_leader]);
    run(&["group", "reset", &group, "--topic", &format!("{topic}:0"), "--to", "latest", "--yes"], 0);
    says(
        &run(&["group", "reset", &group, "--to", "latest", "--yes"], 5),
        &["nothing was changed", "--topic", &no_leader],
    );
    says(&run(&["records", "delete", &topic, "--before", "1"], 5), &["choose others with --partition", &no_leader]);

    for as_member in [&[][..], &["--group", &bed.name("h")]] {
        let read = run(&[&["consume", &topic, "--exit-at-end"], as_member].concat(), 1);
        assert_eq!(read.stdout.lines().count(), 4, "{}", read.stdout);
        says(&read, &[&no_leader]);
    }

    let health = run(&["health"], 1);
    let says_offline = format!("1 of the 3 partitions of topic \"{topic}\" has no leader (2)");
    says(&health, &[&says_offline, &format!("group \"{group}\"")]);
}

#[test]
fn the_embedded_broker_prints_its_addresses() {
    let dir = tempfile::TempDir::new().unwrap();
    let start = |args: &[&str]| {
        let mut command = support::command(dir.path());
        command.arg("broker").args(args);
        support::Process::spawn(command)
    };
    let broker = start(&["--listen", "0.0.0.0:0", "--advertise", "localhost"]);
    let listening = broker.line(|l| l.starts_with("listening on "));
    let port = listening.strip_prefix("listening on 0.0.0.0:").expect(&listening).to_owned();
    let printed = broker.line(|l| l.starts_with("clients connect"));
    assert_eq!(printed, format!("clients connect to localhost:{port}"));
    let bed = Bed::of(format!("127.0.0.1:{port}"));
    let described = bed.run(&["cluster", "describe"]).expect(0).stdout;
    assert!(described.contains(&format!("localhost:{port}")), "{described}");

    let named = start(&["--listen", "localhost:0"]).line(|l| l.starts_with("listening on "));
    assert!(named.starts_with("listening on 127.0.0.1:") || named.starts_with("listening on [::1]:"), "{named}");
    let bad = support::run(
        {
            let mut c = support::command(dir.path());
            c.args(["broker", "--listen", "9092"]);
            c
        },
        b"",
    );
    says(&bad.expect(2), &["HOST:PORT"]);
}

#[test]
fn the_embedded_broker_serves_a_schema_registry() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = support::command(dir.path());
    command.args(["broker", "--listen", "127.0.0.1:0", "--registry", "127.0.0.1:0"]);
    let broker = support::Process::spawn(command);
    let line = broker.line(|l| l.starts_with("schema registry on "));
    let address = line.strip_prefix("schema registry on http://").expect(&line);
    assert_eq!(support::get(address, "/subjects"), Some((200, json!([]))));
}

#[test]
fn a_topic_that_is_deleted_while_all_are_examined_has_no_transactions() {
    const DESCRIBE_PRODUCERS: i16 = 61;
    const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    broker.create_topic("deleted", 1).unwrap();
    broker.set_hook(|request: &RequestInfo<'_>| {
        (request.api_key == DESCRIBE_PRODUCERS).then_some(Fault::Error(UNKNOWN_TOPIC_OR_PARTITION))
    });
    let bed = Bed::of(broker.bootstrap());
    let all = bed.run(&["txn", "find-hanging"]).expect(0);
    says(&all, &["no transaction hangs in the 0 partitions examined"]);
    says(&bed.run(&["txn", "find-hanging", "--topic", "deleted"]).expect(1), &["deleted"]);
}
