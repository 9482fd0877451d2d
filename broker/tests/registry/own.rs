//! Requests to the embedded registry alone: contexts, imports, listings, media types, credentials.

use ailurus_broker::registry::{Registry, RegistryConfig};
use serde_json::{Value, json};

use super::client::{Client, schema, schema_of};

const A: &str = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}"#;
const B: &str = r#"{"type":"record","name":"B","fields":[{"name":"a","type":"A"}]}"#;

async fn started() -> (Registry, Client) {
    let registry = Registry::start().await.expect("a registry");
    let client = Client::new(&registry.url());
    (registry, client)
}

#[tokio::test]
async fn contexts_have_their_own_ids_and_subjects() {
    let (_registry, client) = started().await;
    let id = |response: super::client::Response| response.json()["id"].as_u64();
    assert_eq!(id(client.send("POST", "/subjects/first/versions", &schema("\"int\"")).await), Some(1));
    assert_eq!(id(client.send("POST", "/subjects/a/versions", &schema(A)).await), Some(2));
    assert_eq!(id(client.send("POST", "/subjects/:.staging:a/versions", &schema(A)).await), Some(1));
    assert_eq!(id(client.send("POST", "/contexts/.staging/subjects/c/versions", &schema("\"long\"")).await), Some(2));
    assert_eq!(client.send("GET", "/contexts", "").await.json(), json!([".", ".staging"]));
    let get = async |path: &str| client.send("GET", path, "").await.json();
    assert_eq!(get("/subjects").await, json!(["a", "first", ":.staging:a", ":.staging:c"]));
    assert_eq!(get("/contexts/:.staging:/subjects").await, json!([":.staging:a", ":.staging:c"]));
    assert_eq!(get("/subjects?subjectPrefix=:.staging:").await, json!([":.staging:a", ":.staging:c"]));
    assert_eq!(get("/subjects?subjectPrefix=:*:a").await, json!(["a", ":.staging:a"]));
    assert_eq!(get("/subjects?subjectPrefix=f").await, json!(["first"]));
    // An id without a context is the default one's; with a subject, that of the context that has it.
    assert_eq!(get("/schemas/ids/1").await["schema"], "\"int\"");
    assert_eq!(get("/schemas/ids/1?subject=:.staging:a").await["schema"], A);
    assert_eq!(get("/schemas/ids/2?subject=c").await["schema"], "\"long\"");
    assert_eq!(
        get("/schemas/ids/1/versions?subject=:.staging:").await,
        json!([{"subject": ":.staging:a", "version": 1}])
    );
    // The same schema has the same GUID everywhere.
    let guid = get("/schemas/ids/2").await["guid"].as_str().map(str::to_owned).expect("a GUID");
    assert_eq!(get(&format!("/schemas/guids/{guid}")).await["schema"], A);
    let ids = get(&format!("/schemas/guids/{guid}/ids")).await;
    assert_eq!(ids, json!([{"context": ".", "id": 2}, {"context": ".staging", "id": 1}]));
    assert_eq!(client.send("GET", "/schemas/guids/none", "").await.code(), Some(40403));
}

