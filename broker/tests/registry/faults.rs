//! Faults, and a registry that is down.

use std::sync::Arc;
use std::time::Duration;

use ailurus_broker::registry::{Registry, RegistryFault};

use super::client::{Client, schema};

#[tokio::test]
async fn injected_faults_come_in_their_order() {
    let registry = Registry::start().await.expect("a registry");
    let client = Client::new(&registry.url());
    let error = RegistryFault::Error { status: 503, error_code: 50004, message: "no primary".into() };
    registry.inject(2, error);
    registry.inject(1, RegistryFault::Close);
    let page = "<html>busy</html>".to_owned();
    registry.inject(1, RegistryFault::Response { status: 502, content_type: "text/html".into(), body: page.clone() });
    registry.inject(1, RegistryFault::Delay(Duration::from_millis(1)));
    for _ in 0..2 {
        let response = client.send("GET", "/subjects", "").await;
        assert_eq!((response.status, response.code()), (503, Some(50004)));
    }
    assert!(client.try_send("GET", "/subjects", "").await.is_err());
    let response = client.send("GET", "/subjects", "").await;
    assert_eq!((response.status, response.content_type.as_str(), response.text), (502, "text/html", page));
    for _ in 0..2 {
        assert_eq!(client.send("GET", "/subjects", "").await.text, "[]");
    }
    assert_eq!(registry.request_count(), 6);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_lost_response_leaves_the_schema_registered() {
    let registry = Registry::start().await.expect("a registry");
    let client = Client::new(&registry.url());
    registry.set_hook(|request| (request.method == "POST").then_some(RegistryFault::DropResponse));
    assert!(client.try_send("POST", "/subjects/a/versions", &schema("\"int\"")).await.is_err());
    registry.clear_faults();
    assert_eq!(client.send("POST", "/subjects/a/versions", &schema("\"int\"")).await.json()["id"], 1);
    let requests: Vec<_> = registry.requests().iter().map(ToString::to_string).collect();
    assert_eq!(requests, ["POST /subjects/a/versions"; 2]);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_stopped_registry_refuses_connections_and_keeps_its_schemas() {
    let registry = Arc::new(Registry::start().await.expect("a registry"));
    let client = Client::new(&registry.url());
    client.send("POST", "/subjects/a/versions", &schema("\"int\"")).await;
    // A request that hangs ends with the connection.
    registry.inject(1, RegistryFault::Hang);
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.try_send("GET", "/subjects", "").await }
    });
    while registry.request_count() < 2 {
        tokio::task::yield_now().await;
    }
    registry.stop().await;
    assert!(hanging.await.expect("the request").is_err());
    assert!(client.try_send("GET", "/subjects", "").await.is_err());
    registry.stop().await;
    registry.restart().await.expect("its port");
    registry.restart().await.expect("it is up already");
    assert_eq!(client.send("GET", "/subjects", "").await.text, r#"["a"]"#);
}
