//! `ailurus registry` on the embedded schema registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use ailurus_broker::registry::{Registry, RegistryConfig, RegistryFault};
use serde_json::{Value, json};
use support::{Ended, command, run};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const V1: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}"#;
const V2: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"int","default":0}]}"#;
const BAD: &str =
    r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"int"}]}"#;
const BASKET: &str =
    r#"{"type":"record","name":"Basket","fields":[{"name":"all","type":{"type":"array","items":"Order"}}]}"#;

/// A registry, and a working directory with schemas.
struct Bed {
    registry: Registry,
    dir: TempDir,
    _runtime: Runtime,
}

impl Bed {
    fn new() -> Self {
        Self::with(RegistryConfig::default())
    }

    fn with(config: RegistryConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let registry = runtime.block_on(Registry::start_with(config)).unwrap();
        let dir = TempDir::new().unwrap();
        for (name, text) in [("v1.avsc", V1), ("v2.avsc", V2), ("bad.avsc", BAD), ("basket.avsc", BASKET)] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { registry, dir, _runtime: runtime }
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.with_vars(args, &[])
    }

    fn with_vars(&self, args: &[&str], vars: &[(&str, &str)]) -> Ended {
        let mut command = command(self.dir.path());
        command.env("REDPANDA_SCHEMA_REGISTRY_URL", self.registry.url()).arg("registry").args(args);
        command.envs(vars.iter().copied());
        run(command, b"")
    }

    /// Runs with `--json` and returns what is printed.
    fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(&[args, &["--json"]].concat()).expect(0);
        serde_json::from_str(&ended.stdout).expect(&ended.stdout)
    }

    /// Registers orders in two versions, and what refers to the first.
    fn filled() -> Self {
        let bed = Self::new();
        bed.run(&["register", "orders", "--file", "v1.avsc"]).expect(0);
        bed.run(&["register", "orders", "--file", "v2.avsc"]).expect(0);
        bed.run(&["register", "baskets", "--file", "basket.avsc", "--reference", "Order=orders:1"]).expect(0);
        bed
    }
}

fn has(ended: &Ended, texts: &[&str]) {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    texts.iter().for_each(|text| assert!(all.contains(text), "no {text:?} in {all}"));
}

#[test]
fn schemas_are_registered_listed_and_shown() {
    let bed = Bed::filled();
    has(
        &bed.run(&["register", "orders", "--file", "v1.avsc"]).expect(0),
        &["registered: orders version 1 has schema id 1"],
    );
    assert_eq!(bed.run(&["subjects"]).expect(0).stdout, "SUBJECT\nbaskets\norders\n");
    assert_eq!(bed.json(&["subjects", "ord"]), json!(["orders"]));
    let long = bed.run(&["subjects", "--long"]).expect(0).stdout;
    assert!(long.contains("orders   2        2   AVRO  -"), "{long}");
    assert!(long.contains("baskets  1        3   AVRO  Order=orders:1"), "{long}");
    let versions = bed.json(&["versions", "orders"]);
    assert_eq!((&versions[0]["version"], &versions[1]["id"]), (&json!(1), &json!(2)));
    let shown = bed.run(&["show", "orders:1"]).expect(0);
    assert_eq!(shown.stderr.trim(), "orders version 1: schema id 1, AVRO");
    assert_eq!(serde_json::from_str::<Value>(&shown.stdout).unwrap(), serde_json::from_str::<Value>(V1).unwrap());
    assert_eq!(bed.json(&["show", "orders"])["version"], 2);
    assert_eq!(bed.json(&["show", "--id", "3"])["references"][0]["subject"], "orders");
}

