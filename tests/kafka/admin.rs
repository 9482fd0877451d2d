//! Topics, settings, groups, records, access control lists and the cluster: what the command changes
//! Kafka's own tools see, and what they change the command sees.

use std::sync::OnceLock;

use ailurus_test_support::process::until;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::Kafka;
use crate::tools::{has_kafka_and, report};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";

/// Returns three nodes with an authorizer, which all tests of this module share.
fn cluster() -> Option<&'static Kafka> {
    static CLUSTER: OnceLock<Option<Kafka>> = OnceLock::new();
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                      super.users=User:ANONYMOUS";
    CLUSTER.get_or_init(|| has_kafka_and(module_path!(), &[]).then(|| Kafka::start(3, authorizer))).as_ref()
}

/// Returns the first line that has these parts in this order, whatever space is between the words.
fn line_with(text: &str, parts: &[&str]) -> Option<String> {
    let words = |line: &str| format!(" {} ", line.split_whitespace().collect::<Vec<_>>().join(" "));
    text.lines().map(words).find(|line| {
        let mut rest = line.as_str();
        parts.iter().all(|part| rest.split_once(part).map(|(_, after)| rest = after).is_some())
    })
}

#[track_caller]
fn has(text: &str, parts: &[&str]) -> String {
    line_with(text, parts).unwrap_or_else(|| panic!("no line with {parts:?} in:\n{text}"))
}

#[track_caller]
fn lacks(text: &str, parts: &[&str]) {
    if let Some(line) = line_with(text, parts) {
        panic!("{parts:?} is in {line:?} of:\n{text}");
    }
}

/// Waits until the text has such a line: a broker may learn of a change a moment later.
#[track_caller]
fn await_line(mut text: impl FnMut() -> String, parts: &[&str]) -> String {
    let mut last = String::new();
    let found = until(|| {
        last = text();
        line_with(&last, parts)
    });
    found.unwrap_or_else(|| panic!("no line with {parts:?} came, but:\n{last}"))
}

#[test]
fn topics_are_created_with_placement_and_grown() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    let create = ["topic", "create", "places", "--replica-assignment", "1:2,2:3", "--config", "retention.ms=77000"];
    ailurus.ok(&[&create[..], &["--validate-only"]].concat());
    lacks(&kafka.tool(TOPICS, &["--list"]), &[" places "]);
    ailurus.ok(&create);
    ailurus.ok(&["topic", "add-partitions", "places", "--partitions", "3"]);
    let described = || kafka.tool(TOPICS, &["--describe", "--topic", "places"]);
    await_line(described, &["PartitionCount: 3", "retention.ms=77000"]);
    let found = described();
    has(&found, &[" Partition: 0 ", "Leader: 1 ", "Replicas: 1,2 "]);
    has(&found, &[" Partition: 1 ", "Leader: 2 ", "Replicas: 2,3 "]);

    ailurus.produce_numbers("", 1000, &["places", "--partition", "1"]);
    let described = ailurus.json(&["topic", "describe", "places"]);
    let partition = &described["partitions"][1];
    assert_eq!(partition["leader"], json!(2), "{described}");
    assert_eq!(partition["replicas"], json!([2, 3]), "{described}");
    assert!([json!([2, 3]), json!([3, 2])].contains(&partition["inSyncReplicas"]), "{described}");
    assert_eq!((&partition["firstOffset"], &partition["endOffset"]), (&json!(0), &json!(1000)), "{described}");
    assert!(partition["bytes"]["2"].as_u64().unwrap() > 0, "{described}");
    has(&ailurus.ok(&["topic", "describe", "places"]), &[" 1 2 2,3 ", " 0 1000 "]);
}