#[tokio::test]
async fn schemas_are_imported_with_their_ids() {
    let (_registry, client) = started().await;
    let import = |id: u32, version: u32| json!({"schema": A, "id": id, "version": version}).to_string();
    assert_eq!(client.send("POST", "/subjects/a/versions", &import(700, 3)).await.code(), Some(42205));
    assert_eq!(client.send("PUT", "/mode/a", r#"{"mode":"IMPORT"}"#).await.status, 200);
    assert_eq!(client.send("POST", "/subjects/a/versions", &schema(A)).await.code(), Some(42205));
    assert_eq!(client.send("POST", "/subjects/a/versions", &import(700, 3)).await.json()["id"], 700);
    assert_eq!(client.send("GET", "/subjects/a/versions", "").await.json(), json!([3]));
    let other = json!({"schema": "\"int\"", "id": 700}).to_string();
    assert_eq!(client.send("POST", "/subjects/a/versions", &other).await.code(), Some(42205));
    // New ids follow the imported ones.
    assert_eq!(client.send("POST", "/subjects/b/versions", &schema("\"int\"")).await.json()["id"], 701);
    assert_eq!(client.send("PUT", "/mode/b", r#"{"mode":"IMPORT"}"#).await.code(), Some(42205));
    assert_eq!(client.send("PUT", "/mode/b?force=true", r#"{"mode":"IMPORT"}"#).await.status, 200);
    assert_eq!(client.send("DELETE", "/mode/a", "").await.json(), json!({"mode": "IMPORT"}));
    assert_eq!(client.send("GET", "/mode/a?defaultToGlobal=true", "").await.json(), json!({"mode": "READWRITE"}));
}

#[tokio::test]
async fn all_versions_are_listed_for_an_export() {
    let (_registry, client) = started().await;
    client.send("POST", "/subjects/a/versions", &schema(A)).await;
    client.send("POST", "/subjects/b/versions", &schema_of("AVRO", B, &[("A", "a", 1)])).await;
    client.send("POST", "/subjects/b/versions", &schema(A)).await;
    let all = client.send("GET", "/schemas", "").await.json();
    let of = |all: &Value| {
        let pairs = all.as_array().into_iter().flatten();
        pairs.map(|v| format!("{} {}", v["subject"].as_str().unwrap_or(""), v["version"])).collect::<Vec<_>>()
    };
    assert_eq!(of(&all), ["a 1", "b 1"], "B and A have different names, so the third was refused: {all}");
    client.send("PUT", "/config", r#"{"compatibility":"NONE"}"#).await;
    client.send("POST", "/subjects/b/versions", &schema(A)).await;
    assert_eq!(of(&client.send("GET", "/schemas", "").await.json()), ["a 1", "b 1", "b 2"]);
    assert_eq!(of(&client.send("GET", "/schemas?latestOnly=true", "").await.json()), ["a 1", "b 2"]);
    assert_eq!(of(&client.send("GET", "/schemas?subjectPrefix=b&offset=1", "").await.json()), ["b 2"]);
    assert_eq!(client.send("DELETE", "/config", "").await.json(), json!({"compatibilityLevel": "NONE"}));
    assert_eq!(client.send("GET", "/config", "").await.json(), json!({"compatibilityLevel": "BACKWARD"}));
}

#[tokio::test]
async fn verbose_checks_name_what_is_wrong() {
    let (_registry, client) = started().await;
    client.send("POST", "/subjects/a/versions", &schema(A)).await;
    let with_y = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"},{"name":"y","type":"int"}]}"#;
    let path = "/compatibility/subjects/a/versions/latest?verbose=true";
    let messages = client.send("POST", path, &schema(with_y)).await.json()["messages"].to_string();
    assert!(messages.contains("READER_FIELD_MISSING_DEFAULT_VALUE") && messages.contains("/fields/1"), "{messages}");
    assert!(messages.contains("oldSchemaVersion: 1") && messages.contains("'BACKWARD'"), "{messages}");
    let refused = client.send("POST", "/subjects/a/versions", &schema(with_y)).await;
    assert!(refused.text.contains("/fields/1"), "{refused:?}");
    let compatible = client.send("POST", path, &schema(A)).await.json();
    assert_eq!(compatible, json!({"is_compatible": true, "messages": []}));
    let invalid = client.send("POST", path, &schema("nope")).await.json();
    assert_eq!(invalid["is_compatible"], false);
}

#[tokio::test]
async fn normalized_schemas_are_equal_in_any_order() {
    let (_registry, client) = started().await;
    let one = schema_of("JSON", r#"{"type":"object","title":"A"}"#, &[]);
    let other = schema_of("JSON", r#"{"title":"A","type":"object"}"#, &[]);
    assert_eq!(client.send("POST", "/subjects/a/versions?normalize=true", &one).await.json()["id"], 1);
    assert_eq!(client.send("POST", "/subjects/a/versions?normalize=true", &other).await.json()["id"], 1);
    assert_eq!(client.send("POST", "/subjects/b/versions", &one).await.json()["id"], 2);
    client.send("PUT", "/config/b", r#"{"normalize":true}"#).await;
    assert_eq!(client.send("POST", "/subjects/b/versions", &one).await.json()["id"], 1);
    // Metadata makes another schema, and is returned.
    let tagged = json!({"schema": "\"int\"", "metadata": {"properties": {"owner": "shop"}}}).to_string();
    let id = client.send("POST", "/subjects/c/versions", &tagged).await.json()["id"].clone();
    let plain = client.send("POST", "/subjects/c/versions", &schema("\"int\"")).await.json()["id"].clone();
    assert_ne!(id, plain);
    let read = client.send("GET", &format!("/schemas/ids/{id}"), "").await.json();
    assert_eq!(read["metadata"]["properties"]["owner"], "shop");
}

#[tokio::test]
async fn media_types_and_paths_are_checked() {
    let (registry, client) = started().await;
    let v1 = "application/vnd.schemaregistry.v1+json";
    for (accept, content_type) in [
        (v1, v1),
        ("application/json", "application/json"),
        ("application/vnd.schemaregistry+json", "application/vnd.schemaregistry+json"),
        ("text/html, */*;q=0.1", v1),
    ] {
        let response = client.clone().header("accept", accept).send("GET", "/subjects", "").await;
        assert_eq!((response.status, response.content_type.as_str()), (200, content_type), "{accept}");
    }
    let status = async |client: Client, method: &str, path: &str| client.send(method, path, "{}").await.status;
    assert_eq!(status(client.clone().header("accept", "text/html"), "GET", "/subjects").await, 406);
    assert_eq!(status(client.clone().header("content-type", "text/plain"), "PUT", "/config").await, 415);
    assert_eq!(
        status(client.clone().header("content-type", "application/json; charset=utf-8"), "PUT", "/config").await,
        200
    );
    assert_eq!(status(client.clone(), "GET", "/nothing").await, 404);
    assert_eq!(status(client.clone(), "PATCH", "/subjects").await, 405);
    assert_eq!(status(client.clone(), "GET", "/schemas/ids/x").await, 404);
    assert_eq!(status(client.clone(), "GET", "/subjects?deleted=perhaps").await, 400);
    // Subjects with every character that a path escapes.
    assert_eq!(client.send("POST", "/subjects/a%2Fb%20%C3%A9%3F/versions", &schema(A)).await.status, 200);
    assert_eq!(client.send("GET", "/subjects", "").await.json(), json!(["a/b é?"]));
    assert_eq!(client.send("POST", "/subjects/a%0Ab/versions", &schema(A)).await.code(), Some(42208));
    let long = schema(&format!("\"{}\"", "x".repeat(17 << 20)));
    let refused = client.try_send("POST", "/subjects/long/versions", &long).await;
    // The response may be lost with the rest of the body, as the connection is closed.
    assert!(refused.map_or(true, |response| response.status == 413));
    registry.shutdown().await;
}

#[tokio::test]
async fn credentials_are_required_where_they_are_set() {
    let config = RegistryConfig::default().basic_auth("alice", "secret").bearer_token("t-1");
    let registry = Registry::start_with(config).await.expect("a registry");
    let client = Client::new(&registry.url());
    let status =
        async |value: &str| client.clone().header("authorization", value).send("GET", "/subjects", "").await.status;
    assert_eq!(client.send("GET", "/subjects", "").await.status, 401);
    assert_eq!(status("Basic YWxpY2U6c2VjcmV0").await, 200);
    assert_eq!(status("Bearer t-1").await, 200);
    assert_eq!(status("Bearer t-2").await, 401);
}
