//! Records between the command and programs nobody here wrote: Kafka's console tools, its Java producer and kcat.
//!
//! On the brokers of `AILURUS_TEST_BROKERS`, or on a node of its own.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::process::Command;
use std::sync::OnceLock;

use ailurus_test_support::process::run;
use ailurus_test_support::refuse_remote;
use serde_json::{Value, json};

use crate::ailurus::Ailurus;
use crate::cluster::{Kafka, java};
use crate::tools::{has_kafka_and, report, root, setting};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const PARTITIONS: &str = "7";
/// Rounds of `Transactions.java`, each of which sends up to 30 records.
const ROUNDS: &str = "200";

/// The brokers and the records, which all tests of this module share.
struct Bed {
    bootstrap: String,
    /// A cluster of its own.
    _kafka: Option<Kafka>,
    /// Keys and values, sorted, with a tab between.
    pairs: Vec<String>,
}

fn bed() -> Option<&'static Bed> {
    static BED: OnceLock<Option<Bed>> = OnceLock::new();
    let bed = || {
        let real = std::env::var("AILURUS_TEST_BROKERS").ok().filter(|brokers| !brokers.is_empty());
        let kafka = real.is_none().then(|| Kafka::start(1, ""));
        let bootstrap = real.or_else(|| kafka.as_ref().map(Kafka::bootstrap)).unwrap();
        refuse_remote(&bootstrap);
        let mut pairs: Vec<_> = events().map(|(key, value)| format!("{key}\t{value}")).collect();
        pairs.sort_unstable();
        Bed { bootstrap, _kafka: kafka, pairs }
    };
    BED.get_or_init(|| has_kafka_and(module_path!(), &["kcat"]).then(bed)).as_ref()
}

/// Returns the events: keys of several lengths and alphabets, and JSON that has the key.
fn events() -> impl Iterator<Item = (String, String)> {
    (0..setting("AILURUS_INTEROP_RECORDS", 5000)).map(|i: u32| {
        let k = i % 1009;
        let key = match k % 5 {
            0 => format!("order-{k}"),
            1 => format!("заказ-{k}"),
            2 => format!("{k:032x}"),
            3 => k.to_string(),
            _ => format!("注文{k}"),
        };
        let total = f64::from(i % 997) / 4.0;
        let event =
            json!({"orderId": key, "eventType": "order.created", "number": i, "total": total, "note": "naïve ☃"});
        (key, event.to_string())
    })
}

/// A topic of one test; deleted when dropped.
pub struct Topic {
    name: String,
    bootstrap: String,
    ailurus: Ailurus,
}

impl Bed {
    #[track_caller]
    fn topic(&self, what: &str) -> Topic {
        Topic::new(&format!("interop-{}-{what}", std::process::id()), &self.bootstrap, PARTITIONS)
    }

    /// Returns what a producer reads that takes a record a line, its key before a tab.
    fn lines(&self) -> Vec<u8> {
        (self.pairs.join("\n") + "\n").into_bytes()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        _ = self.ailurus.command(&["topic", "delete", &self.name, "--yes"]).output();
    }
}

impl Topic {
    /// Creates a topic, with the replication that is the brokers' default.
    #[track_caller]
    pub fn new(name: &str, bootstrap: &str, partitions: &str) -> Self {
        let ailurus = Ailurus::new(bootstrap);
        ailurus.ok(&["topic", "create", name, "--partitions", partitions]);
        Self::existing(name, bootstrap)
    }