#[test]
fn a_breaking_change_is_refused_with_its_reason() {
    let bed = Bed::filled();
    has(&bed.run(&["check", "orders", "--file", "v2.avsc"]).expect(0), &["compatible with orders"]);
    let reason = "READER_FIELD_MISSING_DEFAULT_VALUE";
    // The level names the latest version, which has the field; the first has not.
    bed.run(&["check", "orders", "--file", "bad.avsc"]).expect(0);
    has(&bed.run(&["check", "orders:1", "--file", "bad.avsc"]).expect(1), &["not compatible", reason]);
    bed.run(&["config", "orders", "--set", "backward_transitive", "--yes"]).expect(0);
    has(&bed.run(&["check", "orders", "--file", "bad.avsc"]).expect(1), &["not compatible with orders", reason]);
    has(&bed.run(&["register", "orders", "--file", "bad.avsc"]).expect(6), &[reason, "change the schema"]);
    fs::write(bed.dir.path().join("broken.avsc"), "{").unwrap();
    has(&bed.run(&["register", "orders", "--file", "broken.avsc"]).expect(6), &["not JSON"]);
}

#[test]
fn schemas_are_compared_by_line() {
    let bed = Bed::filled();
    let diff = bed.run(&["diff", "orders:1", "orders"]).expect(0).stdout;
    assert!(diff.starts_with("--- orders:1\n+++ orders:2\n"), "{diff}");
    assert!(diff.contains("\n+    {\"name\": \"n\", \"type\": \"int\", \"default\": 0}\n"), "{diff}");
    has(&bed.run(&["diff", "orders:2", "--file", "v2.avsc"]).expect(0), &["no difference"]);
    bed.run(&["diff", "orders:1"]).expect(2);
}

#[test]
fn deletes_are_dry_runs_without_yes() {
    let bed = Bed::filled();
    has(&bed.run(&["delete", "orders"]).expect(0), &["would delete softly version 1,2", "--yes"]);
    has(&bed.run(&["delete", "orders", "--yes"]).expect(6), &["42206", "delete those first"]);
    has(&bed.run(&["delete", "orders:2", "--yes"]).expect(0), &["orders: deleted softly version 2"]);
    assert_eq!(bed.json(&["versions", "orders"]).as_array().unwrap().len(), 1);
    assert_eq!(bed.json(&["versions", "orders", "--deleted"]).as_array().unwrap().len(), 2);
    has(&bed.run(&["delete", "orders:2", "--permanent", "--yes"]).expect(0), &["deleted for good version 2"]);
    has(&bed.run(&["delete", "orders:2", "--permanent", "--yes"]).expect(3), &["40402"]);
    has(&bed.run(&["show", "nothing"]).expect(3), &["40401"]);
}

#[test]
fn levels_and_modes_are_shown_and_changed() {
    let bed = Bed::filled();
    assert_eq!(bed.run(&["config"]).expect(0).stdout, "BACKWARD\n");
    has(&bed.run(&["config", "orders", "--set", "FULL"]).expect(0), &["orders has BACKWARD", "becomes FULL", "--yes"]);
    assert_eq!(bed.run(&["config", "orders", "--set", "FULL", "--yes"]).expect(0).stdout, "FULL\n");
    assert_eq!(bed.json(&["config", "orders"]), json!({"subject": "orders", "compatibility": "FULL"}));
    assert_eq!(bed.run(&["config", "orders", "--unset", "--yes"]).expect(0).stdout, "BACKWARD\n");
    has(&bed.run(&["config", "--set", "SIDEWARD"]).expect(2), &["BACKWARD_TRANSITIVE"]);
    assert_eq!(bed.run(&["mode", "orders", "--set", "readonly", "--yes"]).expect(0).stdout, "READONLY\n");
    has(&bed.run(&["register", "orders", "--file", "bad.avsc"]).expect(6), &["42205"]);
    assert_eq!(bed.json(&["mode"]), json!({"subject": null, "mode": "READWRITE"}));
}

