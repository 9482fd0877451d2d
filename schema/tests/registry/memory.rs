//! A registry in memory, as far as codecs need one: it gives ids, and checks nothing.

use std::sync::{Arc, Mutex};

use ailurus::event::{Codec, EncodedValue};
use ailurus_schema::{Schema, Uuid};
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server, error, ok};

/// Subject and body of each registration; its index is its id.
type Schemas = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a registry. Each schema that is registered is a version of its own.
pub async fn start() -> Server {
    let schemas = Schemas::default();
    Server::start(move |_, request| respond(&schemas, request)).await
}

/// Returns the GUID of the schema with this id.
fn guid(id: usize) -> Uuid {
    Uuid::from_u128(0xA11 + id as u128)
}

fn respond(schemas: &Schemas, request: &Request) -> Reply {
    let mut schemas = schemas.lock().unwrap();
    let body = || serde_json::from_str::<Value>(&request.body).unwrap();
    let path = request.path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let described = |id: usize, subject: &str, schema: &Value| {
        let versions = schemas[..=id].iter().filter(|(s, _)| s == subject).count();
        let mut found = schema.clone();
        found["id"] = json!(id);
        found["subject"] = json!(subject);
        found["version"] = json!(versions);
        found["guid"] = json!(guid(id));
        ok(&found.to_string())
    };
    match (request.method.as_str(), &parts[..]) {
        ("POST", ["subjects", subject, "versions"]) => {
            schemas.push(((*subject).to_owned(), body()));
            let id = schemas.len() - 1;
            ok(&json!({"id": id, "guid": guid(id)}).to_string())
        }
        ("POST", ["subjects", subject]) => {
            let same = |(s, schema): &(String, Value)| s == subject && *schema == body();
            match schemas.iter().position(same) {
                Some(id) => described(id, subject, &schemas[id].1),
                None => error(404, 40403, "Schema not found"),
            }
        }
        ("GET", ["subjects", subject, "versions", version]) => {
            let of_subject: Vec<usize> = (0..schemas.len()).filter(|id| schemas[*id].0 == *subject).collect();
            let id = match version.parse::<usize>() {
                Ok(version) => of_subject.get(version - 1),
                Err(_) => of_subject.last(),
            };
            match id {
                Some(id) => described(*id, subject, &schemas[*id].1),
                None => error(404, 40401, "Subject not found."),
            }
        }
        ("GET", ["schemas", "ids", id]) => match id.parse().ok().and_then(|id: usize| schemas.get(id)) {
            Some((_, schema)) => ok(&schema.to_string()),
            None => error(404, 40403, "Schema not found"),
        },
        ("GET", ["schemas", "guids", wanted]) => match (0..schemas.len()).find(|id| guid(*id).to_string() == *wanted) {
            Some(id) => ok(&schemas[id].1.to_string()),
            None => error(404, 40403, "Schema not found"),
        },
        _ => panic!("unexpected: {}", request.line()),
    }
}

/// Decodes an encoded event.
pub async fn decode<T>(codec: &impl Codec<T>, encoded: &EncodedValue) -> ailurus::Result<T> {
    codec.decode("orders", &encoded.headers, &encoded.value).await
}

pub const ORDER_V1: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "string"}, {"name": "total", "type": "int"}
]}"#;
/// Another order of fields, a wider number, and a field with a default.
pub const ORDER_V2: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "total", "type": "long"}, {"name": "id", "type": "string"},
    {"name": "note", "type": ["null", "string"], "default": null}
]}"#;

pub fn avro(text: &str) -> Schema {
    Schema::avro(text)
}