    /// Takes a topic that another program has created.
    pub fn existing(name: &str, bootstrap: &str) -> Self {
        Self { name: name.to_owned(), bootstrap: bootstrap.to_owned(), ailurus: Ailurus::new(bootstrap) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes transactions by Kafka's Java producer; returns what is committed, by partition.
    #[track_caller]
    pub fn fill_by_java(&self, partitions: &str) -> Vec<Seen> {
        let program = root().join("tests/kafka/programs/Transactions.java");
        let program = java(program.to_str().unwrap(), &[&self.bootstrap, &self.name, partitions, ROUNDS]);
        let committed = run(program, b"").expect(0).stdout;
        let committed: Vec<Seen> = committed.lines().map(|line| Seen::parse(line, "")).collect();
        assert!(!committed.is_empty(), "Transactions.java has committed nothing");
        committed
    }

    /// Returns the records that the command sees as committed, by partition.
    #[track_caller]
    pub fn committed(&self) -> Vec<Seen> {
        let records = self.ailurus.consume(&[&self.name, "--isolation", "read_committed", "--exit-at-end"]);
        by_partition(records.iter().map(Seen::of).collect())
    }

    /// Asserts that Kafka's console consumer sees these records as committed.
    #[track_caller]
    pub fn is_read_by_kafka(&self, committed: &[Seen]) {
        let fields = ["--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true"];
        let args = [&["--isolation-level", "read_committed"], &fields[..]].concat();
        let lines = self.console_consume(committed.len(), &args);
        let found = lines.iter().map(|line| Seen::parse(line, ":")).collect();
        same("Kafka's console consumer", committed, &by_partition(found));
    }

    /// Writes the events by this command; returns the acknowledgements.
    #[track_caller]
    fn produce(&self, ailurus: &Ailurus, args: &[&str]) -> Vec<Value> {
        let input: String = events().map(|(_, event)| event + "\n").collect();
        let all = [&["produce", &self.name, "--key-field", "orderId", "--acks-out"], args].concat();
        ailurus.feed(&all, input.as_bytes()).expect(0).json_lines()
    }

    /// Writes lines by a program of Kafka's.
    #[track_caller]
    fn console_produce(&self, lines: &[u8], args: &[&str]) {
        let own = ["--bootstrap-server", &self.bootstrap, "--topic", &self.name, "--reader-property", "parse.key=true"];
        run(java(PRODUCER, &[&own, args].concat()), lines).expect(0);
    }

    #[track_caller]
    fn kcat_produce(&self, lines: &[u8], args: &[&str]) {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.bootstrap, "-P", "-t", &self.name, "-K", "\t"]).args(args);
        run(kcat, lines).expect(0);
    }

    /// Returns the lines that Kafka's console consumer prints of `n` records.
    #[track_caller]
    fn console_consume(&self, n: usize, args: &[&str]) -> Vec<String> {
        let n = n.to_string();
        let own = ["--bootstrap-server", &self.bootstrap, "--topic", &self.name, "--from-beginning"];
        let end = ["--max-messages", &n, "--timeout-ms", "30000"];
        let ended = run(java(CONSUMER, &[&own[..], &end, args].concat()), b"").expect(0);
        ended.stdout.lines().map(str::to_owned).collect()
    }

