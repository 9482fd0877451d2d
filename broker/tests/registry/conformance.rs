//! The same requests to the embedded registry and to a real one, with the same responses: status, error code, and what of the body has
//! a meaning. Ids are compared by their order of appearance.

use ailurus_broker::registry::Registry;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::{Client, Response, schema, schema_of};

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"}]}"#;
/// `ORDER` in another spelling.
const ORDER_SPACED: &str =
    r#"{ "type": "record", "name": "Order", "namespace": "shop", "fields": [ {"name": "id", "type": "string"} ] }"#;
/// Compatible in both directions.
const ORDER_NOTE: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},
    {"name":"note","type":["null","string"],"default":null}]}"#;
/// Reads no older records: a field without a default.
const ORDER_TOTAL: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},
    {"name":"note","type":["null","string"],"default":null},{"name":"total","type":"long"}]}"#;
/// Cannot be read by older consumers: they need the id.
const ORDER_EMPTY: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[]}"#;
/// Compatible with `ORDER_NOTE`, as unions of strings are, and not with `ORDER`.
const ORDER_OPTIONAL: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"string"},{"name":"note","type":"string","default":""}]}"#;
const BASKET: &str = r#"{"type":"record","name":"Basket","namespace":"shop","fields":[
    {"name":"orders","type":{"type":"array","items":"Order"}}]}"#;
const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string"}}}"#;
const PROTO: &str = "syntax = \"proto3\";\nmessage Order {\n  string id = 1;\n}\n";