#[test]
fn what_is_exported_is_imported_with_its_ids() {
    let (bed, other) = (Bed::filled(), Bed::new());
    bed.run(&["register", "all", "--file", "basket.avsc", "--reference", "Order=orders:2"]).expect(0);
    let file = other.dir.path().join("schemas.ndjson");
    let path = file.to_str().unwrap();
    has(&bed.run(&["export", "--out", path]).expect(0), &["exported 4 versions"]);
    bed.run(&["export", "--out", path]).expect(2);
    // Referenced schemas come first, and those that a prefix leaves out come too.
    let baskets = bed.run(&["export", "baskets"]).expect(0).stdout;
    let subjects: Vec<_> =
        baskets.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["subject"].clone()).collect();
    assert_eq!(subjects, ["orders", "baskets"]);

    // Ids of the other registry differ from now on.
    fs::write(other.dir.path().join("int.avsc"), "\"int\"").unwrap();
    other.run(&["register", "int", "--file", "int.avsc"]).expect(0);
    has(&other.run(&["import", path]).expect(0), &["orders   2         0", "--yes"]);
    has(&other.run(&["import", path, "--yes"]).expect(6), &["line 1; 0 were registered", "42205"]);
    has(&other.run(&["import", path, "--new-ids", "--yes"]).expect(0), &["registered 4 versions"]);
    // `all` is listed first, and refers to the second version.
    assert_eq!(other.json(&["show", "all"])["references"][0]["version"], 2);
    assert_eq!(other.json(&["show", "orders:1"])["schema"], V1);
    assert_eq!(other.json(&["show", "baskets"])["id"], 5);
    other.run(&["import", path, "--new-ids", "--yes"]).expect(0);
    assert_eq!(other.json(&["versions", "orders"]).as_array().unwrap().len(), 2);

    let third = Bed::new();
    third.run(&["mode", "--set", "IMPORT", "--yes"]).expect(0);
    third.run(&["import", path, "--yes"]).expect(0);
    assert_eq!(third.json(&["versions", "orders"]), bed.json(&["versions", "orders"]));
    assert_eq!(third.json(&["show", "baskets"])["id"], 3);
}

#[test]
fn credentials_and_urls_come_from_variables_and_env_file() {
    let bed = Bed::with(RegistryConfig::default().basic_auth("alice", "secret"));
    has(&bed.run(&["subjects"]).expect(6), &["401", "credentials"]);
    let user = ("REDPANDA_SCHEMA_REGISTRY_USERNAME", "alice");
    has(&bed.with_vars(&["subjects"], &[user]).expect(2), &["go together"]);
    let password = ("REDPANDA_SCHEMA_REGISTRY_PASSWORD", "secret");
    let listed = bed.with_vars(&["subjects"], &[user, password]).expect(0);
    assert!(!listed.stderr.contains("is no setting"), "{}", listed.stderr);
    let env = format!(
        "REDPANDA_SCHEMA_REGISTRY_URL={}\nREDPANDA_SCHEMA_REGISTRY_USERNAME=alice\nREDPANDA_SCHEMA_REGISTRY_PASSWORD=secret\n",
        bed.registry.url()
    );
    fs::write(bed.dir.path().join(".env"), env).unwrap();
    let mut from_file = command(bed.dir.path());
    from_file.args(["registry", "subjects"]);
    run(from_file, b"").expect(0);
}

#[test]
fn a_registry_that_fails_has_its_exit_code() {
    let bed = Bed::new();
    let refused = RegistryFault::Error { status: 403, error_code: 40301, message: "no right to list".into() };
    bed.registry.inject(1, refused);
    has(&bed.run(&["subjects"]).expect(6), &["no right to list"]);
    let page = RegistryFault::Response { status: 200, content_type: "text/html".into(), body: "<html>".into() };
    bed.registry.inject(1, page);
    has(&bed.run(&["subjects"]).expect(1), &["check the URL"]);
    bed.registry.inject(1, RegistryFault::Error { status: 503, error_code: 50004, message: "no primary".into() });
    bed.run(&["subjects"]).expect(0);
    bed._runtime.block_on(bed.registry.stop());
    has(&bed.run(&["subjects"]).expect(5), &["schema registry is running"]);
}