    /// Returns the lines that kcat prints of all records.
    #[track_caller]
    fn kcat(&self, format: &str) -> Vec<String> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.bootstrap, "-C", "-t", &self.name, "-e", "-q", "-f", format]);
        run(kcat, b"").expect(0).stdout.lines().map(str::to_owned).collect()
    }

    /// Returns the partition of each key, as kcat reads it.
    #[track_caller]
    fn partitions(&self) -> BTreeSet<String> {
        self.kcat("%k\\t%p\\n").into_iter().collect()
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

/// Fails with the first lines that differ.
#[track_caller]
fn same<T: PartialEq + Debug>(what: &str, expected: &[T], found: &[T]) {
    let differ = expected.iter().zip(found).find(|(e, f)| e != f);
    assert!(expected == found, "{what}: {} lines expected, {} found; {differ:?}", expected.len(), found.len());
}

/// Written by the command in this codec, and read by Kafka's console consumer and kcat.
#[track_caller]
fn others_read(codec: &str) {
    let Some(bed) = bed() else { return };
    let topic = bed.topic(&format!("ailurus-{codec}"));
    let acknowledged = topic.produce(&topic.ailurus, &["--compression", codec]);
    assert_eq!(acknowledged.len(), bed.pairs.len(), "one acknowledgement for each record");
    let found = topic.console_consume(bed.pairs.len(), &["--formatter-property", "print.key=true"]);
    same("Kafka's console consumer", &bed.pairs, &sorted(found));
    same("kcat", &bed.pairs, &sorted(topic.kcat("%k\\t%s\\n")));
}

/// Written by kcat and by Kafka's console producer in this codec, and read by the command.
#[track_caller]
fn reads_others(codec: &str) {
    let Some(bed) = bed() else { return };
    let by_kcat = bed.topic(&format!("kcat-{codec}"));
    by_kcat.kcat_produce(&bed.lines(), &["-z", codec, "-X", "partitioner=murmur2_random", "-H", "from=kcat"]);
    let by_console = bed.topic(&format!("console-{codec}"));
    by_console.console_produce(&bed.lines(), &["--compression-codec", codec]);
    for topic in [by_kcat, by_console] {
        let records = topic.ailurus.consume(&[&topic.name, "--exit-at-end"]);
        let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
        let found = records.iter().map(|r| format!("{}\t{}", text(r, "key"), text(r, "value"))).collect();
        same(&topic.name, &bed.pairs, &sorted(found));
    }
}

macro_rules! codecs {
    ($($name:ident: $codec:literal,)*) => {
        mod others_read_what_the_command_writes {
            $(#[test] fn $name() { super::others_read($codec) })*
        }
        mod the_command_reads_what_others_write {
            $(#[test] fn $name() { super::reads_others($codec) })*
        }
        const _: [&str; CODECS.len()] = [$($codec),*];
    };
}
codecs! { uncompressed: "none", gzip: "gzip", snappy: "snappy", lz4: "lz4", zstd: "zstd", }

#[test]
fn keys_map_to_the_same_partitions_as_in_other_clients() {
    let Some(bed) = bed() else { return };
    let (own, java) = (bed.topic("default"), bed.topic("java"));
    own.produce(&own.ailurus, &[]);
    java.console_produce(&bed.lines(), &[]);
    let murmur2 = own.partitions();
    assert_eq!(murmur2, java.partitions(), "the default partitioner and that of Kafka's Java producer");

    let (own, kcat) = (bed.topic("crc"), bed.topic("kcat"));
    own.produce(&own.ailurus.set("REDPANDA_PARTITIONER", "consistent_random"), &[]);
    kcat.kcat_produce(&bed.lines(), &[]);
    let crc = own.partitions();
    assert_eq!(crc, kcat.partitions(), "consistent_random and kcat, whose default it is");
    assert_ne!(crc, murmur2, "consistent_random is another hash than the default");
    report(module_path!(), format_args!("{} keys, each in the same partition as in Java and in kcat", crc.len()));
}

/// Transactions of Kafka's Java producer, some aborted and one open: readers of committed records see the same.
#[test]
fn only_committed_records_of_transactions_are_read() {
    let Some(bed) = bed() else { return };
    let topic = bed.topic("transactions");
    let committed = topic.fill_by_java(PARTITIONS);
    topic.is_read_by_kafka(&committed);
    same("ailurus consume", &committed, &topic.committed());

    let all = topic.ailurus.consume(&[&topic.name, "--exit-at-end"]).len();
    assert!(all > committed.len(), "without --isolation read_committed, all are read: {all}");
    report(module_path!(), format_args!("{} committed of {all} records, the same in the same order", committed.len()));
}

/// Partition, offset and value of a record.
#[derive(Debug, PartialEq)]
pub struct Seen(i64, i64, String);

impl Seen {
    /// Parses the three with tabs between, where the numbers follow their names and `separator`.
    #[track_caller]
    fn parse(line: &str, separator: &str) -> Self {
        let fields: Vec<_> = line.splitn(3, '\t').collect();
        let number = |field: &str| {
            let number = if separator.is_empty() { field } else { field.rsplit(separator).next().unwrap() };
            number.parse().unwrap_or_else(|_| panic!("no number: {line}"))
        };
        Self(number(fields[0]), number(fields[1]), fields[2].to_owned())
    }

    fn of(record: &Value) -> Self {
        let number = |field: &str| record[field].as_i64().unwrap();
        Self(number("partition"), number("offset"), record["value"].as_str().unwrap().to_owned())
    }
}

/// Sorts by partition; within one, records stay in the order in which they were read.
fn by_partition(mut records: Vec<Seen>) -> Vec<Seen> {
    records.sort_by_key(|record| record.0);
    records
}
