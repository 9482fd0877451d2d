//! Control of a subscription over HTTP.

#![allow(clippy::unwrap_used)]

use ailurus::{Client, Config, Message, Secret};
use ailurus_broker::{Broker, BrokerConfig};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

async fn call(app: &Router, token: &str, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_subscription_is_controlled_by_those_who_have_the_token() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build().unwrap()).await.unwrap();
    let handler = |message: Message| async move { drop(message) };
    let subscription = client.processor("billing").subscribe(["orders"], handler).await.unwrap();
    subscription.control().caught_up().await.unwrap();
    let routes = ailurus_serve::control::router(Secret::from("s3cret"), [subscription.control()]);
    let app: Router = Router::new().nest("/control", routes);
    let post = async |path: &str, body: Value| call(&app, "s3cret", "POST", path, &body).await;

    for token in ["", "s3cre", "s3cret2"] {
        let (code, body) = call(&app, token, "POST", "/control/billing/pause", &json!({})).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED, "{token}: {body}");
    }
    assert_eq!(subscription.control().paused(), []);

    let (code, body) = post("/control/billing/pause", json!({"topic": "orders"})).await;
    assert_eq!((code, &body["paused"]), (StatusCode::OK, &json!(["orders"])), "{body}");
    let (code, body) = post("/control/billing/resume", json!({})).await;
    assert_eq!((code, &body["paused"]), (StatusCode::OK, &json!([])), "{body}");
    let (code, body) = post("/control/billing/concurrency", json!({"concurrency": 3})).await;
    assert_eq!((code, &body["concurrency"]), (StatusCode::OK, &json!(3)), "{body}");
    let seek = json!({"topic": "orders", "partition": 0, "to": "beginning"});
    let (code, body) = post("/control/billing/seek", seek).await;
    assert_eq!((code, &body["offset"]), (StatusCode::OK, &json!(0)), "{body}");
    let (code, body) = call(&app, "s3cret", "GET", "/control", &Value::Null).await;
    assert_eq!((code, body), (StatusCode::OK, json!([{"group": "billing", "concurrency": 3, "paused": []}])));

    for (path, body, expected) in [
        ("/control/other/pause", json!({}), StatusCode::NOT_FOUND),
        ("/control/billing/pause", json!({"partition": 1}), StatusCode::BAD_REQUEST),
        ("/control/billing/pause", json!({"topics": 1}), StatusCode::BAD_REQUEST),
        ("/control/billing/pause", json!({"topic": "orders", "partition": 7}), StatusCode::CONFLICT),
        ("/control/billing/concurrency", json!({"concurrency": 0}), StatusCode::BAD_REQUEST),
        ("/control/billing/seek", json!({"topic": "orders", "partition": 0, "to": "soon"}), StatusCode::BAD_REQUEST),
        ("/control/billing/seek", json!({"topic": "orders", "partition": 0, "to": 99}), StatusCode::BAD_REQUEST),
    ] {
        let (code, response) = post(path, body.clone()).await;
        assert_eq!(code, expected, "{path} {body}: {response}");
        assert!(response["error"].is_string(), "{path} {body}: {response}");
    }
    subscription.shutdown().await.unwrap();
    let (code, body) = post("/control/billing/pause", json!({})).await;
    assert_eq!(code, StatusCode::CONFLICT, "{body}");
    client.close().await;
}

#[tokio::test]
async fn an_empty_token_lets_nobody_in() {
    let app = ailurus_serve::control::router(Secret::default(), []);
    let (code, _) = call(&app, "", "GET", "/", &Value::Null).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
}