#[test]
fn settings_are_changed_by_either_tool() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    ailurus.ok(&["topic", "create", "configured", "--partitions", "1", "--config", "retention.ms=77000"]);
    let change = ["--set", "max.message.bytes=5000", "--append", "cleanup.policy=compact", "--delete", "retention.ms"];
    ailurus.ok(&[&["config", "alter", "--topic", "configured"][..], &change, &["--yes"]].concat());
    let described = || kafka.tool(CONFIGS, &["--entity-type", "topics", "--entity-name", "configured", "--describe"]);
    await_line(described, &["max.message.bytes=5000 sensitive=false"]);
    let found = described();
    has(&found, &["cleanup.policy=delete,compact "]);
    lacks(&found, &["retention.ms=77000"]);

    let all = ["--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "log.retention.ms=86400001"];
    kafka.tool(CONFIGS, &all);
    let of_broker = || ailurus.ok(&["config", "describe", "--broker", "2"]);
    await_line(of_broker, &[" log.retention.ms 86400001 all brokers "]);
    ailurus.ok(&["config", "alter", "--broker", "2", "--set", "log.retention.ms=86400002", "--yes"]);
    let described = || kafka.tool(CONFIGS, &["--entity-type", "brokers", "--entity-name", "2", "--describe"]);
    await_line(described, &["log.retention.ms=86400002"]);
}

/// Creates a topic with 1000 records in its second partition, and a group that has read 300 of them.
fn group_of_300(kafka: &Kafka, topic: &str, group: &str) {
    let ailurus = kafka.ailurus();
    ailurus.ok(&["topic", "create", topic, "--partitions", "3"]);
    ailurus.produce_numbers("", 1000, &[topic, "--partition", "1"]);
    ailurus.ok(&["consume", topic, "--group", group, "--max", "300"]);
}

#[test]
fn offsets_of_a_group_are_seen_by_either_tool() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    group_of_300(kafka, "offsets", "g");
    let reset = |args: &[&str]| ailurus.run(&[&["group", "reset", "g"], args].concat()).expect(0);
    let described = || kafka.tool(GROUPS, &["--describe", "--group", "g"]);

    let dry = reset(&["--to", "earliest", "--topic", "offsets:1"]);
    has(&dry.stdout, &[" offsets 1 300 0 -300 1000 "]);
    has(&dry.stderr, &["nothing was changed"]);
    report(module_path!(), format_args!("dry run:\n{}", dry.stdout));
    let seen = has(&described(), &[" offsets 1 300 1000 700 "]);
    report(module_path!(), format_args!("after it, Kafka's tool prints {seen}"));
    reset(&["--to", "40", "--topic", "offsets:1", "--yes"]);
    let seen = has(&described(), &[" offsets 1 40 1000 960 "]);
    report(module_path!(), format_args!("with --yes, it prints {seen}"));

    reset(&["--shift", "+60", "--topic", "offsets:1", "--yes"]);
    let file = ["group", "reset", "g", "--file", "-", "--yes"];
    ailurus.feed(&file, b"offsets,2,0\n").expect(0);
    let found = described();
    has(&found, &[" offsets 1 100 1000 900 "]);
    has(&found, &[" offsets 2 0 0 0 "]);
    kafka.tool(GROUPS, &["--reset-offsets", "--group", "g", "--topic", "offsets:1", "--to-latest", "--execute"]);
    has(&ailurus.ok(&["group", "describe", "g"]), &[" offsets 1 1000 1000 0 "]);
    has(&ailurus.ok(&["group", "list", "--state", "empty", "--protocol", "classic"]), &[" g Empty classic consumer "]);

    ailurus.ok(&["group", "delete-offsets", "g", "--topic", "offsets:2", "--yes"]);
    lacks(&described(), &[" offsets 2 0 "]);
    ailurus.ok(&["group", "delete", "g", "--yes"]);
    lacks(&kafka.tool(GROUPS, &["--list"]), &[" g "]);
}

#[test]
fn offsets_are_not_reset_under_a_member() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    group_of_300(kafka, "attended", "attending");
    let member = ailurus.start(&["consume", "attended", "--group", "attending"]);
    await_line(|| ailurus.ok(&["group", "list", "--state", "stable"]), &[" attending "]);
    let refused = ailurus.run(&["group", "reset", "attending", "--to", "earliest", "--yes"]);
    assert_ne!(refused.code, 0, "a reset under a member was not refused: {}", refused.stdout);
    has(&refused.stderr, &["it has 1 member (ailurus at 127.0.0.1) and is Stable; stop it first"]);
    report(module_path!(), format_args!("refused: {}", refused.stderr.trim_end()));
    member.signal(Signal::SIGINT);
    member.end().expect(0);
}

