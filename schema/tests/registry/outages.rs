//! Failures: what is retried, and where; what is not; what is shared and cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ailurus_schema::registry::{Deletion, RegisterOptions, SubjectFilter};
use ailurus_schema::{Schema, SchemaErrorKind, SchemaRegistry, Version};
use tokio::sync::Semaphore;

use crate::quick;
use crate::server::{Reply, Server, error, ok};

const INT: &str = r#"{"subject":"a","version":1,"id":7,"schema":"\"int\""}"#;

/// Returns a URL at which nothing listens.
async fn closed_url() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn outages_are_retried() {
    let server = Server::start(|number, _| match number {
        0 => error(500, 50001, "Error in the backend datastore"),
        1 => Reply::Close,
        2 => Reply::Other(503, "text/html", b"<h1>overloaded</h1>".to_vec()),
        3 => error(429, 42901, "Too many requests"),
        _ => ok(INT),
    })
    .await;
    let registry = quick([&server.url]).retries(4).build().unwrap();
    assert_eq!(registry.version("a", Version::Latest).await.unwrap().id, 7);
    assert_eq!(server.lines().len(), 5);
}

#[tokio::test]
async fn rejections_are_not_retried() {
    for (status, code, kind) in [
        (409, 409, SchemaErrorKind::Incompatible),
        (422, 42201, SchemaErrorKind::InvalidSchema),
        (422, 42205, SchemaErrorKind::Rejected),
        (404, 40401, SchemaErrorKind::NotFound),
        (403, 40301, SchemaErrorKind::Authorization),
        (501, 501, SchemaErrorKind::Rejected),
    ] {
        let server = Server::start(move |_, _| error(status, code, "field \\\"a\\\" has no default")).await;
        let registry = quick([&server.url, &closed_url().await]).build().unwrap();
        let failed = registry.register("a", &Schema::avro("\"int\""), RegisterOptions::new()).await.unwrap_err();
        assert_eq!((failed.kind(), failed.code(), failed.status()), (kind, Some(code), Some(status)));
        assert!(failed.to_string().contains("field \"a\" has no default"), "{failed}");
        assert!(!failed.is_retriable());
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn the_next_url_is_tried_and_stays() {
    let server = Server::start(|_, _| ok("[]")).await;
    let registry = quick([closed_url().await, server.url.clone()]).retries(0).build().unwrap();
    for _ in 0..3 {
        registry.subjects(&SubjectFilter::default()).await.unwrap();
    }
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_registry_that_hangs_is_left_for_the_next_one() {
    let hangs = Server::start(|_, _| Reply::Never).await;
    let server = Server::start(|_, _| ok("[]")).await;
    let registry = quick([&hangs.url, &server.url]).request_timeout(Duration::from_millis(50)).retries(99).build();
    registry.unwrap().subjects(&SubjectFilter::default()).await.unwrap();
    assert!(!hangs.lines().is_empty());
}

#[tokio::test]
async fn the_deadline_ends_a_call() {
    let hangs = Server::start(|_, _| Reply::Never).await;
    let registry = quick([&hangs.url]).timeout(Duration::from_millis(50)).build().unwrap();
    let failed = registry.subjects(&SubjectFilter::default()).await.unwrap_err();
    assert!(failed.is_retriable());
    let text = failed.to_string();
    assert!(text.contains("listing subjects at http://127.0.0.1:") && text.contains("no response within"), "{text}");

    let registry = quick([closed_url().await, closed_url().await]).retries(1).build().unwrap();
    let failed = registry.subjects(&SubjectFilter::default()).await.unwrap_err();
    let text = failed.to_string();
    assert!(text.contains("refused the connection (is a registry running there?)"), "{text}");
    assert!(text.contains("the last of 2 URLs") && text.contains("4 attempts within"), "{text}");
    assert_eq!(ailurus::Error::from(failed).kind(), ailurus::ErrorKind::Connect);
}

#[tokio::test]
async fn a_deletion_that_may_have_happened_is_not_repeated() {
    let server = Server::start(|number, _| if number == 0 { ok("[]") } else { Reply::Close }).await;
    let registry = quick([&server.url]).build().unwrap();
    registry.subjects(&SubjectFilter::default()).await.unwrap();
    let failed = registry.delete_subject("a", Deletion::Soft).await.unwrap_err();
    assert!(failed.to_string().contains("it may have been deleted"), "{failed}");
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn what_is_no_registry_is_named_as_such() {
    let server = Server::start(|number, _| match number {
        0 => Reply::Other(200, "text/html", b"<h1>Hello</h1>".to_vec()),
        1 => Reply::Other(404, "text/plain", b"404 page not found".to_vec()),
        2 => Reply::Other(200, "application/json", b"[\"a\"]".to_vec()),
        _ => Reply::Other(200, "application/json", vec![b' '; (16 << 20) + 1]),
    })
    .await;
    let (registry, all) = (quick([&server.url]).build().unwrap(), SubjectFilter::default());
    let failed = registry.subjects(&all).await.unwrap_err();
    assert_eq!(failed.kind(), SchemaErrorKind::Protocol);
    assert!(failed.to_string().contains("not a schema registry's") && failed.to_string().contains("Hello"), "{failed}");
    let failed = registry.subjects(&all).await.unwrap_err();
    assert!(failed.to_string().contains("is it the URL of a schema registry?"), "{failed}");
    assert_eq!(registry.subjects(&all).await.unwrap(), ["a"], "the other media type is read, too");
    let failed = registry.subjects(&all).await.unwrap_err();
    assert!(failed.to_string().contains("exceeds 16777216 bytes"), "{failed}");
}

#[tokio::test]
async fn one_request_per_id_is_in_flight_and_failures_are_not_cached() {
    let (ready, fails) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(true)));
    let (gate, failing) = (ready.clone(), fails.clone());
    let server = Server::start(move |_, _| {
        let reply = if failing.load(Ordering::Relaxed) { error(404, 40403, "Schema not found") } else { ok(INT) };
        Reply::After(gate.clone(), Box::new(reply))
    })
    .await;
    let registry = quick([&server.url]).build().unwrap();
    let get = |registry: SchemaRegistry| tokio::spawn(async move { registry.resolved_by_id(7).await });
    let all: Vec<_> = (0..20).map(|_| get(registry.clone())).collect();
    ready.add_permits(1);
    for task in all {
        assert!(task.await.unwrap().unwrap_err().is_not_found());
    }
    let failures = server.lines().len();
    fails.store(false, Ordering::Relaxed);
    ready.add_permits(100);
    let all: Vec<_> = (0..20).map(|_| get(registry.clone())).collect();
    for task in all {
        assert_eq!(task.await.unwrap().unwrap().schema, Schema::avro("\"int\""));
    }
    assert_eq!(server.lines().len(), failures + 1);
}