/// Returns the requests and the expected responses. `~` is the prefix of this run's subjects.
fn steps() -> Vec<(&'static str, &'static str, String, &'static str)> {
    let none = String::new;
    let level = |name: &str| json!({"compatibility": name}).to_string();
    let mode = |name: &str| json!({"mode": name}).to_string();
    vec![
        ("GET", "/schemas/types", none(), r#"200 ["AVRO","JSON","PROTOBUF"]"#),
        // What is not there.
        ("GET", "/subjects/~a/versions", none(), "404 40401"),
        ("GET", "/subjects/~a/versions/1", none(), "404 40401"),
        ("POST", "/subjects/~a", schema(ORDER), "404 40401"),
        ("DELETE", "/subjects/~a", none(), "404 40401"),
        ("DELETE", "/subjects/~a?permanent=true", none(), "404 40401"),
        ("DELETE", "/subjects/~a/versions/1", none(), "404 40401"),
        ("GET", "/schemas/ids/2000000000", none(), "404 40403"),
        ("GET", "/config/~a", none(), "404 40408"),
        ("GET", "/mode/~a", none(), "404 40409"),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER), r#"200 {"is_compatible":true}"#),
        ("POST", "/compatibility/subjects/~a/versions/1", schema(ORDER), "404 40402"),
        // One id for a schema, however it is spelled and wherever it is registered.
        ("PUT", "/config/~a", level("BACKWARD"), r#"200 {"compatibility":"BACKWARD"}"#),
        ("PUT", "/config/~b", level("BACKWARD"), r#"200 {"compatibility":"BACKWARD"}"#),
        ("GET", "/config/~a", none(), r#"200 {"compatibilityLevel":"BACKWARD"}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER), r##"200 {"id":"#1"}"##),
        ("POST", "/subjects/~a/versions", schema(ORDER), r##"200 {"id":"#1"}"##),
        ("POST", "/subjects/~a/versions", schema(ORDER_SPACED), r##"200 {"id":"#1"}"##),
        ("POST", "/subjects/~b/versions", schema(ORDER), r##"200 {"id":"#1"}"##),
        ("GET", "/subjects/~a/versions", none(), "200 [1]"),
        (
            "POST",
            "/subjects/~a",
            schema(ORDER_SPACED),
            r##"200 {"id":"#1","schema":ORDER,"subject":"~a","version":1}"##,
        ),
        ("POST", "/subjects/~a", schema(ORDER_NOTE), "404 40403"),
        ("GET", "/subjects/~a/versions/1", none(), r##"200 {"id":"#1","schema":ORDER,"subject":"~a","version":1}"##),
        (
            "GET",
            "/subjects/~a/versions/latest",
            none(),
            r##"200 {"id":"#1","schema":ORDER,"subject":"~a","version":1}"##,
        ),
        ("GET", "/subjects/~a/versions/1/schema", none(), "200 ORDER"),
        ("GET", "/subjects/~a/versions/2", none(), "404 40402"),
        ("GET", "/subjects/~a/versions/x", none(), "422 42202"),
        ("GET", "/subjects/~a/versions/0", none(), "422 42202"),
        ("GET", "/schemas/ids/#1", none(), r#"200 {"schema":ORDER}"#),
        ("GET", "/schemas/ids/#1/schema", none(), "200 ORDER"),
        ("GET", "/schemas/ids/#1/subjects", none(), r#"200 ["~a","~b"]"#),
        (
            "GET",
            "/schemas/ids/#1/versions",
            none(),
            r#"200 [{"subject":"~a","version":1},{"subject":"~b","version":1}]"#,
        ),
        ("GET", "/subjects", none(), r#"200 ["~a","~b"]"#),
        // What is not a schema.
        ("POST", "/subjects/~a/versions", schema(r#"{"type":"record"}"#), "422 42201"),
        (
            "POST",
            "/subjects/~a/versions",
            schema(r#"{"type":"record","name":"A","fields":[{"name":"b","type":"B"}]}"#),
            "422 42201",
        ),
        ("POST", "/subjects/~a/versions", schema_of("NONE", "<a/>", &[]), "422 42201"),
        ("POST", "/subjects/~a/versions", "{}".to_owned(), "422 42201"),
        ("POST", "/subjects/~a/versions", "not JSON".to_owned(), "400 400"),
        ("PUT", "/config/~a", level("SIDEWARD"), "422 42203"),
        ("PUT", "/mode/~a", mode("SOMETIMES"), "422 42204"),
        // Compatibility.
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_NOTE), r#"200 {"is_compatible":true}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_NOTE), r##"200 {"id":"#2"}"##),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_TOTAL), r#"200 {"is_compatible":false}"#),
        ("POST", "/compatibility/subjects/~a/versions/1", schema(ORDER_TOTAL), r#"200 {"is_compatible":false}"#),
        ("POST", "/compatibility/subjects/~a/versions", schema(ORDER_TOTAL), r#"200 {"is_compatible":false}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_TOTAL), "409 409"),
        ("POST", "/compatibility/subjects/~a/versions/9", schema(ORDER_TOTAL), "404 40402"),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_EMPTY), r#"200 {"is_compatible":true}"#),
        ("PUT", "/config/~a", level("FORWARD"), r#"200 {"compatibility":"FORWARD"}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_TOTAL), r#"200 {"is_compatible":true}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_EMPTY), r#"200 {"is_compatible":false}"#),
        ("PUT", "/config/~a", level("FULL"), r#"200 {"compatibility":"FULL"}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_TOTAL), r#"200 {"is_compatible":false}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_EMPTY), r#"200 {"is_compatible":false}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_NOTE), r#"200 {"is_compatible":true}"#),
        ("PUT", "/config/~a", level("NONE"), r#"200 {"compatibility":"NONE"}"#),
        ("POST", "/compatibility/subjects/~a/versions/latest", schema(ORDER_TOTAL), r#"200 {"is_compatible":true}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_TOTAL), r##"200 {"id":"#3"}"##),
        // Of all versions, or of the last: it has `total`, and the first has not.
        ("PUT", "/config/~a", level("FORWARD_TRANSITIVE"), r#"200 {"compatibility":"FORWARD_TRANSITIVE"}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_OPTIONAL), "409 409"),
        ("PUT", "/config/~a", level("BACKWARD_TRANSITIVE"), r#"200 {"compatibility":"BACKWARD_TRANSITIVE"}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_OPTIONAL), "409 409"),
        ("PUT", "/config/~a", level("FULL_TRANSITIVE"), r#"200 {"compatibility":"FULL_TRANSITIVE"}"#),
        ("POST", "/subjects/~a/versions", schema(ORDER_OPTIONAL), "409 409"),
        ("DELETE", "/config/~a", none(), r#"200 {"compatibilityLevel":"FULL_TRANSITIVE"}"#),
        ("GET", "/config/~a", none(), "404 40408"),
        // References.
        ("POST", "/subjects/~basket/versions", schema_of("AVRO", BASKET, &[]), "422 42201"),
        ("POST", "/subjects/~basket/versions", schema_of("AVRO", BASKET, &[("shop.Order", "~none", 1)]), "422 42201"),
        (
            "POST",
            "/subjects/~basket/versions",
            schema_of("AVRO", BASKET, &[("shop.Order", "~b", 1)]),
            r##"200 {"id":"#4"}"##,
        ),
        (
            "GET",
            "/subjects/~basket/versions/1",
            none(),
            r##"200 {"id":"#4","references":[{"name":"shop.Order","subject":"~b","version":1}],"schema":BASKET,"subject":"~basket","version":1}"##,
        ),
        (
            "GET",
            "/schemas/ids/#4",
            none(),
            r#"200 {"references":[{"name":"shop.Order","subject":"~b","version":1}],"schema":BASKET}"#,
        ),
        ("GET", "/subjects/~b/versions/1/referencedby", none(), r##"200 ["#4"]"##),
        ("DELETE", "/subjects/~b/versions/1", none(), "422 42206"),
        ("DELETE", "/subjects/~b", none(), "422 42206"),
        ("DELETE", "/subjects/~basket", none(), "200 [1]"),
        ("DELETE", "/subjects/~basket?permanent=true", none(), "200 [1]"),
        ("GET", "/subjects/~b/versions/1/referencedby", none(), "200 []"),
        // Other languages.
        ("POST", "/subjects/~json/versions", schema_of("JSON", PERSON, &[]), r##"200 {"id":"#5"}"##),
        ("GET", "/schemas/ids/#5", none(), r#"200 {"schema":PERSON,"schemaType":"JSON"}"#),
        ("POST", "/subjects/~json/versions", schema_of("JSON", "{", &[]), "422 42201"),
        ("POST", "/subjects/~proto/versions", schema_of("PROTOBUF", PROTO, &[]), r##"200 {"id":"#6"}"##),
        ("POST", "/subjects/~proto/versions", schema_of("PROTOBUF", PROTO, &[]), r##"200 {"id":"#6"}"##),
        (
            "GET",
            "/subjects/~proto/versions/1",
            none(),
            r##"200 {"id":"#6","schema":PROTO,"schemaType":"PROTOBUF","subject":"~proto","version":1}"##,
        ),
        ("POST", "/subjects/~proto/versions", schema_of("PROTOBUF", "message {", &[]), "422 42201"),
        // Soft deletes, and hard ones after them.
        ("DELETE", "/subjects/~a/versions/9", none(), "404 40402"),
        ("DELETE", "/subjects/~a/versions/2?permanent=true", none(), "404 40407"),
        ("DELETE", "/subjects/~a/versions/2", none(), "200 2"),
        ("DELETE", "/subjects/~a/versions/2", none(), "404 40406"),
        ("GET", "/subjects/~a/versions", none(), "200 [1,3]"),
        ("GET", "/subjects/~a/versions?deleted=true", none(), "200 [1,2,3]"),
        ("GET", "/subjects/~a/versions/2", none(), "404 40402"),
        (
            "GET",
            "/subjects/~a/versions/2?deleted=true",
            none(),
            r##"200 {"id":"#2","schema":ORDER_NOTE,"subject":"~a","version":2}"##,
        ),
        ("GET", "/schemas/ids/#2", none(), r#"200 {"schema":ORDER_NOTE}"#),
        ("POST", "/subjects/~a", schema(ORDER_NOTE), "404 40403"),
        (
            "POST",
            "/subjects/~a?deleted=true",
            schema(ORDER_NOTE),
            r##"200 {"id":"#2","schema":ORDER_NOTE,"subject":"~a","version":2}"##,
        ),
        ("DELETE", "/subjects/~a/versions/2?permanent=true", none(), "200 2"),
        ("GET", "/subjects/~a/versions?deleted=true", none(), "200 [1,3]"),
        ("DELETE", "/subjects/~a?permanent=true", none(), "404 40405"),
        ("DELETE", "/subjects/~a/versions/latest", none(), "200 3"),
        ("DELETE", "/subjects/~a", none(), "200 [1]"),
        ("DELETE", "/subjects/~a", none(), "404 40404"),
        ("GET", "/subjects/~a/versions", none(), "404 40401"),
        ("GET", "/subjects", none(), r#"200 ["~b","~json","~proto"]"#),
        ("GET", "/subjects?deleted=true", none(), r#"200 ["~a","~b","~json","~proto"]"#),
        // Registered again it is a new version, of the same id.
        ("POST", "/subjects/~a/versions", schema(ORDER), r##"200 {"id":"#1"}"##),
        ("GET", "/subjects/~a/versions", none(), "200 [4]"),
        ("DELETE", "/subjects/~a", none(), "200 [4]"),
        ("DELETE", "/subjects/~a?permanent=true", none(), "200 [3,4]"),
        ("GET", "/subjects?deleted=true", none(), r#"200 ["~b","~json","~proto"]"#),
        // A subject that may not be written.
        ("PUT", "/mode/~b", mode("READONLY"), r#"200 {"mode":"READONLY"}"#),
        ("GET", "/mode/~b", none(), r#"200 {"mode":"READONLY"}"#),
        ("POST", "/subjects/~b/versions", schema(ORDER_NOTE), "422 42205"),
        ("GET", "/subjects/~b/versions", none(), "200 [1]"),
        ("DELETE", "/mode/~b", none(), r#"200 {"mode":"READONLY"}"#),
        ("POST", "/subjects/~b/versions", schema(ORDER_NOTE), r##"200 {"id":"#7"}"##),
    ]
}

/// A kind of registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Embedded,
    Apicurio,
    /// Redpanda's, Confluent's, and others without a list of their own.
    Other,
}

/// Responses of a registry that differ: method and path, the expected response, those that it gives, and why that does no harm.
type Known = (&'static str, &'static str, &'static [&'static str], &'static str);

const APICURIO: &[Known] = &[
    (
        "GET /config/~a",
        "404 40408",
        &["404 40401", r#"200 {"compatibilityLevel":"NONE"}"#],
        "without a level of its own an existing subject shows the global one; one that does not exist is not found",
    ),
    ("GET /mode/~a", "404 40409", &[r#"200 {"mode":"READWRITE"}"#], "the mode is always that in scope"),
    ("GET /subjects/~a/versions/x", "422 42202", &["404 40402"], "a version that is none is not found"),
    ("GET /subjects/~a/versions/0", "422 42202", &["404 40402"], "the same"),
    ("POST /subjects/~a/versions", "422 42201", &["500 0"], "an empty request is an internal error"),
    ("POST /subjects/~a/versions", "400 400", &["400 -"], "the body of this error is not JSON"),
    ("PUT /mode/~a", "422 42204", &["422 42201"], "another code for the same status"),
    ("DELETE /subjects/~a/versions/2?permanent=true", "404 40407", &["409 40407"], "another status for the same code"),
    ("DELETE /subjects/~a/versions/2", "404 40406", &["409 40406"], "the same"),
    ("DELETE /subjects/~a?permanent=true", "404 40405", &["409 40405"], "the same"),
    ("GET /subjects/~b/versions/1/referencedby", "200 []", &[r##"200 ["#4"]"##], "references outlive their schema"),
    ("DELETE /subjects/~a", "200 [1]", &["200 [1,3]"], "deletes what is deleted again"),
    (
        "DELETE /subjects/~a",
        "200 [4]",
        &["200 [1,3,4]"],
        "the same; and a schema that comes back leaves its old version",
    ),
    ("DELETE /subjects/~a?permanent=true", "200 [3,4]", &["200 [1,3,4]"], "the same"),
    ("POST /subjects/~b/versions", "422 42205", &[r##"200 {"id":"#2"}"##], "the mode of a subject has no effect"),
    ("GET /subjects/~b/versions", "200 [1]", &["200 [1,2]"], "the same"),
    ("POST /subjects/~b/versions", r##"200 {"id":"#7"}"##, &[r##"200 {"id":"#2"}"##], "a schema keeps its id"),
];

struct Session {
    client: Client,
    prefix: String,
    /// Ids in their order of appearance.
    ids: Vec<u64>,
}

impl Session {
    fn new(url: &str) -> Self {
        let run = Uuid::new_v4().simple().to_string();
        Self { client: Client::new(url), prefix: format!("ailurus-test-{}-", &run[..8]), ids: Vec::new() }
    }

    async fn response(&mut self, method: &str, path: &str, body: &str) -> String {
        let path = self.filled(path);
        let response = self.client.send(method, &path, &self.filled(body)).await;
        self.normalized(&path, &response)
    }

    /// Puts the run's prefix for `~`, and ids for `#1`.
    fn filled(&self, text: &str) -> String {
        let mut text = text.replace('~', &self.prefix);
        for (i, id) in self.ids.iter().enumerate() {
            text = text.replace(&format!("#{}", i + 1), &id.to_string());
        }
        text
    }

    fn normalized(&mut self, path: &str, response: &Response) -> String {
        let of = match path {
            "/schemas/types" => "types",
            path if path.ends_with("/referencedby") => "id",
            _ => "",
        };
        let body = response.json();
        let body = match &body {
            // Bodies of errors need not be JSON.
            _ if response.status >= 400 => body["error_code"].as_u64().map_or("-".to_owned(), |code| code.to_string()),
            Value::Object(object) if object.contains_key("fields") || object.contains_key("properties") => named(&body),
            body => self.value(of, body).to_string(),
        };
        let body = SCHEMAS.iter().fold(body, |body, name| body.replace(&format!("\"{name}\""), name));
        format!("{} {}", response.status, body.replace(&self.prefix, "~"))
    }

    /// Leaves out what has no meaning here, such as GUIDs and subjects of others.
    fn value(&mut self, name: &str, value: &Value) -> Value {
        const KEPT: [&str; 12] = [
            "id",
            "schema",
            "subject",
            "version",
            "schemaType",
            "references",
            "name",
            "is_compatible",
            "compatibility",
            "compatibilityLevel",
            "mode",
            "error_code",
        ];
        match (name, value) {
            ("id", Value::Number(id)) => self.id(id.as_u64().expect("an id")),
            ("schema", Value::String(text)) => {
                let parsed = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.trim().to_owned()));
                Value::String(named(&parsed))
            }
            (_, Value::Object(object)) => {
                // A new registry also responds with version, GUID and schema to a registration.
                let is_registration = object.contains_key("id") && !object.contains_key("subject");
                let is_kept = |n: &str| KEPT.contains(&n) && (n == "id" || !is_registration);
                let mut kept: Vec<_> = object.iter().filter(|(n, _)| is_kept(n)).collect();
                // AVRO is the default, and no references are the same as an empty list.
                kept.retain(|(n, v)| !(*n == "schemaType" && **v == "AVRO" || *n == "references" && **v == json!([])));
                kept.sort_by(|a, b| a.0.cmp(b.0));
                Value::Object(kept.into_iter().map(|(n, v)| (n.clone(), self.value(n, v))).collect::<Map<_, _>>())
            }
            (_, Value::Array(values)) => {
                let is_of_run = |v: &&Value| match v.as_str().or_else(|| v["subject"].as_str()) {
                    Some(text) => text.starts_with(&self.prefix) || matches!(name, "types" | "references"),
                    None => true,
                };
                let mut values: Vec<_> = values.iter().filter(is_of_run).cloned().collect();
                values.sort_by_key(|v| {
                    if v.is_string() || v["subject"].is_string() { v.to_string() } else { String::new() }
                });
                values.iter().map(|v| self.value(name, v)).collect()
            }
            (_, other) => other.clone(),
        }
    }

    fn id(&mut self, id: u64) -> Value {
        let at = self.ids.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        Value::String(format!("#{}", at + 1))
    }
}

const SCHEMAS: [&str; 6] = ["ORDER", "ORDER_NOTE", "ORDER_TOTAL", "BASKET", "PERSON", "PROTO"];

/// Returns the name of a schema of this test; the schema if it has none.
fn named(schema: &Value) -> String {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.trim().to_owned()));
    let texts = [ORDER, ORDER_NOTE, ORDER_TOTAL, BASKET, PERSON, PROTO];
    let known = SCHEMAS.iter().zip(texts).find(|(_, text)| parsed(text) == *schema);
    known.map_or_else(|| schema.to_string(), |(name, _)| (*name).to_owned())
}

/// Returns the responses that differ from what is expected, as (step, expected, response).
async fn differences(url: &str, kind: Kind) -> Vec<String> {
    let known = match kind {
        Kind::Apicurio => APICURIO,
        Kind::Embedded | Kind::Other => &[],
    };
    let mut session = Session::new(url);
    let mut different = Vec::new();
    for (n, (method, path, body, expected)) in steps().into_iter().enumerate() {
        let response = session.response(method, path, &body).await;
        let step = format!("{method} {path}");
        let is_known = |(of, instead, responses, _): &Known| {
            *of == step && *instead == expected && responses.contains(&response.as_str())
        };
        if response != expected && !known.iter().any(is_known) {
            different
                .push(format!("step {n}: {method} {path} {body}\n    expected {expected}\n    but is   {response}"));
        }
    }
    // What is left goes, so that the registry is as it was.
    for subject in ["~a", "~b", "~basket", "~json", "~proto"] {
        session.response("DELETE", &format!("/subjects/{subject}"), "").await;
        session.response("DELETE", &format!("/subjects/{subject}?permanent=true"), "").await;
    }
    different
}

#[tokio::test]
async fn the_embedded_registry_responds_as_expected() {
    let registry = Registry::start().await.expect("a registry");
    let different = differences(&registry.url(), Kind::Embedded).await;
    assert!(different.is_empty(), "{}", different.join("\n"));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_real_registry_responds_the_same() {
    let Ok(url) = std::env::var("AILURUS_TEST_REGISTRY") else {
        eprintln!("AILURUS_TEST_REGISTRY is not set: the embedded registry was not compared with a real one");
        return;
    };
    let kind = if url.contains("/apis/ccompat") { Kind::Apicurio } else { Kind::Other };
    let different = differences(&url, kind).await;
    assert!(different.is_empty(), "{url} responds differently ({kind:?}):\n{}", different.join("\n"));
}
