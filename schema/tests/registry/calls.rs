//! Each call: its request, and what its response means.

use ailurus::{Secret, TokenSource};
use ailurus_schema::registry::{CompatibilityLevel, Deleted, Deletion, Mode, RegisterOptions, SubjectFilter};
use ailurus_schema::{Schema, SchemaErrorKind, SchemaRegistry, Uuid, Version};

use crate::quick;
use crate::server::{Reply, Server, error, ok};

fn client(server: &Server) -> SchemaRegistry {
    quick([&server.url]).build().unwrap()
}

#[tokio::test]
async fn schemas_are_registered_looked_up_and_read() {
    let server = Server::start(|_, request| match request.line().as_str() {
        "POST /subjects/a%2Fb%20c/versions?normalize=true" => ok(r#"{"id":7,"version":2}"#),
        "POST /subjects/a%2Fb%20c/versions" => ok(r#"{"id":99}"#),
        "POST /subjects/a%2Fb%20c" => ok(r#"{"subject":"a/b c","version":2,"id":7,"schema":"\"int\""}"#),
        "GET /schemas/ids/7" => ok(r#"{"schema":"\"int\""}"#),
        "GET /schemas/guids/00000000-0000-0000-0000-000000000001" => ok(r#"{"schema":"{}","schemaType":"JSON"}"#),
        "GET /subjects/a%2Fb%20c/versions/latest" => {
            ok(r#"{"subject":"a/b c","version":2,"id":7,"schema":"\"int\"","guid":"00000000-0000-0000-0000-000000000001"}"#)
        }
        _ => error(404, 40401, "Subject not found."),
    })
    .await;
    let (registry, schema) = (client(&server), Schema::avro("\"int\""));
    let registered = registry.register("a/b c", &schema, RegisterOptions::new().normalize(true)).await.unwrap();
    assert_eq!((registered.id, registered.version, registered.guid), (7, Some(2), None));
    let imported = registry.register("a/b c", &schema, RegisterOptions::new().import(99, 5)).await.unwrap();
    assert_eq!(imported.id, 99);
    assert_eq!(registry.look_up("a/b c", &schema, false).await.unwrap().version, 2);
    assert_eq!(registry.schema_by_id(7).await.unwrap(), schema);
    assert_eq!(registry.schema_by_guid(Uuid::from_u128(1)).await.unwrap(), Schema::json("{}"));
    let latest = registry.version("a/b c", Version::Latest).await.unwrap();
    assert_eq!((latest.id, latest.guid), (7, Some(Uuid::from_u128(1))));
    let missing = registry.version("b", Version::from(3)).await.unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!((missing.status(), missing.code()), (Some(404), Some(40401)));
    let text = missing.to_string();
    assert!(
        text.contains("reading version 3 of b at http://127.0.0.1:") && text.contains("Subject not found."),
        "{text}"
    );

    let requests = server.requests();
    assert_eq!(requests[0].body, r#"{"schema":"\"int\""}"#);
    assert_eq!(requests[1].body, r#"{"schema":"\"int\"","id":99,"version":5}"#);
    assert_eq!(requests[0].header("content-type"), Some("application/vnd.schemaregistry.v1+json"));
    assert!(requests[0].header("accept").unwrap().contains("application/json"));
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::Relaxed), 1, "the connection is used again");
}

#[tokio::test]
async fn lists_rules_modes_and_deletions() {
    let server = Server::start(|_, request| match request.line().as_str() {
        "GET /subjects" => ok(r#"["b","a"]"#),
        "GET /subjects?deleted=true&subjectPrefix=a" => ok(r#"["b","a2","a1"]"#),
        "GET /subjects/a/versions" => ok("[2,1]"),
        "GET /schemas/ids/7/versions?deleted=true" => ok(r#"[{"subject":"a","version":1}]"#),
        "GET /schemas/ids/7/subjects" => ok(r#"["a"]"#),
        "GET /subjects/a/versions/1/referencedby" => ok("[9]"),
        "GET /schemas/types" => ok(r#"["AVRO","JSON"]"#),
        "GET /contexts" => ok(r#"[".",".staging"]"#),
        "POST /compatibility/subjects/a/versions/latest?verbose=true" => {
            ok(r#"{"is_compatible":false,"messages":["a field is missing"]}"#)
        }
        "POST /compatibility/subjects/a/versions?verbose=true" => ok(r#"{"is_compatible":true}"#),
        "GET /config" => ok(r#"{"compatibilityLevel":"FULL"}"#),
        "GET /config/a?defaultToGlobal=true" => ok(r#"{"compatibilityLevel":"NONE","alias":"x"}"#),
        "PUT /config/a" => ok(&request.body),
        "DELETE /config/a" => ok(r#"{"compatibilityLevel":"FULL"}"#),
        "GET /mode" => ok(r#"{"mode":"READWRITE"}"#),
        "PUT /mode/a?force=true" => ok(&request.body),
        "DELETE /mode/a" => ok(r#"{"mode":"IMPORT"}"#),
        "DELETE /subjects/a" | "DELETE /subjects/a?permanent=true" => ok("[1,2]"),
        "DELETE /subjects/a/versions/2" => ok("2"),
        line => panic!("unexpected: {line}"),
    })
    .await;
    let (registry, schema) = (client(&server), Schema::avro("\"int\""));
    assert_eq!(registry.subjects(&SubjectFilter::default()).await.unwrap(), ["a", "b"]);
    let filter = SubjectFilter::prefix("a").deleted(Deleted::Include);
    assert_eq!(registry.subjects(&filter).await.unwrap(), ["a1", "a2"]);
    assert_eq!(registry.versions("a", Deleted::Exclude).await.unwrap(), [1, 2]);
    assert_eq!(registry.versions_of_id(7, Deleted::Include).await.unwrap()[0].subject, "a");
    assert_eq!(registry.subjects_of_id(7, Deleted::Exclude).await.unwrap(), ["a"]);
    assert_eq!(registry.referenced_by("a", Version::from(1)).await.unwrap(), [9]);
    assert_eq!(registry.schema_types().await.unwrap(), ["AVRO", "JSON"]);
    assert_eq!(registry.contexts().await.unwrap(), [".", ".staging"]);
    let check = registry.check("a", Version::Latest, &schema).await.unwrap();
    assert_eq!((check.is_compatible, check.messages.as_slice()), (false, &["a field is missing".to_owned()][..]));
    assert!(registry.check_all("a", &schema).await.unwrap().is_compatible);
    assert_eq!(registry.compatibility_level(None).await.unwrap(), CompatibilityLevel::Full);
    assert_eq!(registry.compatibility_level(Some("a")).await.unwrap(), CompatibilityLevel::None);
    registry.set_compatibility_level(Some("a"), CompatibilityLevel::BackwardTransitive).await.unwrap();
    registry.delete_compatibility_level("a").await.unwrap();
    assert_eq!(registry.mode(None).await.unwrap(), Mode::ReadWrite);
    registry.set_mode(Some("a"), Mode::Import, true).await.unwrap();
    registry.delete_mode("a").await.unwrap();
    assert_eq!(registry.delete_subject("a", Deletion::Soft).await.unwrap(), [1, 2]);
    assert_eq!(registry.delete_subject("a", Deletion::Hard).await.unwrap(), [1, 2]);
    assert_eq!(registry.delete_version("a", Version::from(2), Deletion::Soft).await.unwrap(), 2);
    let put = server.requests().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(put.body, r#"{"compatibility":"BACKWARD_TRANSITIVE"}"#);
}

#[tokio::test]
async fn a_context_qualifies_subjects_and_ids() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/subjects?subjectPrefix=:.staging:" => ok(r#"[":.staging:a","b"]"#),
        "/schemas/ids/7?subject=:.staging:" => ok(r#"{"schema":"\"int\""}"#),
        "/schemas/ids/7/versions?deleted=true&subject=:.staging:" => ok("[]"),
        "/config/:.staging:" => ok(r#"{"compatibilityLevel":"FULL"}"#),
        "/subjects/:.staging:a/versions/1" | "/subjects/:.other:a/versions/1" => {
            ok(r#"{"subject":":.staging:a","version":1,"id":7,"schema":"\"int\""}"#)
        }
        path => panic!("unexpected: {path}"),
    })
    .await;
    let registry = quick([&server.url]).context(".staging").build().unwrap();
    assert_eq!(registry.subjects(&SubjectFilter::default()).await.unwrap(), [":.staging:a"]);
    registry.schema_by_id(7).await.unwrap();
    registry.versions_of_id(7, Deleted::Include).await.unwrap();
    registry.compatibility_level(None).await.unwrap();
    for subject in ["a", ":.staging:a", ":.other:a"] {
        registry.version(subject, Version::from(1)).await.unwrap();
    }
    assert_eq!(server.lines().len(), 6, "both names of a are one");
    assert!(SchemaRegistry::builder([&server.url]).context("staging").build().is_err());
}

#[tokio::test]
async fn requests_are_authenticated_and_secrets_stay_secret() {
    let server = Server::start(|_, request| match request.header("authorization") {
        Some("Basic YWxpY2U6aHVudGVyMg==" | "Bearer hunter2") => ok("[]"),
        _ => Reply::Other(401, "text/html", b"<h1>Unauthorized</h1>".to_vec()),
    })
    .await;
    let all = SubjectFilter::default();
    let basic = quick([&server.url]).basic_auth("alice", "hunter2").build().unwrap();
    basic.subjects(&all).await.unwrap();
    let bearer = TokenSource::provider(|| async { Ok(Secret::from("hunter2")) });
    quick([&server.url]).bearer_auth(bearer).build().unwrap().subjects(&all).await.unwrap();
    assert!(!format!("{basic:?}").contains("hunter2"));

    let denied = client(&server).subjects(&all).await.unwrap_err();
    assert_eq!(denied.kind(), SchemaErrorKind::Authorization);
    assert!(denied.to_string().ends_with("<h1>Unauthorized</h1>; it requires credentials"), "{denied}");
    let no_token = TokenSource::provider(|| async { Err("the endpoint is down".into()) });
    let error = quick([&server.url]).bearer_auth(no_token).build().unwrap().subjects(&all).await.unwrap_err();
    assert_eq!(error.kind(), SchemaErrorKind::Authorization);
    assert!(error.to_string().contains("no credentials: the endpoint is down"), "{error}");
    let no_file = TokenSource::File("/nonexistent/token".into());
    let error = quick([&server.url]).bearer_auth(no_file).build().unwrap().subjects(&all).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/token can't be read"), "{error}");

    let cleartext = SchemaRegistry::builder(["http://registry:8081"]).basic_auth("alice", "hunter2");
    let error = cleartext.clone().build().unwrap_err();
    assert!(error.to_string().contains("allow_cleartext") && !error.to_string().contains("hunter2"), "{error}");
    cleartext.allow_cleartext(true).build().unwrap();
}

#[tokio::test]
async fn references_are_resolved_once_each_and_before_what_needs_them() {
    // order references customer and money; customer references money, too.
    let server = Server::start(|_, request| match request.path.as_str() {
        "/schemas/ids/1" => ok(
            r#"{"schema":"order","references":[{"name":"Customer","subject":"customer","version":1},{"name":"Money","subject":"money","version":2}]}"#,
        ),
        "/subjects/customer/versions/1?deleted=true" => ok(
            r#"{"subject":"customer","version":1,"id":2,"schema":"customer","references":[{"name":"Money","subject":"money","version":2}]}"#,
        ),
        "/subjects/money/versions/2?deleted=true" => {
            ok(r#"{"subject":"money","version":2,"id":3,"schema":"money","references":[]}"#)
        }
        path => panic!("unexpected: {path}"),
    })
    .await;
    let registry = client(&server);
    let resolved = registry.resolved_by_id(1).await.unwrap();
    let names: Vec<&str> = resolved.references.iter().map(|reference| reference.name.as_str()).collect();
    assert_eq!(names, ["Money", "Customer"]);
    assert_eq!(server.lines().len(), 3);
    registry.resolved_by_id(1).await.unwrap();
    assert_eq!(server.lines().len(), 3, "cached");
}

#[tokio::test]
async fn recursive_and_endless_references_are_errors() {
    let server = Server::start(|number, request| {
        let next = if request.path.starts_with("/subjects/endless") { number as i32 + 1 } else { 1 };
        let subject = if request.path.contains("ids/1") { "endless" } else { "loop" };
        let subject = if request.path.starts_with("/subjects/endless") { "endless" } else { subject };
        ok(&format!(
            r#"{{"subject":"x","version":1,"id":1,"schema":"","references":[{{"name":"N","subject":"{subject}","version":{next}}}]}}"#
        ))
    })
    .await;
    let registry = client(&server);
    let error = registry.resolved_by_id(2).await.unwrap_err();
    assert_eq!(error.kind(), SchemaErrorKind::Protocol);
    assert!(error.to_string().contains("version 1 of loop references itself"), "{error}");
    let error = registry.resolved_by_id(1).await.unwrap_err();
    assert!(error.to_string().contains("64 deep"), "{error}");
    assert!(server.lines().len() < 100);
}