#[test]
fn deleted_records_are_deleted_for_kafkas_tools() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    ailurus.ok(&["topic", "create", "deleted", "--partitions", "2"]);
    ailurus.produce_numbers("", 1000, &["deleted", "--partition", "1"]);
    let delete = ["records", "delete", "deleted", "--before", "250", "--partition", "1"];
    ailurus.ok(&delete);
    let described = ailurus.json(&["topic", "describe", "deleted"]);
    assert_eq!(described["partitions"][1]["firstOffset"], json!(0), "a dry run: {described}");
    ailurus.ok(&[&delete[..], &["--yes"]].concat());
    has(&kafka.tool(OFFSETS, &["--topic", "deleted", "--time", "earliest"]), &[" deleted:1:250 "]);
}

#[test]
fn access_control_lists_are_found_by_either_tool() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    let create = |args: &[&str]| ailurus.ok(&[&["acl", "create", "--principal"], args].concat());
    create(&["User:alice", "--operation", "read,describe", "--resource", "topic:t"]);
    let more = ["--pattern", "prefixed", "--permission", "deny"];
    create(&[&["User:eve", "--operation", "all", "--resource", "group:g"][..], &more].concat());
    let listed = || kafka.tool(ACLS, &["--list"]);
    await_line(listed, &["principal=User:alice, host=*, operation=READ, permissionType=ALLOW"]);
    await_line(listed, &["resourceType=GROUP, name=g, patternType=PREFIXED"]);
    kafka.tool(ACLS, &["--add", "--allow-principal", "User:bob", "--operation", "Write", "--topic", "t"]);
    let of_topic = || ailurus.ok(&["acl", "list", "--resource", "topic:t"]);
    await_line(of_topic, &[" topic t literal User:bob * write allow "]);
    ailurus.ok(&["acl", "delete", "--principal", "User:alice"]);
    has(&listed(), &["User:alice"]); // a dry run
    ailurus.ok(&["acl", "delete", "--principal", "User:alice", "--yes"]);
    let left = until(|| Some(listed()).filter(|left| !left.contains("User:alice"))).expect("they are deleted");
    has(&left, &["User:bob"]);
}

#[test]
fn brokers_and_their_apis_are_described() {
    let Some(kafka) = cluster() else { return };
    let ailurus = kafka.ailurus();
    let described = ailurus.json(&["cluster", "describe"]);
    assert_eq!(described["clusterId"].as_str().unwrap().len(), 22, "{described}");
    assert!((1..=3).contains(&described["controller"].as_i64().unwrap()), "{described}");
    assert_eq!(described["brokers"].as_array().unwrap().len(), 3, "{described}");
    let second = &described["brokers"][1];
    assert_eq!((&second["id"], &second["rack"]), (&json!(2), &json!("rack2")), "{described}");
    assert_eq!(second["address"], json!(kafka.address(10)), "{described}");
    let release = std::env::var("KAFKA_VERSION").unwrap_or_else(|_| "4.".to_owned());
    assert!(second["version"].as_str().unwrap().starts_with(release.get(..2).unwrap()), "{described}");
    let text = ailurus.ok(&["cluster", "describe"]);
    has(&text, &[" cluster ", " controller ", " brokers 3 "]);
    report(module_path!(), text);

    let apis = ailurus.json(&["cluster", "api-versions", "--broker", "1"]);
    let metadata = apis[0]["apis"].as_array().unwrap().iter().find(|api| api["name"] == "Metadata").unwrap();
    assert_eq!((&metadata["key"], &metadata["broker"]["min"]), (&json!(3), &json!(0)), "{metadata}");
    assert!(metadata["broker"]["max"].as_i64().unwrap() >= 12, "{metadata}");
    assert_eq!((&metadata["client"], &metadata["used"]), (&json!({"min": 4, "max": 12}), &json!(12)), "{metadata}");
}
